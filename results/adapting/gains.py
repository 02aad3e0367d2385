"""What the recipe for given weights was worth over its seeds: `python results/adapting/gains.py`.

Reads the plain head's runs of heads/ and controls/, which are the recipe with the adapted weights kept whatever they
are. A gain is the difference of one run's adapted and given weights on the test split; its interval is Student's t over
seeds. The given weights are the same in every seed, and so is the test split: the intervals are about other seeds, not
about other pictures.
"""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np

from headstart.statistics import t_interval

STUDIES = ("heads", "controls")


def main() -> None:
    """Print the table as Markdown."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    here = Path(__file__).parent
    for path in (path for study in STUDIES for path in sorted((here / study).glob("runs/*/result.json"))):
        result = json.loads(path.read_text(encoding="utf-8"))
        if result["stage"] == "autoencoder" or result["head"]["init"] != "random" or result["head"]["frozen"]:
            continue
        for probe, after in result["probes"].items():
            given = result["untrained"][probe]["accuracy"]
            found[result["data"]["name"], probe].append((100 * given, 100 * after["accuracy"]))
    print("| set | probe | given | adapted | gain | 95 % interval | seeds |")
    print("| --- | --- | ---: | ---: | ---: | --- | ---: |")
    for (name, probe), pairs in found.items():
        given, adapted = np.array(pairs).T
        gains = adapted - given
        low, high = t_interval(gains)
        print(
            f"| {name} | {probe} | {given.mean():.1f} | {adapted.mean():.1f} | {gains.mean():+.1f} | "
            f"{low:+.1f} to {high:+.1f} | {len(gains)} |"
        )


if __name__ == "__main__":
    main()
