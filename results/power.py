"""How many seeds a claim about heads needs: `python results/power.py` prints the table of README.md from the records.

For each study, set and probe: how far SimCLR took the probe from the backbone before it, in points (where it took it
nowhere, heads had nothing to differ in); the standard deviation over seeds of the difference between two heads that
share a seed, pooled over all pairs of heads with three seeds or more; and the seeds with which the 95 % interval of
such a difference is expected to be half a point, or 0.7, to each side.
"""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from headstart.records.files import read_json
from headstart.report import frame
from headstart.statistics import clusters_for_half_width

HERE = Path(__file__).parent
FEWEST = 3
"""Seeds that two heads must share."""


def main() -> None:
    """Print the table as Markdown."""
    print("| study | set | probe | gain by SimCLR | spread of a difference | seeds for ±0.5 | for ±0.7 |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: |")
    for study in sorted(path.parent for path in HERE.rglob("decides.json")):
        for row in rows(study):
            print(f"| {' | '.join(row)} |")


def rows(study: Path) -> Iterator[list[str]]:
    """The cells of each set and probe of a study."""
    results = [read_json(path) for path in sorted((study / "runs").glob("*/result.json"))]
    for probe in sorted({name for result in results for name in result["probes"]}):
        for name, runs in frame.read(study, probe).runs.groupby("dataset", observed=True):
            spread = spread_of_differences(runs)
            if spread is not None:
                gains = [gain(r, probe) for r in results if r["data"]["name"] == name and r["probes"]]
                seeds = [str(clusters_for_half_width(width, spread)) for width in (0.5, 0.7)]
                yield [
                    str(study.relative_to(HERE)),
                    name,
                    f"`{probe}`",
                    f"{np.mean(gains):+.1f}",
                    f"{spread:.2f}",
                    *seeds,
                ]


def gain(result: dict[str, Any], probe: str) -> float:
    """Points above the untrained (or given) network of the same run."""
    return 100 * (result["probes"][probe]["accuracy"] - result["untrained"][probe]["accuracy"])


def spread_of_differences(runs: pd.DataFrame) -> float | None:
    """The pooled standard deviation of paired differences in points; None without two heads that share enough seeds."""
    table = 100 * runs.pivot_table("accuracy", "seed", "head", observed=True)
    variances = []
    for a, b in combinations(table.columns, 2):
        differences = (table[a] - table[b]).dropna()
        if len(differences) >= FEWEST:
            variances.append(differences.var(ddof=1))
    return float(np.sqrt(np.mean(variances))) if variances else None


if __name__ == "__main__":
    main()
