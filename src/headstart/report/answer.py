"""Did the head start help? Matched runs of every two heads that differ in one thing, compared, and said in words.

Comes in: `Study.runs` and what study.yaml names under `compare`. Goes out: `Comparison`s, per data set and pooled,
and sentences that say what the data support and what they do not. Differences are in points of accuracy.

Two runs are matched when they agree in everything but what is compared: the very pictures, seed, normalization, the
other sizes, and every other setting. Runs that share a seed or an autoencoder are not independent, so the decision
rests on `statistics.clustered`; the bootstrap interval and Wilcoxon's test beside it treat pairs as independent. Holm's
correction runs within a family: the comparisons that study.yaml names (all heads where it names none), the other
heads, and each remaining factor within a head; for each data set, and for the pooled sets.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal

import numpy as np
import pandas as pd

from headstart.report.labels import (
    FACTORS,
    INITS,
    NEED_AUTOENCODER,
    PROJECTORS,
    Factor,
    head_label,
    head_parts,
    name_of_head,
    named_comparisons,
    stays_frozen,
)
from headstart.report.records import Study, sharing
from headstart.statistics import Clustered, Interval, bootstrap_interval, clustered, holm, wilcoxon

ALPHA = 0.05
ENOUGH_CLUSTERS = 5

Verdict = Literal["beats", "ahead", "none", "open"]


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """Which runs are compared, before anybody looks at an accuracy.

    Attributes:
        a, b: what is compared: heads, activations or sizes.
        within: the head that both share, where the factor is not the head.
        dataset: the data set, or None for all sets pooled.
        family: comparisons of one family and scope are corrected together.
        first, second: rows of `Study.runs`, pair by pair.
        seeds, autoencoders: what each pair shares with others.
    """

    factor: Factor
    a: str
    b: str
    within: str
    dataset: str | None
    family: str
    first: np.ndarray = field(repr=False)
    second: np.ndarray = field(repr=False)
    seeds: np.ndarray = field(repr=False)
    autoencoders: np.ndarray = field(repr=False)

    def differences(self, accuracy: np.ndarray) -> np.ndarray:
        """Accuracy of `a` minus that of `b`, pair by pair, in points."""
        return 100 * (accuracy[self.first] - accuracy[self.second])


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What the clusters say: the test, its p-value within the family, and the family's size."""

    test: Clustered
    adjusted: float
    family_size: int

    @property
    def verdict(self) -> Verdict:
        """`beats` (after correction), `ahead` (only before it), `none`, or `open` (nothing to test on)."""
        if np.isnan(self.test.p):
            return "open"
        if self.adjusted <= ALPHA:
            return "beats"
        return "ahead" if self.test.p <= ALPHA else "none"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A pairing with its decision and everything that is shown beside it, in points."""

    pairing: Pairing
    decision: Decision
    pairs: int
    wins: int
    losses: int
    mean: float
    mean_interval: Interval
    median: float
    median_interval: Interval
    wilcoxon: float
    clusters: str
    sentence: str

    @property
    def verdict(self) -> Verdict:
        """See `Decision.verdict`."""
        return self.decision.verdict


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The study's answer.

    Attributes:
        headline: the sentence a reader should leave with.
        sentences: the other comparisons of the named family (pooled, where there are several sets).
        by_set: with several sets, what each named comparison shows on each of them.
        caveats: what the data cannot say.
        comparisons: all of them.
    """

    headline: str
    sentences: list[str]
    by_set: list[str]
    caveats: list[str]
    comparisons: list[Comparison]


# ----------------------------------------------------------------------------------------------------------- pairing


def pair(runs: pd.DataFrame, compare: Sequence[Any] = ()) -> list[Pairing]:
    """Every pairing that the runs allow, per data set and, with several sets, pooled.

    `compare` is study.yaml's: pairs of heads (`[autoencoder-frozen, random-trainable]`, `ae` and `mlp` for the
    paper's two), or a factor's name (`activation`) for all of its pairs. Raises InputError for anything else.
    """
    named = named_comparisons(compare)
    judged = runs[runs["accuracy"].notna()]
    found = []
    for factor in FACTORS:
        for within, part in [("", judged)] if factor == "head" else _by_head(judged):
            levels = _levels(part, factor)
            for a, b in sorted(combinations(levels, 2), key=lambda two: _rank(two, named)):
                both = _match(part, factor, a, b)
                if both.empty:
                    continue
                a_name, b_name = str(a), str(b)
                family = _family(named, factor, within, a_name, b_name)
                for dataset, rows in _scopes(both, runs["dataset"].nunique() > 1):
                    found.append(_pairing(factor, a_name, b_name, within, dataset, family, rows))
    return found


def _rank(two: tuple[Any, Any], named: Mapping[Any, int]) -> tuple[int, bool]:
    """The comparisons that are named first, in their order; else the paper's two heads first."""
    return named.get(frozenset(two), len(named)), set(two) != set(PROJECTORS)


def _family(named: Mapping[Any, int], factor: Factor, within: str, a: str, b: str) -> str:
    if factor in named or frozenset((a, b)) in named or (factor == "head" and not named):
        return "named"
    return "other heads" if factor == "head" else f"{factor} of {within}"


def _by_head(runs: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for head, part in runs.groupby("head", observed=True):
        yield str(head), part


def _levels(runs: pd.DataFrame, factor: str) -> list[Any]:
    """Levels that occur, in reading order; of two heads, the one nearer to plain SimCLR's comes second."""
    present = set(runs[factor])
    if factor == "head":
        order = ("autoencoder", "spectrum", "shuffled", "orthogonal", "pca", "random")
        ranked = [head_label(init, frozen) for init in order for frozen in (True, False)]
        return sorted(present - set(ranked)) + [h for h in ranked if h in present]
    column = runs[factor]
    if isinstance(column.dtype, pd.CategoricalDtype):
        return [level for level in column.cat.categories if level in present]
    return sorted(present)


def _match(runs: pd.DataFrame, factor: Factor, a: Any, b: Any) -> pd.DataFrame:
    """Matched rows: columns first, second (positions in `Study.runs`), dataset, seed, autoencoder."""
    keys = ["dataset", "pictures", "seed", "settings", "normalized", *(f for f in FACTORS if f not in (factor, "head"))]
    one, two = runs[runs[factor] == a], runs[runs[factor] == b]
    a_has, b_has = one["init"].isin(NEED_AUTOENCODER).all(), two["init"].isin(NEED_AUTOENCODER).all()
    both_have, shared = a_has and b_has, set(one["autoencoder"]) & set(two["autoencoder"])
    if both_have and shared:
        keys.append("autoencoder")
    columns = [*dict.fromkeys([*keys, "autoencoder"])]
    both = (
        one[columns].assign(first=one.index).merge(two[columns].assign(second=two.index), on=keys, suffixes=("", "_b"))
    )
    if factor == "hidden_dim" or (both_have and not shared):  # of other sizes, or of another kind
        both["autoencoder"] = both["autoencoder"] + " | " + both["autoencoder_b"]
    elif b_has and not a_has:
        both["autoencoder"] = both["autoencoder_b"]
    return both


def _scopes(both: pd.DataFrame, several: bool) -> Iterator[tuple[str | None, pd.DataFrame]]:
    if both["dataset"].nunique() > 1:
        yield None, both
    for dataset, rows in both.groupby("dataset", observed=True):
        yield str(dataset), rows


def _pairing(
    factor: Factor, a: str, b: str, within: str, dataset: str | None, family: str, rows: pd.DataFrame
) -> Pairing:
    seeds, autoencoders = sharing(rows)
    return Pairing(
        factor=factor,
        a=a,
        b=b,
        within=within,
        dataset=dataset,
        family=family,
        first=rows["first"].to_numpy(),
        second=rows["second"].to_numpy(),
        seeds=seeds,
        autoencoders=autoencoders,
    )


# ---------------------------------------------------------------------------------------------------------- decision


def decide(pairings: Sequence[Pairing], accuracy: np.ndarray, n_test: np.ndarray | None = None) -> list[Decision]:
    """Test every pairing on `accuracy` (a fraction for each row of `Study.runs`), corrected within its family.

    `n_test` (pictures each accuracy was judged on; nan where unknown) says how coarse the accuracies are.
    """
    tests = [
        clustered(p.differences(accuracy), p.seeds, p.autoencoders, least_error=_least_error(p, n_test))
        for p in pairings
    ]
    families: dict[tuple[str, str | None], list[int]] = {}
    for i, pairing in enumerate(pairings):
        families.setdefault((pairing.family, pairing.dataset), []).append(i)
    adjusted, sizes = np.full(len(tests), np.nan), np.zeros(len(tests), dtype=int)
    for members in families.values():
        p = np.array([tests[i].p for i in members])
        adjusted[members] = holm(p)
        sizes[members] = np.count_nonzero(~np.isnan(p))
    return [
        Decision(test=t, adjusted=float(a), family_size=int(n)) for t, a, n in zip(tests, adjusted, sizes, strict=True)
    ]


def _least_error(pairing: Pairing, n_test: np.ndarray | None) -> float:
    """Standard error, in points, of a mean of differences of accuracies that are rounded to whole pictures."""
    if n_test is None:
        return 0.0
    steps = 100 / np.concatenate([n_test[pairing.first], n_test[pairing.second]])
    return float(np.sqrt(np.nansum(steps**2) / 12) / len(pairing.first))


def compare(study: Study) -> list[Comparison]:
    """All comparisons of a study, described and said in words."""
    accuracy = study.runs["accuracy"].to_numpy()
    pairings = pair(study.runs, study.settings.get("compare") or ())
    decisions = decide(pairings, accuracy, study.runs["n_test"].to_numpy())
    return [_describe(p, d, p.differences(accuracy), study) for p, d in zip(pairings, decisions, strict=True)]


def _describe(pairing: Pairing, decision: Decision, differences: np.ndarray, study: Study) -> Comparison:
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    clusters = _clusters(pairing, decision.test)
    return Comparison(
        pairing=pairing,
        decision=decision,
        pairs=differences.size,
        wins=wins,
        losses=losses,
        mean=float(differences.mean()),
        mean_interval=bootstrap_interval(differences),
        median=float(np.median(differences)),
        median_interval=bootstrap_interval(differences, "median"),
        wilcoxon=wilcoxon(differences.round(4)),  # equal to the picture, though not to the last bit, is a tie
        clusters=clusters,
        sentence=_sentence(pairing, decision, differences, clusters, study),
    )


# -------------------------------------------------------------------------------------------------------------- words


def name_of(pairing: Pairing, level: str) -> str:
    """What is compared, as a person says it: `frozen autoencoder`, `Tanh`, `dim(z) 64`."""
    if pairing.factor == "head":
        return name_of_head(level)
    return {"activation": level, "hidden_dim": f"dim(g) {level}", "output_dim": f"dim(z) {level}"}[pairing.factor]


def _clusters(pairing: Pairing, test: Clustered) -> str:
    """The independent things that a decision rests on, as `3 autoencoders`."""
    seeds, layers = test.clusters
    has = any(init in f"{pairing.a} {pairing.b} {pairing.within}" for init in NEED_AUTOENCODER)
    thing = "autoencoder" if has else "first-layer draw"
    if pairing.factor == "hidden_dim":
        thing = f"pair of {thing}s"
    several_sets = pairing.dataset is None and len({s.rpartition(" ")[0] for s in pairing.seeds}) > 1
    seed_words = f"{_count(seeds, 'seed')}" + (" on their sets" if several_sets else "")
    if seeds == 1:
        return _count(layers, thing)
    by_layer: dict[str, set[str]] = {}
    for layer, seed in zip(pairing.autoencoders, pairing.seeds, strict=True):
        by_layer.setdefault(layer, set()).add(seed)
    nested = all(len(held) == 1 for held in by_layer.values())
    return seed_words if nested or layers == 1 else f"{seed_words} and {_count(layers, thing)}"


def _count(n: int, thing: str) -> str:
    if n == 1:
        return f"1 {thing}"
    return f"{n} {thing.replace('pair of', 'pairs of')}" if thing.startswith("pair") else f"{n} {thing}s"


def points(value: float) -> str:
    """A difference with one decimal and a real minus sign."""
    return f"{value:.1f}".replace("-0.0", "0.0").replace("-", "−")


def _sentence(pairing: Pairing, decision: Decision, differences: np.ndarray, clusters: str, study: Study) -> str:
    mean = decision.test.mean
    if decision.verdict == "none":
        better, worse, sign = pairing.a, pairing.b, 1
    else:
        better, worse, sign = (pairing.b, pairing.a, -1) if mean < 0 else (pairing.a, pairing.b, 1)
    better, worse = name_of(pairing, better), name_of(pairing, worse)
    ahead = int((sign * differences > 0).sum())
    low, high = sorted(sign * bound for bound in decision.test.interval)
    where = "".join(
        [
            f" in the {name_of_head(pairing.within)} head" if pairing.within else "",
            f" on {pairing.dataset}" if pairing.dataset and len(study.sets) > 1 else "",
        ]
    )
    size, over = points(abs(mean)), f"{points(low)} to {points(high)} over {clusters}"
    pairs = f"{ahead} of {differences.size} pairs"
    match decision.verdict:
        case "beats":
            text = f"{better} beats {worse}{where} by {size} points ({over}; {pairs})"
        case "ahead":
            text = (
                f"{better} is ahead of {worse}{where} by {size} points ({over}; {pairs}), but not once corrected for "
                f"{decision.family_size} comparisons (p = {decision.adjusted:.2f})"
            )
        case "none":
            text = (
                f"no difference is detectable between {better} and {worse}{where} ({over}; {better} ahead in {pairs})"
            )
        case _:
            text = _undecided(better, worse, where, size, pairs, differences.size, clusters, mean)
    text = text[0].upper() + text[1:]
    if decision.verdict != "open" and decision.test.independent < ENOUGH_CLUSTERS:
        text += f"; {clusters} are too few to settle it"
    return text + "."


def _undecided(
    better: str, worse: str, where: str, size: str, ahead: str, pairs: int, clusters: str, mean: float
) -> str:
    seen, end = (
        ("one pair of runs" if pairs == 1 else ahead),
        f"one seed and {clusters.replace('1 ', 'one ')} cannot settle it",
    )
    if mean == 0:
        return f"{better} and {worse}{where} reach the same accuracy; {end}"
    return f"{better} is ahead of {worse}{where} by {size} points in {seen}; {end}"


def answer(study: Study) -> Answer:
    """What the study's data support, and what they do not, in plain sentences."""
    comparisons = compare(study)
    named = [c for c in comparisons if c.pairing.family == "named"]
    top = _widest(named or [c for c in comparisons if c.pairing.factor == "head"] or comparisons)
    first = next((c for c in top if {c.pairing.a, c.pairing.b} == set(PROJECTORS)), top[0] if top else None)
    return Answer(
        headline=first.sentence if first else _no_comparison(study),
        sentences=[c.sentence for c in top if c is not first],
        by_set=[_by_set(c, named) for c in top if c.pairing.dataset is None],
        caveats=_caveats(study, comparisons),
        comparisons=comparisons,
    )


def _widest(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Each comparison over all sets where there is one, else on the sets that allow it."""
    pooled = {_what(c) for c in comparisons if c.pairing.dataset is None}
    return [c for c in comparisons if c.pairing.dataset is None or _what(c) not in pooled]


def _what(comparison: Comparison) -> tuple[str, str, str, str]:
    """What is compared, on whichever set."""
    p = comparison.pairing
    return p.factor, p.a, p.b, p.within


def _by_set(whole: Comparison, named: Sequence[Comparison]) -> str:
    """One pooled comparison, set by set, in a sentence."""
    p = whole.pairing
    parts = [c for c in named if c.pairing.dataset and _what(c) == _what(whole)]
    a, b = name_of(p, p.a), name_of(p, p.b)
    said = []
    for better, worse, sign in ((a, b, 1), (b, a, -1)):
        for verdict, words in (("beats", "beats"), ("ahead", "is ahead, before correction, of")):
            found = [c for c in parts if c.verdict == verdict and sign * c.decision.test.mean > 0]
            if found:
                where = _listed([f"{c.pairing.dataset} ({points(abs(c.decision.test.mean))} points)" for c in found])
                said.append(f"{better} {words} {worse} on {where}")
    rest = [str(c.pairing.dataset) for c in parts if c.verdict in ("none", "open")]
    if rest:
        start = f"between {a} and {b} no difference is detectable" if not said else "no difference is detectable"
        said.append(f"{start} on {_listed(rest)}")
    few = sorted({c.clusters for c in parts if c.decision.test.independent < ENOUGH_CLUSTERS})
    text = "Set by set, " + "; ".join(said)
    return text + (f". {_listed(few)} a set are too few to settle it." if few else ".")


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def _no_comparison(study: Study) -> str:
    judged = study.runs[study.runs["accuracy"].notna()]
    if judged.empty:
        return "No run was probed, so nothing can be said about accuracy."
    best = judged.loc[judged["accuracy"].idxmax()]
    return (
        f"No two heads can be compared yet: {len(judged)} probed runs, none matched by another in all but one thing. "
        f"The best is {name_of_head(best['head'])} with {100 * best['accuracy']:.1f} %."
    )


def _caveats(study: Study, comparisons: Sequence[Comparison]) -> list[str]:
    runs = study.runs
    judged = runs[runs["accuracy"].notna()]
    said: list[str] = []
    if judged.empty:
        return said
    if missing := len(study.missing):
        said.append(f"{missing} of {len(study.planned)} planned runs are not there yet: this is not the final answer.")
    seeds = judged["seed"].nunique()
    if seeds == 1:
        said.append("There is one seed: run-to-run noise is not separated from the differences.")
    heads = set(judged["head"].astype(str))
    frozen = {head_parts(head)[0] for head in heads if stays_frozen(head)}
    if frozen == {"autoencoder"}:
        said.append(
            "No frozen control other than the autoencoder was run, so these data cannot say whether the autoencoder "
            "or the freezing makes the difference."
        )
    elif "autoencoder" in frozen:
        said += _controls(comparisons)
    if judged["untrained"].isna().all():
        said.append("The untrained backbone was not probed: how much SimCLR itself added is not known.")
    said += _same_pictures(judged)
    said += _left_out(study, comparisons)
    if study.probe != "paper":
        said.append(f"Accuracy is the probe {study.probe}; the paper's printed numbers are its own probe's.")
    return said


def _controls(comparisons: Sequence[Comparison]) -> list[str]:
    """Is it the autoencoder, or the freezing? From the heads that stay frozen and are not the autoencoder's."""
    against: Mapping[str, Comparison] = {
        other: c
        for c in _widest([c for c in comparisons if c.pairing.factor == "head"])
        for head, other in ((c.pairing.a, c.pairing.b), (c.pairing.b, c.pairing.a))
        if head == "autoencoder-frozen" and other in PLAIN_CONTROLS
    }
    if not against:
        return []
    beaten = [
        o for o, c in against.items() if c.verdict == "beats" and (c.decision.test.mean > 0) == (c.pairing.a != o)
    ]
    names = ", ".join(name_of_head(o) for o in against)
    if len(beaten) == len(against):
        text = f"The frozen autoencoder beats every frozen control ({names}): freezing alone does not explain it"
    elif not beaten:
        text = (
            f"The frozen autoencoder is not shown to beat any frozen control ({names}): nothing here says that the "
            "autoencoder's weights, rather than freezing, make the difference"
        )
    else:
        text = (
            f"The frozen autoencoder beats {', '.join(name_of_head(o) for o in beaten)} but is not shown to beat "
            f"{', '.join(name_of_head(o) for o in against if o not in beaten)}: how much of it is the freezing is open"
        )
    few = sorted({c.clusters for c in against.values() if c.decision.test.independent < ENOUGH_CLUSTERS})
    return [text + (f"; {_listed(few)} are too few to settle it." if few else ".")]


PLAIN_CONTROLS = tuple(head_label(init, True) for init in INITS if init != "autoencoder")
"""Frozen heads that differ from the frozen autoencoder in the init alone."""


def _same_pictures(judged: pd.DataFrame) -> list[str]:
    """What the intervals over seeds leave out."""
    sizes = judged.groupby("dataset", observed=True)["n_test"].min().dropna()
    if judged["seed"].nunique() == 1 or sizes.empty:
        return []
    counts = ", ".join(f"{n:,.0f}" if len(sizes) == 1 else f"{dataset} {n:,.0f}" for dataset, n in sizes.items())
    return [
        f"All runs are judged on the same test pictures ({counts}): the intervals are about other seeds, not about "
        "other pictures."
    ]


def _left_out(study: Study, comparisons: Sequence[Comparison]) -> Iterator[str]:
    """Runs that no sentence speaks of, and comparisons that study.yaml names in vain."""
    runs = study.runs
    judged = runs[runs["accuracy"].notna()]
    if len(judged) < len(runs):
        yield f"{len(runs) - len(judged)} of {len(runs)} runs lack the probe and are in no comparison."
    if study.failed:
        yield f"{len(study.failed)} runs failed and are in no comparison."
    for dataset, part in judged.groupby("dataset", observed=True):
        if (versions := part["pictures"].nunique()) > 1:
            yield (
                f"{dataset} changed: its runs saw {versions} different sets of pictures, and only runs on the same are "
                "compared."
            )
    matched = {int(i) for c in comparisons for i in (*c.pairing.first, *c.pairing.second)}
    if comparisons and (alone := len(judged) - len(matched & set(judged.index))):
        yield (
            f"{alone} of {len(judged)} probed runs are in no comparison: no other run differs from them in one thing "
            "alone (precision and every other setting count)."
        )
    compared = {frozenset((c.pairing.a, c.pairing.b)) for c in comparisons}
    for pair in named_comparisons(study.settings.get("compare") or ()):
        if isinstance(pair, frozenset) and pair not in compared:
            yield f"study.yaml names {' against '.join(sorted(pair))}, which no two matched runs allow."
