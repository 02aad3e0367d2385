"""The figures of a report, each with its data: what was compared, how accuracies spread, what they cost.

Comes in: a `Study` and its comparisons. Goes out: `Figure`s of phone width, drawn by svg.py. Colour and shape say
where a head's first layer comes from, a hollow mark that it is trainable, so nothing hangs on colour alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from headstart.report.answer import Comparison, name_of, points
from headstart.report.labels import INITS, head_parts, name_of_head
from headstart.report.records import Study, sharing
from headstart.report.svg import SHAPES, WIDTH, Drawing, Look, Scale, scale
from headstart.statistics import clustered

PROBES = {
    "paper": "the paper's probe",
    "linear": "linear probe",
    "knn": "k nearest neighbours",
    "few_shot_1": "1 label a class",
    "few_shot_5": "5 labels a class",
    "linear_1pct": "linear probe, 1 % of the labels",
    "linear_10pct": "linear probe, 10 % of the labels",
}
MANY_CURVES = 40
"""A panel with more runs than this draws means and ranges instead of every curve."""
CURVE_POINTS = 60
MOST_CLASSES = 30
"""A confusion matrix with more classes than this is not drawn."""


@dataclass(frozen=True)
class Figure:
    """A drawing, the words beside it, and the numbers in it."""

    name: str
    """File name without suffix: figures/NAME.svg and figures/NAME.csv."""
    title: str
    drawing: Drawing
    data: pd.DataFrame
    caption: str = ""


def look(head: str) -> Look:
    """How a head is drawn everywhere."""
    init, variant, frozen = head_parts(head)
    if init not in INITS:
        return Look("plain", "circle")
    place = ("autoencoder", "random", "orthogonal", "spectrum", "shuffled", "pca").index(init)
    if variant:  # the colour of its init, and one of the other shapes
        place += 1 + sum(map(ord, variant)) % (len(SHAPES) - 1)
    return Look(init, SHAPES[place % len(SHAPES)], hollow=not frozen)


def mean_interval(rows: pd.DataFrame, values: np.ndarray) -> tuple[float, float, float]:
    """Mean of values of runs, and its 95 % interval over what the runs share; nan where one cluster is all."""
    found = clustered(values, *sharing(rows))
    return found.mean, *found.interval


# --------------------------------------------------------------------------------------------------- the comparisons


def forest(study: Study, comparisons: Sequence[Comparison]) -> list[Figure]:
    """Differences with their deciding intervals: a panel a comparison with its sets, or one panel of comparisons."""
    heads = [c for c in comparisons if c.pairing.factor == "head"]
    named = [c for c in comparisons if c.pairing.family == "named"] or heads
    if len(study.sets) == 1:
        chosen = (named + [c for c in heads if c not in named])[:24]
        titles = [(_versus(c), c) for c in chosen]
        return [_forest("comparisons", "Differences between heads", titles)] if titles else []
    groups: dict[tuple[str, str, str], list[Comparison]] = {}
    for c in named + [c for c in heads if c not in named]:
        groups.setdefault((c.pairing.within, c.pairing.a, c.pairing.b), []).append(c)
    axis = _forest_axis([c for cs in list(groups.values())[:6] for c in cs])
    return [
        _forest(f"comparison-{i}", _versus(cs[0]), [(c.pairing.dataset or "all sets", c) for c in cs], axis)
        for i, cs in enumerate(list(groups.values())[:6], 1)
    ]


def _versus(comparison: Comparison) -> str:
    p = comparison.pairing
    words = f"{name_of(p, p.a)} − {name_of(p, p.b)}"
    return words[0].upper() + words[1:] + (f" ({name_of_head(p.within)})" if p.within else "")


def _forest_axis(comparisons: Sequence[Comparison]) -> Scale:
    ends = [v for c in comparisons for v in (c.mean, *c.decision.test.interval)]
    return scale(ends, 20, WIDTH - 14, zero=True)


LONGEST_LABEL = 42
"""Characters that leave room for the pairs beside them."""


def _lines(label: str) -> list[str]:
    """A comparison's label, on two lines where it is long."""
    first, minus, second = label.partition(" − ")
    return [first, f"− {second}"] if minus and len(label) > LONGEST_LABEL else [label]


def _forest(name: str, title: str, rows: list[tuple[str, Comparison]], axis: Scale | None = None) -> Figure:
    axis = axis or _forest_axis([c for _, c in rows])
    lines = [_lines(label) for label, _ in rows]
    top, bottom = 8, 8 + sum(26 + 14 * len(of_row) for of_row in lines)
    alt = f"{title}: " + "; ".join(f"{label} {points(c.mean)} points" for label, c in rows)
    drawing = Drawing(bottom + 40, alt)
    drawing.x_axis(axis, top, bottom, "difference in points of accuracy, 95 % interval")
    drawing.line(axis(0), top, axis(0), bottom, "zero")
    y = top
    for of_row, (_, c) in zip(lines, rows, strict=True):
        low, high = c.decision.test.interval
        drawing.text(WIDTH, y + 14, f"{c.wins} of {c.pairs} pairs", "small", "end")
        for line in of_row:
            drawing.text(0, y + 14, line, "label strong" if c.pairing.dataset is None and len(rows) > 1 else "label")
            y += 14
        if low == low:
            drawing.line(axis(low), y + 13, axis(high), y + 13, "interval")
        shown = f"{points(c.mean)} ({points(low)} to {points(high)})" if low == low else points(c.mean)
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


def distributions(study: Study, column: str = "accuracy", name: str = "accuracy") -> list[Figure]:
    """Every run as a dot, by head, with the mean and its interval: one panel a data set."""
    judged = study.runs[study.runs[column].notna()]
    return [
        _strips(f"{name}-{_file(dataset)}", dataset if len(study.sets) > 1 else f"Accuracy on {dataset}", rows, column)
        for dataset, rows in judged.groupby("dataset", observed=True)
    ]


def _strips(name: str, title: str, rows: pd.DataFrame, column: str) -> Figure:
    percent = 100 * rows[column]
    single = column == "accuracy" and rows.groupby("head", observed=True).size().max() == 1
    ends = [*percent, *(100 * rows["low"]), *(100 * rows["high"])] if single else list(percent)
    untrained = 100 * rows["untrained"].mean() if column == "accuracy" else float("nan")
    heads = [h for h in rows["head"].cat.categories if (rows["head"] == h).any()]
    summary = {h: rows[rows["head"] == h] for h in heads}
    means = {h: mean_interval(part, 100 * part[column].to_numpy()) for h, part in summary.items()}
    ends += [min(max(end, 0.0), 100.0) for _, *bounds in means.values() for end in bounds if end == end]
    axis = scale([*ends, untrained], 8, WIDTH - 8)
    top, step = (26 if untrained == untrained else 8), 58
    bottom = top + step * len(heads)
    alt = f"Accuracy on {rows['dataset'].iloc[0]}: " + "; ".join(
        f"{name_of_head(h)} mean {100 * part[column].mean():.1f} % of {len(part)} runs" for h, part in summary.items()
    )
    drawing = Drawing(bottom + 40, alt)
    drawing.x_axis(axis, top, bottom, "accuracy, %")
    if untrained == untrained:
        drawing.line(axis(untrained), top - 6, axis(untrained), bottom, "dashed")
        side = axis(untrained) > WIDTH / 2
        drawing.text(axis(untrained), top - 11, f"untrained {untrained:.1f}", "small", "end" if side else "start")
    for i, (head, part) in enumerate(summary.items()):
        y = top + i * step
        values = 100 * part[column].to_numpy()
        mean, low, high = means[head]
        if len(part) == 1 and single:
            low, high = (100 * float(part[end].iloc[0]) for end in ("low", "high"))
        drawing.text(0, y + 15, _capital(name_of_head(head)))
        drawing.text(WIDTH, y + 15, f"{mean:.1f} %" + (f", {len(part)} runs" if len(part) > 1 else ""), "small", "end")
        one = len(part) == 1  # its interval lies behind the dot, the interval of many above them
        if one and low == low:
            drawing.line(axis(low), y + 36, axis(high), y + 36, "interval")
        for x, dy, run in _swarm(axis, part, values):
            words = f"{run['run']}: {100 * run[column]:.1f} %"
            drawing.mark(x, y + 36 + dy, look(head), 2.6 if len(part) > 30 else 4, words, faint=len(part) > 30)
        if not one and low == low:
            drawing.line(axis(low), y + 36, axis(high), y + 36, "interval")
        if len(part) > 1:
            drawing.line(axis(mean), y + 27, axis(mean), y + 45, "mean")
    kept = ["run", "dataset", "head", "activation", "hidden_dim", "output_dim", "normalized", "seed", column]
    return Figure(name, title, drawing, rows[[*kept, *(["untrained"] if untrained == untrained else [])]])


def _swarm(axis: Scale, part: pd.DataFrame, values: np.ndarray) -> Iterator[tuple[float, float, pd.Series]]:
    """Dots at their value, moved up or down where they would cover each other."""
    filled: dict[int, int] = {}
    for at in np.argsort(values, kind="stable"):
        x = axis(float(values[at]))
        rank = filled[int(x // 4)] = filled.get(int(x // 4), -1) + 1
        dy = ((rank + 1) // 2) * 4 * (-1 if rank % 2 else 1)
        yield x, float(np.clip(dy, -14, 14)), part.iloc[at]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _file(text: str) -> str:
    return "".join(c if c.isalnum() and c.isascii() else "-" for c in str(text).lower()).strip("-") or "set"


# ------------------------------------------------------------------------------------------------------------ factors

FACTORS = {
    "head": "head",
    "activation": "activation",
    "hidden_dim": "dim(g)",
    "output_dim": "dim(z)",
    "normalized": "Z-score",
}


def _centred(study: Study) -> pd.DataFrame:
    """Runs with `effect`: points above the mean of their data set."""
    judged = study.runs[study.runs["accuracy"].notna()].copy()
    judged["normalized"] = judged["normalized"].map({True: "yes", False: "no"})
    mean = judged.groupby("dataset", observed=True)["accuracy"].transform("mean")
    return judged.assign(effect=100 * (judged["accuracy"] - mean))


def _varied(runs: pd.DataFrame) -> list[str]:
    return [f for f in FACTORS if runs[f].nunique() > 1]


def _order(runs: pd.DataFrame, factor: str) -> list[Any]:
    column = runs[factor]
    if isinstance(column.dtype, pd.CategoricalDtype):
        return [level for level in column.cat.categories if (column == level).any()]
    return sorted(column.unique())


def main_effects(study: Study) -> list[Figure]:
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
    alt = f"Effect of {FACTORS[factor]}: " + "; ".join(
        f"{name_of_head(r['head'])} {r[factor]} {points(r['mean'])}" for r in found
    )
    drawing = Drawing(top + 200, alt)
    drawing.legend(12, [(_capital(name_of_head(h)), look(h)) for h in heads])
    drawing.y_axis(y, 34, WIDTH, "points above the mean of the set")
    drawing.line(34, y(0), WIDTH, y(0), "zero")
    width = (WIDTH - 44) / len(levels)
    for j, level in enumerate(levels):
        middle = 39 + (j + 0.5) * width
        drawing.text(middle, top + 188, str(level), "label", "middle")
        for i, head in enumerate(heads):
            x = middle + (i - (len(heads) - 1) / 2) * min(16.0, width / (len(heads) + 1))
            for r in (r for r in found if r["head"] == head and r[factor] == level):
                if r["low"] == r["low"]:
                    drawing.line(x, y(r["low"]), x, y(r["high"]), "axis")
                drawing.mark(x, y(r["mean"]), look(head), 4.5, f"{points(r['mean'])} points, {r['runs']} runs")
    return Figure(f"effect-{factor}", f"By {FACTORS[factor]}", drawing, data)


def interactions(study: Study) -> list[Figure]:
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
    alt = f"Mean effect of {FACTORS[a]} and {FACTORS[b]}: " + "; ".join(
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
            if (v := table[i, j]) == v:
                shade = "plus" if v > 0 else "minus"
                drawing.area(left + j * width + 1, y + 1, width - 2, height - 2, shade, 0.55 * abs(v) / largest)
                drawing.text(left + (j + 0.5) * width, y + height / 2 + 4, _signed(v), "label cell", "middle")
    data = pd.DataFrame([{a: r, b: c, "mean": v, "runs": n} for (r, c), (v, n) in cells.items()])
    return Figure(f"pair-{a}-{b}", f"{_capital(FACTORS[a])} and {FACTORS[b]}", drawing, data, _departure(table))


def _words(factor: str, level: Any) -> list[str]:
    return name_of_head(str(level)).split() if factor == "head" else [str(level)]


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−").replace("+0.0", "0.0").replace("−0.0", "0.0")


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


def costs(study: Study) -> list[Figure]:
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
    drawing.legend(12, [(_capital(name_of_head(h)), look(h)) for h in heads])
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
    return Figure(f"cost-{cost}", _capital(COSTS[cost]), drawing, data, "The line is the Pareto front.")


def pareto(cost: np.ndarray, value: np.ndarray) -> list[int]:
    """Positions of points that no cheaper or equally cheap point beats, from cheap to dear."""
    front: list[int] = []
    for i in np.lexsort((-value, cost)):
        if not front or value[i] > value[front[-1]]:
            front.append(int(i))
    return front


# ------------------------------------------------------------------------------------------------------------- curves

CURVES = {
    ("contrastive", "loss"): "SimCLR: training loss",
    ("contrastive", "val_loss"): "SimCLR: validation loss",
    ("contrastive", "accuracy"): "Online probe: accuracy, %",
    ("contrastive", "h_effective_rank"): "Effective rank of h",
    ("contrastive", "z_effective_rank"): "Effective rank of z",
    ("contrastive", "h_alignment"): "Alignment of h (pairs' distance)",
    ("contrastive", "h_uniformity"): "Uniformity of h (lower is more spread)",
    ("autoencoder", "loss"): "Autoencoder: training loss",
    ("autoencoder", "val_loss"): "Autoencoder: validation loss",
}


def curves(study: Study) -> list[Figure]:
    """What was logged each epoch, by head: a panel a quantity and data set."""
    place = study.runs.set_index("run")[["dataset", "head"]].astype(str).to_dict("index")
    for run in study.autoencoders["run"]:
        row = study.autoencoders.set_index("run").loc[run]
        place[run] = {"dataset": str(row["dataset"]), "head": "autoencoder-frozen"}
    found = []
    for (stage, key), label in CURVES.items():
        by_set: dict[str, list[tuple[str, str, np.ndarray]]] = {}
        for run, lines in study.curves.items():
            logged = [line for line in lines if line.get("stage") == stage and "epoch" in line]
            points_ = [(line["epoch"], line[key]) for line in logged if isinstance(line.get(key), (int, float))]
            if len(points_) > 1 and run in place:
                values = np.array(points_, dtype=float)
                values[:, 1] *= 100 if key == "accuracy" else 1
                by_set.setdefault(place[run]["dataset"], []).append((run, place[run]["head"], values))
        for dataset, lines_ in by_set.items():
            where = f" on {dataset}" if len(study.sets) > 1 else ""
            found.append(_curve(f"curve-{stage}-{key.replace('_', '-')}-{_file(dataset)}", label + where, lines_))
    return found


def _curve(name: str, title: str, lines: list[tuple[str, str, np.ndarray]]) -> Figure:
    heads = list(dict.fromkeys(head for _, head, _ in lines))
    top = 12 + (18 * ((len(heads) + 1) // 2) if len(heads) > 1 else 0)
    bottom = top + 180
    every = np.concatenate([values for *_, values in lines])
    x, y = scale(every[:, 0], 50, WIDTH - 8, whole=True), scale(every[:, 1], bottom, top)
    ends = "; ".join(
        f"{name_of_head(h)} ends at {np.mean([v[-1, 1] for _, g, v in lines if g == h]):.3g}" for h in heads
    )
    drawing = Drawing(bottom + 40, f"{title}, {len(lines)} runs: {ends}")
    if len(heads) > 1:
        drawing.legend(12, [(_capital(name_of_head(h)), look(h)) for h in heads])
    drawing.y_axis(y, 50, WIDTH, "", 4)
    drawing.x_axis(x, top, bottom, "epoch")
    for head in heads:
        kind = f"{look(head).colour}{' trainable' if look(head).hollow else ''}"
        members = [values for _, h, values in lines if h == head]
        if 1 < len(members) <= MANY_CURVES:
            for values in members:
                drawing.path(_thinned(values, x, y), f"thin {kind}")
        drawing.path(_thinned(_mean_curve(members), x, y), f"curve {kind}")
    data = pd.DataFrame(
        [{"run": run, "head": head, "epoch": int(e), "value": v} for run, head, values in lines for e, v in values]
    )
    return Figure(name, title, drawing, data)


def _mean_curve(members: list[np.ndarray]) -> np.ndarray:
    stacked = pd.concat([pd.Series(m[:, 1], index=m[:, 0]) for m in members], axis=1)
    mean = stacked.mean(axis=1)
    return np.column_stack([mean.index.to_numpy(dtype=float), mean.to_numpy()])


def _thinned(values: np.ndarray, x: Scale, y: Scale) -> list[tuple[float, float]]:
    kept = values[np.unique(np.linspace(0, len(values) - 1, CURVE_POINTS).round().astype(int))]
    return [(x(a), y(b)) for a, b in kept]


# ----------------------------------------------------------------------------------------------------------- geometry


def spectra(study: Study) -> list[Figure]:
    """Spectra that runs recorded, averaged by head, relative to their largest value: a panel a kind."""
    place = study.runs.set_index("run")["head"].astype(str).to_dict()
    by_kind: dict[str, dict[str, list[np.ndarray]]] = {}
    for run, head in place.items():
        for kind, values in _spectra_of(study.results[run].get("geometry") or {}):
            by_kind.setdefault(kind, {}).setdefault(head, []).append(values)
    return [_spectrum(kind, groups) for kind, groups in by_kind.items()]


def _spectra_of(geometry: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Spectra as (component from 1, value relative to the largest): lists of values, or of [component, value]."""
    for key, value in geometry.items():
        if isinstance(value, Mapping):
            yield from _spectra_of(value, f"{prefix}{key} ")
        elif isinstance(value, list) and len(value) > 1 and ("spectrum" in key or "singular_values" in key):
            values = np.array(value, dtype=float)
            if values.ndim == 1:
                values = np.column_stack([np.arange(1, len(values) + 1), values])
            if values.shape[1:] == (2,) and np.nanmax(values[:, 1]) > 0:
                values[:, 1] /= np.nanmax(values[:, 1])
                yield SPECTRA.get(prefix + key, f"{prefix}{key}".replace("_", " ")), values


SPECTRA = {"spectrum": "Spectrum of h", "head singular_values": "First layer of the head at step 0"}


def _spectrum(kind: str, groups: Mapping[str, list[np.ndarray]]) -> Figure:
    top = 30 + (18 * ((len(groups) + 1) // 2) if len(groups) > 1 else 0)
    bottom = top + 180
    means = {head: _mean_curve(members) for head, members in groups.items()}
    every = np.concatenate(list(means.values()))
    x = scale(every[:, 0], 44, WIDTH - 8, log=True)
    y = scale(np.maximum(every[:, 1], 1e-6), bottom, top, log=True)
    alt = f"Spectrum, {kind}: " + "; ".join(
        f"{name_of_head(h)} is above a tenth up to component {m[m[:, 1] > 0.1, 0].max():.0f}" for h, m in means.items()
    )
    drawing = Drawing(bottom + 40, alt)
    if len(means) > 1:
        drawing.legend(12, [(_capital(name_of_head(h)), look(h)) for h in means])
    drawing.y_axis(y, 44, WIDTH, "relative to the largest", 4)
    drawing.x_axis(x, top, bottom, "component")
    for head, mean in means.items():
        kind_ = f"curve {look(head).colour}{' trainable' if look(head).hollow else ''}"
        drawing.path(_thinned(np.maximum(mean, [[0, 1e-6]]), x, y), kind_)
    data = pd.DataFrame([{"head": h, "component": int(c), "value": v} for h, m in means.items() for c, v in m])
    return Figure(f"spectrum-{_file(kind)}", _capital(kind), drawing, data)


# ------------------------------------------------------------------------------------------------------------- probes


def probes(results: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]) -> list[Figure]:
    """Every probe of a few runs beside the untrained backbone: a row a probe."""
    rows = _probe_rows(results, names)
    if rows.empty:
        return []
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
    drawing.legend(12, [(_capital(of), looks[of]) for of in looks])
    drawing.x_axis(axis, top, bottom, "accuracy, %, 95 % interval")
    for i, kind in enumerate(kinds):
        y = top + i * step
        drawing.text(0, y + 13, PROBES.get(kind, kind))
        for j, r in enumerate(rows[rows["probe"] == kind].itertuples()):
            at = y + 24 + 10 * j
            if r.low == r.low:
                drawing.line(axis(r.low), at, axis(r.high), at, "axis")
            drawing.mark(axis(r.accuracy), at, looks[r.of], 4, f"{r.of}: {r.accuracy:.1f} %")
    return [Figure("probes", "Every probe, beside the untrained backbone", drawing, rows)]


def _probe_rows(results: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    last: list[dict[str, Any]] = []
    seen = set()
    for run, result in results.items():
        for key, of in (("probes", name_of_head(names[run])), ("untrained", "untrained backbone")):
            for probe, found in (result.get(key) or {}).items():
                if "accuracy" not in found or (key == "untrained" and probe in seen):
                    continue  # the untrained backbone is one, whatever head came after
                if key == "untrained":
                    seen.add(probe)
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
    return pd.DataFrame(rows + last, columns=["probe", "of", "head", "accuracy", "low", "high"])


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
