"""Intervals and tests against scipy, statsmodels and simulation."""

import inspect
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint

from headstart import statistics


@given(st.integers(1, 20_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_agrees_with_statsmodels(counted: tuple[int, int]) -> None:
    correct, n = counted
    low, high = statistics.wilson(correct, n)
    expected = proportion_confint(correct, n, method="wilson")
    assert (low, high) == pytest.approx(expected, abs=1e-12)
    assert 0 <= low <= correct / n <= high <= 1


@pytest.mark.parametrize(("correct", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_what_is_no_share(correct: int, n: int) -> None:
    with pytest.raises(ValueError, match="is not a share"):
        statistics.wilson(correct, n)


def test_t_interval_agrees_with_scipy() -> None:
    values = np.random.default_rng(1).normal(0.6, 0.1, 8)
    expected = stats.t.interval(0.95, 7, values.mean(), stats.sem(values))
    assert statistics.t_interval(values) == pytest.approx(expected)
    assert np.isnan(statistics.t_interval([0.5])).all()


@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_bootstrap_agrees_with_scipy(statistic: Any) -> None:
    values = np.random.default_rng(2).normal(1, 2, 60)
    random: Any = (
        "rng" if "rng" in inspect.signature(stats.bootstrap).parameters else "random_state"
    )  # before SciPy 1.15
    expected = stats.bootstrap(
        (values,),
        getattr(np, statistic),
        n_resamples=20_000,
        method="percentile",
        **{random: np.random.default_rng(3)},
    ).confidence_interval
    ours = statistics.bootstrap_interval(values, statistic, draws=20_000)
    assert ours == pytest.approx((expected.low, expected.high), abs=0.03)
    assert ours == statistics.bootstrap_interval(values, statistic, draws=20_000), "the same values, the same interval"


def test_the_median_of_many_has_an_interval_that_mirrors() -> None:
    """Of x and of -x alike: as many values lie below its lower end as above the upper one."""
    values = np.sort(np.random.default_rng(1).normal(size=601))
    low, high = statistics.bootstrap_interval(values, "median")
    assert statistics.bootstrap_interval(-values, "median") == (-high, -low)
    assert (values < low).sum() == (values > high).sum() == 276


def test_wilcoxon_agrees_with_scipy_and_drops_zeros() -> None:
    values = np.random.default_rng(4).normal(0.3, 1, 40)
    assert statistics.wilcoxon(values) == pytest.approx(stats.wilcoxon(values).pvalue)
    assert statistics.wilcoxon(np.append(values, [0, 0])) == pytest.approx(stats.wilcoxon(values).pvalue)
    assert statistics.wilcoxon([0, 0, 0]) == 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
@settings(max_examples=15)  # the other library is slow
def test_holm_agrees_with_statsmodels(p_values: list[float]) -> None:
    assert statistics.holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_holm_leaves_undefined_p_values_out_of_the_family() -> None:
    adjusted = statistics.holm([0.02, float("nan"), 0.03])
    assert adjusted[[0, 2]] == pytest.approx([0.04, 0.04])
    assert np.isnan(adjusted[1])


def test_one_kind_of_sharing_is_the_t_test_over_cluster_means() -> None:
    differences = np.random.default_rng(5).normal(0.5, 1, 24)
    autoencoder = np.repeat(["a", "b", "c"], 8)
    means = differences.reshape(3, 8).mean(axis=1)
    result = statistics.clustered(differences, ["seed 0"] * 24, autoencoder)
    assert result.interval == pytest.approx(stats.t.interval(0.95, 2, means.mean(), stats.sem(means)))
    assert result.p == pytest.approx(stats.ttest_1samp(means, 0).pvalue)
    assert (result.clusters, result.independent) == ((1, 3), 3)


def test_autoencoders_nested_in_seeds_leave_the_seeds_as_clusters() -> None:
    differences = np.random.default_rng(6).normal(0.5, 1, 24)
    seed, autoencoder = np.repeat(range(4), 6), np.repeat(range(12), 2)
    means = differences.reshape(4, 6).mean(axis=1)
    result = statistics.clustered(differences, seed, autoencoder)
    assert result.interval == pytest.approx(stats.t.interval(0.95, 3, means.mean(), stats.sem(means)))
    assert result.independent == 4


def test_one_cluster_decides_nothing() -> None:
    result = statistics.clustered([0.1, 0.2, 0.3], ["s"] * 3, ["a"] * 3)
    assert result.mean == pytest.approx(0.2)
    assert np.isnan([*result.interval, result.p]).all()
    assert result.independent == 1


@pytest.mark.parametrize(("seeds", "autoencoders"), [(5, 3), (5, 5), (1, 6), (6, 1)])
@pytest.mark.parametrize("shared", ["cell", "seed", "autoencoder", "both"])
def test_coverage_where_noise_is_shared(seeds: int, autoencoders: int, shared: str) -> None:
    # What never varies (the one seed's own effect) cannot be seen in the data: such noise is not simulated.
    rng = np.random.default_rng(7)
    by_seed = float(shared in ("seed", "both") and seeds > 1)
    by_autoencoder = float(shared in ("autoencoder", "both") and autoencoders > 1)
    seed, autoencoder = (grid.ravel() for grid in np.mgrid[:seeds, :autoencoders])
    seed, autoencoder = np.repeat(seed, 2), np.repeat(autoencoder, 2)
    covered = 0
    for _ in range(500):
        noise = by_seed * rng.normal(size=seeds)[seed] + by_autoencoder * rng.normal(size=autoencoders)[autoencoder]
        cells = rng.normal(size=(seeds, autoencoders))[seed, autoencoder]
        low, high = statistics.clustered(
            1.0 + noise + 0.3 * cells + 0.1 * rng.normal(size=seed.size), seed, autoencoder
        ).interval
        covered += low <= 1.0 <= high
    assert covered / 500 >= 0.93


def test_cells_of_crossed_seeds_and_autoencoders_are_not_independent() -> None:
    rng = np.random.default_rng(8)
    seed, autoencoder = (grid.ravel() for grid in np.mgrid[:5, :3])
    naive, ours = 0, 0
    for _ in range(1000):
        cells = rng.normal(size=5)[seed] + rng.normal(size=3)[autoencoder] + rng.normal(size=15)
        naive += stats.ttest_1samp(cells, 0).pvalue < 0.05
        ours += statistics.clustered(cells, seed, autoencoder).p < 0.05
    assert naive / 1000 > 0.2
    assert ours / 1000 < 0.065


def test_an_error_below_the_steps_of_the_data_is_not_believed() -> None:
    coarse = statistics.clustered([1.0, 1.0, 1.0], range(3), least_error=0.5)
    assert coarse.p == pytest.approx(2 * stats.t.sf(2, 2))


@pytest.mark.parametrize("value", [1.0, -0.3, 1e-7], ids=str)
@pytest.mark.parametrize("sharing", [[range(4)], [[0, 0, 1, 1]], [[0, 0, 1, 1], [0, 1, 0, 1]]], ids=str)
def test_differences_that_do_not_vary_have_no_p_value(value: float, sharing: list[list[int]]) -> None:
    """Nor an interval of no width: nothing is known of their noise. Rounding does not count as variation."""
    same = statistics.clustered([value, value, value * (1 + 1e-14), value], *sharing)
    assert same.mean == pytest.approx(value)
    assert np.isnan([same.p, *same.interval]).all()
    none = statistics.clustered([0.0] * 4, *sharing)
    assert (none.p, none.interval) == (1.0, (0.0, 0.0))


@given(st.lists(st.floats(-5, 5).map(lambda x: round(x, 3)), min_size=3, max_size=30).filter(lambda x: len(set(x)) > 1))
def test_paired_t_agrees_with_scipy(differences: list[float]) -> None:
    assert statistics.clustered(differences, range(len(differences))).p == pytest.approx(
        stats.ttest_1samp(differences, 0).pvalue, rel=1e-7, abs=1e-12
    )


@pytest.mark.parametrize("blocks", [2, 5, 14])
@pytest.mark.parametrize("treatments", [3, 4, 10])
def test_friedman_agrees_with_scipy_and_does_not_mind_the_scale(blocks: int, treatments: int) -> None:
    values = np.random.default_rng([blocks, treatments]).random((blocks, treatments))
    expected = stats.friedmanchisquare(*values.T).pvalue
    assert statistics.friedman(values) == pytest.approx(expected, rel=1e-9)
    assert statistics.friedman(np.exp(3 * values)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("treatments", "q"), [(2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)])
def test_critical_difference_has_the_printed_quantiles(treatments: int, q: float) -> None:
    """Demsar 2006, Table 5a."""
    printed = q * np.sqrt(treatments * (treatments + 1) / (6 * 14))
    assert statistics.critical_difference(treatments, 14) == pytest.approx(printed, abs=1e-3)


@pytest.mark.parametrize("effect", [0.3, 0.8, 1.5])
def test_clusters_needed_agrees_with_statsmodels(effect: float) -> None:
    wanted = TTestPower().solve_power(effect_size=effect, alpha=0.05, power=0.8)
    assert statistics.clusters_needed(effect, 1.0) == int(np.ceil(wanted))
    assert statistics.clusters_needed(0.0, 1.0) is None


def test_a_larger_effect_never_needs_more_clusters() -> None:
    found = [statistics.clusters_needed(effect, 1.0) or 0 for effect in np.geomspace(0.05, 1e5, 400)]
    assert found == sorted(found, reverse=True)
    assert (found[0], found[-1]) == (3142, 2)


def test_every_public_function_has_an_example() -> None:
    public = {name: f for name, f in vars(statistics).items() if inspect.isfunction(f) and not name.startswith("_")}
    own = {name: f for name, f in public.items() if f.__module__ == statistics.__name__}
    assert len(own) >= 12
    assert [name for name, f in own.items() if ">>>" not in (f.__doc__ or "")] == []


@given(st.data())
def test_the_signed_rank_test_is_scipys_with_and_without_ties(data: st.DataObject) -> None:
    whole = st.lists(st.integers(-30, 30), min_size=1, max_size=60)
    apart = st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=1, max_size=60, unique_by=abs)
    values = np.array(data.draw(whole | apart), float)
    expected = stats.wilcoxon(values[values != 0]).pvalue if values.any() else 1.0
    assert statistics.wilcoxon(values) == pytest.approx(expected, rel=1e-9)


def _blocks(seed: int, levels: int, blocks: int, ties: bool) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(blocks, levels)) + np.arange(levels) / 3
    return values.round(0) if ties else values


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("levels", "blocks"), [(3, 4), (4, 14), (5, 30), (10, 6)])
def test_rank_tests_agree_with_scipy(levels: int, blocks: int, ties: bool) -> None:
    values = _blocks(levels, levels, blocks, ties)
    expected = stats.friedmanchisquare(*values.T)
    assert statistics.friedman(values) == pytest.approx(expected.pvalue, rel=1e-9)
    f = (blocks - 1) * expected.statistic / (blocks * (levels - 1) - expected.statistic)
    p = stats.f.sf(f, levels - 1, (levels - 1) * (blocks - 1))
    assert statistics.iman_davenport(values) == pytest.approx(p, rel=1e-9)
    apart = statistics.critical_difference(levels, blocks)
    q = apart * np.sqrt(12 * blocks / (levels * (levels + 1)))
    assert stats.studentized_range.sf(q, levels, np.inf) == pytest.approx(0.05, rel=1e-9)
    z = np.array([0.1, 1.0]) / np.sqrt(levels * (levels + 1) / (6 * blocks))
    assert statistics.rank_p_values([0.1, -1.0], levels, blocks) == pytest.approx(2 * stats.norm.sf(z), rel=1e-9)


def test_rank_tests_where_all_agree_or_all_tie() -> None:
    assert statistics.iman_davenport([[1, 2, 3]] * 2) == pytest.approx(1 / 6), "the chance that two rankings agree"
    assert statistics.friedman([[1, 1, 1]] * 4) == 1
    assert statistics.iman_davenport([[1, 1, 1]] * 4) == 1
    with pytest.raises(ValueError, match="not at least 2 blocks of at least 3 treatments"):
        statistics.iman_davenport([[1, 2], [1, 2]])


def test_the_f_form_of_friedmans_test_keeps_its_level() -> None:
    """2,000 tables of eight sets and four methods that are alike."""
    rng = np.random.default_rng(0)
    false = np.mean([statistics.iman_davenport(rng.normal(size=(8, 4))) <= 0.05 for _ in range(2000)])
    assert 0.03 <= false <= 0.065


def test_a_missing_value_makes_no_number() -> None:
    """Not the smallest p-value, and not the largest."""
    assert math.isnan(statistics.wilcoxon([math.nan, 1.0, 2.0]))
    assert math.isnan(statistics.clustered([math.nan, 1.0, 2.0], range(3)).p)
    found = statistics.clustered([math.nan, 1.0, 2.0, 3.0], ["a", "a", "b", "b"])
    assert all(map(math.isnan, (found.p, found.mean, *found.interval)))
    with pytest.raises(ValueError, match="missing"):
        statistics.friedman([[1.0, 2.0, math.nan], [1.0, 2.0, 3.0]])
