"""Matched rows, before anybody looks at a number: what is compared, and what each pair shares with others.

Comes in: parts of a table and the columns in which a pair must agree. Goes out: `Pairing`s, per data set and pooled.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """Which rows are compared.

    Attributes:
        factor: what differs within a pair.
        a, b: its two values.
        within: the head that both share, where the factor is not the head.
        dataset: the data set, or None for all sets pooled.
        family: comparisons of one family and scope are corrected together.
        words: how people read the values and `within`; a value that is not in it reads as it is.
        first, second: rows of the table, pair by pair.
        seeds, draws: what each pair shares with others.
        thing: what the draws are, in a word: `autoencoder`.
        kind: what the seeds are, in a word; where rows of different clusters meet crosswise, those of `a`.
    """

    factor: str
    a: str
    b: str
    within: str = ""
    dataset: str | None
    family: str
    words: Mapping[str, str] = field(default_factory=dict, repr=False)
    first: np.ndarray = field(repr=False)
    second: np.ndarray = field(repr=False)
    seeds: np.ndarray = field(repr=False)
    draws: np.ndarray = field(repr=False)
    thing: str = "draw"
    kind: str = "seed"

    def said(self, level: str) -> str:
        """A value as people read it: `frozen autoencoder`, `dim(z) 64`."""
        return self.words.get(level, level)

    def differences(self, values: np.ndarray) -> np.ndarray:
        """Value of `a` minus that of `b`, pair by pair."""
        return values[self.first] - values[self.second]


def matched(one: pd.DataFrame, two: pd.DataFrame, keys: Sequence[str], draws: str) -> pd.DataFrame:
    """Pairs of rows that agree in `keys`: columns first, second (their labels), the keys, `draws`, `draws`_b."""
    columns = [*dict.fromkeys([*keys, draws])]
    return (
        one[columns]
        .assign(first=one.index)
        .merge(two[columns].assign(second=two.index), on=list(keys), suffixes=("", "_b"))
    )


def scopes(pairs: pd.DataFrame) -> Iterator[tuple[str | None, pd.DataFrame]]:
    """All data sets pooled (None) where there are several, then each."""
    if pairs["dataset"].nunique() > 1:
        yield None, pairs
    for dataset, rows in pairs.groupby("dataset", observed=True):
        yield str(dataset), rows


def sharing(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Labels of what rows share, for `statistics.clustered`: their seeds, and what they were drawn from.

    One seed number on two sets trains on different pictures in a different order, so it is two seeds. With one seed
    in all, no set's seed can be told from its mean, and only the draws count.
    """
    seeds = rows["seed"].astype(str)
    if rows["seed"].nunique() > 1:
        seeds = rows["set"].astype(str) + " " + seeds
    return seeds.to_numpy(dtype=str), rows["autoencoder"].to_numpy(dtype=str)
