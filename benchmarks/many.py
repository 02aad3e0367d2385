"""Seconds of processor time and memory against the number of pictures: a simulation of sets of up to a million.

`python -m benchmarks many [--sizes 10000 100000 1000000] [--only TASK...] [--folder DIR]`. Small PNG pictures lie in
WebDataset shards of 10,000; embeddings (N, 512) are drawn around 1,000 centres, every hundredth a near-duplicate of the
one before, and stand in a file as `headstart embed` writes it. Every task runs in a process of its own, whose private
memory (RssAnon + RssShmem) is read from outside, its imports included. Processor time changes far less than the clock
on a machine that does other work too; with one thread the two are the same on a quiet one.
"""

import argparse
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import headstart
from benchmarks.common import machine
from benchmarks.mapped import private_bytes
from headstart.data import check, open_images, splits
from headstart.engine.device import choose
from headstart.engine.randomness import order
from headstart.evaluate import probes
from headstart.records.config import DataConfig
from headstart.use.embed import embed
from headstart.use.embeddings import about, read
from headstart.use.embeddings_file import write_npz
from headstart.use.mapped import write_map
from headstart.use.search import search
from headstart.use.select import select

SHARD, SIDE, WIDTH, CLASSES, CENTRES = 10_000, 16, 512, 10, 1000
BLOCK = 10_000
HEADER = "| task | pictures | processor s | clock s | GiB |\n| --- | ---: | ---: | ---: | ---: |"


@dataclass(frozen=True)
class Place:
    """Where a set of n pictures, its run, cache and embeddings lie."""

    folder: Path
    n: int

    @property
    def shards(self) -> Path:
        return self.folder / f"shards-{self.n}"

    @property
    def embeddings(self) -> Path:
        return self.folder / f"{self.n}.npz"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def data(self) -> DataConfig:
        return DataConfig(sources=(str(self.shards),), cache_dir=str(self.folder / "cache"))


@dataclass(frozen=True)
class Named:
    """As much of `Images` as the writer of embeddings asks for."""

    names: list[str]
    labels: np.ndarray
    classes: list[str]
    digests: np.ndarray

    def __len__(self) -> int:
        return len(self.names)


# ----------------------------------------------------------------------------------------------------- what is measured


def _check(place: Place) -> None:
    assert check.run(place.data).readable == place.n


def _cache(place: Place) -> None:
    assert len(open_images(place.data)) == place.n


def _embed(place: Place) -> None:
    run, out = headstart.load(place.run), place.folder / "embedded.npz"
    out.unlink(missing_ok=True)
    assert embed(run, place.shards, out, compute=choose("cpu", "float32", torch.get_num_threads())).new == place.n


def _splits(place: Place) -> None:
    images = open_images(place.data)
    splits.statistics(images, splits.make(images, place.data), place.data)


def _order(place: Place) -> None:
    assert len(order(0, "order", 0, place.n)) == place.n


def _probe(name: str) -> Callable[[Place], None]:
    def probe(place: Place) -> None:
        kept = read(place.embeddings)
        ends = {"train": (0, 0.7), "val": (0.7, 0.8), "test": (0.8, 1.0)}
        rows = {part: slice(int(low * place.n), int(high * place.n)) for part, (low, high) in ends.items()}
        found = probes.run(
            {part: kept.features[at] for part, at in rows.items()},
            {part: kept.labels[at] for part, at in rows.items()},
            {part: kept.names[at] for part, at in rows.items()},
            kept.classes,
            which=(name,),
        )
        print(name, found[name]["accuracy"], file=sys.stderr)

    return probe


def _search(place: Place) -> None:
    query = place.folder / "query.png"
    query.write_bytes(picture(0))
    assert len(search(read(place.embeddings), query, top=10)[0].found) == 10


def _select(place: Place) -> None:
    select(read(place.embeddings), 50, out=place.folder / "selection")


def _map(place: Place) -> None:
    write_map(read(place.embeddings), place.folder / "map")


TASKS: dict[str, Callable[[Place], None]] = {
    "check": _check,
    "cache": _cache,
    "cache, again": _cache,
    "splits": _splits,
    "embed": _embed,
    "order": _order,
    "knn": _probe("knn"),
    "linear": _probe("linear"),
    "search": _search,
    "select": _select,
    "select, again": _select,
    "map": _map,
}
"""In this order: a later one finds what an earlier one kept (decoded pictures, the index beside the embeddings)."""


# ------------------------------------------------------------------------------------------------------- the simulation


def picture(i: int) -> bytes:
    """A PNG like no other."""
    buffer = io.BytesIO()
    tile = np.random.default_rng(i).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(tile.repeat(SIDE // 4, 0).repeat(SIDE // 4, 1)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def shards(place: Place) -> Named:
    """Write the pictures, a .cls beside each."""
    place.shards.mkdir(parents=True)
    found = Named([], np.arange(place.n) % CLASSES, [str(c) for c in range(CLASSES)], np.empty((place.n, 16), np.uint8))
    for shard, start in enumerate(range(0, place.n, SHARD)):
        with tarfile.open(place.shards / f"set-{shard:06}.tar", "w") as archive:
            for i in range(start, min(start + SHARD, place.n)):
                content = picture(i)
                for ending, data in (("png", content), ("cls", str(i % CLASSES).encode())):
                    info = tarfile.TarInfo(f"{i:07}.{ending}")
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
                found.names.append(f"set-{shard:06}/{i:07}.png" if place.n > SHARD else f"{i:07}.png")
                found.digests[i] = np.frombuffer(hashlib.blake2b(content, digest_size=16).digest(), np.uint8)
    return found


def rows(n: int) -> Iterator[np.ndarray]:
    """Embeddings of n pictures, float32, not below 0, a block at a time; classes are the centre's number modulo ten."""
    fixed = np.random.default_rng(0)
    centres = fixed.normal(size=(CENTRES, WIDTH)).astype(np.float32)
    mixing = fixed.normal(size=(32, WIDTH)).astype(np.float32) / 32**0.5
    for start in range(0, n, BLOCK):
        draw = np.random.default_rng([1, start])
        count = min(BLOCK, n - start)
        own = (np.arange(start, start + count) % CLASSES) + CLASSES * draw.integers(0, CENTRES // CLASSES, count)
        block = centres[own] + draw.normal(size=(count, 32)).astype(np.float32) @ mixing
        block += 0.3 * draw.normal(size=block.shape).astype(np.float32)
        block[99::100] = block[98::100] * 1.001
        yield np.maximum(block, 0)


def simulate(place: Place) -> None:
    """Write the pictures and the embeddings of a size."""
    named: Any = shards(place)
    said = about(headstart.load(place.run), place.data, choose("cpu", "float32"))
    with place.embeddings.open("wb") as file:
        write_npz(file, named, rows(place.n), WIDTH, json.dumps(said))


def small_run(folder: Path) -> None:
    """The run that embeds the query: 512 features, hardly trained."""
    headstart.pretrain(
        "digits",
        out=folder,
        data=dict(limit=200, size=SIDE),
        backbone=dict(name="resnet18"),
        autoencoder=dict(epochs=1),
        contrastive=dict(epochs=1, batch_size=32),
        stages="contrastive",
    )


# ------------------------------------------------------------------------------------------------------------ measuring


def measured(task: str, place: Place, threads: int) -> tuple[float, float, float]:
    """Seconds of processor time and on the clock of a task, without its imports, and its most private memory, GiB."""
    call = [sys.executable, "-m", "benchmarks.many", "--task", task, str(place.folder), str(place.n), str(threads)]
    process = subprocess.Popen(call, stdout=subprocess.PIPE, text=True)
    peak = 0
    while process.poll() is None:
        peak = max(peak, private_bytes(process.pid))
        time.sleep(0.02)
    assert process.stdout is not None
    if process.returncode:
        raise SystemExit(f"{task} of {place.n:,} ended with {process.returncode}")
    cpu, clock = map(float, process.stdout.read().split()[-2:])
    return cpu, clock, peak / 2**30


def main(argv: Sequence[str] | None = None) -> None:
    """Print a row for every task and size."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments[:1] == ["--task"]:
        torch.set_num_threads(int(arguments[4]))
        clock, cpu = time.perf_counter(), time.process_time()
        TASKS[arguments[1]](Place(Path(arguments[2]), int(arguments[3])))
        print(time.process_time() - cpu, time.perf_counter() - clock)
        return
    parser = argparse.ArgumentParser(
        prog="benchmarks many", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--only", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--folder", type=Path, help="keep everything here for the next call (default: nowhere)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        if not (folder / "run" / "result.json").exists():
            small_run(folder / "run")
        print(machine("cpu"), f"{options.threads} threads", f"\n{HEADER}")
        for n in options.sizes:
            place = Place(folder, n)
            if not place.embeddings.exists():
                simulate(place)
            for task in options.only:
                cpu, clock, memory = measured(task, place, options.threads)
                print(f"| {task} | {n:,} | {cpu:.1f} | {clock:.1f} | {memory:.2f} |", flush=True)


if __name__ == "__main__":
    main()
