"""What can be refused before anything is trained: pictures, weights and settings of every run that is still to be made.

The checks are the ones that a run begins with (training/resolving.py), made for all runs at once.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from headstart import backbones, data
from headstart.backbones.weights import FETCHED
from headstart.data import Images, splits
from headstart.data.splits import Splits
from headstart.engine import loggers
from headstart.engine.device import Compute
from headstart.engine.progress import say
from headstart.records.config import Config, DataConfig
from headstart.records.config import load as load_config
from headstart.records.errors import InputError
from headstart.records.outputs import no_input
from headstart.study.file import Planned
from headstart.training.resolving import resolve

ON_CPU = Compute(torch.device("cpu"), torch.float32)
"""No check depends on where a run computes."""


class Opened:
    """The pictures of the data set that the runs are at, read once a process, and their splits."""

    def __init__(self) -> None:
        self.key: object = None
        self.images: Images | None = None
        self.splits: dict[DataConfig, Splits] = {}

    def of(self, config: Config) -> tuple[Images, Splits]:
        """The pictures and the split of a run."""
        config = backbones.settled(config)
        crop = (config.augment.crop_scale[0], config.augment.crop_ratio[0])
        neutral = replace(config.data, split_seed=0, splits="house", limit=None, normalize=True, statistics="train")
        if self.images is None or self.key != (neutral, crop):
            self.images = None  # one data set at a time: a study walks from one to the next
            self.splits = {}
            self.images, self.key = data.open_images(config.data, *crop), (neutral, crop)
        if config.data not in self.splits:
            self.splits[config.data] = splits.make(self.images, config.data)
        return self.images, self.splits[config.data]


def check(planned: Sequence[Planned], out: Path) -> None:
    """Raise InputError for what a run would be refused for, and for other pictures than `out` has under a label."""
    no_input(out, {source for run in planned for source in run.config.data.sources})
    for names in dict.fromkeys(run.config.loggers for run in planned):
        loggers.check(names, out)
    networks = [run.config.backbone for run in planned if run.config.stages != "autoencoder"]
    for network in dict.fromkeys(networks):
        if network.weights in FETCHED:  # to have them here is the only proof that they can be had
            backbones.build(network.name, stem=network.stem, weights=network.weights)
    opened = Opened()
    for label in dict.fromkeys(run.point.data for run in planned):
        runs = [run for run in planned if run.point.data == label]
        _check_pictures(opened.of(runs[0].config)[0], label, out)
        _check_settings(opened, runs)


def _check_pictures(images: Images, label: str, out: Path) -> None:
    """Runs of one label are compared with each other, so their pictures have to be the same, wherever these lie."""
    for path in sorted((out / "runs").glob(f"data={label},*/config.yaml"))[:1]:
        began, about = load_config(path)
        if about.get("fingerprint") != images.fingerprint:
            raise InputError(
                f"{path.parent} has other pictures called {label} ({', '.join(began.data.sources)}); give these "
                f"another name in the study's file, such as `data: {{{label}-2: {{sources: [...]}}}}`, or give another "
                "--out"
            )


def _check_settings(opened: Opened, runs: Sequence[Planned]) -> None:
    """Every kind of run of one data set; of heads, which are many, without reading weights again."""
    seen: set[object] = set()
    said: set[str] = set()
    for run in runs:
        images, split = opened.of(run.config)
        config = run.config
        plain = replace(
            config,
            backbone=replace(config.backbone, weights="none"),
            data=replace(config.data, statistics="train", interpolation="bilinear"),
        )
        whole = (config.data, config.backbone, config.autoencoder, config.contrastive, config.augment)
        for kind, checked in ((whole, config), ((config.data, config.autoencoder, config.head), plain)):
            if kind not in seen:
                seen.add(kind)
                try:
                    _, notes = resolve(backbones.settled(checked), images, split, ON_CPU)
                except InputError as error:
                    raise InputError(f"{run.name}: {error}") from None
                for note in notes:
                    if note not in said:
                        say(note)
                said.update(notes)
