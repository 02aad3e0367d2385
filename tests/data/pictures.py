"""Small real pictures and folders of them, made where a test runs."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from headstart.data import catalog
from headstart.data.source import Source
from headstart.records.config import DataConfig


def pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth coloured picture with some noise, uint8 (height, width, 3)."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    phase = generator.uniform(0, 6, 3)
    waves = np.stack([np.sin(x / 5 + p) + np.cos(y / 7 + 2 * p) for p in phase], axis=2)
    return np.clip(127 + 50 * waves + generator.normal(0, 8, waves.shape), 0, 255).astype(np.uint8)


def encoded(array: np.ndarray, kind: str, mode: str | None = None, **options: Any) -> bytes:
    """The bytes of a picture file."""
    buffer = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


def put(path: Path, data: bytes) -> Path:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def folder(root: Path, names: list[str], size: Callable[[int], tuple[int, int]] = lambda i: (20, 20)) -> Path:
    """PNG pictures with these names below root, the i-th of size(i) and all different."""
    for i, name in enumerate(names):
        put(root / name, encoded(pixels(*size(i), seed=i), "png"))
    return root


def find(*sources: object, **data: Any) -> Source:
    """What these DATA name."""
    return catalog.find(DataConfig(sources=tuple(str(s) for s in sources), **data))


def labelled(source: Source) -> dict[str, str | None]:
    """The class of every picture by name."""
    return {
        name: (source.classes[label] if label >= 0 else None)
        for name, label in zip(source.names, source.labels, strict=True)
    }


def cifar_rows(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 3072), dtype=np.uint8)


def write_cifar10(root: Path, protocol: int, per_batch: int = 3) -> Path:
    folder = root / "cifar-10-batches-py"
    for i, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        content: dict[Any, Any] = {
            "batch_label": name,
            "labels": [(i + k) % 10 for k in range(per_batch)],
            "data": cifar_rows(per_batch, i),
        }
        content["filenames"] = [f"{name}_{k}.png" for k in range(per_batch)]
        if protocol == 2:  # as Python 2 wrote them
            content = {key.encode(): value for key, value in content.items()}
        put(folder / name, pickle.dumps(content, protocol))
    put(folder / "batches.meta", pickle.dumps({"label_names": [f"class {i}" for i in range(10)]}, protocol))
    return root
