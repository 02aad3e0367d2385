"""Settings that are no head's: what counts when runs are compared, which of them vary, and how people read them.

Comes in: config.yaml of runs. Goes out: each run's settings by dotted name, as text; and for a table of runs what
each was made on (`CIFAR10, resnet18`): nothing is averaged over places without a word.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from headstart.records.config import decides, default_learning_rate, flatten
from headstart.records.names import OBJECTIVES
from headstart.report.variants import VARIANTS

HEAD_SETTINGS = {"seed", *(f"head.{name}" for name in ("init", "frozen", "activation", "hidden_dim", "output_dim"))}
HEAD_SETTINGS |= {*VARIANTS}
"""Settings that a run's head, its columns and its place in a table tell."""

SHOWN = {
    "backbone.name": "{}",
    "backbone.stem": "{} stem",
    "backbone.weights": "{} weights",
    "data.size": "{} px",
    "data.limit": "{} pictures",
    "precision": "{}",
}
"""How a value is said; other settings with their own last name: `temperature 0.5`."""


def counted(config: Mapping[str, Any]) -> dict[str, str]:
    """All settings but the head, the seed, the set and the autoencoder: runs to be compared share them."""
    values = dict(flatten({k: v for k, v in config.items() if k not in ("about", "autoencoder")}))
    if _lr_follows(values):
        values["contrastive.lr"] = None
    return {
        name: str(value)
        for name, value in values.items()
        if decides(name, value) and name not in HEAD_SETTINGS and name != "data.normalize"
    }


def _lr_follows(values: Mapping[str, Any]) -> bool:
    """Whether the learning rate is the one that follows from batch size and optimiser: it is no setting of its own."""
    lr, batch = values.get("contrastive.lr"), values.get("contrastive.batch_size")
    if not isinstance(lr, (int, float)) or not isinstance(batch, int):
        return False
    return math.isclose(lr, default_learning_rate(values.get("contrastive.optimizer"), batch), rel_tol=1e-6)


def varying(sets: Sequence[str], settings: Sequence[Mapping[str, str]]) -> list[str]:
    """Names of the settings in which runs of one set differ, in the order of the settings."""
    seen: dict[tuple[str, str], set[str]] = {}
    names = dict.fromkeys(name for of_run in settings for name in of_run)
    for which, of_run in zip(sets, settings, strict=True):
        for name in names:
            seen.setdefault((name, which), set()).add(of_run.get(name, ""))
    return [name for name in names if any(len(seen[name, which]) > 1 for which in set(sets))]


def in_words(name: str, value: str) -> str:
    """A setting's value as people read it: `resnet18`, `imagenet weights`, `temperature 0.5`."""
    if name == "normalized":
        return "Z-scored" if value == "True" else "not Z-scored"
    if name == "backbone.weights" and value == "none":
        return "from scratch"
    if name == "contrastive.objective":
        return OBJECTIVES.shown(value)
    if name in SHOWN:
        return SHOWN[name].format(value)
    return f"{name.rpartition('.')[2].replace('_', ' ')} {value}"


def places(runs: pd.DataFrame, settings: Iterable[str]) -> pd.Series:
    """Each run's set, and what it was made with where runs of that set differ: `CIFAR10, resnet18`."""
    named = runs["set"].astype(str)
    for name in settings:
        differs = runs.groupby("set", observed=True)[name].transform("nunique") > 1
        words = ", " + runs[name].astype(str).map(lambda value, name=name: in_words(name, value))
        named = named + words.where(differs, "")
    return named
