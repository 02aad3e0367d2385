"""Intervals and tests that a claim about accuracies rests on. Nothing here knows of runs, heads or files.

Comes in: counts, accuracies, or differences of matched runs with the labels of what they share. Goes out:
intervals as (low, high), p-values, and for matched runs a `Clustered` decision. Everything is two-sided.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Literal

import numpy as np
from scipy import special

Interval = tuple[float, float]


def wilson(correct: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a share: `correct` of `n` independent trials (Wilson 1927).

    Stays inside [0, 1] and is defined at 0 and at n. Raises ValueError unless 0 <= correct <= n and n >= 1.
    """
    if not (n >= 1 and 0 <= correct <= n):
        raise ValueError(f"{correct} of {n} is not a share: n must be at least 1 and correct from 0 to n")
    z = special.ndtri((1 + level) / 2)
    share = correct / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if correct == 0 else max(0.0, centre - half)
    high = 1.0 if correct == n else min(1.0, centre + half)
    return float(low), float(high)


def t_interval(values: Sequence[float] | np.ndarray, level: float = 0.95) -> Interval:
    """Student's t interval of the mean of independent `values`; (nan, nan) for fewer than two."""
    x = np.asarray(values, dtype=float)
    if x.size < 2:
        return float("nan"), float("nan")
    half = special.stdtrit(x.size - 1, (1 + level) / 2) * x.std(ddof=1) / sqrt(x.size)
    return float(x.mean() - half), float(x.mean() + half)


def bootstrap_interval(
    values: Sequence[float] | np.ndarray,
    statistic: Literal["mean", "median"] = "mean",
    level: float = 0.95,
    draws: int = 2000,
    generator: np.random.Generator | None = None,
) -> Interval:
    """Percentile bootstrap interval of the mean or median of `values` as if independent (Efron 1979).

    `generator` defaults to one with a fixed seed, so that the same values give the same interval.
    """
    x = np.asarray(values, dtype=float)
    if x.size < 2:
        return float("nan"), float("nan")
    generator = generator or np.random.default_rng(0)
    samples = x[generator.integers(0, x.size, size=(draws, x.size))]
    replicates = samples.mean(axis=1) if statistic == "mean" else np.median(samples, axis=1)
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def wilcoxon(differences: Sequence[float] | np.ndarray) -> float:
    """p-value of Wilcoxon's signed-rank test that paired `differences` are symmetric about zero.

    Zero differences are dropped (Wilcoxon 1945); 1.0 where nothing else is left.
    """
    x = np.asarray(differences, dtype=float)
    x = x[x != 0]
    if x.size == 0:
        return 1.0
    from scipy import stats  # noqa: PLC0415 - slow to import, and needed here alone

    return float(stats.wilcoxon(x).pvalue)


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """p-values of one family of tests, adjusted by Holm's step-down method (Holm 1979), in the given order.

    Rejecting where the adjusted value is at most alpha keeps the chance of any false rejection at alpha. An
    undefined p-value (nan) stays undefined and does not count as a test.
    """
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(p.shape, np.nan)
    order = np.argsort(p, kind="stable")[: np.count_nonzero(~np.isnan(p))]  # nan sorts last
    steps = np.maximum.accumulate(p[order] * np.arange(order.size, 0, -1))
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


@dataclass(frozen=True, kw_only=True)
class Clustered:
    """What the mean of clustered differences is, and whether it differs from zero."""

    mean: float
    """Mean over the cells (the smallest groups of differences that share everything)."""
    interval: Interval
    """95 % (or `level`) t interval of that mean; (nan, nan) with fewer than two clusters."""
    p: float
    """p-value of mean = 0; nan with fewer than two clusters."""
    clusters: tuple[int, ...]
    """How many groups each kind of sharing made; a kind with one group cannot be told from the mean."""

    @property
    def independent(self) -> int:
        """The number of independent clusters that the interval rests on: degrees of freedom plus one."""
        return min((c for c in self.clusters if c > 1), default=1)


def clustered(
    differences: Sequence[float] | np.ndarray,
    *sharing: Sequence[object] | np.ndarray,
    level: float = 0.95,
    least_error: float = 0.0,
) -> Clustered:
    """Test the mean of `differences` (n,) whose noise is shared within groups.

    Each of `sharing`, one or two, labels the n differences by something that several of them have in common
    (a seed, an autoencoder). Differences that agree in every label form a cell, which counts once, by its
    mean. One kind of sharing, or one nested in the other (every autoencoder trained for one seed), gives
    the t interval over the means of the outer groups. With two crossed kinds, cells of one seed resemble
    each other and so do cells of one autoencoder; a t interval over cells ignores that (more than
    20 % false alarms at the 5 % level in simulation). There the variance is the two-way one of Cameron, Gelbach and
    Miller (2011), never below either one-way variance, on the degrees of freedom of the kind with fewer
    groups.

    `least_error` is a standard error that the data cannot go below: accuracies come in steps, and two clusters that
    agree to the last step would otherwise look certain.
    """
    x = np.asarray(differences, dtype=float)
    labels = [np.unique(np.asarray(kind, dtype=str), return_inverse=True)[1] for kind in sharing]
    counts = tuple(int(kind.max()) + 1 for kind in labels)
    _, first, cell = np.unique(_joint(*labels), return_index=True, return_inverse=True)
    means = _group_means(cell, x)

    kinds = [kind[first] for kind, count in zip(labels, counts, strict=True) if count > 1]
    kinds = [kind for kind in kinds if not any(_nested(kind, other) for other in kinds)]
    if not kinds:
        nothing = (float("nan"), float("nan"))
        return Clustered(mean=float(means.mean()), interval=nothing, p=float("nan"), clusters=counts)
    if len(kinds) == 1:
        means = _group_means(kinds[0], means)
        kinds = [np.arange(means.size)]
    mean = float(means.mean())
    one_way = [_variance(means - mean, kind) for kind in kinds]
    two_way = sum(one_way) - _variance(means - mean, np.arange(means.size)) if len(kinds) == 2 else 0.0
    error = max(sqrt(max(*one_way, two_way)), least_error)
    df = min(int(kind.max()) for kind in kinds)
    half = float(special.stdtrit(df, (1 + level) / 2)) * error
    t = abs(mean) / error if error > 0 else (0.0 if mean == 0 else float("inf"))
    p = 2 * float(special.stdtr(df, -t))
    return Clustered(mean=mean, interval=(mean - half, mean + half), p=p, clusters=counts)


def _group_means(group: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.bincount(group, weights=values) / np.bincount(group)


def _joint(first: np.ndarray, *second: np.ndarray) -> np.ndarray:
    """A number for each combination of labels that are numbered from 0."""
    return first * (second[0].max() + 1) + second[0] if second else first


def _nested(inner: np.ndarray, outer: np.ndarray) -> bool:
    """Whether every group of `inner` lies inside one group of `outer`, and they are not the same grouping."""
    pairs = len(np.unique(_joint(inner, outer)))
    return pairs == inner.max() + 1 and pairs > outer.max() + 1


def _variance(centred: np.ndarray, group: np.ndarray) -> float:
    """Variance of the mean from group sums of centred cells; one cell a group: that of a plain t interval."""
    sums, groups = np.bincount(group, weights=centred), int(group.max()) + 1
    return float(groups / (groups - 1) * (sums**2).sum() / centred.size**2)
