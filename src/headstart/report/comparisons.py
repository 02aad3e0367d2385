"""What matched runs decide: the test over what they share, corrected within its family.

Comes in: `Pairing`s and accuracies. Goes out: `Decision`s and `Comparison`s; differences are in points of accuracy.
Runs that share a seed or an autoencoder are not independent, so the decision rests on `statistics.clustered`; the
bootstrap interval and Wilcoxon's test beside it treat pairs as independent. Holm's correction runs within a family:
the comparisons that study.yaml names (all heads where it names none), the other heads, and each remaining factor
within a head; for each data set, and for the pooled sets.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from headstart.report.pairing import Pairing
from headstart.statistics import Clustered, Interval, clustered, holm

ALPHA = 0.05
ENOUGH_CLUSTERS = 5

Verdict = Literal["beats", "ahead", "none", "open"]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What the clusters say: the test, its p-value within the family, and the family's size."""

    test: Clustered
    adjusted: float
    family_size: int

    @property
    def verdict(self) -> Verdict:
        """`beats` (after correction), `ahead` (only before it), `none`, or `open` (nothing to test on)."""
        if np.isnan(self.test.p):
            return "open"
        if self.adjusted <= ALPHA:
            return "beats"
        return "ahead" if self.test.p <= ALPHA else "none"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A pairing with its decision and everything that is shown beside it, in points."""

    pairing: Pairing
    decision: Decision
    pairs: int
    wins: int
    losses: int
    mean: float
    mean_interval: Interval
    median: float
    median_interval: Interval
    wilcoxon: float
    clusters: str
    sentence: str

    @property
    def verdict(self) -> Verdict:
        """See `Decision.verdict`."""
        return self.decision.verdict


def decide(pairings: Sequence[Pairing], accuracy: np.ndarray, n_test: np.ndarray | None = None) -> list[Decision]:
    """Test every pairing on `accuracy` (a fraction for each row of `Records.runs`), corrected within its family.

    `n_test` (pictures each accuracy was judged on; nan where unknown) says how coarse the accuracies are.
    """
    tests = [
        clustered(p.differences(accuracy), p.seeds, p.autoencoders, least_error=_least_error(p, n_test))
        for p in pairings
    ]
    families: dict[tuple[str, str | None], list[int]] = {}
    for i, pairing in enumerate(pairings):
        families.setdefault((pairing.family, pairing.dataset), []).append(i)
    adjusted, sizes = np.full(len(tests), np.nan), np.zeros(len(tests), dtype=int)
    for members in families.values():
        p = np.array([tests[i].p for i in members])
        adjusted[members] = holm(p)
        sizes[members] = np.count_nonzero(~np.isnan(p))
    return [
        Decision(test=t, adjusted=float(a), family_size=int(n)) for t, a, n in zip(tests, adjusted, sizes, strict=True)
    ]


def _least_error(pairing: Pairing, n_test: np.ndarray | None) -> float:
    """Standard error, in points, of a mean of differences of accuracies that are rounded to whole pictures."""
    if n_test is None:
        return 0.0
    steps = 100 / np.concatenate([n_test[pairing.first], n_test[pairing.second]])
    return float(np.sqrt(np.nansum(steps**2) / 12) / len(pairing.first))


def widest(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Each comparison over all sets where there is one, else on the sets that allow it."""
    pooled = {what(c) for c in comparisons if c.pairing.dataset is None}
    return [c for c in comparisons if c.pairing.dataset is None or what(c) not in pooled]


def what(comparison: Comparison) -> tuple[str, str, str, str]:
    """What is compared, on whichever set."""
    p = comparison.pairing
    return p.factor, p.a, p.b, p.within
