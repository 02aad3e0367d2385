"""Pictures in memory, as a backbone wants them, or the sentence that says why they are not.

Comes in: PIL pictures, arrays, tensors. Goes out: (N, 3, S, S), uint8 from 0 to 255 or float32 from 0 to 1. Nothing is
guessed: values that could be one thing or another are refused.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from headstart.data.decode import UnreadableError, pixels_of
from headstart.data.prepare import PLAIN, How, squash
from headstart.records.errors import InputError
from headstart.records.levels import Levels


def in_memory(pictures: Any) -> bool:
    """Whether these are pictures themselves, not DATA that names them."""
    some = pictures[0] if isinstance(pictures, (list, tuple)) and pictures else pictures
    return isinstance(some, (Tensor, np.ndarray, Image.Image))


def checked(pictures: Any, size: int, how: How = PLAIN, levels: Levels = "auto") -> Tensor:
    """Pictures as (N, 3, size, size), uint8 or float32 in [0, 1].

    Args:
        pictures: PIL pictures of any size, made squares here; or pictures of that very size, one or N of them,
            channels first or last, uint8 or floating point (half too) from 0 to 1.
        size: side of the squares; how: the way they are made, as `prepare.how` says.
        levels: `data.range`, for PIL pictures of more than 8 bits.

    Raises InputError naming the type, shape or range that was received, and what would be right.
    """
    if isinstance(pictures, Image.Image):
        pictures = [pictures]
    if isinstance(pictures, Sequence):
        if len(pictures) and all(isinstance(picture, Image.Image) for picture in pictures):
            return torch.from_numpy(np.stack([_squashed(one, i, size, how, levels) for i, one in enumerate(pictures)]))
        if not len(pictures) or not all(isinstance(picture, (Tensor, np.ndarray)) for picture in pictures):
            kinds = sorted({type(picture).__name__ for picture in pictures}) or ["nothing"]
            raise InputError(f"pictures are {', '.join(kinds)}; give PIL pictures, arrays or tensors, all of one kind")
        return torch.cat([checked(picture, size, how, levels) for picture in pictures])
    if isinstance(pictures, np.ndarray):
        try:
            pictures = torch.from_numpy(np.ascontiguousarray(pictures))
        except TypeError:
            raise InputError(f"pictures are an array of {pictures.dtype}; they must be uint8 or float32") from None
    if not isinstance(pictures, Tensor):
        raise InputError(f"pictures are a {type(pictures).__name__}; give PIL pictures, an array or a tensor")
    return _in_range(_in_shape(pictures, size))


def _squashed(picture: Image.Image, place: int, size: int, how: How, levels: Levels) -> np.ndarray:
    try:
        return squash(pixels_of(picture, levels), size, how)
    except UnreadableError as error:
        raise InputError(f"picture {place} of mode {picture.mode} cannot be read: {error}") from None


def _in_shape(pictures: Tensor, size: int) -> Tensor:
    given = tuple(pictures.shape)
    if pictures.ndim == 3:
        pictures = pictures[None]
    if pictures.ndim == 4 and pictures.shape[1] != 3 and pictures.shape[3] == 3:
        pictures = pictures.permute(0, 3, 1, 2)
    if pictures.ndim != 4 or pictures.shape[1] != 3:
        raise InputError(
            f"pictures have the shape {given}; it must be (N, 3, {size}, {size}) or (N, {size}, {size}, 3): RGB, "
            "grey ones repeated three times"
        )
    if tuple(pictures.shape[2:]) != (size, size):
        raise InputError(
            f"pictures are {pictures.shape[2]} x {pictures.shape[3]} pixels (height x width); this backbone was "
            f"trained at {size} x {size}. Give PIL pictures or files, which are squashed to that, or squash them"
        )
    return pictures


def _in_range(pictures: Tensor) -> Tensor:
    if pictures.dtype == torch.uint8:
        return pictures
    if not pictures.is_floating_point():
        raise InputError(f"pictures are {pictures.dtype}; they must be uint8 from 0 to 255, or floats from 0 to 1")
    pictures = pictures.float()
    if not len(pictures):
        return pictures
    low, high = float(pictures.min()), float(pictures.max())
    if not (low >= 0 and high <= 1):
        if not math.isfinite(low + high):
            raise InputError("pictures are floats, some of them NaN or infinite; they must lie from 0 to 1")
        hint = "divide by 255, or give uint8" if low >= 0 else "what is Z-scored already goes to run.backbone itself"
        raise InputError(f"pictures are floats from {low:.4g} to {high:.4g}; they must lie from 0 to 1: {hint}")
    return pictures
