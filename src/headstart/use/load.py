"""Open a finished run again: its backbone as a plain module, and its embeddings.

Comes in: a run folder. Goes out: a `Run` with everything needed to feed the backbone pictures as in training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from headstart import backbones
from headstart.data.decode import SUFFIXES
from headstart.data.images import Images
from headstart.data.prepare import how
from headstart.data.reopen import check_whole, reopen
from headstart.engine import live_taps
from headstart.engine.device import Compute, choose, zscored
from headstart.engine.importers import read_tensors
from headstart.engine.randomness import generator
from headstart.evaluate import features
from headstart.records.config import Config, DataConfig
from headstart.records.errors import InputError
from headstart.records.folder import RunFolder
from headstart.records.located import located, reading
from headstart.use import preprocessing

InMemory = Tensor | np.ndarray | Image.Image | Sequence[Image.Image] | Sequence[np.ndarray] | Sequence[Tensor]


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
        """The trained backbone in evaluation mode: (N, 3, S, S) -> (N, num_features), of pictures as `preprocess`
        makes them.

        Raises InputError when the run stopped before SimCLR.
        """
        self.check_finished()
        return self._backbone(read_tensors(self.folder.backbone)).eval()

    def check_finished(self) -> None:
        """Raise InputError when the run stopped before SimCLR and has no backbone, or has another run's."""
        self.folder.check_backbone(self.result)

    def untrained_backbone(self) -> nn.Module:
        """The backbone as it was before SimCLR, with the weights it was given.

        Raises InputError where these are gone, or others by now.
        """
        self.check_given()
        return self._backbone(None, self.config.backbone.weights).eval()

    def check_given(self) -> None:
        """Raise InputError where the weights that the run began from are gone, or others by now."""
        backbones.check_given(self.config.backbone.weights, self.folder.read_settings(self.result)[1])

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
            try:
                backbone.load_state_dict(tensors)
            except RuntimeError:  # torch lists every name; the file or config.yaml is another run's
                raise InputError(
                    f"{self.folder.backbone} does not hold the weights of {settings.name}, which {self.folder.config} "
                    "names; restore both from a copy"
                ) from None
        return live_taps.apply(backbone, self.size)

    def preprocess(self, pictures: InMemory) -> Tensor:
        """Pictures as `backbone` wants them: float32 (N, 3, S, S), Z-scored as in training.

        Args:
            pictures: PIL pictures of any size and mode, which are read and squashed to the square as files are; or
                pictures of the training size S, as a tensor (N, 3, S, S) or an array (N, S, S, 3) (or one of them),
                either uint8 from 0 to 255 or floating point from 0 to 1.

        Raises InputError: another type, shape, size or range, each with what it should be.
        """
        return zscored(self._checked(pictures), self.mean, self.std)

    def embed(
        self,
        pictures: Images | str | Path | Sequence[str | Path] | InMemory,
        *,
        batch_size: int = 512,
        compute: Compute | None = None,
    ) -> np.ndarray:
        """Representations h of pictures.

        Args:
            pictures: DATA as on the command line (a folder, a list, a named set), picture files, opened `Images`, or
                pictures in memory as `preprocess` takes them.

        Returns:
            float32 (N, num_features), rows in the order of the pictures (of their names for a folder, from which
            unreadable files are left out).

        Raises InputError where one of several files that were named cannot be read, and as `preprocess` does.
        """
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; it must be at least 1")
        compute = compute or choose()
        if preprocessing.in_memory(pictures):
            return features.of_pictures(
                self.backbone,
                self._checked(pictures),
                mean=self.mean,
                std=self.std,
                compute=compute,
                batch_size=batch_size,
            )
        named: Any = pictures
        if not isinstance(named, Images | str | Path | Sequence):
            raise InputError(f"pictures of type {type(named).__name__} cannot be embedded; give paths or arrays")
        if isinstance(named, Sequence) and not named:
            raise InputError("no pictures are given to embed; `open_images()` gives the run's own")
        images = named if isinstance(named, Images) else self.open_images(named)
        if images.skipped and _are_files(named):
            name, reason = images.skipped[0]
            raise InputError(f"{name} cannot be read ({reason}); leave it out, so that every row has its picture")
        return self.features_of(images, np.arange(len(images)), compute, batch_size=batch_size)

    def features_of(
        self, images: Images, rows: np.ndarray, compute: Compute, backbone: nn.Module | None = None, **options: Any
    ) -> np.ndarray:
        """h (len(rows), num_features) float32 of some of `images`, fed to the run's backbone or to another as to it.

        options: of `evaluate.features.extract`.
        """
        net = self.backbone if backbone is None else backbone
        size, mean, std = self.size, self.mean, self.std
        return features.extract(net, images, rows, size=size, mean=mean, std=std, compute=compute, **options)

    def _checked(self, pictures: Any) -> Tensor:
        return preprocessing.checked(pictures, self.size, how(self.config.data), self.config.data.range)

    def open_images(self, source: str | Path | Sequence[str | Path] = (), data: DataConfig | None = None) -> Images:
        """Pictures read as this run's were, at its size; without a source the run's own.

        data: DATA options, such as `replace(run.reading, labels="labels.csv")`. Pictures that are not the run's are
        labelled by their folders or their own list: the run's labels do not know them.
        """
        sources = (source,) if isinstance(source, (str, Path)) else source
        if data is not None:
            check_whole(data, self.config.data)
        return reopen(self.config, self.result, tuple(map(str, sources)), data)

    @property
    def reading(self) -> DataConfig:
        """The DATA options that `open_images` begins with."""
        return reading(self.config)


def _are_files(pictures: Images | str | Path | Sequence[str | Path]) -> bool:
    return not isinstance(pictures, (Images, str, Path)) and all(Path(p).suffix.lower() in SUFFIXES for p in pictures)


def load(path: str | Path) -> Run:
    """Open a finished run folder.

    Raises InputError when there is no finished run.
    """
    folder = RunFolder(path)
    result = folder.read_result()
    config, about = folder.read_settings(result)
    return Run(folder, located(config, about.get("folder")), result)
