"""What the person at the keyboard sees while a stage runs: loss, pairs/s, share of time waiting for data, time left.

A live bar on a terminal; elsewhere (a log file, a cluster) one line every half minute.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from headstart.records.text import printable

console = Console(stderr=True, highlight=False)
LINE_SECONDS = 30.0


class _Figures(ProgressColumn):
    """The stage's own numbers, such as `loss 4.123 · 812 pairs/s · 0 % waiting for data`."""

    def render(self, task: Task) -> Text:
        return Text(_describe(task.fields["figures"]))


class Bar:
    """One stage's progress; `advance` after each step or epoch with the latest figures."""

    def __init__(self, name: str, total: int, done: int, progress: Progress | None) -> None:
        self.name, self.total, self.done = name, total, done
        self.figures: dict[str, float] = {}
        self.started = self.printed = time.monotonic()
        self.first = done
        self.progress = progress
        self.task = progress.add_task(name, total=total, completed=done, figures=self.figures) if progress else None

    def advance(self, steps: int = 1, **figures: float) -> None:
        """Count `steps` more; figures are `loss`, `pairs_per_s`, `pictures_per_s`, `data_wait`, `accuracy`."""
        self.done += steps
        self.figures.update(figures)
        if self.progress and self.task is not None:
            self.progress.update(self.task, completed=self.done, figures=self.figures)
        elif time.monotonic() - self.printed > LINE_SECONDS:
            self.printed = time.monotonic()
            left = (self.total - self.done) * (self.printed - self.started) / max(self.done - self.first, 1)
            console.print(
                f"{self.name}: {self.done}/{self.total} · {_describe(self.figures)} · {left:.0f} s left",
                markup=False,
            )


@contextmanager
def stage(name: str, total: int, done: int = 0, quiet: bool = False) -> Iterator[Bar]:
    """Show one stage of `total` steps, `done` of which an earlier call already did."""
    if quiet or not console.is_terminal:
        bar = Bar(name, total, done, None)
        bar.printed = float("inf") if quiet else bar.printed
        yield bar
        return
    columns = (
        TextColumn("{task.description:<12}", markup=False),
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:>3.0f} %"),
        _Figures(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console) as progress:
        yield Bar(name, total, done, progress)


def say(text: str) -> None:
    """One line for the person; names in it can neither hold markup nor steer the terminal. Long ones stay whole."""
    console.print(printable(text), markup=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _describe(figures: dict[str, float]) -> str:
    words = {
        "loss": "loss {:.4g}",
        "accuracy": "accuracy {:.2f}",
        "pairs_per_s": "{:,.0f} pairs/s",
        "pictures_per_s": "{:,.0f} pictures/s",
        "data_wait": "{:.0%} waiting for data",
    }
    return " · ".join(words[name].format(figures[name]) for name in words if name in figures)
