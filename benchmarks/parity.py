"""Is the faster training as good? SimCLR by lightly's own parts and by Headstart, on the same pictures, judged alike.

Both get the settings of lightly's published CIFAR-10 benchmark (its transform without blur and at half the jitter, its
head with batch norm, temperature 0.5, SGD at 0.06 batch / 128, weight decay 5e-4, a cosine), the same network with the
same initial weights, the same training pictures and as many epochs. Then `knn` and `linear` on the test pictures.

    python -m benchmarks parity FOLDER [--epochs 20] [--limit 5000] [--batch-size 128] [--seeds 0 1] [--stem cifar]

FOLDER has train/CLASS/*.jpg and test/CLASS/*.jpg. `--ways` takes some of the ways alone, `--out` keeps what was found.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import headstart
from benchmarks import common, lightly_users
from headstart.backbones import build, num_features
from headstart.data import open_images
from headstart.data import splits as splitting
from headstart.data.images import Images
from headstart.data.splits import Splits
from headstart.engine.device import Compute, choose
from headstart.engine.randomness import generator
from headstart.evaluate import features, probes
from headstart.records.config import DataConfig

JUDGES = ("knn", "linear")
Chosen = argparse.Namespace


def rate(chosen: Chosen) -> float:
    """The peak learning rate of both."""
    return 0.06 * chosen.batch_size / 128


def lightly_backbone(
    chosen: Chosen, seed: int, files: Sequence[Path], moments: tuple[Tensor, Tensor], compute: Compute
) -> nn.Module:
    """Trained as lightly's CIFAR-10 benchmark does."""
    from lightly.loss import NTXentLoss

    torch.manual_seed(seed)
    model = lightly_users.SimCLR(chosen.backbone, chosen.size)
    model.backbone = build(chosen.backbone, stem=chosen.stem, generator=generator(seed, "backbone"), size=chosen.size)
    model = model.to(compute.device).to(memory_format=torch.channels_last).train()
    mean, std = (moment.tolist() for moment in moments)
    views = lightly_users.Views(files, chosen.size, mean, std, cj_strength=0.5, gaussian_blur=0.0)
    loader = lightly_users.loader(views, chosen.batch_size, chosen.workers)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate(chosen), momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, chosen.epochs)
    criterion = NTXentLoss()
    for _ in range(chosen.epochs):
        for pair in loader:
            one, two = (x.to(compute.device).contiguous(memory_format=torch.channels_last) for x in pair)
            with compute.autocast():
                loss = criterion(model(one), model(two))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return model.backbone


def headstart_backbone(chosen: Chosen, seed: int, folder: Path) -> nn.Module:
    """The same settings as options of `pretrain`."""
    run = headstart.pretrain(
        [chosen.folder],
        out=folder / f"run-{seed}",
        data={"limit": chosen.limit, "size": chosen.size},
        backbone={"name": chosen.backbone, "stem": chosen.stem},
        head={"init": "random", "frozen": False, "hidden_dim": num_features(chosen.backbone), "batch_norm": True},
        contrastive={
            "epochs": chosen.epochs,
            "batch_size": chosen.batch_size,
            "lr": rate(chosen),
            "weight_decay": 5e-4,
        },
        augment={"blur_p": 0.0, "jitter": [0.4, 0.4, 0.4, 0.1]},
        probe={"names": ["knn"]},
        seed=seed,
        device=chosen.device,
        precision=chosen.precision,
        threads=chosen.threads,
    )
    return run.backbone


def judged(
    backbone: nn.Module, images: Images, splits: Splits, size: int, moments: tuple[Tensor, Tensor], compute: Compute
) -> Mapping[str, Any]:
    """The probes on the features of every split."""
    rows = {"train": splits.train, "val": splits.val, "test": splits.test}
    mean, std = moments

    def extracted(indices: np.ndarray) -> np.ndarray:
        return features.extract(backbone, images, indices, size=size, mean=mean, std=std, compute=compute)

    return probes.run(
        {split: extracted(indices) for split, indices in rows.items()},
        {split: images.labels[indices] for split, indices in rows.items()},
        {split: [images.names[row] for row in indices] for split, indices in rows.items()},
        images.classes,
        which=JUDGES,
        device=compute.device,
    )


def main(argv: list[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="benchmarks parity", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("folder")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--limit", type=int, default=5000, help="pictures of train and val")
    parser.add_argument("--batch-size", type=int, default=128, help="pairs")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--stem", choices=("imagenet", "cifar"), default="imagenet")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--precision", choices=("auto", "bfloat16", "float32"), default="auto")
    parser.add_argument("--workers", type=int, default=common.cores(), help="of lightly's loader")
    parser.add_argument("--ways", nargs="+", choices=("lightly", "Headstart"), default=("lightly", "Headstart"))
    parser.add_argument("--out", type=Path, help="a JSON file")
    chosen = parser.parse_args(argv)
    compute = choose(chosen.device, chosen.precision, chosen.threads)
    data = DataConfig(sources=(chosen.folder,), limit=chosen.limit, size=chosen.size)
    images = open_images(data)
    splits = splitting.make(images, data)
    pixels = images.squashed(splits.train, chosen.size).float().div(255)
    moments = pixels.mean((0, 2, 3)), pixels.std((0, 2, 3))
    files = [Path(chosen.folder, images.names[row]) for row in splits.train]
    print(common.machine(chosen.device))
    print(f"{len(files):,} training pictures, {chosen.epochs} epochs of {chosen.batch_size} pairs\n")
    print("| way | seed | knn | 200 neighbours | linear | minutes |\n| --- | ---: | ---: | ---: | ---: | ---: |")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        makes: dict[str, Callable[[int], nn.Module]] = {
            "lightly": lambda seed: lightly_backbone(chosen, seed, files, moments, compute),
            "Headstart": lambda seed: headstart_backbone(chosen, seed, Path(folder)),
        }
        for seed in chosen.seeds:
            for way in chosen.ways:
                began = time.monotonic()
                backbone = makes[way](seed)
                minutes = (time.monotonic() - began) / 60
                result = judged(backbone, images, splits, chosen.size, moments, compute)
                knn, linear = result["knn"], result["linear"]
                shown = (knn["accuracy"], knn["wide"]["accuracy"], linear["accuracy"])
                cells = " | ".join(f"{100 * accuracy:.1f}" for accuracy in shown)
                print(f"| {way} | {seed} | {cells} | {minutes:.1f} |", flush=True)
                names = ("knn", "knn_200", "linear")
                found.append({"way": way, "seed": seed, **dict(zip(names, shown, strict=True)), "minutes": minutes})
                if chosen.out:
                    chosen.out.write_text(json.dumps(found, indent=1))
