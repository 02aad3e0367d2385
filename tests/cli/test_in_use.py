"""A run folder has an owner: whoever else would write into it is told who works there, where and since when."""

import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart.cli.commands import main
from headstart.records.claim import owned
from headstart.use.load import Run
from tests.shapes import photos, run

__all__ = ["photos", "run"]

COMPUTE = "--threads 1 --device cpu"
WRITING = [
    "pretrain photos --out new",
    "pretrain photos --out new --overwrite --seed 1",
    "pretrain --config run/config.yaml --out run --extend --contrastive.epochs 3",
    "pretrain photos --out run --overwrite --data.size 32 --backbone.name resnet18",
    "pretrain photos --out ./x/../new/",
    "pretrain photos --out linked",
    "finetune run photos --out new --epochs 1",
    "finetune run photos --out linked/ --epochs 1 --overwrite",
]


@pytest.fixture(scope="module")
def place(photos: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The pictures, a finished run, a folder and a link to it, and somebody at work in the last two."""
    root = tmp_path_factory.mktemp("place")
    (root / "photos").symlink_to(photos)
    shutil.copytree(run.folder.path, root / "run")
    (root / "new").mkdir()
    (root / "linked").symlink_to("new")
    (root / "x").mkdir()
    with owned(root / "new", "pretrain"), owned(root / "run", "finetune"):
        yield root


@pytest.mark.parametrize("said", WRITING)
def test_the_second_of_two_is_told(
    said: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    before = written(place)
    with pytest.raises(SystemExit) as stop:
        main(shlex.split(f"{said} {COMPUTE}"))
    error = " ".join(capsys.readouterr().err.split())
    assert stop.value.code == 2, error
    assert f"is in use: process {os.getpid()} on {os.uname().nodename} has been at work in it since 20" in error
    assert "wait for it to end, or give another --out" in error
    assert written(place) == before


def written(root: Path) -> dict[Path, int]:
    """Every file and when it was written, but for the owners' claims, which are renewed."""
    return {path: path.lstat().st_mtime_ns for path in root.rglob("*") if path.is_file() and path.name != ".claim"}
