"""How many seeds a claim about heads needs: `python results/power.py` prints the table of details.md from the records.

For each study, set and probe: how far SimCLR took the probe from the backbone before it, in points (where it took it
nowhere, heads had nothing to differ in); the standard deviation over seeds of the difference between two heads that
share a seed, pooled over all pairs of heads with three seeds or more; the seeds with which the 95 % interval of such a
difference is expected to be half a point, or 0.7, to each side; and those with which a t test finds a difference of
half a point with 80 % power, alone and in one of SETTINGS (Bonferroni, which Holm's correction begins with).
"""

import signal
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from recorded import HERE, read

from headstart.statistics import clusters_for_half_width, clusters_needed

FEWEST = 3
"""Seeds that two heads must share."""
SETTINGS = 14
"""That the first claim of README.md has."""


def main(_: Path | None = None) -> None:
    """Print the table as Markdown."""
    heads = ["study", "set", "probe", "gain by SimCLR", "spread of a difference", "seeds for ±0.5", "for ±0.7"]
    print(f"| {' | '.join([*heads, 'to find 0.5', f'to find it among {SETTINGS}'])} |")
    print(f"| --- | --- | --- |{' ---: |' * 6}")
    for study in sorted(path.parent for path in HERE.rglob("study.yaml")):
        for row in rows(study):
            print(f"| {' | '.join(row)} |")


def rows(path: Path) -> Iterator[list[str]]:
    """The cells of each set and probe of a study."""
    study = read(path)
    for probe in sorted({name for result in study.results.values() for name in result["probes"]}):
        probed = study.runs[[probe in study.results[run]["probes"] for run in study.runs["run"]]]
        found = [study.results[run] for run in probed["run"]]
        probed = probed.assign(accuracy=[result["probes"][probe]["accuracy"] for result in found])
        probed["gain"] = [gain(result, probe) for result in found]
        for name, runs in probed.groupby("dataset", observed=True):
            spread = spread_of_differences(runs)
            if spread is not None:
                seeds = [clusters_for_half_width(width, spread) for width in (0.5, 0.7)]
                seeds += [clusters_needed(0.5, spread, level=1 - 0.05 / claims) for claims in (1, SETTINGS)]
                moved = f"{runs['gain'].mean():+.1f}"
                yield [str(path.relative_to(HERE)), name, f"`{probe}`", moved, f"{spread:.2f}", *map(str, seeds)]


def gain(result: dict[str, Any], probe: str) -> float:
    """Points above the untrained (or given) network of the same run."""
    return 100 * (result["probes"][probe]["accuracy"] - result["untrained"][probe]["accuracy"])


def spread_of_differences(runs: pd.DataFrame) -> float | None:
    """The pooled standard deviation of paired differences in points; None without two heads that share enough seeds."""
    head = ["head", "activation", "hidden_dim", "output_dim"]
    table = 100 * runs.pivot_table("accuracy", "seed", head, observed=True)
    variances = []
    for a, b in combinations(table.columns, 2):
        differences = (table[a] - table[b]).dropna()
        if len(differences) >= FEWEST:
            variances.append(differences.var(ddof=1))
    return float(np.sqrt(np.mean(variances))) if variances else None


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it without a word
    main()
