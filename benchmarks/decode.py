"""Reading a folder of JPEG files: Headstart's decoder against torchvision's ImageFolder with a two-worker loader.

Both read every file once per repeat, alternating in one process, into one uint8 tensor a batch. The files are read
once before, so that neither waits for the disk. Decoding into the cache file counts; mapping it again does not.

    python -m benchmarks decode FOLDER [--repeats 3] [--workers 2]
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import PIL
import torch
import torchvision
from torch.utils.data import DataLoader

from headstart.data import open_images
from headstart.records.config import DataConfig


def with_headstart(folder: Path) -> int:
    """Decode everything into a new cache; returns how many pictures."""
    with tempfile.TemporaryDirectory() as cache:
        return len(open_images(DataConfig(sources=(str(folder),), cache_dir=cache)))


def with_image_folder(folder: Path, workers: int) -> int:
    """Decode everything through ImageFolder and a DataLoader, without augmentation; returns how many pictures."""
    pictures = torchvision.datasets.ImageFolder(
        str(folder), transform=torchvision.transforms.PILToTensor(), allow_empty=True
    )
    uniform = len({pictures[i][0].shape for i in range(0, len(pictures), max(1, len(pictures) // 50))}) == 1
    loader = DataLoader(pictures, batch_size=256, num_workers=workers, collate_fn=None if uniform else list)
    return sum(len(batch[0] if uniform else batch) for batch in loader)


def seconds(function: Callable[[], int]) -> tuple[float, int]:
    """How long a call takes, and what it returns."""
    start = time.perf_counter()
    count = function()
    return time.perf_counter() - start, count


def main(argv: list[str] | None = None) -> None:
    """Print one JSON object: the best of the repeats of both, and their ratio."""
    parser = argparse.ArgumentParser(prog="benchmarks decode", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(argv)
    for path in options.folder.rglob("*"):
        if path.is_file():
            path.read_bytes()
    ours, theirs = [], []
    for _ in range(options.repeats):
        time_ours, count = seconds(lambda: with_headstart(options.folder))
        time_theirs, same = seconds(lambda: with_image_folder(options.folder, options.workers))
        assert count == same, (count, same)
        ours.append(time_ours)
        theirs.append(time_theirs)
    print(
        json.dumps(
            {
                "pictures": count,
                "headstart_seconds": [round(t, 2) for t in ours],
                "image_folder_seconds": [round(t, 2) for t in theirs],
                "ratio_of_best": round(min(theirs) / min(ours), 2),
                "workers": options.workers,
                "cores": os.cpu_count(),
                "pillow": PIL.__version__,
                "torch": torch.__version__,
                "torchvision": torchvision.__version__,
            }
        )
    )


if __name__ == "__main__":
    main()
