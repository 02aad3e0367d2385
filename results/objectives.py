"""What each objective was worth: `python results/objectives.py` prints the table of details.md.

Points above the untrained network of the same seed, on average, with the seeds in brackets; the same probe of the
untrained networks stands in the first line of each study.
"""

import signal
from collections.abc import Iterable
from pathlib import Path

from recorded import of_sets, studies, table

from headstart.records.names import OBJECTIVES
from headstart.report.comparisons import signed
from headstart.report.frame import Records

PROBES = ("knn", "few_shot_5")


def main(_: Path | None = None) -> None:
    """Print the table as Markdown."""
    rows = []
    for study, records in studies():
        for name, runs in of_sets(records):
            if "contrastive.objective" not in runs or not _probed(records, runs["run"]):
                continue
            before, after = (
                {run: records.results[run][side] for run in runs["run"]} for side in ("untrained", "probes")
            )
            seeds = dict(zip(runs["seed"], runs["run"], strict=True)).values()  # one run of each seed
            given = [
                "; ".join(f"{100 * before[run][probe]['accuracy']:.1f}" for run in seeds) + " %" for probe in PROBES
            ]
            rows.append([f"{study} ({name})", "untrained", *given])
            for objective in (one for one in OBJECTIVES if one in {*runs["contrastive.objective"]}):
                own = runs[runs["contrastive.objective"] == objective].sort_values("seed")["run"]
                cells = []
                for probe in PROBES:
                    gains = [100 * (after[run][probe]["accuracy"] - before[run][probe]["accuracy"]) for run in own]
                    mean = signed(sum(gains) / len(gains))
                    cells.append(f"{mean} ({'; '.join(map(signed, gains))})")
                rows.append(["", OBJECTIVES.shown(objective), *cells])
    print(table(["study", "objective", *(f"`{probe}`" for probe in PROBES)], rows, left=2))


def _probed(records: Records, runs: Iterable[str]) -> bool:
    return all({*PROBES} <= {*records.results[run]["probes"]} for run in runs)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it without a word
    main()
