"""The paper's contributions 1 to 5, judged by these records: `python results/contributions.py` prints a sentence each.

A difference is one between runs that share set, seed and all else, by the probe that decides in its study, with
Student's t interval (95 %) over seeds, uncorrected; studies in which both sides share `FEWEST` seeds take part, and a
pair that two studies share counts in the larger alone. Supported is what lies above zero in every setting, of two or
more; not supported, what lies below in one and above in none; all else is not settled. What the authors' own runs say
is printed by authors.py.
"""

import signal
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import zscore
from recorded import of_sets, whole_studies

from headstart.report.comparisons import points, signed
from headstart.report.frame import Records
from headstart.report.labels import head_parts
from headstart.statistics import Interval, clustered

FEWEST = 3
"""Seeds that the two sides of a difference must share."""
SETTINGS = 2
"""In which a claim must hold to be called supported."""
Row = Mapping[str, object]


class Difference(NamedTuple):
    """What a change was worth in one setting, in points."""

    where: str
    mean: float
    interval: Interval
    over: str

    def __str__(self) -> str:
        """In words."""
        low, high = map(points, self.interval)
        return f"{self.where} {signed(self.mean)} ({low} to {high}; {self.over})"


EMBEDDING = {"start": "autoencoder", "frozen": True}
PLAIN = {"start": "random", "frozen": False}
MATCHED = ["dataset", "seed", "start", "frozen", "activation", "hidden_dim", "output_dim"]
"""In what the two runs of a pair agree, but for what is asked about."""


def main() -> None:
    """Print the five sentences as a Markdown list."""
    runs = [judged for study, records in whole_studies() for judged in _of(study, records)]
    told(1, "The frozen pretrained embedding beats the plain head", differences(runs, EMBEDDING, PLAIN))
    random = EMBEDDING | {"start": "random"}
    _more("It beats a frozen random layer, which the paper does not have", differences(runs, EMBEDDING, random))
    for name in ("Sigmoid", "Tanh"):
        told(2, f"{name} beats ReLU", differences(runs, {"activation": name}, {"activation": "ReLU"}))
    quarter = [
        found
        for wide in (128, 64)
        for found in differences(runs, EMBEDDING | {"output_dim": wide // 4}, PLAIN | {"output_dim": wide})
    ]
    told(3, "The embedding with a quarter of the projections (32 for 128 in the paper) beats the plain head", quarter)
    told(4, "Freezing the pretrained embedding is worth points",
         differences(runs, EMBEDDING, EMBEDDING | {"frozen": False}))  # fmt: skip
    _more("Freezing is, over all starts of the layer", differences(runs, {"frozen": True}, {"frozen": False}))
    told(5, "Z-score costs the paper's autoencoder explained variance", lost("mlp"))
    _more("It costs the same autoencoder without its last sigmoid", lost("unbounded"))


def told(number: int, claim: str, found: Sequence[Difference], least: int = SETTINGS) -> None:
    """One contribution, with its verdict and its numbers."""
    print(f"- ({number}) {_sentence(claim, found, least)}")


def _more(claim: str, found: Sequence[Difference]) -> None:
    print(f"  - {_sentence(claim, found)}")


def _sentence(claim: str, found: Sequence[Difference], least: int = SETTINGS) -> str:
    if not found:
        return f"{claim}: **not settled**, no run varies it."
    return f"{claim}: **{verdict(found, least)}**. In points: {'; '.join(map(str, found))}."


def verdict(found: Sequence[Difference], least: int = SETTINGS) -> str:
    """What the settings together say; least: in how many a claim must hold."""
    above, below = (sum(sign * end > 0 for end in ends) for sign, ends in _ends(found))
    if above == len(found) >= least:
        return "supported"
    return "not supported" if below and not above else "not settled"


def _ends(found: Sequence[Difference]) -> Iterator[tuple[int, list[float]]]:
    """The ends of the intervals that are nearer to zero, where they lie above it, and where below."""
    yield 1, [one.interval[0] for one in found]
    yield -1, [one.interval[1] for one in found]


def _of(study: str, records: Records) -> Iterator[tuple[str, pd.DataFrame]]:
    """The runs of each set that have the deciding probe, in percent."""
    for name, runs in of_sets(records):
        starts = [" ".join(filter(None, head_parts(head)[:2])) for head in runs["head"]]
        judged = runs.assign(start=starts, percent=100 * runs["accuracy"])
        yield f"{study} ({name}, `{records.probe}`)", judged[judged["percent"].notna()]


def differences(runs: Sequence[tuple[str, pd.DataFrame]], new: Row, old: Row) -> list[Difference]:
    """What `new` is worth beside `old`, columns and their values, in each setting."""
    keys = [column for column in MATCHED if new.get(column) == old.get(column)]
    paired = {
        where: _where(table, new).merge(_where(table, old), on=keys, suffixes=("", "_old")) for where, table in runs
    }
    seen: set[tuple[str, str]] = set()
    found = {}
    for where, pairs in sorted(paired.items(), key=lambda one: -len(one[1])):
        own = list(zip(pairs["same"], pairs["same_old"], strict=True))
        pairs, seen = pairs[np.array([pair not in seen for pair in own], dtype=bool)], seen | {*own}
        if pairs["seed"].nunique() >= FEWEST:
            found[where] = _difference(where, pairs["percent"] - pairs["percent_old"], pairs["seed"])
    return [found[where] for where in sorted(found)]


def _where(table: pd.DataFrame, values: Row) -> pd.DataFrame:
    for column, value in values.items():
        table = table[table[column] == value]
    return table


def _difference(where: str, points: pd.Series, seeds: pd.Series) -> Difference:
    test = clustered(points.to_numpy(float), seeds.astype(str).to_numpy())
    return Difference(where, test.mean, test.interval, f"{seeds.nunique()} seeds")


def lost(kind: str) -> list[Difference]:
    """How much less an autoencoder of that kind explains of test pictures when it is given Z-scored ones."""
    table = zscore.explained()
    table = table[table["kind"] == kind].pivot(index=["size", "seed"], columns="scored", values="explained").dropna()
    return [
        _difference(f"embedding of {size}", own[False] - own[True], own.index.get_level_values("seed").to_series())
        for size, own in table.groupby("size")
        if len(own) >= FEWEST
    ]


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it without a word
    main()
