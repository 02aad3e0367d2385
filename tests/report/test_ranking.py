"""Ranks across data sets: on the screen, in the page and as a table, with the test that goes with them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import headstart
from headstart.cli.commands import main
from headstart.report.compare import Compared
from headstart.report.compare_page import write_comparison


def _runs(sets: int = 8, levels: str = "abcd", seeds: int = 3, gain: float = 0.08) -> pd.DataFrame:
    """a is better than the others, which are alike; sets differ in how hard they are."""
    rng = np.random.default_rng(2)
    rows = [
        {"method": m, "dataset": f"d{d}", "seed": s, "accuracy": 0.5 + 0.03 * d + gain * (m == "a") + x}
        for d in range(sets)
        for m in levels
        for s, x in enumerate(0.02 * rng.normal() + 0.005 * rng.normal(size=seeds))
    ]
    return pd.DataFrame(rows)


def _found(table: pd.DataFrame, baseline: str | None = None) -> Compared:
    return headstart.compare(table, metric="accuracy", by="method", baseline=baseline)


def test_ranks_and_their_test() -> None:
    table = _runs()
    (found,) = _found(table).rankings
    wide = table.pivot_table(index="dataset", columns="method", values="accuracy")
    expected = stats.friedmanchisquare(*wide.to_numpy().T)
    assert found.friedman == pytest.approx(expected.pvalue, rel=1e-9)
    f = 7 * expected.statistic / (8 * 3 - expected.statistic)
    assert found.p == pytest.approx(stats.f.sf(f, 3, 21), rel=1e-9)
    ranks = pd.Series(stats.rankdata(-wide, axis=1).mean(axis=0), wide.columns)
    assert found.ranks.to_dict() == pytest.approx(ranks.to_dict())
    assert found.ranks.is_monotonic_increasing
    first, second = found.sentences
    assert first.startswith("Mean ranks over 8 data sets (1 is best): a 1.")
    assert "they differ (Friedman's test as Iman and Davenport have it, p " in first
    assert second.startswith(
        "Two levels differ where their mean ranks lie at least 1.66 apart (Nemenyi): not told apart"
    )


def test_groups_are_the_longest_runs_within_the_critical_difference() -> None:
    (found,) = _found(_runs()).rankings
    for group in found.groups:
        assert found.ranks[group].max() - found.ranks[group].min() < found.difference
    together = {frozenset((a, b)) for group in found.groups for a in group for b in group if a < b}
    for a in found.ranks.index:
        for b in found.ranks.index:
            close = abs(found.ranks[a] - found.ranks[b]) < found.difference
            assert a >= b or (frozenset((a, b)) in together) == close


def test_a_baseline_is_corrected_by_holm() -> None:
    (found,) = _found(_runs(), baseline="d").rankings
    assert np.isnan(found.against["d"])
    z = (found.ranks.drop("d") - found.ranks["d"]).abs() / np.sqrt(4 * 5 / (6 * 8))
    raw = 2 * stats.norm.sf(z)
    assert found.against.drop("d").min() == pytest.approx(3 * raw.min(), rel=1e-9)
    assert found.sentences[1].startswith("Ranks against d, corrected by Holm's method for 3 comparisons: a (p ")


def test_two_levels_take_the_signed_rank_test() -> None:
    table = _runs(levels="ab")
    (found,) = _found(table).rankings
    wide = table.pivot_table(index="dataset", columns="method", values="accuracy")
    assert found.p == pytest.approx(stats.wilcoxon(wide["a"] - wide["b"]).pvalue, rel=1e-9)
    assert np.isnan(found.difference)
    assert "Wilcoxon's signed-rank test" in " ".join(found.sentences)


def test_sets_without_a_level_are_named_and_few_settle_nothing() -> None:
    table = _runs(sets=4)
    table = table[~((table["dataset"] == "d2") & (table["method"] == "c"))]
    (found,) = _found(table).rankings
    assert found.sets == 3
    assert "3 data sets are too few to settle it." in found.sentences[0]
    assert "Not ranked, for they lack a level: d2." in found.sentences


def test_nothing_is_ranked_on_one_set() -> None:
    found = _found(_runs(sets=1))
    assert found.rankings == []
    assert found.ranking == []
    assert len(found.ranks) == 0


@pytest.mark.parametrize("levels", ["abcd", "ab"])
def test_the_screen_and_the_page_say_the_ranks(tmp_path: Path, levels: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = _runs(levels=levels)
    table.to_csv(tmp_path / "r.csv", index=False)
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(tmp_path / "r.csv"), "--metric", "accuracy", "--by", "method"])
    assert ended.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    found = _found(table)
    assert all(sentence in said for sentence in found.ranking)
    page = write_comparison(found, tmp_path / "out").read_text()
    assert "Ranks across data sets" in page
    assert "mean rank over 8 data sets" in page
    assert found.ranking[0] in (tmp_path / "out" / "answer.md").read_text()
    written = pd.read_csv(tmp_path / "out" / "ranks.csv")
    assert written["mean rank"].to_numpy() == pytest.approx(found.rankings[0].ranks.to_numpy())
