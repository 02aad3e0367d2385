"""Lists of pictures and tables of labels, as people write them."""

import unicodedata
from pathlib import Path

import pytest

from headstart.data import open_images
from headstart.records.config import DataConfig
from headstart.records.errors import InputError
from headstart.records.text import table
from tests.data.pictures import find, folder, labelled, put


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("l.txt", "# a comment\nb.png\n\na.png\n", {"a.png": None, "b.png": None}),
        ("l.csv", "path,label\nb.png,dog\na.png,\n", {"a.png": None, "b.png": "dog"}),
        ("l.csv", "b.png,dog\na.png,cat\n", {"a.png": "cat", "b.png": "dog"}),
        ("l.csv", "\ufeffid;class;file\n1;dog;b.png\n2;cat;a.png\n", {"a.png": "cat", "b.png": "dog"}),
        ("l.tsv", "image\tcategory\nb.png\tbig dog\n", {"b.png": "big dog"}),
        ("l.csv", 'path,label\n"b.png","a, b"\n', {"b.png": "a, b"}),
    ],
)
def test_lists(tmp_path: Path, name: str, text: str, expected: dict[str, str | None]) -> None:
    folder(tmp_path, ["a.png", "b.png"])
    put(tmp_path / name, text.encode())
    assert labelled(find(tmp_path / name)) == expected


def test_a_list_can_name_the_split_and_absolute_paths(tmp_path: Path) -> None:
    folder(tmp_path / "p", ["a.png", "b.png"])
    put(tmp_path / "l.csv", f"path,label,split\n{tmp_path}/p/a.png,x,train\np/b.png,y,test\n".encode())
    source = find(tmp_path / "l.csv")
    assert sorted(source.official) == ["test", "train"]


def test_missing_pictures_of_a_list_are_set_aside(tmp_path: Path) -> None:
    folder(tmp_path, ["a.png"])
    put(tmp_path / "l.txt", b"a.png\ngone.png\n")
    assert find(tmp_path / "l.txt").skipped == [("gone.png", "no such file")]
    images = open_images(DataConfig(sources=(str(tmp_path / "l.txt"),)))
    assert (images.names, images.skipped) == (["a.png"], [("gone.png", "no such file")])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "empty"),
        (b"path,label\n,x\n", "row 2"),
        (b"path,label\na.png,x\na.png,y\n", "row 3 lists a.png again"),
        (b"path,split\na.png,holdout\n", "row 2 has the split 'holdout'"),
        (b"gone.png\n", "of 1 "),
        (b"path,label\na.png,x\n./a.png,y\n", "row 3 lists ./a.png again"),
        (b"\xff\xfe\n", "UTF-8"),
        (b'"a.png\n', "not a CSV table"),
    ],
)
def test_bad_lists_are_named_by_row(tmp_path: Path, text: bytes, words: str) -> None:
    folder(tmp_path, ["a.png"])
    put(tmp_path / "l.csv", text)
    with pytest.raises(InputError, match=words):
        find(tmp_path / "l.csv")


def test_labels_in_plain_text_have_a_way_out(tmp_path: Path) -> None:
    folder(tmp_path, ["a.png"])
    with pytest.raises(InputError, match=r"of 1 .*it must be a \.csv or \.tsv table"):
        find(put(tmp_path / "val.txt", b"a.png 3\n"))


def test_a_label_file_gives_some_labels(tmp_path: Path) -> None:
    name = unicodedata.normalize("NFD", "café.png")
    folder(tmp_path / "p", ["a.png", "x/b.png", "x/c.png", name])
    put(tmp_path / "labels.csv", "name,label\na.png,cat\nb.png,dog\ncafé.png,cat\nelsewhere.png,dog\n".encode())
    source = find(tmp_path / "p", labels=str(tmp_path / "labels.csv"))
    assert labelled(source) == {"a.png": "cat", "x/b.png": "dog", "x/c.png": None, name: "cat"}


@pytest.mark.parametrize(
    "name", ["{root}/p/x/b.png", "p/x/b.png", "./p/../p/x/b.png", ".\\p\\x\\b.png", "x/../x/b.png"]
)
def test_a_label_file_may_give_paths(tmp_path: Path, name: str) -> None:
    folder(tmp_path / "p", ["a.png", "x/b.png", "y/b.png"])
    put(tmp_path / "labels.csv", f"name,label\n{name.format(root=tmp_path)},dog\n".encode())
    source = find(tmp_path / "p", labels=str(tmp_path / "labels.csv"))
    assert labelled(source) == {"a.png": None, "x/b.png": "dog", "y/b.png": None}


def test_a_file_name_of_several_pictures_is_called_that(tmp_path: Path) -> None:
    folder(tmp_path / "p", ["x/0.png", "y/0.png", "y/1.png"])
    labels = put(tmp_path / "labels.csv", b"name,label\n0.png,cat\n")
    with pytest.raises(InputError, match=r"0\.png could be x/0\.png, y/0\.png; write the folder as well"):
        find(tmp_path / "p", labels=str(labels))
    put(labels, b"name,label\n0.png,cat\n1.png,cat\ny/0.png,dog\n")
    source = find(tmp_path / "p", labels=str(labels))
    assert labelled(source) == {"x/0.png": None, "y/0.png": "dog", "y/1.png": "cat"}
    assert any(
        "1 of 3 names are no picture of DATA, or several: 0.png could be x/0.png" in note for note in source.notes
    )


def test_one_picture_under_several_spellings_is_one(tmp_path: Path) -> None:
    folder(tmp_path, ["a.png", "sub/b.png", "u\u2028v.png"])
    put(tmp_path / "l.txt", "a.png\n./a.png\nsub/../a.png\nu\u2028v.png\n".encode())
    source = find(tmp_path / "l.txt")
    assert (source.names, source.skipped) == (["a.png", "u\u2028v.png"], [])


def test_one_picture_of_two_labels_is_refused_however_it_is_spelled(tmp_path: Path) -> None:
    folder(tmp_path, ["a.png"])
    put(tmp_path / "l.csv", f"path,label,split\na.png,cat,train\n{tmp_path}/a.png,dog,test\n".encode())
    with pytest.raises(InputError, match=r"row 3 .*again, with another label or split: dog in test after cat in train"):
        find(tmp_path / "l.csv")


def test_bad_label_files_are_named(tmp_path: Path) -> None:
    folder(tmp_path / "p", ["a.png"])
    put(tmp_path / "names.csv", b"name\na.png\n")
    put(tmp_path / "others.csv", b"name,label\nz.png,cat\n")
    for labels, words in [
        ("nope.csv", "auto, folders, none"),
        ("names.csv", "no label"),
        ("others.csv", "of 1 "),
    ]:
        with pytest.raises(InputError, match=words):
            find(tmp_path / "p", labels=str(tmp_path / labels))


def test_names_in_our_tables_are_read_back(tmp_path: Path) -> None:
    """Names as `predict` and `select` write them are names that lists and `data.labels` understand."""
    names = [
        "می\u200cخواهم.png",
        "👨\u200d👩\u200d👧.png",
        "-1.png",
        "=1+1.png",
        "a, b.png",
        "c\nd.png",
        "e\rf.png",
        "'=g.png",
    ]
    root = folder(tmp_path, names)
    rows = [(name, f"=label {i % 2}") for i, name in enumerate(names)]
    put(tmp_path / "p.csv", table(("name", "label"), rows).encode())
    for found in (find(root, labels=str(tmp_path / "p.csv")), find(tmp_path / "p.csv")):
        assert dict(zip(found.names, found.labels.tolist(), strict=True)) == {n: i % 2 for i, n in enumerate(names)}
        assert found.classes == ["=label 0", "=label 1"]
