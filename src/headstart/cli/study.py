"""`headstart study plan|run|status|import` and `headstart report`."""

import shlex
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from headstart.cli.options import typed, with_plugins
from headstart.cli.screen import done, tell
from headstart.study import RunOptions, StudyOptions

Settings = Annotated[
    tuple[tuple[str, ...], ...],
    tyro.conf.UseAppendAction,
    arg(help="settings for every run, such as contrastive.epochs=50"),
]
"""`--set A B`, and `--set A --set B`: of a plain tuple the second would silently replace the first."""
STUDY = "a YAML file, a study folder, or a preset (`headstart list presets`; paper:cifar10 is one data set)"
StudyName = Positional[Annotated[str, arg(metavar="STUDY", help=STUDY)]]


def study_plan(
    study: StudyName,
    *,
    out: Path | None = None,
    set: Settings = (),
    calibrate: bool = True,
    selection: Annotated[StudyOptions, arg(name="")] = StudyOptions(),  # noqa: B008 - frozen
) -> int:
    """What a study would run, how many, and how long it would take; starts nothing.

    Args:
        out: the study folder, whose finished runs do not count again.
        calibrate: time a few training steps for the estimate.
    """
    from headstart import study as studies
    from headstart.cli import study_screen

    plan = studies.plan(study, out=out, overrides=sum(set, ()), calibrate=calibrate, **vars(selection))
    own = {name: value for name, value in vars(selection).items() if name != "plugin"}
    options = [*typed(own, vars(StudyOptions())), *with_plugins(selection.plugin)]
    options = [*(word for group in set for word in ("--set", *group)), *options]
    where = str(out or Path("runs", plan.study.name))
    study_screen.print_plan(plan, shlex.join(["headstart", "study", "run", study, "--out", where, *options]))
    return 0


def study_run(
    study: StudyName,
    *,
    out: Path,
    set: Settings = (),
    options: Annotated[RunOptions, arg(name="")] = RunOptions(),  # noqa: B008 - frozen
) -> int:
    """Do what a study has not done yet, here or on Ray, and report.

    Args:
        out: the study folder.
    """
    from headstart import study as studies
    from headstart.cli import study_screen

    summary = studies.run(study, out, overrides=sum(set, ()), **vars(options))
    study_screen.print_summary(summary, out)
    if summary.done:
        report(out)
    return summary.exit_code


def study_status(folder: Positional[Annotated[Path, arg(metavar="DIR")]]) -> int:
    """How far a study is: done, running, failed with reasons, to do, time left.

    Args:
        folder: a study folder.
    """
    from headstart import study as studies
    from headstart.cli import study_screen

    study_screen.print_status(studies.status(folder), folder)
    return 0


def study_import(csv: Positional[Annotated[tuple[Path, ...], arg(metavar="CSV...")]], *, out: Path) -> int:
    """The authors' CSV exports as a study folder.

    Args:
        csv: the exported files.
        out: the study folder.
    """
    from headstart.study.imports import import_csv

    done(str(import_csv(csv, out)), f"headstart report {shlex.quote(str(out))}")
    return 0


def report(folder: Positional[Annotated[Path, arg(metavar="DIR")]], *, probe: str | None = None) -> int:
    """The page, tables and figures of a run or a study.

    Args:
        folder: a run or a study.
        probe: accuracy of this probe. Unset: linear; in the paper's own study, paper.
    """
    from headstart.records.outputs import check_output_folder
    from headstart.report import written

    if folder.is_dir():
        check_output_folder(folder, "", "a copy of it that can be")
    found = written(folder, probe)
    for said in found.first:
        tell(said)
    done(f"report: {found.page}", "open it in a browser; its tables and figures lie beside it")
    return 0
