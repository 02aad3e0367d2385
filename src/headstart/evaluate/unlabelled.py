"""What can be said of a backbone where no picture has a label, and which version of it represents a set better.

Comes in: features of augmented views of held-out pictures, and of pictures as they are, of each version. Goes out:
figures for result.json; and of versions, two figures each and the one to keep. Neither of these two agrees with the
probes alone: SimCLR finds one view by the other ever more often even while it spoils a backbone. What it spoils shows
in RankMe (Garrido et al. 2023), which then moves far from the given weights', up or down. docs/adapting.md has the rank
correlations behind this rule.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.augment import SimCLRAugment
from headstart.data.images import Images
from headstart.engine.device import Compute
from headstart.engine.randomness import generator, order
from headstart.evaluate import geometry, spectra
from headstart.evaluate.views import pair_features

GAIN = 0.03
"""Retrieval has to rise by this much before adapted weights are kept."""
MOST_GAIN = 0.10
"""A larger rise counts no more."""
DRIFT = 0.05
"""How far the logarithm of RankMe may move."""
VIEWED, PAIRS = 64, 3
"""Test pictures that are augmented, at most, and how many pairs of views each gets."""
AT_ONCE = 32
"""Pictures that are augmented together; of large ones, more would take gigabytes."""
OF_VIEWS = ("alignment", "retrieval", "lidar")
"""What views tell besides their number."""


def figures(
    backbone: nn.Module,
    features: np.ndarray,
    images: Images,
    test: np.ndarray,
    augment: SimCLRAugment,
    compute: Compute,
) -> dict[str, Any]:
    """All that is known of a backbone without labels, for `geometry` in result.json.

    Args:
        backbone: on the compute's device.
        features: (N, F) float32, h of the pictures `test` as they are.
        test: indices of N pictures that no training saw.
        augment: the family T, with the Z-score of these pictures.

    Returns:
        `geometry.of_features`; and of views of `viewed` of the pictures, `views` of each: `alignment`, `retrieval` and
        `lidar`, None where fewer than two pictures can be viewed or features are not finite.
    """
    found = geometry.of_features(features)
    chosen = torch.as_tensor(test)[order(0, "viewed", 0, len(test))][:VIEWED]
    about = {"viewed": len(chosen), "views": 2 * PAIRS}
    if found["effective_rank"] is None:
        return found | about | dict.fromkeys(OF_VIEWS)
    pairs = [_pairs(backbone, images, chosen, augment, compute, k) for k in range(PAIRS)]
    views = torch.stack([side for pair in pairs for side in pair.chunk(2)], dim=1)
    if not bool(views.isfinite().all()):
        return found | about | dict.fromkeys(OF_VIEWS)
    return {
        **found,
        **about,
        "alignment": float(np.mean([geometry.alignment(pair) for pair in pairs])),
        "retrieval": float(np.mean([retrieval(pair) for pair in pairs])),
        "lidar": spectra.lidar(views),
    }


def _pairs(
    backbone: nn.Module, images: Images, chosen: Tensor, augment: SimCLRAugment, compute: Compute, k: int
) -> Tensor:
    """h (2n, F) on the CPU of the k-th pair of views of the chosen pictures, first views first."""
    augment = augment.to(compute.device)
    parts = [
        pair_features(backbone, images, part, augment, compute, generator(0, "views", k, i)).cpu().chunk(2)
        for i, part in enumerate(chosen.split(AT_ONCE))
    ]
    return torch.cat([side for sides in zip(*parts, strict=True) for side in sides])


@dataclass(frozen=True)
class Figures:
    """What can be known of a version without labels.

    Attributes:
        retrieval: share of held-out views whose nearest among the other views is their own picture's.
        rankme: effective rank (RankMe) of the training pictures' features less their mean.
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


def centred_rank(features: Tensor) -> float:
    """exp of the entropy of the normalised singular values of centred features (N, F)."""
    values = torch.linalg.svdvals((features - features.mean(dim=0)).double())
    share = values / values.sum().clamp_min(1e-300)
    return float(torch.exp(torch.special.entr(share).sum()))
