"""What watches a training without touching it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from headstart.engine.checkpoint import State


@dataclass(frozen=True, kw_only=True)
class EpochEnd:
    """What an observer sees after an epoch.

    Attributes:
        epoch, epochs: this epoch, from 1, of how many.
        train_loss, val_loss: means over the epoch's batches; val_loss is None without a validation split.
        lr: learning rate of the last step.
        h, z: representations (2K, num_features) and projections (2K, output_dim) of the two augmented views of
            up to 512 fixed validation pictures (training pictures where fewer than two), rows i and i + K a pair.
        indices: (K,) which pictures those are.
        terms: what the run's objective is made of, on z; empty for NT-Xent, which has one term.
    """

    epoch: int
    epochs: int
    train_loss: float
    val_loss: float | None
    lr: float
    h: Tensor
    z: Tensor
    indices: Tensor
    terms: Mapping[str, float] = field(default_factory=dict)


class Observer(Protocol):
    """Watches a training without touching it; contrastive.py knows no more of probes than this."""

    def step(self, h: Tensor, indices: Tensor) -> None:
        """After each step: detached h (2n, num_features) of the pictures `indices` (n,), rows i and i + n a pair; both
        are on the device."""

    def epoch_end(self, event: EpochEnd) -> dict[str, float]:
        """After each epoch: figures for metrics.jsonl."""

    def state_dict(self) -> State:
        """What a resumed run needs to go on."""

    def load_state_dict(self, state: State) -> None:
        """Restore it."""
