"""Several processes under torchrun: who am I, and the few things they say to each other.

`PYTHONSAFEPATH=1 torchrun --nproc-per-node K -m headstart pretrain ...` starts K of these; without torchrun everything
here is a process alone. The global batch is the setting; each rank takes its slice of it.
"""

import contextlib
import ctypes
import datetime
import os
import signal
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from headstart.engine.device import Compute

TIMEOUT = datetime.timedelta(hours=6)
"""torchrun ends the other ranks within seconds of one's death; this only ends a hang, and rank 0 may decode a large set
or run its probes while the others wait."""


PR_SET_PDEATHSIG = 1
"""Number in Linux's prctl.h: the signal that a process gets when its parent dies."""


def launched() -> bool:
    """Whether torchrun started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ and int(os.environ["WORLD_SIZE"]) > 1


def first() -> bool:
    """Whether this is the process that speaks for all: torchrun's rank 0, also before and after a run."""
    return not launched() or os.environ["RANK"] == "0"


def rank() -> int:
    """This process's number, 0 where it is alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def process_group(compute: Compute) -> Iterator[None]:
    """Join the group that torchrun describes, for the time of a run."""
    if not launched() or dist.is_initialized():
        yield
        return
    _end_with_parent()
    _stay_on_this_machine()
    dist.init_process_group("nccl" if compute.device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _end_with_parent() -> None:
    """Save and stop when torchrun itself is killed: nobody would restart, stop or wait for this process any more."""
    with contextlib.suppress(OSError, AttributeError):  # Linux alone has this call
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))


def _stay_on_this_machine() -> None:
    """Where all ranks are on one machine, Gloo listens on the loopback address alone, unless the user names another."""
    loopback = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
    if loopback and os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback[0])


def local_device(device: str) -> str:
    """The device of this rank: under torchrun `auto` and `cuda` become the local rank's GPU."""
    if launched() and device in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return device


def slice_of(n: int) -> slice:
    """This rank's part of a global batch of n pairs; the parts differ by at most one pair."""
    share, rest = divmod(n, world_size())
    start = rank() * share + min(rank(), rest)
    return slice(start, start + share + (rank() < rest))


def any_rank(flag: bool, group: dist.ProcessGroup | None = None) -> bool:
    """Whether the flag is set on any rank of the group, else of all (each must ask)."""
    if world_size() == 1:
        return flag
    vote = torch.tensor(int(flag), device="cuda" if dist.get_backend(group) == "nccl" else "cpu")
    dist.all_reduce(vote, op=dist.ReduceOp.MAX, group=group)
    return bool(vote)


def least(value: int | None) -> int | None:
    """The smallest of the values of all ranks that have one."""
    if world_size() == 1:
        return value
    most = torch.iinfo(torch.int64).max
    vote = torch.tensor(most if value is None else value, device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(vote, op=dist.ReduceOp.MIN)
    return None if int(vote) == most else int(vote)


def sum_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """Elementwise sum over all ranks."""
    if world_size() > 1:
        on_backend = values.cuda() if dist.get_backend() == "nccl" else values
        dist.all_reduce(on_backend)
        values = on_backend.cpu()
    return values


def mean_over_ranks(value: torch.Tensor) -> torch.Tensor:
    """Mean of a scalar over all ranks."""
    return sum_over_ranks(value) / world_size()


def share_from_rank_0(tensors: Iterable[torch.Tensor]) -> None:
    """Overwrite these tensors, the same number of the same shapes on every rank, by rank 0's."""
    if world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def wait_for_all() -> None:
    """A barrier: what any rank read or wrote before it is done for everyone after it."""
    any_rank(False)
