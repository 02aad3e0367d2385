"""The report of a folder that cannot be written to, or that is gone."""

import errno
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from headstart.cli.commands import main
from headstart.records import outputs
from headstart.records.errors import RunError
from headstart.report import frame, write_report


def test_a_read_only_run_is_refused_first(
    make_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run")

    def read_only(path: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(outputs, "try_writing", read_only)
    with pytest.raises(SystemExit) as ended:
        main(["report", str(run)])
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        f"headstart: {run} cannot be written: Read-only file system; give a copy of it that can be\n"
    )


def test_a_run_that_is_gone_is_not_made_again(
    make_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run")
    read = frame.read

    def removed(path: str | Path, probe: str | None = None) -> frame.Records:
        found = read(path, probe)
        shutil.rmtree(run)
        return found

    monkeypatch.setattr(frame, "read", removed)
    with pytest.raises(RunError, match=r"the report of .*run could not be written: No such file"):
        write_report(run)
    assert not run.exists()
