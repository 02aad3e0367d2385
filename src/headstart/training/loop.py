"""The one training loop, under the autoencoder (paper 3.3), SimCLR (paper 3.5), a head alone and fine-tuning.

Comes in: a `Training`, which says what a step is, what is looked at after an epoch, and what its state is. Goes out:
the same, trained. What all have in common stands here once: the position, checkpoints and exact resume, the request to
stop, progress, one line of metrics an epoch, a loss that is no number any more, and memory that ran out.
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from headstart.engine import distributed, progress
from headstart.engine.checkpoint import Checkpoints, State
from headstart.engine.device import enough_memory
from headstart.records.errors import RunError

T = TypeVar("T")
SHOWN = ("accuracy", "val_accuracy")
"""Figures of an epoch that stand beside its loss on the screen."""


class Step(NamedTuple):
    """What one optimiser step did.

    Attributes:
        loss: (), detached, on the device.
        lr: the learning rate it was taken with.
        seen: pictures (pairs) of its batch, of all processes.
    """

    loss: Tensor
    lr: float
    seen: int


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """A finished epoch: its number from 1, mean training loss, validation loss (None without a split), last rate."""

    number: int
    loss: float
    val_loss: float | None
    lr: float


class Training(ABC):
    """What differs from training to training.

    Attributes:
        stage: its name in checkpoints and metrics.jsonl.
        title: its name for the person at the keyboard.
        unit: what a step sees, `pictures` or `pairs`.
        epochs, steps: how many epochs (at most) of how many steps each.
        device: where it computes.
        if_diverged, if_out_of_memory: what usually helps, as the end of a sentence.
    """

    stage: str
    title: str
    unit: str
    epochs: int
    steps: int
    device: torch.device
    if_diverged: str
    if_out_of_memory: str

    @property
    def finished(self) -> bool:
        """Whether it has learned enough before its last epoch."""
        return False

    def begin_epoch(self, epoch: int) -> None:  # noqa: B027 - most do nothing here
        """Before the first step of epoch `epoch` (from 0) that this process takes."""

    @abstractmethod
    def batches(self, epoch: int, first: int) -> Iterable[Any]:
        """The batches of epoch `epoch` from step `first` on."""

    @abstractmethod
    def step(self, batch: Any, epoch: int, step: int) -> Step:
        """One optimiser step. What it draws follows from the seed, `epoch` and `step` alone."""

    @abstractmethod
    def validate(self) -> float | None:
        """The loss on the validation split, the same on every process; None without one."""

    @abstractmethod
    def end_epoch(self, epoch: Epoch) -> dict[str, Any]:
        """Look at what has been learned, keep what is best; more figures for metrics.jsonl."""

    @abstractmethod
    def state(self) -> State:
        """All that the rest of the training depends on, but for the position."""

    @abstractmethod
    def restore(self, state: State) -> None:
        """Go on from a saved state."""


class Loop:
    """One training under way.

    Args:
        training: what is trained.
        checkpoints: where its state is saved, and who asks it to stop.
        log: receives one record an epoch, by keyword.
        quiet: show nothing.
        around: makes the saved state of the training's own, where a caller keeps more beside it.

    Attributes:
        epoch, step: finished epochs, and finished steps of the next.
    """

    def __init__(
        self,
        training: Training,
        checkpoints: Checkpoints,
        log: Callable[..., None] = lambda **_: None,
        quiet: bool = False,
        around: Callable[[State], State] = lambda state: state,
    ) -> None:
        self.training, self.checkpoints, self.log, self.quiet, self.around = training, checkpoints, log, quiet, around
        self.epoch = self.step = 0
        self.lr = 0.0
        # Losses stay on the device, so that no step waits for them.
        self.losses = torch.zeros(training.steps, device=training.device)

    def run(self, saved: State | None = None) -> None:
        """Train to the end, from the start or from a `saved` state, which is emptied: a run needs the memory.

        Raises:
            RunError: a loss is not finite (naming epoch, step and learning rate), or memory ran out.
            Interrupted: asked to stop; the state is saved.
        """
        training = self.training
        if saved is not None:
            with self.checkpoints.restoring():
                self._restore(saved)
            saved.clear()
        total, done = training.epochs * training.steps, self.epoch * training.steps + self.step
        with (
            enough_memory(training.device, training.if_out_of_memory),
            progress.stage(training.title, total, done, self.quiet, training.steps) as bar,
        ):
            while self.epoch < training.epochs and not training.finished:
                training.begin_epoch(self.epoch)
                clock = Clock(training.unit)
                self._take_steps(clock, bar)
                self._end_epoch(clock, bar)
                self.checkpoints.after_epoch(training.stage, self.epoch, self.state)
                self.checkpoints.after_step(training.stage, self.state)
        self.checkpoints.check_folder()  # what comes next is written into it

    def state(self) -> State:
        """The training's state and the position; never one that has diverged."""
        self._check_losses()
        position = {"epoch": self.epoch, "step": self.step, "lr": self.lr, "losses": self.losses}
        return self.around({**self.training.state(), **position})

    def _restore(self, state: State) -> None:
        self.training.restore(state)
        self.epoch, self.step, self.lr = state["epoch"], state["step"], state["lr"]
        if len(state["losses"]) == len(self.losses):
            self.losses.copy_(state["losses"])
        else:  # the set has grown: an epoch of other pictures begins anew
            self.step = 0

    def _take_steps(self, clock: "Clock", bar: progress.Bar) -> None:
        training = self.training
        for batch in clock.fed(training.batches(self.epoch, self.step)):
            loss, self.lr, seen = training.step(batch, self.epoch, self.step)
            self.losses[self.step] = loss
            self.step += 1
            if training.device.type == "cpu":  # elsewhere looking would make the device wait
                self._check_losses()
            bar.advance(1, **clock.tick(seen))
            if self.step < training.steps:  # after the last one when the epoch has been looked at
                self.checkpoints.after_step(training.stage, self.state)

    def _end_epoch(self, clock: "Clock", bar: progress.Bar) -> None:
        losses = self._check_losses()
        # One after the other: the same sum however often the training was resumed.
        loss = distributed.mean_over_ranks(losses.double().cumsum(0)[-1] / self.training.steps).item()
        val_loss = self.training.validate()
        if val_loss is not None and not math.isfinite(val_loss):
            raise self._diverged("validation loss", self.step)
        self.epoch, self.step = self.epoch + 1, 0
        self.losses.zero_()
        figures = self.training.end_epoch(Epoch(number=self.epoch, loss=loss, val_loss=val_loss, lr=self.lr))
        self.log(
            stage=self.training.stage,
            epoch=self.epoch,
            step=self.epoch * self.training.steps,
            loss=loss,
            val_loss=val_loss,
            lr=self.lr,
            **clock.figures,
            **figures,
        )
        bar.advance(0, loss=loss, **{name: figures[name] for name in SHOWN if name in figures})

    def _check_losses(self) -> Tensor:
        """The epoch's losses so far, on the host; all are finite."""
        losses = self.losses.cpu()
        bad = (~losses[: self.step].isfinite()).nonzero()
        if len(bad):
            raise self._diverged("loss", int(bad[0]) + 1)
        return losses

    def _diverged(self, what: str, step: int) -> RunError:
        return RunError(
            f"{self.training.title} is diverging: its {what} is not finite (epoch {self.epoch + 1}, step {step}, "
            f"learning rate {self.lr:.3g}); the last good checkpoint is kept. {self.training.if_diverged}"
        )


class Clock:
    """How fast an epoch goes, and the share of its time spent waiting for data, since it was made."""

    def __init__(self, unit: str) -> None:
        self.unit, self.seen, self.waited, self.started = unit, 0, 0.0, time.perf_counter()
        self.figures: dict[str, float] = {}

    def fed(self, source: Iterable[T]) -> Iterator[T]:
        """The same items; the time each one lets us wait is counted."""
        items, end = iter(source), object()
        while True:
            asked = time.perf_counter()
            item = next(items, end)
            self.waited += time.perf_counter() - asked
            if item is end:
                return
            yield item  # type: ignore[misc]

    def tick(self, seen: int) -> dict[str, float]:
        """Count one step that saw so many."""
        self.seen += seen
        seconds = time.perf_counter() - self.started
        self.figures = {f"{self.unit}_per_s": self.seen / seconds, "data_wait": self.waited / seconds}
        return self.figures
