"""Which runs are matched, before anybody looks at an accuracy.

Comes in: `Records.runs` and what study.yaml names under `compare`. Goes out: `Pairing`s, per data set and pooled. Two
runs are matched when they agree in everything but what is compared: the very pictures, seed, normalization, the other
sizes, and every other setting.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from headstart.records.names import HEAD_INITS
from headstart.report.frame import sharing
from headstart.report.labels import (
    FACTORS,
    PROJECTORS,
    Factor,
    head_label,
    named_comparisons,
    needs_autoencoder,
)


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """Which runs are compared, before anybody looks at an accuracy.

    Attributes:
        a, b: what is compared: heads, activations or sizes.
        within: the head that both share, where the factor is not the head.
        dataset: the data set, or None for all sets pooled.
        family: comparisons of one family and scope are corrected together.
        first, second: rows of `Records.runs`, pair by pair.
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
        order = sorted(HEAD_INITS, key=lambda init: -HEAD_INITS[init].distance)
        ranked = [head_label(init, frozen) for init in order for frozen in (True, False)]
        return sorted(present - set(ranked)) + [h for h in ranked if h in present]
    column = runs[factor]
    if isinstance(column.dtype, pd.CategoricalDtype):
        return [level for level in column.cat.categories if level in present]
    return sorted(present)


def _match(runs: pd.DataFrame, factor: Factor, a: Any, b: Any) -> pd.DataFrame:
    """Matched rows: columns first, second (positions in `Records.runs`), dataset, seed, autoencoder."""
    keys = ["dataset", "pictures", "seed", "settings", "normalized", *(f for f in FACTORS if f not in (factor, "head"))]
    one, two = runs[runs[factor] == a], runs[runs[factor] == b]
    a_has, b_has = (all(map(needs_autoencoder, rows["init"].unique())) for rows in (one, two))
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
