"""What each setting does to accuracy, and what accuracy costs, as figures.

Comes in: a study's `Records`. Goes out: `Figure`s: main effects, every two factors together, accuracy against cost.
"""

from itertools import combinations
from math import isnan
from typing import Any

import numpy as np
import pandas as pd

from headstart.report.comparisons import points, signed
from headstart.report.figures import Figure, capital, look, mean_interval
from headstart.report.frame import Records
from headstart.report.labels import (
    name_of_head,
)
from headstart.report.svg import WIDTH, Drawing, scale

SHOWN = {
    "head": "head",
    "activation": "activation",
    "hidden_dim": "dim(g)",
    "output_dim": "dim(z)",
    "normalized": "Z-score",
}


def _centred(study: Records) -> pd.DataFrame:
    """Runs with `effect`: points above the mean of their data set."""
    judged = study.runs[study.runs["accuracy"].notna()].copy()
    judged["normalized"] = judged["normalized"].map({True: "yes", False: "no"})
    mean = judged.groupby("dataset", observed=True)["accuracy"].transform("mean")
    return judged.assign(effect=100 * (judged["accuracy"] - mean))


def _varied(runs: pd.DataFrame) -> list[str]:
    return [f for f in SHOWN if runs[f].nunique() > 1]


def _order(runs: pd.DataFrame, factor: str) -> list[Any]:
    column = runs[factor]
    if isinstance(column.dtype, pd.CategoricalDtype):
        return [level for level in column.cat.categories if (column == level).any()]
    return sorted(column.unique())


def main_effects(study: Records) -> list[Figure]:
    """Mean effect of each level of each factor, by head, with intervals: one panel a factor."""
    runs = _centred(study)
    return [_main_effect(runs, f) for f in _varied(runs) if f != "head"]


def _main_effect(runs: pd.DataFrame, factor: str) -> Figure:
    heads, levels = _order(runs, "head"), _order(runs, factor)
    found = []
    for head in heads:
        for level in levels:
            part = runs[(runs["head"] == head) & (runs[factor] == level)]
            if len(part):
                mean, low, high = mean_interval(part, part["effect"].to_numpy())
                found.append({"head": head, factor: level, "mean": mean, "low": low, "high": high, "runs": len(part)})
    data = pd.DataFrame(found)
    top = 34 + 18 * ((len(heads) + 1) // 2)
    y = scale([*data["mean"], *data["low"].dropna(), *data["high"].dropna()], top + 170, top, zero=True)
    alt = f"Effect of {SHOWN[factor]}: " + "; ".join(
        f"{name_of_head(r['head'])} {r[factor]} {points(r['mean'])}" for r in found
    )
    drawing = Drawing(top + 200, alt)
    drawing.legend(12, [(capital(name_of_head(h)), look(h)) for h in heads])
    drawing.y_axis(y, 34, WIDTH, "points above the mean of the set")
    drawing.line(34, y(0), WIDTH, y(0), "zero")
    width = (WIDTH - 44) / len(levels)
    for j, level in enumerate(levels):
        middle = 39 + (j + 0.5) * width
        drawing.text(middle, top + 188, str(level), "label", "middle")
        for i, head in enumerate(heads):
            x = middle + (i - (len(heads) - 1) / 2) * min(16.0, width / (len(heads) + 1))
            for r in (r for r in found if r["head"] == head and r[factor] == level):
                if not isnan(r["low"]):
                    drawing.line(x, y(r["low"]), x, y(r["high"]), "axis")
                drawing.mark(x, y(r["mean"]), look(head), 4.5, f"{points(r['mean'])} points, {r['runs']} runs")
    return Figure(f"effect-{factor}", f"By {SHOWN[factor]}", drawing, data)


def interactions(study: Records) -> list[Figure]:
    """Mean effect of every two factors together as heatmaps: one panel a pair."""
    runs = _centred(study)
    return [_heatmap(runs, a, b) for a, b in combinations(_varied(runs), 2)]


def _heatmap(runs: pd.DataFrame, a: str, b: str) -> Figure:
    if len(_order(runs, a)) < len(_order(runs, b)):
        a, b = b, a
    rows, columns = _order(runs, a), _order(runs, b)
    cells = {
        (str(r), str(c)): (part["effect"].mean(), len(part)) for (r, c), part in runs.groupby([a, b], observed=True)
    }
    table = np.array([[cells.get((str(r), str(c)), (np.nan, 0))[0] for c in columns] for r in rows])
    largest = np.nanmax(np.abs(table)) or 1.0
    left, top, height = 96, 46, 30
    width = (WIDTH - left) / len(columns)
    alt = f"Mean effect of {SHOWN[a]} and {SHOWN[b]}: " + "; ".join(
        f"{r}, {c} {points(v)}" for (r, c), (v, _) in cells.items()
    )
    drawing = Drawing(top + height * len(rows) + 8, alt)
    for j, column in enumerate(columns):
        for k, word in enumerate(_words(b, column)):
            drawing.text(left + (j + 0.5) * width, top - 20 + 13 * k, word, "small", "middle")
    for i, row in enumerate(rows):
        y = top + i * height
        for k, word in enumerate(words := _words(a, row)):
            drawing.text(left - 8, y + height / 2 + 4 + 13 * (k - (len(words) - 1) / 2), word, "small", "end")
        for j in range(len(columns)):
            if not isnan(v := table[i, j]):
                shade = "plus" if v > 0 else "minus"
                drawing.area(left + j * width + 1, y + 1, width - 2, height - 2, shade, 0.55 * abs(v) / largest)
                drawing.text(left + (j + 0.5) * width, y + height / 2 + 4, signed(v), "label cell", "middle")
    data = pd.DataFrame([{a: r, b: c, "mean": v, "runs": n} for (r, c), (v, n) in cells.items()])
    return Figure(f"pair-{a}-{b}", f"{capital(SHOWN[a])} and {SHOWN[b]}", drawing, data, _departure(table))


def _words(factor: str, level: Any) -> list[str]:
    return name_of_head(str(level)).split() if factor == "head" else [str(level)]


def _departure(table: np.ndarray) -> str:
    """How far the cells depart from rows plus columns: the interaction."""
    if np.isnan(table).any():
        return "Some combinations were not run."
    additive = table.mean(axis=1, keepdims=True) + table.mean(axis=0, keepdims=True) - table.mean()
    return f"Beyond the sum of both: up to {np.abs(table - additive).max():.1f} points."


# --------------------------------------------------------------------------------------------------------------- cost

COSTS = {
    "seconds": "seconds of SimCLR training",
    "parameters": "trained parameters of the head",
    "output_dim": "dim(z)",
}


def costs(study: Records) -> list[Figure]:
    """Accuracy against what it costs, with the Pareto front: one panel a cost that varies."""
    runs = _centred(study)
    several = len(study.sets) > 1
    found = []
    for cost, label in COSTS.items():
        known = runs[runs[cost].notna() & (runs[cost] > 0)].copy()
        if known[cost].nunique() < 2:
            continue
        known["cost"] = known[cost].astype(float)
        if several and cost == "seconds":
            known["cost"] /= known.groupby("dataset", observed=True)["cost"].transform("median")
            label = "seconds of training, relative to the set's median"
        known["value"] = known["effect"] if several else 100 * known["accuracy"]
        found.append(_cost(cost, label, known, several))
    return found


def _cost(cost: str, label: str, runs: pd.DataFrame, several: bool) -> Figure:
    heads = _order(runs, "head")
    top = 34 + 18 * ((len(heads) + 1) // 2)
    bottom = top + 190
    x = scale(runs["cost"], 56, WIDTH - 22, log=runs["cost"].max() > 3 * runs["cost"].min())
    y = scale(runs["value"], bottom, top)
    front = pareto(runs["cost"].to_numpy(), runs["value"].to_numpy())
    best = runs.iloc[front[-1]]
    alt = (
        f"Accuracy against {label}, {len(runs)} runs; {len(front)} on the Pareto front, the best by "
        f"{name_of_head(best['head'])}"
    )
    drawing = Drawing(bottom + 40, alt)
    drawing.legend(12, [(capital(name_of_head(h)), look(h)) for h in heads])
    drawing.y_axis(y, 40, WIDTH, "points above the mean of the set" if several else "accuracy, %")
    values = sorted(runs["cost"].unique())
    few = len(values) <= 6
    drawing.x_axis(x, top, bottom, label, values if few else 4)
    for i, head in enumerate(heads):
        aside = (i - (len(heads) - 1) / 2) * 9 if few else 0.0  # heads beside each other where costs coincide
        for run in runs[runs["head"] == head].itertuples():
            title = f"{run.run}: {100 * run.accuracy:.1f} %"
            small = len(runs) > 60
            drawing.mark(x(run.cost) + aside, y(run.value), look(head), 2.6 if small else 4, title, faint=small)
    steps = [(x(runs["cost"].iloc[i]), y(runs["value"].iloc[i])) for i in front]
    corners = [steps[0]]
    for px, py in steps[1:]:
        corners += [(px, corners[-1][1]), (px, py)]
    drawing.path(corners, "front")
    data = runs[["run", "dataset", "head", cost, "accuracy", "value"]].assign(
        pareto=[i in set(front) for i in range(len(runs))]
    )
    return Figure(f"cost-{cost}", capital(COSTS[cost]), drawing, data, "The line is the Pareto front.")


def pareto(cost: np.ndarray, value: np.ndarray) -> list[int]:
    """Positions of points that no cheaper or equally cheap point beats, from cheap to dear."""
    front: list[int] = []
    for i in np.lexsort((-value, cost)):
        if not front or value[i] > value[front[-1]]:
            front.append(int(i))
    return front
