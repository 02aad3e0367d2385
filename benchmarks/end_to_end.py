"""SimCLR from stored pictures to updated weights, ResNet-34 at 32 pixels or others: Headstart against two others.

Pairs per second of whole steps: (a) the authors' way: PIL DataLoader with as many workers as cores, two float32 passes,
broadcast loss; (b) lightly as its users run it, and with bfloat16 and channels_last given to it; Headstart's own loop:
stored uint8 pictures, prefetch, augmentation, step. Loaders and threads are at work before a round's clock starts.

    python -m benchmarks end_to_end [--rounds 3] [--steps 3] [--batch-size 256] [--backbone NAME] [--pictures FOLDER]
"""

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from benchmarks import authors, common, lightly_users
from headstart.augment import SimCLRAugment
from headstart.backbones import build
from headstart.data import open_images
from headstart.engine import device as devices
from headstart.engine import live_taps
from headstart.engine.prefetch import Prefetch
from headstart.engine.randomness import generator
from headstart.heads import ProjectionHead
from headstart.records.config import Config, ContrastiveConfig, DataConfig
from headstart.training.feed import Batch, Feed
from headstart.training.step import SimCLR, Stepper

Epoch = Callable[[], Iterator[None]]
"""Yields after every finished step."""


def timed(make: Callable[[], Epoch], steps: int, batch_size: int) -> common.Way:
    """Seconds per pair of `steps` steps after a first one, which starts the workers."""
    epoch = make()

    def way() -> float:
        iterator = epoch()
        next(iterator)
        seconds = common.once(lambda: [None for _ in itertools.islice(iterator, steps)], steps * batch_size)
        for _ in iterator:  # leave no work behind for the others' turn
            pass
        return seconds

    return way


def authors_epoch(folder: Path, size: int, batch_size: int, device: str, backbone: str) -> Epoch:
    """The authors' way."""
    network = authors.network(backbone, size).to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-5)
    loader = authors.loader(authors.Pairs(folder, size), batch_size, common.cores())

    def epoch() -> Iterator[None]:
        for one, two in loader:
            authors.step(network, optimizer, one.to(device), two.to(device))
            yield

    return epoch


def lightly_epoch(folder: Path, size: int, batch_size: int, device: str, backbone: str, fast: bool) -> Epoch:
    """As lightly's users run it."""
    trainer = lightly_users.Trainer(device, fast, backbone, size)
    files = sorted(folder.rglob("*.jpg"))
    views = lightly_users.Views(files, size, authors.MEAN, authors.STD, cj_strength=1.0, cj_hue=0.2)
    loader = lightly_users.loader(views, batch_size, common.cores())

    def epoch() -> Iterator[None]:
        for one, two in loader:
            trainer.step(one, two)
            yield

    return epoch


def headstart_epoch(folder: Path, size: int, batch_size: int, device: str, backbone: str, precision: str) -> Epoch:
    """The loop of `headstart.training.contrastive.train`, without its validation and checkpoints."""
    compute = devices.choose(device, precision, torch.get_num_threads())
    images = open_images(DataConfig(sources=(str(folder),), size=size, cache_dir=str(folder)))
    config = Config(contrastive=ContrastiveConfig(batch_size=batch_size))
    network = live_taps.apply(build(backbone, size=size), size)
    head = ProjectionHead(int(network.num_features), hidden_dim=256, output_dim=128)  # type: ignore[arg-type]
    head.first.requires_grad_(False)
    model = SimCLR(network, head)
    model = model.to(compute.device).to(memory_format=torch.channels_last).train()
    augment = SimCLRAugment(size, mean=authors.MEAN, std=authors.STD).to(compute.device)
    stepper = Stepper(model, augment, config, compute)
    batches = Feed(images, augment, compute).batches

    def epoch() -> Iterator[None]:
        shuffled = torch.randperm(len(images))
        draws = partial(generator, 0, "augment", 0)
        feed: Prefetch[Batch] = Prefetch(batches(shuffled, batch_size, draws))
        for step, batch in enumerate(feed):
            stepper(batch, 0.01, (0, step))
            yield

    return epoch


def main(argv: list[str]) -> None:
    """Print the table."""
    parser = common.options("end_to_end", __doc__, rounds=3)
    parser.add_argument("--batch-size", type=int, default=256, help="pairs")
    parser.add_argument("--steps", type=int, default=3, help="timed steps a round")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--backbone", default="resnet34", help="as --backbone.name of `headstart pretrain`")
    parser.add_argument("--precision", choices=("auto", "bfloat16", "float32"), default="auto")
    parser.add_argument("--pictures", help="folder of .jpg files (default: CIFAR-10 from $HEADSTART_DATA)")
    chosen = parser.parse_args(argv)
    torch.set_num_threads(chosen.threads or common.cores())
    print(common.machine(chosen.device))
    count = (chosen.steps + 1) * chosen.batch_size
    with common.pictures(chosen.pictures, count, chosen.size) as folder:
        setting = (folder, chosen.size, chosen.batch_size, chosen.device, chosen.backbone)
        epochs = {
            f"authors' way, {common.cores()} workers": partial(authors_epoch, *setting),
            "lightly": partial(lightly_epoch, *setting, fast=False),
            "lightly, bfloat16, channels_last": partial(lightly_epoch, *setting, fast=True),
            "Headstart": partial(headstart_epoch, *setting, chosen.precision),
        }
        makes = {name: partial(timed, epoch, chosen.steps, chosen.batch_size) for name, epoch in epochs.items()}
        with common.apart(makes) as ways:
            times = common.interleave(ways, chosen.rounds)
        title = f"{chosen.backbone}, {chosen.size} px, {chosen.batch_size} pairs, from stored pictures"
        ratios = common.table(title, times, "pairs")
    ours = ratios["Headstart"]
    print(f"\nHeadstart against {', '.join(f'{name}: {ours / ratio:.2f}x' for name, ratio in ratios.items())}")
