"""Features against a plain loop, and the streaming around them."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headstart import backbones, data
from headstart.data.images import Images
from headstart.engine.device import Compute
from headstart.evaluate import features
from headstart.records.config import DataConfig

CPU = Compute(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def images() -> Images:
    return data.open_images(DataConfig(sources=("digits",)))


@pytest.fixture(scope="module")
def backbone() -> Any:
    return backbones.build("resnet18", generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("normalised", [False, True])
def test_equals_a_plain_loop(images: Images, backbone: Any, normalised: bool) -> None:
    mean, std = (torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.4, 0.5, 0.6])) if normalised else (None, None)
    rows = np.array([5, 3, 8, 100, 1, 2, 7])
    h = features.extract(backbone, images, rows, size=24, mean=mean, std=std, compute=CPU, batch_size=3)
    x = images.squashed(rows, 24).float() / 255
    if mean is not None and std is not None:
        x = (x - mean[:, None, None]) / std[:, None, None]
    backbone.eval()
    with torch.no_grad():
        expected = torch.cat([backbone(one[None]) for one in x]).numpy()
    assert h.dtype == np.float32
    assert h.shape == (7, 512)
    np.testing.assert_allclose(h, expected, rtol=1e-4, atol=1e-5)


def test_leaves_the_backbone_as_it_was(images: Images, backbone: Any) -> None:
    backbone.train()
    backbone.bn1.eval()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    features.extract(backbone, images, np.arange(4), size=24, mean=None, std=None, compute=CPU)
    assert backbone.training
    assert backbone.layer1.training
    assert not backbone.bn1.training
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.state_dict().items())
    backbone.bn1.train()


def test_progress_counts_every_picture(images: Images, backbone: Any) -> None:
    counts: list[int] = []
    features.extract(
        backbone, images, np.arange(10), size=16, mean=None, std=None, compute=CPU, batch_size=4, progress=counts.append
    )
    assert counts == [4, 4, 2]


def test_no_pictures(images: Images, backbone: Any) -> None:
    h = features.extract(backbone, images, np.arange(0), size=16, mean=None, std=None, compute=CPU)
    assert h.shape == (0, 512)


def test_of_pictures_is_the_same(images: Images, backbone: Any) -> None:
    rows = np.arange(6)
    a = features.extract(backbone, images, rows, size=16, mean=None, std=None, compute=CPU)
    b = features.of_pictures(backbone, images.squashed(rows, 16), mean=None, std=None, compute=CPU)
    np.testing.assert_array_equal(a, b)


def test_bfloat16_comes_back_as_float32(images: Images, backbone: Any) -> None:
    compute = Compute(torch.device("cpu"), torch.bfloat16)
    a = features.extract(backbone, images, np.arange(4), size=16, mean=None, std=None, compute=compute)
    b = features.extract(backbone, images, np.arange(4), size=16, mean=None, std=None, compute=CPU)
    assert a.dtype == np.float32
    assert 0 < np.abs(a - b).max() < 0.1 * np.abs(b).max()


def test_an_error_in_the_backbone_is_raised_and_its_mode_restored(images: Images) -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> None:
            raise RuntimeError("broken")

    module = Broken().train()
    with pytest.raises(RuntimeError, match="broken"):
        features.extract(module, images, np.arange(4), size=16, mean=None, std=None, compute=CPU)
    assert module.training
