"""Which version of a backbone represents a set better where no picture has a label.

Comes in: features of two augmented views of held-out pictures, and of training pictures as they are, of each version.
Goes out: two figures a version and the one to keep. Neither figure alone agrees with the probes: SimCLR finds one view
by the other ever more often even while it spoils a backbone. What it spoils shows in RankMe (Garrido et al. 2023),
which then moves far from the given weights', up or down. docs/adapting.md has the rank correlations behind this rule.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

GAIN = 0.03
"""Retrieval has to rise by this much before adapted weights are kept."""
MOST_GAIN = 0.10
"""A larger rise counts no more."""
DRIFT = 0.05
"""How far the logarithm of RankMe may move."""


@dataclass(frozen=True)
class Figures:
    """What can be known of a version without labels.

    Attributes:
        retrieval: share of held-out views whose nearest among the other views is their own picture's.
        rankme: effective rank of the training pictures' features.
    """

    retrieval: float
    rankme: float

    def score(self, given: "Figures") -> float:
        """How much better than the given version it seems: positive where retrieval rose more than RankMe moved."""
        return min(self.retrieval - given.retrieval, MOST_GAIN) - self.drift(given)

    def drift(self, given: "Figures") -> float:
        """How far the logarithm of RankMe has moved."""
        return abs(math.log(self.rankme / given.rankme))

    def acceptable(self, given: "Figures") -> bool:
        """Whether it may be kept instead of the given version."""
        return self.retrieval - given.retrieval >= GAIN and self.drift(given) <= DRIFT


def chosen(figures: Sequence[Figures]) -> int:
    """The version to keep; the first is the given one."""
    given = figures[0]
    better = [i for i in range(1, len(figures)) if figures[i].acceptable(given)]
    return max(better, key=lambda i: figures[i].score(given), default=0)


def retrieval(h: Tensor) -> float:
    """h (2N, F), rows i and i + N the views of picture i: how often the nearest of the other views is the right one, by
    cosine, from either side."""
    one, two = F.normalize(h, dim=1).chunk(2)
    similarity = one @ two.T
    own = torch.arange(len(one), device=h.device)
    found = [(side.argmax(dim=1) == own).double().mean() for side in (similarity, similarity.T)]
    return float(torch.stack(found).mean())


def rankme(features: Tensor) -> float:
    """exp of the entropy of the normalised singular values of centred features (N, F)."""
    values = torch.linalg.svdvals((features - features.mean(dim=0)).double())
    share = values / values.sum().clamp_min(1e-300)
    return float(torch.exp(torch.special.entr(share).sum()))
