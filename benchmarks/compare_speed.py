"""How long `headstart compare` takes on large tables, beyond imports, and on its page.

    python -m benchmarks compare_speed [--repeats 3]

Tables of normal noise: two methods over 50,000 seeds; ten methods over ten data sets, a hundred seeds and ten learning
rates; twenty methods over fifty data sets and five seeds, which are 9,690 comparisons. They are written as CSV and read
again. Prints the best of the repeats, in seconds of the processor, so that other work on the machine does not count.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.stats  # noqa: F401 - so that its import is not counted

from headstart.report.anybodys import read_tables
from headstart.report.compare import compare
from headstart.report.compare_page import write_comparison

TABLES = {"2 x 50,000 seeds": (2, 1, 50_000, 1), "10 x 10 x 100 x 10": (10, 10, 100, 10), "20 x 50 x 5": (20, 50, 5, 1)}


def _table(levels: int, sets: int, seeds: int, rates: int) -> pd.DataFrame:
    cells = product(range(levels), range(sets), range(seeds), range(rates))
    table = pd.DataFrame(cells, columns=["method", "dataset", "seed", "lr"])
    noise = np.random.default_rng(0).normal(size=len(table))
    return table.assign(method="m" + table["method"].astype(str), accuracy=0.7 + 0.02 * noise)


def _best(run: Callable[[], object], repeats: int) -> float:
    taken = []
    for _ in range(repeats):
        began = time.process_time()
        run()
        taken.append(time.process_time() - began)
    return min(taken)


def main(arguments: list[str]) -> None:
    """Print rows, comparisons and seconds of each table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks compare_speed", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args(arguments).repeats
    print("table,rows,comparisons,read,compare,page")
    for name, shape in TABLES.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "runs.csv"
            _table(*shape).to_csv(path, index=False)
            table = read_tables([path])
            found = compare(table, metric="accuracy", by="method")
            seconds = [
                _best(lambda path=path: read_tables([path]), repeats),  # type: ignore[misc]
                _best(lambda table=table: compare(table, metric="accuracy", by="method"), repeats),  # type: ignore[misc]
                _best(lambda found=found, folder=folder: write_comparison(found, folder), 1),  # type: ignore[misc]
            ]
        print(
            ",".join(
                [name.replace(",", ""), str(len(table)), str(len(found.comparisons)), *(f"{s:.2f}" for s in seconds)]
            )
        )
