"""The one loop, with the smallest training there is: where it stands, what it saves, how it stops, what it says."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from headstart.engine.checkpoint import Checkpoints, State
from headstart.records.errors import InputError, Interrupted, RunError
from headstart.records.folder import Metrics
from headstart.training.loop import Clock, Epoch, Loop, Step, Training

EPOCHS, STEPS = 3, 4


class Sum(Training):
    """Adds what it sees; its loss is what it has."""

    stage, title, unit = "sum", "the sum", "pictures"
    epochs, steps, device = EPOCHS, STEPS, torch.device("cpu")
    if_diverged, if_out_of_memory = "add less", "a smaller --number needs less"

    def __init__(self, **losses: Any) -> None:
        self.total = torch.zeros(())
        self.losses, self.val_losses = losses.get("losses", {}), losses.get("val_losses", {})
        self.enough = losses.get("enough", math.inf)
        self.seen: list[tuple[int, int]] = []
        self.begun: list[int] = []

    @property
    def finished(self) -> bool:
        return bool(self.total >= self.enough)

    def begin_epoch(self, epoch: int) -> None:
        self.begun.append(epoch)

    def batches(self, epoch: int, first: int) -> Iterator[int]:
        yield from range(epoch * STEPS + first, (epoch + 1) * STEPS)

    def step(self, batch: int, epoch: int, step: int) -> Step:
        assert batch == epoch * STEPS + step
        self.seen.append((epoch, step))
        self.total = self.total + batch
        return Step(torch.tensor(self.losses.get((epoch, step), self.total.item())), 0.5 / (batch + 1), 2)

    def validate(self) -> float | None:
        return self.val_losses.get(len(self.begun), 1.0)

    def end_epoch(self, epoch: Epoch) -> dict[str, Any]:
        return {"total": self.total.item(), "number": epoch.number}

    def state(self) -> State:
        return {"total": self.total}

    def restore(self, state: State) -> None:
        self.total = state["total"]


class StopsAfter(Checkpoints):
    """Asks to stop after so many steps."""

    left = -1

    def stop_requested(self) -> bool:
        self.left -= 1
        return self.left == 0


def opened(folder: Path, stop_after: int = -1) -> StopsAfter:
    checkpoints = StopsAfter(folder / "checkpoint.pt", Metrics(folder / "metrics.jsonl"))
    checkpoints.left = stop_after
    return checkpoints


def run(training: Sum, folder: Path, stop_after: int = -1, **options: Any) -> list[dict[str, Any]]:
    checkpoints = opened(folder, stop_after)
    saved = checkpoints.load("sum")
    Loop(training, checkpoints, checkpoints.metrics.log, quiet=True, **options).run(saved)
    return checkpoints.metrics.lines


def without_times(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in ("pictures_per_s", "data_wait")} for line in lines]


def test_every_epoch_has_its_line(tmp_path: Path) -> None:
    lines = run(training := Sum(), tmp_path)
    assert training.seen == [(epoch, step) for epoch in range(EPOCHS) for step in range(STEPS)]
    assert [(line["stage"], line["epoch"], line["step"], line["number"]) for line in lines] == [
        ("sum", 1, 4, 1),
        ("sum", 2, 8, 2),
        ("sum", 3, 12, 3),
    ]
    assert lines[0]["loss"] == (0 + 1 + 3 + 6) / 4
    assert (lines[0]["val_loss"], lines[0]["lr"], lines[0]["total"]) == (1.0, 0.125, 6.0)
    assert all(line["pictures_per_s"] > 0 and 0 <= line["data_wait"] <= 1 for line in lines)


@pytest.mark.parametrize("stop_after", range(1, EPOCHS * STEPS + 1))
def test_stopped_after_any_step_it_goes_on_to_the_same_end(stop_after: int, tmp_path: Path) -> None:
    whole = run(uninterrupted := Sum(), tmp_path / "whole")
    (tmp_path / "parts").mkdir()
    with pytest.raises(Interrupted):
        run(first := Sum(), tmp_path / "parts", stop_after)
    lines = run(second := Sum(), tmp_path / "parts")
    assert first.seen + second.seen == uninterrupted.seen
    assert torch.equal(second.total, uninterrupted.total)
    assert without_times(lines) == without_times(whole)


def test_a_state_that_was_restored_is_held_no_longer(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(Sum(), tmp_path, stop_after=3)
    checkpoints = opened(tmp_path)
    saved = checkpoints.load("sum")
    assert saved
    Loop(training := Sum(), checkpoints, quiet=True).run(saved)
    assert checkpoints.saved is not None
    assert not checkpoints.saved["state"]
    assert (checkpoints.saved["stage"], training.seen[0]) == ("sum", (0, 3))


def test_it_may_be_finished_before_its_last_epoch(tmp_path: Path) -> None:
    lines = run(training := Sum(enough=20), tmp_path)
    assert len(lines) == 2
    assert training.begun == [0, 1]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"losses": {(0, 0): math.nan}}, r"its loss is not finite \(epoch 1, step 1, learning rate 0\.5\).*add less"),
        ({"losses": {(1, 3): math.inf}}, r"its loss is not finite \(epoch 2, step 4, learning rate 0\.0625\)"),
        ({"val_losses": {3: -math.inf}}, r"its validation loss is not finite \(epoch 3, step 4"),
    ],
)
def test_a_loss_that_is_no_number_is_named_and_never_saved(wrong: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=f"the sum is diverging: {words}"):
        run(Sum(**wrong), tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()


@pytest.mark.parametrize("where", ["batches", "step", "validate"])
def test_memory_that_ran_out_names_what_needs_less(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def allocate(*_: object) -> Any:
        return torch.empty(2**60, dtype=torch.uint8)  # what a CPU really says

    monkeypatch.setattr(Sum, where, allocate)
    with pytest.raises(RunError, match="cpu is out of memory; a smaller --number needs less"):
        run(Sum(), tmp_path)


def test_any_other_error_stays_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Any:
        raise RuntimeError("a shape does not fit")

    monkeypatch.setattr(Sum, "step", broken)
    with pytest.raises(RuntimeError, match="a shape does not fit"):
        run(Sum(), tmp_path)


def test_a_caller_keeps_more_beside_the_state(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(Sum(), tmp_path, 2, around=lambda state: {"mine": 7, "state": state})
    saved = opened(tmp_path).load("sum")
    assert saved is not None
    assert saved["mine"] == 7
    assert saved["state"]["step"] == 2


@pytest.mark.parametrize("state", [{}, {"total": torch.zeros(())}, {"total": torch.zeros(()), "epoch": 0, "step": 1}])
def test_a_state_that_does_not_fit_is_refused(state: State, tmp_path: Path) -> None:
    checkpoints = opened(tmp_path)
    with pytest.raises(InputError, match=r"checkpoint\.pt does not fit this run"):
        Loop(Sum(), checkpoints, quiet=True).run(state)


def test_the_clock_counts_the_waiting_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("headstart.training.loop.time.perf_counter", lambda: now[0])

    def slow() -> Iterator[int]:
        for i in range(3):
            now[0] += 3.0
            yield i

    clock = Clock("pairs")
    for _ in clock.fed(slow()):
        now[0] += 1.0
        clock.tick(8)
    assert clock.figures == {"pairs_per_s": 2.0, "data_wait": 0.75}
