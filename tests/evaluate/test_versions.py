"""Versions of a backbone: judges that never see what they are asked about, and a verdict that knows noise from gain."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from headstart.evaluate import versions


def problem(noise: float, n: int = 120, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features whose first entries tell the class, under noise."""
    draws = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    features = np.eye(classes, 12)[labels] + noise * draws.normal(size=(n, 12))
    return features.astype(np.float32), labels


def test_knn_is_a_plain_loop_without_the_picture_itself() -> None:
    features, labels = problem(0.5, n=60)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    for i, right in enumerate(versions.judge(features, labels, 0).right["knn"]):
        others = np.delete(np.arange(60), i)
        nearest = others[np.argsort(-(unit[others] @ unit[i]), kind="stable")[:20]]
        votes = np.zeros(4)
        np.add.at(votes, labels[nearest], np.exp(unit[nearest] @ unit[i] / 0.1))
        assert right == (votes.argmax() == labels[i])


def test_linear_is_close_to_scikit_learns_cross_validation() -> None:
    features, labels = problem(0.6, n=400)
    ours = versions.judge(features, labels, 0).accuracy["linear"]
    z = (features - features.mean(axis=0)) / features.std(axis=0, ddof=1)
    fold = np.arange(400) // 4 % 5
    theirs = max(
        np.mean(
            [
                LogisticRegression(C=C).fit(z[fold != k], labels[fold != k]).score(z[fold == k], labels[fold == k])
                for k in range(5)
            ]
        )
        for C in versions.C_GRID
    )
    assert ours == pytest.approx(theirs, abs=0.04)


def test_labels_without_meaning_are_guessed_no_better_than_chance() -> None:
    """A judge that saw what it is asked about would be right far more often."""
    features, labels = problem(0.0, n=300)
    features = np.random.default_rng(1).normal(size=features.shape).astype(np.float32)
    for name, accuracy in versions.judge(features, labels, 0).accuracy.items():
        assert accuracy < 0.35, name


def test_a_clear_gain_is_kept_and_noise_is_not() -> None:
    labels = problem(1.0)[1]
    given, better, worse = (versions.judge(problem(noise, seed=0)[0], labels, 0) for noise in (0.6, 0.25, 1.5))
    assert versions.chosen([given, worse, better]) == 2
    assert versions.chosen([given, worse]) == 0
    for seed in range(1, 6):  # as good as the given one: other noise of the same size
        same = versions.judge(problem(0.6, seed=seed)[0], labels, 0)
        lead, error = same.ahead_of(given)
        assert abs(lead) < 4 * error


def test_who_is_asked() -> None:
    assert list(versions.judged(np.array([-1, 0, 0, 1, 1, 2, -1]), 0)) == [1, 2, 3, 4]  # 2 has one picture
    assert list(versions.judged(np.array([0, 0, 0, -1]), 0)) == []  # one class
    assert list(versions.judged(np.array([-1, -1]), 0)) == []
    many = versions.judged(np.arange(10_000) % 7, 0)
    assert len(many) == versions.LARGEST
    assert list(many) == list(versions.judged(np.arange(10_000) % 7, 0))
