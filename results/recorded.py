"""What the scripts beside this file read: the committed studies, and the figures that their runs recorded."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from headstart.records.errors import InputError
from headstart.report import frame
from headstart.statistics import Interval

HERE = Path(__file__).parent
DRAWS = 2000
"""Of the bootstrap over runs."""
Line = dict[str, Any]


class UnreadError(InputError):
    """What a script tells of is not on this machine: what a page has from it stays as it is."""


@cache
def read(study: Path) -> frame.Records:
    """A committed study, read once in a process."""
    return frame.read(study)


def forget() -> None:
    """Have every study read again: records have come, or another folder is in their place."""
    for kept in (read, studies, whole_studies):
        kept.cache_clear()


@cache
def studies(root: Path = HERE) -> tuple[tuple[str, frame.Records], ...]:
    """Every study with a SimCLR run, by its name below results/ and the probe that decides in it.

    A run of two studies (the paper's two heads stand in several) is one of the larger alone.
    """
    seen: set[str] = set()
    found = []
    for name, records in sorted(whole_studies(root), key=lambda one: -len(one[1].runs)):
        runs = records.runs[~records.runs["same"].isin(seen)]
        seen |= {*runs["same"]}
        if len(runs):
            found.append((name, replace(records, runs=runs)))
    return tuple(sorted(found, key=lambda one: one[0]))


@cache
def whole_studies(root: Path = HERE) -> tuple[tuple[str, frame.Records], ...]:
    """The same with all runs that a study has; `same` has one value where two studies share a run."""
    found = []
    for path in sorted(root.rglob("study.yaml")):
        records = read(path.parent)
        results = (records.results[run] for run in records.runs["run"])
        same = [f"{result['config_hash']} {result['data']['fingerprint']}" for result in results]
        name = path.parent.relative_to(root).as_posix()
        found.append((name, replace(records, runs=records.runs.assign(same=same))))
    return tuple(found)


def of_sets(records: frame.Records) -> Iterator[tuple[str, pd.DataFrame]]:
    """The runs of each set of a study, whatever settings they vary."""
    for name, runs in records.runs.groupby("set", observed=True):
        yield str(name), runs


def epochs(records: frame.Records, run: str) -> list[Line]:
    """What was recorded of h and z of validation views after each epoch of SimCLR, in order."""
    return [line for line in records.curves[run] if line.get("stage") == "contrastive" and "h_alignment" in line]


def effective_rank(singular_values: list[float]) -> float:
    """exp of the entropy of their shares: 1 (one direction) to their number."""
    values = np.array(singular_values)
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def accuracies(records: frame.Records, run: str) -> dict[str, float]:
    """Accuracy of each probe, in percent."""
    return {name: 100 * found["accuracy"] for name, found in records.results[run]["probes"].items()}


def ranked(values: pd.DataFrame) -> dict[str, np.ndarray]:
    """Ranks (1 + DRAWS, runs) of each column that every run has and that varies: as it is, and as runs are drawn."""
    draws = np.random.default_rng(0).integers(0, len(values), (DRAWS, len(values)))
    found = {}
    for column in values:
        x = values[column].to_numpy(float)
        if np.isfinite(x).all() and np.ptp(x):
            found[str(column)] = rankdata(np.vstack([x, x[draws]]), axis=1)
    return found


def correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's correlation of each row of ranks, which is Spearman's; nan where a row is of one value."""
    a, b = (ranks - ranks.mean(axis=1, keepdims=True) for ranks in (a, b))
    with np.errstate(invalid="ignore"):
        found: np.ndarray = (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))
    return found


def middle(draws: np.ndarray) -> Interval:
    """The middle 95 % of a bootstrap's draws."""
    low, high = np.nanquantile(draws, (0.025, 0.975))
    return float(low), float(high)


def two(value: float) -> str:
    """Two decimals, and no minus before zero."""
    return f"{value:.2f}".replace("-0.00", "0.00")


def table(head: list[str], rows: list[list[str]], left: int = 1) -> str:
    """Markdown; the first `left` columns are words, the others numbers."""
    marks = ["---" if place < left else "---:" for place in range(len(head))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, marks, *rows])
