"""The last full state of a run, for resume only.

A training loop hands over its state after each step; this module decides when to save it. A checkpoint is one file
with the stage in progress, a checksum in front, and the previous one kept beside it until the next is whole.
"""

import hashlib
import io
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from headstart.engine import distributed
from headstart.engine.device import hosted
from headstart.engine.progress import say
from headstart.engine.stopping import SAVED, stop_requested
from headstart.records.errors import InputError, Interrupted, RunError
from headstart.records.files import opened, unreadable, write
from headstart.records.folder import Metrics, previous
from headstart.records.schema import CHECKPOINT
from headstart.records.validation import problem

State = dict[str, Any]
MAGIC = b"headstart-checkpoint-1\n"


class Checkpoints:
    """Saves and restores the state of the stage in progress.

    Args:
        path: RUN/checkpoint.pt.
        metrics: cut back to what the restored state had seen, and written with every save.
        minutes: save after this many minutes (0: after every step).
        epochs: save at the end of every so many epochs as well.
        deadline: `time.monotonic()` after which the run saves and raises `Interrupted`.
        writes: whether this process writes (rank 0 only).

    Attributes:
        beside: files that have to stay in the folder, without which what is written into it is worth nothing.
    """

    def __init__(
        self,
        path: Path,
        metrics: Metrics,
        minutes: float = 0.5,
        epochs: int | None = None,
        deadline: float | None = None,
        writes: bool = True,
    ) -> None:
        self.path = path
        self.metrics = metrics
        self.minutes = minutes
        self.epochs = epochs
        self.deadline = deadline
        self.writes = writes
        self.folder = _which(path.parent)
        self.beside: tuple[Path, ...] = ()
        self.saved_at = time.monotonic()
        self.steps = 0
        self.agree_every = 1 if distributed.world_size() == 1 else 8
        self.saved = self._read()
        self.loaded_at = time.monotonic()

    def load(self, stage: str) -> State | None:
        """The saved state of `stage`, or None when it has not begun (then its lines are of steps that are not kept)."""
        self.loaded_at = time.monotonic()
        if self.saved is None or self.saved["stage"] != stage:
            self.metrics.forget(stage)
            return None
        self.metrics.truncate(self.saved["metrics"])
        return self.saved["state"]

    def spent(self, stage: str) -> float:
        """Seconds that `stage` had taken when the state that was loaded was saved."""
        return float(self.saved.get("seconds", 0.0)) if self.saved and self.saved["stage"] == stage else 0.0

    @contextmanager
    def restoring(self) -> Iterator[None]:
        """A state that does not fit what it is put into is somebody else's, or of another version."""
        try:
            yield
        except (TypeError, KeyError, ValueError, AttributeError, RuntimeError) as error:
            raise InputError(
                f"{self.path} does not fit this run ({str(error).splitlines()[0][:200] if str(error) else error!r}); "
                "delete it to begin its stage again"
            ) from error

    def after_step(self, stage: str, state: Callable[[], State]) -> None:
        """Save when due; save and raise `Interrupted` when asked to stop.

        Several processes must stop after the same step: they agree on it, every few steps because agreeing waits.
        """
        self.steps += 1
        stopping = distributed.any_rank(self.stop_requested()) if self.steps % self.agree_every == 0 else False
        if stopping or time.monotonic() - self.saved_at >= 60 * self.minutes:
            self.save(stage, state())
        if stopping:
            raise Interrupted(SAVED)

    def after_epoch(self, stage: str, epoch: int, state: Callable[[], State]) -> None:
        """Save at the end of epoch `epoch` (from 1) when the interval in epochs says so."""
        if self.epochs and epoch % self.epochs == 0:
            self.save(stage, state())

    def stop_requested(self) -> bool:
        """Whether a signal came or the time is up."""
        return stop_requested() or (self.deadline is not None and time.monotonic() >= self.deadline)

    def save(self, stage: str, state: State) -> None:
        """Write the state now."""
        if self.writes:
            self.check_folder()
            self.metrics.flush()
            buffer = io.BytesIO()
            seconds = self.spent(stage) + time.monotonic() - self.loaded_at
            lines = len(self.metrics.lines)
            torch.save({"stage": stage, "state": hosted(state), "metrics": lines, "seconds": seconds}, buffer)
            body = buffer.getbuffer()
            try:
                if self.path.exists():
                    self.path.replace(previous(self.path))
            except OSError as error:
                raise RunError(f"{self.path} could not be replaced: {error.strerror}; it is kept as it is") from None
            content = (MAGIC + hashlib.sha256(body).digest(), body)
            write(self.path, lambda file: file.writelines(content), within=self.path.parent)
        self.saved_at = time.monotonic()

    def check_folder(self) -> None:
        """Raise RunError when the folder is not the one that was opened, whole: removed, or its disk unmounted.

        Where this process does not write, the folder is another's to make and to look after.
        """
        if self.writes and _which(self.path.parent) != self.folder:
            raise RunError(
                f"{self.path.parent} is gone: it was removed, moved or unmounted while the training ran, and nothing "
                "more is written; where it comes back, the same command goes on from its last checkpoint"
            )
        for path in self.beside if self.writes else ():
            if not path.exists():
                raise RunError(f"{path} is gone: it was removed while the training ran; remove {path.parent} as well")

    def forget_previous(self) -> None:
        """Keep only the last state: the run is finished, and only `--extend` may want it."""
        previous(self.path).unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove the files: what they were for is finished and saved."""
        self.saved = None
        self.path.unlink(missing_ok=True)
        self.forget_previous()

    def _read(self) -> dict[str, Any] | None:
        """The last whole state; one with flipped bytes is named and passed over."""
        for path in (self.path, previous(self.path)):
            if path.exists():
                saved = _read_one(path)
                if saved is not None:
                    return saved
                if self.writes:
                    say(f"{path} is damaged (its checksum does not match); going on from what was saved before it")
                    path.unlink()  # the next save must not put it in the place of the whole one before it
        return None


def _which(folder: Path) -> tuple[int, int] | None:
    """Which folder this is, on which disk; None where there is none yet, or no more."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _read_one(path: Path) -> dict[str, Any] | None:
    """A checkpoint file's content, or None when it is torn or has flipped bytes."""
    try:
        with opened(path) as file:
            head = file.read(len(MAGIC) + 32)
            if head != MAGIC + hashlib.file_digest(file, "sha256").digest():
                return None
            file.seek(len(head))
            return _unpickled(file, path)
    except OSError as error:
        raise InputError(unreadable(path, error)) from None


def _unpickled(file: io.BufferedReader, path: Path) -> dict[str, Any]:
    try:
        saved: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        if problem(saved, CHECKPOINT):
            raise pickle.UnpicklingError
    except Exception:  # it has the checksum of a whole file, so somebody made it so: any error may come
        raise InputError(
            f"{path} holds more than tensors and numbers, so Headstart did not write it; delete it"
        ) from None
    return saved
