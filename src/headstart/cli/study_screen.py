"""A study on the screen: its plan, its state, how a call ended. Imports no torch."""

from pathlib import Path
from shlex import join, quote
from typing import Any

from headstart.cli.options import with_plugins
from headstart.cli.screen import done, suggest, tell
from headstart.engine.progress import duration
from headstart.records import text
from headstart.study import Plan, Summary
from headstart.study.progress import Status


def print_plan(plan: Plan, run: str) -> None:
    """Show what would run, and the command that runs it."""
    console, table = _console(), _table("what varies", "values")
    study = plan.study
    table.add_row("data", ", ".join(study.data))
    for factor, levels in study.factors.items():
        table.add_row(factor, ", ".join(levels))
    table.add_row("seeds", ", ".join(map(str, study.seeds)))
    told = f"[bold]{text.number(len(plan.runs), 'run')}[/] and {text.number(plan.autoencoders, 'autoencoder')}; "
    told += f"{text.number(plan.done, 'run')} {text.be(plan.done)} finished"
    console.print(told, markup=True)
    console.print(table)
    if study.exclude:
        console.print(f"without the combinations of {len(study.exclude)} exclusions")
    takes = "no estimate of time: nothing was measured"
    if plan.seconds is not None:
        takes = f"about {duration(plan.seconds)} one run after another (from {plan.measured})"
    done(takes, run, console)


def print_status(status: Status, folder: Path) -> None:
    """Show how far the study is."""
    console = _console()
    console.print(
        f"{text.printable(status.name)}: {status.done} of {text.number(status.total, 'run')} done, "
        f"{len(status.running)} running, {len(status.failed)} failed, {status.todo} to do; "
        f"{text.number(status.autoencoders, 'autoencoder')}",
        markup=False,
    )
    if status.running:
        table = _table("running", "stage", "done", "where")
        for run in status.running:
            told = run.name, run.stage or "starting", "" if run.progress is None else f"{run.progress:.0%}", run.host
            table.add_row(*map(text.printable, told))
        console.print(table)
    if status.failed:
        table = _table("failed", "reason")
        for name, reason in status.failed:
            table.add_row(text.printable(name), text.printable(reason))
        console.print(table)
    if status.unplanned:
        tell(status.unplanned, console)
    if status.seconds_left:
        console.print(f"about {duration(status.seconds_left)} left at this pace")
    suggest(_next(status, folder), console)


def _next(status: Status, folder: Path) -> str:
    again = join(["headstart", "study", "run", str(folder), "--out", str(folder), *with_plugins(status.plugins)])
    if status.failed:
        return f"{again} --retry-failed"
    if status.todo and not status.running:
        return again
    return "wait for the rest" if status.todo or status.running else f"headstart report {quote(str(folder))}"


def print_summary(summary: Summary, folder: Path) -> None:
    """Show how a call ended."""
    told = f"{summary.done} of {text.number(summary.total, 'run')} done"
    told += (
        f", {summary.failed} failed (`headstart study status {quote(str(folder))}` says why)" if summary.failed else ""
    )
    told += f", {summary.elsewhere} being done by other processes" if summary.elsewhere else ""
    tell(told)


def _console() -> Any:
    from headstart.engine.progress import Patient

    return Patient(highlight=False, markup=False)  # names are data, and may hold brackets


def _table(*columns: str) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
