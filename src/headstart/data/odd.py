"""Pictures that stand out of their set by what each shows alone: dark, of one colour, blurred, of odd size or shape.

Comes in: pixels, one picture at a time. Goes out: a few numbers of each; and from the numbers of all, a sentence for
every picture that is odd. Blur, size and shape are judged against the set's own median, from TEN pictures on.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

SIDE = 256
"""Blur is judged at no more pixels than these, which is about what training sees of a photograph."""
DARK, WHITE, FLAT = 20, 245, 4
"""Mean grey below and above which a picture is odd, and the standard deviation below which it is of one colour."""
BLURRED = 1 / 8
"""Of the set's median sharpness."""
AREA, SHAPE = 16, 2.5
"""Times the set's median area (either way), and its median of longer over shorter side."""
TEN = 10


class Impression(NamedTuple):
    """Mean and standard deviation of grey, 0 to 255; sharpness: mean square of the Laplacian over grey's variance."""

    mean: float
    spread: float
    sharpness: float


def look(pixels: np.ndarray) -> Impression:
    """The numbers of a picture (H, W, 3) uint8."""
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    grey = np.asarray(picture.reduce(max(1, max(picture.size) // SIDE)).convert("L"), np.float32)
    spread = float(grey.std())
    if min(grey.shape) < 3 or spread < FLAT:
        return Impression(float(grey.mean()), spread, 0.0)
    middle = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * middle
    return Impression(float(grey.mean()), spread, float(np.square(laplacian).mean()) / spread**2)


def odd(looks: Sequence[Impression], sizes: Sequence[tuple[int, int]]) -> Iterator[tuple[int, str]]:
    """(position, why) of every picture that is odd; looks and sizes (height, width) of all, in one order."""
    if not looks:
        return
    mean, spread, sharpness = np.array(looks).T
    side = np.array(sizes)
    area, shape = side.prod(axis=1), side.max(axis=1) / side.min(axis=1)
    usual = {"sharpness": np.median(sharpness), "area": np.median(area), "shape": np.median(shape)}
    many = len(looks) >= TEN
    for i in range(len(looks)):
        sides = f"{sizes[i][0]} x {sizes[i][1]} (height x width)"
        if mean[i] < DARK or mean[i] > WHITE:
            yield i, f"{'dark' if mean[i] < DARK else 'white'}: mean grey {mean[i]:.0f} of 255"
        elif spread[i] < FLAT:
            yield i, f"one colour: grey {mean[i]:.0f}, which varies by {spread[i]:.1f}"
        elif many and sharpness[i] < BLURRED * usual["sharpness"]:
            yield i, f"blurred: sharpness {sharpness[i]:.3f}, half of all have {usual['sharpness']:.3f} or more"
        if many and not usual["area"] / AREA <= area[i] <= usual["area"] * AREA:
            yield i, f"size: {sides}, {area[i] / usual['area']:.3g} times the usual number of pixels"
        if many and shape[i] > SHAPE * usual["shape"]:
            yield i, f"shape: {sides}, {shape[i]:.1f} to 1 where {usual['shape']:.1f} to 1 is usual"
