"""Names on a disk may be any bytes: those that are no text end no command, and no finished training is lost by them."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from headstart.records.folder import RunFolder
from headstart.use.load import Run
from tests.cli.test_commands import SMALL
from tests.cli.test_commands import run as ended
from tests.shapes import photos, run

__all__ = ["photos", "run"]

pytestmark = pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="its disks hold no such names")
STRANGE = os.fsdecode(b"ph\xf4tos")


@pytest.fixture(params=["a picture", "a class", "DATA itself"])
def data(request: pytest.FixtureRequest, photos: Path, tmp_path: Path) -> Path:
    """The pictures, with one name in Latin-1, as an old archive leaves it."""
    data = shutil.copytree(photos, tmp_path / (STRANGE if request.param == "DATA itself" else "photos"))
    if request.param == "a picture":
        (data / "ring" / "05.png").rename(data / "ring" / f"{STRANGE}.png")
    if request.param == "a class":
        (data / "ring").rename(data / STRANGE)
    return data


def test_a_run_of_them_is_finished_and_reported(data: Path, tmp_path: Path) -> None:
    options = [*SMALL, "--device", "cpu", "--autoencoder.epochs", "1", "--contrastive.epochs", "1"]
    assert ended("pretrain", str(data), "--out", str(tmp_path / "run"), *options) == 0
    folder = RunFolder(tmp_path / "run")
    told = folder.read_result()["data"]
    json.dumps(told, ensure_ascii=False).encode()
    folder.report.unlink()
    assert ended("report", str(folder.path)) == 0
    folder.report.read_text(encoding="utf-8")


def test_every_use_of_a_run_takes_them(data: Path, run: Run, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    where, own = str(run.folder.path), ["--threads", "1", "--device", "cpu"]
    picture = str(next(data.rglob(f"*{STRANGE}*.png"), data / "ring" / "01.png"))
    if not Path(picture).exists():
        picture = str(next(data.rglob("*.png")))
    assert ended("check", str(data), "--json", str(tmp_path / "check.json")) == 0
    json.loads((tmp_path / "check.json").read_text(encoding="utf-8"))
    for out in ("e.npz", "e.parquet"):
        assert ended("embed", where, str(data), "--out", str(tmp_path / out), *own) == 0
        assert ended("search", str(tmp_path / out), "--query", picture, "--json", *own) == 0
    assert ended("select", where, str(data), "-n", "2", "--out", str(tmp_path / "selected"), *own) == 0
    assert ended("map", where, str(data), "--out", str(tmp_path / "map"), *own) == 0
    assert ended("evaluate", where, "--data", str(data), "--out", str(tmp_path / "e.json"), *own) == 0
    json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "command",
    [
        "pretrain digits --out OUT",
        "pretrain digits --out OUT/run",
        "select RUN digits -n 2 --out OUT",
        "map RUN digits --out OUT",
        "export RUN --format torchvision --out OUT.pt",
        "embed RUN digits --out OUT.npz",
        "finetune RUN digits --out OUT",
    ],
)
def test_no_output_has_such_a_name(command: str, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """safetensors, which writes the weights, opens no path that is not UTF-8: known before anything is computed."""
    words = {"RUN": str(run.folder.path), "OUT": str(tmp_path / STRANGE)}
    for name, path in words.items():
        command = command.replace(name, path)
    assert ended(*command.split()) == 2
    assert "cannot be written: its path is no text (UTF-8); give another f" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
