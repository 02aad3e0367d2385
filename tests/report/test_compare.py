"""The comparison for anybody's runs: a study's answers, from whatever file; bad tables are named."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import headstart
from benchmarks import compare_errors
from headstart.cli.commands import main
from headstart.records.errors import InputError
from headstart.report import answer, frame
from headstart.report.anybodys import read_tables
from headstart.report.compare import compare
from headstart.report.compare_page import write_comparison
from headstart.statistics import clustered
from headstart.study.imports import import_csv


def _runs(methods: str = "abc", sets: int = 1, seeds: int = 6, gain: float = 0.05) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        {"method": m, "dataset": f"d{d}", "seed": s, "accuracy": 0.7 + gain * (m == "a") + 0.01 * rng.normal()}
        for d in range(sets)
        for s in range(seeds)
        for m in methods
    ]
    return pd.DataFrame(rows)


def test_the_authors_csv_gives_the_imported_studys_answer(reference: Path) -> None:
    table = read_tables([reference / "simclr-eval.csv"])
    found = compare(table, metric="test_micro_MulticlassAccuracy", by="projection_head")
    assert found.headline == "Ae beats mlp by 2.8 points (1.4 to 4.2 over 15 autoencoders; 282 of 360 pairs)."
    assert (
        "Ae beats mlp on CIFAR10 by 3.4 points (1.4 to 5.3 over 3 autoencoders; 60 of 72 pairs); 3 autoencoders are "
        "too few to settle it."
    ) in found.sentences
    assert "No column holds seeds" in " ".join(found.caveats)


def test_the_authors_csv_decides_as_the_imported_study(
    reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every number of every comparison, pooled and set by set, Holm's correction included."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # 1,440 small files
    import_csv([reference / "simclr-train.csv", reference / "simclr-eval.csv"], tmp_path / "study")
    study = [c for c in answer.compare(frame.read(tmp_path / "study")) if c.pairing.factor == "head"]
    table = read_tables([reference / "simclr-eval.csv"])
    found = compare(table, metric="test_micro_MulticlassAccuracy", by="projection_head").comparisons
    assert [c.pairing.dataset for c in found] == [None, "CIFAR10", "CIFAR100", "FGVCAircraft", "Imagenette", "STL10"]
    theirs = {c.pairing.dataset: c for c in study}
    for c in found:
        same = theirs[c.pairing.dataset]
        assert (c.pairing.a, c.pairing.b) == ("ae", "mlp")
        assert (same.pairing.a, same.pairing.b) == ("autoencoder-frozen", "random-trainable")
        assert (c.wins, c.losses, c.clusters, c.verdict) == (same.wins, same.losses, same.clusters, same.verdict)
        numbers = [[d.adjusted, d.test.p, d.test.mean, *d.test.interval] for d in (c.decision, same.decision)]
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-9)


def _as_file(table: pd.DataFrame, path: Path) -> Path:
    match path.suffix:
        case ".csv":
            table.to_csv(path, index=False)
        case ".tsv":
            table.to_csv(path, index=False, sep="\t")
        case ".txt":
            table.to_csv(path, index=False, sep=";", decimal=",")
        case ".parquet":
            pytest.importorskip("pyarrow")
            table.to_parquet(path)
        case ".jsonl":
            table.to_json(path, orient="records", lines=True)
        case ".json":
            path.write_text(json.dumps(table.to_dict("list")))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt", ".parquet", ".jsonl", ".json"])
def test_every_format_gives_the_same_answer(tmp_path: Path, suffix: str) -> None:
    table = _runs()
    found = compare(read_tables([_as_file(table, tmp_path / f"runs{suffix}")]), metric="accuracy", by="method")
    plain = headstart.compare(table, metric="accuracy", by="method")
    assert found.headline == plain.headline
    assert found.headline.startswith("A beats b by ")
    assert [c.sentence for c in found.comparisons] == [c.sentence for c in plain.comparisons]


def test_a_mixture_is_one_table(tmp_path: Path) -> None:
    table = _runs()
    one = _as_file(table[table["method"] == "a"], tmp_path / "a.csv")
    two = _as_file(table[table["method"] != "a"], tmp_path / "rest.jsonl")
    assert compare(read_tables([one, two]), metric="accuracy", by="method").headline.startswith("A beats b by ")


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("64", "64\nb,0.8,9,auto"),  # a word in one file
        ("64.0", "64\nb,0.8,9,auto"),
        ("64", "64\nb,0.8,9,"),  # a gap in one file
        ("True", "true"),
        ("\na,0.8,9,64", "\nb,0.8,9,auto"),  # a gap in both
    ],
)
def test_a_value_is_the_same_in_whatever_file(tmp_path: Path, one: str, two: str) -> None:
    for level, cell in (("a", one), ("b", two)):
        (tmp_path / f"{level}.csv").write_text(f"method,accuracy,seed,batch\n{level},0.5,0,{cell}\n")
    table = read_tables([tmp_path / "a.csv", tmp_path / "b.csv"])
    (found,) = compare(table, metric="accuracy", by="method", pair=["batch"]).comparisons
    assert found.pairs == 1


def test_levels_that_are_whole_numbers_are_so_written() -> None:
    table = pd.DataFrame({"batch": [64.0, 128.0, np.nan], "accuracy": [0.5, 0.6, 0.7]})
    found = headstart.compare(table, metric="accuracy", by="batch", baseline="64")
    assert sorted(found.levels["level"]) == ["128", "64"]
    switched = pd.DataFrame({"flag": [True, "true", "False"], "accuracy": [0.5, 0.6, 0.7]})
    assert sorted(headstart.compare(switched, metric="accuracy", by="flag").levels["level"]) == ["False", "True"]


@pytest.mark.parametrize(("column", "given"), [("seed", {}), ("checkpoint", {}), ("subject", {"cluster": "subject"})])
def test_what_pairs_share_is_matched_as_the_paired_t_test_does(column: str, given: dict[str, str]) -> None:
    """A seed, or a cluster that both levels have: two rows of different clusters are no pair."""
    table = _runs("ab", seeds=9)
    again = table.rename(columns={"seed": column}).astype({column: str})
    (found,) = headstart.compare(again, metric="accuracy", by="method", **given).comparisons
    assert found.pairs == 9
    wide = 100 * table.pivot(index="seed", columns="method", values="accuracy")
    expected = stats.ttest_rel(wide["a"], wide["b"])
    assert found.decision.test.p == pytest.approx(expected.pvalue, rel=1e-9)
    low, high = expected.confidence_interval(0.95)
    assert found.decision.test.interval == pytest.approx((low, high), rel=1e-9)


LOWER = [
    "val_loss",
    "valLoss",
    "trainloss",
    "runtime_s",
    "walltime",
    "rank",
    "cross_entropy",
    "ECE",
    "brier",
    "kl",
    "FPR95",
]
LOWER += ["bits_per_dim", "errors", "regret"]
HIGHER = ["bleu", "images_per_second", "precision", "kappa", "balance"]


@pytest.mark.parametrize(("metric", "up"), [*((n, False) for n in LOWER), *((n, True) for n in HIGHER)])
def test_less_is_better_where_the_name_says_so(metric: str, up: bool) -> None:
    table = _runs("ab", gain=3.0).rename(columns={"accuracy": metric})
    found = headstart.compare(table, metric=metric, by="method")
    better = "A beats b" if up else "B beats a"
    assert found.headline.startswith(better)
    assert f"in {metric}" in found.headline
    assert found.columns.endswith(f" Less is better in {metric}.") is not up


def test_a_setting_of_which_most_values_differ_is_matched_on() -> None:
    """The same random search for both methods; an outcome hardly repeats, and is said to be none to match on."""
    rng = np.random.default_rng(0)
    rates = rng.uniform(1e-4, 1e-1, 6)
    table = pd.DataFrame({"method": [*"aaaaaabbbbbbbb"], "lr": [*rates, *rates, 0.3, 0.6], "name": [*"abcdefghijklmn"]})
    table = table.assign(accuracy=rng.random(14), sharpness=rng.random(14))
    found = headstart.compare(table, metric="accuracy", by="method")
    assert found.comparisons[0].pairs == 6
    assert found.columns == (
        "Columns: compared by method; matched on lr; not matched on name (the name of a run); "
        "not matched on sharpness (an outcome, for its values hardly repeat)."
    )


@pytest.mark.parametrize(
    ("change", "given"),
    [
        (lambda t: t.rename(columns={"dataset": 5}), {}),
        (lambda t: t.assign(sizes=[[64, 64]] * len(t), config=[{"depth": 2}] * len(t)), {}),
        (lambda t: t.set_index("seed"), {}),
        (lambda t: t.set_index(["seed", "dataset"]), {}),
        (lambda t: t, {"pair": "seed"}),
    ],
)
def test_an_unusual_frame_is_read_as_it_was_meant(
    change: Callable[[pd.DataFrame], pd.DataFrame], given: dict[str, str]
) -> None:
    table = _runs("ab")
    found = headstart.compare(change(table), metric="accuracy", by="method", **given)
    assert found.headline == headstart.compare(table, metric="accuracy", by="method").headline
    assert "seeds in seed" in found.columns


@pytest.mark.parametrize(
    ("metric", "columns", "words"),
    [([], {}, "no metric is given"), ("accuracy", {"5": 1, 5: 1}, "there are two columns '5'")],
)
def test_an_impossible_frame_is_refused(metric: str | list[str], columns: dict[object, int], words: str) -> None:
    table = pd.concat([_runs("ab"), pd.DataFrame(columns, index=range(12))], axis=1)
    with pytest.raises(InputError, match=words):
        headstart.compare(table, metric=metric, by="method")


def test_pooled_comparisons_are_a_family_and_those_of_each_set_another() -> None:
    found = headstart.compare(_runs("abc", sets=2), metric="accuracy", by="method").comparisons
    assert {c.pairing.dataset: c.decision.family_size for c in found} == {None: 3, "d0": 3, "d1": 3}


def test_several_metrics_are_one_family() -> None:
    table = _runs("abc").assign(loss=lambda t: 1 - t["accuracy"])
    found = headstart.compare(table, metric=["accuracy", "loss"], by="method", baseline="a")
    assert {c.decision.family_size for c in found.comparisons} == {4}
    assert {c.measure.name for c in found.comparisons} == {"accuracy", "loss"}


def test_pooled_sets_are_clusters_and_ranked() -> None:
    found = headstart.compare(_runs("abcd", sets=6), metric="accuracy", by="method")
    pooled = [c for c in found.comparisons if c.pairing.dataset is None]
    assert {c.decision.test.independent for c in pooled} == {6}
    ranks = found.ranks.set_index("level")["mean rank"]
    assert ranks.index[0] == "a"
    table = _runs("abcd", sets=6)
    wide = table.pivot_table(index="dataset", columns="method", values="accuracy")
    assert found.ranks["friedman p"].iloc[0] == pytest.approx(
        stats.friedmanchisquare(*wide.to_numpy().T).pvalue, rel=1e-9
    )


def test_what_is_unmatched_or_repeated_is_named(tmp_path: Path) -> None:
    table = pd.concat([_runs("ab"), pd.DataFrame([{"method": "a", "dataset": "d0", "seed": 99, "accuracy": 0.5}])])
    table = pd.concat([table, table.head(1)], ignore_index=True)
    said = " ".join(compare(read_tables([_as_file(table, tmp_path / "r.csv")]), metric="accuracy", by="method").caveats)
    assert "1 of 13 rows with accuracy is matched by no other" in said
    assert "r.csv, row 14" in said
    assert "2 rows repeat another in" in said


def test_few_clusters_settle_nothing_and_more_are_counted() -> None:
    found = headstart.compare(_runs("ab", seeds=3), metric="accuracy", by="method")
    assert found.headline.endswith("3 seeds are too few to settle it.")
    assert "about 5 clusters are needed where there are 3 (2 more)" in " ".join(found.caveats)


def test_the_command_writes_its_page_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _as_file(_runs(sets=2), tmp_path / "runs.csv")
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(path), "--metric", "accuracy", "--by", "method", "--out", str(tmp_path / "o"), "--json"])
    assert ended.value.code == 0
    said = json.loads(capsys.readouterr().out)
    assert {"headline", "sentences", "ranking", "caveats", "columns", "comparisons", "levels", "ranks"} == set(said)
    page = (tmp_path / "o" / "report.html").read_text()
    assert said["headline"].split(" (")[0] in page
    assert "<svg" in page
    assert len(pd.read_csv(tmp_path / "o" / "comparisons.csv")) == len(said["comparisons"])


def test_no_torch_is_imported() -> None:
    code = (
        "import headstart, pandas, sys; table = pandas.DataFrame({'m': ['a', 'b'], 'x': [1., 2.]}); "
        "headstart.compare(table, metric='x', by='m'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_hundred_thousand_rows() -> None:
    rng = np.random.default_rng(0)
    methods, seeds = ["a", "b", "c", "d"], 25_000
    table = pd.DataFrame({"method": np.repeat(methods, seeds), "seed": np.tile(np.arange(seeds), 4)})
    table["accuracy"] = rng.random(100_000)
    table = table.sample(frac=1, random_state=1)
    wide = 100 * table.pivot(index="seed", columns="method", values="accuracy")
    found = headstart.compare(table, metric="accuracy", by="method").comparisons
    assert len(found) == 6
    for c in found:
        expected = stats.ttest_rel(wide[c.pairing.a], wide[c.pairing.b])
        assert c.pairs == seeds
        assert c.mean == pytest.approx(expected.confidence_interval().low / 2 + expected.confidence_interval().high / 2)
        assert c.decision.test.p == pytest.approx(expected.pvalue, rel=1e-9)
        assert c.wins == (wide[c.pairing.a] > wide[c.pairing.b]).sum()


def _plain(table: pd.DataFrame, a: str, b: str, keys: list[str], dataset: str | None) -> pd.DataFrame:
    """Pairs by a plain merge."""
    part = table if dataset is None else table[table["dataset"] == dataset]
    one, two = (part[part["method"] == level].reset_index() for level in (a, b))
    return one.merge(two, on=keys, suffixes=("", "_b"))


@pytest.mark.parametrize("cluster", [None, "cluster"])
@pytest.mark.parametrize("seed", range(3))
def test_the_fast_matching_is_the_plain_one(seed: int, cluster: str | None) -> None:
    rng = np.random.default_rng(seed)
    cells = product("abcd", [f"d{i}" for i in range(4)], range(3), (0.1, 0.2), range(2))
    table = pd.DataFrame(cells, columns=["method", "dataset", "seed", "lr", "cluster"])
    table = table.assign(accuracy=rng.random(len(table)), cluster="c" + table["cluster"].astype(str))
    table = table[rng.random(len(table)) > 0.3].drop_duplicates([*table.columns[:4], *([cluster] if cluster else [])])
    table = table.reset_index(drop=True) if cluster else table.drop(columns="cluster").reset_index(drop=True)
    found = headstart.compare(table, metric="accuracy", by="method", cluster=cluster)
    assert len(found.comparisons) == 6 * 5
    values = 100 * table["accuracy"].to_numpy()
    for c in found.comparisons:
        p = c.pairing
        keys = ["dataset", "seed", "lr", *([cluster] if cluster else [])]
        both = _plain(table, p.a, p.b, keys, p.dataset)
        assert {*zip(p.first, p.second, strict=True)} == {*zip(both["index"], both["index_b"], strict=True)}
        where = both["dataset"] + " " + both["seed"].astype(str)
        draws = both["dataset"] if p.dataset is None else pd.Series("", both.index)
        if cluster:
            draws = both["cluster"]
        gains = values[both["index"]] - values[both["index_b"]]
        expected = clustered(gains, where.to_numpy(str), draws.to_numpy(str))
        assert c.decision.test.clusters == expected.clusters
        assert c.decision.test.mean == pytest.approx(expected.mean, rel=1e-12)
        assert c.decision.test.p == pytest.approx(expected.p, rel=1e-12, nan_ok=True)
        assert c.decision.test.interval == pytest.approx(expected.interval, rel=1e-12, nan_ok=True)


def test_clusters_that_one_level_lacks_match_every_row() -> None:
    """Where no level shares a cluster with the other, or has none, nothing but the keys is matched."""
    table = pd.DataFrame(product("ab", range(3), "xy"), columns=["method", "seed", "cluster"])
    table["accuracy"] = np.arange(12) / 20
    for cluster, pairs in (("xy", 6), ("vw", 12), (("", ""), 6), ((None, "x"), 9)):
        other = table.assign(cluster=table["cluster"].where(table["method"] == "a", list(cluster) * 6))
        (found,) = headstart.compare(other, metric="accuracy", by="method").comparisons
        assert found.pairs == pairs, cluster


def test_levels_of_different_clusters_are_not_as_many_clusters_as_pairs() -> None:
    """5 by 5 rows without a common cluster: 25 pairs, of which each cluster of either level is in five."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"method": [*"aaaaabbbbb"], "checkpoint": [f"ck {i}" for i in range(10)]})
    wrong = 0
    for _ in range(100):
        table["accuracy"] = 0.7 + 0.01 * rng.normal(size=10)
        (found,) = headstart.compare(table, metric="accuracy", by="method").comparisons
        wrong += found.decision.test.p <= 0.05
    assert (found.pairs, found.clusters) == (25, "5 clusters and 5 clusters")
    assert wrong <= 10


def test_empty_cells_match_only_each_other() -> None:
    """A setting that some rows leave empty is a setting like any other."""
    table = pd.DataFrame(product("ab", range(3), (0.9, np.nan)), columns=["method", "seed", "momentum"])
    table["accuracy"] = np.arange(12) / 20
    (found,) = headstart.compare(table, metric="accuracy", by="method").comparisons
    assert found.pairs == 6


def test_unknown_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        read_tables([tmp_path / "no.csv"])
    (tmp_path / "x.db").write_text("no store")
    with pytest.raises(InputError, match="is not an MLflow store"):
        read_tables([tmp_path / "x.db"])
    (tmp_path / "x.jsonl").write_text('{"a": 1}\nnot json\n')
    with pytest.raises(InputError, match="row 2 is not JSON"):
        read_tables([tmp_path / "x.jsonl"])


def test_write_comparison_returns_the_page(tmp_path: Path) -> None:
    assert write_comparison(headstart.compare(_runs("ab"), metric="accuracy", by="method"), tmp_path).exists()


@pytest.mark.parametrize("scenario", compare_errors.SCENARIOS)
def test_error_rates_are_those_that_the_docs_print(scenario: str) -> None:
    committed = pd.read_csv(Path(__file__).parents[2] / "docs" / "compare-errors.csv").set_index("scenario")
    assert committed["false"].max() <= 0.065
    assert committed["covered"].min() >= 0.93
    wrong, covered = compare_errors.rates(scenario, draws=200)
    for found, printed in ((wrong, committed["false"][scenario]), (covered, committed["covered"][scenario])):
        assert abs(found - printed) <= 4 * np.sqrt(printed * (1 - printed) / 200)


def test_the_docs_quote_what_is_said() -> None:
    docs = Path(__file__).parents[2] / "docs"
    page = (docs / "comparing.md").read_text()
    for name, metric, by, baseline in (
        ("benchmark", "accuracy", "method", "method-1"),
        ("optimisers", "val_loss", "optimizer", None),
        ("ablation", "accuracy", "augmentation", None),
    ):
        found = compare(read_tables([docs / "comparing" / f"{name}.csv"]), metric=metric, by=by, baseline=baseline)
        assert f"> {found.headline}" in page
        assert all(f"> {said}" in page for said in found.sentences[:2])
