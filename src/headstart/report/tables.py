"""The paper's Tables 2 to 6 from any study, tidy and laid out, with the printed values beside ours (paper section 4).

Comes in: `Records.runs`. Goes out: per table a tidy frame of one number a row, and a `TableLayout` that the page,
Markdown and LaTeX share. Accuracies in percent; standard deviation with n - 1, midspread from linearly interpolated
quartiles (docs/the-paper.md). A single run has no spread: its standard deviation is missing, not zero.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pandas as pd

from headstart.records.names import ACTIVATIONS
from headstart.records.text import data_cell
from headstart.report import printed
from headstart.report.answer import Answer
from headstart.report.comparisons import signed

COLUMNS = (
    "dataset",
    "projector",
    "normalized",
    "row",
    "value",
    "printed",
    "hidden_dim",
    "activation",
    "output_dim",
)

STATISTICS: dict[str, Callable[[pd.Series], float]] = {
    "minimum": lambda x: x.min(),
    "maximum": lambda x: x.max(),
    "average": lambda x: x.mean(),
    "range": lambda x: x.max() - x.min(),
    "midspread": lambda x: x.quantile(0.75) - x.quantile(0.25),
    "std. dev.": lambda x: x.std(),
}
"""Table 3's rows."""

CAPTIONS = {
    2: "Peak test accuracies out of all runs, and the settings that reached them",
    3: "Distribution of test accuracies with and without Z-score normalization",
    4: "Average test accuracies by projector width: dim(g) above, dim(z) below",
    5: "Average test accuracies by projector activation",
    6: "Frozen and trainable autoencoder embeddings, sigmoid, without normalization",
}


def tidy(runs: pd.DataFrame) -> dict[int, pd.DataFrame]:
    """Tables 2 to 6, one number a row, with the columns `COLUMNS`; empty where the study does not cover a table."""
    runs = runs[runs["accuracy"].notna()].assign(percent=lambda r: 100 * r["accuracy"])
    build = {2: _peaks, 3: _distributions, 4: _widths, 5: _activations, 6: _freezing}
    return {table: _with_printed(table, make(runs)) for table, make in build.items()}


def _groups(runs: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    for (dataset, projector), group in runs.groupby(["dataset", "projector"], observed=True):
        yield str(dataset), str(projector), group


def _peaks(runs: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for dataset, projector, group in _groups(runs):
        winners = group[group["percent"] == group["percent"].max()]
        for _, run in winners.sort_values(["output_dim", "hidden_dim"], ascending=[False, True]).iterrows():
            yield {
                "dataset": dataset,
                "projector": projector,
                "normalized": run["normalized"],
                "row": "max",
                "value": run["percent"],
                "hidden_dim": run["hidden_dim"],
                "activation": run["activation"],
                "output_dim": run["output_dim"],
            }


def _distributions(runs: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for normalized in (True, False):
        for dataset, projector, group in _groups(runs[runs["normalized"] == normalized]):
            for row, statistic in STATISTICS.items():
                yield _number(dataset, projector, normalized, row, statistic(group["percent"]))


def _widths(runs: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for dataset, projector, group in _groups(runs):
        for factor in ("hidden_dim", "output_dim"):
            for size, part in group.groupby(factor):
                yield _number(dataset, projector, None, f"{factor}={size}", part["percent"].mean())


def _activations(runs: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for dataset, projector, group in _groups(runs):
        for activation, part in group.groupby("activation", observed=True):
            yield _number(dataset, projector, None, str(activation), part["percent"].mean())


def _freezing(runs: pd.DataFrame) -> Iterator[dict[str, Any]]:
    settings = (runs["init"] == "autoencoder") & (runs["activation"] == "Sigmoid") & ~runs["normalized"]
    chosen = runs[settings]
    for dataset, both in chosen.groupby("dataset", observed=True):
        if both["frozen"].nunique() < 2:
            continue
        for frozen in (True, False):
            part = both.loc[both["frozen"] == frozen, "percent"]
            name = "frozen" if frozen else "not frozen"
            yield _number(str(dataset), "ae", False, f"{name} max", part.max())
            yield _number(str(dataset), "ae", False, f"{name} avg", part.mean())


def _number(dataset: str, projector: str, normalized: bool | None, row: str, value: float) -> dict[str, Any]:
    return {"dataset": dataset, "projector": projector, "normalized": normalized, "row": row, "value": value}


def as_csv(frame: pd.DataFrame) -> str:
    """CSV whose text a spreadsheet shows instead of running."""
    return frame.map(lambda cell: data_cell(cell) if isinstance(cell, str) else cell).to_csv(index=False)


@cache
def _printed() -> dict[printed.Key, float]:
    return printed.percentages()


def _with_printed(table: int, rows: Iterator[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(list(rows), columns=list(COLUMNS)).astype({"hidden_dim": "Int64", "output_dim": "Int64"})
    frame["printed"] = [
        _printed().get((table, r.dataset, r.projector, r.row, None if table == 2 else r.normalized))
        for r in frame.itertuples()
    ]
    frame["printed"] = frame["printed"].astype(float)
    return frame


@dataclass(frozen=True)
class Headline:
    """Table 2 in a sentence: how far the frozen autoencoder's peaks lie above the trainable random head's.

    In points; `printed_*` as the paper's section 4 states them, where all of its sets are covered.
    """

    mean: float
    largest: float
    largest_set: str
    sets: int
    printed_mean: float | None
    printed_largest: float | None


def headline(peaks: pd.DataFrame) -> Headline | None:
    """Table 2's headline from its tidy frame; None where no set has both of the paper's heads."""
    wide = peaks.drop_duplicates(["dataset", "projector"]).pivot(index="dataset", columns="projector", values="value")
    if not {"ae", "mlp"} <= set(wide):
        return None
    differences = (wide["ae"] - wide["mlp"]).dropna()
    if differences.empty:
        return None
    covered = set(differences.index) == set(printed.SETS)
    return Headline(
        mean=float(differences.mean()),
        largest=float(differences.max()),
        largest_set=str(differences.idxmax()),
        sets=len(differences),
        printed_mean=printed.MEAN_GAIN if covered else None,
        printed_largest=printed.LARGEST_GAIN if covered else None,
    )


# ------------------------------------------------------------------------------------------------------------ layout


@dataclass(frozen=True)
class TableCell:
    """A number in percent beside the printed one, or words."""

    text: str
    printed: str = ""
    difference: float | None = None

    @property
    def agrees(self) -> bool:
        """Whether ours rounds to the printed value."""
        return self.text == self.printed

    @property
    def signed(self) -> str:
        """How far ours lies from the printed value."""
        return "" if self.difference is None else signed(self.difference)


@dataclass(frozen=True)
class TableLayout:
    """A table as people read it: groups of columns, groups of rows."""

    number: int
    caption: str
    heads: list[tuple[str, list[str]]]
    """Column groups: data set (or what Table 2 groups), and the columns below it."""
    bodies: list[tuple[str, list[tuple[str, list[TableCell]]]]]
    """Row groups: a title (may be empty), and rows of a label and cells."""
    has_printed: bool

    def starts(self, column: int) -> bool:
        """Whether a column is the first of its group."""
        sizes = [len(names) for _, names in self.heads]
        return column in {sum(sizes[:i]) for i in range(len(sizes))}


def layout(table: int, frame: pd.DataFrame) -> TableLayout:
    """The paper's arrangement of a tidy table, for any number of sets and projectors."""
    arrange = _arrange_peaks if table == 2 else _arrange_wide
    heads, bodies = arrange(table, frame)
    return TableLayout(table, CAPTIONS[table], heads, bodies, has_printed=bool(frame["printed"].notna().any()))


def _cell(value: float | None, paper: float | None) -> TableCell:
    if value is None or pd.isna(value):
        return TableCell("–")
    text = f"{value:.1f}"
    if paper is None or pd.isna(paper):
        return TableCell(text)
    return TableCell(text, f"{paper:.1f}", round(float(text) - paper, 1))


def _arrange_wide(table: int, frame: pd.DataFrame) -> tuple[list[Any], list[Any]]:
    if table == 6:
        frame = frame.assign(projector=frame["row"].str[-3:] + ".", row=frame["row"].str[:-4])
    columns = list(dict.fromkeys(zip(frame["dataset"], frame["projector"], strict=True)))
    sets = list(dict.fromkeys(dataset for dataset, _ in columns))
    heads = [(s, [projector for dataset, projector in columns if dataset == s]) for s in sets]
    columns = [(s, projector) for s, projectors in heads for projector in projectors]
    found = {(r.dataset, r.projector, r.normalized, r.row): _cell(r.value, r.printed) for r in frame.itertuples()}
    bodies = []
    for title, normalized, rows in _row_groups(table, frame):
        body = [(r, [found.get((s, p, normalized, r), TableCell("–")) for s, p in columns]) for r in rows]
        bodies.append((title, body))
    return heads, bodies


def _row_groups(table: int, frame: pd.DataFrame) -> Iterator[tuple[str, bool | None, list[str]]]:
    present = list(dict.fromkeys(frame["row"]))
    if table == 3:
        for normalized, title in ((True, "with Z-score normalization"), (False, "without")):
            if (frame["normalized"] == normalized).any():
                yield title, normalized, list(STATISTICS)
    elif table == 4:
        for factor, title in (("hidden_dim", "dim(g)"), ("output_dim", "dim(z)")):
            yield title, None, sorted((r for r in present if r.startswith(factor)), key=lambda r: int(r.split("=")[1]))
    elif table == 5:
        order = [activation.shown for activation in ACTIVATIONS.values()]
        yield "", None, sorted(present, key=lambda r: order.index(r) if r in order else len(order))
    elif present:
        yield "", False, ["frozen", "not frozen"]


def _arrange_peaks(table: int, frame: pd.DataFrame) -> tuple[list[Any], list[Any]]:
    heads = [("", ["projector", "dim(g)", "activation", "dim(z)", "normalized", "Acc@1"])]
    bodies = []
    for dataset, winners in frame.groupby("dataset", sort=False, observed=True):
        rows = []
        for projector, ties in winners.groupby("projector", sort=False, observed=True):
            paper = printed.peak_settings().get((str(dataset), str(projector)))
            found = [
                {
                    "hidden_dim": r.hidden_dim,
                    "activation": r.activation,
                    "output_dim": r.output_dim,
                    "normalized": bool(r.normalized),
                }
                for r in ties.itertuples()
            ]
            beside = paper if paper and paper not in found else None  # one of the ties is the printed one
            for ours, r in zip(found, ties.itertuples(), strict=True):
                settings = [_setting(ours[key], beside and beside[key]) for key in ours]
                rows.append((str(projector), [*settings, _cell(r.value, r.printed)]))
        bodies.append((str(dataset), rows))
    return heads, bodies


def _setting(value: object, paper: object) -> TableCell:
    return TableCell(str(value)) if paper is None else TableCell(str(value), str(paper))


def markdown(table: TableLayout) -> str:
    """GitHub Markdown; a printed value that differs stands in brackets."""
    flat = [f"{group} {column}".strip() for group, columns in table.heads for column in columns]
    flat = ["dataset" if table.number == 2 else "", *flat]
    lines = [f"**Table {table.number}.** {table.caption}.", "", _pipe(flat), _pipe(["---"] * len(flat))]
    for title, rows in table.bodies:
        for label, cells in rows:
            names = [title, label] if table.number == 2 else [", ".join(filter(None, (title, label)))]
            lines.append(_pipe([*names, *map(_plain, cells)]))
    return "\n".join(lines) + "\n"


def sentences(answer: Answer) -> str:
    """The answer as Markdown: where SimCLR lost, the headline, what else was compared, what the data cannot say."""
    parts = [f"**{_escape(said)}**" for said in (answer.worse, answer.headline) if said]
    for said in (answer.worse_too, answer.sentences, answer.by_set, answer.caveats):
        parts += ["\n".join(f"- {_escape(sentence)}" for sentence in said)] if said else []
    return "\n\n".join(parts) + "\n"


def _plain(cell: TableCell) -> str:
    return f"{cell.text} ({cell.printed})" if cell.printed and not cell.agrees else cell.text


def _pipe(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_escape(c) for c in cells) + " |"


def _escape(text: str) -> str:
    """Text that Markdown shows: names of folders are data, and must become neither markup nor a link."""
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{c}" if c in "\\`*_[]!|" else c for c in text)


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "−": "$-$",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}


def _tex(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in text)


def latex(table: TableLayout) -> str:
    """A booktabs table; a printed value that differs stands in brackets."""
    first = 1 if table.number != 2 else 2
    columns = sum(len(names) for _, names in table.heads)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_tex(table.caption)}.}}",
        rf"\begin{{tabular}}{{{'l' * first}{'r' * (columns - first + 1)}}}",
        r"\toprule",
    ]
    if table.number == 2:
        lines.append(" & ".join(["dataset", *(_tex(c) for c in table.heads[0][1])]) + r" \\")
    else:
        groups = [rf"\multicolumn{{{len(names)}}}{{c}}{{{_tex(group)}}}" for group, names in table.heads]
        lines.append(" & ".join(["", *groups]) + r" \\")
        lines.append(" & ".join(["", *(_tex(c) for _, names in table.heads for c in names)]) + r" \\")
    for title, rows in table.bodies:
        lines.append(r"\midrule")
        if title and table.number != 2:
            lines.append(rf"\multicolumn{{{columns + 1}}}{{l}}{{\emph{{{_tex(title)}}}}} \\")
        for label, cells in rows:
            start = [title, label] if table.number == 2 else [label]
            lines.append(" & ".join(_tex(x) for x in [*start, *(_plain(c) for c in cells)]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"
