"""A path that begins with ~ means the home folder to the Python API as it does to the command line."""

from pathlib import Path
from typing import Any

import pytest

import headstart
from headstart.evaluate.foreign import evaluate
from headstart.records.errors import InputError
from headstart.records.folder import RunFolder
from headstart.study import calls, file
from headstart.use.embed import embed
from headstart.use.embeddings import of_images, opened
from headstart.use.export import export
from headstart.use.load import Run, load
from headstart.use.mapped import write_map
from headstart.use.search import search
from headstart.use.select import select


@pytest.fixture
def home(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with a link to the run, and another working folder."""
    (tmp_path / "home").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "home" / "run").symlink_to(run.folder.path.absolute())
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "home"


def test_what_is_read(home: Path, run: Run) -> None:
    assert load("~/run").result == run.result
    assert headstart.load("~/run").config == run.config
    assert RunFolder("~/run").path == home / "run"
    assert opened("~/run").run.folder.path == home / "run"
    with pytest.raises(InputError, match=f"{home}/nothing is not a run folder"):
        headstart.load("~/nothing")


WRITTEN: dict[str, tuple[Any, str]] = {
    "embed": (lambda run, within: embed(run, within.images, "~/e.npz", quiet=True), "e.npz"),
    "select": (lambda run, within: select(within, 2, out="~/selection"), "selection/label-next.csv"),
    "write_map": (lambda run, within: write_map(within, "~/map"), "map/map.html"),
    "search": (lambda run, within: search(within, query(within), out="~/s.png"), "s.png"),
    "export": (lambda run, within: export(run, "torchvision", "~/b.safetensors"), "b.safetensors"),
    "evaluate": (lambda run, within: evaluate("~/run", out="~/found.json", threads=1), "found.json"),
    "study": (lambda run, within: calls.prepare(file.load("smoke"), "~/study"), "study/study.yaml"),
}


def query(within: Any) -> str:
    return str(within.path(0))


@pytest.mark.parametrize("what", WRITTEN)
def test_what_is_written(what: str, home: Path, run: Run) -> None:
    call, name = WRITTEN[what]
    call(run, of_images(run, run.open_images()))
    assert (home / name).is_file()
    assert list(Path.cwd().iterdir()) == []
