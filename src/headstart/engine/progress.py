"""What the person at the keyboard sees while a stage runs: epoch, time left, loss, speed, share of waiting for data.

One live line on a terminal, however narrow; elsewhere (a log file, a cluster) one plain line a minute.
"""

import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task
from rich.text import Text

from headstart.records.text import printable


class Patient(Console):
    """Rich's, but whoever reads along may leave (`| head`): nothing more is shown, and what runs goes on to its end."""

    def on_broken_pipe(self) -> None:
        """Called where the reader is gone; rich would end the process here."""
        self.quiet = True


console = Patient(stderr=True, highlight=False)
LINE_SECONDS = 60.0
BAR_WIDTH = 8

FIGURES = {
    "loss": "loss {:.4g}",
    "accuracy": "accuracy {:.2f}",
    "val_accuracy": "accuracy {:.2f}",
    "pairs_per_s": "{:,.0f} pairs/s",
    "pictures_per_s": "{:,.0f} pictures/s",
    "data_wait": "{:.0%} waiting for data",
}
"""A stage's own numbers, in the order in which they are shown."""


class _Line(ProgressColumn):
    """A stage's own line, cut to what the terminal has beside the bar."""

    def render(self, task: Task) -> Text:
        """See `ProgressColumn`."""
        return Text(task.fields["bar"].line(console.width - BAR_WIDTH - 2), no_wrap=True, overflow="ellipsis")


class Bar:
    """One stage's progress; `advance` after each step or epoch with the latest figures.

    Args:
        name: the stage's.
        total, done: steps in all, and those that an earlier call did.
        per_epoch: steps of an epoch; None for work without epochs.
        progress: the live display; None for plain lines.
        quiet: show nothing.
    """

    def __init__(
        self,
        name: str,
        total: int,
        done: int = 0,
        per_epoch: int | None = None,
        progress: Progress | None = None,
        quiet: bool = False,
    ) -> None:
        self.name, self.total, self.done, self.per_epoch = name, total, done, per_epoch
        self.figures: dict[str, float] = {}
        self.started = self.printed = time.monotonic()
        self.first = done
        self.progress, self.quiet = progress, quiet
        self.task = progress.add_task(name, total=total, completed=done, bar=self) if progress else None

    def advance(self, steps: int = 1, **figures: float) -> None:
        """Count `steps` more; figures are those of FIGURES."""
        self.done += steps
        self.figures.update(figures)
        if self.progress and self.task is not None:
            self.progress.update(self.task, completed=self.done)
        elif not self.quiet and time.monotonic() - self.printed >= LINE_SECONDS:
            self.printed = time.monotonic()
            console.print(self.line(), markup=False, soft_wrap=True)

    def line(self, width: int | None = None) -> str:
        """`SimCLR epoch 12/100 · 3 min left · loss 4.123 · 812 pairs/s`; the last parts go where it is too wide."""
        parts = [f"{self.name} {self._where()}"]
        if self.done > self.first:
            seconds = (self.total - self.done) * (time.monotonic() - self.started) / (self.done - self.first)
            parts.append(f"{duration(seconds)} left")
        parts += [form.format(self.figures[name]) for name, form in FIGURES.items() if name in self.figures]
        while width is not None and len(parts) > 1 and len(" · ".join(parts)) > width:
            parts.pop()
        return " · ".join(parts)

    def _where(self) -> str:
        if self.per_epoch is None:
            return f"{self.done:,}/{self.total:,}"
        epochs = self.total // self.per_epoch
        return f"epoch {min(self.done // self.per_epoch + 1, epochs)}/{epochs}"


@contextmanager
def stage(name: str, total: int, done: int = 0, quiet: bool = False, per_epoch: int | None = None) -> Iterator[Bar]:
    """Show one stage of `total` steps, `done` of which an earlier call already did; `per_epoch` steps are an epoch."""
    if quiet or not console.is_terminal:
        yield Bar(name, total, done, per_epoch, quiet=quiet)
        return
    with Progress(BarColumn(bar_width=BAR_WIDTH), _Line(), console=console) as progress:
        yield Bar(name, total, done, per_epoch, progress)


def say(text: str) -> None:
    """One line for the person, on the error output, where it disturbs no other program."""
    one_line(console, text)


def one_line(where: Console, text: str) -> None:
    """Print a line; names in it can neither hold markup nor steer the terminal.

    A terminal gets a long one broken between words (a path stays whole), a file gets it as it is.
    """
    line = printable(text)
    if where.is_terminal:
        line = textwrap.fill(line, where.width, break_long_words=False, break_on_hyphens=False)
    where.print(line, markup=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
