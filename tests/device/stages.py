"""The stages of a run on any device, small: what the tests of pretended and of real GPUs both take steps of."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from headstart import autoencoders, backbones, data
from headstart.data import splits as splitting
from headstart.engine import live_taps
from headstart.engine.checkpoint import Checkpoints
from headstart.engine.device import Compute
from headstart.engine.randomness import generator
from headstart.evaluate.health import Health
from headstart.evaluate.online import OnlineProbe
from headstart.evaluate.views import augmenter
from headstart.heads import ProjectionHead
from headstart.records.folder import Metrics
from headstart.training.autoencoder import Autoencoding
from headstart.training.contrastive import Contrastive
from headstart.training.loop import Epoch, Training
from headstart.training.step import SimCLR, Stepper
from headstart.use.fitting import Fit, Fitter, Fitting
from headstart.use.settings import FinetuneSettings
from tests.runs import small

SIZE, BATCH = 32, 32
MEAN, STD = torch.full((3,), 0.5), torch.full((3,), 0.2)


@dataclass(frozen=True)
class Stage:
    """One training, and its steps of one epoch, one after the other."""

    training: Training

    def step(self, number: int) -> Tensor:
        """Step `number` of the first epoch, its batch prepared as it is in a run; its loss ()."""
        batch = next(iter(self.training.batches(0, number)))
        return self.training.step(batch, 0, number).loss


def compute(device: torch.device) -> Compute:
    """bfloat16, which every GPU of today multiplies."""
    return Compute(device, torch.bfloat16)


def simclr(device: torch.device, sources: tuple[str, ...] = ("digits",), **contrastive: Any) -> Stage:
    """SimCLR as a run trains it, with its observers."""
    options = {"batch_size": BATCH, "lr": 0.1, **contrastive}
    config = small(data={"size": SIZE, "sources": sources}, contrastive=options)
    images = data.open_images(config.data)
    splits = splitting.make(images, config.data)
    backbone = backbones.build("resnet18", stem="imagenet", generator=generator(0, "backbone"), size=SIZE)
    head = ProjectionHead(512, 32, 16, "sigmoid", generator=generator(0, "head"))
    head.first.requires_grad_(False)
    augment = augmenter(config.augment, SIZE, MEAN, STD).to(device)
    model = SimCLR(live_taps.apply(backbone, SIZE), head)
    training = Contrastive(model, augment, images, splits, config, compute(device))
    training.observers = (OnlineProbe(images.labels, len(images.classes)), Health())
    return Stage(training)


def stepper(stage: Stage) -> Stepper:
    """What takes the steps of SimCLR."""
    assert isinstance(stage.training, Contrastive)
    return stage.training.stepper


def autoencoder(device: torch.device, kind: str = "mlp") -> Stage:
    """The autoencoder of the pictures."""
    config = small(autoencoder={"kind": kind, "batch_size": 16})
    images = data.open_images(config.data)
    pictures = [images.squashed(rows, 16).to(device) for rows in (np.arange(96), np.arange(96, 128))]
    model = autoencoders.build(config.autoencoder, 3 * 16 * 16, 64, 16, generator(0, "autoencoder")).to(device)
    return Stage(Autoencoding(model, config.autoencoder, pictures[0], pictures[1], 0, compute(device)))


def finetuning(device: torch.device, folder: Path, **settings: Any) -> Stage:
    """A classifier from few labels."""
    config = small(data={"size": SIZE})
    images = data.open_images(config.data)
    backbone = backbones.build("resnet18", stem="imagenet", generator=generator(0, "backbone"), size=SIZE)
    run = SimpleNamespace(config=config, size=SIZE, mean=MEAN, std=STD, backbone=backbone)
    checkpoints = Checkpoints(folder / "checkpoint.pt", Metrics(folder / "metrics.jsonl"))
    options = FinetuneSettings(**{"batch_size": 16, **settings})
    fitter = Fitter(cast(Any, run), images, options, compute(device), checkpoints, "test", quiet=True)
    fit = Fit(
        name="adapted", start="adapted", train=np.arange(64), val=np.arange(64, 96), lr=0.01, layer_decay=0.7, epochs=2
    )
    return Stage(Fitting(fitter, fit))


def end_of_epoch(training: Training) -> dict[str, Any]:
    """What is looked at after an epoch: validation, observers."""
    loss = training.validate()
    return training.end_epoch(Epoch(number=1, loss=1.0, val_loss=loss, lr=0.1))


def augmented(device: torch.device, side: int = SIZE) -> Callable[[], Tensor]:
    """Both views of a batch of pictures that already lie on the device."""
    config = replace(small().augment, flip=0.5)
    augment = augmenter(config, SIZE, MEAN, STD).to(device)
    pictures = torch.zeros(BATCH, 3, side, side, dtype=torch.uint8).to(device)
    return lambda: augment.apply(pictures, augment.draw(2 * BATCH, side, side, generator=generator(0, "augment")))


def unequal(folder: Path, count: int = 160) -> tuple[str]:
    """Pictures of many sizes, as `data.sources`."""
    folder.mkdir()
    draws = np.random.default_rng(0)
    for number in range(count):
        shape = (*draws.integers(SIZE, 2 * SIZE, 2), 3)
        Image.fromarray(draws.integers(0, 256, shape, np.uint8)).save(folder / f"{number:03}.png")
    return (str(folder),)
