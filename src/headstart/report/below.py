"""Whether SimCLR was worth anything: what is said first where every row of a study is below the network before it.

Comes in: a study's `Records`. Goes out: a sentence a probe. A comparison of heads that all lose to no training at all
answers a question that nobody should act on.
"""

import pandas as pd

from headstart.records.names import PROBES
from headstart.report.frame import Records
from headstart.report.verdict import before_simclr, first_run
from headstart.report.words import listed


def below(study: Records) -> dict[str, str]:
    """Probe -> sentence, of the probes by which the mean of every row of a set is below the network before SimCLR.

    A row is a head on a data set of its own (`dataset` of `frame.COLUMNS`); a set counts where all its rows are below.
    """
    rows = pd.DataFrame(
        [
            (probe, run.set, run.dataset, run.head, found["accuracy"], before[probe]["accuracy"])
            for run in study.runs.astype({"set": str, "dataset": str, "head": str}).itertuples()
            for before in [study.results[run.run].get("untrained") or {}]
            for probe, found in (study.results[run.run].get("probes") or {}).items()
            if "accuracy" in found and "accuracy" in (before.get(probe) or {})
        ],
        columns=["probe", "set", "dataset", "head", "after", "before"],
    )
    said: dict[str, str] = {}
    network = before_simclr(first_run(study.results))
    for probe, found in rows.groupby("probe", sort=False):
        means = found.groupby(["set", "dataset", "head"], sort=False)[["after", "before"]].mean()
        lost = [(str(name), part) for name, part in means.groupby("set") if (part["after"] < part["before"]).all()]
        if lost:
            n = sum(len(part) for _, part in lost)
            which = "The only row is" if n == 1 else f"All {n:,} rows are"
            figures = [f"{_range(part['after'])}; {_range(part['before'])} before SimCLR" for _, part in lost]
            where = listed([f"{name} ({told})" for (name, _), told in zip(lost, figures, strict=True)])
            said[str(probe)] = f"{which} below {network} by {PROBES.shown(str(probe))} on {where}."
    return said


def _range(accuracies: pd.Series) -> str:
    low, high = (f"{100 * value:.1f}" for value in (accuracies.min(), accuracies.max()))
    return f"{low} %" if low == high else f"{low} to {high} %"
