"""Settings that have a name, each one entry in `PRESETS`: `paper` is the authors' (paper 3.3-3.6, Table 1)."""

from collections.abc import Callable
from dataclasses import dataclass

from headstart.records.config import BackboneConfig, Config, ContrastiveConfig, DataConfig
from headstart.records.errors import InputError
from headstart.records.validation import nearest

TABLE_1 = {  # paper Table 1: training resolution and batch size
    "imagenette": (128, 392),
    "stl10": (96, 500),
    "cifar10": (32, 1280),
    "fgvc-aircraft": (128, 666),
    "cifar100": (32, 1280),
}


def paper(sources: tuple[str, ...] = ()) -> Config:
    """The authors' setting as their published runs have it, for a named set with Table 1's size and batch."""
    size, batch_size = TABLE_1.get(sources[0].split(":")[0] if sources else "", ("auto", None))
    return Config(
        data=DataConfig(sources=sources, size=size, splits="paper", statistics="paper", normalize=False),  # type: ignore[arg-type]
        backbone=BackboneConfig(name="resnet34", stem="imagenet", weights="imagenet"),
        contrastive=ContrastiveConfig(
            epochs=150,
            batch_size=batch_size,
            warmup_epochs=0,
            schedule="epoch",
            decay_norms_and_biases=True,
            passes=2,
            keep="best",
            validation_views="identical",
            drop_last_validation=True,
        ),
    )


PAPER_FOLDER_BATCH = 1280
"""The paper's batch where Table 1 names none; shrunk until one validation batch fits (paper 3.5)."""


@dataclass(frozen=True)
class Preset:
    """A setting with a name.

    Attributes:
        make: DATA -> its config.
        help: what it is, for the command line.
        suits: whether it is the default with these `backbone.weights`.
    """

    make: Callable[[tuple[str, ...]], Config]
    help: str
    suits: Callable[[str], bool] = lambda weights: False


PRESETS = {"paper": Preset(paper, "the authors' setting")}


def preset(name: str | None, sources: tuple[str, ...] = (), weights: str = "none") -> Config:
    """The named preset; without a name the one that suits `backbone.weights`, else the house's defaults.

    Raises InputError for an unknown name.
    """
    if name is None:
        suited = (known for known in PRESETS.values() if known.suits(weights))
        return next(suited, Preset(_house, "")).make(sources)
    if name not in PRESETS:
        raise InputError(f"preset is {name!r}; it must be one of {', '.join(PRESETS)}{nearest(name, PRESETS)}")
    return PRESETS[name].make(sources)


def _house(sources: tuple[str, ...]) -> Config:
    return Config(data=DataConfig(sources=sources))
