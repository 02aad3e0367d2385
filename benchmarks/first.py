"""What a process does once: two equal trainings one after the other in it, and where the first one's longer time went.

    python -m benchmarks first --device cuda

Each adapts the network to the same pictures without labels, as a worker of a study does with its first run and its
second: the whole first training is there, cuDNN's trials, the recording of passes and all that loads when it is first
asked for. Weights are drawn, which changes no time. With `--blocking` each kernel is waited for where it is called, so
that its seconds are told where they belong; both trainings are slower then.
"""

import argparse
import cProfile
import json
import os
import pstats
import tempfile
from pathlib import Path

import torch

import headstart
from benchmarks import common
from headstart.backbones import build

NETWORK = "timm:tf_efficientnet_lite0"


def trained(pictures: Path, out: Path, options: argparse.Namespace) -> tuple[dict[str, float], pstats.Stats]:
    """Seconds of SimCLR and of its first epoch's steps, and the profile of the whole."""
    profile = cProfile.Profile()
    profile.enable()
    headstart.pretrain(
        *(pictures, out),
        quiet=True,
        preset="adapt",
        stages="contrastive",
        device=options.device,
        threads=options.threads,
        data={"size": options.size, "unlabelled": True},
        backbone={"name": options.backbone, "weights": str(out.parent / "weights.pt")},
        contrastive={"epochs": options.epochs, "keep": "last"},
    )
    profile.disable()
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    first = next(row for row in rows if row.get("stage") == "contrastive")
    result = json.loads((out / "result.json").read_text())
    told = {"SimCLR": result["seconds"]["contrastive"]}
    return told | {"first epoch": result["data"]["train"] / first["pairs_per_s"]}, pstats.Stats(profile)


def more(first: pstats.Stats, second: pstats.Stats, rows: int) -> list[tuple[float, float, str]]:
    """Functions by the seconds that the first training spent longer in them alone: these, all of its own, the name."""
    there = {name: values[2] for name, values in second.stats.items()}  # type: ignore[attr-defined]
    spent = first.stats.items()  # type: ignore[attr-defined]
    longer = [(values[2] - there.get(name, 0.0), values[2], f"{name[0]}:{name[1]} {name[2]}") for name, values in spent]
    return sorted(longer, reverse=True)[:rows]


def main(argv: list[str]) -> None:
    """Print both trainings' seconds, and what took longer in the first."""
    parser = argparse.ArgumentParser(
        prog="benchmarks first", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--backbone", default=NETWORK)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--pictures", type=int, default=640)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", type=int, default=25)
    parser.add_argument("--blocking", action="store_true")
    options = parser.parse_args(argv)
    if options.blocking:
        os.environ["CUDA_LAUNCH_BLOCKING"] = "1"  # read when CUDA is first used
    print(common.machine(options.device))
    with common.pictures(None, options.pictures, options.size) as pictures, tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        torch.save(build(options.backbone).state_dict(), Path(folder) / "weights.pt")
        (one, before), (two, after) = (trained(pictures, Path(folder) / name, options) for name in ("first", "second"))
    for name in one:
        print(f"| {name} | {one[name]:.1f} s | {two[name]:.1f} s |")
    for longer, spent, name in more(before, after, options.rows):
        print(f"{longer:8.2f} s more, of {spent:8.2f}  {name}")
