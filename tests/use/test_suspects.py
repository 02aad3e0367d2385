"""Labels that look wrong and groups that nobody named, on points where the truth is known."""

import numpy as np
import pytest

from headstart.evaluate.neighbours import NEIGHBOURS
from headstart.use import clusters as clustering
from headstart.use import suspects
from headstart.use.clusters import clusters
from headstart.use.suspects import probed, suspicion, voted


@pytest.fixture(scope="module")
def points() -> tuple[np.ndarray, np.ndarray]:
    """Three well-parted groups of 60 points, and which is which."""
    draws = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 60)
    centres = draws.normal(0, 1, (3, 24))
    return (centres[labels] + draws.normal(0, 0.35, (180, 24))).astype(np.float32), labels


def test_flipped_labels_come_first(points: tuple[np.ndarray, np.ndarray]) -> None:
    features, truth = points
    flipped = np.random.default_rng(1).permutation(180)[:12]
    labels = truth.copy()
    labels[flipped] = (truth[flipped] + 1) % 3
    found, again = suspicion(features, labels, 3), suspicion(features, labels, 3)
    assert found is not None
    assert again is not None
    assert set(found.order[:12]) == set(flipped)
    assert set(found.doubtful) == set(flipped)
    np.testing.assert_array_equal(found.suggested[flipped], truth[flipped])
    assert (found.given[flipped] < 0.5).all()
    np.testing.assert_array_equal(again.order, found.order)


def test_nobody_judges_itself(points: tuple[np.ndarray, np.ndarray]) -> None:
    """A picture's own label changes neither what its probe nor what its neighbours say of it."""
    features, truth = points
    labels = truth.copy()
    labels[7] = 2
    for judge in (probed, voted):
        before, after = judge(features, truth, 3), judge(features, labels, 3)
        assert before.shape == (180, 3)
        np.testing.assert_allclose(before.sum(axis=1), 1, atol=1e-4)
        np.testing.assert_allclose(before[7], after[7], atol=1e-4)


def test_a_sample_judges_a_large_set(points: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    features, truth = points
    flipped = np.random.default_rng(1).permutation(180)[:12]
    labels = truth.copy()
    labels[flipped] = (truth[flipped] + 1) % 3
    monkeypatch.setattr(suspects, "JUDGES", 40)
    found = suspicion(features, labels, 3)
    assert found is not None
    assert set(found.order[:12]) == set(flipped)
    assert voted(features, labels, 3).shape == probed(features, labels, 3).shape == (180, 3)


def test_as_many_neighbours_judge_a_judge_as_any_other(
    points: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    features, labels = points
    monkeypatch.setattr(suspects, "JUDGES", 40)
    judges = suspects._judges(np.arange(180))
    found = voted(features, labels, 3)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    for row in range(180):
        others = judges[judges != row]
        likeness = unit[others] @ unit[row]
        best = np.argsort(-likeness)[:NEIGHBOURS]
        weights = np.bincount(labels[others[best]], np.exp((likeness[best] - 1) / 0.1), minlength=3)
        np.testing.assert_allclose(found[row], weights / weights.sum(), atol=1e-5)


@pytest.mark.parametrize(
    ("labels", "classes"), [([0] * 20, 1), ([0] * 19 + [1], 2), ([0, 1], 2), (list(range(12)), 12)]
)
def test_too_few_labels_are_not_judged(labels: list[int], classes: int) -> None:
    features = np.random.default_rng(0).normal(size=(len(labels), 8)).astype(np.float32)
    assert suspicion(features, np.array(labels), classes) is None


def test_groups_are_found_and_numbered_by_size(
    points: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    features, truth = points
    keep = np.concatenate(
        [np.flatnonzero(truth == 0), np.flatnonzero(truth == 1)[:40], np.flatnonzero(truth == 2)[:20]]
    )
    found = clusters(features[keep])
    for group, label in enumerate((0, 1, 2)):
        of_label = found[truth[keep] == label]
        assert (of_label == group).mean() > 0.8, label
    monkeypatch.setattr(clustering, "LANDMARKS", 60)
    joined = clusters(features[keep])
    assert (joined[found >= 0] >= 0).mean() > 0.8


@pytest.mark.parametrize("n", [0, 1, 9])
def test_a_handful_has_no_groups(n: int) -> None:
    assert clusters(np.ones((n, 4), np.float32)).tolist() == [-1] * n


def test_identical_pictures_are_one_group() -> None:
    assert set(clusters(np.ones((30, 4), np.float32)).tolist()) <= {0, -1}
