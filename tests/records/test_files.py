"""Files that are none: a folder from elsewhere may hold pipes, devices and folders where files should be."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from headstart import study
from headstart.records import files
from headstart.records.claim import Claim
from headstart.records.errors import InputError
from headstart.records.files import as_yaml, parse_yaml, read_json, read_yaml
from headstart.records.folder import read_metrics


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


NO_FILES = pytest.mark.parametrize("make", [pipe, device, folder])


@NO_FILES
@pytest.mark.parametrize("read", [read_json, read_yaml, read_metrics])
def test_what_is_no_file_is_named_and_never_waited_for(
    tmp_path: Path, make: Callable[[Path], None], read: Callable[[Path], Any]
) -> None:
    make(tmp_path / "record")
    with pytest.raises(InputError, match=r"record (cannot be read|is a folder)"):
        read(tmp_path / "record")


@NO_FILES
@pytest.mark.parametrize("name", ["failed.json", ".claim", "metrics.jsonl"])
def test_status_of_a_study_from_elsewhere_ends(tmp_path: Path, make: Callable[[Path], None], name: str) -> None:
    (tmp_path / "study.yaml").write_text("name: theirs\nbase: {}\ndata: {digits: {}}\nseeds: [0]\n")
    run = tmp_path / "runs" / "data=digits,seed=0"
    run.mkdir(parents=True)
    make(run / name)
    if name == "failed.json":
        with pytest.raises(InputError, match=r"failed\.json (cannot be read|is a folder)"):
            study.status(tmp_path)
    else:  # a claim that says nothing is nobody's
        assert study.status(tmp_path).todo == 1


@NO_FILES
def test_a_claim_that_is_no_file_is_nobodys(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / ".claim")
    assert Claim(tmp_path).holder() is None


@pytest.mark.parametrize(
    ("text", "line", "name"),
    [
        ("head: {init: pca}\nhead: {frozen: false}\n", 2, "head"),
        ("data: [digits]\nfactors:\n  head.init: [pca]\n  head.init: [random]\n", 4, "head.init"),
        ("contrastive: {epochs: 3, lr: 0.1, epochs: 30}\n", 1, "epochs"),
        ("base:\n- {a: 1}\n- {b: 1, 'b': 2}\n", 3, "b"),
    ],
)
def test_of_a_name_given_twice_the_last_does_not_win_in_silence(
    tmp_path: Path, text: str, line: int, name: str
) -> None:
    (tmp_path / "my.yaml").write_text(text)
    with pytest.raises(InputError, match=rf"my\.yaml, line {line} is not plain YAML: {name} is given twice"):
        read_yaml(tmp_path / "my.yaml")


@pytest.mark.parametrize(
    "text",
    [
        as_yaml({"a": [1, 2.5, "1e-3", True, None], "\udcff.jpg": {"b": "é 😀"}}),
        "x: &x {a: 1e-4, b: 010}\ny:\n  <<: *x\n  a: .5\n",
        "",
        "a: b\x85c",
    ],
)
def test_libyaml_reads_what_pyyaml_alone_reads(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def outcome() -> object:
        try:
            return parse_yaml(text)
        except yaml.YAMLError as error:
            return str(error)

    fast = outcome()
    monkeypatch.setattr(files, "_FastLoader", files._Loader)
    assert fast == outcome()


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 100_000, "- " * 100_000 + "a", "? " * 100_000 + "a"])
def test_what_is_nested_without_end_ends_in_a_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(text)
    with pytest.raises(InputError, match=r"my\.yaml.* is not plain YAML"):
        read_yaml(tmp_path / "my.yaml")
