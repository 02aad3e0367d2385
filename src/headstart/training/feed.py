"""From pictures to views: batches of the split in the epoch's order, with the draws of both views (paper 3.1).

Every draw follows from (seed, stream, epoch, step) for the global batch, of which each process takes its slice, so any
number of processes sees the same views.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from headstart.augment import Draw, SimCLRAugment, ViewPlan
from headstart.data.frames import Frames
from headstart.data.images import Images
from headstart.engine import distributed
from headstart.engine.device import Compute
from headstart.engine.randomness import order
from headstart.evaluate.views import draw_pairs
from headstart.records.config import ContrastiveConfig
from headstart.records.errors import InputError


@dataclass
class Batch:
    """Pictures of one step on this rank, all on the device.

    Attributes:
        indices: (n,) int64, which pictures they are.
        frames: (n, 3, H, W) uint8.
        plans: what is due to both views of each; of one chunk after the other, where the step is in chunks.
    """

    indices: Tensor
    frames: Tensor
    plans: list[ViewPlan]


def check_batch(batch_size: int) -> None:
    """Raise InputError for a global batch that the processes cannot share."""
    if batch_size % distributed.world_size():
        raise InputError(
            f"contrastive.batch-size is {batch_size}, which {distributed.world_size()} processes cannot share evenly; "
            "give a multiple"
        )


def check_chunk(settings: ContrastiveConfig) -> None:
    """Raise InputError where a chunk's part of one view could be a single picture, which has no variance to norm by."""
    if settings.chunk is not None and settings.chunk < 3 and settings.passes == 2 and settings.norms == "batch":
        raise InputError(
            f"contrastive.chunk is {settings.chunk}, and with contrastive.passes 2 batch norm takes its statistics "
            "from one view of a chunk; give at least 3"
        )


class Feed:
    """Batches of pictures with all that can be settled before their step, in whatever thread asks for them.

    A GPU is sent picture numbers and draws in one copy; and the pictures in another, where it does not keep them.

    Args:
        chunk: pairs that pass through the network at once; None: all of a batch.
    """

    def __init__(self, images: Images, augment: SimCLRAugment, compute: Compute, chunk: int | None = None) -> None:
        self.images, self.augment, self.chunk = images, augment, chunk
        self.frames = Frames(images, compute)

    def batches(
        self, indices: Tensor, batch_size: int, draws: Callable[[int], torch.Generator], first: int = 0
    ) -> Iterator[Batch]:
        """The steps of one epoch from step `first`: pictures of `indices` in order, with the draws of each step.

        The draws are made for the global batch and cut to this rank's slice, so any number of processes sees the same.
        """
        for step in range(first, count_steps(len(indices), batch_size)):
            chosen = indices[step * batch_size : (step + 1) * batch_size]
            params = draw_pairs(self.augment, self.images, chosen, draws(step))
            mine = torch.arange(len(chosen))[distributed.slice_of(len(chosen))]
            yield self._batch(chosen[mine], params[of_pairs(mine, len(chosen))])

    def _batch(self, chosen: Tensor, params: Draw) -> Batch:
        plans = plans_of(self.augment, params, len(chosen), self.chunk)
        beside = [chosen, *(plan.rows for plan in plans), *(plan.numbers for plan in plans)]
        frames, (indices, *there) = self.frames.of(chosen, beside)
        tables = zip(plans, there[: len(plans)], there[len(plans) :], strict=True)
        return Batch(indices, frames, [replace(plan, rows=rows, numbers=numbers) for plan, rows, numbers in tables])


def plans_of(augment: SimCLRAugment, params: Draw, n: int, chunk: int | None) -> list[ViewPlan]:
    """What is due to both views of n pictures, of one chunk after the other."""
    chunks = parts_of(n, chunk or n)
    return [augment.plan(params[of_pairs(rows, n)] if len(chunks) > 1 else params) for rows in chunks]


def mixed(indices: np.ndarray, seed: int) -> Tensor:
    """Pictures in an order of their own that never changes: as they are stored, they lie class by class."""
    return torch.as_tensor(indices)[order(seed, "mixed", 0, len(indices))]


def parts_of(n: int, most: int) -> tuple[Tensor, ...]:
    """The numbers 0 to n - 1 in even parts of at most so many: a last one of a single pair has no variance that a batch
    norm could divide by."""
    return torch.arange(n).tensor_split(math.ceil(n / most))


def of_pairs(rows: Tensor, n: int) -> Tensor:
    """Where both views of the pictures `rows` (K,) stand among the views of n: (2K,), first views first."""
    return torch.cat([rows, rows + n])


def count_steps(n: int, batch_size: int, drop_last: bool = True) -> int:
    """Batches in n pictures."""
    return n // batch_size if drop_last else math.ceil(n / batch_size)
