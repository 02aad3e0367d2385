"""How a command ends: what it says last, a fault of ours, a terminal that lacks letters, names that steer it."""

import io
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.cli import screen
from headstart.cli.choices import LISTED
from headstart.cli.commands import COMMANDS
from headstart.cli.study_screen import print_status
from headstart.records.files import write
from headstart.records.folder import RunFolder
from headstart.records.text import json_text, printable
from headstart.study.progress import Running, Status
from tests.cli.test_commands import pictures, run
from tests.test_documented_commands import can_be_pasted

ROOT = Path(__file__).parents[2]
UNFORESEEN = {
    "check": (["check", "digits"], "headstart.data.check.run"),
    "report": (["report", "x"], "headstart.report.written"),
    "study status": (["study", "status", "x"], "headstart.study.status"),
    "list": (["list", "heads"], "headstart.cli.look.listed"),
}
SAID = "headstart: stopped; what was saved before is kept, and the same command goes on from there\n"


@pytest.mark.parametrize("command", UNFORESEEN)
@pytest.mark.parametrize("error", [ZeroDivisionError("in the middle"), KeyError("\x1b[2J"), RuntimeError("no home")])
def test_any_other_exception_is_a_bug_report(
    command: str, error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, place = UNFORESEEN[command]

    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(place, fails)
    assert run(*arguments) == 1
    said = capsys.readouterr().err
    assert f"headstart: this is a fault of Headstart's own ({type(error).__name__}" in said
    assert f"Command: {command}" in said
    assert "in fails" in said
    assert "torch: " in said
    assert "Traceback" not in said
    assert "\x1b" not in said
    assert str(Path.home()) not in said


@pytest.mark.parametrize("command", UNFORESEEN)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_any_command_as_resumable(
    command: str,
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    arguments, place = UNFORESEEN[command]

    def half_written(file: BinaryIO) -> None:
        file.write(b"half")
        signal.raise_signal(number)

    monkeypatch.setattr(place, lambda *_, **__: write(tmp_path / "out", half_written))
    before = signal.getsignal(number)
    assert run(*arguments) == 75
    assert capsys.readouterr().err == SAID
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_a_library_takes_for_its_own_failure_is_still_one(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where a class is made, before Python 3.12."""
    arguments, place = UNFORESEEN["report"]

    def wraps(*_: object, **__: object) -> None:
        try:
            signal.raise_signal(number)
        except BaseException as error:
            raise RuntimeError("Error calling __set_name__ on 'Field' instance") from error

    monkeypatch.setattr(place, wraps)
    assert run(*arguments) == 75
    assert capsys.readouterr().err == SAID


def test_a_fault_in_showing_a_result_fails_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    screen.print_embedded(None, Path("x"))
    screen.print_predicted(None, Path("x"))
    screen.print_choices([("a", None)], False)  # type: ignore[list-item]
    assert capsys.readouterr().err.count("fault of Headstart's own") == 3


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"demo", "doctor"}))
def test_a_command_with_nothing_says_what_it_needs(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*command.split()) == 2
    said = capsys.readouterr()
    assert f"{command} needs " in said.err or "no DATA given" in said.err
    assert "Traceback" not in said.err + said.out
    assert "fault of" not in said.err


@pytest.mark.parametrize("typed", ["--\x1b[2J=3", "--data.\u202ename", "--out\x07"])
def test_what_was_typed_steers_no_terminal(typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("pretrain", "nowhere", "--out", "x", typed) == 2
    said = capsys.readouterr()
    assert not set("\x1b\u202e\x07") & set(said.err + said.out)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner)))
def test_json_says_the_same_and_steers_nothing(value: object) -> None:
    text = json_text(value)
    assert json.loads(text) == value
    assert all(printable(line) == line for line in text.split("\n"))


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1"])
def test_letters_that_the_terminal_lacks_are_escaped(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pictures(tmp_path / "写真" / "a\u0301", 4)
    terminal = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", terminal)
    assert run("check", str(folder.parent)) == 0
    terminal.flush()
    assert b"\\u5199\\u771f" in terminal.buffer.getvalue()


@pytest.mark.parametrize(
    "arguments", [["list", "heads"], ["list", "presets"], ["doctor"], ["check", "PICTURES"], ["study", "plan", "smoke"]]
)
def test_the_last_line_says_what_to_do_next(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(pictures(tmp_path / "photos", 4))
    more = ["--no-calibrate", "--set", "contrastive.epochs=3", "--seeds", "1", "2"] if "plan" in arguments else []
    assert run(*(folder if a == "PICTURES" else a for a in arguments), *more) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    can_be_pasted(last)
    if more:
        assert last == "next: headstart study run smoke --out runs/smoke --set contrastive.epochs=3 --seeds 1 2"


@pytest.mark.parametrize("what", ["presets", *LISTED])
def test_what_is_listed_is_a_whole_sentence(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    """And on the screen it is broken, not cut."""
    assert run("list", what, "--json") == 0
    helps = [one["help"] for one in json.loads(capsys.readouterr().out)]
    assert run("list", what) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for line in helps:
        assert "…" not in shown
        assert all(word in shown for word in line.split())
        assert line.count("(") == line.count(")")
        assert not line.startswith("study: ") or line.endswith((".", "!", "?")), line


def test_a_study_says_the_command_that_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder(tmp_path / "my study")
    quoted = f"'{folder.path}'"
    for failed, todo, running, then in (
        (0, 2, 0, f"next: headstart study run {quoted} --out {quoted}"),
        (1, 2, 0, f"next: headstart study run {quoted} --out {quoted} --retry-failed"),
        (0, 0, 0, f"next: headstart report {quoted}"),
        (0, 0, 1, "next: wait for the rest"),
    ):
        print_status(
            Status(
                name="s",
                total=4,
                done=1,
                running=[Running("r", None, None, "h")] * running,
                failed=[("r", "why")] * failed,
                todo=todo,
                autoencoders=0,
                unplanned="",
                seconds_left=None,
            ),
            folder.path,
        )
        last = capsys.readouterr().out.splitlines()[-1]
        assert last == then
        can_be_pasted(last)


def test_what_check_was_told_of_the_pictures_is_in_what_to_do_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(pictures(tmp_path / "photos", 4))
    said = ["--data.labels", "none", "--data.range", "0", "4095", "--data.resize", "crop"]
    assert run("check", folder, *said) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    for option in ("--data.labels none", "--data.range 0 4095", "--data.resize crop"):
        assert option in last
    assert run(*shlex.split(last.removeprefix("next: headstart ")), "--help") == 0


def test_help_leads_with_the_ten_most_used_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("pretrain", "--help") == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "most used:"
    options = [line.split()[0] for line in lines[:10]]
    assert len(set(options)) == 10
    assert all(any(f"{option} " in line or f"{option}," in line for line in lines[10:]) for option in options)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\x89PNG\r\n\x1a\ncut short"])
def test_check_where_no_picture_can_be_read_is_bad_input(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(content)
    assert run("check", str(tmp_path), "--json", str(tmp_path / "found.json")) == 2
    said = capsys.readouterr()
    assert "of 2 pictures none can be read; a.png: " in said.err
    assert len(json.loads((tmp_path / "found.json").read_text())["unreadable"]) == 2
    pictures(tmp_path / "more", 4)
    assert run("check", str(tmp_path)) == 0


@pytest.mark.parametrize("command", ["demo", "study run smoke"])
def test_a_folder_in_use_is_no_folder_of_a_study(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "report.html").write_text("somebody's")
    assert run(*command.split(), "--out", str(tmp_path)) == 2
    assert "holds other files (report.html) and no study; give a new folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


NOBODY_READS = {
    "version": ["-m", "headstart", "--version"],
    "list": ["-m", "headstart", "list", "heads"],
    "json": ["-m", "headstart", "list", "heads", "--json"],
    "help": ["-m", "headstart", "--help"],
    "refused": ["-m", "headstart", "pretrane"],
    "script": ["results/power.py"],
}


@pytest.mark.parametrize("what", NOBODY_READS)
@pytest.mark.parametrize("which", ["stdout", "stderr"])
def test_a_reader_that_leaves_is_no_fault(what: str, which: str) -> None:
    """As `| head -1` and `2>&1 | head -1` do, once they have their line."""
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "wb") as nobody:
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | {which: nobody}
        ended = subprocess.run([sys.executable, *NOBODY_READS[what]], cwd=ROOT, check=False, **streams)
    said = (ended.stdout or b"") + (ended.stderr or b"")
    assert b"Traceback" not in said
    assert b"Exception ignored" not in said
    assert ended.returncode in {"refused": (2,), "script": (0, -signal.SIGPIPE)}.get(what, (0,))


def test_a_training_goes_on_when_nobody_reads_its_progress() -> None:
    """To its end; what Python itself says there of a lost stderr (its code 120) is not ours."""
    program = "from headstart.engine.progress import say; [say('a line') for _ in range(3)]; print('done')"
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "wb") as nobody:
        ended = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=nobody)
    assert (ended.stdout, ended.returncode in (0, 120)) == (b"done\n", True)
