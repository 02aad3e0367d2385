"""What goes with a head's accuracy: `python results/why.py` prints the tables of details.md.

Of each study with six starts, frozen and trainable, and `FEWEST` seeds of each: what is recorded of a head before the
first step (the gradient that reaches h, NT-Xent's; the first layer's effective rank, exp of the entropy of its singular
values' shares; hidden units that no picture moves), of z and h of validation views after a quarter of the epochs and
after the last, and accuracy. Rank correlations are over runs, each value less its seed's mean, as a seed's backbone,
pictures and order are the same for all heads; 95 % intervals are the percentile bootstrap's over runs (2,000 draws).
"""

import signal
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from recorded import (
    accuracies,
    correlations,
    effective_rank,
    epochs,
    middle,
    of_sets,
    ranked,
    table,
    two,
    whole_studies,
)

from headstart.report.frame import Records

PROBE = "few_shot_5"
PROBES = ("few_shot_5", "few_shot_1", "knn", "linear", "paper")
STARTS, FEWEST = 6, 3
FIGURES = {
    "gradient that reaches h": "before the first step",
    "effective rank of the layer": "before the first step",
    "largest singular value": "before the first step",
    "dead hidden units, %": "before the first step",
    "early uniformity of z": "after the first quarter, in whole epochs",
    "early alignment of z": "after the first quarter, in whole epochs",
    "uniformity of z": "after the last epoch",
    "alignment of z": "after the last epoch",
    "RankMe of z": "after the last epoch",
    "uniformity of h": "after the last epoch",
    "RankMe of h": "after the last epoch",
}
"""What is shown, and when it was taken; uniformity and alignment with the sign that makes larger the better."""
SHOWN = {
    "gradient that reaches h": 2,
    "effective rank of the layer": 0,
    "dead hidden units, %": 0,
    "early uniformity of z": 2,
    "uniformity of z": 2,
    "RankMe of z": 1,
    "RankMe of h": 0,
    PROBE: 1,
}
"""Of which means are shown, with that many decimals."""
MATCHED = "digits/controls", "digits/matched"
"""The same heads as they are, and rescaled to the output of a random layer."""


def main(_: Path | None = None) -> None:
    """Print three tables as Markdown."""
    found = dict(_controls())
    print(_correlations(found))
    print()
    print(_means(found))
    print()
    print(_spread(*(dict(_of_study(name)) for name in MATCHED)))


def _controls() -> Iterator[tuple[str, pd.DataFrame]]:
    """Each set with all starts, by study: a row a run."""
    for study, records in whole_studies():
        for name, runs in of_sets(records):
            counts = runs.groupby(["init", "frozen"], observed=True)["seed"].nunique()
            if (counts >= FEWEST).sum() == 2 * STARTS == runs["head"].nunique() and PROBE in (
                found := _table(records, runs)
            ):
                yield f"{study} ({name})", found


def _of_study(asked: str) -> Iterator[tuple[str, pd.DataFrame]]:
    yield from (
        (name, _table(records, runs))
        for study, records in whole_studies()
        if study == asked
        for name, runs in of_sets(records)
    )


def _table(records: Records, runs: pd.DataFrame) -> pd.DataFrame:
    own = [figures(records, run) | accuracies(records, run) for run in runs["run"]]
    return pd.concat([runs[["head", "init", "frozen", "seed"]].reset_index(drop=True), pd.DataFrame(own)], axis=1)


def figures(records: Records, run: str) -> dict[str, float]:
    """A run's `FIGURES`."""
    head, curve = records.results[run]["geometry"]["head"], epochs(records, run)
    early, last = curve[max(0, len(curve) // 4 - 1)], curve[-1]
    return {
        "gradient that reaches h": head["gradient_norm"],
        "effective rank of the layer": effective_rank(head["singular_values"]),
        "largest singular value": head["singular_values"][0],
        "dead hidden units, %": 100 * head["hidden_dead"],
        "early uniformity of z": -early["z_uniformity"],
        "early alignment of z": -early["z_alignment"],
        "uniformity of z": -last["z_uniformity"],
        "alignment of z": -last["z_alignment"],
        "RankMe of z": last["z_effective_rank"],
        "uniformity of h": -last["h_uniformity"],
        "RankMe of h": last["h_effective_rank"],
    }


def _correlations(found: dict[str, pd.DataFrame]) -> str:
    """Of each figure with the probe, in all heads and in the frozen ones."""
    columns = {
        f"{name}: {which}, {len(runs)} runs": _agreement(runs)
        for name, table in found.items()
        for which, runs in (("all heads", table), ("frozen heads", table[table["frozen"]]))
    }
    rows = [[figure, when, *(cells.get(figure, "") for cells in columns.values())] for figure, when in FIGURES.items()]
    return table([f"with `{PROBE}`", "taken", *columns], rows, left=2)


def _agreement(runs: pd.DataFrame) -> dict[str, str]:
    names = [*FIGURES, PROBE]
    ranks = ranked(runs[names] - runs.groupby("seed")[names].transform("mean"))
    cells = {}
    for figure in (figure for figure in FIGURES if figure in ranks):
        rho = correlations(ranks[figure], ranks[PROBE])
        low, high = middle(rho[1:])
        cells[figure] = f"{two(rho[0])} ({two(low)} to {two(high)})"
    return cells


def _means(found: dict[str, pd.DataFrame]) -> str:
    """Of the autoencoder's layer and of the five others, frozen and trainable."""
    rows = []
    for name, runs in found.items():
        for frozen in (True, False):
            for words, own in (("autoencoder", True), ("the others", False)):
                part = runs[((runs["init"] == "autoencoder") == own) & (runs["frozen"] == frozen)]
                cells = [f"{part[figure].mean():.{digits}f}" for figure, digits in SHOWN.items()]
                rows.append([name, f"{words}, {'frozen' if frozen else 'trainable'}", *cells])
    return table(["study", "first layer", *SHOWN], rows, left=2).replace(PROBE, f"`{PROBE}`")


def _spread(plain: dict[str, pd.DataFrame], scaled: dict[str, pd.DataFrame]) -> str:
    """How far the twelve heads' means lie apart without and with matched scale, over the seeds of both studies."""
    rows = []
    for name in plain.keys() & scaled.keys():
        seeds = {*plain[name]["seed"]} & {*scaled[name]["seed"]}
        sides = [side[name][side[name]["seed"].isin(seeds)] for side in (plain, scaled)]
        for probe in PROBES:
            means = [side.groupby(["init", "frozen"], observed=True)[probe].mean() for side in sides]
            autoencoder = [f"{one['autoencoder', frozen]:.1f}" for frozen in (True, False) for one in means]
            rows.append([f"{name}, `{probe}`", str(len(seeds)), *(f"{one.std():.1f}" for one in means), *autoencoder])
    columns = ["spread of twelve heads", "frozen autoencoder", "trainable autoencoder"]
    return table(["scale as it is, matched", "seeds", *(head for one in columns for head in (one, "matched"))], rows)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it without a word
    main()
