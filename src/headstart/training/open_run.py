"""An open run: what its stages share, and how they say that they are done."""

import functools
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headstart import backbones
from headstart.data import Images
from headstart.data.images import Squashed
from headstart.data.prepare import how
from headstart.data.splits import Splits
from headstart.engine import distributed, memory
from headstart.engine.checkpoint import Checkpoints
from headstart.engine.device import Compute
from headstart.engine.observer import Observer
from headstart.engine.progress import say
from headstart.engine.randomness import generator
from headstart.evaluate import features as representations
from headstart.evaluate.health import Health
from headstart.evaluate.online import OnlineProbe
from headstart.records import files
from headstart.records.config import Config
from headstart.records.folder import Metrics, RunFolder
from headstart.records.levels import shown
from headstart.records.version import __version__
from headstart.training.autoencoder import Rows


@dataclass
class OpenRun:
    """An open run.

    Attributes:
        config: resolved, nothing is left to decide.
        stages: what finished stages found: `autoencoder`, `contrastive`, `head`, `seconds`; becomes result.json.
    """

    folder: RunFolder
    config: Config
    compute: Compute
    images: Images
    splits: Splits
    metrics: Metrics
    checkpoints: Checkpoints
    stages: dict[str, Any]
    quiet: bool

    @property
    def writes(self) -> bool:
        """Whether this process writes files."""
        return distributed.rank() == 0

    @property
    def shared(self) -> dict[str, Any]:
        """What every training is given."""
        return dict(compute=self.compute, checkpoints=self.checkpoints, log=self.metrics.log, quiet=self.quiet)

    @property
    def parts(self) -> dict[str, np.ndarray]:
        """Indices of train, val and test, by name."""
        return vars(self.splits)

    @property
    def size(self) -> int:
        """Side of the training pictures in pixels."""
        assert isinstance(self.config.data.size, int)
        return self.config.data.size

    def statistics(self, split: str) -> tuple[Tensor | None, Tensor | None]:
        """Mean and std (3,) of the Z-score for a split's pictures, or None twice."""
        return self.moments[split] if self.config.data.normalize else (None, None)

    @functools.cached_property
    def moments(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Mean and std (3,) of each split's Z-score, whether it is applied or not."""
        return backbones.zscores(self.images, self.splits, self.config)

    def backbone(self) -> nn.Module:
        """f as it is before SimCLR: the same for every head of a seed."""
        settings = self.config.backbone
        return backbones.build(
            settings.name,
            stem=settings.stem,
            weights=settings.weights,
            size=self.size,
            generator=generator(self.config.seed, "backbone"),
        )

    def features(self, backbone: nn.Module, indices: np.ndarray, split: str) -> np.ndarray:
        """h (N, num_features) of un-augmented pictures."""
        mean, std = self.statistics(split)
        return representations.extract(
            backbone, self.images, indices, size=self.size, mean=mean, std=std, compute=self.compute
        )

    def autoencoder_inputs(self) -> tuple[Rows, Rows, Rows]:
        """What the autoencoder reconstructs, of train, val and test: the pictures, or f's features of them."""
        parts = self.splits.train, self.splits.val, self.splits.test
        if self.config.autoencoder.on == "features":
            backbone = self.backbone()
            train, val, test = (torch.from_numpy(self.features(backbone, part, "train")) for part in parts)
        elif self.images.resident:
            train, val, test = (self.images.squashed(part, self.size) for part in parts)
        else:
            return tuple(Squashed(self.images, part, self.size) for part in parts)  # type: ignore[return-value]
        return train, val, test

    def observers(self) -> list[Observer]:
        """What watches SimCLR: its health and, where there are labels, a linear classifier; on rank 0 alone."""
        watching: list[Observer] = [Health(say=say)] if self.writes else []
        if self.config.contrastive.online_probe and self.writes and self.images.classes:
            watching.append(OnlineProbe(self.images.labels, len(self.images.classes)))
        return watching

    def about_backbone(self) -> dict[str, object]:
        """What somebody who only has backbone.safetensors needs to load and feed it."""
        mean, std = self.statistics("train")
        settings = self.config.backbone
        return {
            "loading": backbones.loading_lines(settings.name, stem=settings.stem, size=self.size),
            "backbone": settings.name,
            "stem": settings.stem,
            "size": self.size,
            "mean": [] if mean is None else mean.tolist(),
            "std": [] if std is None else std.tolist(),
            **dict(zip(("resize", "interpolation"), how(self.config.data), strict=True)),
            **({} if self.config.data.range == "auto" else {"range": shown(self.config.data.range)}),
            "headstart": __version__,
        }

    def done(self, stage: str, found: dict[str, Any] | None, started: float) -> None:
        """Remember what a stage found; the next call begins after it."""
        memory.give_back()
        self.stages[stage] = found
        seconds = self.stages.setdefault("seconds", {})
        before = self.checkpoints.spent(stage) or seconds.get(stage, 0.0)  # before an interruption, or an extension
        seconds[stage] = before + time.monotonic() - started
        if self.writes:
            self.checkpoints.check_folder()
            self.metrics.flush()
            files.write_json(self.folder.stages, self.stages, within=self.folder.path)
