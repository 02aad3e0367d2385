"""Which difference is real, for anybody's runs: matched pairs of a table, decided and said as a study's are.

Comes in: a table of runs, the metric and the column that is compared. Goes out: `Compared`: sentences, a table of
comparisons, means of the levels, a ranking across data sets. The pairing, the clustered test, the correction and the
words are those of a study's report (matching, comparisons, words).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import ceil, isnan, log10, sqrt
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from headstart.records.errors import InputError
from headstart.records.text import printable
from headstart.report import frame as study_frame
from headstart.report import pairing as study_pairing
from headstart.report.anybodys import PLACE
from headstart.report.columns import Roles, find, lower_is_better
from headstart.report.comparisons import ALPHA, ENOUGH_CLUSTERS, Comparison, Measure, corrected, test, widest
from headstart.report.matching import Pairing, matched, scopes, sharing
from headstart.report.words import described, listed
from headstart.statistics import clustered, clusters_needed, critical_difference, friedman, wilcoxon

STUDY = {"run", "head", "init", "frozen", "autoencoder", "pictures", "settings", "set", "accuracy"}
"""Columns by which a table is known to be a Headstart study's."""
MOST_LEVELS = 40
MOST_NAMED = 5
"""Rows that a sentence names; it counts the others."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What a table of runs supports.

    Attributes:
        headline: the sentence a reader should leave with.
        sentences: the other comparisons; pooled where there are several data sets, then set by set.
        caveats: what the data cannot say, what was left out, and how many more clusters would settle what is open.
        comparisons: all of them, with intervals, wins and losses, and p-values corrected over the whole family.
        levels: a row a metric, data set and level: rows, mean, 95 % interval over seeds.
        ranks: a row a metric and level: mean rank over data sets, the critical difference, and p of Friedman's test
            (for two levels, of Wilcoxon's); empty for one set.
        columns: which column was taken for what.
        table: the rows that were compared.
    """

    headline: str
    sentences: list[str]
    caveats: list[str]
    comparisons: list[Comparison]
    levels: pd.DataFrame
    ranks: pd.DataFrame
    columns: str
    table: pd.DataFrame = field(repr=False)

    def frame(self) -> pd.DataFrame:
        """A row a comparison."""
        return pd.DataFrame([_as_row(c) for c in self.comparisons])

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        clean = {
            "headline": self.headline,
            "sentences": self.sentences,
            "caveats": self.caveats,
            "columns": self.columns,
        }
        tables = {"comparisons": self.frame(), "levels": self.levels, "ranks": self.ranks}
        return clean | {name: _json_rows(table) for name, table in tables.items()}


def _json_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{str(k): v.item() if isinstance(v, np.generic) else v for k, v in row.items()} for row in rows]


def _as_row(c: Comparison) -> dict[str, Any]:
    p, decided = c.pairing, c.decision
    low, high = decided.test.interval
    return {
        "metric": c.measure.name,
        "better if positive": p.said(p.a),
        "than": p.said(p.b),
        "within": p.said(p.within) if p.within else "",
        "data set": p.dataset or "all",
        "mean": decided.test.mean,
        "low": low,
        "high": high,
        "p": decided.test.p,
        "p_holm": decided.adjusted,
        "verdict": c.verdict,
        "pairs": c.pairs,
        "wins": c.wins,
        "losses": c.losses,
        "median": c.median,
        "wilcoxon_p": c.wilcoxon,
        "clusters": c.clusters,
    }


def compare(
    frame: pd.DataFrame,
    *,
    metric: str | Sequence[str],
    by: str,
    pair: Sequence[str] | None = None,
    seed: str | None = None,
    cluster: str | None = None,
    baseline: str | None = None,
    higher: bool | None = None,
) -> Compared:
    """Compare the levels of `by` in matched pairs of rows.

    Args:
        frame: a row a run.
        metric: the column, or several, which are then corrected as one family.
        by: the column whose values are compared.
        pair: columns in which a pair agrees, besides the seed and the data set. Unset: all that are neither outcomes,
            nor names of runs, nor bound to `by`.
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
    metrics = [metric] if isinstance(metric, str) else list(metric)
    table = frame.reset_index(drop=True)
    if PLACE not in table:
        table = table.assign(**{PLACE: [f"row {i}" for i in range(1, len(table) + 1)]})
    if set(table.columns) >= STUDY and by in study_pairing.factors(table.drop(columns=PLACE)) and not (pair or cluster):
        return _of_study(table, metrics, by, baseline, higher)
    roles = find(table, metrics, by, pair, seed, cluster)
    return _compared(table, metrics, roles, baseline, higher)


# ----------------------------------------------------------------------------------------------------- somebody's table


def _compared(
    table: pd.DataFrame, metrics: Sequence[str], roles: Roles, baseline: str | None, higher: bool | None
) -> Compared:
    table = table.assign(**{roles.by: table[roles.by].astype(str)})
    _levels(table, roles.by, baseline)
    measures = [_measure(table, name, higher, alone=len(metrics) == 1) for name in metrics]
    said: list[str] = []
    pairings: list[tuple[Pairing, Measure, np.ndarray]] = []
    for measure in measures:
        judged = table[table[measure.name].notna()]
        if lost := len(table) - len(judged):
            said.append(
                f"{lost} of {len(table)} rows have no {measure.name}: {_named(table[table[measure.name].isna()])}."
            )
        cells, repeats = cells_of(judged, measure.name, roles)
        said += repeats
        found = pairings_of(cells, roles, baseline)
        said += _unmatched(cells, found, measure.name)
        pairings += [(p, measure, cells[measure.name].to_numpy(float)) for p in found]
    comparisons = _decided(pairings, table, roles)
    return _finished(comparisons, said, table, measures, roles)


def _levels(table: pd.DataFrame, by: str, baseline: str | None) -> None:
    levels = sorted(set(table[by]))
    if len(levels) < 2:
        raise InputError(f"{printable(by)} has one value, {printable(levels[0])!r}; at least two are compared")
    if len(levels) > MOST_LEVELS:
        raise InputError(f"{printable(by)} has {len(levels)} values; at most {MOST_LEVELS} are compared")
    if baseline is not None and baseline not in levels:
        raise InputError(f"baseline is {baseline!r}; {printable(by)} has {printable(', '.join(levels))}")


def _measure(table: pd.DataFrame, name: str, higher: bool | None, alone: bool) -> Measure:
    """How a metric is written: shares in points, others to two digits of their spread."""
    values = table[name]
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        wrong = values[~values.astype(str).str.fullmatch(r"[-+]?[\d.,]+([eE][-+]?\d+)?")]
        at = wrong.index[0] if len(wrong) else values.index[0]
        raise InputError(f"{table[PLACE][at]}: {printable(name)} is {values[at]!r}; it must be a number")
    known = values.dropna().to_numpy(float)
    if known.size == 0:
        raise InputError(f"{printable(name)} holds no number")
    if np.isinf(known).any():
        raise InputError(f"{table[PLACE][values.index[np.isinf(values)][0]]}: {printable(name)} is infinite")
    up = not lower_is_better(name) if higher is None else higher
    share = known.min() >= 0 and known.max() <= 1 and up
    if share:
        unit, about = ("points", "") if alone else (f"points of {name}", f" in {name}")
        return Measure(name=name, scale=100.0, unit=unit, about=about, higher=up, decimals=1)
    spread = float(known.std()) or abs(float(known.mean())) or 1.0
    decimals = int(np.clip(ceil(-log10(spread)) + 1, 0, 9))
    return Measure(name=name, scale=1.0, unit=f"in {name}", about=f" in {name}", higher=up, decimals=decimals)


def cells_of(judged: pd.DataFrame, metric: str, roles: Roles) -> tuple[pd.DataFrame, list[str]]:
    """Rows as they are paired: those that repeat each other in everything count once, by their mean."""
    keys = [roles.by, *roles.pair, *([roles.cluster] if roles.cluster else [])]
    filled = judged.assign(**{name: judged[name].astype(str) for name in keys})
    again = filled.duplicated(keys, keep=False)
    if not again.any():
        return filled.reset_index(drop=True), []
    means = filled.groupby(keys, sort=False)[metric].mean()
    once = filled.drop_duplicates(keys).set_index(keys).assign(**{metric: means}).reset_index()
    return once, [
        f"{int(again.sum())} rows repeat another in {listed(keys)}: each such group counts once, by its mean "
        f"({_named(filled[again])})."
    ]


def pairings_of(cells: pd.DataFrame, roles: Roles, baseline: str | None) -> list[Pairing]:
    """Every two levels (or each with the baseline), matched: pooled, and on each data set."""
    levels = list(dict.fromkeys(cells[roles.by]))
    found: list[Pairing] = []
    draws = roles.cluster or "draw"
    parts = {level: part.assign(**({} if roles.cluster else {draws: ""})) for level, part in cells.groupby(roles.by)}
    keys = list(roles.pair) or ["nothing"]
    if not roles.pair:
        parts = {level: part.assign(nothing="") for level, part in parts.items()}
    for a, b in combinations(levels, 2):
        if baseline in (a, b) or baseline is None:
            a, b = (b, a) if a == baseline else (a, b)
            both = matched(parts[a], parts[b], keys, draws)
            found += _scoped(both, roles, a, b, draws)
    return found


def _scoped(both: pd.DataFrame, roles: Roles, a: str, b: str, draws: str) -> list[Pairing]:
    """Pairings of two levels, pooled and on each data set, with the seeds and clusters that pairs share."""
    where = roles.dataset or "everywhere"
    both = both.assign(**({} if roles.dataset else {where: ""}))
    if roles.cluster and f"{draws}_b" in both:  # of a pair, the one that has a cluster; of two, both
        one, two = both[draws], both[f"{draws}_b"]
        both[draws] = np.where(one == two, one, np.where(one == "", two, np.where(two == "", one, one + " | " + two)))
    found = []
    for dataset, rows in scopes(both, where):
        rows = rows.assign(seed=rows[roles.seed] if roles.seed else "0")
        rows, thing = _clustered_by(rows, roles, dataset, draws, where)
        seeds, drawn = sharing(rows, "seed", where, draws)
        found.append(
            Pairing(
                factor=roles.by,
                a=a,
                b=b,
                dataset=dataset if roles.dataset else None,
                family="all",
                first=rows["first"].to_numpy(),
                second=rows["second"].to_numpy(),
                seeds=seeds,
                draws=drawn,
                thing=thing,
            )
        )
    return found


def _clustered_by(
    rows: pd.DataFrame, roles: Roles, dataset: str | None, draws: str, where: str
) -> tuple[pd.DataFrame, str]:
    """What pairs share besides a seed: the given cluster; else, over several sets, the set; else nothing."""
    if roles.cluster:
        return rows, "autoencoder" if roles.cluster in ("autoencoder", "projection_head_weights") else "cluster"
    if dataset is None and roles.dataset:
        return rows.assign(**{draws: rows[where].astype(str)}), "data set"
    if roles.seed and rows[roles.seed].nunique() > 1:
        return rows.assign(**{draws: ""}), "draw"
    return rows.assign(**{draws: [str(i) for i in range(len(rows))]}), "pair"


def _decided(
    pairings: Sequence[tuple[Pairing, Measure, np.ndarray]], table: pd.DataFrame, roles: Roles
) -> list[Comparison]:
    coarse = table[roles.n_test].to_numpy(float) if roles.n_test else None
    tests = [
        test(p, values, None if coarse is None or len(coarse) != len(values) else coarse, m)
        for p, m, values in pairings
    ]
    decisions = corrected([p for p, *_ in pairings], tests)
    several = roles.dataset is not None and table[roles.dataset].nunique() > 1
    return [described(p, d, values, m, several) for (p, m, values), d in zip(pairings, decisions, strict=True)]


def _named(rows: pd.DataFrame) -> str:
    places = [printable(str(place)) for place in rows[PLACE]]
    more = len(places) - MOST_NAMED
    return ", ".join(places[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _unmatched(cells: pd.DataFrame, pairings: Sequence[Pairing], metric: str) -> list[str]:
    used = {int(i) for p in pairings for i in (*p.first, *p.second)}
    alone = cells[~cells.index.isin(used)]
    if alone.empty:
        return []
    return [f"{len(alone)} of {len(cells)} rows with {metric} are matched by no other: {_named(alone)}."]


# ------------------------------------------------------------------------------------------------------ a study's table


def _of_study(
    table: pd.DataFrame, metrics: Sequence[str], by: str, baseline: str | None, higher: bool | None
) -> Compared:
    """The comparisons that the study's own report makes, from its runs as a table."""
    runs = study_frame.restored(table.drop(columns=PLACE))
    for name in metrics:
        if name not in runs:
            raise InputError(
                f"there is no column {printable(name)!r}; the table has {printable(', '.join(runs.columns))}"
            )
    measures = [_measure(runs.assign(**{PLACE: runs["run"]}), name, higher, len(metrics) == 1) for name in metrics]
    found = [p for p in study_pairing.pair(runs) if p.factor == by and (baseline is None or baseline in (p.a, p.b))]
    several = study_pairing.sets_of(runs, by).nunique() > 1
    every = [(p, m) for m in measures for p in found]
    n_test = runs["n_test"].to_numpy()
    tests = [test(p, runs[m.name].to_numpy(float), n_test if m.name == "accuracy" else None, m) for p, m in every]
    decisions = corrected([p for p, _ in every], tests)
    comparisons = [
        described(p, d, runs[m.name].to_numpy(float), m, several) for (p, m), d in zip(every, decisions, strict=True)
    ]
    roles = Roles(by=by, pair=(), seed="seed", dataset="dataset", cluster="autoencoder", n_test="n_test", left={})
    return _finished(comparisons, [], runs.assign(**{PLACE: runs["run"], by: runs[by].astype(str)}), measures, roles)


# ------------------------------------------------------------------------------------------------------------- findings


def _finished(
    comparisons: list[Comparison], said: list[str], table: pd.DataFrame, measures: Sequence[Measure], roles: Roles
) -> Compared:
    top = widest(comparisons)
    rest = [c for c in comparisons if all(c is not other for other in top)]
    if not top:
        headline = f"No two rows that differ in {roles.by} agree in everything that they are matched on."
    else:
        headline = top[0].sentence
    caveats = [*said, *_seeds(table, roles), *_open(top), *_pooled(top, roles)]
    return Compared(
        headline=headline,
        sentences=[c.sentence for c in (*top[1:], *rest)],
        caveats=caveats,
        comparisons=comparisons,
        levels=pd.concat([_means(table, m, roles) for m in measures], ignore_index=True),
        ranks=pd.concat([_ranks(table, m, roles) for m in measures], ignore_index=True),
        columns=roles.sentence,
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
                f"To settle the difference{c.measure.about} {what}, about {needed} clusters are needed where there are "
                f"{n} ({needed - n} more), if it is as large as it looks (power 80 %)."
            )
    return found


def _means(table: pd.DataFrame, measure: Measure, roles: Roles) -> pd.DataFrame:
    """Mean and interval of each level on each data set, over clusters; shares stay within 0 and 1."""
    rows = []
    where = table[roles.dataset].astype(str) if roles.dataset else pd.Series("all", index=table.index)
    bounded = measure.scale == 100.0
    for (dataset, level), part in table.groupby([where, table[roles.by]], sort=False, observed=True):
        values = part[measure.name].dropna()
        if values.empty:
            continue
        kept = part.loc[values.index]
        shared = (
            kept[roles.seed].astype(str) if roles.seed and kept[roles.seed].nunique() > 1 else kept.index.astype(str)
        )
        found = clustered(values.to_numpy(float), np.asarray(shared))
        low, high = found.interval
        if bounded and not isnan(low):
            low, high = max(0.0, low), min(1.0, high)
        rows.append(
            {"metric": measure.name, "data set": dataset, "level": level, "rows": len(values), "mean": found.mean}
            | {"low": low, "high": high}
        )
    return pd.DataFrame(rows, columns=["metric", "data set", "level", "rows", "mean", "low", "high"])


def _ranks(table: pd.DataFrame, measure: Measure, roles: Roles) -> pd.DataFrame:
    """Mean ranks over data sets (1 is best), with Friedman's test and Nemenyi's critical difference (Demsar 2006)."""
    columns = ["metric", "level", "mean rank", "sets", "critical difference", "friedman p"]
    if roles.dataset is None:
        return pd.DataFrame(columns=columns)
    wide = table.pivot_table(index=roles.dataset, columns=roles.by, values=measure.name, observed=True).dropna()
    sets, levels = wide.shape
    if sets < 2 or levels < 2:
        return pd.DataFrame(columns=columns)
    ranks = wide.rank(axis=1, ascending=not measure.higher).mean().sort_values()
    p = friedman(wide.to_numpy()) if levels > 2 else wilcoxon((wide.iloc[:, 0] - wide.iloc[:, 1]).to_numpy())
    return pd.DataFrame(
        {
            "metric": measure.name,
            "level": ranks.index.astype(str),
            "mean rank": ranks.to_numpy(),
            "sets": sets,
            "critical difference": critical_difference(levels, sets),
            "friedman p": p,
        }
    )[columns]
