"""The night's work of docs/data.md, over a folder that grows twice and loses pictures: run, embeddings and the list of
what to label next stay current, only what is new is embedded, and the run's settings are given once."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.cli.commands import main
from headstart.data.images import Images
from headstart.evaluate import features
from headstart.records.folder import RunFolder

PAGE = Path(__file__).parents[2] / "docs" / "data.md"
SMALL = (
    "--data.size 32 --backbone.name resnet18 --head.init random --head.no-frozen --contrastive.epochs 1 "
    "--contrastive.batch-size 16 --probe.names knn --precision float32 --threads 1 --device cpu"
)


def night(settings: str) -> list[list[str]]:
    """The commands of the page's one line."""
    (line,) = re.findall(r"^(headstart pretrain .* && headstart select .*)$", PAGE.read_text(), re.MULTILINE)
    commands = [shlex.split(part)[1:] for part in line.split("&&")]
    commands[0] += shlex.split(settings)
    return [[word.replace("50", "5") for word in command] for command in commands]


def add(folder: Path, numbers: range) -> None:
    for kind in "ab":
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for number in numbers:
            noise = np.random.default_rng([ord(kind), number]).integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / kind / f"{number:03}.png")


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """The names of what `embed` has taken through the backbone, a set for each call."""
    taken: list[set[str]] = []
    real: Callable[..., np.ndarray] = features.extract

    def extract(backbone: object, images: Images, rows: np.ndarray, **more: object) -> np.ndarray:
        taken.append({images.names[i] for i in rows})
        return real(backbone, images, rows, **more)

    monkeypatch.setattr("headstart.evaluate.features.extract", extract)
    return taken


def test_a_folder_that_grows_twice_and_loses_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embedded: list[set[str]]
) -> None:
    monkeypatch.chdir(tmp_path)
    photos, run = tmp_path / "photos", RunFolder(tmp_path / "runs" / "photos")
    add(photos, range(20))
    before: dict[str, np.ndarray] = {}
    weights = b""
    for evening in range(4):
        if evening == 1:
            add(photos, range(20, 25))
        if evening == 2:
            add(photos, range(25, 30))
            for name in ("a/000.png", "b/003.png"):
                (photos / name).unlink()
        embedded.clear()
        for command in night("" if evening else SMALL):
            with pytest.raises(SystemExit) as ended:
                main(command)
            assert ended.value.code == 0
        with np.load("photos.npz") as file:
            now = dict(zip(file["names"].tolist(), file["embeddings"], strict=True))
        assert set(now) == names_in(photos)
        assert sum(run.read_result()["data"][part] for part in ("train", "val", "test")) == len(now)
        assert embedded[-1] == set(now) - set(before)
        assert all(np.array_equal(before[name], now[name]) for name in before.keys() & now.keys())
        chosen = (tmp_path / "next" / "label-next.csv").read_text().split()[1:]
        assert len(chosen) == len(set(chosen)) == 5
        assert set(chosen) <= set(now)
        assert not weights or run.backbone.read_bytes() == weights
        before, weights = now, run.backbone.read_bytes()
