"""Tables as people and tools write them: every column is used or named, contradictions are refused."""

import contextlib
import os
import re
import socket
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from headstart.data import check
from headstart.data.source import Source
from headstart.records.config import DataConfig
from headstart.records.errors import InputError
from tests.data.pictures import find, folder, labelled, put


def table(tmp_path: Path, text: str, n: int = 4, name: str = "t.csv") -> Source:
    """The source that a table of p0.png, p1.png, ... names."""
    folder(tmp_path, [f"p{i}.png" for i in range(n)])
    put(tmp_path / name, text.encode())
    return find(tmp_path / name)


def rows(header: str, *values: object) -> str:
    return header + "\n" + "".join(f"p{i}.png,{value}\n" for i, value in enumerate(values))


@pytest.mark.parametrize(
    "header",
    ["path,species", "path,labels", "path,label_id", "image,Class Name", "file_name,dx", "img,y", "Filename,breed"],
)
def test_labels_under_any_usual_header(tmp_path: Path, header: str) -> None:
    source = table(tmp_path, rows(header, "x", "y", "x", "y"))
    assert labelled(source) == {"p0.png": "x", "p1.png": "y", "p2.png": "x", "p3.png": "y"}


def test_a_lone_column_that_repeats_is_the_label_and_that_is_said(tmp_path: Path) -> None:
    source = table(tmp_path, rows("path,plumage", "x", "y", "x", "y"))
    assert source.classes == ["x", "y"]
    assert source.notes == ("t.csv: column plumage taken for the label",)


@pytest.mark.parametrize(
    ("text", "unused"),
    [
        (rows("path,label,width,height", "x,1,2", "y,3,4"), "columns width, height not used"),
        (rows("path,score", "0.1", "0.2", "0.3", "0.1"), "column score not used"),
        (rows("path,label_id,label", "0,x", "1,y"), "column label_id not used"),
        (rows("path,label,fold", "x,0", "y,1"), "column fold not used"),
        ("p0.png,x,7\np1.png,y,8\n", "column number 3 not used"),
        (",path,label\n0,p0.png,x\n1,p1.png,y\n", "column number 1 not used"),
        ("path,label,label\np0.png,x,7\np1.png,y,8\n", "column label (number 3) not used"),
        ("0,p0.png,x\n1,p1.png,y\n", "column number 1 not used"),
        (
            "path,label\np0.png,x\np1.png,y, or z\n",
            "row 3 have more cells than the header; what is beyond is not used (quote names that hold the separator)",
        ),
    ],
)
def test_columns_that_are_not_used_are_named(tmp_path: Path, text: str, unused: str) -> None:
    assert f"t.csv: {unused}" in table(tmp_path, text).notes


@pytest.mark.parametrize(
    ("text", "official"),
    [
        ("0,p0.png,x\n1,p1.png,y\n", ["", ""]),  # an index in front, as pandas writes it
        ("x,p0.png\ny,p1.png\n", ["", ""]),
        ("TRAIN,p0.png,x\nTEST,p1.png,y\n", ["train", "test"]),  # AutoML
        ("p0.png,x,train\np1.png,y,val\n", ["train", "val"]),
        ("sep=;\nlabel;path\nx;p0.png\ny;p1.png\n", ["", ""]),  # Excel
        ("id_code,diagnosis\np0,x\np1,y\n", ["", ""]),  # names without endings
        ("p0.png,x\np1.png,y\n", ["", ""]),
        ("#filename,file_size,label\np0.png,9,x\np1.png,7,y\n", ["", ""]),  # VIA: a header behind the sign of a comment
        ("# path, label\n# by me\np0.png,x\np1.png,y\n", ["", ""]),
        ("# made in May, by me\np0.png,x\np1.png,y\n", ["", ""]),
    ],
)
def test_columns_are_told_by_their_values(tmp_path: Path, text: str, official: list[str]) -> None:
    source = table(tmp_path, text)
    assert labelled(source) == {"p0.png": "x", "p1.png": "y"}
    assert source.official.tolist() == official
    assert source.skipped == []


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["-1", "0", "1", "-1"], ["0", "1"]),  # class numbers, and those without
        (["-1", "1", "-1", "1"], ["-1", "1"]),  # no and yes
        (["-1", "x", "x", "y"], ["-1", "x", "y"]),
    ],
)
def test_minus_one_is_no_class_among_class_numbers(tmp_path: Path, labels: list[str], classes: list[str]) -> None:
    source = table(tmp_path, rows("path,label", *labels))
    assert source.classes == classes
    assert ("t.csv: 2 labels -1 taken for none" in source.notes) == ("-1" not in classes)


def test_classes_that_differ_in_writing_alone_are_spoken_of(tmp_path: Path) -> None:
    table(tmp_path, rows("path,label", "Cat", "cat", "01", "1"))
    doubts = check.run(DataConfig(sources=(str(tmp_path / "t.csv"),))).doubts
    assert doubts[0] == "classes that may be one, but are taken for different ones: '01' and '1'; 'Cat' and 'cat'"


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ("Cat", "cat ", "be one, .*'Cat' and 'cat'"),
        ("big  dog", "big dog", "be one, .*'big  dog' and 'big dog'"),
        ("1.0", "1", "be one, .*'1' and '1.0'"),
        ("caf\u00e9", "cafe\u0301", r"be one, .*'cafe\\u0301' and 'caf\\xe9'"),
        ("a", "a|b", "be several, but are taken for one each: 'a|b'"),
        ("dog", "Cat; Dog", "be several, .*: 'Cat; Dog'"),
    ],
)
def test_classes_that_may_be_meant_otherwise_are_spoken_of(tmp_path: Path, one: str, other: str, said: str) -> None:
    table(tmp_path, rows("path,label", one, other))
    report = check.run(DataConfig(sources=(str(tmp_path / "t.csv"),)))
    assert any(re.match(f"classes that may {said}", doubt) for doubt in report.doubts)


def test_class_folders_with_accents_in_two_forms_are_spoken_of(tmp_path: Path) -> None:
    folder(tmp_path, [unicodedata.normalize("NFC", "train/caf\u00e9/1.png"), "test/cafe\u0301/2.png", "train/x/3.png"])
    report = check.run(DataConfig(sources=(str(tmp_path),)))
    assert "classes that may be one, but are taken for different ones: 'cafe\\u0301' and 'caf\\xe9'" in report.doubts


def test_long_numbers_are_different_classes(tmp_path: Path) -> None:
    table(tmp_path, rows("path,label", "20231001", "20231002", "9007199254740992", "9007199254740993", "10", "1"))
    doubts = check.run(DataConfig(sources=(str(tmp_path / "t.csv"),))).doubts
    assert not any("may be one" in doubt for doubt in doubts)


def test_one_column_a_class(tmp_path: Path) -> None:
    source = table(tmp_path, rows("filename, cat, dog", "1,0", "0,1", "0,0", "1,1"))
    assert labelled(source) == {"p0.png": "cat", "p1.png": "dog", "p2.png": None, "p3.png": None}
    assert "t.csv: columns cat, dog taken for one class a column" in source.notes
    assert "t.csv: 1 row of several classes at once, left unlabelled" in source.notes


@pytest.mark.parametrize(
    ("header", "values", "official"),
    [
        ("subset", ["train", "Training", "valid", "TEST"], ["train", "train", "val", "test"]),
        ("fold", ["train", "train", "dev", "dev"], ["train", "train", "val", "val"]),
        ("is_valid", ["False", "0", "True", "1"], ["train", "train", "val", "val"]),
        ("is_test", ["no", "no", "no", "yes"], ["train", "train", "train", "test"]),
        ("Usage", ["Training", "PublicTest", "PrivateTest", ""], ["train", "test", "test", ""]),
    ],
)
def test_splits_under_any_usual_header(tmp_path: Path, header: str, values: list[str], official: list[str]) -> None:
    source = table(tmp_path, rows(f"path,label,{header}", *(f"x,{value}" for value in values)))
    assert source.official.tolist() == official
    assert source.classes == ["x"]


@pytest.mark.parametrize(
    "text",
    [
        '"file","note; free","label"\n"0.png","x","red"\n"1.png","y","blue"\n',
        "0.png,red; ripe\n1.png,blue; ripe\n",
        "file\tlabel\tnote, free\n0.png\tred\tx\n1.png\tblue\ty\n",
        "file;label\n0.png;red, ripe\n1.png;blue, ripe\n",
    ],
)
def test_a_table_is_separated_by_what_gives_every_row_as_many_cells(tmp_path: Path, text: str) -> None:
    folder(tmp_path, ["0.png", "1.png"])
    (tmp_path / "t.csv").write_text(text)
    source = find(tmp_path / "t.csv")
    assert (len(source.names), [name[:3] for name in source.classes]) == (2, ["blu", "red"])


def test_comments_and_other_separators(tmp_path: Path) -> None:
    text = "# exported in May\npath|label\np0.png|x\n# half way\np1.png|y\n"
    assert labelled(table(tmp_path, text)) == {"p0.png": "x", "p1.png": "y"}
    assert table(tmp_path, text).notes == ("t.csv: 2 comment lines passed over",)
    folder(tmp_path, ["# 1.png"])
    assert find(put(tmp_path / "l.txt", b"# a comment\n# 1.png\n")).names == ["# 1.png"]


@pytest.mark.parametrize("none", ["NA", "None", "nan", "null", "N/A", ""])
def test_what_means_no_label_is_no_class(tmp_path: Path, none: str) -> None:
    source = table(tmp_path, rows("path,label", "x", none, "y", none))
    assert labelled(source) == {"p0.png": "x", "p1.png": None, "p2.png": "y", "p3.png": None}
    assert not none or f"t.csv: 2 labels {none} taken for none" in source.notes


@pytest.mark.parametrize(
    "text",
    [
        "path,label\np0.png,x\np0.png,y\n",
        "path,label,split\np0.png,x,train\np0.png,x,test\n",
        "path,label\np0.png,x\np0.png,NA\n",
    ],
)
def test_rows_that_disagree_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"row 3 lists p0\.png again, with another label or split: .* in row 2"):
        table(tmp_path, text)


def test_label_files_that_disagree_are_refused(tmp_path: Path) -> None:
    folder(tmp_path / "p", ["a.png", "x/b.png"])
    for again in ("a.png,dog", "./a.png,dog", "a,dog"):
        path = put(tmp_path / "l.csv", f"name,label\na.png,cat\n{again}\n".encode())
        with pytest.raises(InputError, match=r"row 3 lists .*: dog after cat in row 2"):
            find(tmp_path / "p", labels=str(path))
    put(tmp_path / "l.csv", b"name,label\na.png,cat\na.png,cat\nb,dog\ngone.png,dog\n")
    source = find(tmp_path / "p", labels=str(tmp_path / "l.csv"))
    assert labelled(source) == {"a.png": "cat", "x/b.png": "dog"}
    assert source.notes[-1] == "l.csv: 1 of 4 names are no picture of DATA"


def test_a_label_file_may_hold_the_split(tmp_path: Path) -> None:
    folder(tmp_path / "p", ["a.png", "b.png"])
    path = put(tmp_path / "l.csv", b"name,label,split\na.png,cat,train\nb.png,dog,test\n")
    assert find(tmp_path / "p", labels=str(path)).official.tolist() == ["train", "test"]
    folder(tmp_path / "q", ["train/a.png", "test/b.png"])
    source = find(tmp_path / "q", labels=str(path))
    assert source.official.tolist() == ["test", "train"]
    assert "l.csv: its split is not used, because DATA has one" in source.notes


@pytest.mark.parametrize(("listed", "on_disk"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_composed_in_another_way(tmp_path: Path, listed: Any, on_disk: Any) -> None:
    folder(tmp_path, [unicodedata.normalize(on_disk, "é/ü.png")])
    put(tmp_path / "l.csv", f"path,label\n{unicodedata.normalize(listed, 'é/ü.png')},x\n".encode())
    source = find(tmp_path / "l.csv")
    assert (source.classes, len(source.names), source.skipped) == (["x"], 1, [])


def test_windows_paths_and_names_that_begin_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder(tmp_path, ["d/a.png", "~$doc.png", "~x/b.png", "home/c.png"])
    put(tmp_path / "l.txt", b"d\\a.png\n~$doc.png\n~x/b.png\n~/c.png\n")
    source = find(tmp_path / "l.txt")
    assert source.skipped == []
    assert len(source.names) == 4


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-16"])
@pytest.mark.parametrize("name", ["l.csv", "l.tsv", "l.txt"])
def test_a_table_in_utf_16_is_told(encoding: str, name: str, tmp_path: Path) -> None:
    folder(tmp_path, ["a.png"])
    put(tmp_path / name, "path,label\na.png,cat\n".encode(encoding))
    with pytest.raises(InputError, match=f"{name} is (UTF-16|not UTF-8) text.*; save it as UTF-8"):
        find(tmp_path / name)


BAD_LINES = {
    "x" * 300 + ".png": "File name too long",
    "y" * 5000: "File name too long",
    "a\0b.png": "a NUL byte in its name",
    "a.png/x.png": "Not a directory",
    "loop.png": "Too many levels of symbolic links",
    "~nobodyhere/x.png": "no such file",
    "/dev/null": "not a regular file",
    "..": "not a regular file",
    "pipe.png": "not a regular file",
    "socket.png": "cannot be read: No such device or address",
    "file:///x.png": "no such file",
    "\x1b[2J.png": "no such file",
    "text.png": "not a picture: text",
}
"""What a list may hold, and why each is no picture."""


def bad_files(folder: Path) -> None:
    (folder / "loop.png").symlink_to("loop.png")
    os.mkfifo(folder / "pipe.png")
    with contextlib.chdir(folder), socket.socket(socket.AF_UNIX) as found:  # the path of a socket has to be short
        found.bind("socket.png")
    (folder / "text.png").write_text("no picture")


@pytest.mark.parametrize("name", ["l.txt", "l.csv", "l.tsv"])
def test_every_line_is_set_aside_by_itself(tmp_path: Path, name: str) -> None:
    folder(tmp_path, ["a.png"])
    bad_files(tmp_path)
    head, behind = {"l.txt": ("", ""), "l.csv": ("path,label\n", ",x"), "l.tsv": ("path\tlabel\n", "\tx")}[name]
    nameless = 0 if name == "l.txt" else 1
    lines = "".join(f"{line}{behind}\n" for line in ("a.png", *BAD_LINES, *[""] * nameless))
    put(tmp_path / name, (head + lines).encode())
    report = check.run(DataConfig(sources=(str(tmp_path / name),)))
    assert (report.pictures, report.readable) == (1 + len(BAD_LINES) + nameless, 1)
    assert all(len(name) < 200 for name, _ in report.unreadable)
    reasons = {name[:5]: reason for name, reason in report.unreadable}
    for line, reason in BAD_LINES.items():
        assert reasons[line[:5].replace("//", "/")] == reason
    last = (f"row {len(BAD_LINES) + 3}", "it names no picture")
    assert (last in report.unreadable) == bool(nameless)


def test_every_entry_of_a_folder_is_set_aside_by_itself(tmp_path: Path) -> None:
    folder(tmp_path, ["a.png", "x/b.png"])
    bad_files(tmp_path)
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "dangling.png").symlink_to("nowhere")
    (tmp_path / "x" / "loop").symlink_to("loop")
    (tmp_path / "x" / "above").symlink_to("..")
    (tmp_path / f"{'n' * 250}.png").touch()
    report = check.run(DataConfig(sources=(str(tmp_path),)))
    assert report.readable == 2
    assert {name[:5]: reason for name, reason in report.unreadable} == {
        "dangl": "cannot be read: No such file or directory",
        "devic": "not a regular file",
        "loop.": "cannot be read: Too many levels of symbolic links",
        "nnnnn": "empty file",
        "pipe.": "not a regular file",
        "socke": "cannot be read: No such device or address",
        "text.": "not a picture: text",
    }


def test_a_list_of_pictures_that_are_not_there_says_where_it_looked(tmp_path: Path) -> None:
    put(tmp_path / "l.txt", b"d/p1.png 0\nd/p2.png 1\n")
    with pytest.raises(InputError) as caught:
        find(tmp_path / "l.txt")
    assert f"the first was looked for at {tmp_path}/d/p1.png 0 (no such file)" in str(caught.value)
