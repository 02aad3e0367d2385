"""Training the paper's autoencoder: Headstart's stage against the authors' way.

Pictures per second of one epoch over CIFAR-10 pictures (batch 100, Adam). The authors' way: JPEG files through PIL in a
DataLoader with as many workers as cores, float32, the plain loop; beside it the same loop on pictures in memory.

    python -m benchmarks autoencoder [--rounds 3] [--count 5000] [--latent 128] [--pictures FOLDER]
"""

import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torchvision.transforms.functional as TF
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks import common
from headstart import autoencoders
from headstart.data import open_images
from headstart.data.decode import FORMATS
from headstart.engine import device as devices
from headstart.engine.checkpoint import Checkpoints
from headstart.records.config import AutoencoderConfig, DataConfig
from headstart.records.folder import Metrics
from headstart.training import autoencoder

BATCH = 100


class Files(Dataset[Any]):
    """JPEG files as float tensors."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        return TF.to_tensor(Image.open(self.files[index], formats=FORMATS).convert("RGB"))


def plain_epoch(model: nn.Module, optimizer: torch.optim.Optimizer, batches: Iterable[Tensor], device: str) -> None:
    """The plain loop."""
    for x in batches:
        x = x.to(device).flatten(1)
        loss = nn.functional.mse_loss(model(x), x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()


def plain_model(in_features: int, latent: int) -> nn.Module:
    """Section 3.2, written out."""
    return nn.Sequential(
        nn.Linear(in_features, 512),
        nn.ReLU(),
        nn.Linear(512, latent),
        nn.Linear(latent, 512),
        nn.ReLU(),
        nn.Linear(512, in_features),
        nn.Sigmoid(),
    )


def headstart_way(pixels: Tensor, latent: int, compute: devices.Compute) -> common.Way:
    """Seconds per picture of a one-epoch training, its validation, test and saving (on 100 pictures each) included."""
    config = AutoencoderConfig(epochs=1)

    def way() -> float:
        model = autoencoders.build(config, pixels[0].numel(), 512, latent, torch.Generator().manual_seed(0))
        with tempfile.TemporaryDirectory() as folder:
            checkpoints = Checkpoints(Path(folder) / "checkpoint.pt", Metrics(Path(folder) / "metrics.jsonl"), 1e9)
            start = time.perf_counter()
            autoencoder.train(
                model,
                (pixels, pixels[:BATCH], pixels[:BATCH]),
                config,
                seed=0,
                compute=compute,
                checkpoints=checkpoints,
                log=lambda **_: None,
                quiet=True,
            )
            common.synchronize()
            return (time.perf_counter() - start) / len(pixels)

    return way


def main(argv: list[str]) -> None:
    """Print the table."""
    parser = common.options("autoencoder", __doc__, rounds=3)
    parser.add_argument("--count", type=int, default=5000, help="pictures of an epoch")
    parser.add_argument("--latent", type=int, default=128)
    parser.add_argument("--precision", choices=("auto", "bfloat16", "float32"), default="auto")
    parser.add_argument("--pictures", help="folder of .jpg files (default: CIFAR-10 from $HEADSTART_DATA)")
    chosen = parser.parse_args(argv)
    compute = devices.choose(chosen.device, chosen.precision, chosen.threads)
    print(common.machine(chosen.device))
    with common.pictures(chosen.pictures, chosen.count) as folder:
        files = sorted(folder.rglob("*.jpg"))[: chosen.count]
        workers = common.cores()
        loader = DataLoader(Files(files), BATCH, shuffle=True, num_workers=workers, persistent_workers=True)
        images = open_images(DataConfig(sources=(str(folder),), cache_dir=str(folder)))
        pixels = images.batch(torch.arange(len(files)))[0]
        model = plain_model(pixels[0].numel(), chosen.latent).to(chosen.device)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
        ours = autoencoders.Autoencoder(pixels[0].numel(), 512, chosen.latent)

        def from_memory() -> None:
            order = torch.randperm(len(pixels))
            plain_epoch(model, optimizer, (pixels[i].float() / 255 for i in order.split(BATCH)), chosen.device)

        def prepare() -> None:
            """All that several latent sizes could share in one pass over the data."""
            for batch in torch.randperm(len(pixels)).split(BATCH):
                ours.prepare(pixels[batch].to(compute.device))

        ways: dict[str, common.Way] = {
            f"authors' way, {workers} workers": lambda: common.once(
                lambda: plain_epoch(model, optimizer, loader, chosen.device), len(files)
            ),
            "plain loop from memory": lambda: common.once(from_memory, len(files)),
            f"Headstart, {compute.precision}": headstart_way(pixels, chosen.latent, compute),
            "reading and preparing its batches alone": lambda: common.once(prepare, len(files)),
        }
        times = common.interleave(ways, chosen.rounds)
    common.table(f"Autoencoder 3072-512-{chosen.latent}, batch {BATCH}", times, "pictures")
