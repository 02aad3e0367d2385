"""Claims: those who write files that belong together do so one after the other."""

import errno
import json
import os
import threading
import time
from pathlib import Path

import pytest

from headstart.records.claim import Claim, alone, identity


def test_the_second_writer_waits_for_the_first(tmp_path: Path) -> None:
    said: list[str] = []
    asked = threading.Event()

    def second() -> None:
        asked.set()
        with alone(tmp_path, ".claim.select"):
            said.append("second")

    thread = threading.Thread(target=second)
    with alone(tmp_path, ".claim.select"):
        thread.start()
        assert asked.wait(60)
        with alone(tmp_path, ".claim.map"):  # another kind of files waits for nobody
            said.append("first")
    thread.join(60)
    assert said == ["first", "second"]
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_gone_is_made_for_new_files_alone(tmp_path: Path) -> None:
    with alone(tmp_path / "new", ".claim.select"):
        pass
    assert (tmp_path / "new").is_dir()
    with pytest.raises(FileNotFoundError), alone(tmp_path / "gone", ".claim.report", make=False):
        pass
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize(("age", "lives"), [(5, True), (3600, False)])
def test_who_may_only_read_is_told_whether_a_holder_elsewhere_lives(
    age: float, lives: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = {**identity(), "host": "another", "token": "t"}
    (tmp_path / ".claim").write_text(json.dumps(elsewhere))
    os.utime(tmp_path / ".claim", (time.time() - age,) * 2)

    def refused(path: Path, *given: object, **more: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "touch", refused)
    assert Claim(tmp_path).holder() == (elsewhere if lives else None)
