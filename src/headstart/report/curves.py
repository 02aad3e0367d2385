"""What runs recorded while they trained, and the spectra they ended with, as figures.

Comes in: a study's `Records`. Goes out: `Figure`s: a panel a quantity and data set; a panel a kind of spectrum.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from headstart.report.figures import Figure, capital, file_name, look
from headstart.report.frame import Records
from headstart.report.labels import name_of_head
from headstart.report.svg import WIDTH, Drawing, Scale, scale
from headstart.report.verdict import kept_given

MANY_CURVES = 40
"""A panel with more runs than this draws means and ranges instead of every curve."""
CURVE_POINTS = 60


CURVES = {
    ("contrastive", "loss"): "SimCLR: training loss",
    ("contrastive", "val_loss"): "SimCLR: validation loss",
    ("contrastive", "accuracy"): "Online probe: accuracy, %",
    ("contrastive", "h_effective_rank"): "Effective rank of h",
    ("contrastive", "z_effective_rank"): "Effective rank of z",
    ("contrastive", "h_alignment"): "Alignment of h (pairs' distance)",
    ("contrastive", "h_uniformity"): "Uniformity of h (lower is more spread)",
    ("contrastive", "h_gradient_norm"): "Gradient that reaches h",
    ("contrastive", "invariance"): "Invariance term (unweighted)",
    ("contrastive", "variance"): "VICReg: variance term (0: all features vary, 1: none)",
    ("contrastive", "covariance"): "VICReg: covariance term",
    ("contrastive", "redundancy"): "Barlow Twins: redundancy",
    ("contrastive", "prediction"): "SIGReg: prediction term",
    ("contrastive", "statistic"): "SIGReg: statistic (about 1: Gaussian)",
    ("autoencoder", "loss"): "Autoencoder: training loss",
    ("autoencoder", "val_loss"): "Autoencoder: validation loss",
}


def curves(study: Records) -> list[Figure]:
    """What was logged each epoch, by head: a panel a quantity, data set and kind of autoencoder."""
    place = study.runs.set_index("run")[["dataset", "head"]].astype(str).to_dict("index")
    kinds = study.autoencoders["kind"].nunique() > 1
    for row in study.autoencoders.itertuples():
        dataset = f"{row.dataset}, {row.kind}" if kinds else str(row.dataset)
        place[row.run] = {"dataset": dataset, "head": "autoencoder-frozen"}
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
            where = f" on {dataset}" if max(len(by_set), len(study.sets)) > 1 else ""
            found.append(_curve(f"curve-{stage}-{key.replace('_', '-')}-{file_name(dataset)}", label + where, lines_))
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
        drawing.legend(12, [(capital(name_of_head(h)), look(h)) for h in heads])
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


def spectra(study: Records) -> list[Figure]:
    """Spectra that runs recorded, averaged by head, relative to their largest value: a panel a kind."""
    place = study.runs.set_index("run")["head"].astype(str).to_dict()
    by_kind: dict[str, dict[str, list[np.ndarray]]] = {}
    for run, head in place.items():
        shape = study.results[run].get("geometry") or {}
        if not study.single or kept_given(study.results[run]):  # no head has a part in it, or it is the same network
            shape = {key: value for key, value in shape.items() if key != "before"}
        for kind, values in _spectra_of(shape):
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


SPECTRA = {
    "spectrum": "Spectrum of h",
    "before spectrum": "Spectrum of h before SimCLR",
    "head singular_values": "First layer of the head at step 0",
}


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
        drawing.legend(12, [(capital(name_of_head(h)), look(h)) for h in means])
    drawing.y_axis(y, 44, WIDTH, "relative to the largest", 4)
    drawing.x_axis(x, top, bottom, "component")
    for head, mean in means.items():
        kind_ = f"curve {look(head).colour}{' trainable' if look(head).hollow else ''}"
        drawing.path(_thinned(np.maximum(mean, [[0, 1e-6]]), x, y), kind_)
    data = pd.DataFrame([{"head": h, "component": int(c), "value": v} for h, m in means.items() for c, v in m])
    return Figure(f"spectrum-{file_name(kind.replace(' ', '-'))}", capital(kind), drawing, data)
