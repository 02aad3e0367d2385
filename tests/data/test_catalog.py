"""Several DATA at once, picture files by name, and what DATA is called."""

import os
from pathlib import Path

import pytest

from headstart.data.catalog import shown
from headstart.records.located import located, places
from headstart.records.names import SETS
from tests.data.pictures import find, folder
from tests.runs import small


def test_picture_files_keep_their_order_and_names(tmp_path: Path) -> None:
    root = folder(tmp_path, ["x/a.png", "y/b.png", "z/a.png"])
    files = [root / "y/b.png", root / "z/a.png", root / "x/a.png"]
    assert find(*files).names == ["b.png", "a.png", "2/a.png"]
    assert find(*files[:2], root / "x").names == ["a.png", "b.png", "x/a.png"]


def test_several_data_of_one_name_are_numbered_past_names_that_are_taken(tmp_path: Path) -> None:
    root = folder(tmp_path, ["x/a/p.png", "y/a/p.png", "z/a-2/p.png"])
    assert find(root / "x/a", root / "y/a", root / "z/a-2").names == ["a-2/p.png", "a-3/p.png", "a/p.png"]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("photos", "photos"),
        ("./photos/", "photos"),
        ("photos/../photos", "photos"),
        ("a:b", "a:b"),
        (".", "here"),
        ("..", "above"),
        ("photos/.", "photos"),
        ("../here", "here"),
        ("list.csv", "list.csv"),
        ("digits", "digits"),
        ("cifar10:somewhere/else", "cifar10"),
    ],
)
def test_what_data_is_called(source: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "above" / "here" / "a:b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "above" / "here")
    assert shown(source) == name


@pytest.mark.parametrize("name", SETS)
def test_ones_own_folder_with_the_name_of_a_set_is_found_from_everywhere(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but `digits`, which needs no folder and is meant as the set."""
    own = str(folder(tmp_path / "here" / name, ["a.png"]))
    meant = ("digits",) if name == "digits" else (own,)
    monkeypatch.chdir(tmp_path / "here")
    assert places((name,)) == places(meant)
    os.chdir(tmp_path)
    assert located(small(data={"sources": [name]}), str(tmp_path / "here")).data.sources == meant
    assert located(small(data={"sources": [f"{name}:x"]}), "/root").data.sources == (f"{name}:/root/x",)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("hf:kept", "hf:{here}/kept"),
        ("hf:owner/name", "hf:owner/name"),
        ("kept", "{here}/kept"),
        ("gone", "gone"),
        ("cifar10", "cifar10"),
    ],
)
def test_what_a_run_names_is_found_from_everywhere_and_what_is_gone_stays_as_typed(
    typed: str, meant: str, tmp_path: Path
) -> None:
    (tmp_path / "kept").mkdir()
    found = located(small(data={"sources": [typed]}), str(tmp_path))
    assert found.data.sources == (meant.format(here=tmp_path),)
