"""From pictures to views: batches of the split in the epoch's order, with the draws of both views (paper 3.1).

Every draw follows from (seed, stream, epoch, step) for the global batch, of which each process takes its slice, so any
number of processes sees the same views.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from headstart.augment import Draw, SimCLRAugment
from headstart.data.images import Images, gathered
from headstart.engine import distributed, memory
from headstart.engine.device import sent
from headstart.engine.randomness import order
from headstart.evaluate.views import draw_pairs
from headstart.records.errors import InputError


@dataclass
class Batch:
    """Pictures of one step on this rank: frames (n, 3, H, W) uint8 and the draws of both their views."""

    indices: Tensor
    frames: Tensor
    params: Draw


def check_batch(batch_size: int) -> None:
    """Raise InputError for a global batch that the processes cannot share."""
    if batch_size % distributed.world_size():
        raise InputError(
            f"contrastive.batch-size is {batch_size}, which {distributed.world_size()} processes cannot share evenly; "
            "give a multiple"
        )


def batches(
    images: Images,
    indices: Tensor,
    augment: SimCLRAugment,
    batch_size: int,
    frames: Callable[[Tensor], Tensor],
    draws: Callable[[int], torch.Generator],
    first: int = 0,
) -> Iterator[Batch]:
    """The steps of one epoch from step `first`: pictures of `indices` in order, with the draws of each step.

    The draws are made for the global batch and cut to this rank's slice, so any number of processes sees the same.
    """
    for step in range(first, count_steps(len(indices), batch_size)):
        chosen = indices[step * batch_size : (step + 1) * batch_size]
        params = draw_pairs(augment, images, chosen, draws(step))
        mine = torch.arange(len(chosen))[distributed.slice_of(len(chosen))]
        both_views = torch.cat([mine, mine + len(chosen)])
        yield Batch(chosen[mine], frames(chosen[mine]), params[both_views])


def frames_on(device: torch.device, images: Images) -> Callable[[Tensor], Tensor]:
    """Function from picture numbers (n,) to their frames (n, 3, H, W) uint8 on the device.

    A GPU with room for it keeps the whole set, if its pictures are of one size, so that no step waits for the bus.
    """
    if device.type == "cuda":
        sizes = np.unique(images.sizes, axis=0)
        if len(sizes) == 1 and memory.holds(device, 3 * len(images) * int(sizes.prod())):
            shape = (len(images), 3, *map(int, sizes[0]))
            everything = gathered(lambda rows: images.batch(rows)[0], shape, device)
            return lambda chosen: everything[sent(chosen, device)]
    return lambda chosen: sent(images.batch(chosen)[0], device)


def normalize(pictures: Tensor, mean: Tensor | None, std: Tensor | None) -> Tensor:
    """uint8 (N, 3, S, S) -> float32 in [0, 1], Z-scored where mean and std (3,) are given."""
    x = pictures.float() / 255
    if mean is None or std is None:
        return x
    return (x - sent(mean, x.device)[:, None, None]) / sent(std, x.device)[:, None, None]


def mixed(indices: np.ndarray, seed: int) -> Tensor:
    """Pictures in an order of their own that never changes: as they are stored, they lie class by class."""
    return torch.as_tensor(indices)[order(seed, "mixed", 0, len(indices))]


def of_pairs(rows: Tensor, n: int) -> Tensor:
    """Where both views of the pictures `rows` (K,) stand among the views of n: (2K,), first views first."""
    return torch.cat([rows, rows + n])


def count_steps(n: int, batch_size: int, drop_last: bool = True) -> int:
    """Batches in n pictures."""
    return n // batch_size if drop_last else math.ceil(n / batch_size)
