"""What was tried before the recipe for given weights was settled: `python results/adapting/exploration.py`.

exploration.jsonl holds 41 versions of EfficientNet-Lite0's ImageNet weights, adapted to Grocery and to magnetic tiles
at 112 px in an exploration outside the package, most with seed 0: recipe, version of the weights (eN: after N epochs,
aX: X of the way from the given ones), probes on the test split, the same cross-validated on train and val, figures
without labels. Printed are the table of all of them and how well each criterion orders them as the test probes do.
"""

import json
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr

from headstart.evaluate.unlabelled import Figures

PROBES = ("knn", "linear", "few_shot_5")
Row = dict[str, Any]


def main() -> None:
    """Print both tables as Markdown."""
    lines = Path(__file__).with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    print(f"| recipe | set | seed | weights | {' | '.join(PROBES)} |\n| --- | --- | ---: | --- | ---: | ---: | ---: |")
    for row in sorted(rows, key=lambda row: (row["set"], row["weights"] != "given", row["recipe"])):
        figures = " | ".join(f"{row['test'][probe]:.1f}" for probe in PROBES)
        print(f"| {row['recipe']} | {row['set']} | {row['seed']} | {row['weights']} | {figures} |")
    print("\n| criterion | Grocery | tiles |\n| --- | ---: | ---: |")
    for name, criterion in CRITERIA.items():
        found = [_agreement([row for row in rows if row["set"] == which], criterion) for which in ("grocery", "tiles")]
        print(f"| {name} | {found[0]:.2f} | {found[1]:.2f} |")


def _agreement(rows: list[Row], criterion: Any) -> float:
    """Spearman's rank correlation of a criterion with the mean gain of the three test probes."""
    (given,) = [row for row in rows if row["weights"] == "given"]
    others = [row for row in rows if row is not given]
    gains = [sum(row["test"][probe] - given["test"][probe] for probe in PROBES) for row in others]
    return float(spearmanr([criterion(row, given) for row in others], gains).statistic)


def _cross_validated(row: Row, given: Row) -> float:
    return sum(row["cv"][probe] - given["cv"][probe] for probe in PROBES)


def _unlabelled(name: str, sign: int = 1) -> Any:
    return lambda row, given: sign * (row["unlabelled"][name] - given["unlabelled"][name])


def _figures(row: Row) -> Figures:
    return Figures(retrieval=row["unlabelled"]["retr1"] / 100, rankme=row["unlabelled"]["rankme"])


CRITERIA = {
    "cross-validated probes, train and val labels": _cross_validated,
    "retrieval and RankMe together": lambda row, given: _figures(row).score(_figures(given)),
    "retrieval of one view by the other": _unlabelled("retr1"),
    "RankMe": _unlabelled("rankme"),
    "RankMe held": lambda row, given: -_figures(row).drift(_figures(given)),
    "alpha-ReQ": _unlabelled("alpha"),
    "LiDAR": _unlabelled("lidar"),
    "alignment": _unlabelled("align", -1),
    "uniformity": _unlabelled("unif", -1),
    "NT-Xent of h": _unlabelled("nce_h", -1),
}

if __name__ == "__main__":
    main()
