"""What a finished run or study says on the terminal: one table, untrained beside trained, and one plain sentence."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from headstart.records.folder import RunFolder, printable, read_json

SHOWN = ("few_shot_1", "few_shot_5", "knn", "linear", "linear_1pct", "linear_10pct", "paper")


def print_run(path: str | Path, console: Console | None = None) -> None:
    """One run: every probe before and after SimCLR, with its 95 % interval."""
    folder = RunFolder(path)
    result = folder.read_result()
    console = console or Console(highlight=False)
    columns = [("untrained", result["untrained"]), (_head_name(result["head"]), result["probes"])]
    if result["probes"]:
        console.print(_table(columns))
        seconds = sum(result["seconds"].values())
        console.print(
            f"{printable(result['data']['name'])}: {result['data']['train']:,} training pictures, {seconds:.0f} s",
            markup=False,
        )
    elif result["stage"] == "autoencoder" and result["autoencoder"]:
        console.print(f"autoencoder: test MSE {result['autoencoder']['test_mse']:.5f}")
    elif result["stage"] == "probe":
        console.print("no probes: the pictures have no labels; see the report for what the representation looks like")
    console.print(f"report: {folder.report}", markup=False, soft_wrap=True)


def print_evaluation(path: str | Path, console: Console | None = None) -> None:
    """What `headstart evaluate` wrote: each backbone's probes side by side."""
    found = read_json(path)
    console = console or Console(highlight=False)
    console.print(_table([(name, column["probes"]) for name, column in found["backbones"].items()]))
    for name, reason in found["left_out"].items():
        console.print(f"{printable(name)} left out: {printable(reason)}", markup=False)
    console.print(f"written to {path}", markup=False, soft_wrap=True)


def print_neighbours(found: list[tuple[str, float]], sheet: Path | None) -> None:
    """The nearest pictures, most similar first."""
    console = Console(highlight=False)
    table = Table("similarity", "picture")
    for name, similarity in found:
        table.add_row(f"{similarity:.4f}", Text(printable(name)))
    console.print(table)
    if sheet is not None:
        console.print(f"contact sheet: {sheet}", markup=False, soft_wrap=True)


def print_selection(found: Any, out: Path) -> None:
    """How much `headstart select` found, and where the lists and sheets are."""
    console = Console(highlight=False)
    console.print(f"{len(found.duplicates):,} near-duplicates, {len(found.outliers):,} outliers, label these next:")
    for name in found.label_next:
        console.print(f"  {printable(name)}", markup=False, soft_wrap=True)
    console.print(f"lists and contact sheets: {out}", markup=False, soft_wrap=True)


def print_finetuned(found: Any) -> None:
    """A classifier beside the same network that never saw SimCLR."""
    table = Table("start", "test accuracy (95 % interval)", "pictures")
    for row in found.rows:
        low, high = row.ci95
        table.add_row(
            row.start,
            f"{100 * row.accuracy:.1f} ({100 * low:.1f} to {100 * high:.1f})",
            f"{row.correct} of {row.n_test}",
        )
    console = Console(highlight=False)
    console.print(f"trained on {found.n_labels:,} labelled pictures")
    console.print(table)
    console.print(f"classifier: {found.folder}", markup=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Plain JSON on the standard output, for other programs."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_comparison(runs: dict[str, dict[str, Any]], console: Console | None = None) -> None:
    """Several finished runs of one data set beside the untrained backbone; `runs` maps names to result.json."""
    console = console or Console(highlight=False)
    first = next(iter(runs.values()))
    columns = [("untrained", first["untrained"])] + [(_head_name(r["head"]), r["probes"]) for r in runs.values()]
    table = _table(columns)
    table.add_section()
    seconds = [f"{sum(r['seconds'].values()):.0f}" for r in runs.values()]
    table.add_row("seconds", "", *seconds)
    console.print(table)


def _table(columns: list[tuple[str, dict[str, Any]]]) -> Table:
    table = Table(title="accuracy in % (95 % interval)", title_justify="left")
    table.add_column("probe")
    for name, _ in columns:
        table.add_column(Text(printable(name)), justify="right")
    for probe in SHOWN:
        if any(probe in probes for _, probes in columns):
            table.add_row(probe, *(_cell(probes.get(probe)) for _, probes in columns))
    return table


def _cell(probe: dict[str, Any] | None) -> str:
    if probe is None:
        return "-"
    low, high = probe["ci95"]
    return f"{100 * probe['accuracy']:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _head_name(head: dict[str, Any]) -> str:
    return f"{head['init']}, {'frozen' if head['frozen'] else 'trainable'}"
