"""The verdict of a run without labels: collapsed or not, and every figure beside the one before."""

from typing import Any

import pytest

from headstart.report.unlabelled import SHAPE, unlabelled_verdict

HEALTHY: dict[str, Any] = dict(
    pictures=200,
    viewed=128,
    views=8,
    effective_rank=75.0,
    centred_rank=90.0,
    alpha_req=2.0,
    lidar=95.0,
    retrieval=0.31,
    alignment=0.9,
    uniformity=-1.7,
    spread=1.1,
    mean_norm=30.0,
    dead=0.0,
)
UNTRAINED = HEALTHY | {"effective_rank": 44.0, "centred_rank": 125.0, "spread": 0.09, "retrieval": 0.04}


def result(after: dict[str, Any], before: dict[str, Any] = UNTRAINED, **more: Any) -> dict[str, Any]:
    return {
        "backbone": {"name": "resnet18", "weights": "none"},
        "probes": {},
        "untrained": {},
        "contrastive": {"warnings": []},
        "geometry": {**after, "before": before},
        **more,
    }


def test_every_figure_stands_beside_the_one_before() -> None:
    said = unlabelled_verdict(result(HEALTHY))
    assert said is not None
    assert said.startswith("Not collapsed: h varies in 90.0 (125.0) directions. No labels")
    for words in ("other in 31.0% (4.0%) of 128 test pictures", "RankMe 75.0 (44.0)", "LiDAR 95.0 (95.0)"):
        assert words in said
    assert "alpha-ReQ 2.00 (2.00)" in said
    assert "the untrained backbone" in said


@pytest.mark.parametrize(
    ("after", "words"),
    [
        ({"centred_rank": 2.5}, "h varies in 2.5 directions where it varied in 125.0"),
        ({"spread": 0.004}, "all pictures lie in one direction of h (spread 0.004 of 2)"),
        (dict.fromkeys(SHAPE), "its representations are not finite numbers"),
    ],
)
def test_collapse_is_called_by_its_name(after: dict[str, Any], words: str) -> None:
    said = unlabelled_verdict(result({**HEALTHY, **after}))
    assert str(said).startswith(f"Collapsed: {words}")


def test_narrow_before_and_wider_after_is_no_collapse() -> None:
    before = UNTRAINED | {"spread": 0.001}
    assert str(unlabelled_verdict(result(HEALTHY | {"spread": 0.005}, before))).startswith("Not collapsed")


def test_what_was_seen_in_training_is_said() -> None:
    said = str(unlabelled_verdict(result(HEALTHY, contrastive={"warnings": ["collapsing", "stopped learning"]})))
    assert "; SimCLR was collapsing by its own figures. No labels" in said


def test_where_probes_judge_or_nothing_is_known_nothing_is_said() -> None:
    assert unlabelled_verdict(result(HEALTHY, probes={"knn": {"accuracy": 0.5}})) is None
    assert unlabelled_verdict(result(HEALTHY, {})) is None
    assert unlabelled_verdict({"probes": {}, "geometry": {}}) is None
