"""Open a finished run again: its backbone as a plain module, and its embeddings.

Comes in: a run folder. Goes out: a `Run` with everything needed to feed the backbone pictures as in training.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headstart import backbones
from headstart.data.decode import SUFFIXES
from headstart.data.images import Images, open_images
from headstart.engine import live_taps
from headstart.engine.device import Compute, choose
from headstart.engine.importers import read_tensors
from headstart.engine.randomness import generator
from headstart.evaluate import features
from headstart.records import config as configs
from headstart.records.config import Config
from headstart.records.errors import InputError
from headstart.records.folder import RunFolder


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: its files by name.
        config: what it was trained with.
        result: result.json.
    """

    folder: RunFolder
    config: Config
    result: dict[str, Any]

    @property
    def size(self) -> int:
        """Side of the square pictures the backbone takes, in pixels."""
        return int(self.result["data"]["size"])

    @property
    def mean(self) -> Tensor | None:
        """(3,) of the Z-score, in [0, 1] units; None where pictures are only scaled to [0, 1]."""
        return torch.tensor(self.result["data"]["mean"]) if self.config.data.normalize else None

    @property
    def std(self) -> Tensor | None:
        """(3,) of the Z-score; None as for `mean`."""
        return torch.tensor(self.result["data"]["std"]) if self.config.data.normalize else None

    @cached_property
    def backbone(self) -> nn.Module:
        """The trained backbone in evaluation mode: (N, 3, S, S) -> (N, num_features).

        Raises InputError when the run stopped before SimCLR.
        """
        if not self.folder.backbone.exists():
            raise InputError(
                f"{self.folder.path} has no backbone: it stopped after stage {self.result['stage']}; "
                "run `headstart pretrain` on it without --stages"
            )
        return self._backbone(read_tensors(self.folder.backbone)).eval()

    def untrained_backbone(self) -> nn.Module:
        """The backbone as it was before SimCLR, with the weights it was given."""
        return self._backbone(None, self.config.backbone.weights).eval()

    def random_backbone(self) -> nn.Module:
        """The backbone with random weights: those it started from where it was given none."""
        return self._backbone(None, "none").eval()

    def _backbone(self, tensors: dict[str, Tensor] | None, weights: str = "none") -> nn.Module:
        settings = self.config.backbone
        backbone = backbones.build(
            settings.name,
            stem=settings.stem,
            weights=weights,
            size=self.size,
            generator=generator(self.config.seed, "backbone"),
        )
        if tensors is not None:
            backbone.load_state_dict(tensors)
        return live_taps.apply(backbone, self.size)

    def embed(
        self,
        pictures: Images | str | Path | Sequence[str | Path] | Tensor,
        *,
        batch_size: int = 512,
        compute: Compute | None = None,
    ) -> np.ndarray:
        """Representations h of pictures.

        Args:
            pictures: DATA as on the command line (a folder, a list, a named set), picture files, opened `Images`, or a
                uint8 tensor (N, 3, S, S) of the training size.

        Returns:
            float32 (N, num_features), rows in the order of the pictures (of their names for a folder, from which
            unreadable files are left out).

        Raises InputError where one of several files that were named cannot be read.
        """
        compute = compute or choose()
        if isinstance(pictures, Tensor):
            return features.of_pictures(
                self.backbone, pictures, mean=self.mean, std=self.std, compute=compute, batch_size=batch_size
            )
        images = pictures if isinstance(pictures, Images) else self.open_images(pictures)
        if images.skipped and _are_files(pictures):
            name, reason = images.skipped[0]
            raise InputError(f"{name} cannot be read ({reason}); leave it out, so that every row has its picture")
        return features.extract(
            self.backbone,
            images,
            np.arange(len(images)),
            size=self.size,
            mean=self.mean,
            std=self.std,
            compute=compute,
            batch_size=batch_size,
        )

    def open_images(self, source: str | Path | Sequence[str | Path], **data: Any) -> Images:
        """Pictures read as this run's were, at its size; `data` are further fields of `DataConfig`.

        Other pictures than the run's are labelled by their folders or their own list: the run's list does not know
        them.
        """
        sources = tuple(map(str, (source,) if isinstance(source, (str, Path)) else source))
        labels = self.config.data.labels if sources == self.config.data.sources else "auto"
        settings = {"labels": labels, "limit": None, **data}
        return open_images(replace(self.config.data, sources=sources, size=self.size, **settings))


def _are_files(pictures: Images | str | Path | Sequence[str | Path]) -> bool:
    return not isinstance(pictures, (Images, str, Path)) and all(Path(p).suffix.lower() in SUFFIXES for p in pictures)


def load(path: str | Path) -> Run:
    """Open a finished run folder.

    Raises InputError when there is no finished run.
    """
    folder = RunFolder(path)
    result = folder.read_result()
    config, _ = configs.load(folder.config)
    return Run(folder, config, result)
