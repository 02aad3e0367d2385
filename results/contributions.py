"""The paper's contributions 1 to 5, judged by these records: `python results/contributions.py` prints a sentence each.

A difference is one between runs that share set, seed and all else, by the probe that decides in its study, with
Student's t interval (95 %) over seeds, uncorrected; heads of which both sides share `FEWEST` seeds take part, and a
pair that two studies share counts in the one that has more seeds of it. Whether a difference lies above or below zero
is decided at 5 % after Holm's correction for the claim's settings, and fewer than ENOUGH_CLUSTERS seeds decide nothing,
as in reports. Supported is what lies above in some settings and below in none, contradicted the reverse, mixed what
lies above in one and below in another, each with the number of settings; all else is not settled.
What the authors' own runs say is printed by authors.py. Into a folder given as argument goes contributions.svg.
"""

import re
import signal
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import zscore
from recorded import accuracies, of_sets, table, whole_studies

from headstart.records.names import HEAD_INITS
from headstart.report.comparisons import ENOUGH_CLUSTERS, points, signed
from headstart.report.frame import Records
from headstart.report.labels import head_parts
from headstart.report.svg import WIDTH, Drawing, Look, scale
from headstart.statistics import Interval, clustered, holm

FEWEST = 3
"""Seeds that the two sides of a difference must share."""
ALPHA = 0.05
Row = Mapping[str, object]
"""Columns, and what they hold: a value, or one of several."""


class Difference(NamedTuple):
    """What a change was worth in one setting, in points.

    p: of no difference. seeds: how many, or of what else is the unit. heads: over how many it is averaged.
    """

    where: str
    mean: float
    interval: Interval
    p: float
    seeds: int
    over: str
    heads: int = 1

    def __str__(self) -> str:
        """In words."""
        low, high = map(points, self.interval)
        return f"{self.where} {signed(self.mean)} ({low} to {high}; {self.over})"


EMBEDDING = {"start": "autoencoder", "frozen": True}
PLAIN = {"start": "random", "frozen": False}
CONTROLS = EMBEDDING | {"start": [name for name in HEAD_INITS if name != EMBEDDING["start"]]}
"""Every other start, frozen."""
MATCHED = ["dataset", "seed", "start", "frozen", "activation", "hidden_dim", "output_dim"]
"""In what the two runs of a pair agree, but for what is asked about."""


def main(files: Path | None = None) -> None:
    """Print the sentences as a Markdown list, and a table; write the figure into the folder `files`."""
    found = claims([judged for study, records in whole_studies() for judged in _of(study, records)])
    for claim, settings in found.items():
        print(sentence(claim, settings))
    print(f"\n{freezing()}")
    if files:
        (files / "contributions.svg").write_text(_drawing(found).standalone(), encoding="utf-8")


def claims(runs: Sequence[tuple[str, pd.DataFrame]]) -> dict[str, list[Difference]]:
    """What is claimed, by its number in the paper ((1b): by us), and what each setting says of it."""
    random, narrow = EMBEDDING | {"start": "random"}, [(wide, wide // 4) for wide in (128, 64)]
    return {
        "(1) The frozen pretrained embedding beats the plain head": differences(runs, EMBEDDING, PLAIN),
        "(1b) It beats a frozen random layer, which the paper does not have": differences(runs, EMBEDDING, random),
        "(1c) It beats the frozen controls, on average over those that were run": [
            one for one in differences(runs, EMBEDDING, CONTROLS) if one.heads > 1
        ],
        "(2) Sigmoid beats ReLU": differences(runs, {"activation": "Sigmoid"}, {"activation": "ReLU"}),
        "(2) Tanh beats ReLU": differences(runs, {"activation": "Tanh"}, {"activation": "ReLU"}),
        "(3) The embedding with a quarter of the projections beats the plain head": [
            one
            for wide, few in narrow
            for one in differences(runs, EMBEDDING | {"output_dim": few}, PLAIN | {"output_dim": wide})
        ],
        "(4) Freezing the pretrained embedding is worth points": differences(
            runs, EMBEDDING, EMBEDDING | {"frozen": False}
        ),
        "(4b) Freezing the first layer is, on average over the starts that were run": differences(
            runs, {"frozen": True}, {"frozen": False}
        ),
        "(5) Z-score costs the paper's autoencoder explained variance": lost("mlp"),
        "(5b) It costs the same autoencoder without its last sigmoid": lost("unbounded"),
    }


def sentence(claim: str, found: Sequence[Difference]) -> str:
    """One claim, with its verdict and its numbers."""
    if not found:
        return f"- {claim}: **not settled**, no run varies it."
    return f"- {claim}: **{verdict(found)}**. In points: {'; '.join(map(str, found))}."


def verdict(found: Sequence[Difference]) -> str:
    """What the settings together say."""
    stands = standing(found)
    above, below = (sum(stands & (np.sign([one.mean for one in found]) == sign)) for sign in (1, -1))
    if above and below:
        return f"mixed, above in {above} and below in {below} of {len(found)} settings"
    if not above and not below:
        return "not settled"
    where = f"{above or below} of {len(found)} settings" if len(found) > 1 else "one setting"
    return f"{'supported' if above else 'contradicted'} in {where}"


def standing(found: Sequence[Difference]) -> np.ndarray:
    """Which of them are told from zero, corrected for their number."""
    return (holm([one.p for one in found]) <= ALPHA) & [one.seeds >= ENOUGH_CLUSTERS for one in found]


def freezing() -> str:
    """Frozen less trainable by every probe of a study, over the starts of which both have `FEWEST` seeds."""
    found: dict[str, dict[str, Difference]] = {}
    for study, records in whole_studies():
        for name, runs in of_sets(records):
            told = {run: accuracies(records, run) for run in runs["run"]}
            for probe in sorted({probe for own in told.values() for probe in own}):
                judged = _headed(runs).assign(percent=[told[run].get(probe, np.nan) for run in runs["run"]])
                pairs = [(f"{study} ({name})", judged[judged["percent"].notna()])]
                for one in differences(pairs, {"frozen": True}, {"frozen": False}):
                    if one.heads > 1:
                        found.setdefault(one.where, {})[probe] = one
    stands = {where: dict(zip(own, standing([*own.values()]), strict=True)) for where, own in found.items()}
    probes = sorted({probe for own in found.values() for probe in own})
    rows = [
        [f"`{probe}`", *(_cell(own.get(probe), stands[where].get(probe)) for where, own in found.items())]
        for probe in probes
    ]
    return table(["frozen less trainable, points", *found], rows)


def _cell(one: Difference | None, stands: object) -> str:
    if one is None:
        return ""
    low, high = map(points, one.interval)
    return f"{signed(one.mean)} ({low} to {high}){'*' if stands else ''}"


def _headed(runs: pd.DataFrame) -> pd.DataFrame:
    return runs.assign(start=[" ".join(filter(None, head_parts(head)[:2])) for head in runs["head"]])


def _of(study: str, records: Records) -> Iterator[tuple[str, pd.DataFrame]]:
    """The runs of each set that have the deciding probe, in percent."""
    for name, runs in of_sets(records):
        judged = _headed(runs).assign(percent=100 * runs["accuracy"])
        yield f"{study} ({name}, `{records.probe}`)", judged[judged["percent"].notna()]


def differences(runs: Sequence[tuple[str, pd.DataFrame]], new: Row, old: Row) -> list[Difference]:
    """What `new` is worth beside `old` in each setting, on average over the heads that either has there."""
    keys = [column for column in MATCHED if new.get(column) == old.get(column)]
    heads = [column for column in keys if column not in ("dataset", "seed", *new)]
    heads += [f"{column}_old" for column, value in old.items() if isinstance(value, list)]
    paired = {
        where: _where(table, new).merge(_where(table, old), on=keys, suffixes=("", "_old")) for where, table in runs
    }
    seen: set[tuple[str, str]] = set()
    found = {}
    for where, pairs in sorted(paired.items(), key=lambda one: -one[1]["seed"].nunique()):
        own = list(zip(pairs["same"], pairs["same_old"], strict=True))
        pairs, seen = pairs[np.array([pair not in seen for pair in own], dtype=bool)], seen | {*own}
        pairs = pairs[pairs.groupby(heads)["seed"].transform("nunique") >= FEWEST]
        if len(pairs):
            each = pairs.groupby(heads)["seed"].nunique()
            few = f", {each.min()} of one" if each.min() < each.max() else ""
            more = f", {len(each)} heads averaged{few}" if len(each) > 1 else ""
            gains = pairs["percent"] - pairs["percent_old"]
            found[where] = _difference(where, gains, pairs["seed"], more)._replace(heads=len(each))
    return [found[where] for where in sorted(found)]


def _where(table: pd.DataFrame, values: Row) -> pd.DataFrame:
    for column, value in values.items():
        table = table[table[column].isin(value if isinstance(value, list) else [value])]
    return table


def _difference(where: str, points: pd.Series, seeds: pd.Series, more: str = "") -> Difference:
    test = clustered(points.to_numpy(float), seeds.astype(str).to_numpy())
    return Difference(where, test.mean, test.interval, test.p, seeds.nunique(), f"{seeds.nunique()} seeds{more}")


def lost(kind: str) -> list[Difference]:
    """How much less an autoencoder of that kind explains of test pictures when it is given Z-scored ones."""
    found = zscore.explained()
    found = found[found["kind"] == kind].pivot(index=["size", "seed"], columns="scored", values="explained").dropna()
    if found.index.get_level_values("seed").nunique() < FEWEST:
        return []
    seeds = found.index.get_level_values("seed").to_series()
    sizes = " and ".join(map(str, sorted({*found.index.get_level_values("size")})))
    return [_difference("paper/zscore (cifar10-jpeg)", found[False] - found[True], seeds, f", embeddings of {sizes}")]


def _drawing(found: Mapping[str, Sequence[Difference]]) -> Drawing:
    """A row a claim and setting: the difference with its interval; filled where it stands after correction."""
    shown = {claim: settings for claim, settings in found.items() if settings and not claim.startswith("(5")}
    ends = [end for settings in shown.values() for one in settings for end in one.interval]
    axis = scale(ends, 8, WIDTH - 8, zero=True)
    lines = {claim: textwrap.wrap(f"{claim}: {verdict(settings)}", 56) for claim, settings in shown.items()}
    bottom = sum(16 * len(lines[claim]) + 30 * len(settings) + 14 for claim, settings in shown.items())
    said = "; ".join(f"{claim}: {verdict(settings)}" for claim, settings in shown.items())
    drawing = Drawing(bottom + 40, f"What each setting says of each claim. {said}")
    drawing.x_axis(axis, 0, bottom, "difference in points, 95 % interval over seeds")
    drawing.line(axis(0), 0, axis(0), bottom, "zero")
    y = 14.0
    for claim, settings in shown.items():
        for line in lines[claim]:
            drawing.text(0, y, line, "label")
            y += 16
        for one, stands in zip(settings, standing(settings), strict=True):
            drawing.text(8, y, re.sub(", `.*`", "", one.where), "small")  # without its probe
            drawing.text(WIDTH, y, one.over.partition(",")[0], "small", "end")
            drawing.line(axis(one.interval[0]), y + 11, axis(one.interval[1]), y + 11, "interval")
            drawing.mark(axis(one.mean), y + 11, Look("plain", "diamond", hollow=not stands), 4.5, str(one))
            y += 30
        y += 14
    return drawing


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it without a word
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
