"""Frames as a device pads them: those of `Images.batch`, bit for bit."""

from pathlib import Path

import pytest
import torch

from headstart import data
from headstart.data import frames as data_frames
from headstart.data.frames import Frames, padded
from headstart.engine.device import Compute
from headstart.records.config import DataConfig
from tests.device.stages import SIZE, unequal

CPU = Compute(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> data.Images:
    folder: Path = tmp_path_factory.mktemp("unequal") / "pictures"
    return data.open_images(DataConfig(sources=unequal(folder, 24), size=SIZE))


@pytest.mark.parametrize("at_once", [2**23, 1, 5000])
def test_pictures_padded_from_their_bytes(images: data.Images, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_frames, "PIXELS_AT_ONCE", at_once)
    rows = torch.tensor([3, 0, 23, 3, 11])
    expected, sizes = images.batch(rows)
    lengths = 3 * sizes.prod(1)
    here = torch.column_stack([lengths.cumsum(0) - lengths, sizes])
    height, width = expected.shape[2:]
    assert torch.equal(padded(images.flat(rows), here, height, width), expected)
    everything = images.flat(torch.arange(24))
    starts = torch.from_numpy(Frames(images, CPU).starts)[rows]
    assert torch.equal(padded(everything, torch.column_stack([starts, sizes]), height, width), expected)


def test_on_a_cpu_they_are_the_batchs_own(images: data.Images) -> None:
    rows = torch.tensor([7, 2])
    frames, (beside,) = Frames(images, CPU).of(rows, [rows])
    assert torch.equal(frames, images.batch(rows)[0])
    assert torch.equal(beside, rows)
    assert len(images.flat(rows[:0])) == 0
