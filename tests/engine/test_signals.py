"""A command ends as resumable whenever it is asked to stop: an import ends first, and what is waiting goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headstart.engine import signals
from headstart.engine.stopping import interrupted_by_signals
from headstart.records.errors import Interrupted

ASKS = """
import os, signal, time
os.kill(os.getpid(), signal.{number})
time.sleep(0.2)  # a handler of Python's runs here
with open({file!r}, "w") as file:
    file.write("imported to its end")
"""


def asking(folder: Path, name: str, number: signal.Signals) -> Path:
    """A module that is asked to stop while it is imported; the file that it writes at its end."""
    done = folder / f"{name}.txt"
    (folder / f"{name}.py").write_text(ASKS.format(number=number.name, file=str(done)))
    return done


def imported_and_waited(name: str) -> None:
    """Import such a module, and be at work when the signal comes again."""
    __import__(name)
    until = time.monotonic() + 600
    while time.monotonic() < until:
        time.sleep(0.01)
    pytest.fail("the signal did not come again")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_an_import_is_not_interrupted_but_followed_by_the_stop(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"asks_{number.name.lower()}"
    done = asking(tmp_path, name, number)
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), signals.stoppable():
        imported_and_waited(name)
    assert done.read_text() == "imported to its end"
    assert signal.getsignal(number) is before
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


def test_nor_is_it_in_work_that_has_nothing_to_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    done = asking(tmp_path, "asks_at_work", signal.SIGTERM)
    with pytest.raises(Interrupted, match="goes on"), interrupted_by_signals("it goes on"):
        imported_and_waited("asks_at_work")
    assert done.exists()


def test_a_second_one_waits_for_no_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "asked_twice.py").write_text(
        "import os, signal, time\nfor _ in range(2):\n    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(0.001)\n"
        "time.sleep(600)\n"
    )
    with pytest.raises(KeyboardInterrupt), signals.stoppable():
        __import__("asked_twice")


def test_a_real_command_that_is_asked_during_its_imports_ends_as_resumable(tmp_path: Path) -> None:
    """Without a traceback, and it goes on by the same command, as its last line says."""
    done = asking(tmp_path, "asks_plugin", signal.SIGTERM)
    call = [sys.executable, "-P", "-m", "headstart", "pretrain", "digits", "--out", "r", "--plugin", "asks_plugin"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *map(str, sys.path)])}
    ended = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 75, ended.stderr
    assert done.exists()
    assert ended.stderr.splitlines()[-1].endswith("the same command goes on from there")
    assert "Traceback" not in ended.stderr
