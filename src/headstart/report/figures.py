"""The figures that answer: each difference with its interval, and every run's accuracy by head.

Comes in: a study's `Records` and its comparisons. Goes out: `Figure`s of phone width, drawn by svg.py, with their
data. Colour and shape say where a head's first layer comes from, a hollow mark that it is trainable, so nothing hangs
on colour alone.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path

import numpy as np
import pandas as pd

from headstart.records.files import opened
from headstart.records.grid import digest
from headstart.records.names import HEAD_INITS
from headstart.report import tables
from headstart.report.comparisons import POINTS, Comparison
from headstart.report.frame import Records
from headstart.report.labels import (
    head_parts,
    name_of_head,
)
from headstart.report.matching import sharing
from headstart.report.svg import BEGINNING, SHAPES, WIDTH, Drawing, Look, Scale, scale
from headstart.report.verdict import as_it_was, first_run
from headstart.statistics import clustered


@dataclass(frozen=True)
class Figure:
    """A drawing, the words beside it, and the numbers in it."""

    name: str
    """File name without suffix: figures/NAME.svg and figures/NAME.csv."""
    title: str
    drawing: Drawing
    data: pd.DataFrame
    caption: str = ""

    def files(self) -> dict[str, str]:
        """What stands in its two files, by their path below a report's folder."""
        stem = f"figures/{self.name}"
        return {f"{stem}.svg": self.drawing.standalone(), f"{stem}.csv": tables.as_csv(self.data)}


def drawn_before(folder: Path) -> list[str]:
    """The figures of an earlier report, by their paths below its folder: what an .svg of somebody else's is, stays."""
    found = []
    for path in (folder / "figures").glob("*.svg"):
        with contextlib.suppress(OSError), opened(path) as file:
            if file.read(len(BEGINNING)) == BEGINNING.encode():
                found += [f"figures/{path.name}", f"figures/{path.stem}.csv"]
    return found


def look(head: str) -> Look:
    """How a head is drawn everywhere."""
    init, variant, frozen = head_parts(head)
    if init not in HEAD_INITS:
        return Look("plain", "circle")
    shape = HEAD_INITS[init].shape
    place = SHAPES.index(shape) if shape else HEAD_INITS.place(init)
    if variant:  # the colour of its init, and one of the other shapes
        place += 1 + sum(map(ord, variant)) % (len(SHAPES) - 1)
    return Look(f"init-{init}", SHAPES[place % len(SHAPES)], hollow=not frozen)


def mean_interval(rows: pd.DataFrame, values: np.ndarray) -> tuple[float, float, float]:
    """Mean of values of runs, and its 95 % interval over what the runs share; nan where one cluster is all."""
    found = clustered(values, *sharing(rows))
    return found.mean, *found.interval


# --------------------------------------------------------------------------------------------------- the comparisons


def forest(study: Records, comparisons: Sequence[Comparison]) -> list[Figure]:
    """Differences with their deciding intervals: a panel a comparison with its sets, or one panel of comparisons."""
    heads = [c for c in comparisons if c.pairing.factor == "head"]
    named = [c for c in comparisons if c.pairing.family == "named"] or heads or list(comparisons)
    if len(study.sets) == 1:
        chosen = (named + [c for c in heads if c not in named])[:24]
        titles = [(_versus(c), c) for c in chosen]
        return [forest_panel("comparisons", "Differences in matched pairs", titles)] if titles else []
    groups: dict[tuple[str, str, str], list[Comparison]] = {}
    for c in named + [c for c in heads if c not in named]:
        groups.setdefault((c.pairing.within, c.pairing.a, c.pairing.b), []).append(c)
    axis = _forest_axis([c for cs in list(groups.values())[:6] for c in cs])
    return [
        forest_panel(f"comparison-{i}", _versus(cs[0]), [(c.pairing.dataset or "all sets", c) for c in cs], axis)
        for i, cs in enumerate(list(groups.values())[:6], 1)
    ]


def _versus(comparison: Comparison) -> str:
    p = comparison.pairing
    words = f"{p.said(p.a)} − {p.said(p.b)}"
    return words[0].upper() + words[1:] + (f" ({p.said(p.within)})" if p.within else "")


def _forest_axis(comparisons: Sequence[Comparison]) -> Scale:
    ends = [v for c in comparisons for v in (c.mean, *c.decision.test.interval)]
    return scale(ends, 20, WIDTH - 14, zero=True)


LONGEST_LABEL = 42
"""Characters that leave room for the pairs beside them."""


def _lines(label: str) -> list[str]:
    """A comparison's label, on two lines where it is long."""
    first, minus, second = label.partition(" − ")
    return [first, f"− {second}"] if minus and len(label) > LONGEST_LABEL else [label]


def forest_panel(name: str, title: str, rows: list[tuple[str, Comparison]], axis: Scale | None = None) -> Figure:
    """One panel: a row a comparison, with its interval and how many pairs agree."""
    axis = axis or _forest_axis([c for _, c in rows])
    lines = [_lines(label) for label, _ in rows]
    top, bottom = 8, 8 + sum(26 + 14 * len(of_row) for of_row in lines)
    unit = "points of accuracy" if rows[0][1].measure == POINTS else rows[0][1].measure.unit.removeprefix("in ")
    alt = f"{title}: " + "; ".join(f"{label} {c.measure.text(c.mean)} {c.measure.unit}" for label, c in rows)
    drawing = Drawing(bottom + 40, alt)
    drawing.x_axis(axis, top, bottom, f"difference in {unit}, 95 % interval")
    y = top
    for of_row, (_, c) in zip(lines, rows, strict=True):
        low, high = c.decision.test.interval
        drawing.text(WIDTH, y + 14, f"{c.wins} of {c.pairs} pairs", "small", "end")
        for line in of_row:
            drawing.text(0, y + 14, line, "label strong" if c.pairing.dataset is None and len(rows) > 1 else "label")
            y += 14
        drawing.line(axis(0), y + 3, axis(0), y + 24, "zero")  # not through the labels
        if not isnan(low):
            drawing.line(axis(low), y + 13, axis(high), y + 13, "interval")
        text = c.measure.text
        shown = f"{text(c.mean)} ({text(low)} to {text(high)})" if not isnan(low) else text(c.mean)
        drawing.mark(axis(c.decision.test.mean), y + 13, Look("plain", "diamond", c.verdict != "beats"), 5, shown)
        y += 26
    data = pd.DataFrame(
        [
            {
                "comparison": _versus(c),
                "dataset": c.pairing.dataset or "all",
                "mean": c.decision.test.mean,
                "low": c.decision.test.interval[0],
                "high": c.decision.test.interval[1],
                "p": c.decision.test.p,
                "p_holm": c.decision.adjusted,
                "pairs": c.pairs,
                "wins": c.wins,
                "losses": c.losses,
            }
            for _, c in rows
        ]
    )
    return Figure(name, title, drawing, data)


# ------------------------------------------------------------------------------------------------------ distributions


def distributions(study: Records, column: str = "accuracy", name: str = "accuracy") -> list[Figure]:
    """Every run as a dot, by head, with the mean and its interval: one panel a data set."""
    judged = study.runs[study.runs[column].notna()]
    return [
        _strips(
            f"{name}-{file_name(dataset)}",
            dataset if len(study.sets) > 1 else f"Accuracy on {dataset}",
            rows,
            column,
            as_it_was(first_run(study.results)),
        )
        for dataset, rows in judged.groupby("dataset", observed=True)
    ]


def _strips(name: str, title: str, rows: pd.DataFrame, column: str, before: str) -> Figure:
    percent = 100 * rows[column]
    single = column == "accuracy" and rows.groupby("head", observed=True).size().max() == 1
    ends = [*percent, *(100 * rows["low"]), *(100 * rows["high"])] if single else list(percent)
    untrained = 100 * rows["untrained"].mean() if column == "accuracy" else float("nan")
    heads = [h for h in rows["head"].cat.categories if (rows["head"] == h).any()]
    summary = {h: rows[rows["head"] == h] for h in heads}
    means = {h: mean_interval(part, 100 * part[column].to_numpy()) for h, part in summary.items()}
    ends += [min(max(end, 0.0), 100.0) for _, *bounds in means.values() for end in bounds if not isnan(end)]
    axis = scale([*ends, untrained], 8, WIDTH - 8)
    top, step = (26 if not isnan(untrained) else 8), 58
    bottom = top + step * len(heads)
    alt = f"Accuracy on {rows['dataset'].iloc[0]}: " + "; ".join(
        f"{name_of_head(h)} mean {100 * part[column].mean():.1f} % of {len(part)} runs" for h, part in summary.items()
    )
    drawing = Drawing(bottom + 40, alt)
    drawing.x_axis(axis, top, bottom, "accuracy, %")
    if not isnan(untrained):
        drawing.line(axis(untrained), top - 6, axis(untrained), bottom, "dashed")
        side = axis(untrained) > WIDTH / 2
        drawing.text(axis(untrained), top - 11, f"{before} {untrained:.1f}", "small", "end" if side else "start")
    for i, (head, part) in enumerate(summary.items()):
        y = top + i * step
        values = 100 * part[column].to_numpy()
        mean, low, high = means[head]
        if len(part) == 1 and single:
            low, high = (100 * float(part[end].iloc[0]) for end in ("low", "high"))
        drawing.text(0, y + 15, capital(name_of_head(head)))
        drawing.text(WIDTH, y + 15, f"{mean:.1f} %" + (f", {len(part)} runs" if len(part) > 1 else ""), "small", "end")
        one = len(part) == 1  # its interval lies behind the dot, the interval of many above them
        if one and not isnan(low):
            drawing.line(axis(low), y + 36, axis(high), y + 36, "interval")
        for x, dy, run in _swarm(axis, part, values):
            words = f"{run['run']}: {100 * run[column]:.1f} %"
            drawing.mark(x, y + 36 + dy, look(head), 2.6 if len(part) > 30 else 4, words, faint=len(part) > 30)
        if not one and not isnan(low):
            drawing.line(axis(low), y + 36, axis(high), y + 36, "interval")
        if len(part) > 1:
            drawing.line(axis(mean), y + 27, axis(mean), y + 45, "mean")
    kept = ["run", "dataset", "head", "activation", "hidden_dim", "output_dim", "normalized", "seed", column]
    return Figure(name, title, drawing, rows[[*kept, *(["untrained"] if not isnan(untrained) else [])]])


def _swarm(axis: Scale, part: pd.DataFrame, values: np.ndarray) -> Iterator[tuple[float, float, pd.Series]]:
    """Dots at their value, moved up or down where they would cover each other."""
    filled: dict[int, int] = {}
    for at in np.argsort(values, kind="stable"):
        x = axis(float(values[at]))
        rank = filled[int(x // 4)] = filled.get(int(x // 4), -1) + 1
        dy = ((rank + 1) // 2) * 4 * (-1 if rank % 2 else 1)
        yield x, float(np.clip(dy, -14, 14)), part.iloc[at]


def capital(text: str) -> str:
    """Text whose first letter is a capital."""
    return text[:1].upper() + text[1:]


def file_name(text: str) -> str:
    """Text as a part of a file's name; where characters are lost, a digest tells it from others that lose them."""
    lower = str(text).lower()
    safe = "".join(c if c == "_" or (c.isalnum() and c.isascii()) else "-" for c in lower).strip("-") or "set"
    return safe if safe == lower else f"{safe}-{digest(lower)[:4]}"
