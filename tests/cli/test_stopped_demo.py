"""A demo that is stopped anywhere says so with exit code 75, and goes on by the same command."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headstart import data
from headstart.cli import demo
from headstart.report import write_report
from headstart.report.frame import read
from headstart.training import open_run, result
from headstart.use.load import load
from tests.cli.test_commands import run
from tests.runs import small

PLACES: dict[str, tuple[str, str, Callable[..., object]]] = {
    "while it reads": ("headstart.data.open_images", "SIGTERM", data.open_images),
    "while it judges": ("headstart.training.result._probes", "SIGINT", result._probes),
    "at a stage's end": ("headstart.training.open_run.OpenRun.done", "SIGUSR1", open_run.OpenRun.done),
    "while it reports": ("headstart.report.write_report", "SIGTERM", write_report),
}


def test_it_goes_on_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "config", small)
    call = ["demo", "--out", str(tmp_path / "d"), "--device", "cpu", "--threads", "1"]
    for where, (place, number, real) in PLACES.items():
        asked: list[str] = []

        def stopped(*arguments: Any, **named: Any) -> object:
            if not asked:  # noqa: B023 - called within this round
                asked.append(where)  # noqa: B023
                signal.raise_signal(signal.Signals[number])  # noqa: B023
            return real(*arguments, **named)  # noqa: B023

        with monkeypatch.context() as during:
            during.setattr(place, stopped)
            assert run(*call) == 75, where
        assert asked == [where]
        assert "goes on" in capsys.readouterr().err.splitlines()[-1], where
    assert run(*call) == 0
    assert "report: " in capsys.readouterr().out
    for name in demo.HEADS:
        load(tmp_path / "d" / "runs" / name)
    page = (tmp_path / "d" / "report.html").read_text()
    assert read(tmp_path / "d").probe == demo.DECIDES
    assert run("report", str(tmp_path / "d")) == 0  # by the same probe
    assert (tmp_path / "d" / "report.html").read_text() == page
    assert not list(tmp_path.rglob(".*"))
