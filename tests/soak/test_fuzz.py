"""Readers of foreign files under random damage: only our own errors, no crash, no hang over a second."""

import contextlib
import io
import os
import pickle
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from headstart.records.errors import HeadstartError

PER_READER = 10_000
SAMPLE = 150


NUMBERS = (b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00")
WORDS = (b"\x00", b"!!python/object:os.system ", b"=cmd()", b"NaN", b'"', b"\n", b"{", b"1e999")


def damaged(data: bytes, dice: random.Random) -> bytes:
    """A copy with bytes flipped, cut out, repeated, or replaced by numbers that parsers trip over."""
    out = bytearray(data)
    for _ in range(dice.randint(1, 8)):
        at = dice.randrange(len(out)) if out else 0
        match dice.randrange(6):
            case 0:
                out[at : at + 1] = bytes([dice.randrange(256)])
            case 1:
                del out[at : at + dice.randint(1, max(1, len(out) // 4))]
            case 2:
                out[at:at] = out[at : at + dice.randint(1, 64)]
            case 3:
                out[at : at + 4] = dice.choice(NUMBERS)
            case 4:
                del out[at:]
            case 5:
                out[at:at] = dice.choice(WORDS)
        if not out:
            out = bytearray(b"\x00")
    return bytes(out)


def picture(dice: random.Random) -> bytes:
    pixels = np.random.default_rng(dice.randrange(2**31)).integers(0, 255, (12, 9, 3), dtype=np.uint8)
    mode = dice.choice(["RGB", "L", "P"])
    formats = ["PNG", "GIF", "BMP"] + (["JPEG", "TIFF", "WEBP"] if mode != "P" else [])
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, dice.choice(formats))
    return file.getvalue()


def read_one_picture(path: Path) -> None:
    from headstart.data.decode import UnreadableError, read_picture

    with contextlib.suppress(UnreadableError):
        read_picture(path)


def cifar_batch(dice: random.Random) -> bytes:
    content = {b"data": np.zeros((3, 3072), np.uint8), b"labels": [0, 1, 2], b"filenames": [b"x"] * 3}
    return pickle.dumps(content, protocol=2)


def read_cifar(path: Path) -> None:
    from headstart.data import pickles

    pickles.read_pickle(path)


def stl_pictures(dice: random.Random) -> bytes:
    return bytes(3 * 96 * 96)


def read_stl(path: Path) -> None:
    """The damaged file stands as the pictures, then as the labels, of an STL10 folder."""
    from headstart.data import catalog
    from headstart.records.config import DataConfig

    root = path.with_suffix(".stl") / "stl10_binary"
    root.mkdir(parents=True)
    try:
        for part in ("train", "test"):
            (root / f"{part}_X.bin").write_bytes(bytes(3 * 96 * 96))
            (root / f"{part}_y.bin").write_bytes(b"\x01")
        (root / "class_names.txt").write_text("airplane\nbird\ncar\ncat\ndeer\ndog\nhorse\nmonkey\nship\ntruck\n")
        damaged_file = path.read_bytes()
        for name in ("train_X.bin", "test_y.bin", "class_names.txt"):
            before = (root / name).read_bytes()
            (root / name).write_bytes(damaged_file)
            with contextlib.suppress(HeadstartError):
                catalog.find(DataConfig(sources=(f"stl10:{root.parent}",)))
            (root / name).write_bytes(before)
        catalog.find(DataConfig(sources=(f"stl10:{root.parent}",)))
    finally:
        shutil.rmtree(root.parent)


def weights_file(dice: random.Random) -> bytes:
    from headstart.engine.weights import to_bytes

    tensors = {"encoder.embedding.weight": torch.zeros(2, 3), "encoder.embedding.bias": torch.zeros(2)}
    return to_bytes(tensors, {"kind": "embedding"})


def read_weights(path: Path) -> None:
    from headstart.engine.importers import autoencoder_state

    autoencoder_state(path.rename(path.with_suffix(".safetensors")))


STUDY = """
preset: null
base: {head: {init: random}, contrastive: {epochs: 3, lr: 1e-4}}
data: [digits]
factors: {head.init: [random, orthogonal], head.frozen: [true, false]}
seeds: [0, 1]
"""


def read_study(path: Path) -> None:
    from headstart import study

    study.load(path.rename(path.with_suffix(".yaml")))


def export(dice: random.Random) -> bytes:
    """Three rows of a real export where there is one, else a header that lacks columns."""
    root = os.environ.get("HEADSTART_DATA")
    if root is None:
        return b"Run ID,dataset_name,latent_dimensions,test_mse\nabc,CIFAR10,128,0.005\n"
    name = dice.choice(["ae-train.csv", "simclr-train.csv", "simclr-eval.csv"])
    with open(Path(root, "reference", name), "rb") as file:
        return b"".join(file.readline() for _ in range(3))


def read_csv(path: Path) -> None:
    from headstart.study.exports import read_export

    read_export(path.rename(path.with_suffix(".csv")))


READERS: dict[str, tuple[Callable[[random.Random], bytes], Callable[[Path], None]]] = {
    "pictures": (picture, read_one_picture),
    "cifar": (cifar_batch, read_cifar),
    "safetensors": (weights_file, read_weights),
    "study": (lambda dice: STUDY.encode(), read_study),
    "stl": (stl_pictures, read_stl),
    "csv": (export, read_csv),
}


def fuzz(reader: str, tmp_path: Path, times: int) -> None:
    make, read = READERS[reader]
    dice = random.Random(reader)
    (tmp_path / "whole").write_bytes(make(dice))
    with contextlib.suppress(HeadstartError):
        read(tmp_path / "whole")  # what is imported on the first call does not count as the reader's time
    slowest, refused = 0.0, 0
    for number in range(times):
        path = tmp_path / f"{number}"
        path.write_bytes(damaged(make(dice), dice))
        began = time.process_time()
        try:
            read(path)
        except HeadstartError:
            refused += 1
        slowest = max(slowest, time.process_time() - began)
        for left in tmp_path.glob(f"{number}*"):
            left.unlink()
    assert refused or reader in ("pictures", "stl")
    assert slowest < 1, f"{reader}: one input took {slowest:.1f} s"
    print(f"\n{reader}: {times:,} damaged inputs, {refused:,} refused, none crashed, the slowest took {slowest:.3f} s")


@pytest.mark.parametrize("reader", READERS)
def test_some_damaged_inputs(reader: str, tmp_path: Path) -> None:
    fuzz(reader, tmp_path, SAMPLE)


@pytest.mark.soak
@pytest.mark.parametrize("reader", READERS)
def test_ten_thousand_damaged_inputs(reader: str, tmp_path: Path) -> None:
    fuzz(reader, tmp_path, PER_READER)
