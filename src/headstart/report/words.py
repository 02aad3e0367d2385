"""A comparison with its numbers, and in one plain sentence.

Comes in: a `Pairing` and its `Decision`. Goes out: what the data support, and whether the evidence is too little.
"""

from collections.abc import Sequence

import numpy as np

from headstart.records.text import be
from headstart.report.comparisons import ENOUGH_CLUSTERS, Comparison, Decision, Measure
from headstart.report.matching import Pairing
from headstart.statistics import Clustered


def cluster_words(pairing: Pairing, test: Clustered) -> str:
    """The independent things that a decision rests on, as `3 autoencoders`."""
    seeds, draws = test.clusters
    several_sets = (
        pairing.dataset is None and pairing.kind == "seed" and len({s.rpartition(" ")[0] for s in pairing.seeds}) > 1
    )
    seed_words = count(seeds, pairing.kind) + (" on their sets" if several_sets else "")
    if seeds == 1:
        return count(draws, pairing.thing)
    by_draw: dict[str, set[str]] = {}
    for draw, seed in zip(pairing.draws, pairing.seeds, strict=True):
        by_draw.setdefault(draw, set()).add(seed)
    nested = all(len(held) == 1 for held in by_draw.values())
    return seed_words if nested or draws == 1 else f"{seed_words} and {count(draws, pairing.thing)}"


def described(pairing: Pairing, decision: Decision, values: np.ndarray, measure: Measure, several: bool) -> Comparison:
    """A comparison with everything that is shown beside its decision; `several`: there are more sets than one."""
    gains = measure.gains(pairing, values)
    clusters = cluster_words(pairing, decision.test)
    return Comparison(
        pairing=pairing,
        measure=measure,
        decision=decision,
        gains=gains,
        wins=int((gains > 0).sum()),
        losses=int((gains < 0).sum()),
        clusters=clusters,
        sentence=sentence(pairing, decision, gains, clusters, several, measure),
    )


def count(n: int, thing: str) -> str:
    """`1 seed`, `2 seeds`, `2 pairs of autoencoders`."""
    if n == 1:
        return f"1 {thing}"
    return f"{n} {thing.replace('pair of', 'pairs of')}" if thing.startswith("pair of") else f"{n} {thing}s"


def sentence(
    pairing: Pairing, decision: Decision, gains: np.ndarray, clusters: str, several: bool, measure: Measure
) -> str:
    """What a comparison shows, and whether its clusters are too few to settle it; `several`: there are more sets."""
    mean = decision.test.mean
    if decision.verdict == "none":
        better, worse, sign = pairing.a, pairing.b, 1
    else:
        better, worse, sign = (pairing.b, pairing.a, -1) if mean < 0 else (pairing.a, pairing.b, 1)
    better, worse = pairing.said(better), pairing.said(worse)
    ahead = int((sign * gains > 0).sum())
    low, high = sorted(sign * bound for bound in decision.test.interval)
    where = "".join(
        [
            f" in the {pairing.said(pairing.within)} head" if pairing.within else "",
            f" on {pairing.dataset}" if pairing.dataset and several else "",
        ]
    )
    size, over = measure.text(abs(mean)), f"{measure.text(low)} to {measure.text(high)} over {clusters}"
    pairs = f"{ahead} of {gains.size} pairs"
    match decision.verdict:
        case "beats":
            text = f"{better} beats {worse}{where} by {size} {measure.unit} ({over}; {pairs})"
        case "ahead":
            text = (
                f"{better} is ahead of {worse}{where} by {size} {measure.unit} ({over}; {pairs}), but not once "
                f"corrected for {decision.family_size} comparisons (p = {decision.adjusted:.2f})"
            )
        case "none":
            text = (
                f"no difference{measure.about} is detectable between {better} and {worse}{where} ({over}; {better} "
                f"ahead in {pairs})"
            )
        case _:
            why = _undecidable(decision.test, clusters)
            text = _undecided(better, worse, where, f"{size} {measure.unit}", pairs, gains.size, why, mean, measure)
    text = text[0].upper() + text[1:]
    if decision.verdict != "open" and decision.test.independent < ENOUGH_CLUSTERS:
        text += f"; {too_few([clusters])}"
    return text + "."


def too_few(clusters: Sequence[str], of: str = "") -> str:
    """`1 seed is too few to settle it`, `3 seeds and 4 autoencoders a set are too few to settle it`; `of`: ` a set`."""
    text = listed(clusters)
    return f"{text}{of} {be(1 if text.startswith('1 ') and ' and ' not in text else 2)} too few to settle it"


def _undecidable(test: Clustered, clusters: str) -> str:
    if test.independent > 1:
        return f"every difference over {clusters} is this one number, so nothing says how far it may be from chance"
    rests = "one seed" if clusters == "1 seed" else f"one seed and {clusters.replace('1 ', 'one ')}"
    return f"{rests} cannot settle it"


def _undecided(
    better: str, worse: str, where: str, size: str, ahead: str, pairs: int, why: str, mean: float, measure: Measure
) -> str:
    seen = "one pair of runs" if pairs == 1 else ahead
    if mean == 0:
        return f"{better} and {worse}{where} reach the same {measure.name}; {why}"
    return f"{better} is ahead of {worse}{where} by {size} in {seen}; {why}"


def listed(items: Sequence[str]) -> str:
    """`a, b and c`."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]
