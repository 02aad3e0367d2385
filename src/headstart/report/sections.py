"""Parts of a page that a study and a single run share: probes, training, geometry, pictures.

Comes in: `Records`. Goes out: `PageSection`s for html.py, and numbers as the page writes them.
"""

from collections.abc import Iterator, Mapping
from math import isnan
from pathlib import Path
from typing import Any

import pandas as pd

from headstart.records.names import PROBES
from headstart.records.version import __version__
from headstart.report import curves, figures, probing
from headstart.report.frame import Records
from headstart.report.html import (
    Block,
    Column,
    FigureGrid,
    PageSection,
    Picture,
    PictureList,
    SortableTable,
    Words,
    embed,
)
from headstart.report.labels import (
    name_of_head,
)
from headstart.report.unlabelled import SHAPE
from headstart.report.verdict import KEPT_GIVEN, as_it_was, before_simclr, kept_given, no_better

FEW_RUNS = 4


FOOTER = (
    f"Made by Headstart {__version__}. This page is one file and loads nothing; its figures and tables also "
    "lie beside it, in figures/ and tables/."
)


def no_gain(result: Mapping[str, Any], name: str) -> str:
    """By which probes SimCLR added nothing to the backbone before it; empty where all see a gain."""
    if kept_given(result):
        return f"With the {name} head, SimCLR gained nothing: the run kept the given weights."
    before, after = result.get("untrained") or {}, result.get("probes") or {}
    lost = [
        f"{PROBES.shown(probe)} ({100 * after[probe]['accuracy']:.1f} against "
        f"{100 * before[probe]['accuracy']:.1f} % {as_it_was(result)})"
        for probe in no_better(before, after)
    ]
    return f"With the {name} head, SimCLR gained nothing by {', '.join(lost)}." if lost else ""


def every_probe(study: Records) -> PageSection | None:
    """Every probe of a few runs beside the untrained backbone."""
    judged = {run: result for run, result in study.results.items() if result.get("probes")}
    if not judged or len(judged) > FEW_RUNS:
        return None
    names = dict(zip(study.runs["run"], study.runs["head"].astype(str), strict=True))
    figures = probing.probes(judged, names)
    first = next(iter(judged.values()))
    beside = (
        ". The run kept the given weights, so these are their figures."
        if study.single and kept_given(first)
        else f"; {before_simclr(first)} went through the same probes. What SimCLR added is the distance between them."
    )
    return PageSection(
        "probes",
        "How good is the backbone?",
        f"Each probe judges the frozen backbone in its own way{beside}",
        [FigureGrid(figures), probe_grid(figures[0].data)] if figures else [],
    )


def probe_grid(rows: pd.DataFrame) -> SortableTable:
    """Probes by row, backbones by column."""
    found = {
        (r.probe, r.of): f"{r.accuracy:.1f}" + (f" ({r.low:.1f} to {r.high:.1f})" if not isnan(r.low) else "")
        for r in rows.itertuples()
    }
    backbones = list(dict.fromkeys(rows["of"]))
    columns = [Column("accuracy, % (95 % interval)"), *(Column(of, numeric=True) for of in backbones)]
    probes = dict(zip(rows["probe"], rows["shown"], strict=True))
    cells = [[shown, *(found.get((probe, of), "–") for of in backbones)] for probe, shown in probes.items()]
    return SortableTable("grid-probes", "", columns, cells)


def training(study: Records) -> PageSection:
    """What was recorded each epoch, and accuracy early in training."""
    drawn = curves.curves(study)
    early = figures.distributions(study, "early", "early") if len(study.runs) > 1 else []
    blocks: list[Block] = [FigureGrid(drawn)] if drawn else []
    if early:
        blocks += [
            Words(["Early in training: the online probe's accuracy after a tenth of the epochs, by head."]),
            FigureGrid(early),
        ]
    if not drawn:
        blocks = [Words(["These runs recorded no curves, so nothing can be said about accuracy early in training."])]
    heads = "" if study.single or study.autoencoders_alone else ", by head; dashed where the first layer is trainable"
    lead = f"What was recorded each epoch{heads}." if drawn else ""
    return PageSection("training", "Training", lead, blocks)


def geometry(study: Records) -> PageSection | None:
    """Spectra, and measures that need no labels."""
    figures = curves.spectra(study)
    alone = study.single and kept_given(study.results["."])
    by_head: dict[str, list[dict[str, float]]] = {}
    before: list[dict[str, float]] = []
    for run, head in zip(study.runs["run"], study.runs["head"].astype(str), strict=True):
        shape = dict(study.results[run].get("geometry") or {})
        was = shape.pop("before", None)
        before += [dict(_scalars(was))] if was and not alone else []
        if measures := dict(_scalars(shape)):
            by_head.setdefault(head, []).append(measures)
    blocks: list[Block] = [FigureGrid(figures)] if figures else []
    if by_head:
        means = {head: pd.DataFrame(rows).mean() for head, rows in by_head.items()}
        titles = [KEPT_GIVEN if alone else name_of_head(head) for head in means]
        if before:
            means, titles = {"before": pd.DataFrame(before).mean(), **means}, ["before SimCLR", *titles]
        names = list(dict.fromkeys(name for mean in means.values() for name in mean.index))
        columns = [Column("measure"), *(Column(title, numeric=True) for title in titles)]
        rows = [
            [n, *(f"{m[n]:.4g}".replace("-", "−") if n in m and not isnan(m[n]) else "–" for m in means.values())]
            for n in names
        ]
        blocks.append(SortableTable("grid-geometry", "Measures that need no labels", columns, rows))
    lead = (
        "Whether the representation uses its dimensions or has collapsed: a spectrum that falls to nothing early, or "
        "an effective rank of a few, is a collapse. For the rest no healthy range is known; compare with the backbone "
        "before SimCLR."
    )
    return PageSection("geometry", "Geometry", lead, blocks) if blocks else None


def _scalars(geometry: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in geometry.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, f"{prefix}{key} ")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield MEASURES.get(prefix + key, f"{prefix}{key}".replace("_", " ")), float(value)


MEASURES = {
    **{key: label for key, (label, _) in SHAPE.items()},
    "head preactivation_rms": "head at step 0: size of the first layer's outputs",
    "head hidden_mean": "head at step 0: mean after the activation",
    "head hidden_std": "head at step 0: spread after the activation",
    "head hidden_flat": "head at step 0: share of flat activations",
    "head hidden_dead": "head at step 0: share of units flat for every picture",
    "head loss": "head at step 0: NT-Xent loss",
    "head gradient_norm": "head at step 0: gradient that reaches h",
}


def samples(study: Records) -> PageSection | None:
    """Pairs and reconstructions, of each data set the first that there is."""
    shown: list[Picture] = []
    lead: list[str] = []
    candidates = list(zip(study.runs["run"], study.runs["dataset"].astype(str), strict=True))
    candidates += list(zip(study.autoencoders["run"], study.autoencoders["dataset"], strict=True))
    for file, title, alt, says in (
        (
            "pairs.png",
            "What SimCLR sees",
            "pictures on top; below each, two augmented views of it that form a pair",
            "A picture and two augmented views of it, which SimCLR pulls together.",
        ),
        (
            "reconstructions.png",
            "What the autoencoder keeps",
            "test pictures on top, their reconstructions below",
            "Pictures the autoencoder did not train on, above what it makes of them.",
        ),
    ):
        for dataset in dict.fromkeys(d for _, d in candidates):
            where = f" on {dataset}" if len(study.sets) > 1 else ""
            found = (
                embed(study.folder(run).samples / file, title + where, f"{dataset}: {alt}")
                for run, d in candidates
                if d == dataset
            )
            if (picture := next((p for p in found if p), None)) is not None:
                shown.append(picture)
                lead += [says] if says not in lead else []
    return PageSection("samples", "Pictures", " ".join(lead), [PictureList(shown)]) if shown else None


def percent(value: float) -> str:
    """A share in percent; a dash where there is none."""
    return f"{100 * value:.1f}" if not isnan(value) else "–"


def title(path: Path) -> str:
    """What a folder's page is called."""
    return path.resolve().name
