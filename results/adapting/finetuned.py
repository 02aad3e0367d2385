"""A classifier from the adapted weights, the given ones and none: `python results/adapting/finetuned.py`.

Reads finetuned/LABELS-SEED.json: what `headstart finetune RUN grocery --scratch --epochs 20 --seed SEED`, with
`--per-class 5` or all labels, wrote as finetune.json beside the classifier, where RUN adapted the given weights to
Grocery at 64 px by the recipe with that seed (`--contrastive.keep last`). Intervals are Student's t over seeds.
"""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np

from headstart.statistics import t_interval

LABELS = {"5": "5 a class", "all": "all"}


def main() -> None:
    """Print the table as Markdown."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(Path(__file__).with_name("finetuned").glob("*.json")):
        for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
            found[path.stem.partition("-")[0]][row["start"]].append(100 * row["accuracy"])
    print("| labels | from scratch | given | adapted | adapted over given | over scratch | seeds |")
    print("| --- | ---: | ---: | ---: | --- | --- | ---: |")
    for labels, name in LABELS.items():
        starts = {start: np.array(values) for start, values in found[labels].items()}
        means = (f"{starts[start].mean():.1f}" for start in ("scratch", "given", "adapted"))
        gains = (gain(starts["adapted"] - starts[start]) for start in ("given", "scratch"))
        print(f"| {' | '.join([name, *means, *gains])} | {len(starts['adapted'])} |")


def gain(differences: np.ndarray) -> str:
    """A mean difference in points with its interval."""
    low, high = t_interval(differences)
    return f"{differences.mean():+.1f} ({low:+.1f} to {high:+.1f})"


if __name__ == "__main__":
    main()
