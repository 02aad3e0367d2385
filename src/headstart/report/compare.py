"""Which difference is real, for anybody's runs: matched pairs of a table, decided and said as a study's are.

Comes in: a table of runs, the metric and the column that is compared. Goes out: `Compared`: sentences, a table of
comparisons, means of the levels, a ranking across data sets. The pairing, the clustered test, the correction and the
words are those of a study's report (matching, comparisons, words).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, isnan, log10, sqrt
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from headstart.records.errors import InputError
from headstart.records.text import be, number, printable
from headstart.report import pairing as study_pairing
from headstart.report import runs_csv
from headstart.report.columns import Roles, files_of, find, lower_is_better
from headstart.report.comparisons import (
    ALPHA,
    ENOUGH_CLUSTERS,
    Comparison,
    Measure,
    corrected,
    table_of,
    test,
    widest,
)
from headstart.report.delimited import NUMBER, PLACE, spelt, spelt_one
from headstart.report.matching import Pairing
from headstart.report.ranking import COLUMNS as RANKS
from headstart.report.ranking import Ranking, ranking
from headstart.report.rows import cells_of, means_of, named, pairings_of
from headstart.report.words import described, listed
from headstart.statistics import clusters_needed

MOST_LEVELS = 40
LARGEST = 1e150
"""Measured numbers stay below it; MLflow writes infinity as 1.8e308."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What a table of runs supports.

    Attributes:
        headline: the sentence a reader should leave with.
        sentences: the other comparisons; pooled where there are several data sets, then set by set.
        caveats: what the data cannot say, what was left out, and how many more clusters would settle what is open.
        comparisons: all of them, with intervals, wins and losses, and p-values corrected by Holm's method: the pooled
            ones, whatever the metric, are one family, and those of each data set another.
        levels: a row a metric, data set and level: rows, mean, 95 % interval over seeds.
        rankings: for each metric, ranks across data sets with their test; none for one set.
        columns: which column was taken for what, what is not matched on and why, and of which metrics less is better.
        table: the rows that were compared.
    """

    headline: str
    sentences: list[str]
    caveats: list[str]
    comparisons: list[Comparison]
    levels: pd.DataFrame
    rankings: list[Ranking]
    columns: str
    table: pd.DataFrame = field(repr=False)

    @property
    def ranks(self) -> pd.DataFrame:
        """A row a metric and level: its mean rank over data sets, and the tests; empty for one set."""
        tables = [one.table for one in self.rankings]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=RANKS)

    @property
    def ranking(self) -> list[str]:
        """What the ranks say."""
        return [sentence for one in self.rankings for sentence in one.sentences]

    def frame(self) -> pd.DataFrame:
        """A row a comparison: metric, the two levels, mean, interval, p, Holm's p, pairs, wins, losses, clusters."""
        return table_of(self.comparisons)

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        words = ("headline", "sentences", "ranking", "caveats", "columns")
        tables = {"comparisons": self.frame(), "levels": self.levels, "ranks": self.ranks}
        return {name: getattr(self, name) for name in words} | {n: _json_rows(table) for n, table in tables.items()}


def _json_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{str(k): v.item() if isinstance(v, np.generic) else v for k, v in row.items()} for row in rows]


def compare(
    frame: pd.DataFrame,
    *,
    metric: str | Sequence[str],
    by: str,
    pair: str | Sequence[str] | None = None,
    seed: str | None = None,
    cluster: str | None = None,
    baseline: str | None = None,
    higher: bool | None = None,
) -> Compared:
    """Compare the levels of `by` in matched pairs of rows.

    Args:
        frame: a row a run; named levels of its index are columns.
        metric: the column, or several, which are then corrected together.
        by: the column whose values are compared.
        pair: the column, or several, in which a pair agrees, besides the seed and the data set. Unset: all that are
            neither outcomes, nor names of runs, nor bound to `by`.
        seed, cluster: columns; rows that share a value of either are one piece of evidence. Unset: by usual names.
        baseline: compare every level with this one alone.
        higher: whether more is better. Unset: by the metric's name (loss, error, time ... are better lower).

    Raises:
        InputError: naming a column or row that is not what it must be.

    >>> runs = pd.DataFrame({
    ...     "method": ["old"] * 5 + ["new"] * 5,
    ...     "seed": [*range(5), *range(5)],
    ...     "accuracy": [0.80, 0.82, 0.81, 0.79, 0.83, 0.83, 0.85, 0.83, 0.82, 0.86],
    ... })
    >>> compare(runs, metric="accuracy", by="method").headline
    'New beats old by 2.8 points (2.2 to 3.4 over 5 seeds; 5 of 5 pairs).'
    """
    if not isinstance(frame, pd.DataFrame):
        raise InputError(f"the runs are of type {type(frame).__name__}; they must be a pandas.DataFrame, a row a run")
    pair = [pair] if isinstance(pair, str) else pair
    for option, names in (("metric", metric), ("by", by), ("pair", pair or ())):
        several = names if option != "by" and isinstance(names, Sequence) and not isinstance(names, str) else [names]
        if not all(isinstance(name, str) for name in several):
            raise InputError(f"{option} is {names!r}; it must be a column's name{' or several' * (option != 'by')}")
    metrics = [metric] if isinstance(metric, str) else list(metric)
    if not metrics:
        raise InputError("no metric is given; give the column that is judged, or several")
    table = _plain(frame)
    if runs_csv.is_study(table.columns) and not (pair or cluster) and seed in (None, "seed"):
        runs = runs_csv.restored(table.drop(columns=PLACE), list(table[PLACE]))
        factor = study_pairing.factor_of(by)
        if factor in study_pairing.factors(runs):
            return _of_study(runs, metrics, factor, baseline, higher)
    return _compared(table, find(table, metrics, by, pair, seed, cluster), baseline, higher)


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame as a file is read: names are text, a named index is a column, a list or a dict is its text."""
    levels = [name for name in frame.index.names if name is not None and name not in frame]
    table = frame.reset_index(level=levels).reset_index(drop=True).rename(columns=str)
    twice = table.columns[table.columns.duplicated()]
    if len(twice):
        raise InputError(f"there are two columns {printable(twice[0])!r}")
    words = [name for name in table if table[name].dtype == object]
    table = table.assign(**{name: table[name].map(_text_of_nested) for name in words})
    return table if PLACE in table else table.assign(**{PLACE: [f"row {i}" for i in range(1, len(table) + 1)]})


def _text_of_nested(cell: object) -> object:
    return json.dumps(cell, default=str) if isinstance(cell, (list, tuple, set, dict, np.ndarray)) else cell


# ----------------------------------------------------------------------------------------------------- somebody's table


def _compared(table: pd.DataFrame, roles: Roles, baseline: str | None, higher: bool | None) -> Compared:
    said = []
    absent = table[roles.by].isna() | table[roles.by].astype(str).isin(("", "nan"))
    if absent.all():
        raise InputError(f"{printable(roles.by)} has no value in any row ({named(table)})")
    if absent.any():
        said.append(f"{_of_rows(absent)} without {roles.by}: {named(table[absent])}.")
        table = table[~absent].reset_index(drop=True)
    keys = [name for name in (roles.by, *roles.pair, roles.cluster) if name]
    table = table.assign(**{name: spelt(table[name]) for name in keys})
    baseline = None if baseline is None else spelt_one(baseline)
    _levels(table, roles.by, baseline)
    measured = [_measure(table, name, higher, alone=len(roles.metrics) == 1) for name in roles.metrics]
    table = table.assign(**{measure.name: values for measure, values in measured})
    measures = [measure for measure, _ in measured]
    tested: list[_Tested] = []
    for measure in measures:
        judged = table[table[measure.name].notna()]
        said += _without(table, measure.name)
        cells, repeats = cells_of(judged, measure.name, roles)
        found = pairings_of(cells, roles, baseline)
        said += [*repeats, *_unmatched(cells, found, measure.name)]
        n_test = _n_test(cells, roles, measure)
        tested += [(p, measure, cells[measure.name].to_numpy(float), n_test) for p in found]
    several = roles.dataset is not None and table[roles.dataset].nunique() > 1
    return _finished(_decided(tested, several), said, table, measures, roles, baseline)


def _without(table: pd.DataFrame, metric: str) -> list[str]:
    lost = table[metric].isna()
    return [f"{_of_rows(lost)} without {printable(metric)}: {named(table[lost])}."] if lost.any() else []


def _of_rows(some: pd.Series) -> str:
    """`1 of 12 rows is`, `2 of 12 rows are`."""
    return f"{int(some.sum()):,} of {number(len(some), 'row')} {be(int(some.sum()))}"


_Tested = tuple[Pairing, Measure, np.ndarray, np.ndarray | None]


def _n_test(cells: pd.DataFrame, roles: Roles, measure: Measure) -> np.ndarray | None:
    """On how many pictures each share was judged, where a column says so."""
    if roles.n_test is None or measure.scale != 100.0:
        return None
    known = pd.to_numeric(cells[roles.n_test], errors="coerce").to_numpy(float)
    return np.where(known > 0, known, np.nan)


def _decided(tested: Sequence[_Tested], several: bool) -> list[Comparison]:
    tests = [test(p, values, n_test, m) for p, m, values, n_test in tested]
    decisions = corrected([p for p, *_ in tested], tests)
    return [described(p, d, values, m, several) for (p, m, values, _), d in zip(tested, decisions, strict=True)]


def _levels(table: pd.DataFrame, by: str, baseline: str | None) -> None:
    levels = sorted(set(table[by]))
    where = files_of(table)
    column = f"{where and where + ': '}{printable(by)}"
    if len(levels) < 2:
        raise InputError(f"{column} has one value, {printable(levels[0])!r}; at least two are compared")
    if len(levels) > MOST_LEVELS:
        raise InputError(f"{column} has {len(levels)} values; at most {MOST_LEVELS} are compared")
    if baseline is not None and baseline not in levels:
        raise InputError(f"{column} has {printable(', '.join(levels))}; the baseline {baseline!r} is none of them")


def _measure(table: pd.DataFrame, name: str, higher: bool | None, alone: bool) -> tuple[Measure, pd.Series]:
    """How a metric is written (shares in points, others to two digits of their spread), and its numbers."""
    values = _numbers(table, name)
    known = values.dropna().to_numpy(float)
    up = not lower_is_better(name) if higher is None else higher
    share = known.min() >= 0 and known.max() <= 1 and up
    if share:
        unit, about = ("points", "") if alone else (f"points of {name}", f" in {name}")
        return Measure(name=name, scale=100.0, unit=unit, about=about, higher=up, decimals=1), values
    spread = float(known.std()) or abs(float(known.mean())) or 1.0
    decimals = int(np.clip(ceil(-log10(spread)) + 1, 0, 9))
    return Measure(name=name, scale=1.0, unit=f"in {name}", about=f" in {name}", higher=up, decimals=decimals), values


def _numbers(table: pd.DataFrame, name: str) -> pd.Series:
    """A metric's column as numbers; missing ones are nan. Raises InputError naming the first row that has no number."""
    values = table[name]
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        numbers = values.astype(float)
    else:
        missing = values.isna() | (values.astype(str) == "")
        wrong = ~missing & ~values.map(_is_number)
        if wrong.any():
            at = wrong.idxmax()
            value = printable(str(values[at])[:60])
            raise InputError(f"{table[PLACE][at]}: {printable(name)} is {value!r}; it must be a number")
        numbers = values.where(~missing, np.nan).astype(str).str.replace(",", ".").astype(float)
    if numbers.notna().sum() == 0:
        raise InputError(f"{printable(name)} holds no number in {len(table)} rows ({named(table)})")
    if (huge := numbers.abs() > LARGEST).any():
        at = huge.idxmax()
        raise InputError(f"{table[PLACE][at]}: {printable(name)} is {numbers[at]:.2g}; it must be finite")
    return numbers


def _is_number(value: object) -> bool:
    if isinstance(value, str):
        return NUMBER.fullmatch(value) is not None and "%" not in value
    return isinstance(value, (int, float, np.number)) and not isinstance(value, (bool, np.bool_))


def _unmatched(cells: pd.DataFrame, pairings: Sequence[Pairing], metric: str) -> list[str]:
    used = {int(i) for p in pairings for i in (*p.first, *p.second)}
    alone = cells[~cells.index.isin(used)]
    if alone.empty:
        return []
    n = len(alone)
    return [f"{n:,} of {number(len(cells), 'row')} with {metric} {be(n)} matched by no other: {named(alone)}."]


# ------------------------------------------------------------------------------------------------------ a study's table


def _of_study(
    runs: pd.DataFrame, metrics: Sequence[str], by: str, baseline: str | None, higher: bool | None
) -> Compared:
    """The comparisons that the study's own report makes, from its runs as a table."""
    for name in metrics:
        if name not in runs:
            raise InputError(
                f"there is no column {printable(name)!r}; the table has {printable(', '.join(runs.columns))}"
            )
    places = runs.assign(**{PLACE: "run " + runs["run"]})
    measures = [_measure(places, name, higher, len(metrics) == 1)[0] for name in metrics]
    _levels(places.assign(**{by: runs[by].astype(str)}), by, baseline)
    n_test = runs["n_test"].to_numpy()
    tested: list[_Tested] = [
        (p, m, runs[m.name].to_numpy(float), n_test if m.name == "accuracy" else None)
        for m in measures
        for p in study_pairing.pair(runs, runs_csv.compared(runs), m.name)
        if baseline is None or (p.factor == by and baseline in (p.a, p.b))
    ]
    said = []
    for m in measures:
        found = [p for p, measure, *_ in tested if measure is m and p.factor == by]
        said += [*_without(places, m.name), *_unmatched(places[places[m.name].notna()], found, m.name)]
    sets = study_pairing.sets_of(runs, by)
    comparisons = [c for c in _decided(tested, sets.nunique() > 1) if c.pairing.factor == by]
    roles = _study_roles(by, metrics)
    table = places.assign(dataset=sets.astype(str), **{by: runs[by].astype(str)})
    return _finished(comparisons, said, table, measures, roles, baseline)


def _study_roles(by: str, metrics: Sequence[str]) -> Roles:
    """The columns of a study's runs."""
    return Roles(
        metrics=tuple(metrics),
        by=by,
        pair=(),
        seed="seed",
        dataset="dataset",
        cluster="autoencoder",
        n_test="n_test",
        left={},
    )


# ------------------------------------------------------------------------------------------------------------- findings


def _finished(
    comparisons: list[Comparison],
    said: list[str],
    table: pd.DataFrame,
    measures: Sequence[Measure],
    roles: Roles,
    baseline: str | None,
) -> Compared:
    top = widest(comparisons)
    shown = {id(c) for c in top}
    rest = [c for c in comparisons if id(c) not in shown]
    if not top:
        headline = f"No two rows that differ in {roles.by} agree in everything that they are matched on."
    else:
        headline = top[0].sentence
    caveats = [*said, *_seeds(table, roles), *_open(top), *_pooled(top, roles)]
    down = [printable(m.name) for m in measures if not m.higher]
    rankings = [ranking(table, m, roles.dataset, roles.by, baseline) for m in measures] if roles.dataset else []
    return Compared(
        headline=headline,
        sentences=[c.sentence for c in (*top[1:], *rest)],
        caveats=caveats,
        comparisons=comparisons,
        levels=pd.concat([means_of(table, m, roles) for m in measures], ignore_index=True),
        rankings=[one for one in rankings if one is not None],
        columns=roles.sentence + (f" Less is better in {listed(down)}." if down else ""),
        table=table,
    )


def _seeds(table: pd.DataFrame, roles: Roles) -> list[str]:
    if roles.seed is None:
        return ["No column holds seeds: run-to-run noise is not separated from the differences."]
    if table[roles.seed].nunique() == 1:
        return ["There is one seed: run-to-run noise is not separated from the differences."]
    return []


def _pooled(top: Sequence[Comparison], roles: Roles) -> list[str]:
    if roles.dataset and not roles.cluster and any(c.pairing.dataset is None for c in top):
        return [
            f"Pooled comparisons count each {roles.dataset} as one piece of evidence: they speak of other such sets."
        ]
    return []


def _open(top: Sequence[Comparison]) -> list[str]:
    """For what is not settled: how many clusters would find the difference seen, at the spread seen."""
    found = []
    for c in top:
        n, (low, high) = c.decision.test.independent, c.decision.test.interval
        if (c.verdict == "beats" and n >= ENOUGH_CLUSTERS) or isnan(low) or n < 2:
            continue
        error = (high - low) / 2 / float(special.stdtrit(n - 1, 1 - ALPHA / 2))
        needed = clusters_needed(c.decision.test.mean, error * sqrt(n))
        p = c.pairing
        what = f"between {p.said(p.a)} and {p.said(p.b)}"
        if needed is None:
            found.append(
                f"Nothing suggests a difference{c.measure.about} {what} that more runs of this kind would find."
            )
        elif max(needed, ENOUGH_CLUSTERS) > n:
            needed = max(needed, ENOUGH_CLUSTERS)
            found.append(
                f"To settle the difference{c.measure.about} {what}, about {needed:,} clusters are needed where there "
                f"are {n} ({needed - n:,} more), if it is as large as it looks (power 80 %)."
            )
    return found
