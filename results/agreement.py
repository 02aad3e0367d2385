"""Which figure without labels follows the probes: `python results/agreement.py [STUDY ...]`, default adapting/criteria.

For each set of a study: Spearman's rank correlation, over its runs, of how a figure of h moved from the backbone before
SimCLR to the one after with how the probes moved on average, all on the test split. The interval is the percentile
bootstrap's over runs (95 %, 2,000 resamples, seed 0): about other trainings of this set, not about other sets.
"""

import json
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from headstart.evaluate.unlabelled import Figures

PROBES = ("knn", "linear", "few_shot_5")
Shape = Mapping[str, Any]


def main(studies: list[Path]) -> None:
    """Print one table a set as Markdown."""
    for study in studies:
        for name, runs in _runs(study).items():
            gains = np.array([gain for _, _, gain in runs])
            print(f"\n{study.name}, {name}: {len(runs)} runs, probes {gains.min():+.1f} to {gains.max():+.1f} points\n")
            print("| figure | rank correlation | 95 % interval |\n| --- | ---: | --- |")
            for figure, moved in MOVES.items():
                values = np.array([moved(after, before) for after, before, _ in runs])
                low, high = interval(values, gains)
                print(f"| {figure} | {spearmanr(values, gains).statistic:.2f} | {low:.2f} to {high:.2f} |")
            print(f"\n{_choices(runs)}")


def _runs(study: Path) -> dict[str, list[tuple[Shape, Shape, float]]]:
    """Of each set: h after and before SimCLR, and the mean gain of the probes in points."""
    found = defaultdict(list)
    for result in _results(study):
        after = result["geometry"]
        gains = [result["probes"][p]["accuracy"] - result["untrained"][p]["accuracy"] for p in PROBES]
        found[result["data"]["name"]].append((after, after["before"], 100 * float(np.mean(gains))))
    return found


def _results(study: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(study.glob("runs/*/result.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        if result["contrastive"] is not None:  # an autoencoder's own record has no backbone
            yield result


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


def _choices(runs: list[tuple[Shape, Shape, float]]) -> str:
    """What the rule would keep, and what it would cost: in points of the probes on average."""
    kept = [gain for after, before, gain in runs if _figures(after).acceptable(_figures(before))]
    left = [gain for after, before, gain in runs if not _figures(after).acceptable(_figures(before))]
    sides = [
        f"{name} {len(gains)}"
        + (f" ({min(gains):+.1f} to {max(gains):+.1f}, mean {np.mean(gains):+.1f})" if gains else "")
        for name, gains in (("adapted weights kept:", kept), ("given weights kept in place of:", left))
    ]
    return "; ".join(sides)


def _moved(key: str, sign: int = 1) -> Callable[[Shape, Shape], float]:
    return lambda after, before: sign * (after[key] - before[key])


MOVES: dict[str, Callable[[Shape, Shape], float]] = {
    "retrieval and RankMe together, the rule of a run without labels": _rule,
    "retrieval of one view by the other": _moved("retrieval"),
    "RankMe": _moved("effective_rank"),
    "RankMe held": lambda after, before: -abs(math.log(after["effective_rank"] / before["effective_rank"])),
    "centred rank": _moved("centred_rank"),
    "alpha-ReQ": _moved("alpha_req", -1),
    "LiDAR": _moved("lidar"),
    "alignment": _moved("alignment", -1),
    "uniformity": _moved("uniformity", -1),
}
"""Each figure of h, larger for what is said to be better."""

if __name__ == "__main__":
    here = Path(__file__).parent
    main([Path(argument) for argument in sys.argv[1:]] or [here / "adapting" / "criteria"])
