"""A line of pixels cut out, resized, mirrored or blurred: each is one matrix (paper 3.1's crop, flip and blur).

Comes in: a box along a line, or how far a blur reaches. Goes out: what a line of pixels is multiplied with. Tables that
depend on sizes alone are made once for each device.
"""

import functools
import math

import torch
from torch import Tensor

TABLE_EXTENT = 48
"""Pixels; up to there the matrices of all possible crops fit a table of a few MB."""


def matrices(start: Tensor, length: Tensor, flip: Tensor | None, size: int, extent: int) -> Tensor:
    """For rows (no flip) (n, size, extent), from pixel values to [0, 1]; for columns (n, extent, size)."""
    if extent > TABLE_EXTENT:
        return _oriented(_resampling(start, length, flip, size, extent), flip)
    box = start.long() + _table_offsets(extent, start.device)[length.long()]
    if flip is not None:
        box += flip.long() * (extent * (extent + 1) // 2)
    return _table(size, extent, flip is not None, start.device).index_select(0, box)


def _oriented(weights: Tensor, flip: Tensor | None) -> Tensor:
    return weights.div_(255) if flip is None else weights.mT.contiguous()


@functools.lru_cache(maxsize=8)
def _table(size: int, extent: int, columns: bool, device: torch.device) -> Tensor:
    """The matrices of every box along a line of `extent` pixels, by length, then start; for columns again, mirrored."""
    boxes = [(start, length) for length in range(1, extent + 1) for start in range(extent - length + 1)]
    start, length = torch.tensor(boxes, dtype=torch.float32, device=device).T
    flips = (torch.zeros_like(start), torch.ones_like(start)) if columns else (None,)
    return torch.cat([_oriented(_resampling(start, length, flip, size, extent), flip) for flip in flips])


@functools.lru_cache(maxsize=8)
def _table_offsets(extent: int, device: torch.device) -> Tensor:
    """Where in the table the boxes of a length begin."""
    starts = torch.tensor([0, *(extent - length + 1 for length in range(1, extent + 1))])
    return (starts.cumsum(0) - starts).to(device)


def _resampling(start: Tensor, length: Tensor, flip: Tensor | None, size: int, extent: int) -> Tensor:
    """(n, size, extent): weights of a line's pixels in each output pixel, a triangle as wide as the step between
    outputs (at least one pixel), cut at the box and normalised: torch's antialiased bilinear interpolation."""
    step = length / size
    wide, narrow = step.clamp(min=1)[:, None], step.clamp(max=1)[:, None]
    pixel = _centres(extent, start.device) - start[:, None]
    outside = (pixel < 0) | (pixel > length[:, None])
    pixel = (pixel / wide).masked_fill_(outside, math.inf)
    output = _centres(size, start.device)
    output = output if flip is None else torch.where(flip[:, None] > 0, size - output, output)
    weight = (pixel[:, None, :] - (output * narrow)[:, :, None]).abs_()
    torch.sub(1, weight, out=weight).clamp_(min=0)
    return weight.div_(weight.sum(dim=2, keepdim=True))


@functools.lru_cache(maxsize=64)
def _centres(extent: int, device: torch.device) -> Tensor:
    """Where the pixels of a line have their middle."""
    return torch.arange(extent, device=device) + 0.5


@functools.lru_cache(maxsize=8)
def shifts(side: int, taps: int, device: torch.device) -> Tensor:
    """(taps, side * side): the matrices that, from the right, move a line by i to both sides, mirrored at its ends."""
    matrices = torch.zeros(taps, side, side)
    for i in range(taps):
        for shift in {i, -i}:
            for output in range(side):
                source = abs(output + shift)
                matrices[i, min(source, 2 * (side - 1) - source), output] += 1
    return matrices.view(taps, -1).to(device)
