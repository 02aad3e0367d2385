"""The one function that writes files: whole or not at all; and the names that are safe to show."""

import contextlib
import csv
import errno
import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.records.errors import InputError, RunError
from headstart.records.files import write, write_json
from headstart.records.folder import Metrics, RunFolder, read_metrics
from headstart.records.outputs import check_own, check_results_folder, no_input
from headstart.records.text import csv_line, data_cell, from_data_cell, printable


def test_write_leaves_the_old_file_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write(path, "old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=f"{path}.*No space left"):
        write(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_write_makes_folders_and_takes_bytes_text_and_functions(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    for content in (b"x", "x", lambda file: file.write(b"x")):
        write(path, content)
        assert path.read_bytes() == b"x"


def test_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert not (tmp_path / "x.json").exists()


def test_metrics_keep_nothing_json_cannot_hold_and_can_forget(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl")
    for epoch in range(3):
        metrics.log(stage="contrastive", epoch=epoch, loss=float("inf") if epoch == 1 else 0.5)
    metrics.flush()
    assert read_metrics(metrics.path)[1]["loss"] is None
    metrics.truncate(1)
    metrics.flush()
    assert [line["epoch"] for line in read_metrics(metrics.path)] == [0]


def test_damaged_result_is_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(InputError, match=r"no result\.json"):
        folder.read_result()
    folder.result.write_text('{"schema": 1')
    with pytest.raises(InputError, match=r"result\.json is not valid JSON"):
        folder.read_result()


def test_a_result_is_kept_apart_from_what_it_is_made_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "link").symlink_to("photos")
    for out, source, words in (
        ("photos/", "photos", "of its own"),
        (tmp_path / "photos", "link", "of its own"),
        ("photos/../link/sheet.png", "photos", "lies inside"),
    ):
        with pytest.raises(InputError, match=words):
            no_input(out, [source], pictures=True)
    no_input("photos/e.npz", ["photos"])
    no_input("photos.png", ["photos"], pictures=True)
    no_input("digits", ["digits", "none"])  # names of sets and weights; nothing of that name is there


@given(st.text() | st.sampled_from(["'=x", "''-1", "'plain", "=", "می\u200cخواهم.png", "-1.png", "a\rb", " x", "\r=1"]))
def test_names_in_data_are_themselves_and_no_spreadsheet_runs_them(text: str) -> None:
    cell = data_cell(text)
    assert cell[:1] not in ("=", "+", "-", "@", "\t", "\r")
    assert cell.removeprefix("'") in (text, text.removeprefix("'"))
    assert from_data_cell(cell) == text
    assert list(csv.reader(io.StringIO(csv_line([text, 1, 0.5]), newline=""))) == [[cell, "1", "0.500000"]]
    assert "\x1b" not in printable(text)


@pytest.mark.parametrize("names", [[], ["study.yaml"], ["study.yaml", "a.png"], ["runs", "report.html"], ["s.yaml"]])
@pytest.mark.parametrize("more", [[], ["slurm-1.out", ".DS_Store", "lost+found"]])
def test_a_study_takes_what_is_empty_or_its_own(names: list[str], more: list[str], tmp_path: Path) -> None:
    for name in (*names, *more):
        (tmp_path / name).mkdir() if "." not in name else (tmp_path / name).touch()
    check_results_folder(tmp_path, "study")
    check_results_folder(tmp_path / "new", "study")


@pytest.mark.parametrize("kind", ["", "run", "classifier"])
@pytest.mark.parametrize("names", [[], ["config.yaml", "train.log"], [".DS_Store"], ["checkpoint.pt", "notes.md"]])
def test_results_go_where_nothing_is_or_results_are(names: list[str], kind: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    check_results_folder(tmp_path, kind)
    check_results_folder(tmp_path / "resnet.v1.5", kind)


@pytest.mark.parametrize(
    ("text", "columns", "taken"),
    [
        ("name,label\n", ("name", "label"), False),
        ("\ufeffname;label\r\na;b\r\n", ("name", "label"), False),  # as a spreadsheet keeps it
        ("name,label,mine\n", ("name", "label"), True),
        ("name\n", ("name", "label"), True),
        ("\0\1", ("name",), True),
    ],
)
def test_a_table_is_known_by_its_columns(text: str, columns: tuple[str, ...], taken: bool, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8", newline="")
    with pytest.raises(InputError, match=r"--out .*table.csv is there") if taken else contextlib.nullcontext():
        check_own(path, columns)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["report.html"], "holds other files .report.html. and no study"),
        (["a.png", "b.png", "c.png", "d.png"], "a.png, b.png, c.png and 1 more"),
        (["thesis.tex", "notes.txt"], "thesis.tex"),
        (["result.json", "config.yaml", "metrics.jsonl"], "holds a run, not a study"),
    ],
)
def test_a_study_takes_no_folder_that_is_in_use(names: list[str], words: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=words):
        check_results_folder(tmp_path, "study")
