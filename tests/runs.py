"""Small real runs for tests: digits, ResNet-18, float32, one thread."""

from dataclasses import replace
from typing import Any

from headstart.records.config import Config, from_dict

SMALL: dict[str, Any] = {
    "data": {"sources": ["digits"], "limit": 128, "size": 16},
    "backbone": {"name": "resnet18"},
    "autoencoder": {"epochs": 2, "lr": 1e-3},
    "head": {"hidden_dim": 32, "output_dim": 16},
    "augment": {"crop_scale": [0.3, 1.0], "flip": 0.0},
    "contrastive": {"epochs": 2, "batch_size": 32},
    "probe": {"names": ["knn", "few_shot_1"]},
    "precision": "float32",
    "threads": 1,
    "device": "cpu",
}


def small(**sections: Any) -> Config:
    """A run of a few seconds; `sections` as for `headstart.pretrain`."""
    return from_dict(sections, from_dict(SMALL))


def until(config: Config, stage: str) -> Config:
    """The same, stopped after `stage`."""
    return replace(config, stages=stage)  # type: ignore[arg-type]
