"""Which runs of a study are matched.

Comes in: `Records.runs` and what study.yaml names under `compare`. Goes out: `Pairing`s, per data set and pooled. Two
runs are matched when they agree in everything but what is compared: the very pictures, seed, normalization, sizes, and
every other setting.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import pandas as pd

from headstart.records.names import HEAD_INITS, from_embedding
from headstart.report.frame import COLUMNS
from headstart.report.labels import (
    FACTORS,
    PROJECTORS,
    head_label,
    head_parts,
    name_of_head,
    named_comparisons,
)
from headstart.report.matching import Pairing, matched, scopes, sharing
from headstart.report.settings import in_words, places


def pair(runs: pd.DataFrame, compare: Sequence[Any] = (), metric: str = "accuracy") -> list[Pairing]:
    """Every pairing that the runs allow, per data set and, with several sets, pooled.

    `compare` is study.yaml's: pairs of heads (`[autoencoder-frozen, random-trainable]`, `ae` and `mlp` for the
    paper's two), or the name of a factor or a setting (`activation`, `backbone.name`) for all of its pairs. Runs
    without the `metric` are left out. Raises InputError for anything else.
    """
    named = named_comparisons(compare)
    judged = runs[runs[metric].notna()]
    found = []
    for factor in factors(runs):
        for within, part in [("", judged)] if factor == "head" else _by_head(judged):
            for a, b in sorted(combinations(_levels(part, factor), 2), key=lambda two: _rank(two, named)):
                both = _match(part, factor, a, b)
                family = _family(named, factor, within, str(a), str(b))
                found += [_pairing(factor, str(a), str(b), within, at, family, rows) for at, rows in scopes(both)]
    return found


def factors(runs: pd.DataFrame) -> list[str]:
    """What can be compared: heads, what belongs to a head, normalization, and every setting in which runs differ."""
    return [*FACTORS, "normalized", *settings_of(runs)]


def factor_of(setting: str) -> str:
    """The column of what is compared: `data.normalize` is `normalized`, `head.activation` is `activation`."""
    short = setting.removeprefix("head.")
    return "normalized" if setting == "data.normalize" else short if short in FACTORS else setting


def settings_of(runs: pd.DataFrame) -> list[str]:
    """The settings in which runs of one set differ, as columns by their dotted names."""
    return [name for name in runs.columns if name not in COLUMNS]


def sets_of(runs: pd.DataFrame, factor: str) -> pd.Series:
    """The data sets on which a factor is compared: where it is a setting, without its values in their names."""
    varied = settings_of(runs)
    return places(runs, [name for name in varied if name != factor]) if factor in varied else runs["dataset"]


def _rank(two: tuple[Any, Any], named: Mapping[Any, int]) -> tuple[int, bool]:
    """The comparisons that are named first, in their order; else the paper's two heads first."""
    return named.get(frozenset(two), len(named)), set(two) != set(PROJECTORS)


def _family(named: Mapping[Any, int], factor: str, within: str, a: str, b: str) -> str:
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
    numbers = pd.to_numeric(pd.Series(sorted(present)), errors="coerce")
    return sorted(present, key=float) if len(present) and numbers.notna().all() else sorted(present)


def _match(runs: pd.DataFrame, factor: str, a: Any, b: Any) -> pd.DataFrame:
    """Matched rows: columns first, second (positions in `Records.runs`), dataset, set, seed, autoencoder."""
    others = [name for name in settings_of(runs) if name != factor]
    keys = ["dataset", "set", "pictures", "seed", "settings", *others]
    keys += [f for f in (*FACTORS, "normalized") if f not in (factor, "head")]
    runs = runs.assign(dataset=sets_of(runs, factor))
    one, two = runs[runs[factor] == a], runs[runs[factor] == b]
    a_has, b_has = (all(map(from_embedding, rows["init"].unique())) for rows in (one, two))
    both_have, shared = a_has and b_has, set(one["autoencoder"]) & set(two["autoencoder"])
    if both_have and shared:
        keys.append("autoencoder")
    both = matched(one, two, keys, draws="autoencoder")
    if factor == "hidden_dim" or (both_have and not shared):  # of other sizes, or of another kind
        both["autoencoder"] = both["autoencoder"] + " | " + both["autoencoder_b"]
    elif b_has and not a_has:
        both["autoencoder"] = both["autoencoder_b"]
    return both


def _pairing(factor: str, a: str, b: str, within: str, dataset: str | None, family: str, rows: pd.DataFrame) -> Pairing:
    seeds, draws = sharing(rows)
    has = any(from_embedding(head_parts(head)[0]) for head in ((a, b) if factor == "head" else (within,)))
    thing = "autoencoder" if has else "first-layer draw"
    words = {level: _said(factor, level) for level in (a, b)}
    return Pairing(
        factor=factor,
        a=a,
        b=b,
        within=within,
        dataset=dataset,
        family=family,
        words={**words, within: name_of_head(within)} if within else words,
        first=rows["first"].to_numpy(),
        second=rows["second"].to_numpy(),
        seeds=seeds,
        draws=draws,
        thing=f"pair of {thing}s" if factor == "hidden_dim" else thing,
    )


def _said(factor: str, level: str) -> str:
    if factor == "head":
        return name_of_head(level)
    plain = {"activation": level, "hidden_dim": f"dim(g) {level}", "output_dim": f"dim(z) {level}"}
    return plain.get(factor) or in_words(factor, level)
