"""Settings that have a name, each one entry in `PRESETS`: `paper` is the authors' (paper 3.3-3.6, Table 1)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headstart.records.config import AugmentConfig, BackboneConfig, Config, ContrastiveConfig, DataConfig, HeadConfig
from headstart.records.names import SETS, Choice, Names


def paper(sources: tuple[str, ...] = ()) -> Config:
    """The authors' setting as their published runs have it, for a named set with Table 1's size and batch."""
    named = SETS.get(sources[0].split(":")[0] if sources else "")
    size, batch_size = named.paper if named and named.paper else ("auto", None)
    return Config(
        data=DataConfig(
            sources=sources,
            size=size,  # type: ignore[arg-type]
            splits="paper",
            statistics="paper",
            normalize=False,
            detail=0.0,  # crops read original pixels
        ),
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
        precision="float32",
    )


def adapt(sources: tuple[str, ...] = ()) -> Config:
    """Careful steps from given weights, which a small set could spoil; docs/adapting.md has what was tried.

    The head is trained alone first, so that its first gradients do not tear at the backbone: a head start in time,
    where the paper's is one in weights. Batch norm keeps the given statistics, and the first blocks their weights;
    rates, crops and colours are mild; and of given and adapted weights the run keeps those that its labels, or
    without any its pictures, show to be best.
    """
    return Config(
        data=DataConfig(sources=sources, statistics="backbone", interpolation="backbone"),
        head=HeadConfig(init="random", frozen=False),
        contrastive=ContrastiveConfig(
            epochs=10,
            optimizer="adamw",
            lr=1e-4,
            head_lr=1e-3,
            head_epochs=60,
            weight_decay=1e-4,
            final_lr_fraction=0.0,
            temperature=0.2,
            norms="given",
            frozen_share=0.4,
            keep="best-probe",
        ),
        augment=AugmentConfig(crop_scale=(0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.1), colour="auto"),
    )


PAPER_FOLDER_BATCH = 1280
"""The paper's batch where Table 1 names none; shrunk until one validation batch fits (paper 3.5)."""


@dataclass(frozen=True, kw_only=True)
class Preset(Choice):
    """A setting with a name. `make(sources)` gives its `Config` for DATA.

    Attributes:
        suits: whether it is the default with these `backbone.weights`.
    """

    suits: Callable[[str], bool] = lambda weights: False


PRESETS = Names(
    "preset",
    Preset(name="paper", help="the authors' setting, in float32 and from original pixels", make=paper),
    Preset(
        name="adapt",
        help="careful steps from given weights, the default whenever --backbone.weights is not none",
        make=adapt,
        suits=lambda weights: weights != "none",
    ),
)

if TYPE_CHECKING:
    PresetName = str
else:
    PresetName = PRESETS.type


def preset(name: str | None, sources: tuple[str, ...] = (), weights: str = "none") -> Config:
    """The named preset; without a name the one that suits `backbone.weights`, else the house's defaults.

    Raises InputError for an unknown name.
    """
    if name is None:
        name = next((known.name for known in PRESETS.values() if known.suits(weights)), None)
    return Config(data=DataConfig(sources=sources)) if name is None else PRESETS.known(name).made()(sources)
