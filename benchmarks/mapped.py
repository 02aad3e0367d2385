"""A set larger than its memory budget: throughput against the resident one, and memory measured from outside.

Each round starts one process a budget, in turn. A process takes SimCLR's pairs of random pictures, then the same again
(the first time also checks the mapped ones), read ahead by the run's own prefetch and augmented, with no network behind
it: a harder taker than training. The parent reads RssAnon + RssShmem of the process from /proc every 20 ms.

    python -m benchmarks mapped FOLDER [--rounds 3] [--memory-gib 0.25] [--batch-size 128]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from headstart.augment import SimCLRAugment
from headstart.data import open_images
from headstart.engine.device import Compute
from headstart.engine.prefetch import Prefetch
from headstart.engine.randomness import generator, order
from headstart.records.config import DataConfig
from headstart.training.feed import Feed
from headstart.training.loop import Clock


def take(folder: str, cache: str, memory_gib: float, batch_size: int, pairs: int) -> None:
    """The measured process: two epochs of pairs; prints pairs/s and the share of waiting for each."""
    images = open_images(DataConfig(sources=(folder,), cache_dir=cache, memory_gib=memory_gib))
    augment = SimCLRAugment(size=images.training_size("auto"))
    feed = Feed(images, augment, Compute(torch.device("cpu"), torch.float32))
    rates, waits = [], []
    for _ in range(2):
        clock, numbers = Clock("pairs"), order(0, "order", 0, len(images))[:pairs]
        ahead = Prefetch(feed.batches(numbers, batch_size, lambda step: generator(0, "draws", step)))
        for batch in clock.fed(ahead):
            augment.apply(batch.frames, batch.plans[0])
            clock.tick(len(batch.frames))
        rates.append(round(clock.figures["pairs_per_s"], 1))
        waits.append(round(clock.figures["data_wait"], 3))
    print(json.dumps({"resident": images.resident, "pairs_per_s": rates, "waiting": waits}))


def private_bytes(pid: int) -> int:
    """RssAnon + RssShmem of a process; 0 once it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon", "RssShmem")))


def measured(arguments: list[str]) -> dict[str, Any]:
    """Run `take` in a process of its own; what it printed, and the peak of its private memory in GiB."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.mapped", "--take", *arguments], stdout=subprocess.PIPE, text=True
    )
    peak = 0
    while process.poll() is None:
        peak = max(peak, private_bytes(process.pid))
        time.sleep(0.02)
    assert process.stdout is not None
    assert process.returncode == 0, process.returncode
    return {**json.loads(process.stdout.read()), "peak_private_gib": round(peak / 2**30, 3)}


def main(argv: list[str] | None = None) -> None:
    """Print one JSON object a process and one with the comparison."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] == ["--take"]:
        take(arguments[1], arguments[2], float(arguments[3]), int(arguments[4]), int(arguments[5]))
        return
    parser = argparse.ArgumentParser(prog="benchmarks mapped", description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-gib", type=float, default=0.25)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--pairs", type=int, default=2048)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as cache:
        images = open_images(DataConfig(sources=(options.folder,), cache_dir=cache))
        gib = sum(f.stat().st_size for f in Path(cache).glob("*.pictures")) / 2**30
        print(
            json.dumps(
                {
                    "pictures": len(images),
                    "decoded_gib": round(gib, 2),
                    "cores": os.cpu_count(),
                    "torch": torch.__version__,
                }
            )
        )
        del images
        rates: dict[bool, list[float]] = {True: [], False: []}
        peaks = []
        for _ in range(options.rounds):
            for budget in (1e6, options.memory_gib):
                found = measured([options.folder, cache, str(budget), str(options.batch_size), str(options.pairs)])
                print(json.dumps(found), flush=True)
                rates[bool(found["resident"])].append(max(found["pairs_per_s"]))
                peaks += [] if found["resident"] else [found["peak_private_gib"]]
    print(
        json.dumps(
            {
                "mapped_over_resident": round(median(rates[False]) / median(rates[True]), 3),
                "peak_private_gib": max(peaks),
                "allowed_gib": options.memory_gib + 1,
            }
        )
    )


if __name__ == "__main__":
    main()
