"""The settings of a classifier's training, said once: the command line's options and Python's are this dataclass.

Nothing here imports torch, so that `headstart finetune --help` starts at once.
"""

from dataclasses import dataclass
from typing import Literal

from headstart.records.errors import InputError


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
    """How a classifier is trained. Defaults are for hundreds to tens of thousands of pictures."""

    labels: float = 1.0
    """Share of the training labels that is used, class-balanced, at least one a class (0.01 for 1 %)."""
    per_class: int | None = None
    """So many training labels of every class, in place of a share."""
    final: bool = False
    """Few labels: judge by five-fold cross-validation over all labelled pictures, then train on all of them."""
    compare: bool = True
    """Train the same network as it was before SimCLR as well, alike in everything."""
    scratch: bool = False
    """Train the same network from random weights as well, where it started from others."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float | None = None
    """Peak learning rate of the new classifier layer. Unset: of three, the best on validation pictures, tried in short
    trainings, for each start by itself."""
    layer_decay: float | None = None
    """Each earlier block of the backbone learns at this share of the next one's rate; 1 for all alike. Unset: of 0.75
    and 1, tried together with the learning rates."""
    weight_decay: float = 0.01
    epochs: int = 50
    """At most so many. An epoch is a pass over the labels, or four steps where they are fewer."""
    patience: int = 10
    """Stop after so many epochs without a better validation accuracy (or an equal one at a lower loss)."""
    batch_size: int = 64
    crop_scale: tuple[float, float] = (0.4, 1.0)
    """Share of the picture's area that a training crop shows."""
    seed: int = 0
    """Of the label draw, the folds, the order and the augmentation."""

    def __post_init__(self) -> None:
        def check(good: bool, name: str, value: object, right: str) -> None:
            if not good:
                raise InputError(f"--{name} is {value}; it must be {right}")

        check(0 < self.labels <= 1, "labels", self.labels, "a share above 0, up to 1 (0.01 for 1 %)")
        check(self.per_class is None or self.per_class >= 1, "per-class", self.per_class, "at least 1 label")
        check(self.per_class is None or self.labels == 1, "labels", self.labels, "left out beside --per-class")
        check(self.optimizer in RATES, "optimizer", self.optimizer, "adamw or sgd")
        check(self.lr is None or self.lr > 0, "lr", self.lr, "greater than 0")
        check(
            self.layer_decay is None or 0 < self.layer_decay <= 1,
            "layer-decay",
            self.layer_decay,
            "a share above 0, up to 1",
        )
        check(self.weight_decay >= 0, "weight-decay", self.weight_decay, "0 or more")
        check(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        check(self.patience >= 1, "patience", self.patience, "at least 1")
        check(self.batch_size >= 2, "batch-size", self.batch_size, "at least 2 pictures")
        check(0 < self.crop_scale[0] <= self.crop_scale[1] <= 1, "crop-scale", self.crop_scale, "shares, smaller first")
        check(self.seed >= 0, "seed", self.seed, "0 or more")

    @property
    def candidates(self) -> list[tuple[float, float]]:
        """(learning rate, layer decay): what was given, or all that are tried, the middle rate first."""
        rates = RATES[self.optimizer] if self.lr is None else (self.lr,)
        decays = (0.75, 1.0) if self.layer_decay is None else (self.layer_decay,)
        return [(rate, decay) for rate in rates for decay in decays]


RATES = {"adamw": (1e-3, 3e-4, 3e-3), "sgd": (0.03, 0.01, 0.1)}
"""Peak learning rates that are tried."""
