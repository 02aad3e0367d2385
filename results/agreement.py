"""Which figure without labels predicts accuracy: `python results/agreement.py` prints the tables of details.md.

A setting is a set of a study with `FEWEST` runs or more that keep their last epoch's weights. Within each, Spearman's
rank correlation of a figure with a probe's accuracy over runs, each value less the mean of its seed, as in why.py.
Over settings it is the mean of Fisher's z, weighted by runs less three (Fisher 1921), with the percentile bootstrap's
95 % interval over the runs of each setting (Efron 1979; 2,000 draws, seed 0), as if runs were independent. `over
settings` is Student's interval of the settings' z, `as one` forgets which setting a run is of. Shown setting by setting
is the probe that decides in each study. Into a folder given as argument go agreement.csv (every correlation) and
agreement.svg (a dot a setting, filled where a network began with given weights; a diamond the mean, with its interval
over settings).
"""

import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from recorded import accuracies, correlations, epochs, middle, of_sets, ranked, studies, table, two
from scipy.stats import spearmanr

from headstart.report.frame import Records
from headstart.report.svg import WIDTH, Drawing, Look, scale
from headstart.statistics import Interval, t_interval

FEWEST = 8
"""Runs of a setting; fewer tell nothing of ranks."""
SHOWN = "decides"
"""The probe that decides in a study, named before its runs: the one that is shown setting by setting."""
PROBES = (SHOWN, "few_shot_5", "knn", "linear", "few_shot_1", "paper")
OF_VIEWS = {
    "uniformity of z": ("z_uniformity", -1),
    "RankMe of z": ("z_effective_rank", 1),
    "alignment of z": ("z_alignment", -1),
    "uniformity of h": ("h_uniformity", -1),
    "RankMe of h": ("h_effective_rank", 1),
    "alignment of h": ("h_alignment", -1),
}
"""Of two views of validation pictures, after the last epoch (metrics.jsonl); the sign makes larger the better."""
OF_TEST = {
    "RankMe of h, test": ("effective_rank", 1),
    "centred rank of h, test": ("centred_rank", 1),
    "alpha-ReQ of h, test": ("alpha_req", -1),
    "LiDAR of h, test": ("lidar", 1),
    "view retrieval by h, test": ("retrieval", 1),
}
"""Of test pictures, without labels (`geometry` in result.json); the older runs have the first alone."""
LOSS = "validation loss"
FIGURES = (LOSS, *OF_VIEWS, *OF_TEST)
UNLIKE = {"contrastive.objective", "contrastive.temperature"}
"""Where one of these varies, losses are not the same measure."""


@dataclass(frozen=True)
class Agreement:
    """A figure and a probe in one setting."""

    setting: str
    given: bool
    """Whether its networks began with given weights."""
    probe: str
    figure: str
    pairs: np.ndarray
    """(2, runs): figures and accuracies."""
    rho: float
    draws: np.ndarray
    """The bootstrap's correlations, nan where all that was drawn is one value."""

    @property
    def runs(self) -> int:
        """How many."""
        return self.pairs.shape[1]

    @property
    def interval(self) -> Interval:
        """95 %."""
        return middle(self.draws)


@dataclass(frozen=True)
class Pooled:
    """A figure and a probe over settings: Fisher's mean, and how the settings vary."""

    figure: str
    settings: int
    runs: int
    rho: float
    interval: Interval
    """Over runs."""
    of_settings: Interval
    """Student's t over the settings' z: about another setting like these."""
    as_one: float
    """The correlation over all runs, whichever setting they are of."""


def main(files: Path | None = None) -> None:
    """Print what details.md holds, and write the rest into the folder `files`."""
    found = [one for study, records in studies() for one in agreements(study, records)]
    shown = [one for one in found if one.probe == SHOWN]
    order = [one.figure for one in sorted(over_settings(shown), key=lambda one: -one.rho)]
    print(_pooled_table(found, order))
    print()
    print(_setting_table(shown, order))
    if files:
        rows = [
            [one.setting, one.probe, one.figure, one.runs, one.rho, *one.interval]
            for one in found
            if one.probe != SHOWN
        ]
        names = ["setting", "probe", "figure", "runs", "rho", "low", "high"]
        pd.DataFrame(rows, columns=names).round(4).to_csv(files / "agreement.csv", index=False)
        (files / "agreement.svg").write_text(_drawing(shown, order).standalone(), encoding="utf-8")


def agreements(study: str, records: Records) -> Iterator[Agreement]:
    """Every figure with every probe in each of a study's sets."""
    for name, runs in of_sets(records):
        chosen = [run for run in runs["run"] if _kept_last(records, run)]
        if len(chosen) < FEWEST:
            continue
        values = pd.DataFrame([{**figures(records, run), **accuracies(records, run)} for run in chosen])
        values = values.drop(columns=[LOSS] if UNLIKE & {*runs.columns} else []).astype(float)
        values[SHOWN] = values[records.probe]
        given = records.results[chosen[0]]["backbone"]["weights"] != "none"
        seeds = runs.set_index("run")["seed"].loc[chosen].to_numpy()
        ranks = ranked(values - values.groupby(seeds).transform("mean"))
        for probe in (probe for probe in PROBES if probe in ranks):
            for figure in (figure for figure in FIGURES if figure in ranks):
                rho = correlations(ranks[figure], ranks[probe])
                pairs = values[[figure, probe]].to_numpy().T
                yield Agreement(f"{study}, {name}", given, probe, figure, pairs, float(rho[0]), rho[1:])


def _kept_last(records: Records, run: str) -> bool:
    """Whether the figures of the last epoch are those of the weights that the probes judged."""
    return "kept" not in records.results[run]["contrastive"] and bool(epochs(records, run))


def figures(records: Records, run: str) -> dict[str, float | None]:
    """What a run tells without labels, larger for what is said to be better."""
    last, result = epochs(records, run)[-1], records.results[run]
    found: dict[str, float | None] = {LOSS: _signed(result["contrastive"]["val_loss"], -1)}
    found |= {figure: _signed(last.get(key), sign) for figure, (key, sign) in OF_VIEWS.items()}
    return found | {figure: _signed(result["geometry"].get(key), sign) for figure, (key, sign) in OF_TEST.items()}


def _signed(value: float | None, sign: int) -> float | None:
    return None if value is None else sign * value


def over_settings(found: Sequence[Agreement]) -> Iterator[Pooled]:
    """Each figure of one probe's agreements over its settings."""
    for figure in FIGURES:
        own = [one for one in found if one.figure == figure]
        if len(own) > 1:
            weights = [one.runs - 3 for one in own]
            z = _z(np.array([one.rho for one in own]))
            draws = _z(np.stack([one.draws for one in own]))
            low, high = np.tanh(t_interval(z))
            yield Pooled(
                figure,
                len(own),
                sum(one.runs for one in own),
                float(np.tanh(np.average(z, weights=weights))),
                middle(np.tanh(np.average(draws, axis=0, weights=weights))),
                (float(low), float(high)),
                float(spearmanr(*np.hstack([one.pairs for one in own])).statistic),
            )


def _z(rho: np.ndarray) -> np.ndarray:
    """Fisher's transformation, finite where ranks agree wholly."""
    found: np.ndarray = np.arctanh(np.clip(rho, -0.999, 0.999))
    return found


def _pooled_table(found: Sequence[Agreement], order: Sequence[str]) -> str:
    pooled = {
        probe: {one.figure: one for one in over_settings([a for a in found if a.probe == probe])} for probe in PROBES
    }
    rows = []
    for figure in order:
        most = pooled[SHOWN][figure]
        cells = [_cell(pooled[probe].get(figure)) for probe in PROBES]
        rows.append([figure, str(most.settings), str(most.runs), *cells])
    probes = ("the deciding" if probe == SHOWN else f"`{probe}`" for probe in PROBES)
    return table(["figure", "settings", "runs", *probes], rows)


def _cell(pooled: Pooled | None) -> str:
    return "" if pooled is None else f"{two(pooled.rho)} ({two(pooled.interval[0])} to {two(pooled.interval[1])})"


def _setting_table(found: Sequence[Agreement], order: Sequence[str]) -> str:
    settings = list(dict.fromkeys(one.setting for one in found))
    cells = {(one.setting, one.figure): _starred(one) for one in found}
    pooled = {one.figure: one for one in over_settings(found)}
    rows = []
    for figure in order:
        low, high = pooled[figure].of_settings
        over = [f"{two(low)} to {two(high)}" if pooled[figure].settings > 2 else "", two(pooled[figure].as_one)]
        rows.append([figure, *(cells.get((setting, figure), "") for setting in settings), *over])
    heads = [f"{one.setting} ({one.runs})" for one in {one.setting: one for one in found}.values()]
    return table(["the deciding probe", *heads, "over settings", "as one"], rows)


def _starred(one: Agreement) -> str:
    """The correlation, marked where its interval leaves out zero."""
    low, high = one.interval
    return f"{two(one.rho)}{'*' if low > 0 or high < 0 else ''}"


def _drawing(found: Sequence[Agreement], order: Sequence[str]) -> Drawing:
    """A row a figure: a dot a setting, and the mean of settings, each counting alike, with its interval."""
    pooled = {one.figure: one for one in over_settings(found)}
    means = {figure: float(np.tanh(_z(np.array(one.of_settings)).mean())) for figure, one in pooled.items()}
    axis = scale([-1, 1], 8, WIDTH - 8)
    top, step = 8, 40
    bottom = top + step * len(order)
    said = "; ".join(f"{figure} {means[figure]:.2f}" for figure in order)
    drawing = Drawing(bottom + 40, f"Rank correlation with the probe that decides: {said}")
    drawing.x_axis(axis, top, bottom, "rank correlation, 95 % interval over settings")
    for y, figure in zip(range(top, bottom, step), order, strict=True):
        drawing.text(0, y + 13, figure)
        drawing.text(WIDTH, y + 13, f"{pooled[figure].settings} settings, {pooled[figure].runs} runs", "small", "end")
        drawing.line(axis(0), y + 18, axis(0), y + 36, "zero")
        for one in (one for one in found if one.figure == figure):
            look = Look("plain", "circle", hollow=not one.given)
            drawing.mark(axis(one.rho), y + 27, look, 3, f"{one.setting}: {one.rho:.2f}")
        low, high = pooled[figure].of_settings
        drawing.line(axis(low), y + 27, axis(high), y + 27, "interval")
        drawing.mark(axis(means[figure]), y + 27, Look("plain", "diamond"), 5, f"{means[figure]:.2f}")
    return drawing


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it without a word
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
