"""Each objective, value and gradient: Headstart's against lightly's; NT-Xent also against the authors' and a plain one.

Batches per second at several numbers of pairs, a GPU given some without a wait in between, and the memory each takes
beyond its input, on a CPU measured in a process of its own. Forms that would need more than --limit-gb are left out.

    python -m benchmarks loss [--objective nt_xent vicreg barlow sigreg] [--rounds 5] [--pairs 256 1024 4096 16384]
"""

import argparse
import multiprocessing
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks import authors, common
from headstart.barlow import barlow
from headstart.ntxent import nt_xent
from headstart.sigreg import sigreg
from headstart.vicreg import vicreg

WIDTH = 128


def _authors(z: Tensor) -> Tensor:
    one, two = z.chunk(2)
    return authors.nt_xent(one, two)


def _lightly(z: Tensor) -> Tensor:
    from lightly.loss import NTXentLoss

    return NTXentLoss()(*z.chunk(2))


def _lightly_vicreg(z: Tensor) -> Tensor:
    from lightly.loss import VICRegLoss

    return VICRegLoss()(*z.chunk(2))


def _lightly_barlow(z: Tensor) -> Tensor:
    from lightly.loss import BarlowTwinsLoss

    return BarlowTwinsLoss()(*z.chunk(2))


def _lightly_sigreg(z: Tensor) -> Tensor:
    """Its two parts on two views; the class as a whole asks for local views as well."""
    from lightly.loss.lejepa_loss import SIGReg, lejepa_invariance_loss

    views = torch.stack(z.chunk(2))
    return 0.05 * SIGReg()(views) + 0.95 * lejepa_invariance_loss(all_proj=views, global_proj=views)


Form = tuple[Callable[[Tensor], Tensor], Callable[[int], float]]
FORMS: dict[str, dict[str, Form]] = {
    "nt_xent": {
        "plain matrix": (authors.plain_nt_xent, lambda rows: 20.0 * rows**2),
        "authors' broadcast": (_authors, lambda rows: 32.0 * rows**2 * WIDTH),
        "lightly": (_lightly, lambda rows: 20.0 * rows**2),
        "Headstart": (nt_xent, lambda rows: 0.0),
    },
    "vicreg": {"lightly": (_lightly_vicreg, lambda rows: 0.0), "Headstart": (vicreg, lambda rows: 0.0)},
    "barlow": {"lightly": (_lightly_barlow, lambda rows: 0.0), "Headstart": (barlow, lambda rows: 0.0)},
    "sigreg": {
        "lightly": (_lightly_sigreg, lambda rows: 17 * 1024 * 16.0 * rows),
        "Headstart": (sigreg, lambda rows: 0.0),
    },
}
"""Objective -> form -> the loss, and bytes it roughly needs for so many rows."""


def way(loss: Callable[[Tensor], Tensor], pairs: int, device: str) -> common.Way:
    """Seconds of one value and gradient."""
    z = torch.randn(2 * pairs, WIDTH, device=device, requires_grad=True)
    repeats = common.STEPS if device.startswith("cuda") else max(1, 1024 // pairs)

    def run() -> None:
        for _ in range(repeats):
            z.grad = None
            loss(z).backward()

    return lambda: common.once(run, repeats)


def memory(objective: str, form: str, pairs: int, device: str) -> float:
    """MB beyond z: on a GPU what torch allocates, on a CPU of a process that has only warmed up on a few pairs."""
    if device.startswith("cuda"):
        return _memory(objective, form, pairs, device)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_memory, (objective, form, pairs, device))


def _memory(objective: str, form: str, pairs: int, device: str) -> float:
    loss = FORMS[objective][form][0]
    loss(torch.randn(2 * 256, WIDTH, device=device, requires_grad=True)).backward()
    z = torch.randn(2 * pairs, WIDTH, device=device, requires_grad=True)
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        allocated = torch.cuda.memory_allocated()
        loss(z).backward()
        return (torch.cuda.max_memory_allocated() - allocated) / 1e6
    before = common.peak_memory()
    loss(z).backward()
    return common.peak_memory() - before


def main(argv: list[str]) -> None:
    """Print a table for each objective and number of pairs."""
    parser = common.options("loss", __doc__, rounds=5)
    parser.add_argument("--objective", nargs="+", default=list(FORMS), choices=list(FORMS))
    parser.add_argument("--pairs", type=int, nargs="+", default=[256, 1024, 4096, 16384])
    parser.add_argument("--limit-gb", type=float, default=4.0)
    chosen = parser.parse_args(argv)
    torch.set_num_threads(chosen.threads or common.cores())
    print(common.machine(chosen.device))
    for objective in chosen.objective:
        for pairs in chosen.pairs:
            _compare(objective, pairs, chosen)


def _compare(objective: str, pairs: int, chosen: argparse.Namespace) -> None:
    fitting = {
        name: loss for name, (loss, needs) in FORMS[objective].items() if needs(2 * pairs) <= chosen.limit_gb * 1e9
    }
    times = common.interleave({name: way(loss, pairs, chosen.device) for name, loss in fitting.items()}, chosen.rounds)
    common.table(f"{objective} of {pairs:,} pairs, d = {WIDTH}, forward and backward", times, "batches")
    extra = [f"{name} {common.number(memory(objective, name, pairs, chosen.device))} MB" for name in fitting]
    print(f"\nExtra memory: {', '.join(extra)}", flush=True)
