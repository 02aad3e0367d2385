"""Did the head start help? Matched runs of every two heads that differ in one thing, compared, and said in words.

Comes in: a study's `Records`. Goes out: `Comparison`s, and sentences that say what the data support and what they do
not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

import pandas as pd

from headstart.records.names import PROBES
from headstart.records.text import number
from headstart.report import autoencoders
from headstart.report.below import below
from headstart.report.caveats import caveats
from headstart.report.comparisons import ENOUGH_CLUSTERS, POINTS, Comparison, decide, points, signed, what, widest
from headstart.report.frame import Records
from headstart.report.labels import PROJECTORS, name_of_head
from headstart.report.pairing import factors, pair, sets_of
from headstart.report.verdict import before_simclr, first_run
from headstart.report.words import described, listed, too_few
from headstart.statistics import clustered

MOST_SETS = 5
"""Named where one comparison is told set by set."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The study's answer.

    Attributes:
        worse: what comes first where every row is below the network before SimCLR by the probe that decides; or empty.
        worse_too: the same of the other probes.
        headline: the sentence a reader should leave with.
        sentences: the other comparisons of the named family (pooled, where there are several sets).
        by_set: with several sets, what each named comparison shows on each of them.
        caveats: what the data cannot say.
        comparisons: all of them.
    """

    worse: str
    worse_too: list[str]
    headline: str
    sentences: list[str]
    by_set: list[str]
    caveats: list[str]
    comparisons: list[Comparison]


def compare(study: Records) -> list[Comparison]:
    """All comparisons of a study, described and said in words."""
    accuracy = study.runs["accuracy"].to_numpy()
    pairings = pair(study.runs, study.settings.get("compare") or ())
    decisions = decide(pairings, accuracy, study.runs["n_test"].to_numpy())
    several = {factor: sets_of(study.runs, factor).nunique() > 1 for factor in factors(study.runs)}
    return [described(p, d, accuracy, POINTS, several[p.factor]) for p, d in zip(pairings, decisions, strict=True)]


def answer(study: Records) -> Answer:
    """What the study's data support, and what they do not, in plain sentences."""
    comparisons = compare(study)
    named = [c for c in comparisons if c.pairing.family == "named"]
    top = widest(named or [c for c in comparisons if c.pairing.factor == "head"] or comparisons)
    first = next((c for c in top if {c.pairing.a, c.pairing.b} == set(PROJECTORS)), top[0] if top else None)
    worse = below(study)
    return Answer(
        worse=worse.pop(study.probe, ""),
        worse_too=list(worse.values()),
        headline=first.sentence if first else _no_comparison(study),
        sentences=[c.sentence for c in top if c is not first],
        by_set=[_by_set(c, comparisons) for c in top if c.pairing.dataset is None],
        caveats=caveats(study, comparisons),
        comparisons=comparisons,
    )


def _by_set(whole: Comparison, comparisons: Sequence[Comparison]) -> str:
    """One pooled comparison, set by set, in a sentence."""
    p = whole.pairing
    parts = [c for c in comparisons if c.pairing.dataset and what(c) == what(whole)]
    a, b = p.said(p.a), p.said(p.b)
    said = []
    for better, worse, sign in ((a, b, 1), (b, a, -1)):
        for verdict, words in (("beats", "beats"), ("ahead", "is ahead, before correction, of")):
            found = [c for c in parts if c.verdict == verdict and sign * c.decision.test.mean > 0]
            if found:
                where = [f"{c.pairing.dataset} ({points(abs(c.decision.test.mean))} points)" for c in found]
                said.append(f"{better} {words} {worse} on {_sets(where)}")
    rest = [str(c.pairing.dataset) for c in parts if c.verdict in ("none", "open")]
    if rest:
        start = f"between {a} and {b} no difference is detectable" if not said else "no difference is detectable"
        said.append(f"{start} on {_sets(rest) if said or len(rest) <= MOST_SETS else f'any of {len(rest)} sets'}")
    few = sorted({c.clusters for c in parts if c.decision.test.independent < ENOUGH_CLUSTERS})
    text = "Set by set, " + "; ".join(said)
    return text + (f". {too_few(few, ' a set')}." if few else ".")


def _sets(names: list[str]) -> str:
    """The first few sets, and how many more; names with a comma (`grocery, lr 0.1`) are told apart by semicolons."""
    more = len(names) - MOST_SETS
    shown = [*names[:MOST_SETS], f"{more} more"] if more > 0 else names
    return "; ".join(shown) if any("," in name for name in names) else listed(shown)


def _no_comparison(study: Records) -> str:
    judged = study.runs[study.runs["accuracy"].notna()]
    if study.autoencoders_alone:
        return autoencoders.headline(study)
    if judged.empty:
        return "No run was probed, so nothing can be said about accuracy."
    if judged["head"].nunique() == 1 and judged["untrained"].notna().all():
        return _gains(study, judged)
    best = judged.loc[judged["accuracy"].idxmax()]
    return (
        f"No two heads can be compared yet: {len(judged)} probed runs, none matched by another in all but one thing. "
        f"The best is {name_of_head(best['head'])} with {100 * best['accuracy']:.1f} %."
    )


def _gains(study: Records, judged: pd.DataFrame) -> str:
    """What SimCLR was worth with the one head that there is, on each set, beside the network before it."""
    said = []
    for name, rows in judged.groupby("dataset", observed=True, sort=False):
        gains = 100 * (rows["accuracy"] - rows["untrained"])
        found = clustered(gains.to_numpy(float), rows["seed"].astype(str).to_numpy())
        seeds = number(rows["seed"].nunique(), "seed")
        over = seeds if isnan(found.p) else f"{points(found.interval[0])} to {points(found.interval[1])} over {seeds}"
        before = f"{100 * rows['untrained'].mean():.1f} %"
        said.append(f"{signed(found.mean)} points from {before} on {name} ({over})")
    network = before_simclr(first_run(study.results))
    return f"By {PROBES.shown(study.probe)}, beside {network}, SimCLR was worth {listed(said)}. No heads are compared."
