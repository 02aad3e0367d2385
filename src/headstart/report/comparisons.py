"""What matched rows decide: the test over what they share, corrected within its family.

Comes in: `Pairing`s and a number for each row. Goes out: `Decision`s and `Comparison`s, in the units of a `Measure`.
Rows that share a seed or an autoencoder are not independent, so the decision rests on `statistics.clustered`; the
bootstrap interval and Wilcoxon's test beside it treat pairs as independent. Holm's correction runs within a family and
scope: each data set, and the pooled sets.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import isnan
from typing import Literal

import numpy as np
import pandas as pd

from headstart.report.matching import Pairing
from headstart.statistics import Clustered, Interval, bootstrap_interval, clustered, holm, wilcoxon

ALPHA = 0.05
ENOUGH_CLUSTERS = 5

Verdict = Literal["beats", "ahead", "none", "open"]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What is compared, and how its differences are written.

    Attributes:
        name: as the table calls it.
        scale: what a difference is multiplied by before it is shown; 100 makes points of shares.
        unit: what stands behind a size: `points`, or `in val_loss`.
        about: what stands behind `difference`: empty for accuracies, else ` in val_loss`.
        higher: whether more is better. Where it is not, differences change their sign, so that positive is better.
        decimals: of a difference.
    """

    name: str = "accuracy"
    scale: float = 100.0
    unit: str = "points"
    about: str = ""
    higher: bool = True
    decimals: int = 1

    def gains(self, pairing: Pairing, values: np.ndarray) -> np.ndarray:
        """By how much `a` is better than `b`, pair by pair, in shown units."""
        return (self.scale if self.higher else -self.scale) * pairing.differences(values)

    def text(self, value: float) -> str:
        """A difference with a real minus sign, and none before zero."""
        return f"{round(value, self.decimals) + 0.0:.{self.decimals}f}".replace("-", "−")


POINTS = Measure()
"""Accuracy, in points."""


def points(value: float) -> str:
    """A difference of accuracies with one decimal and a real minus sign."""
    return POINTS.text(value)


def signed(value: float) -> str:
    """The same with its sign, which nothing that rounds to zero has."""
    return f"{value:+.1f}".replace("-", "−").replace("+0.0", "0.0").replace("−0.0", "0.0")


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What the clusters say: the test, its p-value within the family, and the family's size."""

    test: Clustered
    adjusted: float
    family_size: int

    @property
    def verdict(self) -> Verdict:
        """`beats` (after correction), `ahead` (only before it), `none`, or `open` (nothing to test on)."""
        if isnan(self.test.p):
            return "open"
        if self.adjusted <= ALPHA:
            return "beats"
        return "ahead" if self.test.p <= ALPHA else "none"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A pairing with its decision and what is shown beside it, in the measure's units; positive: `a` is better.

    Attributes:
        gains: by how much `a` is better, pair by pair.
        wins, losses: in how many pairs `a` is better or worse.
        clusters: what the decision rests on, in words.
        sentence: what it shows.
    """

    pairing: Pairing
    measure: Measure
    decision: Decision
    gains: np.ndarray = field(repr=False)
    wins: int
    losses: int
    clusters: str
    sentence: str

    @property
    def pairs(self) -> int:
        """How many."""
        return self.gains.size

    @property
    def mean(self) -> float:
        """Over pairs."""
        return float(self.gains.mean())

    @property
    def median(self) -> float:
        """Over pairs."""
        return float(np.median(self.gains))

    @cached_property
    def mean_interval(self) -> Interval:
        """Bootstrap interval that treats pairs as independent; this and the next two are worked out when asked for."""
        return bootstrap_interval(self.gains)

    @cached_property
    def median_interval(self) -> Interval:
        """Likewise."""
        return bootstrap_interval(self.gains, "median")

    @cached_property
    def wilcoxon(self) -> float:
        """p-value of the signed-rank test, which treats pairs so too."""
        return wilcoxon(self.gains.round(self.measure.decimals + 3))  # equal to the picture is a tie

    @property
    def verdict(self) -> Verdict:
        """See `Decision.verdict`."""
        return self.decision.verdict


def decide(pairings: Sequence[Pairing], values: np.ndarray, n_test: np.ndarray | None = None) -> list[Decision]:
    """Test every pairing on `values` (one for each row of the table), corrected within its family.

    `n_test` (pictures each accuracy was judged on; nan where unknown) says how coarse the accuracies are.
    """
    return corrected(pairings, [test(p, values, n_test, POINTS) for p in pairings])


def test(pairing: Pairing, values: np.ndarray, n_test: np.ndarray | None, measure: Measure) -> Clustered:
    """The clustered test of one pairing."""
    least = _least_error(pairing, n_test, measure)
    return clustered(measure.gains(pairing, values), pairing.seeds, pairing.draws, least_error=least)


def corrected(pairings: Sequence[Pairing], tests: Sequence[Clustered]) -> list[Decision]:
    """Holm's correction among the tests of one family and scope."""
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


def _least_error(pairing: Pairing, n_test: np.ndarray | None, measure: Measure) -> float:
    """Standard error, in shown units, of a mean of differences of accuracies that are rounded to whole pictures."""
    if n_test is None:
        return 0.0
    steps = measure.scale / np.concatenate([n_test[pairing.first], n_test[pairing.second]])
    return float(np.sqrt(np.nansum(steps**2) / 12) / len(pairing.first))


def widest(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Each comparison over all sets where there is one, else on the sets that allow it."""
    pooled = {what(c) for c in comparisons if c.pairing.dataset is None}
    return [c for c in comparisons if c.pairing.dataset is None or what(c) not in pooled]


def what(comparison: Comparison) -> tuple[str, str, str, str, str]:
    """What is compared, on whichever set."""
    p = comparison.pairing
    return comparison.measure.name, p.factor, p.a, p.b, p.within


def table_of(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """A row a comparison: what is compared, the difference in the measure's units, how it was decided."""
    return pd.DataFrame([_row(c) for c in comparisons], columns=list(_ROW))


_ROW = (
    *(
        "metric",
        "better if positive",
        "than",
        "within",
        "data set",
        "mean",
        "low",
        "high",
        "p",
        "p_holm",
        "family size",
    ),
    *("verdict", "pairs", "wins", "losses", "median", "wilcoxon_p", "clusters"),
)


def _row(c: Comparison) -> dict[str, object]:
    p, decided = c.pairing, c.decision
    low, high = decided.test.interval
    return {
        "metric": c.measure.name,
        "better if positive": p.said(p.a),
        "than": p.said(p.b),
        "within": p.said(p.within) if p.within else "",
        "data set": p.dataset or "all",
        "mean": decided.test.mean,
        "low": low,
        "high": high,
        "p": decided.test.p,
        "p_holm": decided.adjusted,
        "family size": decided.family_size,
        "verdict": c.verdict,
        "pairs": c.pairs,
        "wins": c.wins,
        "losses": c.losses,
        "median": c.median,
        "wilcoxon_p": c.wilcoxon,
        "clusters": c.clusters,
    }
