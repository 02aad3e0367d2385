"""What the scripts beside this file read: the committed studies, and the figures that their runs recorded."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from headstart.report import frame

HERE = Path(__file__).parent
Line = dict[str, Any]


def studies(root: Path = HERE) -> Iterator[tuple[str, frame.Records]]:
    """Every study with a SimCLR run, by its name below results/."""
    for path in sorted(path.parent for path in root.rglob("decides.json")):
        records = frame.read(path)
        if len(records.runs):
            yield path.relative_to(root).as_posix(), records


def of_sets(records: frame.Records) -> Iterator[tuple[str, pd.DataFrame]]:
    """The runs of each set of a study, whatever settings they vary."""
    for name, runs in records.runs.groupby("set", observed=True):
        yield str(name), runs


def epochs(records: frame.Records, run: str) -> list[Line]:
    """What was recorded of h and z of validation views after each epoch of SimCLR, in order."""
    return [line for line in records.curves[run] if line.get("stage") == "contrastive" and "h_alignment" in line]


def accuracies(records: frame.Records, run: str) -> dict[str, float]:
    """Accuracy of each probe, in percent."""
    return {name: 100 * found["accuracy"] for name, found in records.results[run]["probes"].items()}


def table(head: list[str], rows: list[list[str]], left: int = 1) -> str:
    """Markdown; the first `left` columns are words, the others numbers."""
    marks = ["---" if place < left else "---:" for place in range(len(head))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, marks, *rows])
