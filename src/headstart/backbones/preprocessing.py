"""Pictures as given weights expect them: the size, Z-score and interpolation that they were made with.

Comes in: a network, its weights and `data.statistics`. Goes out: settings with the weights' size, and the Z-score of
each split: the weights' (`backbone`), or the pictures' own (paper 3.1).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor

from headstart.backbones.networks import TIMM, check_torchvision, timm
from headstart.backbones.weights import FETCHED, no_library, weights_file
from headstart.data import splits as splitting
from headstart.data.images import Images
from headstart.data.splits import Splits
from headstart.engine.importers import read_metadata
from headstart.records.config import Config
from headstart.records.errors import InputError
from headstart.records.names import BACKBONES

LARGEST = 224
"""Pixels that `data.size` auto takes at most: at 518, which DINOv2 was made at, every step takes five times as long."""

ZScores = dict[str, tuple[Tensor, Tensor]]
"""Split -> mean and std (3,), float32, in units of [0, 1]."""


@dataclass(frozen=True)
class Expected:
    """How pictures were made for some weights.

    Attributes:
        size: side of the square in pixels.
        mean, std: of the Z-score per channel, in units of [0, 1].
        interpolation: `bilinear` or `bicubic`, antialiased.
        of: whose they are, for a sentence.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    of: str


def expected(name: str, weights: str | Path) -> Expected | None:
    """What weights expect; None for random ones.

    A run, and a file that Headstart wrote, say it themselves. Of other files it is not known, and they are taken for
    weights like the library's own of that network: timm's `pretrained_cfg`, torchvision's transforms.
    Raises InputError where not even the library says.
    """
    if str(weights) == "none":
        return None
    about = {} if str(weights) in FETCHED else read_metadata(weights_file(weights))
    if {"size", "mean", "std"} <= about.keys():
        return _of_file(about, str(weights))
    if name in BACKBONES and str(weights) in FETCHED:
        raise InputError(no_library(name))
    if name in BACKBONES:
        raise InputError(f"{weights} does not say which pictures {name} expects; use data.statistics train")
    of = "" if str(weights) in FETCHED else f", as {Path(weights).name} does not say"
    return _of_timm(name, of) if name.startswith(TIMM) else _of_torchvision(name, of)


def settled(config: Config) -> Config:
    """With `backbone` in the pictures' settings replaced by what the weights expect, but for the Z-score's values.

    Under `data.statistics` backbone, `data.size` auto may take the weights' size, 224 at most.
    Raises InputError where there are no weights to go by.
    """
    data = config.data
    if data.interpolation == "backbone":
        data = replace(data, interpolation=_of(config).interpolation)  # type: ignore[arg-type]
    if data.statistics == "backbone" and data.auto_size is None:
        data = replace(data, auto_size=min(_of(config).size, LARGEST))
    return replace(config, data=data)


def zscores(images: Images, splits: Splits, config: Config) -> ZScores:
    """Mean and std of the Z-score for 'train', 'val' and 'test', as `data.statistics` says."""
    if config.data.statistics != "backbone":
        found = splitting.statistics(images, splits, config.data)
    else:
        given = _of(config)
        found = dict.fromkeys(("train", "val", "test"), (np.array(given.mean), np.array(given.std)))
    return {split: (_float32(mean), _float32(std)) for split, (mean, std) in found.items()}


def _float32(values: np.ndarray) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32)


def trained_with(path: str | Path) -> tuple[Tensor, Tensor]:
    """Mean and std (3,), float32, of the Z-score that the backbone in a run's file was trained with: the pictures may
    have become others since."""
    about = read_metadata(path)
    mean, std = (torch.tensor(json.loads(about[name])) for name in ("mean", "std"))
    return mean, std


def described(config: Config, size: int) -> str:
    """One line on how given weights get their pictures; "" for pictures by their own statistics."""
    if config.data.statistics != "backbone":
        return ""
    given = _of(config)
    scaled = f"mean {_listed(given.mean)}, std {_listed(given.std)}" if config.data.normalize else "no Z-score"
    other = f"; they were made at {given.size} px, these pictures are used at less" if size < given.size else ""
    cost = f" (--data.size {size // 2} takes a quarter of the time)" if size >= 192 else ""
    made = f"{size} px{cost}, {scaled}, {config.data.interpolation}"
    return f"pictures as the weights expect them: {made} ({given.of}){other}"


def _of(config: Config) -> Expected:
    given = expected(config.backbone.name, config.backbone.weights)
    if given is None:
        raise InputError(
            "data.statistics or data.interpolation is backbone, but backbone.weights is none, which expects nothing; "
            "use data.statistics train and data.interpolation bilinear, or give weights"
        )
    return given


def _of_file(about: Mapping[str, str], weights: str) -> Expected:
    try:
        size, mean, std = (json.loads(about[key]) for key in ("size", "mean", "std"))
        mean, std = np.array(mean or [0.0] * 3, np.float64), np.array(std or [1.0] * 3, np.float64)
        if mean.shape == std.shape == (3,) and np.isfinite(mean).all() and (std > 0).all() and 8 <= int(size) <= 4096:
            return Expected(
                int(size),
                tuple(mean.tolist()),
                tuple(std.tolist()),
                _bilinear_or_bicubic(about.get("interpolation", "")),
                weights,
            )
    except (ValueError, TypeError):
        pass
    raise InputError(f"{weights}: its metadata hold no size, mean and std of three channels; use data.statistics train")


def _of_timm(name: str, of: str) -> Expected:
    config = timm().get_pretrained_cfg(name.removeprefix(TIMM), allow_unregistered=True)
    if config is None:
        raise InputError(f"timm does not say which pictures {name} expects; use data.statistics train")
    tag = f".{config.tag}" if config.tag and "." not in name else ""
    size = min(config.input_size[1:])
    return Expected(
        size, tuple(config.mean), tuple(config.std), _bilinear_or_bicubic(config.interpolation), f"{name}{tag}{of}"
    )


def _of_torchvision(name: str, of: str) -> Expected:
    check_torchvision(name)
    weights = torchvision.models.get_model_weights(name).DEFAULT
    transform: Any = weights.transforms()
    return Expected(
        int(transform.crop_size[0]),
        tuple(transform.mean),
        tuple(transform.std),
        _bilinear_or_bicubic(transform.interpolation.value),
        f"torchvision's {weights}{of}",
    )


def _bilinear_or_bicubic(name: str) -> str:
    return "bicubic" if name == "bicubic" else "bilinear"


def _listed(values: Sequence[float]) -> str:
    return " ".join(f"{value:.4g}" for value in values)
