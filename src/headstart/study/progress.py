"""How far a study is, from the files that are there. Imports no torch and reads few files: there may be 10,000 runs."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.records import files, schema
from headstart.records import folder as runs
from headstart.records.claim import Claim
from headstart.records.errors import InputError
from headstart.records.files import read_yaml
from headstart.records.folder import RunFolder
from headstart.records.grid import grid_of, unplanned
from headstart.records.outputs import kind_of
from headstart.records.schema import TIMED

AUTOENCODER = "autoencoder-"
"""How the names of autoencoders' own run folders begin."""


@dataclass(frozen=True)
class Running:
    """A run in progress: stage and share done (None before its first checkpoint), and where."""

    name: str
    stage: str | None
    progress: float | None
    host: str


@dataclass(frozen=True)
class Status:
    """How far a study is.

    Attributes:
        total: runs of the study, with those that are there but no longer in its plan.
        failed: (name, reason).
        autoencoders: finished ones.
        unplanned: what is said where runs are there that study.yaml does not plan; else nothing.
        seconds_left: at the pace and with as many at once as now; None where nothing is finished.
        plugins: modules that its runs need.
    """

    name: str
    total: int
    done: int
    running: list[Running]
    failed: list[tuple[str, str]]
    todo: int
    autoencoders: int
    unplanned: str
    seconds_left: float | None
    plugins: tuple[str, ...] = ()


def status(out: str | Path) -> Status:
    """How far the study in a folder is; imported records count as done. Reads few files: one look a run.

    Raises InputError when the folder holds no study.
    """
    out = files.expanded(out)
    path = out / "study.yaml"
    if not path.exists():
        held = f"holds a {kind}, not a study" if (kind := kind_of(out)) else "is not a study folder"
        raise InputError(files.missing(out, "folder") or f"{out} {held}: it has no study.yaml")
    grid = grid_of(settings := read_yaml(path), path)
    there = sorted(f.name for f in (out / "runs").iterdir() if f.is_dir()) if (out / "runs").is_dir() else []
    autoencoders = [name for name in there if name.startswith(AUTOENCODER)]
    planned = [n for n in there if n not in autoencoders] if grid is None else grid.names()
    known, present = set(planned), set(there)
    done, running, failed, todo, trained = [], [], [], 0, 0
    for name in [*planned, *(name for name in there if name not in known)]:
        if name not in present:
            todo += 1
            continue
        run = f"{out}/runs/{name}"  # all that is asked of a finished one: there may be many
        if os.path.exists(f"{run}/result.json") and not os.path.exists(f"{run}/stages.json"):
            if name in known or not name.startswith(AUTOENCODER):
                done.append(name)
            else:
                trained += 1
            continue
        folder = RunFolder(out / "runs" / name)
        if folder.failed.exists():
            failed.append((name, files.read_json(folder.failed, schema.FAILED).get("reason", "")))
        elif (holder := Claim(folder.path).holder()) is not None:
            running.append(_running(folder, holder))
        else:
            todo += name in known
    extra = sum(name.startswith(AUTOENCODER) for name in [*(r.name for r in running), *(name for name, _ in failed)])
    total = len(done) + len(running) + len(failed) + todo - extra
    plugins = settings.get("plugins") or []
    left: float | None = 0.0
    if total > len(done):
        left = _time_left(out / "runs", done, todo, running) if done else None
    return Status(
        name=str(settings.get("name", out.name)),
        total=total,
        done=len(done),
        running=running,
        failed=failed,
        todo=todo,
        autoencoders=trained,
        plugins=tuple(map(str, plugins if isinstance(plugins, list) else [plugins])),
        unplanned=unplanned(() if grid is None else planned, there),
        seconds_left=left,
    )


def _running(folder: RunFolder, holder: Mapping[str, Any]) -> Running:
    lines = runs.read_metrics(folder.metrics)
    epochs = holder.get("epochs") or {}
    stage = lines[-1].get("stage") if lines else None
    total = epochs.get(stage)
    progress = min(1.0, lines[-1].get("epoch", 0) / total) if total else None
    return Running(folder.path.name, stage, progress, str(holder.get("host", "")))


SAMPLE = 100
"""Finished runs of a data set whose times are read for the estimate."""


def seconds_by_set(folder: Path, names: Sequence[str]) -> dict[str, float]:
    """Mean seconds of a finished run by data set, from a sample."""
    by_set: dict[str, list[str]] = {}
    for name in names:
        by_set.setdefault(name.split(",")[0], []).append(name)
    means = {}
    for label, members in by_set.items():
        chosen = members[:: max(1, len(members) // SAMPLE)]
        results = [files.read_json(folder / n / "result.json", TIMED, "a run's result") for n in chosen]
        seconds = [sum((result.get("seconds") or {}).values()) for result in results]
        means[label] = sum(seconds) / len(seconds)
    return means


def seconds_of(means: Mapping[str, float], name: str) -> float:
    """Mean seconds of a run: its data set's, or where none of it is finished those of all."""
    return means.get(name.split(",")[0], sum(means.values()) / len(means))


def _time_left(folder: Path, done: Sequence[str], todo: int, running: Sequence[Running]) -> float:
    means = seconds_by_set(folder, done)
    at_work = [run for run in running if not run.name.startswith(AUTOENCODER)]
    left = todo + sum(1 - (run.progress or 0.0) for run in at_work)
    return left * sum(means.values()) / len(means) / max(1, len(at_work))
