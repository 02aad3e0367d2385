"""How often `headstart compare` is wrong: simulated tables in which no method differs, and in which one does.

    python -m benchmarks compare_errors [--draws 1000] [--out docs/compare-errors.csv]

A table has four methods over data sets and seeds, with noise that a method's runs share within a seed, within a data
set, or not at all. `false` is the share of tables in which any of three comparisons with the first method "beats";
`covered` the share of 95 % intervals that hold a true difference of three points.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from headstart.report.columns import find
from headstart.report.comparisons import POINTS, corrected, test
from headstart.report.matching import Pairing
from headstart.report.rows import cells_of, pairings_of

METHODS = ("a", "b", "c", "d")
SHIFT = 0.03


@dataclass(frozen=True)
class Scenario:
    """Noise shared within (method, data set, seed) and within (method, data set), and each run's own."""

    sets: int
    seeds: int
    seed: float
    dataset: float
    settings: int = 2
    own: float = 0.01
    heavy: bool = False
    missing: float = 0.0
    unbalanced: bool = False


SCENARIOS = {
    "seed noise": Scenario(1, 6, seed=0.02, dataset=0.0),
    "data-set noise": Scenario(6, 3, seed=0.0, dataset=0.02),
    "both": Scenario(6, 4, seed=0.02, dataset=0.02),
    "unbalanced": Scenario(6, 6, seed=0.02, dataset=0.01, unbalanced=True),
    "missing cells": Scenario(1, 10, seed=0.02, dataset=0.0, settings=3, missing=0.3),
    "heavy tails": Scenario(1, 8, seed=0.02, dataset=0.0, heavy=True),
}


def _table(scenario: Scenario, rng: np.random.Generator) -> pd.DataFrame:
    cells = product(METHODS, range(scenario.sets), range(scenario.seeds), range(scenario.settings))
    table = pd.DataFrame(cells, columns=["method", "dataset", "seed", "lr"])
    if scenario.unbalanced:  # the first data sets have all seeds, the last ones few
        table = table[table["seed"] < scenario.seeds - table["dataset"] % (scenario.seeds - 1)]
    kept = rng.random(len(table)) >= scenario.missing
    return table[kept].reset_index(drop=True).assign(accuracy=0.5, **{"where it stands": ""})


def _noise(table: pd.DataFrame, scenario: Scenario, rng: np.random.Generator, draws: int) -> Iterator[np.ndarray]:
    by_seed = table.groupby(["method", "dataset", "seed"]).ngroup().to_numpy()
    by_set = table.groupby(["method", "dataset"]).ngroup().to_numpy()

    def draw(size: int) -> np.ndarray:
        return rng.standard_t(3, size) / np.sqrt(3) if scenario.heavy else rng.normal(size=size)

    for _ in range(draws):
        shared = scenario.seed * draw(by_seed.max() + 1)[by_seed] + scenario.dataset * draw(by_set.max() + 1)[by_set]
        yield 0.5 + shared + scenario.own * draw(len(table))


def rates(name: str, draws: int, seed: int = 0) -> tuple[float, float]:
    """Share of tables with a false `beats`, and share of intervals that cover a true difference."""
    scenario, rng = SCENARIOS[name], np.random.default_rng([seed, *map(ord, name)])
    table = _table(scenario, rng)
    roles = find(table, ["accuracy"], "method")
    cells, _ = cells_of(table, "accuracy", roles)
    found = pairings_of(cells, roles, baseline="a")
    scoped = [p for p in found if p.dataset is None] or found
    wrong = covered = 0
    for values in _noise(cells, scenario, rng, draws):
        wrong += any(d.verdict == "beats" for d in _decided(scoped, values))
        low, high = test(scoped[0], values + SHIFT * (cells["method"] == scoped[0].a).to_numpy(), None, POINTS).interval
        covered += low <= 100 * SHIFT <= high
    return wrong / draws, covered / draws


def _decided(pairings: list[Pairing], values: np.ndarray) -> list[Any]:
    return corrected(pairings, [test(p, values, None, POINTS) for p in pairings])


def main(arguments: list[str]) -> None:
    """Simulate every scenario, print and write the rates."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks compare_errors", description=__doc__)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args(arguments)
    rows = [(name, asked.draws, *rates(name, asked.draws)) for name in SCENARIOS]
    text = pd.DataFrame(rows, columns=["scenario", "tables", "false", "covered"]).to_csv(index=False)
    print(text)
    if asked.out is not None:
        asked.out.write_text(text)
