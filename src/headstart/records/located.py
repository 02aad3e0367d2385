"""Paths in a run's settings mean the same from every working folder.

Comes in: a config as it was typed, and the working folder it was typed in. Goes out: the same with absolute paths.
config.yaml keeps what was typed, so that equal settings keep their hash, and under `about` the folder.
"""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from headstart.records.config import Config, DataConfig
from headstart.records.files import expanded
from headstart.records.names import HUB, SETS


def located(config: Config, folder: object) -> Config:
    """DATA, labels and weights as they were meant in `folder`; what is not there stays as it was typed."""
    if not isinstance(folder, str):  # a run of before this was kept
        return config
    data, backbone, autoencoder = config.data, config.backbone, config.autoencoder
    labels = data.labels if data.labels in ("auto", "folders", "none") else _found(data.labels, folder)
    weights = backbone.weights
    weights = weights if weights in ("none", "pretrained", "imagenet") else _found(weights, folder)
    return replace(
        config,
        data=replace(data, sources=tuple(_found(source, folder) for source in data.sources), labels=labels),
        backbone=replace(backbone, weights=weights),
        autoencoder=replace(autoencoder, weights=autoencoder.weights and _found(autoencoder.weights, folder)),
    )


def absolute(name: str, folder: str | Path = "", root: str | Path | None = None) -> str:
    """DATA that means the same from every working folder, whether it is there or not.

    Args:
        name: DATA as it was typed; a set on a hub stays so, unless `folder` or `root` holds it.
        folder: the working folder it was typed in; '' for the present one.
        root: the folder in which named sets and relative folders lie, where that is another one.
    """
    head, _, rest = name.partition(":")
    base = Path(folder, expanded("" if root is None else root)).absolute()
    if head == HUB:
        place = base / expanded(rest)
        return f"{HUB}:{place}" if rest and place.exists() else name
    if head in SETS and not (root is None and is_own_folder(name, folder)):
        if rest:
            return f"{head}:{Path(folder, expanded(rest)).absolute()}"
        return head if root is None or head == "digits" else f"{head}:{base}"
    return str(base / expanded(name))


def _found(name: str, folder: str) -> str:
    """The same of DATA or a file that is there; what is not stays as it was typed."""
    place = absolute(name, folder)
    return place if place.partition(":")[0] in (HUB, *SETS) or Path(place).exists() else name


def is_own_folder(name: str, folder: str | Path = "") -> bool:
    """Whether somebody's folder has the name of a set that needs a folder: then the folder is meant (`stl10`)."""
    return name in SETS and bool(SETS[name].archive) and Path(folder, name).is_dir()


def reading(config: Config) -> DataConfig:
    """The DATA options that a finished run's commands begin with: the run's, for any pictures.

    `labels` auto means: as the run's own where the pictures are the run's, else by folders.
    """
    return replace(config.data, sources=(), labels="auto", limit=None)


def portable(data: DataConfig) -> dict[str, Any]:
    """DATA options as a file carries them: which pictures, and how they are read; not where that is kept."""
    given = {one.name: getattr(data, one.name) for one in fields(data)} | {"sources": list(places(data.sources))}
    left_out = ("download", "cache_dir", "memory_gib")
    return {name: value for name, value in given.items() if name not in left_out}


def places(sources: tuple[str, ...]) -> tuple[str, ...]:
    """DATA as absolute, resolved names, so that `photos`, `photos/` and a link to it are one place."""
    found = []
    for source in sources:
        name, _, root = source.partition(":")
        if name == HUB:
            found.append(f"{HUB}:{expanded(root).resolve()}" if expanded(root).exists() else source)
            continue
        named = name in SETS and not is_own_folder(source)
        path = root if named else source
        resolved = str(expanded(path).resolve()) if path else ""
        found.append(f"{name}:{resolved}" if named else resolved)
    return tuple(found)
