"""Small real pictures and folders of them, made where a test runs."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


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
