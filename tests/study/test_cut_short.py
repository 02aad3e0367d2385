"""A study.yaml that is cut short where it still is YAML, and so another study's, does not pass in silence."""

from collections.abc import Callable
from pathlib import Path

import pytest

from headstart.report import written as write_report
from headstart.study import status
from headstart.study.calls import prepare
from headstart.study.file import expand, load
from tests.report.conftest import _finished_run
from tests.study.tiny import written

SAID = "study.yaml does not plan what lies in runs/"


@pytest.mark.parametrize(
    "cut",
    [
        lambda lines: [line for line in lines if line.strip() != "- 1"],  # the last of the seeds
        lambda lines: lines[: next(i for i, line in enumerate(lines) if line.startswith("data:"))],
    ],
)
def test_it_is_said_by_status_and_report(cut: Callable[[list[str]], list[str]], tmp_path: Path) -> None:
    study = prepare(load(written(tmp_path)), tmp_path / "out")
    for run in expand(study):
        _finished_run(tmp_path / "out" / "runs" / run.name, seed=run.point.seed)
    file = tmp_path / "out" / "study.yaml"
    assert status(tmp_path / "out").unplanned == ""
    assert not any(SAID in said for said in write_report(tmp_path / "out").first)
    lines = file.read_text().splitlines(keepends=True)
    kept = cut(lines)
    assert len(kept) < len(lines)
    file.write_text("".join(kept))
    found = status(tmp_path / "out").unplanned
    assert found.startswith(SAID)
    assert "restore it from a copy" in found
    report = write_report(tmp_path / "out")
    assert report.first[0] == found
    assert SAID in report.page.read_text(encoding="utf-8")
