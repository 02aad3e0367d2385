"""Embedding a whole set into a file, beside the backbone's own forward pass over pictures that lie ready.

`python -m benchmarks embed --data cifar10/` (class folders; decoded once before the clock starts, as by any earlier
command). The backbone is untrained: its speed does not depend on its weights.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks import common
from headstart import backbones
from headstart.engine.device import Compute, choose
from headstart.records.config import BackboneConfig, Config, DataConfig
from headstart.records.folder import RunFolder
from headstart.use.embed import embed
from headstart.use.load import Run

BATCH = 512


def main(argv: Sequence[str]) -> None:
    """Print pictures per second of both, and their ratio."""
    parser = common.options("embed", __doc__, rounds=3)
    parser.add_argument("--data", required=True, help="a folder of pictures")
    parser.add_argument("--pictures", type=int, default=60_000)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--size", type=int, default=32)
    options = parser.parse_args(argv)
    compute = choose(options.device, threads=options.threads)
    with tempfile.TemporaryDirectory() as name:
        run = untrained_run(Path(name), options.backbone, options.size)
        images = run.open_images(options.data)
        n = min(options.pictures, len(images))
        whole = n == len(images)
        ready = images.squashed(range(min(BATCH, n)), options.size)
        ways = {
            "the backbone alone": lambda: common.once(lambda: forward(run, ready, n, compute), n),
            "run.embed": lambda: common.once(lambda: run.embed(images, compute=compute), len(images)),
            "headstart embed": lambda: common.once(
                lambda: embed(run, images, Path(name) / "all.npz", compute=compute, quiet=True), len(images)
            ),
        }
        print(common.machine(options.device), f"\n{n:,} pictures" if whole else f"\n{n:,} of {len(images):,} pictures")
        title = f"{options.backbone} at {options.size} px, batch {BATCH}, {compute.precision}"
        common.table(title, common.interleave(ways, options.rounds), "pictures")


def untrained_run(folder: Path, backbone: str, size: int) -> Run:
    """A run folder with nothing but a backbone, which is all that embedding reads."""
    network = backbones.build(backbone, size=size, generator=torch.Generator().manual_seed(0))
    save_file(network.state_dict(), RunFolder(folder).backbone)
    config = Config(data=DataConfig(size=size), backbone=BackboneConfig(name=backbone))
    return Run(RunFolder(folder), config, {"data": {"size": size, "mean": [0.5] * 3, "std": [0.25] * 3}})


def forward(run: Run, pictures: torch.Tensor, n: int, compute: Compute) -> None:
    """The backbone on one batch that is already normalised and in place, as often as n pictures need."""
    network = run.backbone.to(memory_format=torch.channels_last).to(compute.device)
    x = (pictures.float() / 255).to(compute.device).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), compute.autocast():
        for done in range(0, n, len(x)):
            network(x[: min(len(x), n - done)])
