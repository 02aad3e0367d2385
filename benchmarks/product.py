"""What the product costs besides its steps: seconds of each command against the size of what it is given.

    python -m benchmarks product [--sizes 10000 100000] [--only search select] [--rounds 5]

Each is a process of its own, as a user starts it. Seconds of processor time are told beside those on the clock: on a
machine that does other work too, they change far less. Pictures are CIFAR-10's JPEG ($HEADSTART_DATA; copies beyond
60,000), embeddings 512 random numbers in 64 directions after a ReLU, records the authors' own.
"""

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import common
from headstart.records.config import BackboneConfig, Config, DataConfig
from headstart.training import run as pretraining

HEADSTART = [sys.executable, "-P", "-m", "headstart"]
WIDTH, DIRECTIONS = 512, 64
RECORDS = ("ae-train.csv", "simclr-train.csv", "simclr-eval.csv")


class Cost(NamedTuple):
    """Of one process: seconds of processor time, and seconds on the clock."""

    cpu: float
    clock: float


def cost(command: list[str]) -> Cost:
    """Of one command, which has to succeed."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read().decode(errors="replace")
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{said}")
    return Cost(used.ru_utime + used.ru_stime, time.perf_counter() - began)


class Made:
    """What the commands read, made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self) -> str:
        """A finished run, one epoch of few pictures."""
        out = self.folder / "run"
        if not out.exists():
            few = Config(
                data=DataConfig(sources=("digits",), limit=100, size=32),
                backbone=BackboneConfig(name="resnet18"),
            )
            pretraining.run(quick(few), out, quiet=True)
        return str(out)

    def query(self) -> str:
        """A picture file."""
        return f"{self.run()}/samples/pairs.png"

    def pictures(self, n: int) -> str:
        """A folder of n JPEG files of 32 px."""
        out = self.folder / f"pictures{n}"
        if not out.exists():
            with common.pictures(None, min(n, 60_000)) as there:
                found = sorted(there.rglob("*.jpg"))
                out.mkdir()
                for number in range(n):
                    (out / f"{number:07}.jpg").write_bytes(found[number % len(found)].read_bytes())
        return str(out)

    def embeddings(self, n: int) -> str:
        """What `embed` would write of n pictures."""
        out = self.folder / f"embeddings{n}.npz"
        if not out.exists():
            draws = np.random.default_rng(0)
            axes = draws.normal(size=(DIRECTIONS, WIDTH)).astype(np.float32)
            rows = draws.normal(size=(n, DIRECTIONS)).astype(np.float32) @ axes
            write_like_embed(out, np.maximum(rows, 0), self.folder / "like.npz", self.run())
        return str(out)


def quick(config: Config) -> Config:
    """One epoch, and no probes."""
    once = replace(config.autoencoder, epochs=1)
    contrastive = replace(config.contrastive, epochs=1, batch_size=16)
    return replace(config, stages="contrastive", autoencoder=once, contrastive=contrastive)


def write_like_embed(out: Path, rows: np.ndarray, like: Path, run: str) -> None:
    """A file of embeddings with other rows than `embed` found, and everything else as it writes it."""
    if not like.exists():
        cost([*HEADSTART, "embed", run, "digits", "--out", str(like)])
    with np.load(like, allow_pickle=False) as kept:
        parts = {name: kept[name] for name in kept.files}
    n = len(rows)
    parts["names"] = np.array([f"{number:07}.jpg" for number in range(n)])
    parts["embeddings"] = rows
    parts["labels"] = np.arange(n) % len(parts["classes"])
    parts["digests"] = np.random.default_rng(1).integers(0, 256, (n, parts["digests"].shape[1]), dtype=np.uint8)
    np.savez(out, **parts)


def probes(n: int) -> list[str]:
    """All probes of one representation, on n features of ResNet-50's width to train on."""
    return [sys.executable, "-c", PROBES, str(n)]


PROBES = """
import sys, numpy as np, torch
from headstart.evaluate import probes
n, draw = int(sys.argv[1]), np.random.default_rng(0)
counts = {"train": n, "val": n // 10, "test": n // 5}
labels = {split: np.arange(count) % 10 for split, count in counts.items()}
features = {part: draw.normal(labels[part][:, None] / 10, 1, (m, 2048)).astype("f") for part, m in counts.items()}
names = {split: [f"{split}{i}" for i in range(count)] for split, count in counts.items()}
probes.run(features, labels, names, [str(i) for i in range(10)], device=torch.device("cpu"), say=lambda _: None)
"""
SELECT = """
import sys, numpy as np
from headstart.evaluate.neighbours import normalized
from headstart.use.clusters import clusters
from headstart.use.select import DUPLICATE, compare, farthest
from headstart.use.suspects import suspicion
with np.load(sys.argv[1]) as kept:
    features, labels, classes = kept["embeddings"], kept["labels"], len(kept["classes"])
compare(normalized(features), DUPLICATE)
farthest(normalized(features), 20, np.empty(0, np.int64))
clusters(features)
suspicion(features, labels, classes)
"""
"""What `select` finds, without the pictures that it draws."""
TSNE = """
import sys, numpy as np
from headstart.evaluate.map import positions
positions(np.random.default_rng(0).normal(size=(int(sys.argv[1]), 2048)).astype(np.float32))
"""


def once(made: Made, reference: Path) -> dict[str, Callable[[], list[str]]]:
    """Commands whose input has one size: each makes what it reads, and then is the command."""
    records = [str(reference / name) for name in RECORDS if (reference / name).is_file()]
    study = made.folder / "study"

    def report() -> list[str]:
        if not study.exists():
            cost([*HEADSTART, "study", "import", *records, "--out", str(study)])
        return [*HEADSTART, "report", str(study)]

    def first_batch() -> list[str]:
        few = ["--stages", "contrastive", "--contrastive.epochs", "1", "--data.limit", "18", "--head.init", "random"]
        few += ["--contrastive.batch-size", "16", "--backbone.name", "resnet18"]
        return [*HEADSTART, "pretrain", "digits", "--out", fresh(made), *few]

    return {
        "headstart --help": lambda: [*HEADSTART, "--help"],
        "pretrain, one batch": first_batch,
        "study import": lambda: [*HEADSTART, "study", "import", *records, "--out", fresh(made)],
        "report": report,
    }


def fresh(made: Made) -> str:
    """A name that nothing has yet."""
    return str(Path(tempfile.mkdtemp(dir=made.folder)) / "out")


def sized(made: Made) -> dict[str, Callable[[int], list[str]]]:
    """Commands by the number of pictures or embeddings that they are given."""
    return {
        "check": lambda n: [*HEADSTART, "check", made.pictures(n)],
        "embed": lambda n: [*HEADSTART, "embed", made.run(), made.pictures(n), "--out", f"{fresh(made)}.npz"],
        "search": lambda n: [*HEADSTART, "search", made.embeddings(n), "--query", made.query(), "--json"],
        "select": lambda n: [sys.executable, "-c", SELECT, made.embeddings(n)],
        "t-SNE": lambda n: [sys.executable, "-c", TSNE, str(n)],
        "probes": probes,
    }


def line(name: str, size: str, costs: list[Cost], growth: str = "") -> None:
    """Print medians."""
    cpu, clock = (statistics.median(parts) for parts in zip(*costs, strict=True))
    print(f"| {name} | {size} | {cpu:.1f} | {clock:.1f} | {growth} |", flush=True)


def main(argv: list[str]) -> None:
    """Print the table; the last column is k where the processor time grows as n to the k."""
    parser = argparse.ArgumentParser(
        prog="benchmarks product", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="rows whose names hold one of these")
    chosen = parser.parse_args(argv)
    print(common.machine())
    print("\n| | of how many | processor s | clock s | grows as n to the |")
    print("| --- | ---: | ---: | ---: | ---: |", flush=True)

    def wanted(name: str) -> bool:
        return not chosen.only or any(part in name for part in chosen.only)

    with tempfile.TemporaryDirectory() as temporary:
        os.environ["HEADSTART_CACHE"] = f"{temporary}/cache"
        made, reference = Made(Path(temporary)), Path(os.environ.get("HEADSTART_DATA", "")) / "reference"
        for name, command in once(made, reference).items():
            if wanted(name):
                line(name, "", [cost(command()) for _ in range(chosen.rounds)])
        for name, of in sized(made).items():
            before: tuple[int, float] | None = None
            for n in chosen.sizes if wanted(name) else ():
                costs = [cost(of(n)) for _ in range(chosen.rounds)]
                cpu = statistics.median(each.cpu for each in costs)
                growth = f"{math.log(cpu / before[1]) / math.log(n / before[0]):.2f}" if before else ""
                line(name, f"{n:,}", costs, growth)
                before = n, cpu
