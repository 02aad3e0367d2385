"""The map: places that follow from the features, and pictures that a person can read."""

import base64
import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.evaluate import map as mapping
from headstart.evaluate.map import drawn, positions, write_map
from headstart.records.files import read_json
from headstart.records.schema import MAP
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


def parts_of(n: int) -> dict[str, np.ndarray]:
    """Every sixth picture to val, every third of the others to test."""
    rows = np.arange(n)
    return {"train": rows[rows % 3 < 2], "val": rows[rows % 6 == 2], "test": rows[rows % 6 == 5]}


def test_files_of_a_labelled_set(run: Run, photos: Path, tmp_path: Path) -> None:
    images = run.open_images(photos)
    features, parts = run.embed(images), parts_of(len(images))
    write_map(tmp_path, {name: features[indices] for name, indices in parts.items()}, images, parts)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "map.csv").read_text())))
    held = read_json(tmp_path / "map.json", MAP)
    index = np.concatenate(list(parts.values()))
    assert held["of"] == len(rows) == len(images)
    assert [row["name"].removeprefix("'") for row in rows] == held["names"] == [images.names[i] for i in index]
    assert [row["split"] for row in rows] == [name for name, part in parts.items() for _ in part]
    assert held["colours"]["class"] == {"values": images.labels[index].tolist(), "names": images.classes}
    assert held["colours"]["split"]["names"] == ["train", "val", "test"]
    pictures = [Image.open(io.BytesIO(base64.b64decode(one))) for one in held["thumbnails"]]
    assert [max(picture.size) for picture in pictures] == [min(48, max(images.sizes[i])) for i in index]
    assert {picture.format for picture in pictures} == {"WEBP"}
    # what it says of neighbours is what a search of the whole set says
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -2)
    near = np.argsort(-similarity, axis=1)[:, :10]
    means = np.take_along_axis(similarity, near, axis=1).mean(axis=1)
    np.testing.assert_allclose(held["colours"]["similarity to the nearest"]["values"], means[index], atol=1e-4)


def test_a_set_without_labels_is_coloured_by_what_it_has(run: Run, photos: Path, tmp_path: Path) -> None:
    images = run.open_images(photos / "ring")
    features, parts = run.embed(images), parts_of(len(images))
    write_map(tmp_path, {name: features[indices] for name, indices in parts.items()}, images, parts)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["map.csv", "map.json"]
    assert list(read_json(tmp_path / "map.json", MAP)["colours"]) == ["split", "similarity to the nearest"]


@pytest.mark.parametrize(
    ("labelled", "unlabelled", "shown"),
    [(30, 40, (30, 40)), (40, 1000, (40, 60)), (1000, 1000, (50, 50)), (3000, 1000, (75, 25)), (90, 20, (82, 18))],
)
def test_of_a_few_labels_among_many_pictures_some_are_drawn(
    labelled: int, unlabelled: int, shown: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapping, "LANDMARKS", 100)
    known = np.arange(labelled + unlabelled) < labelled
    chosen = drawn(known)
    assert (known[chosen].sum(), (~known[chosen]).sum()) == shown
    assert len(set(chosen.tolist())) == len(chosen)


def test_neighbours_are_those_of_all_parts_and_never_the_picture_itself() -> None:
    bank = np.eye(4, 6, dtype=np.float32) + 0.1
    other = np.concatenate([bank[:1], np.eye(6, dtype=np.float32)[5:]])  # the first picture once more, and one alone
    shown = np.stack([bank[0], other[1]])
    near, values = mapping._among(
        shown, np.array([0, 1]), np.array([0, 1]), [bank, other], [np.arange(4), np.array([9, 8])]
    )
    assert near[0, 0] == 9
    assert values[0, 0] == pytest.approx(1)
    assert set(near[0, 1:4]) == {1, 2, 3}
    assert near[0, 5:].tolist() == [-1] * 5  # there are five others alone
    assert np.isnan(values[0, 5:]).all()
    assert 8 not in near[1]
