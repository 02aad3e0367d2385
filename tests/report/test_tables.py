"""The paper's tables: every printed number, and copies of the exports in which nothing is as printed."""

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from headstart.report import frame, printed, tables
from headstart.study.imports import import_csv

from .conftest import EXPORTS

SETS = ["Imagenette", "STL10", "CIFAR10", "FGVCAircraft", "CIFAR100"]


@pytest.fixture(scope="module")
def tidy(authors: Path) -> dict[int, pd.DataFrame]:
    return tables.tidy(frame.read(authors).runs)


def test_every_printed_percentage_comes_out(tidy: dict[int, pd.DataFrame]) -> None:
    compared = 0
    for (table, dataset, projector, row, normalized), value in printed.percentages().items():
        frame = tidy[table]
        found = frame[(frame["dataset"] == dataset) & (frame["projector"] == projector) & (frame["row"] == row)]
        if table in (3, 6):
            found = found[found["normalized"] == normalized]
        assert len(found) >= 1, (table, dataset, projector, row)
        assert found["value"].to_numpy() == pytest.approx(value, abs=0.05)
        assert (found["printed"] == value).all()
        assert f"{found['value'].iloc[0]:.1f}" == f"{value:.1f}"
        compared += 1
    assert compared == 250


def test_printed_settings_of_the_peaks_are_among_the_winners(tidy: dict[int, pd.DataFrame]) -> None:
    for (dataset, projector), settings in printed.peak_settings().items():
        winners = tidy[2][(tidy[2]["dataset"] == dataset) & (tidy[2]["projector"] == projector)]
        assert any(all(w[k] == v for k, v in settings.items()) for _, w in winners.iterrows()), (dataset, projector)


def test_ties_are_all_listed_larger_output_first(tidy: dict[int, pd.DataFrame]) -> None:
    ties = tidy[2][(tidy[2]["dataset"] == "Imagenette") & (tidy[2]["projector"] == "ae")]
    assert ties[["hidden_dim", "output_dim"]].to_numpy().tolist() == [[256, 128], [512, 64]]


def test_headline_is_the_paper_s(tidy: dict[int, pd.DataFrame]) -> None:
    found = tables.headline(tidy[2])
    assert found is not None
    assert (round(found.mean, 2), round(found.largest, 1), found.largest_set) == (1.74, 2.9, "STL10")
    assert (found.printed_mean, found.printed_largest) == (1.74, 2.9)


def test_written_tables_have_the_agreed_columns(authors: Path, authors_report: Path) -> None:
    assert authors_report == authors / "report.html"
    for number in range(2, 7):
        frame = pd.read_csv(authors / "tables" / f"table{number}.csv")
        assert (
            ",".join(frame.columns) == "dataset,projector,normalized,row,value,printed,hidden_dim,activation,output_dim"
        )
        assert set(frame["dataset"]) == set(SETS)
        filled = frame[["hidden_dim", "activation", "output_dim"]].notna().all(axis=None)
        assert filled == (number == 2)
        assert set(frame["projector"]) == ({"ae"} if number == 6 else {"ae", "mlp", "autoencoder-trainable"})
        assert frame["normalized"].isna().all() == (number in (4, 5))
        assert (authors / "tables" / f"table{number}.md").read_text().startswith(f"**Table {number}.**")
        assert r"\begin{tabular}" in (authors / "tables" / f"table{number}.tex").read_text()
    words = (authors / "tables" / "answer.md").read_text()
    assert words.startswith("**Frozen autoencoder beats trainable random by 2.8 points (1.4 to 4.2 over 15 auto")
    assert "\n- There is one seed: " in words
    assert "Imagenette,ae,,ReLU," in (authors / "tables" / "table5.csv").read_text()
    assert "CIFAR10,ae,False,frozen max," in (authors / "tables" / "table6.csv").read_text()
    assert "CIFAR10,mlp,True,std. dev.," in (authors / "tables" / "table3.csv").read_text()
    assert "STL10,mlp,True,max," in (authors / "tables" / "table2.csv").read_text()


# ------------------------------------------------------------------------------------------------------- altered copies


def _alter(reference: Path, out: Path, seed: int) -> None:
    """Copies with a random tenth of the runs, all accuracies redrawn (some tied), rows in another order."""
    rng = np.random.default_rng(seed)
    out.mkdir()
    (out / "ae-train.csv").write_bytes((reference / "ae-train.csv").read_bytes())
    for suffix in ("", "-ae-nonfrozen"):
        train, evaluation = (
            list(csv.reader((reference / f"simclr-{kind}{suffix}.csv").open(newline=""))) for kind in ("train", "eval")
        )
        key = train[0].index("simclr_model_ckpt")
        share = 0.6 if suffix else 0.15
        kept = {row[key] for row in train[1:] if rng.random() < share}
        for kind, rows in (("train", train), ("eval", evaluation)):
            at = rows[0].index("simclr_model_ckpt")
            chosen = [row for row in rows[1:] if row[at] in kept]
            rng.shuffle(chosen)
            if kind == "eval":
                accuracy = rows[0].index("test_micro_MulticlassAccuracy")
                for row in chosen:
                    row[accuracy] = f"{rng.integers(100, 140) / 200:.3f}".replace(".", ",")
            with (out / f"simclr-{kind}{suffix}.csv").open("w", newline="") as file:
                csv.writer(file).writerows([rows[0], *chosen])


def _independent(folder: Path) -> dict[tuple[Any, ...], float]:
    """Tables 2 to 6 by plain pandas, straight from the evaluation files."""
    frames = [pd.read_csv(folder / f"simclr-eval{s}.csv", decimal=",") for s in ("", "-ae-nonfrozen")]
    e = pd.concat(frames).rename(
        columns={
            "dataset_name": "d",
            "projection_head_embedding_dim": "h",
            "latent_dimensions": "z",
            "projection_head_activation": "a",
            "standardize": "n",
            "freeze_projection_head": "f",
        }
    )
    e["v"] = 100 * e["test_micro_MulticlassAccuracy"]
    e["p"] = np.where(e["projection_head"] == "mlp", "mlp", np.where(e["f"], "ae", "autoencoder-trainable"))
    out: dict[tuple[Any, ...], float] = {}
    for (d, p), g in e.groupby(["d", "p"]):
        out[2, d, p, "max", None] = g["v"].max()
        for n, part in g.groupby("n"):
            q = np.percentile(part["v"], [25, 75])
            out[3, d, p, "minimum", n], out[3, d, p, "maximum", n] = part["v"].min(), part["v"].max()
            out[3, d, p, "average", n], out[3, d, p, "range", n] = part["v"].mean(), np.ptp(part["v"])
            out[3, d, p, "midspread", n] = q[1] - q[0]
            out[3, d, p, "std. dev.", n] = np.std(part["v"], ddof=1) if len(part) > 1 else np.nan
        out |= {(4, d, p, f"hidden_dim={k}", None): v for k, v in g.groupby("h")["v"].mean().items()}
        out |= {(4, d, p, f"output_dim={k}", None): v for k, v in g.groupby("z")["v"].mean().items()}
        out |= {(5, d, p, k, None): v for k, v in g.groupby("a")["v"].mean().items()}
    six = e[(e["projection_head"] == "ae") & (e["a"] == "Sigmoid") & ~e["n"]]
    for d, g in six.groupby("d"):
        if g["f"].nunique() == 2:
            for f, name in ((True, "frozen"), (False, "not frozen")):
                out[6, d, "ae", f"{name} max", False] = g.loc[g["f"] == f, "v"].max()
                out[6, d, "ae", f"{name} avg", False] = g.loc[g["f"] == f, "v"].mean()
    return out


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_tables_follow_altered_exports(
    seed: int, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    _alter(reference, tmp_path / "csv", seed)
    import_csv([tmp_path / "csv" / name for name in EXPORTS], tmp_path / "study")
    found = tables.tidy(frame.read(tmp_path / "study").runs)
    ours = {
        (t, r.dataset, r.projector, r.row, r.normalized if t in (3, 6) else None): r.value
        for t, frame in found.items()
        for r in frame.itertuples()
    }
    expected = _independent(tmp_path / "csv")
    assert ours.keys() == expected.keys()
    assert len(ours) > 150
    for key, value in expected.items():
        assert ours[key] == pytest.approx(value, abs=1e-9, nan_ok=True), key
    for _, winners in found[2].groupby(["dataset", "projector"], observed=True):
        assert winners["output_dim"].is_monotonic_decreasing
        assert winners["value"].nunique() == 1
    assert len(found[2]) > found[2].groupby(["dataset", "projector"], observed=True).ngroups, "no tie was drawn"


def test_other_heads_have_names_of_their_own(make_run: Callable[..., Path], tmp_path: Path) -> None:
    for init, frozen in (("autoencoder", True), ("random", False), ("orthogonal", True), ("pca", False)):
        make_run(tmp_path / "runs" / f"{init}-{frozen}", init=init, frozen=frozen, activation="gelu")
    found = tables.tidy(frame.read(tmp_path).runs)
    assert list(found[2]["projector"]) == ["ae", "mlp", "orthogonal-frozen", "pca-trainable"]
    assert set(found[5]["row"]) == {"GELU"}
    assert found[6].empty
    assert found[3].loc[found[3]["row"] == "std. dev.", "value"].isna().all(), "one run has no spread"


def test_probe_chooses_the_accuracy(make_run: Callable[..., Path], tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "a", accuracy=0.8, probes=("linear", "knn"))
    assert frame.read(tmp_path).probe == "linear"
    assert tables.tidy(frame.read(tmp_path, "knn").runs)[2]["value"].tolist() == [80.0]
    again = frame.judged(frame.read(tmp_path), "knn")
    assert again.probe == "knn"
    pd.testing.assert_frame_equal(again.runs, frame.read(tmp_path, "knn").runs)


def test_the_report_never_imports_torch(make_run: Callable[..., Path], tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    code = (
        "import sys; from headstart.report import write_report; write_report(sys.argv[1]); "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], check=True)


def test_trained_parameters_of_the_head_are_the_rows_own(authors: Path) -> None:
    study = frame.read(authors)
    stated = [study.results[run]["imported"]["training"]["simclr_trainable_params"] for run in study.runs["run"]]
    resnet34 = 21_284_672  # without its classifier
    assert (study.runs["parameters"] + resnet34).tolist() == stated


def test_nothing_that_rounds_to_zero_has_a_sign() -> None:
    assert [tables.TableCell("93.0", "93.1", off).signed for off in (0.04, -0.04, -0.1, None)] == [
        "0.0",
        "0.0",
        "−0.1",
        "",
    ]
