"""Which figure of h moves as the probes do: `python results/adapting/criteria.py [STUDY ...]`, default criteria/.

For each set of a study: Spearman's rank correlation, over its runs, of how a figure of h moved from the backbone before
SimCLR to the one after with how the probes moved on average, all on the test split. The interval is the percentile
bootstrap's over runs (95 %, 2,000 resamples, seed 0): about other trainings of this set, not about other sets.
"""

import json
import signal
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import spearmanr

from headstart.evaluate.unlabelled import Figures

PROBES = ("knn", "linear", "few_shot_5")
Shape = Mapping[str, Any]


class Adapted(NamedTuple):
    """A run: h after and before SimCLR, and the mean gain of the probes in points."""

    name: str
    after: Shape
    before: Shape
    gain: float

    @property
    def kept(self) -> bool:
        """Whether a run without labels would keep these weights."""
        return _figures(self.after).acceptable(_figures(self.before))


def main(studies: list[Path]) -> None:
    """Print two tables a set as Markdown: of figures, and of runs."""
    for study in studies:
        found = _runs(study)
        if not found:
            sys.exit(f"{study} holds no run with figures of h before and after SimCLR; give a study's folder")
        for name, runs in found.items():
            gains = np.array([run.gain for run in runs])
            print(f"\n{study.name}, {name}: {len(runs)} runs, probes {gains.min():+.1f} to {gains.max():+.1f} points\n")
            print("| figure | rank correlation | 95 % interval |\n| --- | ---: | --- |")
            for figure, moved in MOVES.items():
                values = np.array([moved(run.after, run.before) for run in runs])
                low, high = interval(values, gains)
                print(f"| {figure} | {spearmanr(values, gains).statistic:.2f} | {low:.2f} to {high:.2f} |")
            print("\n| run | points | without labels | RankMe | LiDAR |\n| --- | ---: | --- | --- | --- |")
            for run in sorted(runs, key=lambda run: -run.gain):
                ranks = (f"{run.before[key]:.0f} to {run.after[key]:.0f}" for key in ("effective_rank", "lidar"))
                print(f"| {run.name} | {run.gain:+.1f} | {'kept' if run.kept else 'refused'} | {' | '.join(ranks)} |")


def _runs(study: Path) -> dict[str, list[Adapted]]:
    """The runs of each set."""
    found = defaultdict(list)
    for path in sorted(study.glob("runs/*/result.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        after = result["geometry"]
        if "before" in after and result["probes"]:
            gains = [result["probes"][p]["accuracy"] - result["untrained"][p]["accuracy"] for p in PROBES]
            gain = 100 * float(np.mean(gains))
            found[result["data"]["name"]].append(Adapted(path.parent.name, after, after["before"], gain))
    return found


def interval(values: np.ndarray, gains: np.ndarray, resamples: int = 2000) -> tuple[float, float]:
    """The percentile bootstrap's 95 % interval of the rank correlation over runs (Efron, Tibshirani 1993, 13.3)."""
    draws = np.random.default_rng(0)
    found = []
    for _ in range(resamples):
        rows = draws.integers(0, len(values), len(values))
        if len(set(values[rows])) > 1 and len(set(gains[rows])) > 1:
            found.append(spearmanr(values[rows], gains[rows]).statistic)
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


def _rule(after: Shape, before: Shape) -> float:
    """As a run without labels scores a version of its backbone."""
    return _figures(after).score(_figures(before))


def _figures(shape: Shape) -> Figures:
    return Figures(retrieval=shape["retrieval"], rankme=shape["effective_rank"])


def _moved(key: str, sign: int = 1) -> Callable[[Shape, Shape], float]:
    return lambda after, before: sign * (after[key] - before[key])


MOVES: dict[str, Callable[[Shape, Shape], float]] = {
    "retrieval and RankMe together, the rule of a run without labels": _rule,
    "retrieval of one view by the other": _moved("retrieval"),
    "RankMe": _moved("effective_rank"),
    "RankMe held": lambda after, before: -_figures(after).drift(_figures(before)),
    "centred rank": _moved("centred_rank"),
    "alpha-ReQ": _moved("alpha_req", -1),
    "LiDAR": _moved("lidar"),
    "alignment": _moved("alignment", -1),
    "uniformity": _moved("uniformity", -1),
}
"""Each figure of h, larger for what is said to be better."""

if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it without a word
    here = Path(__file__).parent
    main([Path(argument) for argument in sys.argv[1:]] or [here / "criteria"])
