"""Which rows of somebody's table are matched, as numbers: a table of many runs is compared as fast as one of few.

Comes in: rows and the roles of their columns. Goes out: `Pairing`s of every two levels, pooled and on each data set,
and the mean of each level.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isnan

import numpy as np
import pandas as pd

from headstart.records.text import first_few, printable
from headstart.report.columns import Roles
from headstart.report.comparisons import Measure
from headstart.report.delimited import NOTHING, PLACE
from headstart.report.matching import Pairing
from headstart.report.words import listed
from headstart.statistics import clustered

MOST_NAMED = 5
"""Rows that a sentence names; it counts the others."""


def named(rows: pd.DataFrame) -> str:
    """Where the rows stand: the first few, and how many more."""
    return first_few([printable(str(place)) for place in rows[PLACE]], MOST_NAMED)


def cells_of(judged: pd.DataFrame, metric: str, roles: Roles) -> tuple[pd.DataFrame, list[str]]:
    """Rows as they are paired: those that repeat each other in everything count once, by their mean."""
    keys = [*dict.fromkeys([roles.by, *roles.pair, *([roles.cluster] if roles.cluster else [])])]
    again = judged.duplicated(keys, keep=False)
    if not again.any():
        return judged.reset_index(drop=True), []
    means = judged.groupby(keys, sort=False)[metric].mean()
    once = judged.drop_duplicates(keys).set_index(keys).assign(**{metric: means}).reset_index()
    return once, [
        f"{int(again.sum())} rows repeat another in {listed(keys)}: each such group counts once, by its mean "
        f"({named(judged[again])})."
    ]


@dataclass(frozen=True)
class _Cells:
    """What of each row decides how it is paired; a label each, and codes of what two rows of a pair agree in.

    `of_cluster` holds codes of `key` and `cluster` together; a row without a cluster has the label "".
    """

    key: np.ndarray
    of_cluster: np.ndarray
    where: np.ndarray
    sets: np.ndarray
    seed: np.ndarray
    seed_on_set: np.ndarray
    cluster: np.ndarray | None

    @classmethod
    def of(cls, cells: pd.DataFrame, roles: Roles) -> "_Cells":
        n = len(cells)
        key = _codes(cells, roles.pair)
        place = cells[roles.dataset].to_numpy(dtype=str) if roles.dataset else np.full(n, "")
        seed = cells[roles.seed].to_numpy(dtype=str) if roles.seed else np.full(n, "0")
        cluster = cells[roles.cluster].to_numpy(dtype=str) if roles.cluster else None
        sets, where = np.unique(place, return_inverse=True)
        return cls(
            key=key,
            of_cluster=_codes(cells, [*roles.pair, roles.cluster]) if roles.cluster else key,
            where=where,
            sets=sets,
            seed=seed,
            seed_on_set=np.char.add(np.char.add(place, " "), seed),
            cluster=None if cluster is None else np.where(cluster == NOTHING, "", cluster),
        )


def _codes(cells: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """A number a row, the same where all columns agree."""
    alike = list(dict.fromkeys(names))
    return cells.groupby(alike, sort=False).ngroup().to_numpy() if alike else np.zeros(len(cells), int)


def pairings_of(cells: pd.DataFrame, roles: Roles, baseline: str | None) -> list[Pairing]:
    """Every two levels (or each with the baseline), matched: pooled, and on each data set."""
    known = _Cells.of(cells, roles)
    levels, of_row = np.unique(cells[roles.by].to_numpy(dtype=str), return_inverse=True)
    parts = {str(level): np.flatnonzero(of_row == i) for i, level in enumerate(levels)}
    found: list[Pairing] = []
    for a, b in combinations(dict.fromkeys(cells[roles.by]), 2):
        if baseline in (a, b) or baseline is None:
            a, b = (b, a) if a == baseline else (a, b)
            first, second = _matched(known, parts[a], parts[b])
            found += _scoped(known, roles, a, b, first, second)
    return found


def _matched(cells: _Cells, one: np.ndarray, two: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of every pair whose keys agree; where pairs share a cluster, of those alone that do or lack one."""
    if cells.cluster is None:
        return _merged(cells.key, one, two)
    first, second = _merged(cells.of_cluster, one, two)
    has = cells.cluster != ""
    if not has[first].any():
        return _merged(cells.key, one, two)
    for some, others in ((one[has[one]], two[~has[two]]), (one[~has[one]], two[has[two]])):
        more = _merged(cells.key, some, others)
        first, second = np.append(first, more[0]), np.append(second, more[1])
    return first, second


def _merged(key: np.ndarray, one: np.ndarray, two: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    left = pd.DataFrame({"key": key[one], "first": one})
    both = left.merge(pd.DataFrame({"key": key[two], "second": two}), on="key")
    return both["first"].to_numpy(), both["second"].to_numpy()


def _scoped(cells: _Cells, roles: Roles, a: str, b: str, first: np.ndarray, second: np.ndarray) -> Iterator[Pairing]:
    """Pairings of two levels, pooled and on each data set, with the seeds and clusters that pairs share."""
    if first.size == 0:
        return
    where = cells.where[first]
    order = np.argsort(where, kind="stable")
    codes, starts = np.unique(where[order], return_index=True)
    scopes: list[tuple[str | None, np.ndarray]] = [(None, np.arange(first.size))] if len(codes) > 1 else []
    scopes += [(str(cells.sets[c]), rows) for c, rows in zip(codes, np.split(order, starts[1:]), strict=True)]
    for dataset, rows in scopes:
        one, two = first[rows], second[rows]
        seeds, draws, kind, thing = _shared(cells, roles, dataset, one, two)
        yield Pairing(
            factor=roles.by,
            a=a,
            b=b,
            dataset=dataset if roles.dataset else None,
            family="all",
            first=one,
            second=two,
            seeds=seeds,
            draws=draws,
            thing=thing,
            kind=kind,
        )


def _shared(
    cells: _Cells, roles: Roles, dataset: str | None, one: np.ndarray, two: np.ndarray
) -> tuple[np.ndarray, np.ndarray, str, str]:
    """What pairs share, of two kinds, and a word for each: a seed, and the given cluster; else, over several sets, the
    set; else nothing. With one seed, rows of different clusters share the cluster of the one, and that of the other."""
    seeds = cells.seed[one]
    several = len(np.unique(seeds)) > 1
    if several:
        seeds = cells.seed_on_set[one]
    if cells.cluster is not None:
        thing = "autoencoder" if roles.cluster in ("autoencoder", "projection_head_weights") else "cluster"
        a, b = cells.cluster[one], cells.cluster[two]
        if not several and ((a != b) & (a != "") & (b != "")).any():
            return a, b, thing, thing
        return seeds, _both(a, b), "seed", thing
    if dataset is None and roles.dataset:
        return seeds, cells.sets[cells.where[one]], "seed", "data set"
    if roles.seed and several:
        return seeds, np.full(one.size, ""), "seed", "draw"
    return seeds, np.arange(one.size).astype(str), "seed", "pair"


def _both(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Of a pair, the cluster of the one that has any; of two, both."""
    joined = np.char.add(np.char.add(one, " | "), two)
    return np.where(one == two, one, np.where(one == "", two, np.where(two == "", one, joined)))


def means_of(table: pd.DataFrame, measure: Measure, roles: Roles) -> pd.DataFrame:
    """Mean and interval of each level on each data set, over seeds; shares stay within 0 and 1."""
    known = table[table[measure.name].notna()]
    values = known[measure.name].to_numpy(float)
    shared = known[roles.seed].astype(str).to_numpy(dtype=str) if roles.seed else None
    where = known[roles.dataset].astype(str).fillna("nan") if roles.dataset else pd.Series("all", index=known.index)
    groups = known.groupby([where, known[roles.by].astype(str)], sort=False, observed=True).indices
    rows = []
    for (dataset, level), at in groups.items():
        labels = None if shared is None else shared[at]
        one_seed = labels is None or bool((labels == labels[0]).all())
        found = clustered(values[at], np.arange(at.size) if one_seed or labels is None else labels)
        low, high = found.interval
        if measure.scale == 100.0 and not isnan(low):
            low, high = max(0.0, low), min(1.0, high)
        rows.append((measure.name, dataset, level, at.size, found.mean, low, high))
    return pd.DataFrame(rows, columns=["metric", "data set", "level", "rows", "mean", "low", "high"])
