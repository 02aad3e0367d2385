"""How the gradient that reaches h and the first layer move: `python results/gradient.py` prints details.md's table.

Of each study whose runs recorded them, means over the seeds of a head: the norm of the objective's gradient with
respect to h on views of validation pictures, after the first epoch and after the last, and the effective rank of the
first layer (exp of the entropy of its singular values' shares) before the first step and after the last.
"""

import signal
from pathlib import Path

import pandas as pd
from recorded import effective_rank, epochs, of_sets, table, whole_studies

from headstart.report.frame import Records
from headstart.report.labels import name_of_head

GRADIENT = "h_gradient_norm"


def main(_: Path | None = None) -> None:
    """Print the table as Markdown."""
    rows = []
    for study, records in whole_studies():
        for name, runs in of_sets(records):
            seen = runs[[_recorded(records, run) for run in runs["run"]]]
            for head, own in seen.groupby("head", observed=True):
                means = pd.DataFrame([figures(records, run) for run in own["run"]]).mean()
                cells = [f"{means[figure]:.{digits}f}" for figure, digits in SHOWN.items()]
                rows.append([f"{study} ({name})", name_of_head(str(head)), str(own["seed"].nunique()), *cells])
    print(table(["study", "head", "seeds", *SHOWN], rows, left=2))


SHOWN = {
    "gradient, first epoch": 2,
    "gradient, last epoch": 2,
    "rank of the layer before": 0,
    "rank after": 0,
}
"""With that many decimals."""


def _recorded(records: Records, run: str) -> bool:
    return bool(epochs(records, run)) and GRADIENT in epochs(records, run)[-1]


def figures(records: Records, run: str) -> dict[str, float]:
    """What is shown of a run."""
    curve, result = epochs(records, run), records.results[run]
    layers = result["geometry"]["head"]["singular_values"], result["contrastive"]["singular_values"]
    values = [curve[0][GRADIENT], curve[-1][GRADIENT], *map(effective_rank, layers)]
    return dict(zip(SHOWN, values, strict=True))


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it without a word
    main()
