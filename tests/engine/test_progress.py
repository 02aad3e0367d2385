"""One line that fits the terminal, with the epoch and the time left; in a log one plain line a minute."""

import io

import pytest
from rich.console import Console

from headstart.engine import progress


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def shown_on(monkeypatch: pytest.MonkeyPatch, **options: object) -> io.StringIO:
    out = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=out, highlight=False, **options))  # type: ignore[arg-type]
    return out


FIGURES = {"loss": 4.12345, "accuracy": 0.531, "pairs_per_s": 1812.4, "data_wait": 0.021}


@pytest.mark.parametrize(
    ("done", "seconds", "said"),
    [
        (1, 2, "SimCLR epoch 1/100 · 33.3 min left"),
        (10, 20, "SimCLR epoch 2/100 · 33.0 min left"),
        (995, 500, "SimCLR epoch 100/100 · 3 s left"),
        (1000, 500, "SimCLR epoch 100/100 · 0 s left"),
    ],
)
def test_a_line_says_the_epoch_and_the_time_left(clock: Clock, done: int, seconds: float, said: str) -> None:
    bar = progress.Bar("SimCLR", 1000, per_epoch=10, quiet=True)
    clock.now += seconds
    bar.advance(done, **FIGURES)
    assert bar.line().startswith(f"{said} · loss 4.123 · accuracy 0.53 · 1,812 pairs/s · 2% waiting for data")


@pytest.mark.parametrize("width", [20, 40, 60, 70, 200])
def test_a_line_fits_and_leaves_the_least_important_out(clock: Clock, width: int) -> None:
    bar = progress.Bar("SimCLR", 1000, per_epoch=10, quiet=True)
    clock.now += 30
    bar.advance(100, **FIGURES)
    assert len(bar.line(width)) <= width
    assert bar.line().startswith(bar.line(width))
    assert "epoch 11/100" in bar.line(width)


def test_time_left_counts_from_where_an_earlier_call_stopped(clock: Clock) -> None:
    bar = progress.Bar("autoencoder", 1000, done=900, per_epoch=10, quiet=True)
    assert bar.line() == "autoencoder epoch 91/100"
    clock.now += 10
    bar.advance(50)
    assert bar.line() == "autoencoder epoch 96/100 · 10 s left"


def test_a_terminal_of_80_columns_gets_one_line(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    out = shown_on(monkeypatch, force_terminal=True, width=80, color_system=None, legacy_windows=False)
    with progress.stage("SimCLR", 1000, per_epoch=10) as bar:
        for _ in range(3):
            clock.now += 1
            bar.advance(10, **FIGURES)
    last = out.getvalue().replace("\x1b[2K", "").replace("\x1b[?25h", "").split("\r")[-1].strip("\n")
    assert "epoch 4/100" in last
    assert "min left" in last or "s left" in last
    assert len(last) <= 80
    assert "\n" not in last


@pytest.mark.parametrize(("quiet", "lines"), [(False, 3), (True, 0)])
def test_a_log_gets_one_plain_line_a_minute(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, quiet: bool, lines: int
) -> None:
    out = shown_on(monkeypatch, width=80)
    with progress.stage("SimCLR", 1000, per_epoch=10, quiet=quiet) as bar:
        for _ in range(200):  # 200 s
            clock.now += 1
            bar.advance(1, **FIGURES)
    written = out.getvalue().splitlines()
    assert len(written) == lines
    assert all(line.startswith("SimCLR epoch ") and " left · loss 4.123" in line for line in written)


def test_work_without_epochs_is_counted(clock: Clock) -> None:
    bar = progress.Bar("embedding", 20_000, quiet=True)
    clock.now += 1
    bar.advance(5000)
    assert bar.line() == "embedding 5,000/20,000 · 3 s left"


def test_a_long_line_breaks_between_words_on_a_terminal_and_stays_whole_in_a_file() -> None:
    path = "runs/" + "long" * 30
    words = f"the report of this run, which has many words in it so that it is wide, lies in {path}"
    for terminal in (True, False):
        shown = io.StringIO()
        progress.one_line(Console(file=shown, force_terminal=terminal, width=80, highlight=False), words)
        lines = shown.getvalue().splitlines()
        assert " ".join(lines) == words
        assert all(len(line) <= 80 or line == path for line in lines) is terminal
