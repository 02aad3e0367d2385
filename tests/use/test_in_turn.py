"""Two commands on one --out at once: files that belong together are those of one of them."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headstart.engine.device import choose
from headstart.records import files
from headstart.records.errors import InputError
from headstart.report import write_report
from headstart.use import mapped
from headstart.use.embeddings import Embeddings, of_images
from headstart.use.export import export
from headstart.use.load import Run
from headstart.use.mapped import write_map
from headstart.use.select import select


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """Of every file that is written: which turns were held while it was."""
    found: dict[str, set[str]] = {}
    write = files.write

    def watched(path: str | Path, *args: object, **named: object) -> None:
        path = Path(path)
        above = [*path.parents][:2]
        found[path.name] = {claim.name for folder in above for claim in folder.glob(".claim.*") if claim.is_file()}
        write(path, *args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(files, "write", watched)
    return found


def test_lists_maps_and_exports(run: Run, photos: Path, tmp_path: Path, turns: dict[str, set[str]]) -> None:
    within = of_images(run, run.open_images(photos), choose("cpu", threads=1))
    turns.clear()
    select(within, 3, out=tmp_path / "select")
    assert {"duplicates.csv", "outliers.csv", "outliers.png", "clusters.png"} <= turns.keys()
    assert all(".claim.select" in held for held in turns.values())
    turns.clear()
    write_map(within, tmp_path / "map")
    assert {"map.csv", "map.html"} <= turns.keys()
    assert all(".claim.map" in held for held in turns.values())
    export(run, "torchvision", tmp_path / "net.pt")
    assert {".claim.export"} <= turns["net.pt"] & turns["net.pt.json"]
    assert not list(tmp_path.rglob(".claim*"))


def test_reports(run: Run, tmp_path: Path, turns: dict[str, set[str]]) -> None:
    folder = shutil.copytree(run.folder.path, tmp_path / "one")
    write_report(folder)
    assert "report.html" in turns
    assert all(".claim.report" in held for held in turns.values())
    assert not list(tmp_path.rglob(".claim*"))


def test_lists_and_maps_of_an_earlier_call_go(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second call without labels, in whose file of pictures no path leads anywhere, without pyarrow."""
    within = of_images(run, run.open_images(photos), choose("cpu", threads=1))
    labels = within.labels.copy()
    labels[[3, 25, 50]] = (labels[[3, 25, 50]] + 1) % 3
    select(replace(within, labels=labels), 3, out=tmp_path / "select")
    wrong = {"label-errors.csv", "label-errors.png"}
    assert wrong <= {path.name for path in (tmp_path / "select").iterdir()}
    (tmp_path / "select" / "mine.csv").write_text("years of work")
    unlabelled = replace(within, labels=np.full(60, -1))
    asked = tmp_path / "select" / "label-next.csv"
    told = asked.read_text()
    asked.write_text("name,label\n" + "\n".join(f"{name},pear" for name in told.splitlines()[1:]))
    with pytest.raises(InputError, match=r"label-next\.csv is there, and is none .* \(its columns are name, label\)"):
        select(unlabelled, 3, out=tmp_path / "select")
    assert "pear" in asked.read_text()
    asked.write_text(told)
    select(unlabelled, 3, out=tmp_path / "select")
    left = {path.name for path in (tmp_path / "select").iterdir()}
    assert not wrong & left
    assert {"mine.csv", "duplicates.csv", "clusters.png"} <= left

    first = write_map(within, tmp_path / "map").files
    assert {"data.json", "labels.json"} <= {path.name for path in first}
    monkeypatch.setattr(Embeddings, "paths", lambda one: one.names)
    monkeypatch.setattr(mapped, "find_spec", lambda name: None)
    second = write_map(unlabelled, tmp_path / "map").files
    assert sorted(path for path in (tmp_path / "map").rglob("*") if path.is_file()) == sorted(second)
    assert len(second) == 2
