"""What a finished run or study says on the terminal: one table, untrained beside trained, and one plain sentence."""

import functools
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar, cast

from rich.console import Console
from rich.table import Table
from rich.text import Text

from headstart.cli import bug
from headstart.engine.progress import Patient, one_line
from headstart.records.errors import HeadstartError
from headstart.records.files import read_json
from headstart.records.folder import RunFolder
from headstart.records.names import PROBES
from headstart.records.text import json_text, number, printable
from headstart.report.labels import same_labels
from headstart.report.unlabelled import SHAPE, shown, unlabelled_verdict
from headstart.report.verdict import KEPT_GIVEN, as_it_was, kept_given, no_better, verdict

Show = TypeVar("Show", bound=Callable[..., None])


def shows(show: Show) -> Show:
    """What is shown lies safely on disk: a fault in showing it is reported, and the command is done all the same."""

    @functools.wraps(show)
    def safely(*arguments: Any, **named: Any) -> None:
        try:
            show(*arguments, **named)
        except (HeadstartError, OSError):
            raise
        except Exception as error:
            bug.tell(error, show.__name__)

    return cast(Show, safely)


def tell(text: str, console: Console | None = None) -> None:
    """One line, on a terminal broken between words; names in it can neither hold markup nor steer the terminal."""
    one_line(console or Patient(highlight=False), text)


def done(what: str, then: str, console: Console | None = None) -> None:
    """The end of a command: what it did, and on a line of its own what to do next."""
    tell(what, console)
    suggest(then, console)


def suggest(then: str, console: Console | None = None) -> None:
    """What to do next: a sentence, or a command as it can be pasted, on one line however long it is."""
    (console or Patient(highlight=False)).print(printable(f"next: {then}"), markup=False, soft_wrap=True)


@shows
def print_run(path: str | Path, console: Console | None = None) -> None:
    """One run: every probe before and after SimCLR, with its 95 % interval, and what to do next."""
    folder = RunFolder(path)
    result = folder.read_result()
    console = console or Patient(highlight=False)
    if first := verdict(result):
        tell(first, console)
    if said := unlabelled_verdict(result):
        tell(said, console)
        console.print(_shapes(_columns(result, result["geometry"]["before"], result["geometry"])))
    if result["probes"]:
        console.print(_table([*_columns(result, result["untrained"], result["probes"]).items()]))
        seconds = sum(result["seconds"].values())
        console.print(
            f"{printable(result['data']['name'])}: {result['data']['train']:,} training pictures, {seconds:.0f} s",
            markup=False,
        )
    tell(_found(result), console)
    done(f"report: {folder.report}", _next(folder, result), console)


def _columns(result: dict[str, Any], before: dict[str, Any], after: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What was found before and after SimCLR, by what the columns are called: one where both are one network."""
    if kept_given(result):
        return {KEPT_GIVEN: after}
    return {as_it_was(result): before, _head_name(result["head"]): after}


def _found(result: dict[str, Any]) -> str:
    """What a run found, in a frank sentence."""
    if result["stage"] != "probe":
        mse = (result["autoencoder"] or {}).get("test_mse")
        return f"autoencoder: test MSE {mse:.5f}" if mse is not None else f"stopped after {result['stage']}, as asked"
    if not result["probes"]:
        classes = result["data"]["classes"]
        why = f"all labels are of one class, {classes[0]}" if len(classes) == 1 else "the pictures have no labels"
        return f"no probes: {why}"
    if kept_given(result):
        return "the given weights were kept: SimCLR has no part in these figures"
    worse = no_better(result["untrained"], result["probes"])
    if not worse:
        return "every probe is higher than before SimCLR (compare the intervals)"
    return f"by {', '.join(worse)} this backbone is no better than before SimCLR"


def _next(folder: RunFolder, result: dict[str, Any]) -> str:
    if result["stage"] != "probe":
        return "the same command without --stages goes on from here"
    run = quote(str(folder.path))
    if result["probes"]:
        return f"headstart finetune {run} --out classifier"
    return _look_through(run, sum(result["data"][part] for part in ("train", "val", "test")))


def _look_through(source: str, pictures: int) -> str:
    """The command that looks through so many pictures, of a run or a file of embeddings (quoted)."""
    return f"headstart select {source} -n {max(1, min(20, pictures // 2))}"


@shows
def print_evaluation(path: str | Path, console: Console | None = None) -> None:
    """What `headstart evaluate` wrote: each backbone's probes side by side."""
    found = read_json(path)
    console = console or Patient(highlight=False)
    if any(column["probes"] for column in found["backbones"].values()):
        console.print(_table([(name, column["probes"]) for name, column in found["backbones"].items()]))
    console.print(_shapes({name: column["geometry"] for name, column in found["backbones"].items()}))
    for name, reason in found["left_out"].items():
        tell(f"{name} left out: {reason}", console)
    (first, judged), *others = found["backbones"].items()
    for name, column in others:
        if worse := no_better(column["probes"], judged["probes"]):
            tell(f"by {', '.join(worse)} {first} is no better than {name}", console)
    done(
        f"{len(found['backbones'])} backbones are judged in {path}",
        "other pictures (--data), or another backbone on the same ones",
        console,
    )


@shows
def print_choices(choices: list[tuple[str, str]], as_json: bool) -> None:
    """What can be named, a line each."""
    if as_json:
        print_json([{"name": name, "help": line} for name, line in choices])
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, line in choices:
        table.add_row(name, Text(line))
    Patient(highlight=False).print(table)
    done(
        f"{number(len(choices), 'name')}; the help of pretrain tells which option takes one",
        "headstart pretrain --help",
    )


@shows
def print_embedded(found: Any, out: Path) -> None:
    """How much of a file is new, and what it is good for."""
    gone = f", {found.gone:,} gone" if found.gone else ""
    said = f"{out}: {number(found.pictures, 'picture')}, {found.new:,} embedded now{gone}"
    done(said, _look_through(quote(str(out)), found.pictures))


MOST_COMPARED = 40
"""Comparisons that a screen shows."""


@shows
def print_compared(found: Any, page: Path | None) -> None:
    """What a comparison shows: sentences first, then the table, the ranks, then what the data cannot say.

    Positive differences are better whatever the metric; p is corrected by Holm's method. Of many comparisons the first
    are shown, pooled ones before those of single data sets.
    """
    console = Patient(highlight=False)
    for sentence in (found.headline, *found.sentences)[:MOST_COMPARED]:
        tell(sentence, console)
    several = len({c.measure.name for c in found.comparisons}) > 1
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in (*(["metric"] if several else []), "data set", "difference"):
        table.add_column(name, overflow="fold")
    for name in ("mean", "95 % interval", "p", "wins"):
        table.add_column(name, overflow="fold", no_wrap=True)
    table.add_column("over", overflow="fold")
    more = len(found.comparisons) - MOST_COMPARED
    pooled_first = sorted(found.comparisons, key=lambda c: c.pairing.dataset is not None)[:MOST_COMPARED]
    for c in pooled_first if more > 0 else found.comparisons:
        p, (low, high), text = c.pairing, c.decision.test.interval, c.measure.text
        interval = f"{text(low)} to {text(high)}" if low <= high else "-"
        adjusted = f"{c.decision.adjusted:.3f}" if c.verdict != "open" else "-"
        cells = [c.measure.name] if several else []
        cells += [p.dataset or "all", f"{p.said(p.a)} − {p.said(p.b)}", text(c.decision.test.mean), interval, adjusted]
        table.add_row(*(Text(printable(cell)) for cell in (*cells, f"{c.wins}/{c.pairs}", c.clusters)))
    console.print(table)
    if more > 0:
        console.print(f"and {number(more, 'comparison')} more: --out DIR writes them all, --json prints them")
    for said in (*found.ranking, *found.caveats[:MOST_COMPARED], found.columns):
        tell(said, console)
    if page is not None:
        console.print(f"report: {page}", markup=False, soft_wrap=True)


def print_neighbours(found: list[Any], sheet: Path | None) -> None:
    """The nearest pictures of each query, most similar first."""
    console = Patient(highlight=False)
    for one in found:
        table = Table(title=Text(f"most like {printable(one.query)}"), title_justify="left")
        table.add_column("similarity")
        table.add_column("picture")
        for match in one.found:
            table.add_row(f"{match.similarity:.4f}", Text(printable(match.name)))
        console.print(table)
    if sheet is not None:
        done(f"contact sheet: {sheet}", "look at it, and ask with other pictures", console)
    else:
        done("compare similarities with each other, not with 1", "add --out alike.png to see them", console)


@shows
def print_selection(found: Any, out: Path, within: Sequence[str]) -> None:
    """How much `headstart select` found, where the lists and sheets are, and what to do with them.

    within: RUN and DATA, as they were typed.
    """
    console = Patient(highlight=False)
    groups = max((group for _, group in found.clusters), default=0)
    if found.label_errors:
        errors = number(len(found.label_errors), "label")
        tell(f"{errors} for which another class is likelier: look at these first", console)
    counts = ((len(found.duplicates), "near-duplicate"), (len(found.outliers), "outlier"), (groups, "cluster"))
    tell(f"{', '.join(number(n, what) for n, what in counts)}; label next:", console)
    for name in found.label_next:
        tell(f"  {name}", console)
    tell(f"no picture lies farther than {found.distance:.2f} (of 2) from one of these", console)
    if (advice := found.suggested) is not None:
        copies = f"95 % of altered copies ({advice.copies} tried) and {advice.others:.0%} of other pictures"
        tell(f"--similarity {advice.similarity:.4f} would find {copies}", console)
    tell(f"lists and contact sheets: {out}", console)
    labels = out / "label-next.csv"
    done(
        f"write labels into a column `label` of {labels}, then",
        f"headstart finetune {shlex.join(within)} --data.labels {quote(str(labels))} --final --out classifier",
        console,
    )


@shows
def print_mapped(found: Any) -> None:
    """What is on a map, and how to open it."""
    files = ", ".join(str(path) for path in found.files)
    counts = f"{number(found.pictures, 'picture')}, {number(found.clusters, 'cluster')}"
    done(f"{counts}: {files}", f"open {found.files[1]} in a browser")


@shows
def print_finetuned(found: Any, sources: Sequence[str]) -> None:
    """A classifier beside the same network that never saw SimCLR, and a plain sentence on what SimCLR was worth.

    sources: DATA that it was trained on, and may tell the unlabelled ones of.
    """
    tested = "cross-validated" if found.folds else "test"
    table = Table("start", f"{tested} accuracy in % (95 % interval)", "right", "balanced", "rate, decay")
    for row in found.rows:
        right, rates = f"{row.correct} of {row.n_test}", f"{row.lr:g}, {row.layer_decay:g}"
        table.add_row(row.label, _cell(vars(row)), right, f"{100 * row.macro['recall']:.1f}", rates)
    first = found.rows[0]
    commonest = f"{round(first.majority * first.n_test)} of {first.n_test}"
    table.add_row("commonest class", f"{100 * first.majority:.1f}", commonest, "", "")
    console = Patient(highlight=False)
    how = f"in {found.folds} folds, then on all of them" if found.folds else f"stopped by {found.n_val:,} others"
    console.print(f"trained on {found.n_labels:,} labelled pictures, {how}")
    console.print(table)
    first, *others = found.rows
    for row in others:
        apart = first.ci95[0] > row.ci95[1] or row.ci95[0] > first.ci95[1]
        better = "better" if first.accuracy > row.accuracy else "worse"
        sentence = better if apart else "no difference that these pictures can show"
        gain = 100 * (first.accuracy - row.accuracy)
        tell(f"{first.label}, beside {row.label}: {gain:+.1f} points, {sentence}", console)
    then = shlex.join(["headstart", "predict", str(found.folder), *sources, "--out", "predictions.csv"])
    done(f"classifier: {found.folder}", then, console)


@shows
def print_predicted(found: Any, out: Path) -> None:
    """How many pictures of which class, and how many the classifier knows nothing about."""
    console = Patient(highlight=False)
    most = ", ".join(f"{name} {count:,}" for name, count in list(found.classes.items())[:5])
    tell(f"{number(found.pictures, 'picture')}: {most}{', ...' if len(found.classes) > 5 else ''}", console)
    first = "those that are unlike" if found.unlike else "the least probable"
    if found.unlike:
        are = "is" if found.unlike == 1 else "are"
        tell(f"{found.unlike:,} {are} unlike everything the classifier was trained on (column unlike)", console)
    done(f"written to {out}", f"look at {first}", console)


@shows
def print_exported(source: Any, out: Path, format: str) -> None:
    """Where a file or folder is, that it was compared, and the model card's frank sentence."""
    console = Patient(highlight=False)
    told = {} if isinstance(source, Path) else source.result
    worse = no_better(told["untrained"], told["probes"]) if told else []
    if kept_given(told):
        tell("The run kept the given weights: SimCLR has no part in this backbone.", console)
    elif worse:
        tell(f"By {', '.join(worse)} this backbone is no better than before SimCLR.", console)
    if format == "hub":
        done(f"{out}: timm gives the same", f'timm.create_model("local-dir:{out}", pretrained=True)', console)
        return
    if not isinstance(source, Path):
        tell(f"model card: {source.folder.card}", console)
    done(f"{out}: read back, it gives the same", "load it as its metadata tell", console)


def print_json(value: Any) -> None:
    """Plain JSON on the standard output, for other programs."""
    print(json_text(value))


@shows
def print_comparison(runs: dict[str, dict[str, Any]], console: Console | None = None) -> None:
    """Several finished runs of one data set beside the untrained backbone; `runs` maps names to result.json."""
    console = console or Patient(highlight=False)
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
    same = same_labels(probes for _, probes in columns if probes)
    for probe in sorted(found - same.keys(), key=PROBES.place):
        table.add_row(
            " = ".join([probe, *(other for other, first in same.items() if first == probe)]),
            *(_cell(probes.get(probe)) for _, probes in columns),
        )
    return table


def _shapes(columns: dict[str, dict[str, Any]]) -> Table:
    """The geometry of each backbone's representations, beside each other."""
    table = Table(title="representations of the test pictures", title_justify="left")
    table.add_column("figure")
    for name in columns:
        table.add_column(Text(printable(name)), justify="right")
    for key, (label, _) in SHAPE.items():
        table.add_row(label, *(shown(geometry, key) for geometry in columns.values()))
    positions = [at for at, _ in next((s["spectrum"] for s in columns.values() if s.get("spectrum")), [])]
    for i, at in enumerate(positions):
        shares = [geometry.get("spectrum") or [] for geometry in columns.values()]
        cells = [f"{share[i][1]:.2%}" if i < len(share) else "-" for share in shares]
        table.add_row(f"variance along direction {at:.0f}", *cells)
    return table


def _cell(probe: dict[str, Any] | None) -> str:
    if probe is None:
        return "-"
    low, high = probe["ci95"]
    return f"{100 * probe['accuracy']:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _head_name(head: dict[str, Any]) -> str:
    return f"{head['init']}, {'frozen' if head['frozen'] else 'trainable'}"
