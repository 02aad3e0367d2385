"""The settings of a classifier's training, said once: the command line's options and Python's are this dataclass.

Nothing here imports torch, so that `headstart finetune --help` starts at once.
"""

from typing import Annotated, Literal

from pydantic import Field

from headstart.records.errors import InputError
from headstart.records.validation import Amount, Count, Positive, Real, Seed, must, settings

Part = Annotated[Real, Field(gt=0, le=1)]


@settings("")
class FinetuneSettings:
    """How a classifier is trained. Defaults are for hundreds to tens of thousands of pictures."""

    labels: Part = 1.0
    """Share of the training labels that is used, class-balanced, at least one a class (0.01 for 1 %)."""
    per_class: Count | None = None
    """So many training labels of every class, in place of a share."""
    final: bool = False
    """Few labels: judge by five-fold cross-validation over all labelled pictures, then train on all of them."""
    compare: bool = True
    """Train the same network as it was before SimCLR as well, alike in everything."""
    scratch: bool = False
    """Train the same network from random weights as well, where it started from others."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: Positive | None = None
    """Peak learning rate of the new classifier layer. Unset: of three, the best on validation pictures, tried in short
    trainings, for each start by itself."""
    layer_decay: Part | None = None
    """Each earlier block of the backbone learns at this share of the next one's rate; 1 for all alike. Unset: of 0.75
    and 1, tried together with the learning rates."""
    weight_decay: Amount = 0.01
    epochs: Count = 50
    """At most so many. An epoch is a pass over the labels, or four steps where they are fewer."""
    patience: Count = 10
    """Stop after so many epochs without a better validation accuracy (or an equal one at a lower loss)."""
    batch_size: Annotated[Count, Field(ge=2)] = 64
    crop_scale: Annotated[tuple[Part, Part], must(lambda s: s[0] <= s[1], "two shares, the smaller first")] = (0.4, 1.0)
    """Share of the picture's area that a training crop shows."""
    seed: Seed = 0
    """Of the label draw, the folds, the order and the augmentation."""

    def __post_init__(self) -> None:
        if self.per_class is not None and self.labels != 1:
            raise InputError(f"labels is {self.labels}; beside per-class it must be left out")

    @property
    def candidates(self) -> list[tuple[float, float]]:
        """(learning rate, layer decay): what was given, or all that are tried, the middle rate first."""
        rates = RATES[self.optimizer] if self.lr is None else (self.lr,)
        decays = (0.75, 1.0) if self.layer_decay is None else (self.layer_decay,)
        return [(rate, decay) for rate in rates for decay in decays]


RATES = {"adamw": (1e-3, 3e-4, 3e-3), "sgd": (0.03, 0.01, 0.1)}
"""Peak learning rates that are tried."""
