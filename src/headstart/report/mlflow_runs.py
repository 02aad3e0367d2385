"""Runs as MLflow keeps them, in a sqlite store or in the files below `mlruns/`; MLflow itself is not needed.

Comes in: the store's file, or a folder. Goes out: a table with a row a run that was not deleted: its parameters, and
the last value of each metric.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from headstart.records.errors import InputError
from headstart.records.files import read_yaml
from headstart.records.text import printable
from headstart.report.delimited import OUTCOMES, PLACE, column

LARGEST = 1.7e308
"""MLflow's sqlite store keeps infinity as the largest number there is."""
META = "meta.yaml"
PARTS = ("params", "metrics")


def store(path: Path) -> pd.DataFrame:
    """Runs of a sqlite store. Raises InputError for a file that is none."""
    try:
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as opened:
            runs = pd.read_sql(
                "select run_uuid, name as run_name, experiment_id from runs where lifecycle_stage = 'active'", opened
            )
            params = pd.read_sql("select run_uuid, key, value from params", opened)
            metrics = pd.read_sql(
                "select run_uuid, key, case when is_nan then null else value end as value from latest_metrics", opened
            )
    except (sqlite3.Error, pd.errors.DatabaseError, UnicodeError) as error:
        raise InputError(f"{path} is not an MLflow store: {str(error).splitlines()[-1]}") from None
    values = pd.to_numeric(metrics["value"], errors="coerce").astype(float)
    metrics["value"] = values.mask(values >= LARGEST, float("inf")).mask(values <= -LARGEST, float("-inf"))
    return _wide(path, runs, params, metrics)


def runs_in(path: Path) -> dict[Path, Mapping[str, Any]]:
    """Folders in and below a folder in which MLflow keeps a run, with what it says of each.

    What was deleted with its experiment is left out, and so are models and experiments, which have no run's id.
    """
    found = (meta for meta in sorted(path.rglob(META)) if ".trash" not in meta.relative_to(path).parts)
    metas = {meta.parent: read_yaml(meta) for meta in found if any((meta.parent / part).is_dir() for part in PARTS)}
    return {folder: meta for folder, meta in metas.items() if isinstance(meta, Mapping) and _id(meta)}


def files(path: Path, metas: Mapping[Path, Mapping[str, Any]]) -> pd.DataFrame:
    """The table of `runs_in`. Raises InputError where all were deleted, or naming a file that MLflow did not write."""
    runs, params, metrics = [], [], []
    for folder, meta in sorted(metas.items(), key=lambda of: str(of[1].get("start_time"))):
        if meta.get("lifecycle_stage") in (None, "active"):
            runs.append((_id(meta), _name(folder, meta), str(meta.get("experiment_id"))))
            params += [(_id(meta), name, _text(file)) for name, file in _named(folder / "params")]
            metrics += [(_id(meta), name, _last(file)) for name, file in _named(folder / "metrics")]
    if not runs:
        raise InputError(f"{path} holds runs of MLflow, and all of them are deleted")
    columns = ["run_uuid", "key", "value"]
    return _wide(
        path,
        pd.DataFrame(runs, columns=["run_uuid", "run_name", "experiment_id"]),
        pd.DataFrame(params, columns=columns),
        pd.DataFrame(metrics, columns=columns),
    )


def _id(meta: Mapping[str, Any]) -> str:
    return str(meta.get("run_id") or meta.get("run_uuid") or "")


def _name(folder: Path, meta: Mapping[str, Any]) -> str:
    tag = folder / "tags" / "mlflow.runName"  # where older versions keep it
    return str(meta.get("run_name") or (_text(tag) if tag.is_file() else ""))


def _named(folder: Path) -> Iterator[tuple[str, Path]]:
    """Files below a folder; a name with a slash lies in a folder of its own."""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            yield file.relative_to(folder).as_posix(), file


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise InputError(f"{file} cannot be read: {error}") from None


def _last(file: Path) -> float:
    """The value at the last step: each line has a time in milliseconds, a value, and from MLflow 1 on a step."""
    logged = []
    for row, line in enumerate(_text(file).splitlines(), 1):
        cells = line.split()
        try:
            logged.append((int(cells[2]) if len(cells) > 2 else 0, int(cells[0]), float(cells[1])))
        except (ValueError, IndexError):
            raise InputError(
                f"{file}, row {row} is {printable(line[:60])!r}; it must be a time, a number and a step"
            ) from None
    return max(logged)[2] if logged else float("nan")


def _wide(path: Path, runs: pd.DataFrame, params: pd.DataFrame, metrics: pd.DataFrame) -> pd.DataFrame:
    """A row a run, a column a parameter or metric; which are metrics is kept."""
    places = [f"{path}, run {name or uuid}" for uuid, name in zip(runs["run_uuid"], runs["run_name"], strict=True)]
    outcomes: list[str] = []
    for part in (params, metrics):
        wide = part.drop_duplicates(["run_uuid", "key"], keep="last").pivot(
            index="run_uuid", columns="key", values="value"
        )
        taken = {name: f"{name} (metric)" for name in wide.columns if name in runs}
        outcomes = [taken.get(name, name) for name in wide.columns]
        runs = runs.join(wide.rename(columns=taken), on="run_uuid")
    words = [name for name in runs.columns if not pd.api.types.is_numeric_dtype(runs[name])]
    text = {name: column(runs[name].fillna("").astype(str), places) for name in words}
    table = runs.assign(**text, **{PLACE: places})
    table.attrs[OUTCOMES] = outcomes
    return table
