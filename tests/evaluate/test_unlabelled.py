"""Figures without labels: retrieval and RankMe by their definitions, and the rule that needs both."""

import math

import pytest
import torch

from headstart.evaluate.unlabelled import Figures, centred_rank, chosen, retrieval


def test_retrieval_is_a_plain_loop() -> None:
    h = torch.randn(24, 5, generator=torch.Generator().manual_seed(0))
    right = 0
    for i in range(12):
        for own, others in ((h[i], h[12:]), (h[12 + i], h[:12])):
            right += int(torch.cosine_similarity(own[None], others).argmax()) == i
    assert retrieval(h) == pytest.approx(right / 24)
    assert retrieval(torch.cat([h[:12], 3 * h[:12]])) == 1


def test_centred_rank_counts_directions() -> None:
    directions = torch.linalg.qr(torch.randn(40, 40, dtype=torch.float64)).Q
    rows = torch.cat([directions[:6], -directions[:6]])
    assert centred_rank(rows) == pytest.approx(6)
    assert centred_rank(100 * rows + 7) == pytest.approx(6)
    s = torch.tensor([3.0, 1.0], dtype=torch.float64)
    p = s / s.sum()
    scaled = torch.cat([torch.diag(s), -torch.diag(s)])
    assert centred_rank(scaled) == pytest.approx(math.exp(-float((p * p.log()).sum())))


@pytest.mark.parametrize(
    ("retrieved", "rank", "kept"),
    [
        (0.60, 100, False),
        (0.64, 100, True),
        (0.80, 100, True),
        (0.80, 120, False),
        (0.80, 80, False),
        (0.40, 100, False),
    ],
)
def test_views_have_to_be_found_more_often_and_the_rank_has_to_hold(retrieved: float, rank: int, kept: bool) -> None:
    given = Figures(retrieval=0.60, rankme=100)
    assert chosen([given, Figures(retrieved, rank)]) == int(kept)


def test_of_two_that_may_be_kept_the_one_whose_rank_moved_less() -> None:
    given = Figures(0.60, 100)
    assert chosen([given, Figures(0.72, 103), Figures(0.85, 104.5)]) == 1
    assert chosen([given, Figures(0.63, 100), Figures(0.69, 102)]) == 2
