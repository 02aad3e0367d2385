"""Which heads a study has: settings that make another head of the same init, and how their labels say so.

Comes in: rows of runs and their settings. Goes out: each row's `head` and `projector`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from headstart.records.config import flatten
from headstart.records.names import from_embedding
from headstart.report.labels import (
    PROJECTORS,
    RELEASED,
    head_label,
)

FILE = "autoencoder.weights"

VARIANTS: dict[str, tuple[Any, str]] = {
    "autoencoder.kind": ("mlp", "{}"),
    "autoencoder.on": ("pixels", "{}"),
    "autoencoder.normalize": (False, "on Z-scores"),
    FILE: (None, "from {}"),
    "autoencoder.epochs": (100, "{} epochs"),
    "autoencoder.batch_size": (100, "batches of {}"),
    "autoencoder.lr": (1e-4, "lr {}"),
    "autoencoder.patience": (10, "patience {}"),
    "autoencoder.factor": (0.5, "factor {}"),
    "head.kind": ("mlp", "{}"),
    "head.tokens": (8, "{} tokens"),
    "head.blocks": (1, "{} blocks"),
    "head.pretrained": ("first", "whole head"),
    "head.output_init": (None, "output {}"),
    "head.depth": (2, "depth {}"),
    "head.batch_norm": (False, "batch norm"),
    "head.match_scale": (False, "matched scale"),
    "head.unfreeze_at": (None, RELEASED + " {}"),
}
"""Settings that make another head of the same init: the default, and how a label says another value. They are part of
a head's name where runs of one set, size and seed differ in them; elsewhere they are settings like any other."""


def variant(config: Mapping[str, Any], init: str) -> dict[str, Any]:
    """A run's values of those `VARIANTS` that concern it: the autoencoder's do not concern a head without one."""
    values = dict(flatten({section: config.get(section) or {} for section in ("autoencoder", "head")}))
    return {
        name: values.get(name, default)
        for name, (default, _) in VARIANTS.items()
        if from_embedding(init) or not name.startswith("autoencoder.")
    }


def label_heads(rows: list[dict[str, Any]], variants: list[dict[str, Any]]) -> None:
    """Fill in `head` and `projector`, naming the variant where comparable runs have more than one."""
    seen: dict[tuple[Any, ...], set[str]] = {}
    files: dict[tuple[Any, ...], set[str]] = {}
    for row, variant in zip(rows, variants, strict=True):
        comparable = row["dataset"], row["hidden_dim"], row["seed"]
        for name, value in variant.items():
            seen.setdefault((name, *comparable), set()).add(str(value))
        if file := variant.get(FILE):
            files.setdefault(comparable, set()).add(file)
    varying = {name for (name, *_), values in seen.items() if len(values) > 1}
    short = _shortest(list(files.values()))
    for row, variant in zip(rows, variants, strict=True):
        words = [
            VARIANTS[name][1].format(short(value) if name == FILE else value)
            for name, value in variant.items()
            if name in varying and value != VARIANTS[name][0]
        ]
        row["head"] = head_label(row["init"], row["frozen"], words)
        row["projector"] = PROJECTORS.get(row["head"], row["head"])


def _shortest(groups: Sequence[set[str]]) -> Callable[[str], str]:
    """What shortens paths to the fewest last parts (and no ending, if may be) that tell those of a group apart."""

    def end(path: str, parts: int, ending: bool) -> str:
        last = Path(*Path(path).parts[-parts:])
        return (last if ending else last.parent / last.stem).as_posix()

    ways = [partial(end, parts=parts, ending=ending) for parts in range(1, 9) for ending in (False, True)]
    return next((way for way in ways if all(len(set(map(way, group))) == len(group) for group in groups)), str)
