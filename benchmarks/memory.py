"""What training takes of the memory: of a pair by network, and at its peak a run that adapts given weights.

`python -m benchmarks memory` prints the first; with `--data FOLDER --weights FILE` the second as well: a run of
`--preset adapt` on those pictures, whole or with fewer epochs, whose process may take `--limit` GiB (`ulimit -d`). What
the process chose and said is printed before its seconds and its peak.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import torch

from headstart.records.presets import adapt
from headstart.training.footprint import counted

NETWORK = "timm:tf_efficientnet_lite0"
NETWORKS = (("resnet34", 32), ("resnet50", 224), (NETWORK, 128), ("vit_b_16", 224))
GIB, MIB = 2**30, 2**20


def main(argv: Sequence[str]) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        prog="benchmarks memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="pictures to adapt to")
    parser.add_argument("--weights", help=f"of {NETWORK}")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=adapt().contrastive.epochs)
    parser.add_argument("--head-epochs", type=int, default=adapt().contrastive.head_epochs)
    parser.add_argument("--limit", type=float, default=4.0, help="GiB")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(argv)
    per_pair()
    if options.data:
        begun = time.monotonic()
        peak = peak_of_run(options)
        print(
            f"a run under {options.limit:g} GiB with {options.threads} thread(s): {time.monotonic() - begun:.0f} s, "
            f"{peak / GIB:.2f} GiB resident at its peak"
        )


def per_pair() -> None:
    """What autograd keeps of a pair in float32, and that with the largest map on the way."""
    print("| float32, of one pair | kept by autograd | with the largest map |\n| --- | ---: | ---: |")
    careful = adapt().contrastive
    rows = [
        (f"{name}, {size} px", counted(name, "imagenet", size, "batch", 0.0, 1, torch.float32))
        for name, size in NETWORKS
    ]
    given = counted(NETWORK, "imagenet", 128, careful.norms, careful.frozen_share, 1, torch.float32)
    for label, found in [*rows, (f"{NETWORK}, 128 px, as --preset adapt trains it", given)]:
        print(f"| {label} | {found.kept / MIB:.1f} MiB | {found.pair / MIB:.1f} MiB |")


def peak_of_run(options: argparse.Namespace) -> int:
    """Bytes resident at the peak of a run that may not take more private memory than the limit."""
    most = int(options.limit * GIB)
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-P", "-m", "headstart", "pretrain", options.data, "--out", f"{out}/run"]
        settings = {
            "backbone.name": NETWORK,
            "backbone.weights": options.weights,
            "data.size": options.size,
            "contrastive.epochs": options.epochs,
            "contrastive.head-epochs": options.head_epochs,
            "precision": "float32",
            "threads": options.threads,
        }
        command += [part for name, value in settings.items() for part in (f"--{name}", str(value))]
        subprocess.run(command, check=True, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (most, most)))
    return 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # Linux counts in KiB
