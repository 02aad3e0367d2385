"""SimCLR's two views of a picture: Headstart's batches against torchvision's PIL transforms in a DataLoader.

Pairs per second at 32 and 128 pixels. The loader reads JPEG files as the authors' code does, with as many workers as
cores; beside it, the same from pictures that are already decoded. Headstart draws and applies whole batches.

    python -m benchmarks augment [--rounds 5] [--pictures FOLDER]
"""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from benchmarks import authors, common
from headstart.augment import SimCLRAugment
from headstart.data import open_images
from headstart.records.config import DataConfig

WARM = 8
"""Batches that are already waiting when a round begins are not counted."""


def from_loader(loader: DataLoader[Any], batches: int) -> common.Way:
    """Seconds per pair in the loader's steady state."""

    def way() -> float:
        iterator = iter(loader)
        for _ in itertools.islice(iterator, WARM):
            pass
        start = time.perf_counter()
        for _ in itertools.islice(iterator, batches):
            pass
        seconds = (time.perf_counter() - start) / (batches * (loader.batch_size or 1))
        for _ in iterator:  # leave no work behind for the others' turn
            pass
        return seconds

    return way


def from_headstart(folder: Path, size: int, batch_size: int, batches: int, device: str) -> common.Way:
    """Seconds per pair of drawing and applying from stored pictures."""
    images = open_images(DataConfig(sources=(str(folder),), cache_dir=str(folder)))
    augment = SimCLRAugment(size, mean=authors.MEAN, std=authors.STD).to(device)
    generator = torch.Generator().manual_seed(0)

    def epoch() -> Iterator[torch.Tensor]:
        for _ in range(batches):
            frames, valid = images.batch(torch.randint(len(images), (batch_size,), generator=generator))
            yield augment(frames.to(device), valid=valid, generator=generator)

    return lambda: common.once(lambda: [None for _ in epoch()], batches * batch_size)


def main(argv: list[str]) -> None:
    """Print a table for each size."""
    parser = common.options("augment", __doc__, rounds=5)
    parser.add_argument("--pictures", help="folder of .jpg files (default: CIFAR-10 from $HEADSTART_DATA)")
    chosen = parser.parse_args(argv)
    torch.set_num_threads(chosen.threads or common.cores())
    print(common.machine(chosen.device))
    for size, batch_size, loaded, made in ((32, 256, 64, 16), (128, 64, 48, 4)):
        piece = 32 if size == 32 else 8  # small loader batches, so that the steady state is short
        count = (loaded + WARM + 4) * piece
        with common.pictures(chosen.pictures, count, size) as folder:
            files, decoded = (authors.Pairs(folder, size, in_memory) for in_memory in (False, True))
            for pairs in (files, decoded):
                del pairs.files[count:]
            workers = common.cores()
            ways = {
                f"PIL loader from files, {workers} workers": from_loader(authors.loader(files, piece, workers), loaded),
                "PIL loader from memory": from_loader(authors.loader(decoded, piece, workers), loaded),
                "Headstart": from_headstart(folder, size, batch_size, made, chosen.device),
            }
            common.table(f"Two views at {size} px", common.interleave(ways, chosen.rounds), "pairs")
