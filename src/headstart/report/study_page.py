"""What the page of a study says, and in which order: pictures first, then tables.

Comes in: a study's `Records` with its answer and tables. Goes out: a `Page` for html.py.
"""

from collections.abc import Sequence
from math import isnan
from typing import Any
from urllib.parse import quote

from headstart.records.names import PROBES
from headstart.records.text import number, printable
from headstart.report import autoencoders, effects, figures, probing
from headstart.report.answer import Answer
from headstart.report.comparisons import Comparison, Measure, points
from headstart.report.frame import Records
from headstart.report.html import (
    Block,
    Column,
    FigureGrid,
    Link,
    Page,
    PageSection,
    PaperTables,
    SortableTable,
    Words,
)
from headstart.report.labels import (
    name_of_head,
)
from headstart.report.sections import (
    FEW_RUNS,
    FOOTER,
    geometry,
    no_gain,
    percent,
    probe_grid,
    samples,
    title,
    training,
)
from headstart.report.tables import Headline, TableLayout
from headstart.report.verdict import as_it_was, before_simclr, first_run

MOST_SENTENCES = 8
"""On top of the page; the others stand in the first section."""


def page(study: Records, answer: Answer, layouts: Sequence[TableLayout], peaks: Headline | None) -> Page:
    """The page of a study."""
    few = len(study.runs) <= FEW_RUNS
    first: list[PageSection | None] = [_side_by_side(study, answer), samples(study)]
    if not few:
        first = [_comparisons(study, answer), _accuracy(study), _tables(layouts, peaks), _factors(study), _cost(study)]
    if study.autoencoders_alone:
        first = [_errors(study), samples(study)]
    sections = [
        *first,
        training(study),
        geometry(study),
        None if few else samples(study),
        all_comparisons(answer.comparisons),
        _runs(study),
        _method(study),
    ]
    lasting = [s for s in sections if s is not None and s.blocks]
    return Page(
        title=str(study.settings.get("name") or title(study.path)),
        counts=_counts(study),
        headline=answer.worse or answer.headline,
        support=[
            *([answer.headline] if answer.worse else []),
            *answer.worse_too,
            *answer.sentences[:MOST_SENTENCES],
            *answer.by_set[:1],
            *(_few(study) if few else []),
        ],
        caveats=[*([study.unplanned] if study.unplanned else []), *answer.caveats],
        sections=lasting,
        footer=FOOTER,
    )


def _few(study: Records) -> list[str]:
    """What a reader of one or two runs should know before believing the difference."""
    judged = study.runs[study.runs["accuracy"].notna()]
    said = [
        no_gain(study.results[run], name_of_head(head))
        for run, head in zip(judged["run"], judged["head"].astype(str), strict=True)
    ]
    half = 50 * (judged["high"] - judged["low"]).max()
    if not isnan(half):
        said.append(
            f"Each accuracy by {PROBES.shown(study.probe)} rests on {judged['n_test'].min():.0f} test "
            f"pictures, and is known to about ±{half:.0f} points from that alone."
        )
    return [s for s in said if s]


def _named(study: Records) -> str:
    """Whether the probe is the one that study.yaml names."""
    named = study.settings.get("decides")
    if not named or named == study.probe:
        return ", named in study.yaml" if named else ""
    return f", and not {printable(str(named))}, which study.yaml names"


def _counts(study: Records) -> list[str]:
    rows = study.autoencoders if study.autoencoders_alone else study.runs
    said = [] if study.autoencoders_alone else [number(len(study.runs), "run")]
    if len(study.autoencoders):
        said.append(number(len(study.autoencoders), "autoencoder"))
    said += [", ".join(study.sets or dict.fromkeys(map(str, rows["dataset"]))), number(rows["seed"].nunique(), "seed")]
    if not study.autoencoders_alone:
        said.append(f"accuracy: {PROBES.shown(study.probe)}{_named(study)}")
    if study.failed:
        said.append(f"{len(study.failed)} failed")
    if study.missing:
        said.append(f"{len(study.missing)} not there yet")
    return said


def _errors(study: Records) -> PageSection:
    lead = "Errors of test pictures: the mean square of the difference, over all values of a picture."
    if study.autoencoders["normalized"].nunique() > 1:
        lead += " Those of Z-scored pictures are in other units than the others."
    return PageSection("errors", "What they reconstruct", lead, [_by_group(study)])


def _by_group(study: Records) -> SortableTable:
    """A row for those that differ in their seed alone."""
    columns = [
        Column("data set", filter=True),
        Column("kind", filter=True),
        Column("dim(g)", numeric=True),
        Column("seeds", numeric=True),
        Column("mean test MSE", numeric=True),
        Column("lowest", numeric=True),
        Column("highest", numeric=True),
    ]
    rows = [
        [
            group.dataset,
            group.kind,
            str(group.size),
            str(len(group.seeds)),
            *(f"{value:.5f}" for value in (group.mean, min(group.errors), max(group.errors))),
        ]
        for group in autoencoders.groups(study.autoencoders)
    ]
    return SortableTable("grid-errors", "", columns, rows)


def _comparisons(study: Records, answer: Answer) -> PageSection:
    drawn = figures.forest(study, answer.comparisons)
    lead = (
        "Runs that agree in everything but what is compared, subtracted. Right of zero, what is named first is better. "
        "A filled diamond is a difference that stands after correction; a hollow one does not."
    )
    blocks: list[Block] = [FigureGrid(drawn)] if drawn else []
    if more := [*answer.sentences[MOST_SENTENCES:], *answer.by_set]:
        blocks.append(Words(more))
    return PageSection("answer", "Head against head", lead, blocks)


def _accuracy(study: Records) -> PageSection:
    drawn = figures.distributions(study)
    lead = (
        "Every dot is a run. The bar is the head's mean, the line its 95 % interval over what the runs share, the "
        f"dashed line {before_simclr(first_run(study.results))}, where probed."
    )
    if not _same_cells(study):
        lead += (
            " Heads were not all run with the same sizes, activations and seeds: compare them by matched runs, above."
        )
    return PageSection("accuracy", "Accuracy", lead, [FigureGrid(drawn)] if drawn else [])


def _same_cells(study: Records) -> bool:
    """Whether the means of the heads are over the same settings."""
    judged = study.runs[study.runs["accuracy"].notna()]
    cell = ["hidden_dim", "output_dim", "activation", "normalized", "seed"]
    for _, on_set in judged.groupby("dataset", observed=True):
        if len({frozenset(map(tuple, part[cell].to_numpy())) for _, part in on_set.groupby("head", observed=True)}) > 1:
            return False
    return True


def _side_by_side(study: Records, answer: Answer) -> PageSection:
    """A few runs in one view: accuracy, every probe, and the difference."""
    judged = {run: study.results[run] for run in study.runs["run"] if study.results[run].get("probes")}
    names = dict(zip(study.runs["run"], study.runs["head"].astype(str), strict=True))
    by_probe, before = probing.probes(judged, names), before_simclr(first_run(study.results))
    drawn = [*figures.distributions(study), *by_probe, *figures.forest(study, answer.comparisons)]
    lead = (
        f"First, accuracy by {PROBES.shown(study.probe)}, with the 95 % interval over test pictures "
        f"and {before} as a dashed line. Each other probe judges the same frozen backbones in its own way; what SimCLR "
        f"added is the distance to {before}."
    )
    blocks: list[Block] = [FigureGrid(drawn)] if drawn else []
    return PageSection("answer", "Head against head", lead, [*blocks, *(probe_grid(f.data) for f in by_probe)])


def _tables(layouts: Sequence[TableLayout], peaks: Headline | None) -> PageSection:
    filled = [layout for layout in layouts if any(rows for _, rows in layout.bodies)]
    lead = "The paper's Tables 2 to 6 from these runs: ae is the frozen autoencoder head, mlp the trainable random one."
    if peaks is not None:
        lead += (
            f" The best ae head lies {points(peaks.mean)} points above the best mlp head"
            + (f" on average, {points(peaks.largest)} at most ({peaks.largest_set})" if peaks.sets > 1 else "")
            + (f"; the paper prints {peaks.printed_mean} and {peaks.printed_largest}" if peaks.printed_mean else "")
            + ". Peaks are the largest of many runs, so they flatter the head with more runs or more spread."
        )
    return PageSection("tables", "The paper's tables", lead, [PaperTables(filled)] if filled else [])


def _factors(study: Records) -> PageSection | None:
    if len(study.runs) <= FEW_RUNS:
        return None
    mains, pairs = effects.main_effects(study), effects.interactions(study)
    blocks: list[Block] = [FigureGrid(f) for f in (mains, pairs) if f]
    lead = (
        "Points above or below the mean of the data set, averaged over the runs with that setting: first each factor, "
        "by head with 95 % intervals; then every two factors together."
    )
    return PageSection("factors", "What each setting does", lead, blocks)


def _cost(study: Records) -> PageSection | None:
    if len(study.runs) <= FEW_RUNS or study.runs["accuracy"].notna().sum() < 2:
        return None
    drawn = effects.costs(study)
    lead = "Accuracy against what it costs. Runs on the line are not beaten by any that costs as much or less."
    return PageSection("cost", "Accuracy against cost", lead, [FigureGrid(drawn)] if drawn else [])


MOST_COMPARISONS = 400
"""In the page; comparisons.csv has all."""


def all_comparisons(comparisons: Sequence[Comparison]) -> PageSection | None:
    """A table of every comparison with everything that was computed for it; nothing for one.

    Columns that say the same in every row are left out, and of very many comparisons those of single data sets.
    """
    if len(comparisons) < 2:
        return None
    columns = [
        Column("metric", filter=True),
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
    shown, more = sorted(comparisons, key=lambda c: c.pairing.dataset is not None)[:MOST_COMPARISONS], ""
    if len(shown) < len(comparisons):
        more = f" The table has {len(shown):,} of {len(comparisons):,} comparisons, comparisons.csv all."
    rows = [_comparison_row(c) for c in (shown if more else comparisons)]
    told = {"metric", "within", "data set"}
    kept = [i for i, c in enumerate(columns) if c.name not in told or len({row[i] for row in rows}) > 1]
    return PageSection(
        "comparisons",
        "All comparisons",
        "The interval and p-value over clusters decide; p is corrected within its family. The bootstrap intervals and "
        f"Wilcoxon's test treat pairs as independent, which they are not, and stand beside for comparison.{more}",
        [SortableTable("grid-comparisons", "", [columns[i] for i in kept], [[row[i] for i in kept] for row in rows])],
    )


def _comparison_row(c: Comparison) -> list[str]:
    p, test = c.pairing, c.decision.test
    return [
        c.measure.name,
        p.said(p.a),
        p.said(p.b),
        p.said(p.within) if p.within else "heads",
        p.dataset or "all",
        c.measure.text(test.mean),
        _interval(test.interval, c.measure),
        _p(c.decision.adjusted),
        str(c.pairs),
        str(c.wins),
        str(c.losses),
        c.measure.text(c.median),
        _interval(c.mean_interval, c.measure),
        _interval(c.median_interval, c.measure),
        _p(c.wilcoxon),
        c.clusters,
    ]


def _interval(bounds: tuple[float, float], measure: Measure) -> str:
    return f"{measure.text(bounds[0])} to {measure.text(bounds[1])}" if not isnan(bounds[0]) else "–"


def _p(value: float) -> str:
    return "–" if isnan(value) else f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"


def _runs(study: Records) -> PageSection:
    blocks: list[Block] = [] if study.autoencoders_alone else [_run_table(study)]
    if len(study.autoencoders):
        blocks.append(_autoencoders(study))
    if study.failed:
        blocks.append(
            SortableTable(
                "grid-failed", "Failed runs", [Column("run"), Column("reason")], [list(pair) for pair in study.failed]
            )
        )
    return PageSection("runs", "All runs", "Sort by a column's name; filter by any word.", blocks)


def _run_table(study: Records) -> SortableTable:
    before = f"{as_it_was(first_run(study.results))}, %"
    columns = [
        Column("data set", filter=True),
        Column("head", filter=True),
        Column("accuracy, %", numeric=True),
        Column("95 % interval"),
        Column(before, numeric=True),
        Column("activation", filter=True),
        Column("dim(g)", numeric=True, filter=True),
        Column("dim(z)", numeric=True, filter=True),
        Column("Z-score", filter=True),
        Column("seed", numeric=True),
        Column("val. loss", numeric=True),
        Column("minutes", numeric=True),
        Column("run"),
    ]
    kept = [i for i, column in enumerate(columns) if column.name != before or study.runs["untrained"].notna().any()]
    rows = [[row[i] for i in kept] for row in (_run_row(study, run) for run in study.runs.itertuples())]
    return SortableTable("grid-runs", "", [columns[i] for i in kept], rows)


def _run_row(study: Records, run: Any) -> list[str | Link]:
    page = study.folder(run.run).report
    href = quote(page.relative_to(study.path).as_posix()) if page.exists() else ""
    return [
        str(run.dataset),
        name_of_head(str(run.head)),
        percent(run.accuracy),
        f"{percent(run.low)} to {percent(run.high)}" if not isnan(run.low) else "–",
        percent(run.untrained),
        str(run.activation),
        str(run.hidden_dim),
        str(run.output_dim),
        "yes" if run.normalized else "no",
        str(run.seed),
        f"{run.val_loss:.3f}" if not isnan(run.val_loss) else "–",
        f"{run.seconds / 60:.1f}" if not isnan(run.seconds) else "–",
        Link(run.run, href) if href else run.run,
    ]


def _autoencoders(study: Records) -> SortableTable:
    """A row an autoencoder."""
    columns = [
        Column("autoencoder"),
        Column("data set", filter=True),
        Column("kind", filter=True),
        Column("dim(g)", numeric=True),
        Column("test MSE", numeric=True),
        Column("best epoch", numeric=True),
        Column("minutes", numeric=True),
    ]
    rows = [
        [
            a.run,
            str(a.dataset),
            a.kind,
            str(a.hidden_dim),
            f"{a.test_mse:.5f}" if not isnan(a.test_mse) else "–",
            f"{a.best_epoch:.0f}" if not isnan(a.best_epoch) else "–",
            f"{a.seconds / 60:.1f}" if not isnan(a.seconds) else "–",
        ]
        for a in study.autoencoders.astype({"test_mse": float, "best_epoch": float, "seconds": float}).itertuples()
    ]
    return SortableTable("grid-autoencoders", "Autoencoders", columns, rows)


def _method(study: Records) -> PageSection | None:
    if study.autoencoders_alone:
        return None
    probe = PROBES.shown(study.probe)
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
    return PageSection("method", "How this was computed", "", [Words(sentences)])
