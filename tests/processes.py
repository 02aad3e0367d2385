"""Processes of a test that begin with everything imported: forked from one that imported it once for all tests."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.context import ForkServerContext

from torch.multiprocessing.spawn import start_processes


def prepared() -> ForkServerContext:
    """A context whose processes have what a training imports already, and what the tests do."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["headstart.training.run", "hypothesis.strategies", "lightly.loss", "pytest"])
    return context


def start_ranks(function: Callable[..., None], arguments: tuple[object, ...], ranks: int) -> None:
    """Call `function(rank, *arguments)` in as many processes, and wait for them; raises what one of them raised."""
    prepared()
    start_processes(function, arguments, nprocs=ranks, start_method="forkserver")
