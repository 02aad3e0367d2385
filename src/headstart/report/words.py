"""A comparison in one plain sentence.

Comes in: a `Pairing` and its `Decision`. Goes out: what the data support, and whether the evidence is too little.
"""

from collections.abc import Sequence

import numpy as np

from headstart.report.comparisons import ENOUGH_CLUSTERS, Decision
from headstart.report.frame import Records
from headstart.report.labels import (
    head_parts,
    name_of_head,
    needs_autoencoder,
)
from headstart.report.pairing import Pairing
from headstart.statistics import Clustered


def name_of(pairing: Pairing, level: str) -> str:
    """What is compared, as a person says it: `frozen autoencoder`, `Tanh`, `dim(z) 64`."""
    if pairing.factor == "head":
        return name_of_head(level)
    return {"activation": level, "hidden_dim": f"dim(g) {level}", "output_dim": f"dim(z) {level}"}[pairing.factor]


def cluster_words(pairing: Pairing, test: Clustered) -> str:
    """The independent things that a decision rests on, as `3 autoencoders`."""
    seeds, layers = test.clusters
    has = any(needs_autoencoder(head_parts(head)[0]) for head in (pairing.a, pairing.b, pairing.within))
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


def sentence(pairing: Pairing, decision: Decision, differences: np.ndarray, clusters: str, study: Records) -> str:
    """What a comparison shows, and whether its clusters are too few to settle it."""
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


def listed(items: Sequence[str]) -> str:
    """`a, b and c`."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]
