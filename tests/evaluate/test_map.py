"""The map: places that follow from the features, and pictures that a person can read."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.evaluate import map as mapping
from headstart.evaluate.map import positions, write_map
from headstart.use.load import Run


def clusters(n: int, groups: int = 4) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(0)
    group = np.arange(n) % groups
    return 10 * np.eye(groups, 16)[group] + draws.normal(size=(n, 16)), group


@pytest.mark.parametrize("n", [40, 300])
def test_groups_stay_together_whether_placed_as_landmarks_or_among_them(
    n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapping, "LANDMARKS", 100)
    features, group = clusters(n)
    places = positions(features)
    assert places.shape == (n, 2)
    assert places.min() == 0
    assert places.max() == 1
    distance = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert (group[distance.argmin(axis=1)] == group).mean() > 0.95
    np.testing.assert_array_equal(positions(features), places)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_few_or_equal_pictures_have_places_too(n: int) -> None:
    assert np.isfinite(positions(np.random.default_rng(0).normal(size=(n, 8)))).all()
    assert np.isfinite(positions(np.ones((n + 10, 8)))).all()


def test_files_of_a_labelled_set(run: Run, photos: Path, tmp_path: Path) -> None:
    images = run.open_images(photos)
    indices = np.arange(0, len(images), 2)
    write_map(tmp_path, run.embed(images)[indices], images, indices)
    rows = list(csv.reader(io.StringIO((tmp_path / "map.csv").read_text())))
    assert rows[0] == ["name", "label", "x", "y"]
    assert [row[0].removeprefix("'") for row in rows[1:]] == [images.names[i] for i in indices]
    for name in ("map.png", "map-labels.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.size == (mapping.WIDTH, mapping.HEIGHT)
            assert len(picture.convert("RGB").getcolors(10**6) or []) > 3
        assert (tmp_path / name).stat().st_size < 600_000  # what a report puts into its page


def test_a_set_without_labels_has_no_map_of_labels(run: Run, photos: Path, tmp_path: Path) -> None:
    images = run.open_images(photos / "ring")
    write_map(tmp_path, run.embed(images), images, np.arange(len(images)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["map.csv", "map.png"]
