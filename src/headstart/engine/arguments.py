"""What somebody's own training loop hands to a part of Headstart, refused in one sentence where it does not fit.

Comes in: what a loss, a head or the augmentation was given. Goes out: nothing, or an InputError that says what it was
and what it has to be, in place of an error from the depths of torch, or of a number that means nothing.
"""

import math
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn

from headstart.records.errors import InputError
from headstart.records.text import brief


def check_views(z: Any, name: str, **numbers: object) -> None:
    """Raise InputError for anything but floating point (2N, d), and for `numbers` that are none."""
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
    for what, value in numbers.items():
        number(name, what, value)


def check_features(h: Any, first: nn.Linear, one_axis: bool = False) -> None:
    """Raise InputError for what is no h (N, in_features) of the type that a head's first layer computes in.

    one_axis: N is one axis; else there may be none, or several.
    """
    if not isinstance(h, Tensor):
        raise InputError(f"head: h is of type {type(h).__name__}; it has to be a tensor (N, {first.in_features})")
    if h.ndim == 0 or h.shape[-1] != first.in_features:
        flat = "; h.flatten(1) takes the ones away" if h.shape[1:] == (first.in_features, 1, 1) else ""
        raise InputError(f"head: h has the shape {tuple(h.shape)}; it has to be (N, {first.in_features}){flat}")
    if one_axis and h.ndim != 2:
        raise InputError(f"head: h has the shape {tuple(h.shape)}; this head needs (N, {first.in_features})")
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


def check_sizes(views: Any, valid: Any, pictures: Tensor) -> Tensor | None:
    """Heights and widths (N, 2) on the CPU, int64; None where none are given.

    Raises InputError for a number of views that is none, and for heights and widths that leave the frames.
    """
    whole("SimCLRAugment", "views", views)
    if valid is None:
        return None
    most = torch.tensor(pictures.shape[-2:])
    sizes = _tensor(valid)
    right = sizes is not None and sizes.shape == (len(pictures), 2) and not sizes.is_complex()
    if sizes is None or not right or bool(((sizes < 1) | (sizes > most) | (sizes != sizes.long())).any()):
        what = f"is of type {type(valid).__name__}" if sizes is None else f"has the shape {tuple(sizes.shape)}"
        raise InputError(
            f"SimCLRAugment: valid {what}; it has to be (N, 2), each picture's height and width, whole and within "
            f"its frame of {most[0]} x {most[1]} pixels."
        )
    return sizes.long()


def sides(name: str, values: Any, n: int) -> Tensor:
    """Heights or widths of pictures, one for all or one for each of n views: int64, () or (n,).

    Raises InputError for anything else.
    """
    tensor = _tensor(values)
    wrong = tensor is None or tensor.is_floating_point() or tensor.is_complex() or tensor.shape not in ((), (n,))
    if tensor is None or wrong or bool((tensor < 1).any()):
        raise InputError(f"SimCLRAugment: {name} is {brief(values)}; it has to be pixels, whole, one or {n} of them.")
    return tensor.long()


def _tensor(values: Any) -> Tensor | None:
    """Numbers as a tensor on the CPU; None for what is none."""
    try:
        return torch.as_tensor(values).cpu()
    except (TypeError, ValueError, RuntimeError):  # text, lists of unequal length, objects
        return None


def whole(where: str, name: str, value: Any, unit: str = "", most: int | None = None) -> None:
    """Raise InputError for what is no whole number from 1 (to `most`)."""
    right = isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1
    if not right or (most is not None and value > most):
        bound = "at least 1" if most is None else f"from 1 to {most}"
        raise InputError(f"{where}: {name} is {brief(value)}; it must be {bound}{unit}, and whole")


def is_number(value: Any) -> bool:
    """Whether this is one finite number: Python's, NumPy's, or a tensor that holds one."""
    if isinstance(value, Tensor | np.ndarray):
        return value.ndim == 0 and is_number(value.item())
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_) and math.isfinite(value)


def number(where: str, name: str, value: Any, least: float = -math.inf, most: float = math.inf) -> None:
    """Raise InputError for what is no finite number from `least` to `most`."""
    if not is_number(value) or not least <= float(value) <= most:
        right = "a finite number"
        if math.isfinite(most):
            right = f"a number from {least:g} to {most:g}"
        elif math.isfinite(least):
            right = f"a number of at least {least:g}"
        raise InputError(f"{where}: {name} is {brief(value)}; it has to be {right}")


def flags(where: str, **values: Any) -> None:
    """Raise InputError for what is neither True nor False: any text, "no" among them, would count as True."""
    for name, value in values.items():
        if not isinstance(value, bool | np.bool_):
            raise InputError(f"{where}: {name} is {brief(value)}; it must be True or False")


def draws(where: str, generator: Any) -> None:
    """Raise InputError for what is no generator on the CPU, nor None."""
    if generator is not None and (not isinstance(generator, Generator) or generator.device.type != "cpu"):
        raise InputError(
            f"{where}: generator is {brief(generator)}; it has to be a torch.Generator() on the CPU, or None"
        )


def several(name: str, values: Any, count: int) -> tuple[float, ...]:
    """An option of so many numbers. Raises InputError for anything else."""
    right = isinstance(values, (tuple, list, np.ndarray, Tensor)) and np.ndim(values) and len(values) == count
    if not right or not all(is_number(value) for value in values):
        raise InputError(f"SimCLRAugment: {name} is {brief(values)}; it has to be {count} finite numbers.")
    return tuple(values)


def three(name: str, values: tuple[float, float, float] | Tensor | None) -> Tensor | None:
    """float32 (3,), a number a colour. Raises InputError for anything else."""
    if values is None:
        return None
    tensor = _tensor(values)
    if tensor is None or tensor.is_complex():
        raise InputError(f"SimCLRAugment: {name} is {brief(values)}; it has to be three numbers, one a colour.")
    tensor = tensor.float().flatten()
    if len(tensor) != 3:
        raise InputError(f"SimCLRAugment: {name} has {len(tensor)} numbers; it has to have three, one a colour.")
    if not bool(((tensor >= 0) & (tensor <= 1)).all()):
        raise InputError(f"SimCLRAugment: {name} is {tensor.tolist()}; it has to be in [0, 1] units (divide by 255).")
    return tensor
