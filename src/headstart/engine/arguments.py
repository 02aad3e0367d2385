"""What somebody's own training loop hands to a part of Headstart, refused in one sentence where it does not fit.

Comes in: what a loss, a head or the augmentation was given. Goes out: nothing, or an InputError that says what it was
and what it has to be, in place of an error from the depths of torch, or of a number that means nothing.
"""

from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headstart.records.errors import InputError


def check_views(z: Any, name: str, **numbers: object) -> None:
    """Raise InputError for anything but floating point (2N, d), or a tensor of views in the place of a number."""
    join = "Two tensors of views are joined with torch.cat([z0, z1])."
    for what, value in numbers.items():
        if isinstance(value, Tensor) and value.ndim:
            raise InputError(f"{name}: {what} is a tensor of shape {tuple(value.shape)}, not a number. {join}")
    is_tensor = isinstance(z, Tensor)
    if not is_tensor or z.ndim != 2 or z.shape[0] % 2 or z.shape[1] == 0 or not z.is_floating_point():
        what = f"{z.dtype} of shape {tuple(z.shape)}" if is_tensor else f"of type {type(z).__name__}"
        raise InputError(
            f"{name}: z is {what}; it has to be a tensor, floating point (2N, d), rows i and i + N the two views of"
            f" picture i. {join}"
        )


def check_features(h: Any, first: nn.Linear) -> None:
    """Raise InputError for what is no h (N, in_features) of the type that a head's first layer computes in."""
    if not isinstance(h, Tensor):
        raise InputError(f"head: h is of type {type(h).__name__}; it has to be a tensor (N, {first.in_features})")
    if h.ndim == 0 or h.shape[-1] != first.in_features:
        flat = "; h.flatten(1) takes the ones away" if h.shape[1:] == (first.in_features, 1, 1) else ""
        raise InputError(f"head: h has the shape {tuple(h.shape)}; it has to be (N, {first.in_features}){flat}")
    if h.dtype != first.weight.dtype and not torch.is_autocast_enabled(h.device.type):
        raise InputError(
            f"head: h is {h.dtype}, the head's weights are {first.weight.dtype}; give it h.to({first.weight.dtype}), "
            "or call it within torch.autocast"
        )


def check_pictures(pictures: Any) -> None:
    """Raise InputError for anything but a tensor, uint8 (N, 3, H, W)."""
    if not isinstance(pictures, Tensor):
        raise InputError(
            f"SimCLRAugment: pictures are of type {type(pictures).__name__}; they have to be a tensor, uint8 "
            "(N, 3, H, W): of PIL pictures torchvision.transforms.functional.pil_to_tensor makes one each."
        )
    if pictures.ndim != 4 or pictures.shape[1] != 3 or pictures.dtype != torch.uint8:
        raise InputError(
            f"SimCLRAugment: pictures are {pictures.dtype} of shape {tuple(pictures.shape)}; "
            "they have to be uint8 (N, 3, H, W)."
        )
    if 0 in pictures.shape:
        raise InputError(f"SimCLRAugment: there are no pictures in uint8 of shape {tuple(pictures.shape)}.")


def check_sizes(views: Any, valid: Tensor | None, pictures: Tensor) -> None:
    """Raise InputError for a number of views that is none, and for heights and widths (N, 2) that leave the frames."""
    whole("SimCLRAugment", "views", views)
    if valid is None:
        return
    most = torch.tensor(pictures.shape[-2:])
    if valid.shape != (len(pictures), 2) or bool(((valid < 1) | (valid > most)).any()):
        raise InputError(
            f"SimCLRAugment: valid has the shape {tuple(valid.shape)}; it has to be (N, 2), each picture's height and "
            f"width within its frame of {most[0]} x {most[1]} pixels."
        )


def whole(where: str, name: str, value: Any, unit: str = "") -> None:
    """Raise InputError for what is no whole number from 1."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise InputError(f"{where}: {name} is {value!r}; it must be at least 1{unit}, and whole")


def several(name: str, values: Any, count: int) -> tuple[float, ...]:
    """An option of so many numbers. Raises InputError for anything else."""
    right = isinstance(values, (tuple, list, np.ndarray, Tensor)) and len(values) == count
    if not right or not all(isinstance(value, Real | Tensor) for value in values):
        raise InputError(f"SimCLRAugment: {name} is {values}; it has to be {count} numbers.")
    return tuple(values)


def three(name: str, values: tuple[float, float, float] | Tensor | None) -> Tensor | None:
    """float32 (3,), a number a colour. Raises InputError for anything else."""
    if values is None:
        return None
    tensor = torch.as_tensor(values, dtype=torch.float32).flatten()
    if len(tensor) != 3:
        raise InputError(f"SimCLRAugment: {name} has {len(tensor)} numbers; it has to have three, one a colour.")
    if not bool(((tensor >= 0) & (tensor <= 1)).all()):
        raise InputError(f"SimCLRAugment: {name} is {tensor.tolist()}; it has to be in [0, 1] units (divide by 255).")
    return tensor
