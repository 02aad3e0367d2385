"""results/: what is printed of all studies together, held against plain computations and small tables."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts find each other, as they do when one of them is the program."""
    monkeypatch.syspath_prepend(str(ROOT / "results"))


def script(name: str) -> ModuleType:
    return importlib.import_module(name)


def test_rank_correlations_are_scipys_ties_included() -> None:
    rng = np.random.default_rng(0)
    values = pd.DataFrame({"figure": rng.integers(0, 5, 30), "probe": rng.normal(size=30), "same": 1.0})
    recorded = script("recorded")
    ranks = recorded.ranked(values)
    assert set(ranks) == {"figure", "probe"}
    found = recorded.correlations(ranks["figure"], ranks["probe"])
    assert found[0] == pytest.approx(spearmanr(values["figure"], values["probe"]).statistic)
    draws = np.random.default_rng(0).integers(0, 30, (recorded.DRAWS, 30))
    for k in (0, 7, recorded.DRAWS - 1):
        drawn = values.iloc[draws[k]]
        assert found[1 + k] == pytest.approx(spearmanr(drawn["figure"], drawn["probe"]).statistic)


def test_settings_are_averaged_by_fishers_z() -> None:
    agreement = script("agreement")
    rng = np.random.default_rng(1)

    def one(rho: float, runs: int) -> Any:
        draws = np.clip(rho + rng.normal(size=200) / 20, -1, 1)
        return agreement.Agreement(f"of {runs}", False, "knn", "RankMe of z", rng.normal(size=(2, runs)), rho, draws)

    (found,) = agreement.over_settings([one(0.8, 13), one(0.2, 33)])
    assert (found.settings, found.runs) == (2, 46)
    assert found.rho == pytest.approx(np.tanh((10 * np.arctanh(0.8) + 30 * np.arctanh(0.2)) / 40))
    assert found.interval[0] < found.rho < found.interval[1]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ([(0.2, 0.01), (1.5, 0.02)], "supported in 2 of 2 settings"),
        ([(0.2, 0.04), (1.5, 0.06)], "not settled"),
        ([(0.2, 0.04), (1.5, 0.02), (1.0, 0.01)], "supported in 3 of 3 settings"),
        ([(0.2, 0.01)], "supported in one setting"),
        ([(0.2, 0.01), (0.5, 0.5)], "supported in 1 of 2 settings"),
        ([(0.0, 0.9)], "not settled"),
        ([(0.0, 0.9), (-2.0, 0.02)], "contradicted in 1 of 2 settings"),
        ([(0.0, 0.9), (-2.0, 0.04)], "not settled"),
        ([(0.3, 0.01), (-2.0, 0.02)], "mixed, above in 1 and below in 1 of 2 settings"),
    ],
)
def test_a_contribution_is_judged_by_all_its_settings_corrected(settings: list[tuple[float, float]], said: str) -> None:
    contributions = script("contributions")
    found = [contributions.Difference("here", mean, (mean, mean), p, 6, "6 seeds") for mean, p in settings]
    assert contributions.verdict(found) == said
    assert contributions.verdict([one._replace(seeds=4) for one in found]) == "not settled"
    assert "no run varies it" in contributions.sentence("(1) It", [])


def test_pairs_agree_in_all_but_what_is_asked_about() -> None:
    contributions = script("contributions")
    rows = [
        {"start": start, "frozen": frozen, "activation": activation, "seed": seed, "percent": percent + seed}
        for start, frozen, activation, percent in (
            ("autoencoder", True, "ReLU", 50.0),
            ("random", False, "ReLU", 48.0),
            ("random", False, "Sigmoid", 40.0),  # no partner for the first question
        )
        for seed in range(3)
    ]
    table = pd.DataFrame(rows).assign(dataset="digits", hidden_dim=256, output_dim=128)
    table["same"] = [str(row) for row in range(len(table))]
    table.loc[0, "percent"] += 1.5
    runs = [("digits", table)]
    (embedding,) = contributions.differences(runs, contributions.EMBEDDING, contributions.PLAIN)
    assert embedding.mean == pytest.approx(2.5)
    assert embedding.over == "3 seeds"
    assert embedding.interval[0] < 2.5 < embedding.interval[1]
    other = ("of another study", table[table["activation"] == "ReLU"].assign(percent=0.0))
    assert contributions.differences([other, ("more", pd.concat([table, table.assign(dataset="x", same="x")]))],
                                     contributions.EMBEDDING, contributions.PLAIN)[0].where == "more"  # fmt: skip
    lone = table[(table["seed"] == 0) & (table["activation"] == "ReLU")].assign(start="pca", same="p")
    (frozen,) = contributions.differences(
        [("digits", pd.concat([table.assign(start="autoencoder"), lone]))], {"frozen": True}, {"frozen": False}
    )
    assert "averaged" not in frozen.over, "a start of one seed is none of those that are averaged"
    frozen_starts = [("autoencoder", 50.0, 3), ("random", 48.0, 3), ("pca", 45.0, 3), ("shuffled", 0.0, 1)]
    starts = pd.DataFrame(
        [
            (start, True, "ReLU", seed, percent + seed)
            for start, percent, seeds in frozen_starts
            for seed in range(seeds)
        ],
        columns=["start", "frozen", "activation", "seed", "percent"],
    ).assign(dataset="digits", hidden_dim=256, output_dim=128, same=lambda made: made.index.astype(str))
    (controls,) = contributions.differences([("digits", starts)], contributions.EMBEDDING, contributions.CONTROLS)
    assert controls.mean == pytest.approx(3.5)
    assert (controls.heads, controls.over) == (2, "3 seeds, 2 heads averaged")
    (sigmoid,) = contributions.differences(runs, {"activation": "Sigmoid"}, {"activation": "ReLU"})
    assert sigmoid.mean == pytest.approx(-8.0)
    assert (
        contributions.differences([("two seeds", table[table["seed"] < 2])], {"frozen": True}, {"frozen": False}) == []
    )


def test_a_run_of_two_studies_is_counted_once() -> None:
    seen = [
        (records.results[run]["config_hash"], records.results[run]["data"]["fingerprint"])
        for _, records in script("recorded").studies()
        for run in records.runs["run"]
    ]
    assert len(seen) == len(set(seen)) > 300


def test_the_page_has_a_block_of_every_script() -> None:
    page = script("page")
    blocks = {found[2] for one in page.pages() for found in page.BLOCK.finditer(one.read_text(encoding="utf-8"))}
    of_seeds = ("studies", "contributions", "authors", "pixels", "zscore", "objectives", "power")
    for name in (*of_seeds, "why", "gradient", "agreement"):
        assert f"{name}.py" in blocks


def test_what_cannot_be_read_here_stays_on_the_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEADSTART_DATA", str(tmp_path))
    text = "<!-- authors.py -->\n\nas it was\n\n<!-- end -->\n"
    assert script("page").written(text, tmp_path) == text


def test_the_authors_runs_are_told_from_their_files(reference: Path) -> None:
    path = ROOT / "results" / "authors.py"
    environment = {**os.environ, "HEADSTART_DATA": str(reference.parent)}
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, check=True, env=environment)
    lines = done.stdout.splitlines()
    assert len(lines) == 8
    assert "+2.8 (" in lines[0]
    assert "282 of 360 pairs" in lines[0]
    page = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    assert not [line for line in lines if line not in page]
