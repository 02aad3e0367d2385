"""What a finished run or study says on the terminal: one table, untrained beside trained, and one plain sentence."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from headstart.records.files import read_json
from headstart.records.folder import RunFolder
from headstart.records.names import PROBES
from headstart.records.text import printable


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
        classes = result["data"]["classes"]
        why = (
            f"all labels are of one class, {printable(classes[0])}"
            if len(classes) == 1
            else "the pictures have no labels"
        )
        console.print(f"no probes: {why}; see the report for what the representation looks like", markup=False)
    console.print(f"report: {folder.report}", markup=False, soft_wrap=True)


def print_evaluation(path: str | Path, console: Console | None = None) -> None:
    """What `headstart evaluate` wrote: each backbone's probes side by side."""
    found = read_json(path)
    console = console or Console(highlight=False)
    console.print(_table([(name, column["probes"]) for name, column in found["backbones"].items()]))
    for name, reason in found["left_out"].items():
        console.print(f"{printable(name)} left out: {printable(reason)}", markup=False)
    console.print(f"written to {path}", markup=False, soft_wrap=True)


def print_choices(choices: list[tuple[str, str]], as_json: bool) -> None:
    """What can be named, a line each."""
    if as_json:
        print_json([{"name": name, "help": line} for name, line in choices])
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, line in choices:
        table.add_row(name, Text(line))
    Console(highlight=False).print(table)


def print_embedded(found: Any, out: Path) -> None:
    """How much of a file is new, and what it is good for."""
    console = Console(highlight=False)
    gone = f", {found.gone:,} gone" if found.gone else ""
    console.print(
        f"{out}: {found.pictures:,} pictures, {found.new:,} embedded now{gone}; next: headstart search {out} --query "
        f"PICTURE, or headstart select {out} -n 50",
        markup=False,
        soft_wrap=True,
    )


def print_neighbours(found: list[Any], sheet: Path | None) -> None:
    """The nearest pictures of each query, most similar first."""
    console = Console(highlight=False)
    for one in found:
        table = Table(title=Text(f"most like {printable(one.query)}"), title_justify="left")
        table.add_column("similarity")
        table.add_column("picture")
        for match in one.found:
            table.add_row(f"{match.similarity:.4f}", Text(printable(match.name)))
        console.print(table)
    if sheet is not None:
        console.print(f"contact sheet: {sheet}", markup=False, soft_wrap=True)
    else:
        console.print(
            "to look at them, add --out SHEET.png; similarities are to be compared with each other, not with 1"
        )


def print_selection(found: Any, out: Path) -> None:
    """How much `headstart select` found, where the lists and sheets are, and what to do with them."""
    console = Console(highlight=False)
    groups = max((group for _, group in found.clusters), default=0)
    if found.label_errors:
        console.print(f"{len(found.label_errors):,} labels for which another class is likelier: look at these first")
    console.print(
        f"{len(found.duplicates):,} near-duplicates, {len(found.outliers):,} outliers, {groups:,} clusters; label next:"
    )
    for name in found.label_next:
        console.print(f"  {printable(name)}", markup=False, soft_wrap=True)
    console.print(
        f"lists and contact sheets: {out}; next: fill a column `label` into {out / 'label-next.csv'} and give it to "
        "finetune as --data.labels",
        markup=False,
        soft_wrap=True,
    )


def print_finetuned(found: Any) -> None:
    """A classifier beside the same network that never saw SimCLR, and a plain sentence on what SimCLR was worth."""
    tested = "cross-validated" if found.folds else "test"
    table = Table("start", f"{tested} accuracy in % (95 % interval)", "right", "rate, layer decay")
    for row in found.rows:
        table.add_row(row.label, _cell(vars(row)), f"{row.correct} of {row.n_test}", f"{row.lr:g}, {row.layer_decay:g}")
    console = Console(highlight=False)
    how = f"in {found.folds} folds, then on all of them" if found.folds else f"stopped by {found.n_val:,} others"
    console.print(f"trained on {found.n_labels:,} labelled pictures, {how}")
    console.print(table)
    first, *others = found.rows
    for row in others:
        apart = first.ci95[0] > row.ci95[1] or row.ci95[0] > first.ci95[1]
        better = "better" if first.accuracy > row.accuracy else "worse"
        sentence = f"{better} after SimCLR" if apart else "no difference that these pictures can show"
        console.print(f"{row.label}: {100 * (first.accuracy - row.accuracy):+.1f} points, {sentence}")
    console.print(f"classifier: {found.folder}; next: headstart predict {found.folder} PICTURES --out predictions.csv")


def print_predicted(found: Any, out: Path) -> None:
    """How many pictures of which class, and how many the classifier knows nothing about."""
    console = Console(highlight=False)
    most = ", ".join(f"{printable(name)} {count:,}" for name, count in list(found.classes.items())[:5])
    console.print(f"{found.pictures:,} pictures: {most}{', ...' if len(found.classes) > 5 else ''}", markup=False)
    if found.unlike:
        console.print(
            f"{found.unlike:,} are unlike everything the classifier was trained on (column unlike): look at them"
        )
    console.print(f"written to {out}", markup=False, soft_wrap=True)


def print_exported(source: Any, out: Path) -> None:
    """Where a file is, that it was compared, and the model card's frank sentence."""
    console = Console(highlight=False)
    told = {} if isinstance(source, Path) else source.result
    worse = no_better(told) if told else []
    if worse:
        console.print(f"By {', '.join(worse)} this backbone is no better than before SimCLR.")
    card = "" if isinstance(source, Path) else f"; the model card: {source.folder.card}"
    console.print(
        f"{out}: read back, it gives the same; how to load it stands in its metadata{card}",
        markup=False,
        soft_wrap=True,
    )


def no_better(result: dict[str, Any]) -> list[str]:
    """The probes by which the backbone is no better than it was before SimCLR."""
    before = result["untrained"]
    return [
        name
        for name, probe in result["probes"].items()
        if name in before and probe["accuracy"] <= before[name]["accuracy"]
    ]


def print_json(value: Any) -> None:
    """Plain JSON on the standard output, for other programs."""
    print(json.dumps(value, indent=2))


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
    found = {probe for _, probes in columns for probe in probes}
    for probe in sorted(found, key=PROBES.place):
        table.add_row(probe, *(_cell(probes.get(probe)) for _, probes in columns))
    return table


def _cell(probe: dict[str, Any] | None) -> str:
    if probe is None:
        return "-"
    low, high = probe["ci95"]
    return f"{100 * probe['accuracy']:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _head_name(head: dict[str, Any]) -> str:
    return f"{head['init']}, {'frozen' if head['frozen'] else 'trainable'}"
