"""What a report says and in which order: the page of a study, and the smaller one of a single run.

Comes in: a `Study` with its answer and tables. Goes out: a `Page` for html.py. Pictures first, then tables.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from headstart.records.config import flatten
from headstart.records.version import __version__
from headstart.report import plots
from headstart.report.answer import Answer, Comparison, name_of, points
from headstart.report.html import (
    Block,
    Column,
    Facts,
    Figures,
    Grid,
    Link,
    Page,
    PaperTables,
    Picture,
    Pictures,
    Section,
    Words,
    embed,
)
from headstart.report.labels import head_label, name_of_head
from headstart.report.records import Study
from headstart.report.tables import Headline, Layout

FEW_RUNS = 4
"""A study of at most this many runs is shown run by run."""

MOST_SENTENCES = 8
"""On top of the page; the others stand in the first section."""

FOOTER = (
    f"Made by Headstart {__version__}. This page is one file and loads nothing; its figures and tables also "
    "lie beside it, in figures/ and tables/."
)


def study_page(study: Study, answer: Answer, layouts: Sequence[Layout], peaks: Headline | None) -> Page:
    """The page of a study."""
    few = len(study.runs) <= FEW_RUNS
    first = [_side_by_side(study, answer), _samples(study)]
    if not few:
        first = [_comparisons(study, answer), _accuracy(study), _tables(layouts, peaks), _factors(study), _cost(study)]
    sections = [
        *first,
        _training(study),
        _geometry(study),
        None if few else _samples(study),
        _all_comparisons(answer),
        _runs(study),
        _method(study),
    ]
    lasting = [s for s in sections if s is not None and s.blocks]
    return Page(
        title=str(study.settings.get("name") or _title(study.path)),
        counts=_counts(study),
        headline=answer.headline,
        support=[*answer.sentences[:MOST_SENTENCES], *answer.by_set[:1], *(_few(study) if few else [])],
        caveats=answer.caveats,
        sections=lasting,
        footer=FOOTER,
    )


def run_page(study: Study) -> Page:
    """The page of a single run."""
    (result,) = study.results.values()
    head = result["head"]
    sections = [
        _every_probe(study),
        _map(study),
        _samples(study),
        _confusion(study),
        _training(study),
        _geometry(study),
        _settings(study),
        _skipped(study),
    ]
    return Page(
        title=_title(study.path),
        counts=_run_counts(study, result),
        headline=_run_headline(study, result),
        support=[s for s in [_no_gain(result, name_of_head(head_label(head["init"], head["frozen"])))] if s],
        caveats=_run_caveats(result),
        sections=[s for s in sections if s is not None and s.blocks],
        footer=FOOTER,
    )


def _few(study: Study) -> list[str]:
    """What a reader of one or two runs should know before believing the difference."""
    judged = study.runs[study.runs["accuracy"].notna()]
    said = [
        _no_gain(study.results[run], name_of_head(head))
        for run, head in zip(judged["run"], judged["head"].astype(str), strict=True)
    ]
    half = 50 * (judged["high"] - judged["low"]).max()
    if half == half:
        said.append(
            f"Each accuracy by {plots.PROBES.get(study.probe, study.probe)} rests on {judged['n_test'].min():.0f} test "
            f"pictures, and is known to about ±{half:.0f} points from that alone."
        )
    return [s for s in said if s]


def _no_gain(result: Mapping[str, Any], name: str) -> str:
    """By which probes SimCLR added nothing to the untrained backbone; empty where all see a gain."""
    before, after = result.get("untrained") or {}, result.get("probes") or {}
    lost = [
        f"{plots.PROBES.get(probe, probe)} ({100 * found['accuracy']:.1f} against "
        f"{100 * before[probe]['accuracy']:.1f} % untrained)"
        for probe, found in after.items()
        if "accuracy" in (before.get(probe) or {}) and found.get("accuracy", 1) <= before[probe]["accuracy"]
    ]
    return f"With the {name} head, SimCLR gained nothing by {', '.join(lost)}." if lost else ""


def figures_of(page: Page) -> Iterator[plots.Figure]:
    """Every figure in a page."""
    for section in page.sections:
        for block in section.blocks:
            if isinstance(block, Figures):
                yield from block.figures


def _title(path: Path) -> str:
    return path.resolve().name


def _count(n: int, thing: str) -> str:
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def _counts(study: Study) -> list[str]:
    said = [_count(len(study.runs), "run")]
    if len(study.autoencoders):
        said.append(_count(len(study.autoencoders), "autoencoder"))
    said += [", ".join(study.sets), _count(study.runs["seed"].nunique(), "seed")]
    said.append(f"accuracy: {plots.PROBES.get(study.probe, study.probe)}")
    if study.failed:
        said.append(f"{len(study.failed)} failed")
    if study.missing:
        said.append(f"{len(study.missing)} not there yet")
    return said


# -------------------------------------------------------------------------------------------------------- of a study


def _comparisons(study: Study, answer: Answer) -> Section:
    figures = plots.forest(study, answer.comparisons)
    lead = (
        "Runs that agree in everything but the head, subtracted. Right of zero, the head named first is better. A "
        "filled diamond is a difference that stands after correction; a hollow one does not."
    )
    blocks: list[Block] = [Figures(figures)] if figures else []
    if more := [*answer.sentences[MOST_SENTENCES:], *answer.by_set]:
        blocks.append(Words(more))
    return Section("answer", "Head against head", lead, blocks)


def _accuracy(study: Study) -> Section:
    figures = plots.distributions(study)
    lead = (
        "Every dot is a run. The bar is the head's mean, the line its 95 % interval over what the runs share, the "
        "dashed line the untrained backbone where it was probed."
    )
    if not _same_cells(study):
        lead += (
            " Heads were not all run with the same sizes, activations and seeds: compare them by matched runs, above."
        )
    return Section("accuracy", "Accuracy", lead, [Figures(figures)] if figures else [])


def _same_cells(study: Study) -> bool:
    """Whether the means of the heads are over the same settings."""
    judged = study.runs[study.runs["accuracy"].notna()]
    cell = ["hidden_dim", "output_dim", "activation", "normalized", "seed"]
    for _, on_set in judged.groupby("dataset", observed=True):
        if len({frozenset(map(tuple, part[cell].to_numpy())) for _, part in on_set.groupby("head", observed=True)}) > 1:
            return False
    return True


def _side_by_side(study: Study, answer: Answer) -> Section:
    """A few runs in one view: accuracy, every probe, and the difference."""
    judged = {run: study.results[run] for run in study.runs["run"] if study.results[run].get("probes")}
    names = dict(zip(study.runs["run"], study.runs["head"].astype(str), strict=True))
    by_probe = plots.probes(judged, names)
    figures = [*plots.distributions(study), *by_probe, *plots.forest(study, answer.comparisons)]
    lead = (
        f"First, accuracy by {plots.PROBES.get(study.probe, study.probe)}, with the 95 % interval over test pictures "
        "and the untrained backbone as a dashed line. Each other probe judges the same frozen backbones in its own "
        "way; what SimCLR added is the distance to the untrained one."
    )
    blocks: list[Block] = [Figures(figures)] if figures else []
    return Section("answer", "Head against head", lead, [*blocks, *(_probe_grid(f.data) for f in by_probe)])


def _every_probe(study: Study) -> Section | None:
    judged = {run: result for run, result in study.results.items() if result.get("probes")}
    if not judged or len(judged) > FEW_RUNS:
        return None
    names = dict(zip(study.runs["run"], study.runs["head"].astype(str), strict=True))
    figures = plots.probes(judged, names)
    return Section(
        "probes",
        "How good is the backbone?",
        "Each probe judges the frozen backbone in its own way; the untrained backbone went through the same probes. "
        "What SimCLR added is the distance between the two.",
        [Figures(figures), _probe_grid(figures[0].data)] if figures else [],
    )


def _probe_grid(rows: pd.DataFrame) -> Grid:
    """Probes by row, backbones by column."""
    found = {
        (r.probe, r.of): f"{r.accuracy:.1f}" + (f" ({r.low:.1f} to {r.high:.1f})" if r.low == r.low else "")
        for r in rows.itertuples()
    }
    backbones = list(dict.fromkeys(rows["of"]))
    columns = [Column("accuracy, % (95 % interval)"), *(Column(of, numeric=True) for of in backbones)]
    cells = [
        [plots.PROBES.get(probe, probe), *(found.get((probe, of), "–") for of in backbones)]
        for probe in dict.fromkeys(rows["probe"])
    ]
    return Grid("grid-probes", "", columns, cells)


def _tables(layouts: Sequence[Layout], peaks: Headline | None) -> Section:
    filled = [layout for layout in layouts if layout.bodies]
    lead = "The paper's Tables 2 to 6 from these runs: ae is the frozen autoencoder head, mlp the trainable random one."
    if peaks is not None:
        lead += (
            f" The best ae head lies {points(peaks.mean)} points above the best mlp head"
            + (f" on average, {points(peaks.largest)} at most ({peaks.largest_set})" if peaks.sets > 1 else "")
            + (f"; the paper prints {peaks.printed_mean} and {peaks.printed_largest}" if peaks.printed_mean else "")
            + ". Peaks are the largest of many runs, so they flatter the head with more runs or more spread."
        )
    return Section("tables", "The paper's tables", lead, [PaperTables(filled)] if filled else [])


def _factors(study: Study) -> Section | None:
    if len(study.runs) <= FEW_RUNS:
        return None
    effects, pairs = plots.main_effects(study), plots.interactions(study)
    blocks: list[Block] = [Figures(f) for f in (effects, pairs) if f]
    lead = (
        "Points above or below the mean of the data set, averaged over the runs with that setting: first each factor, "
        "by head with 95 % intervals; then every two factors together."
    )
    return Section("factors", "What each setting does", lead, blocks)


def _cost(study: Study) -> Section | None:
    if len(study.runs) <= FEW_RUNS or study.runs["accuracy"].notna().sum() < 2:
        return None
    figures = plots.costs(study)
    lead = "Accuracy against what it costs. Runs on the line are not beaten by any that costs as much or less."
    return Section("cost", "Accuracy against cost", lead, [Figures(figures)] if figures else [])


def _training(study: Study) -> Section:
    figures = plots.curves(study)
    early = plots.distributions(study, "early", "early") if len(study.runs) > 1 else []
    blocks: list[Block] = [Figures(figures)] if figures else []
    if early:
        blocks += [
            Words(["Early in training: the online probe's accuracy after a tenth of the epochs, by head."]),
            Figures(early),
        ]
    if not figures:
        blocks = [Words(["These runs recorded no curves, so nothing can be said about accuracy early in training."])]
    lead = "What was recorded each epoch" if figures else ""
    if figures:
        lead += "." if study.single else ", by head; dashed where the first layer is trainable."
    return Section("training", "Training", lead, blocks)


def _geometry(study: Study) -> Section | None:
    figures = plots.spectra(study)
    by_head: dict[str, list[dict[str, float]]] = {}
    for run, head in zip(study.runs["run"], study.runs["head"].astype(str), strict=True):
        measures = dict(_scalars(study.results[run].get("geometry") or {}))
        if measures:
            by_head.setdefault(head, []).append(measures)
    blocks: list[Block] = [Figures(figures)] if figures else []
    if by_head:
        means = {head: pd.DataFrame(rows).mean() for head, rows in by_head.items()}
        names = list(dict.fromkeys(name for mean in means.values() for name in mean.index))
        columns = [Column("measure"), *(Column(name_of_head(head), numeric=True) for head in means)]
        rows = [
            [n, *(f"{m[n]:.4g}".replace("-", "−") if n in m and m[n] == m[n] else "–" for m in means.values())]
            for n in names
        ]
        blocks.append(Grid("grid-geometry", "Measures that need no labels", columns, rows))
    lead = (
        "Whether the representation uses its dimensions or has collapsed: a spectrum that falls to nothing early, or "
        "an effective rank of a few, is a collapse."
    )
    return Section("geometry", "Geometry", lead, blocks) if blocks else None


def _scalars(geometry: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in geometry.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, f"{prefix}{key} ")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield MEASURES.get(prefix + key, f"{prefix}{key}".replace("_", " ")), float(value)


MEASURES = {
    "effective_rank": "effective rank of h (RankMe)",
    "uniformity": "uniformity of h (lower: more spread over the sphere)",
    "alignment": "alignment of h (lower: views of a picture lie closer)",
    "mean_norm": "mean norm of h",
    "dead": "share of features that never vary",
    "pictures": "pictures looked at",
    "head preactivation_rms": "head at step 0: size of the first layer's outputs",
    "head hidden_mean": "head at step 0: mean after the activation",
    "head hidden_std": "head at step 0: spread after the activation",
    "head hidden_flat": "head at step 0: share of flat activations",
    "head hidden_dead": "head at step 0: share of units flat for every picture",
    "head loss": "head at step 0: NT-Xent loss",
    "head gradient_norm": "head at step 0: gradient that reaches h",
}


def _samples(study: Study) -> Section | None:
    pictures: list[Picture | None] = []
    candidates = list(zip(study.runs["run"], study.runs["dataset"].astype(str), strict=True))
    candidates += list(zip(study.autoencoders["run"], study.autoencoders["dataset"], strict=True))
    for file, title, alt in (
        ("pairs.png", "What SimCLR sees", "pictures on top; below each, two augmented views of it that form a pair"),
        ("reconstructions.png", "What the autoencoder keeps", "test pictures on top, their reconstructions below"),
    ):
        for dataset in dict.fromkeys(d for _, d in candidates):
            where = f" on {dataset}" if len(study.sets) > 1 else ""
            found = (
                embed(study.folder(run).samples / file, title + where, f"{dataset}: {alt}")
                for run, d in candidates
                if d == dataset
            )
            pictures.append(next((p for p in found if p), None))
    shown = [p for p in pictures if p is not None]
    lead = (
        "A picture and two augmented views of it, which SimCLR pulls together; and pictures the autoencoder did not "
        "train on, above what it makes of them."
    )
    return Section("samples", "Pictures", lead, [Pictures(shown)]) if shown else None


def _map(study: Study) -> Section | None:
    """The test pictures of a single run as its backbone sees them."""
    files = (
        ("map.png", "What they look like", "test pictures, similar ones close together"),
        ("map-labels.png", "Which class they are", "a dot a test picture, in its class's colour"),
    )
    shown = [
        embed(study.folder(run).samples / file, title, alt) for run in study.runs["run"] for file, title, alt in files
    ]
    lead = (
        "The test split, which SimCLR never saw, laid out so that pictures with similar representations lie close "
        "together. Only closeness means something here: not the axes, nor how far apart two groups lie."
    )
    pictures = [p for p in shown if p is not None]
    return Section("map", "Map", lead, [Pictures(pictures)]) if pictures else None


def _all_comparisons(answer: Answer) -> Section | None:
    if len(answer.comparisons) < 2:
        return None
    columns = [
        Column("better if positive"),
        Column("than"),
        Column("within", filter=True),
        Column("data set", filter=True),
        Column("mean", numeric=True),
        Column("95 % interval"),
        Column("p (Holm)", numeric=True),
        Column("pairs", numeric=True),
        Column("wins", numeric=True),
        Column("losses", numeric=True),
        Column("median", numeric=True),
        Column("bootstrap of mean"),
        Column("bootstrap of median"),
        Column("Wilcoxon p", numeric=True),
        Column("rests on"),
    ]
    return Section(
        "comparisons",
        "All comparisons",
        "The interval and p-value over clusters decide; p is corrected within its family. The bootstrap intervals and "
        "Wilcoxon's test treat pairs as independent, which they are not, and stand beside for comparison.",
        [Grid("grid-comparisons", "", columns, [_comparison_row(c) for c in answer.comparisons])],
    )


def _comparison_row(c: Comparison) -> list[str]:
    p, test = c.pairing, c.decision.test
    return [
        name_of(p, p.a),
        name_of(p, p.b),
        name_of_head(p.within) if p.within else "heads",
        p.dataset or "all",
        points(test.mean),
        _interval(test.interval),
        _p(c.decision.adjusted),
        str(c.pairs),
        str(c.wins),
        str(c.losses),
        points(c.median),
        _interval(c.mean_interval),
        _interval(c.median_interval),
        _p(c.wilcoxon),
        c.clusters,
    ]


def _interval(bounds: tuple[float, float]) -> str:
    return f"{points(bounds[0])} to {points(bounds[1])}" if bounds[0] == bounds[0] else "–"


def _p(value: float) -> str:
    return "–" if value != value else f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"


def _runs(study: Study) -> Section:
    columns = [
        Column("data set", filter=True),
        Column("head", filter=True),
        Column("accuracy, %", numeric=True),
        Column("95 % interval"),
        Column("untrained, %", numeric=True),
        Column("activation", filter=True),
        Column("dim(g)", numeric=True, filter=True),
        Column("dim(z)", numeric=True, filter=True),
        Column("Z-score", filter=True),
        Column("seed", numeric=True),
        Column("val. loss", numeric=True),
        Column("minutes", numeric=True),
        Column("run"),
    ]
    kept = [
        i for i, column in enumerate(columns) if column.name != "untrained, %" or study.runs["untrained"].notna().any()
    ]
    rows = [[row[i] for i in kept] for row in (_run_row(study, run) for run in study.runs.itertuples())]
    blocks: list[Block] = [Grid("grid-runs", "", [columns[i] for i in kept], rows)]
    if len(study.autoencoders):
        blocks.append(_autoencoders(study))
    if study.failed:
        blocks.append(
            Grid("grid-failed", "Failed runs", [Column("run"), Column("reason")], [list(pair) for pair in study.failed])
        )
    return Section("runs", "All runs", "Sort by a column's name; filter by any word.", blocks)


def _run_row(study: Study, run: Any) -> list[str | Link]:
    page = study.folder(run.run).report
    href = quote(page.relative_to(study.path).as_posix()) if page.exists() else ""
    return [
        str(run.dataset),
        name_of_head(str(run.head)),
        _percent(run.accuracy),
        f"{_percent(run.low)} to {_percent(run.high)}" if run.low == run.low else "–",
        _percent(run.untrained),
        str(run.activation),
        str(run.hidden_dim),
        str(run.output_dim),
        "yes" if run.normalized else "no",
        str(run.seed),
        f"{run.val_loss:.3f}" if run.val_loss == run.val_loss else "–",
        f"{run.seconds / 60:.1f}" if run.seconds == run.seconds else "–",
        Link(run.run, href) if href else run.run,
    ]


def _percent(value: float) -> str:
    return f"{100 * value:.1f}" if value == value else "–"


def _autoencoders(study: Study) -> Grid:
    columns = [
        Column("autoencoder"),
        Column("data set", filter=True),
        Column("dim(g)", numeric=True),
        Column("test MSE", numeric=True),
        Column("best epoch", numeric=True),
        Column("minutes", numeric=True),
    ]
    rows = [
        [
            a.run,
            str(a.dataset),
            str(a.hidden_dim),
            f"{a.test_mse:.5f}" if a.test_mse == a.test_mse else "–",
            f"{a.best_epoch:.0f}" if a.best_epoch == a.best_epoch else "–",
            f"{a.seconds / 60:.1f}" if a.seconds == a.seconds else "–",
        ]
        for a in study.autoencoders.astype({"test_mse": float, "best_epoch": float, "seconds": float}).itertuples()
    ]
    return Grid("grid-autoencoders", "Autoencoders", columns, rows)


def _method(study: Study) -> Section:
    probe = plots.PROBES.get(study.probe, study.probe)
    sentences = [
        f"Accuracy is by {probe}; intervals of a run are over test pictures.",
        "Two runs are matched when they agree in set, seed, normalization, sizes and every other setting but the one "
        "compared.",
        "Runs that share a seed or an autoencoder are not independent. Differences are averaged within each, and a t "
        "interval over those means decides; where seeds and autoencoders cross, the two-way clustered variance of "
        "Cameron, Gelbach and Miller (2011) is used.",
        "p-values are corrected by Holm's method among the comparisons that study.yaml names (all pairs of heads where "
        "it names none), for each data set and for the pooled sets; fewer than five clusters are called too few.",
        "Standard deviations are with n − 1, the midspread from linearly interpolated quartiles.",
    ]
    return Section("method", "How this was computed", "", [Words(sentences)])


# ---------------------------------------------------------------------------------------------------------- of a run


def _run_counts(study: Study, result: Mapping[str, Any]) -> list[str]:
    data, head = result.get("data") or {}, result["head"]
    said = [str(name) for name in study.sets or study.autoencoders["dataset"].unique()]
    if all(key in data for key in ("train", "val", "test")):
        said.append(f"{data['train']:,} training, {data['val']:,} validation, {data['test']:,} test pictures")
    said.append(str((result.get("backbone") or {}).get("name", "")))
    if result["stage"] != "autoencoder":
        state = "frozen" if head["frozen"] else "trainable"
        said.append(f"head: {state} {head['init']}, {head['activation']}, {head['hidden_dim']} to {head['output_dim']}")
    return [s for s in said if s]


def _run_headline(study: Study, result: Mapping[str, Any]) -> str:
    if result["stage"] == "autoencoder":
        mse = (result.get("autoencoder") or {}).get("test_mse")
        return (
            f"The autoencoder reconstructs test pictures with a mean squared error of {mse:.5f}."
            if mse
            else ("The run stopped after its autoencoder.")
        )
    run = study.runs.iloc[0]
    if pd.isna(run["accuracy"]):
        return "The backbone is trained. It was not probed, so there is no accuracy to report."
    interval = f" ({_percent(run['low'])} to {_percent(run['high'])})" if run["low"] == run["low"] else ""
    text = f"After SimCLR, {plots.PROBES.get(study.probe, study.probe)} reaches {_percent(run['accuracy'])} %{interval}"
    if run["untrained"] != run["untrained"]:
        return text + "."
    gain = 100 * (run["accuracy"] - run["untrained"])
    rest = (
        f"{_percent(run['untrained'])} %: {points(abs(gain))} points {'more' if gain >= 0 else 'less'} than untrained"
    )
    return f"{text}; on the untrained backbone, {rest}."


def _run_caveats(result: Mapping[str, Any]) -> list[str]:
    if result["stage"] == "autoencoder":
        return []
    said = ["One run cannot say whether its head helped: that takes matched runs of another head, and several seeds."]
    if result.get("probes") and not result.get("untrained"):
        said.append("The untrained backbone was not probed: how much SimCLR itself added is not known.")
    return said


def _confusion(study: Study) -> Section | None:
    (result,) = study.results.values()
    probes, classes = result.get("probes") or {}, (result.get("data") or {}).get("classes") or []
    name = "linear" if "linear" in probes else study.probe
    figure = plots.confusion(name, probes.get(name) or {}, [str(c) for c in classes])
    if figure is None:
        return None
    lead = "A row is a class, a column what its test pictures were taken for; the diagonal is right."
    return Section("confusion", "What it mixes up", lead, [Figures([figure])])


def _settings(study: Study) -> Section:
    (result,) = study.results.values()
    facts = [(name.replace("_", " "), _value(value)) for name, value in flatten(study.config) if value is not None]
    seconds = [(f"{stage}, seconds", f"{s:,.1f}") for stage, s in (result.get("seconds") or {}).items()]
    blocks = [Facts(f, title) for f, title in ((seconds, "Time"), (facts, "As decided")) if f]
    return Section("settings", "Settings", "", blocks)


def _value(value: Any) -> str:
    return ", ".join(str(v) for v in value) if isinstance(value, list) else str(value)


def _skipped(study: Study) -> Section | None:
    path = study.folder(".").skipped
    if not path.exists():
        return None
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.reader(file) if row]
    if len(rows) < 2:
        return None
    columns = [Column(name) for name in rows[0]]
    cells = [[*row, *[""] * len(columns)][: len(columns)] for row in rows[1:]]
    return Section(
        "skipped",
        "Pictures set aside",
        "Files that could not be used, and why.",
        [Grid("grid-skipped", "", columns, cells)],
    )
