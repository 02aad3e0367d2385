"""What lies in an archive is listed once, and again when the archive changes."""

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from headstart.data import contents as listing
from headstart.data.contents import contents
from headstart.data.packed import in_packed
from headstart.data.source import Found
from headstart.records.config import DataConfig
from tests.data.test_packed import PICTURES, opened, right, tar, zipped

MEMBERS = [(f"{'ab'[i % 2]}/{i:04d}.png", data) for i, data in enumerate(PICTURES)]
SHARD = [file for name, data in MEMBERS for file in ((name[2:], data), (f"{name[2:6]}.cls", name[:1].encode()))]
KINDS: dict[str, Callable[[Path], Path]] = {
    "p.zip": lambda path: zipped(path, MEMBERS),
    "p.tar": lambda path: tar(path, [*MEMBERS, ("notes.txt", b"x"), (os.fsdecode(b"a/\xff.png"), PICTURES[0])]),
    "set-0.tar": lambda path: tar(path, SHARD),
    "cut.tar": lambda path: _cut(tar(path, SHARD)),
}


def _cut(path: Path) -> Path:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    return path


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of this test's own, which keeps lists of so few pictures too."""
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(listing, "MANY", 1)
    return tmp_path / "cache"


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were listed, not read from a list that was kept."""
    seen: list[Path] = []
    really = in_packed

    def watched(path: Path, labels: str) -> Found:
        seen.append(path)
        return really(path, labels)

    monkeypatch.setattr(listing, "in_packed", watched)
    return seen


@pytest.mark.parametrize("name", KINDS)
def test_a_list_that_was_kept_says_what_the_archive_says(tmp_path: Path, listed: list[Path], name: str) -> None:
    path = KINDS[name](tmp_path / name)
    first, again = contents(path, DataConfig()), contents(path, DataConfig())
    assert listed == [path]
    assert again == first
    assert (name == "cut.tar") == bool(again.skipped)
    assert contents(path, DataConfig(labels="none")).entries  # other roles: a list of its own
    assert listed == [path, path]


def test_pictures_are_read_by_a_list_that_was_kept(tmp_path: Path, listed: list[Path]) -> None:
    path = tar(tmp_path / "set-0.tar", SHARD)
    before = opened(path)
    os.rename(path, tmp_path / "moved.tar")
    os.rename(tmp_path / "moved.tar", path)  # its time of change is another now
    for pictures in (tmp_path / "cache").glob("*.pictures"):
        pictures.unlink()
    after = opened(path)
    assert listed == [path, path]
    assert right(after)
    assert (after.fingerprint, after.classes) == (before.fingerprint, ["a", "b"])


def test_an_archive_that_changed_is_listed_anew(tmp_path: Path, listed: list[Path]) -> None:
    path = zipped(tmp_path / "p.zip", MEMBERS)
    contents(path, DataConfig())
    zipped(path, MEMBERS[:12])
    assert len(contents(path, DataConfig()).entries) == 12
    assert len(listed) == 2


@pytest.mark.parametrize("damage", [lambda text: text[:-7], lambda text: text.replace(b"0003", b"0004"), lambda _: b""])
def test_a_damaged_list_is_made_anew(
    tmp_path: Path, own: Path, listed: list[Path], damage: Callable[[bytes], bytes]
) -> None:
    path = zipped(tmp_path / "p.zip", MEMBERS)
    first = contents(path, DataConfig())
    (kept,) = own.glob("*.contents")
    kept.write_bytes(damage(kept.read_bytes()))
    assert contents(path, DataConfig()) == first
    assert contents(path, DataConfig()) == first
    assert listed == [path, path]


def test_other_rules_list_anew(tmp_path: Path, listed: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "p.zip", MEMBERS)
    contents(path, DataConfig())
    monkeypatch.setattr(listing, "_rules", lambda: "of another version")
    contents(path, DataConfig())
    assert len(listed) == 2


def test_a_list_that_cannot_be_written_is_done_without(tmp_path: Path, own: Path, listed: list[Path]) -> None:
    path = zipped(tmp_path / "p.zip", MEMBERS)
    own.write_bytes(b"a file where the folder would be")
    assert asdict(contents(path, DataConfig())) == asdict(contents(path, DataConfig()))
    assert len(listed) == 2


def test_few_pictures_are_not_kept(tmp_path: Path, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MANY", len(MEMBERS) + 1)
    contents(zipped(tmp_path / "p.zip", MEMBERS), DataConfig())
    assert not list(own.glob("*.contents"))


def test_what_is_said_of_every_shard_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for shard in range(5):
        tar(tmp_path / f"set-{shard}.tar", SHARD[8 * shard : 8 * shard + 8])
    assert right(opened(tmp_path))
    said = [line for line in capsys.readouterr().err.splitlines() if "WebDataset" in line]
    assert len(said) == 1
    assert "set-0, set-1, set-2 and 2 more: taken for WebDataset" in said[0]
