"""What a comparison of anybody's runs leaves on disk: one page, its figures, its tables.

Comes in: `Compared`. Goes out: OUT/report.html, OUT/comparisons.csv, levels.csv, ranks.csv, answer.md, figures/*.svg.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from math import isnan
from pathlib import Path

import pandas as pd

from headstart.records.errors import InputError
from headstart.records.files import expanded
from headstart.records.folder import RunFolder
from headstart.records.outputs import check_own, check_results_folder, no_input
from headstart.records.text import number, visible
from headstart.records.together import write_together
from headstart.records.version import __version__
from headstart.report import html, tables
from headstart.report.compare import Compared
from headstart.report.comparisons import widest
from headstart.report.figures import Figure, capital, drawn_before, file_name, forest_panel
from headstart.report.html import Block, FigureGrid, Page, PageSection, Words
from headstart.report.ranking import Ranking
from headstart.report.study_page import all_comparisons
from headstart.report.svg import WIDTH, Drawing, Look, scale
from headstart.report.words import listed

TABLES = ("comparisons", "levels", "ranks")
MOST_ROWS = 24
"""Comparisons, or levels, in one figure."""
MOST_PANELS = 12
MOST_CAVEATS = 12
ROW = 40
"""Height of a level's row in a figure."""
METHOD = (
    "Two rows are matched when they agree in every column that is matched on. Differences are averaged within what "
    "pairs share (a seed, a cluster), and a t interval over those means decides; where two kinds of sharing cross, the "
    "two-way clustered variance of Cameron, Gelbach and Miller (2011) is used. p-values are corrected by Holm's method "
    "over all comparisons and metrics, for each data set and for the pooled sets. Fewer than five clusters are too few."
)

RANKS = (
    "Ranks across data sets are tested by Friedman's test in the form of Iman and Davenport (1980), two levels by "
    "Wilcoxon's; mean ranks differ by Nemenyi's critical difference, or, against a baseline, by Holm's correction "
    "(Demsar 2006). A level's number on a data set is the mean of its rows there."
)


def check_place(out: str | Path, given: Iterable[Path]) -> None:
    """Raise InputError where files cannot be written into `out`, or would replace what was `given`, or a report."""
    folder = expanded(out)
    for written in (*(f"{name}.csv" for name in TABLES), "answer.md", "report.html"):
        no_input(folder / written, given)
    if any(path.exists() for path in (folder / "study.yaml", folder / "runs", RunFolder(folder).result)):
        raise InputError(f"--out {out} is a run's or a study's folder, and keeps its own report; give another folder")
    check_results_folder(out)
    check_own(folder / "report.html")


def write_comparison(found: Compared, out: str | Path) -> Path:
    """Write everything below `out` and return the page's path."""
    out = expanded(out)
    page = _page(found)
    lines = [f"**{found.headline}**", *(f"- {said}" for said in (*found.sentences, *found.ranking, *found.caveats))]
    parts = zip(TABLES, (found.frame(), found.levels, found.ranks), strict=True)
    texts = {f"{name}.csv": tables.as_csv(table) for name, table in parts}
    texts |= {"answer.md": "\n".join([lines[0], "", *lines[1:]]) + "\n"}
    for figure in page.figures:
        texts |= figure.files()
    texts["report.html"] = html.render(page)
    write_together(out, "report", {name: visible(text) for name, text in texts.items()}, drawn_before(out))
    return out / "report.html"


def _page(found: Compared) -> Page:
    top = widest(found.comparisons)
    counts = Counter(c.measure.name for c in top)
    forests = [
        forest_panel(
            f"comparisons-{file_name(metric)}",
            f"Differences: {metric}",
            [(f"{c.pairing.said(c.pairing.a)} − {c.pairing.said(c.pairing.b)}", c) for c in group[:MOST_ROWS]],
        )
        for metric in counts
        if (group := [c for c in top if c.measure.name == metric])
    ]
    panels = list(found.levels.groupby(["metric", "data set"], sort=False))
    dots = [_dots(metric, str(place), part) for (metric, place), part in panels[:MOST_PANELS]]
    means = "Each level with its 95 % interval." + _rest("panels", MOST_PANELS, len(panels), "levels.csv")
    first: list[Block] = [FigureGrid(forests)] if forests else []
    sections = [
        PageSection(
            "answer",
            "Matched pairs",
            "Right of zero, what is named first is better; filled: it stands."
            + _rest("comparisons", MOST_ROWS, max([0, *counts.values()]), "comparisons.csv"),
            first,
        ),
        _ranks(found),
        PageSection("levels", "Means", means, [FigureGrid(dots)] if dots else []),
        all_comparisons(found.comparisons),
        PageSection(
            "method",
            "How this was computed",
            "",
            [Words([METHOD, *([RANKS] if found.rankings else []), found.columns])],
        ),
    ]
    return Page(
        title=_title(found),
        counts=[number(len(found.table), "row"), number(len(found.comparisons), "comparison")],
        headline=found.headline,
        support=found.sentences[:8],
        caveats=[*found.caveats[:MOST_CAVEATS], *_more(found.caveats)],
        sections=[section for section in sections if section is not None and section.blocks],
        footer=f"Made by Headstart {__version__}. This page is one file and loads nothing.",
    )


def _title(found: Compared) -> str:
    """`Method by accuracy and loss`."""
    if not found.comparisons:
        return "Comparison"
    metrics = list(dict.fromkeys(c.measure.name for c in found.comparisons))
    return capital(f"{found.comparisons[0].pairing.factor} by {listed(metrics)}")


def _rest(what: str, most: int, n: int, file: str) -> str:
    """Where the others are, of more than fit into a page."""
    return f" The first {most} of {n:,} {what} are drawn; {file} has all." if n > most else ""


def _more(caveats: Sequence[str]) -> list[str]:
    more = len(caveats) - MOST_CAVEATS
    return [f"What else is missing or open stands in answer.md ({number(more, 'sentence')})."] if more > 0 else []


def _ranks(found: Compared) -> PageSection | None:
    if not found.rankings:
        return None
    lead = "A level's rank among all, averaged over the data sets; 1 is best. " + (
        "Where two bars do not overlap, the ranks differ: each reaches half the critical difference to either side."
        if any(len(one.ranks) > 2 for one in found.rankings)
        else ""
    )
    drawn = [_ranked(one) for one in found.rankings]
    return PageSection("ranks", "Ranks across data sets", lead.strip(), [Words(found.ranking), FigureGrid(drawn)])


def _ranked(one: Ranking) -> Figure:
    """A level a row, best first: its mean rank as a dot, half the critical difference to each side as a line."""
    half = 0.0 if isnan(one.difference) else one.difference / 2
    axis = scale([1.0, len(one.ranks), *(one.ranks - half), *(one.ranks + half)], 8, WIDTH - 8)
    bottom = 8 + ROW * len(one.ranks)
    alt = f"Mean ranks, {one.metric}: " + "; ".join(f"{level} {rank:.2f}" for level, rank in one.ranks.items())
    drawing = Drawing(bottom + 40, alt)
    drawing.x_axis(axis, 8, bottom, f"mean rank over {one.sets} data sets")
    for i, (level, rank) in enumerate(one.ranks.items()):
        y = 8 + ROW * i
        drawing.text(0, y + 13, str(level))
        drawing.text(WIDTH, y + 13, f"{rank:.2f}", "small", "end")
        if half:
            drawing.line(axis(rank - half), y + 26, axis(rank + half), y + 26, "interval")
        drawing.mark(axis(rank), y + 26, Look("plain", "circle"), 4, f"{level}: {rank:.2f}")
    return Figure(f"ranks-{file_name(one.metric)}", f"Mean ranks: {one.metric}", drawing, one.table)


def _dots(metric: str, place: str, levels: pd.DataFrame) -> Figure:
    """A level a row: its mean as a dot, its interval as a line."""
    shown = levels.head(MOST_ROWS)
    axis = scale([*shown["mean"], *shown["low"].dropna(), *shown["high"].dropna()], 8, WIDTH - 8)
    bottom = 8 + ROW * len(shown)
    title = metric if place == "all" else f"{metric}, {place}"
    alt = f"{title}: " + "; ".join(f"{r.level} {r.mean:.4g}" for r in shown.itertuples())
    drawing = Drawing(bottom + 40, alt)
    drawing.x_axis(axis, 8, bottom, metric)
    for i, r in enumerate(shown.itertuples()):
        y = 8 + ROW * i
        drawing.text(0, y + 13, str(r.level))
        drawing.text(WIDTH, y + 13, f"{r.mean:.4g}, {number(r.rows, 'row')}", "small", "end")
        if not isnan(r.low):
            drawing.line(axis(r.low), y + 26, axis(r.high), y + 26, "interval")
        drawing.mark(axis(r.mean), y + 26, Look("plain", "circle"), 4, f"{r.level}: {r.mean:.4g}")
    return Figure(f"levels-{file_name(metric)}-{file_name(place)}", title, drawing, levels)
