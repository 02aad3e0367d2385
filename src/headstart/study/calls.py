"""A study: every run of a file's grid, done once, here or on a cluster (paper 3.3-3.6).

Comes in: what `file.py` reads. Goes out: STUDY/ with study.yaml and runs/NAME/, filled by workers here (`local.py`) or
on a cluster (`ray.py`); what is there already is never done again. Planning imports no torch.
"""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

from headstart.records import files
from headstart.records.claim import alone
from headstart.records.config import differences
from headstart.records.errors import InputError
from headstart.records.files import read_yaml
from headstart.records.folder import RunFolder
from headstart.records.grid import exclusions, is_grid, label_of
from headstart.records.outputs import check_results_folder
from headstart.report.labels import named_comparisons
from headstart.study import store as study_store
from headstart.study.file import Planned, Study, StudyOptions, applied, expand, load
from headstart.study.progress import seconds_by_set, seconds_of
from headstart.study.shared import RunOptions, Work, autoencoders_of

# ------------------------------------------------------------------------------------------------- the study's folder


def prepare(study: Study, out: str | Path, check: Callable[[list[Planned]], None] = lambda _: None) -> Study:
    """Join a study with what STUDY/study.yaml holds, and write that file.

    Values, seeds, data sets and factors may be added. Raises InputError with the differences when the base setting,
    or what a value means, has changed. What `check` raises of the runs that are still to be made comes before anything
    is written.
    """
    out = files.expanded(out)
    path = out / "study.yaml"
    check_results_folder(out, "study")
    check([run for run in expand(_with_plan(study, out)) if not _is_done(out, run)])
    with alone(out):  # somebody else may have added to it meanwhile
        study = _with_plan(study, out)
        expand(study)
        text = study.to_yaml()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            files.write(path, text, within=out)
    return study


def _is_done(out: Path, run: Planned) -> bool:
    return RunFolder(out / "runs" / run.name).is_reported()


def _with_plan(study: Study, out: Path) -> Study:
    """A study with what its folder already plans."""
    path = out / "study.yaml"
    if path.exists():
        if not is_grid(read_yaml(path)):
            raise InputError(
                f"{path} was not written by `headstart study run`, or is cut short; restore it from a copy, or give "
                "another --out"
            )
        return extended(load(path, plugin=study.plugins), study, path)
    return study


def extended(old: Study, new: Study, path: Path) -> Study:
    """The old study and what the new one adds, to what is left out and compared too: nothing of that is taken back."""
    if changed := list(_changes(old, new)):
        raise InputError(
            f"{path} was begun with another base ({'; '.join(changed)}); repeat that, or give another --out. Data "
            "sets, seeds, factors and their values may be added"
        )
    added = dict(old.added)
    brought = [factor for factor in new.factors if factor not in old.factors]
    for factor in brought:
        same = [label for label, options in new.factors[factor].items() if applied(old.base, options, "") == old.base]
        if not same:
            raise InputError(
                f"{path}: the new factor {factor} lacks the value that the runs already there have; add that value too"
            )
        added[factor] = same[0]
    compared = named_comparisons(old.compare).keys()
    return replace(
        new,
        decides=new.decides or old.decides,
        data={**old.data, **new.data},
        factors={f: {**old.factors.get(f, {}), **new.factors[f]} for f in [*old.factors, *brought]},
        written={f: _joined(old.written.get(f), new.written[f]) for f in [*old.written, *brought]},
        seeds=tuple(dict.fromkeys([*old.seeds, *new.seeds])),
        exclude=(*old.exclude, *(rule for rule in new.exclude if exclusions([rule])[0] not in old.grid.exclude)),
        compare=(*old.compare, *(entry for entry in new.compare if not compared & named_comparisons([entry]).keys())),
        added=added,
    )


def _changes(old: Study, new: Study) -> Iterator[str]:
    """What the new study says otherwise of the runs that the old one has."""
    yield from (f"{name}: {how}" for name, how in differences(old.base, new.base).items())
    if old.decides and new.decides and old.decides != new.decides:
        yield f"decides: {old.decides} -> {new.decides}"
    for label in old.data.keys() & new.data.keys():
        before, after = old.data[label].options, new.data[label].options
        for name in sorted(before.keys() | after.keys()):
            if before.get(name) != after.get(name):
                yield f"data {label}, {name}: {before.get(name)} -> {after.get(name)}"
    for factor, levels in old.factors.items():
        if factor not in new.factors:
            yield f"factor {factor}: {', '.join(levels)} -> none"
        for (label, before), (name, after) in product(levels.items(), new.factors.get(factor, {}).items()):
            if label == name and before != after:
                yield f"{factor} {label}: {before} -> {after}"
            if label != name and before == after and name not in levels:
                yield f"{factor}: {label} -> {name}, which is the same value"


def _joined(old: Any, new: Any) -> Any:
    if isinstance(new, dict):
        return {**(old or {}), **new}
    known = {label_of(value) for value in old or []}
    return [*(old or []), *(value for value in new if label_of(value) not in known)]


# ---------------------------------------------------------------------------------------------------- plan, run, status


@dataclass(frozen=True)
class Plan:
    """What a study would do.

    Attributes:
        runs: all of them.
        autoencoders: how many it trains.
        done: runs that are finished in the study folder.
        seconds: estimate for the rest, one run after another; None where nothing was measured.
        measured: what the estimate rests on.
    """

    study: Study
    runs: list[Planned]
    autoencoders: int
    done: int = 0
    seconds: float | None = None
    measured: str = ""


def plan(
    study: str | Path,
    *,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    calibrate: bool = True,
    **selection: Any,
) -> Plan:
    """What `run` would do; starts no run and writes nothing.

    Args:
        out: the study folder, whose finished runs do not count again.
        calibrate: time a few training steps on random pictures, for the estimate; otherwise it rests on the finished
            runs alone.
        study, overrides, selection: as for `load`.

    >>> found = plan("smoke", calibrate=False)
    >>> len(found.runs), found.autoencoders
    (16, 4)
    """
    loaded = load(study, overrides=overrides, **selection)
    out = None if out is None else files.expanded(out)
    loaded = loaded if out is None else _with_plan(loaded, out)
    planned = expand(loaded)
    needed = autoencoders_of(planned)
    done = {run.name for run in planned if out is not None and _is_done(out, run)}
    rest = [run for run in planned if run.name not in done]
    if out is not None and done:
        mean = seconds_by_set(out / "runs", sorted(done))
        estimate = sum(seconds_of(mean, run.name) for run in rest)
        return Plan(loaded, planned, len(needed), len(done), estimate, f"{len(done)} finished runs")
    if not calibrate:
        return Plan(loaded, planned, len(needed), len(done))
    from headstart.study.estimate import calibrated_seconds

    seconds, measured = calibrated_seconds(rest, list(autoencoders_of(rest).values()))
    return Plan(loaded, planned, len(needed), len(done), seconds, measured)


@dataclass(frozen=True)
class Summary:
    """How a call of `run` ended.

    Attributes:
        done, failed, elsewhere: runs finished; failed; being done by other processes.
    """

    total: int
    done: int
    failed: int
    elsewhere: int

    @property
    def exit_code(self) -> int:
        """1 where a run failed."""
        return 1 if self.failed else 0


def run(
    study: str | Path, out: str | Path, *, overrides: Sequence[str] = (), quiet: bool = False, **options: Any
) -> Summary:
    """Do what the study has not done yet.

    Args:
        study, overrides: as for `load`.
        out: the study folder; it may lie on a shared file system, and several calls may work on it at once.
        options: as in `RunOptions`.

    Returns:
        Summary: its `exit_code` is 1 where a run has failed.

    Raises:
        InputError: as for `load` and `prepare`, or the data are not there.
        Interrupted: stopped; the same call goes on.
    """
    from headstart.engine.device import named as device_named
    from headstart.study import local, opening
    from headstart.study import ray as cluster

    out, asked = files.expanded(out).absolute(), RunOptions(**options)
    loaded = load(study, overrides=overrides, **_study_options(asked))
    base = loaded.base
    if asked.executor == "local":
        device_named(base.device)  # one clear sentence now instead of one a run
    planned = expand(prepare(loaded, out, functools.partial(opening.check, out=out)))
    if asked.retry_failed:
        for failed in (out / "runs").glob("*/failed.json"):
            failed.unlink(missing_ok=True)
    work = Work(
        out=str(out),
        folder=str(Path.cwd()),
        plugins=tuple(asked.plugin),
        threads=base.threads,
        device=base.device,
        keep=asked.keep,
        quiet=quiet,
        deadline=None if asked.max_seconds is None else time.time() + asked.max_seconds,
    )
    if asked.executor == "ray":
        cluster.on_ray(work, planned, asked.ray)
    else:
        local.on_this_machine(work, planned, asked.workers)
    return _summary(out, planned, asked.keep)


def _study_options(asked: RunOptions) -> dict[str, Any]:
    return {field.name: getattr(asked, field.name) for field in fields(StudyOptions)}


def _summary(out: Path, planned: Sequence[Planned], keep: str) -> Summary:
    folders = [RunFolder(out / "runs" / run.name) for run in planned]
    done = sum(folder.is_reported() for folder in folders)
    failed = sum(folder.failed.exists() and not folder.is_reported() for folder in folders)
    if done == len(folders):
        study_store.sweep(out)
        for weights in (out / "autoencoders").glob("*.safetensors") if keep == "records" else ():
            weights.unlink(missing_ok=True)
    return Summary(total=len(folders), done=done, failed=failed, elsewhere=len(folders) - done - failed)
