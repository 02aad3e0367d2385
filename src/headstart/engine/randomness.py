"""Randomness as a function, not a state: every draw follows from (seed, stream name, position).

That one rule gives exact resume, the same pictures in the same order for every head, and the same draws for any
sub-batch and any number of processes. Nothing in Headstart touches a global generator.
"""

import hashlib
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch

T = TypeVar("T")


def _key(seed: int, stream: str, position: tuple[int, ...]) -> int:
    text = "/".join([str(seed), stream, *map(str, position)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(seed: int, stream: str, *position: int) -> torch.Generator:
    """A CPU generator for `stream` at `position` (such as epoch, step), the same wherever it is asked for."""
    return torch.Generator().manual_seed(_key(seed, stream, position))


def numpy_generator(seed: int, stream: str, *position: int) -> np.random.Generator:
    """As `generator`, for NumPy."""
    return np.random.default_rng(_key(seed, stream, position))


def order(seed: int, stream: str, epoch: int, n: int) -> torch.Tensor:
    """A permutation of range(n) for one epoch, int64 (n,)."""
    return torch.randperm(n, generator=generator(seed, stream, epoch))


def seeded(source: torch.Generator | None, make: Callable[[], T]) -> T:
    """`make()`, whose draws from torch's global generator follow from `source` and leave that one as it was.

    None: they are the global generator's own, which moves on.
    """
    if source is None:
        return make()
    seed = int(torch.randint(2**63 - 1, (), generator=source))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return make()
