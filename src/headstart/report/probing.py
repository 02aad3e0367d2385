"""Every probe of a few runs, and what one takes for what, as figures.

Comes in: result.json of runs. Goes out: `Figure`s.
"""

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

import numpy as np
import pandas as pd

from headstart.records.names import PROBES
from headstart.report.figures import Figure, capital, look
from headstart.report.labels import name_of_head, same_labels
from headstart.report.svg import WIDTH, Drawing, Look, scale
from headstart.report.verdict import KEPT_GIVEN, before_simclr, kept_given

MOST_CLASSES = 30
"""A confusion matrix with more classes than this is not drawn."""


def probes(results: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]) -> list[Figure]:
    """Every probe of a few runs beside the untrained backbone: a row a probe."""
    rows = probe_rows(results, names)
    if rows.empty:
        return []
    same = same_labels(result.get("probes") or {} for result in results.values())
    rows = rows[~rows["probe"].isin(same)]
    axis = scale([*rows["low"].dropna(), *rows["high"].dropna(), *rows["accuracy"]], 8, WIDTH - 8)
    kinds, several = list(dict.fromkeys(rows["probe"])), rows["of"].nunique()
    top, step = 12 + 18 * ((several + 1) // 2), 24 + 10 * several
    bottom = top + step * len(kinds)
    alt = "Accuracy by probe: " + "; ".join(f"{r.probe}, {r.of} {r.accuracy:.1f} %" for r in rows.itertuples())
    drawing = Drawing(bottom + 40, alt)
    looks = {
        of: look(head) if head else Look("plain", "square", True)
        for of, head in zip(rows["of"], rows["head"], strict=True)
    }
    drawing.legend(12, [(capital(of), looks[of]) for of in looks])
    drawing.x_axis(axis, top, bottom, "accuracy, %, 95 % interval")
    for i, kind in enumerate(kinds):
        y = top + i * step
        drawing.text(0, y + 13, in_words(kind, same))
        for j, r in enumerate(rows[rows["probe"] == kind].itertuples()):
            at = y + 24 + 10 * j
            if not isnan(r.low):
                drawing.line(axis(r.low), at, axis(r.high), at, "axis")
            drawing.mark(axis(r.accuracy), at, looks[r.of], 4, f"{r.of}: {r.accuracy:.1f} %")
    shown = rows.assign(shown=rows["probe"].map(lambda probe: in_words(probe, same)))
    first = next(iter(results.values()))
    beside = "" if _alone(results) else f", beside {before_simclr(first)}"
    return [Figure("probes", f"Every probe{beside}", drawing, shown)]


def in_words(probe: str, same: Mapping[str, str]) -> str:
    """A probe as people read it, with those that took the same labels."""
    twins = [other for other, first in same.items() if first == probe]
    return f"{PROBES.shown(probe)} (and {', '.join(twins)}: the same)" if twins else PROBES.shown(probe)


def _alone(results: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether there is one network only: of a run that kept the given weights."""
    return len(results) == 1 and kept_given(*results.values())


def probe_rows(results: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]) -> pd.DataFrame:
    """A row a probe and backbone: each head's, then the one before SimCLR; one where both are one network.

    Runs of one head are averaged, and so is what they began as; an interval is one run's, or of one network alone.
    """
    rows: list[dict[str, Any]] = []
    last: list[dict[str, Any]] = []
    for run, result in results.items():
        columns = {"probes": name_of_head(names[run]), "untrained": before_simclr(result).removeprefix("the ")}
        for key, of in {"untrained": KEPT_GIVEN}.items() if _alone(results) else columns.items():
            for probe, found in (result.get(key) or {}).items():
                if "accuracy" not in found:
                    continue
                low, high = found.get("ci95") or (np.nan, np.nan)
                (last if key == "untrained" else rows).append(
                    {
                        "probe": probe,
                        "of": of,
                        "head": names[run] if key == "probes" else "",
                        "accuracy": 100 * found["accuracy"],
                        "low": 100 * low,
                        "high": 100 * high,
                    }
                )
    table = pd.DataFrame(rows + last, columns=["probe", "of", "head", "accuracy", "low", "high"])
    return pd.DataFrame(
        [_averaged(own) for _, own in table.groupby(["probe", "of"], sort=False)], columns=table.columns
    )


def _averaged(rows: pd.DataFrame) -> pd.Series:
    """One row of several of a probe and backbone; networks that are one (seeds of given weights) keep its interval."""
    first = rows.iloc[0]
    if rows["accuracy"].nunique() == 1:
        return first
    return pd.Series({**first, "accuracy": rows["accuracy"].mean(), "low": np.nan, "high": np.nan})


def confusion(probe: str, found: Mapping[str, Any], classes: Sequence[str]) -> Figure | None:
    """What a probe takes for what: shares of each true class, for up to `MOST_CLASSES` classes."""
    rows = found.get("confusion") or []
    if [len(row) for row in rows] != [len(classes)] * len(classes) or not 2 <= len(classes) <= MOST_CLASSES:
        return None
    counts = np.array(rows, dtype=float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    left, top = 70, 64
    side = (WIDTH - left) / len(classes)
    height = max(side, 15.0)
    worst = "; ".join(f"{a} taken for {b} {n} times" for a, b, n in (found.get("most_confused") or [])[:3])
    drawing = Drawing(top + height * len(classes) + 6, f"Confusion of the {probe} probe. {worst}")
    drawing.text(0, 12, "row: true class; column: taken for; numbers in %", "small")
    for i, name in enumerate(classes):
        drawing.text(left - 6, top + (i + 0.5) * height + 4, _short(name, 11), "small", "end")
        drawing.text(
            left + (i + 0.5) * side, top - (6 if i % 2 else 20), _short(name, max(3, int(side / 3))), "small", "middle"
        )
        for j in range(len(classes)):
            share = shares[i, j]
            x, y = left + j * side, top + i * height
            shade = "plus" if i == j else "minus"
            words = f"{name} taken for {classes[j]}: {counts[i, j]:.0f} of {counts[i].sum():.0f}"
            drawing.area(x + 0.5, y + 0.5, side - 1, height - 1, shade, 0.6 * share, words)
            if share >= 0.005 and side >= 18:
                drawing.text(x + side / 2, y + height / 2 + 4, f"{100 * share:.0f}", "small cell", "middle")
    data = pd.DataFrame(
        [
            {"true": classes[i], "taken for": classes[j], "pictures": int(counts[i, j])}
            for i in range(len(classes))
            for j in range(len(classes))
        ]
    )
    return Figure("confusion", f"What the {probe} probe takes for what", drawing, data)


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
