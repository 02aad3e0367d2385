"""The first line: better, worse or no clear difference, and what was kept."""

from typing import Any

import pytest

from headstart.report.verdict import verdict


def result(
    before: float, after: float, half: float = 0.02, weights: str = "imagenet", **contrastive: Any
) -> dict[str, Any]:
    def probes(accuracy: float) -> dict[str, Any]:
        found = {"accuracy": accuracy, "n_test": 1000, "ci95": [accuracy - half, accuracy + half]}
        return dict.fromkeys(("linear", "knn", "few_shot_5"), found)

    return {
        "backbone": {"name": "resnet18", "weights": weights},
        "untrained": probes(before),
        "probes": probes(after),
        "contrastive": contrastive,
    }


@pytest.mark.parametrize(
    ("after", "half", "words"),
    [
        (0.60, 0.02, "Better than the given weights: linear 50.0 to 60.0 %"),
        (0.40, 0.02, "Worse than the given weights: linear 50.0 to 40.0 %"),
        (0.52, 0.02, "No clear difference from the given weights"),
        (0.60, 0.20, "No clear difference from the given weights"),
    ],
)
def test_a_difference_is_held_against_its_error(after: float, half: float, words: str) -> None:
    assert str(verdict(result(0.5, after, half))).startswith(words)


def test_what_it_was_before_is_named() -> None:
    assert "than the untrained backbone" in str(verdict(result(0.1, 0.5, weights="none")))
    assert "from the given weights" in str(verdict(result(0.5, 0.5, weights="weights.pth")))
    assert verdict({"probes": {}, "untrained": {}, "contrastive": None}) is None


def test_what_was_kept_by_labels_counts_most() -> None:
    versions = [
        {"share": 0.0, "knn": 0.483, "linear": 0.56, "few_shot_5": 0.47, "ahead": 0.0, "error": 0.0},
        {"share": 1.0, "knn": 0.343, "linear": 0.40, "few_shot_5": 0.32, "ahead": -0.15, "error": 0.01},
    ]
    kept = {"share": 0.0, "by": "labels", "pictures": 645, "versions": versions}
    said = str(verdict(result(0.5, 0.5, kept=kept)))
    assert said.startswith("No change: kept the given weights: SimCLR took cross-validated linear from 56.0 to 40.0")
    unlabelled = {**result(0.5, 0.5, kept=kept), "probes": {}, "untrained": {}}
    assert str(verdict(unlabelled)).startswith("No change: kept the given weights")
    versions[1] |= {"ahead": 0.03, "error": 0.01}
    said = str(verdict(result(0.5, 0.51, kept={**kept, "share": 1.0})))
    assert said.startswith("Better than the given weights: by 3.0 points (standard error 1.0) cross-validated on 645")
