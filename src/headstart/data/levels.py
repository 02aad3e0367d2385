"""Samples of more than 8 bits as 8: which value becomes black, and which white (`data.range`, docs/data.md).

Comes in: whole numbers or floats, of microscopes, X-rays, 12-bit cameras. Goes out: uint8 of the same shape.
"""

from collections.abc import Callable

import numpy as np

from headstart.records.errors import InputError
from headstart.records.levels import Levels, shown

ROWS = 256
"""Of a picture that are turned into 8 bits at once."""
SHARES = (0.5, 99.5)
"""Percentiles of a picture's own samples that `percentile` makes black and white."""


def check_same(given: Levels, own: Levels) -> None:
    """Raise InputError where pictures would be read otherwise than those that a network was trained on."""
    if given != own:
        raise InputError(f"--data.range is {shown(given)}, but the run has {shown(own)}; leave it out")


class LevelsError(Exception):
    """Samples that have no 8-bit value under these levels; the message is the reason."""


def eight_bits(values: np.ndarray, levels: Levels) -> np.ndarray:
    """uint8 of samples of any whole or floating kind.

    levels: `auto`, value / 257 of 0 to 65535 and 255 value of floats from 0 to 1; MIN and MAX, what lies beyond them
    clipped; `percentile`, likewise between two percentiles of this very picture.
    Raises LevelsError: no finite numbers; under `auto` values that are in neither range.
    """
    if values.size and not np.isfinite(values).all():
        raise LevelsError("pixels that are not finite numbers")
    if isinstance(levels, tuple):
        return _between(values, *levels)
    return _automatic(values) if levels == "auto" else _between(values, *_percentiles(values))


def _automatic(values: np.ndarray) -> np.ndarray:
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    if values.dtype.kind == "f":
        if low < 0 or high > 1:
            raise LevelsError(f"floating-point pixels from {low:.4g} to {high:.4g}; expected 0 to 1, or a --data.range")
        return np.rint(values * 255).astype(np.uint8)
    if low < 0 or high > 65535:
        raise LevelsError(f"pixels from {low} to {high}; expected 0 to 65535, or a --data.range")
    return by_rows(lambda some: ((some.astype(np.uint32) + 128) // 257).astype(np.uint8), values)


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    """Two percentiles, or the extremes where nearly all samples are equal."""
    if not values.size:
        return 0, 1
    low, high = np.percentile(values, SHARES).tolist()
    return (low, high) if low < high else (float(values.min()), float(values.max()))


def _between(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """low becomes 0 and high 255; a picture of one value is black."""
    scale = 255 / (high - low) if high > low else 0.0
    return by_rows(
        lambda some: np.rint(((some.astype(np.float64) - low) * scale).clip(0, 255)).astype(np.uint8), values
    )


def by_rows(change: Callable[[np.ndarray], np.ndarray], values: np.ndarray) -> np.ndarray:
    """What `change` makes of each sample, some rows at a time: wider numbers for the whole of a picture of a hundred
    million pixels would fill the memory."""
    return np.concatenate([change(values[first : first + ROWS]) for first in range(0, max(1, len(values)), ROWS)])
