"""Folders as people have them: classes, official splits, links, what is left out."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.data import open_images
from headstart.data.source import Entry, make
from headstart.records.config import DataConfig
from headstart.records.errors import InputError
from tests.data.pictures import find, folder, labelled, put


def test_first_level_folders_are_classes_at_any_depth(tmp_path: Path) -> None:
    source = find(folder(tmp_path, ["dog/a.png", "cat/2024/05/b.png", "cat/c.PNG"]))
    assert labelled(source) == {"cat/2024/05/b.png": "cat", "cat/c.PNG": "cat", "dog/a.png": "dog"}
    assert source.classes == ["cat", "dog"]
    assert set(source.official) == {""}


def test_pictures_at_the_top_mean_no_classes_unless_asked(tmp_path: Path) -> None:
    root = folder(tmp_path, ["2023/a.png", "2024/b.png", "top.png"])
    assert labelled(find(root)) == {"2023/a.png": None, "2024/b.png": None, "top.png": None}
    assert labelled(find(root, labels="folders")) == {"2023/a.png": "2023", "2024/b.png": "2024", "top.png": None}


def test_date_folders_are_no_classes_when_told_so(tmp_path: Path) -> None:
    assert find(folder(tmp_path, ["2023/a.png", "2024/b.png"]), labels="none").classes == []


@pytest.mark.parametrize("last", ["val", "test", "Validation"])
def test_split_folders_are_the_official_split(tmp_path: Path, last: str) -> None:
    source = find(folder(tmp_path, ["train/cat/a.png", "train/dog/b.png", f"{last}/cat/c.png"]))
    assert dict(zip(source.names, source.official, strict=True)) == {
        "train/cat/a.png": "train",
        "train/dog/b.png": "train",
        f"{last}/cat/c.png": "test" if last == "test" else "val",
    }
    assert source.classes == ["cat", "dog"]


def test_a_stray_picture_beside_train_and_test_changes_nothing_else(tmp_path: Path) -> None:
    source = find(folder(tmp_path, ["train/cat/a.png", "test/cat/b.png", "preview.png"]))
    assert labelled(source)["train/cat/a.png"] == "cat"
    assert labelled(source)["preview.png"] is None


def test_a_class_called_train_is_a_class(tmp_path: Path) -> None:
    source = find(folder(tmp_path, ["train/a.png", "bus/b.png"]))
    assert source.classes == ["bus", "train"]
    assert set(source.official) == {""}


def test_hidden_files_other_files_and_resource_forks_are_not_pictures(tmp_path: Path) -> None:
    folder(tmp_path, ["a/x.png", ".hidden/y.png", "__MACOSX/z.png"])
    put(tmp_path / "a" / "._x.png", b"fork")
    put(tmp_path / "a" / "notes.txt", b"")
    assert find(tmp_path).names == ["a/x.png"]


def test_any_name_works(tmp_path: Path) -> None:
    strange = ["a b/ü 漢字.png", "a b/=cmd.png", "a b/new\nline.png", "a b/%s{x}.png"]
    names = find(folder(tmp_path, strange)).names
    assert sorted(strange) == names
    bad = os.fsencode(tmp_path) + b"/a b/\xff\xfe.png"
    Path(os.fsdecode(bad)).write_bytes((tmp_path / strange[0]).read_bytes())
    images = open_images(DataConfig(sources=(str(tmp_path),)))
    assert "a b/\\xff\\xfe.png" in images.names
    "".join(images.names).encode()


def test_links_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    root = folder(tmp_path / "root", ["cat/a.png"])
    outside = folder(tmp_path / "outside", ["b.png"])
    (root / "dog").symlink_to(outside)
    (root / "cat" / "loop").symlink_to(root)
    (root / "also-cat").symlink_to(root / "cat")
    (root / "cat" / "nowhere.png").symlink_to(tmp_path / "gone")
    assert find(root).names == ["cat/a.png", "cat/nowhere.png", "dog/b.png"]


@given(st.permutations(["b/1.png", "a/2.png", "c/0.png", "a/1.png"]))
def test_order_follows_names_alone(order: list[str]) -> None:
    made = make("x", [Entry(n, n, n[0]) for n in order])
    assert made.names == ["a/1.png", "a/2.png", "b/1.png", "c/0.png"]
    assert made.labels.tolist() == [0, 0, 1, 2]


def test_what_is_linked_twice_packed_or_a_table_is_spoken_of(tmp_path: Path) -> None:
    root = folder(tmp_path / "d", ["cat/a.png", "Cat/b.png"])
    (root / "dog").symlink_to(root / "cat")
    put(root / "more.zip", b"")
    notes = find(root).notes
    assert "left out: dog/, linked to what is read already" in notes
    assert "left out: 1 .zip beside the pictures; give such a file as DATA of its own" in notes
    flat = folder(tmp_path / "flat", ["a.png"])
    put(flat / "meta" / "labels.csv", b"name,label\na.png,cat\n")
    (note,) = find(flat).notes
    assert note == f"not read: meta/labels.csv; --data.labels {flat}/meta/labels.csv takes labels from there"
    assert find(flat, labels=str(flat / "meta" / "labels.csv")).classes == ["cat"]


@pytest.mark.parametrize("inner", ["x", "x/cat", "x/cat/a.png"])
def test_data_inside_data_is_refused(tmp_path: Path, inner: str) -> None:
    folder(tmp_path, ["x/cat/a.png", "y/b.png"])
    with pytest.raises(InputError, match=r"lies inside .*count twice"):
        find(tmp_path / inner, tmp_path)


def test_several_folders_are_told_apart(tmp_path: Path) -> None:
    one, two = folder(tmp_path / "x/photos", ["a.png"]), folder(tmp_path / "y/photos", ["a.png"])
    assert find(one, two).names == ["photos-2/a.png", "photos/a.png"]


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    put(tmp_path / "x.zip", b"")
    put(tmp_path / "x.rar", b"")
    for sources, words in [
        ((), "no DATA"),
        (("nowhere",), "no folder, list or named set nowhere; named sets are imagenette, stl10"),
        ((tmp_path / "empty",), "holds no pictures"),
        ((tmp_path / "x.zip",), "no whole zip archive"),
        ((tmp_path / "x.rar",), "unpack"),
        (("cifar10",), "cifar10:ROOT"),
        (("digits:/x",), "write digits"),
        (("digits", tmp_path), "only DATA"),
    ]:
        with pytest.raises(InputError, match=words):
            find(*sources)


@pytest.mark.parametrize(
    ("bare", "said"),
    [
        (["fox"], "fox/"),
        (["fox/deep/deeper"], "fox/"),
        (["a", "b", "c", "e", "fox"], "a/, b/, c/ and 2 more"),
    ],
)
def test_class_folders_without_a_picture_are_named_once(bare: list[str], said: str, tmp_path: Path) -> None:
    root = folder(tmp_path, ["dog/a.png", "cat/b.png"])
    for name in bare:
        (root / name).mkdir(parents=True)
    put(root / bare[0] / "notes.txt", b"no picture")
    notes = [note for note in find(root).notes if "no picture in" in note]
    assert notes == [f"no picture in: {said}, beside folders that are classes"]


@pytest.mark.parametrize(
    ("names", "bare"), [(["a.png"], "empty"), (["train/dog/a.png", "train/cat/b.png", "test/dog/c.png"], "docs")]
)
def test_folders_that_lie_beside_no_class_are_not_named(names: list[str], bare: str, tmp_path: Path) -> None:
    root = folder(tmp_path, names)
    (root / bare).mkdir()
    assert not any("no picture in" in note for note in find(root).notes)
