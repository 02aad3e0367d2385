"""Intervals and tests that a claim about measured numbers rests on. Nothing here knows of runs, heads or files.

Comes in: counts, accuracies, or differences of matched runs with the labels of what they share. Goes out:
intervals as (low, high), p-values, and for matched runs a `Clustered` decision. Everything is two-sided.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import inf, isfinite, isnan, sqrt
from numbers import Real
from typing import Any, Literal

import numpy as np
from scipy import special

from headstart.records.errors import InputError
from headstart.records.text import brief

Interval = tuple[float, float]


def _numbers(values: Any, name: str, axes: int = 1) -> np.ndarray:
    """Numbers (n,), float64, nan for what is missing. Raises InputError for anything else."""
    try:
        x = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        x = None
    if x is None or x.ndim != axes:
        what = "a list of numbers" if axes == 1 else "a table of numbers, as many in every row"
        raise InputError(f"{name}: {brief(values)} is not {what}")
    return x


def _number(name: str, value: Any, least: float = -inf, most: float = inf) -> None:
    """Raise InputError for what is no finite number from `least` to `most`."""
    right = isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)
    if not right or not least <= float(value) <= most:
        bounds = f" from {least:g} to {most:g}" if isfinite(most) else f" of at least {least:g}" if least > -inf else ""
        raise InputError(f"{name} is {brief(value)}; it must be a finite number{bounds}")


def _level(level: Any, name: str = "level") -> None:
    """Raise InputError for what is no share between 0 and 1."""
    if not isinstance(level, Real) or not 0 < float(level) < 1:
        raise InputError(f"{name} is {brief(level)}; it must be between 0 and 1, such as 0.95")


def wilson(correct: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a share: `correct` of `n` independent trials (Wilson 1927).

    Stays inside [0, 1] and is defined at 0 and at n. Raises InputError unless 0 <= correct <= n and n >= 1.

    >>> [round(end, 3) for end in wilson(8, 10)]
    [0.49, 0.943]
    """
    _number("n", n)
    _number("correct", correct)
    _level(level)
    if not (n >= 1 and 0 <= correct <= n):
        raise InputError(f"{correct} of {n} is not a share: n must be at least 1 and correct from 0 to n")
    z = special.ndtri((1 + level) / 2)
    share = correct / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if correct == 0 else max(0.0, centre - half)
    high = 1.0 if correct == n else min(1.0, centre + half)
    return float(low), float(high)


def t_interval(values: Sequence[float] | np.ndarray, level: float = 0.95) -> Interval:
    """Student's t interval of the mean of independent `values`: mean -+ t s / sqrt(n); (nan, nan) for fewer than two.

    >>> [round(end, 2) for end in t_interval([1.0, 2.0, 3.0])]
    [-0.48, 4.48]
    """
    _level(level)
    x = _numbers(values, "values")
    if x.size < 2:
        return float("nan"), float("nan")
    half = special.stdtrit(x.size - 1, (1 + level) / 2) * x.std(ddof=1) / sqrt(x.size)
    return float(x.mean() - half), float(x.mean() + half)


MANY = 500
"""Values above which the bootstrap is replaced by what it tends to."""


def _large_sample_interval(x: np.ndarray, statistic: str, level: float) -> Interval:
    z = float(special.ndtri((1 + level) / 2))
    if statistic == "mean":
        half = z * float(x.std(ddof=1)) / sqrt(x.size)
        return float(x.mean()) - half, float(x.mean()) + half
    left_out = int(0.5 * x.size - 0.5 * z * sqrt(x.size))  # at either end
    ordered = np.sort(x)
    return float(ordered[left_out]), float(ordered[-1 - left_out])


def bootstrap_interval(
    values: Sequence[float] | np.ndarray,
    statistic: Literal["mean", "median"] = "mean",
    level: float = 0.95,
    draws: int = 2000,
    generator: np.random.Generator | None = None,
) -> Interval:
    """Percentile bootstrap interval of the mean or median of `values` as if independent (Efron 1979).

    Of more than `MANY` values it is what the bootstrap tends to: the normal interval of the mean, the order statistics'
    of the median. `generator` defaults to one with a fixed seed, so that the same values give the same interval.

    >>> low, high = bootstrap_interval([1.0, 2.0, 3.0, 4.0])
    >>> 1.0 <= low < 2.5 < high <= 4.0
    True
    """
    _level(level)
    _number("draws", draws, 1)
    if statistic not in ("mean", "median") or not isinstance(generator, np.random.Generator | None):
        raise InputError(
            f"bootstrap_interval: statistic is {statistic!r}, generator {brief(generator)}; they must be mean or "
            "median, and a numpy.random.Generator or None"
        )
    x = _numbers(values, "values")
    if x.size < 2:
        return float("nan"), float("nan")
    if x.size > MANY:
        return _large_sample_interval(x, statistic, level)
    generator = generator or np.random.default_rng(0)
    samples = x[generator.integers(0, x.size, size=(draws, x.size))]
    replicates = samples.mean(axis=1) if statistic == "mean" else np.median(samples, axis=1)
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def wilcoxon(differences: Sequence[float] | np.ndarray) -> float:
    """p-value of Wilcoxon's signed-rank test that paired `differences` are symmetric about zero.

    Zero differences are dropped (Wilcoxon 1945); 1.0 where nothing else is left, nan where one is missing (nan).

    >>> wilcoxon([1.0, 2.0, 3.0, 4.0, 5.0])
    0.0625
    """
    x = _numbers(differences, "differences")
    x = x[x != 0]
    if np.isnan(x).any():
        return float("nan")
    if x.size == 0:
        return 1.0
    if x.size <= MOST_EXACT and np.unique(size := np.abs(x)).size == x.size:
        ranks = np.empty(x.size)
        ranks[np.argsort(size)] = np.arange(1, x.size + 1)
        tail = _signed_rank_tails(x.size)
        above = int(ranks[x > 0].sum())
        return float(min(1.0, 2 * tail[max(above, x.size * (x.size + 1) // 2 - above)]))
    from scipy import stats  # noqa: PLC0415 - slow to import, and needed for ties and many differences alone

    return float(stats.wilcoxon(x).pvalue)


MOST_EXACT = 50
"""Differences without a tie up to which the null distribution of the signed-rank sum is counted out."""


@cache
def _signed_rank_tails(n: int) -> np.ndarray:
    """P(W >= w) for w = 0 ... n(n + 1)/2: each rank is in the sum or not, with even chance."""
    chance = np.ones(1)
    for rank in range(1, n + 1):
        chance = (np.pad(chance, (0, rank)) + np.pad(chance, (rank, 0))) / 2
    return chance[::-1].cumsum()[::-1]


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """p-values of one family of tests, adjusted by Holm's step-down method (Holm 1979), in the given order.

    Rejecting where the adjusted value is at most alpha keeps the chance of any false rejection at alpha. An
    undefined p-value (nan) stays undefined and does not count as a test.

    >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    p = _numbers(p_values, "p_values")
    if ((p < 0) | (p > 1 + 1e-9)).any():
        raise InputError(f"p_values: {brief(p_values)} are not all from 0 to 1")
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
    """95 % (or `level`) t interval of that mean; (nan, nan) with fewer than two clusters, or without any variation."""
    p: float
    """p-value of mean = 0; nan likewise. Where every difference is 0, it is 1 and the interval (0, 0)."""
    clusters: tuple[int, ...]
    """How many groups each kind of sharing made; a kind with one group cannot be told from the mean."""

    @property
    def independent(self) -> int:
        """The number of independent clusters that the interval rests on: degrees of freedom plus one."""
        return min((c for c in self.clusters if c > 1), default=1)


SAME = 1e-9
"""Differences that vary by no more than this part of their mean are one number, rounding apart."""


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
    agree to the last step would otherwise look certain. Without it, differences that do not vary have no interval
    and no p-value: there is nothing to judge their mean by. Where a difference is missing (nan), so is the mean.

    >>> found = clustered([1.0, 1.2, 2.0, 2.2], ["a", "a", "b", "b"])
    >>> found.independent, round(found.mean, 2), round(found.p, 3)
    (2, 1.6, 0.193)
    """
    _level(level)
    _number("least_error", least_error, 0)
    x = _numbers(differences, "differences")
    kinds_given = [np.asarray(kind, dtype=str) for kind in sharing]
    if not x.size or not 1 <= len(sharing) <= 2 or any(kind.shape != x.shape for kind in kinds_given):
        raise InputError(
            f"clustered: {x.size} differences, with labels of shape {[kind.shape for kind in kinds_given]}; give at "
            "least one difference, and one or two kinds of labels, a label for each"
        )
    labels = [np.unique(kind, return_inverse=True)[1] for kind in kinds_given]
    counts = tuple(int(kind.max()) + 1 for kind in labels)
    _, first, cell = np.unique(_joint(*labels), return_index=True, return_inverse=True)
    means = _group_means(cell, x)

    kinds = [kind[first] for kind, count in zip(labels, counts, strict=True) if count > 1]
    kinds = [kind for kind in kinds if not any(_nested(kind, other) for other in kinds)]
    if not kinds or np.isnan(means).any():
        nothing = (float("nan"), float("nan"))
        return Clustered(mean=float(means.mean()), interval=nothing, p=float("nan"), clusters=counts)
    if len(kinds) == 1:
        means = _group_means(kinds[0], means)
        kinds = [np.arange(means.size)]
    mean = float(means.mean())
    one_way = [_variance(means - mean, kind) for kind in kinds]
    two_way = sum(one_way) - _variance(means - mean, np.arange(means.size)) if len(kinds) == 2 else 0.0
    error = max(sqrt(max(*one_way, two_way)), least_error)
    if error <= SAME * abs(mean):
        least, p = (float("nan"), float("nan")) if mean else (0.0, 1.0)
        return Clustered(mean=mean, interval=(least, least), p=p, clusters=counts)
    df = min(int(kind.max()) for kind in kinds)
    half = float(special.stdtrit(df, (1 + level) / 2)) * error
    p = 2 * float(special.stdtr(df, -abs(mean) / error))
    return Clustered(mean=mean, interval=(mean - half, mean + half), p=p, clusters=counts)


def friedman(values: Sequence[Sequence[float]] | np.ndarray) -> float:
    """p-value that k treatments have equal ranks over n blocks; `values` (n, k), more or less being better alike.

    Friedman's (1937) chi-squared of the mean ranks, corrected for ties; 1.0 where every block is one tie. Raises
    InputError for fewer than 3 treatments or 2 blocks.

    >>> round(friedman([[1, 2, 3], [1, 2, 3], [2, 1, 3], [1, 2, 3]]), 4)
    0.0388
    """
    x = _blocks(values)
    return float(special.chdtrc(x.shape[1] - 1, _friedman_statistic(x)))


def iman_davenport(values: Sequence[Sequence[float]] | np.ndarray) -> float:
    """p-value of the same hypothesis by the less conservative F of Iman and Davenport (1980), as in Demsar (2006).

    F = (n - 1) chi2 / (n (k - 1) - chi2) on k - 1 and (k - 1)(n - 1) degrees of freedom, chi2 being Friedman's; never
    below (1 / k!)^(n - 1), the chance that n rankings agree, which F undercuts where they do. `values` and errors as
    for `friedman`.

    >>> round(iman_davenport([[1, 2, 3], [1, 2, 3], [2, 1, 3], [1, 2, 3]]), 4)
    0.0066
    """
    x = _blocks(values)
    n, k = x.shape
    chi2 = _friedman_statistic(x)
    rest = n * (k - 1) - chi2
    p = 0.0 if rest <= 1e-12 else float(special.fdtrc(k - 1, (k - 1) * (n - 1), (n - 1) * chi2 / rest))
    return max(p, float(np.exp(-(n - 1) * special.gammaln(k + 1))))


def _blocks(values: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
    x = _numbers(values, "values", axes=2)
    if x.shape[1] < 3 or x.shape[0] < 2:
        raise InputError(f"values of shape {x.shape} are not at least 2 blocks of at least 3 treatments")
    if np.isnan(x).any():
        raise InputError("values are missing (nan); leave their blocks out")
    return x


def _friedman_statistic(x: np.ndarray) -> float:
    """Chi-squared of the mean ranks of blocks (n, k), corrected for ties."""
    n, k = x.shape
    less = (x[:, :, None] > x[:, None, :]).sum(axis=2)
    equal = (x[:, :, None] == x[:, None, :]).sum(axis=2)  # of a rank's tie, with itself
    ranks = less + (equal + 1) / 2
    spread = n * k * (k * k - 1) - (equal**2 - 1).sum()
    return float(12 * (k - 1) * ((ranks.sum(axis=0) - n * (k + 1) / 2) ** 2).sum() / spread) if spread > 0 else 0.0


def critical_difference(treatments: int, blocks: int, level: float = 0.95) -> float:
    """How far two mean ranks must lie apart to differ, after Friedman's test (Nemenyi 1963, as in Demsar 2006).

    q sqrt(k (k + 1) / (6 n)), with q the studentized range's quantile over sqrt(2).

    >>> round(critical_difference(4, 14), 2)
    1.25
    """
    _number("treatments", treatments, 2)
    _number("blocks", blocks, 1)
    _level(level)
    from scipy import stats  # noqa: PLC0415 - slow to import

    q = float(stats.studentized_range.ppf(level, treatments, np.inf)) / sqrt(2)
    return q * sqrt(treatments * (treatments + 1) / (6 * blocks))


def rank_p_values(differences: Sequence[float] | np.ndarray, treatments: int, blocks: int) -> np.ndarray:
    """p-values that mean ranks which lie `differences` apart are equal, before any correction (Demsar 2006, 3.2.2).

    z = difference / sqrt(k (k + 1) / (6 n)) is about normal; of k - 1 comparisons with a control, correct them by
    `holm`.

    >>> rank_p_values([1.0, -2.0], 4, 14).round(3).tolist()
    [0.04, 0.0]
    """
    _number("treatments", treatments, 2)
    _number("blocks", blocks, 1)
    z = _numbers(differences, "differences") / sqrt(treatments * (treatments + 1) / (6 * blocks))
    return np.asarray(2 * special.ndtr(-np.abs(z)))


def clusters_needed(
    mean: float, spread: float, power: float = 0.8, level: float = 0.95, most: int = 10_000
) -> int | None:
    """The fewest independent clusters with which a t test finds a true `mean` with probability `power`.

    `spread` is the standard deviation between clusters. From the noncentral t distribution; None above `most`.

    >>> clusters_needed(1.0, 1.0)
    10
    """
    _level(power, "power")
    _level(level)
    _number("most", most, 2)
    if not isinstance(mean, Real) or not isinstance(spread, Real) or spread < 0:
        raise InputError(f"mean and spread are {brief((mean, spread))}; they must be numbers, the spread not below 0")
    if mean == 0 or not np.isfinite([mean, spread]).all():
        return None
    effect = abs(mean) / spread if spread > 0 else np.inf
    if np.isinf(effect):
        return 2
    low, high = 1, most
    if _power(effect, most, level) < power:
        return None
    while high - low > 1:  # the power grows with the number
        middle = (low + high) // 2
        low, high = (low, middle) if _power(effect, middle, level) >= power else (middle, high)
    return high


def clusters_for_half_width(half_width: float, spread: float, level: float = 0.95, most: int = 10_000) -> int | None:
    """The fewest independent clusters whose `t_interval` is expected to reach `half_width` to each side, or less.

    `spread` is the standard deviation between clusters, taken as known; None above `most`.

    >>> clusters_for_half_width(0.5, 1.0)
    18
    """
    _number("half_width", half_width, 0)
    if not isinstance(spread, Real) or spread < 0:
        raise InputError(f"spread is {brief(spread)}; it must be a number, not below 0")
    _level(level)
    _number("most", most, 2)
    n = np.arange(2, most + 1)
    enough = special.stdtrit(n - 1, (1 + level) / 2) * spread / np.sqrt(n) <= half_width
    return int(n[enough][0]) if enough.any() else None


def _power(effect: float, clusters: int, level: float) -> float:
    df = clusters - 1
    critical = float(special.stdtrit(df, (1 + level) / 2))
    missed = float(special.nctdtr(df, effect * sqrt(clusters), critical))
    return 1.0 if isnan(missed) else 1 - missed  # scipy has no number for some tails below 1e-100


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
