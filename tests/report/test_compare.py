"""The comparison for anybody's runs: a study's answers, from whatever file; bad tables are named."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import headstart
from benchmarks import compare_errors
from headstart.cli.commands import main
from headstart.records.errors import InputError
from headstart.report import answer, frame, write_report
from headstart.report.anybodys import read_tables
from headstart.report.compare import compare
from headstart.report.compare_page import write_comparison
from headstart.report.comparisons import Comparison


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
    assert "There is" in " ".join(found.caveats) or "No column holds seeds" in " ".join(found.caveats)


@pytest.mark.parametrize("by", ["head", "contrastive.temperature", "normalized"])
def test_a_studys_csv_says_what_its_report_says(make_run: Callable[..., Path], tmp_path: Path, by: str) -> None:
    rng = np.random.default_rng(1)
    for i, (init, temperature, normal) in enumerate(
        [(i, t, n) for i in ("autoencoder", "random", "orthogonal") for t in (0.1, 0.5) for n in (True, False)]
    ):
        for seed in range(3):
            make_run(
                tmp_path / "study" / "runs" / f"{i}-{seed}",
                init=init,
                seed=seed,
                accuracy=0.6 + 0.05 * rng.normal(),
                contrastive__temperature=temperature,
                data__normalize=normal,
            )
    write_report(tmp_path / "study")
    every = answer.answer(frame.read(tmp_path / "study")).comparisons
    said = {_which(c): c for c in every if c.pairing.factor == by}
    for source in (tmp_path / "study" / "runs.csv", tmp_path / "study"):
        found = compare(read_tables([source]), metric="accuracy", by=by)
        mine = {_which(c): c for c in found.comparisons}
        assert mine.keys() == said.keys()
        for which, c in mine.items():
            same = said[which]
            assert c.decision.test == same.decision.test
            assert (c.wins, c.losses, c.mean, c.wilcoxon) == (same.wins, same.losses, same.mean, same.wilcoxon)
            if by == "head":  # the families of the others are a head each in a study, and one here
                assert c.sentence == same.sentence


def _which(comparison: Comparison) -> tuple[str, str, str, str | None]:
    p = comparison.pairing
    return p.a, p.b, p.within, p.dataset


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
        case ".json":  # as W&B exports runs
            wandb = [
                {"config": {k: r[k] for k in ("method", "dataset", "seed")}, "summary": {"accuracy": r["accuracy"]}}
                for r in table.to_dict("records")
            ]
            path.write_text(json.dumps(wandb))
        case ".db":
            _as_mlflow(table, path)
    return path


def _as_wandb(row: dict[str, Any]) -> dict[str, Any]:
    config = {name: row[name] for name in ("method", "dataset", "seed")}
    return {"name": f"run-{row['method']}{row['seed']}", "config": config, "summary": {"accuracy": row["accuracy"]}}


def _as_mlflow(table: pd.DataFrame, path: Path) -> None:
    with sqlite3.connect(path) as store:
        store.execute("create table runs (run_uuid, name, experiment_id, lifecycle_stage)")
        store.execute("create table params (run_uuid, key, value)")
        store.execute("create table latest_metrics (run_uuid, key, value)")
        for i, row in enumerate(table.to_dict("records")):
            store.execute("insert into runs values (?, ?, 1, 'active')", (str(i), f"run-{i}"))
            for name in ("method", "dataset", "seed"):
                store.execute("insert into params values (?, ?, ?)", (str(i), name, str(row[name])))
            store.execute("insert into latest_metrics values (?, 'accuracy', ?)", (str(i), row["accuracy"]))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt", ".parquet", ".jsonl", ".json", ".db"])
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


def test_one_seed_column_is_the_paired_t_test() -> None:
    table = _runs("ab", seeds=9)
    (found,) = headstart.compare(table, metric="accuracy", by="method").comparisons
    wide = 100 * table.pivot(index="seed", columns="method", values="accuracy")
    expected = stats.ttest_rel(wide["a"], wide["b"])
    assert found.decision.test.p == pytest.approx(expected.pvalue, rel=1e-9)
    low, high = expected.confidence_interval(0.95)
    assert found.decision.test.interval == pytest.approx((low, high), rel=1e-9)


@pytest.mark.parametrize(("metric", "up"), [("val_loss", False), ("runtime_s", False), ("rank", False), ("bleu", True)])
def test_less_is_better_where_the_name_says_so(metric: str, up: bool) -> None:
    table = _runs("ab", gain=3.0).rename(columns={"accuracy": metric})
    found = headstart.compare(table, metric=metric, by="method")
    better = "A beats b" if up else "B beats a"
    assert found.headline.startswith(better)
    assert f"in {metric}" in found.headline


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
    assert "1 of 13 rows with accuracy are matched by no other" in said
    assert "r.csv, row 14" in said
    assert "2 rows repeat another in" in said


def test_few_clusters_settle_nothing_and_more_are_counted() -> None:
    found = headstart.compare(_runs("ab", seeds=3), metric="accuracy", by="method")
    assert found.headline.endswith("3 seeds are too few to settle it.")
    assert "about 5 clusters are needed where there are 3 (2 more)" in " ".join(found.caveats)


BAD = {
    "no such metric": (
        "method,seed,acc\na,0,1\nb,0,2\n",
        "there is no column 'accuracy'; the table has method, seed, acc",
    ),
    "text in the metric": (
        "method,seed,accuracy\na,0,0.5\nb,0,good\n",
        "row 3: accuracy is 'good'; it must be a number",
    ),
    "two decimal signs": ('method,seed,accuracy\na,0,0.5\nb,0,"0,6"\n', "another decimal sign"),
    "a short row": ("method,seed,accuracy\na,0\n", "row 2: 2 cells where the header has 3 columns"),
    "a column twice": ("method,seed,seed,accuracy\na,0,0,1\n", "row 1: there are two columns 'seed'"),
    "nothing in it": ("", "is empty"),
    "one method": ("method,seed,accuracy\na,0,0.5\na,1,0.6\n", "method has one value, 'a'; at least two are compared"),
    "no rows": ("method,seed,accuracy\n", "no row of a run"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_malformed_table_ends_in_one_sentence(tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    content, words = BAD[case]
    path = tmp_path / "runs.csv"
    path.write_text(content)
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(path), "--metric", "accuracy", "--by", "method"])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert words in said
    assert "Traceback" not in said
    assert len(said.strip().splitlines()) == 1


def test_the_command_writes_its_page_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _as_file(_runs(sets=2), tmp_path / "runs.csv")
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(path), "--metric", "accuracy", "--by", "method", "--out", str(tmp_path / "o"), "--json"])
    assert ended.value.code == 0
    said = json.loads(capsys.readouterr().out)
    assert {"headline", "sentences", "caveats", "columns", "comparisons", "levels", "ranks"} == set(said)
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
    table = pd.DataFrame(
        {
            "method": np.tile(["a", "b"], 50_000),
            "seed": np.repeat(np.arange(50_000), 2),
            "accuracy": np.random.default_rng(0).random(100_000),
        }
    )
    (found,) = headstart.compare(table, metric="accuracy", by="method").comparisons
    assert found.pairs == 50_000


def test_unknown_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not there"):
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
