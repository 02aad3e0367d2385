"""Tables of anybody's runs: CSV, TSV, parquet, JSON, and what MLflow, TensorBoard and W&B write.

Comes in: files and folders, in any mixture. Goes out: one table, a row a run, numbers as numbers, and in the column
`PLACE` where each row stands. A file that is not what it should be ends in one sentence that names the file, the row
and the column.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from headstart.records.config import flatten
from headstart.records.errors import InputError
from headstart.records.files import expanded, missing, unreadable
from headstart.records.text import from_data_cell, printable
from headstart.report import delimited, mlflow_runs, runs_csv, trackers
from headstart.report import frame as study_frame
from headstart.report.delimited import OUTCOMES, PLACE


def read_tables(paths: Iterable[str | Path]) -> pd.DataFrame:
    """All files as one table. Raises InputError naming what is wrong, where."""
    paths = list(paths)
    tables = [_read(expanded(path)) for path in paths]
    if not tables:
        raise InputError(
            "there is nothing to compare; give files of runs (CSV, parquet, JSON, an MLflow store) or a study"
        )
    table = _joined(tables)
    if len(table) == 0:
        raise InputError(f"{', '.join(map(str, paths))}: no row of a run")
    return table


def _joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Tables one below the other, and what any of them calls metrics."""
    table = pd.concat(tables, ignore_index=True)
    outcomes = [name for one in tables for name in one.attrs.get(OUTCOMES, ())]
    table.attrs = {OUTCOMES: list(dict.fromkeys(outcomes))}
    return table


def _read(path: Path) -> pd.DataFrame:
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        raise InputError(f"{missing(path) or f'{path} cannot be reached'}; give a file of runs or a study folder")
    if not path.is_file():
        raise InputError(f"{path} is no file; give a file of runs or a study folder")
    if "tfevents" in path.name:
        return _numbered(trackers.tensorboard(path.parent, [path.parent]))
    return READERS.get(path.suffix.lower(), _delimited)(path)


def _folder(path: Path) -> pd.DataFrame:
    """A study folder's runs; or what trackers keep in a folder: MLflow's and W&B's runs, event files, CSV exports."""
    if (path / "study.yaml").exists() or (path / "result.json").exists() or any(path.glob("runs/*/result.json")):
        ours = study_frame.read(path).runs
        return ours.astype(dict.fromkeys(ours.select_dtypes("category"), str)).assign(
            **{PLACE: f"{path}, " + ours["run"]}
        )
    if runs := mlflow_runs.runs_in(path):
        return mlflow_runs.files(path, runs)
    if folders := trackers.event_folders(path):
        return _numbered(trackers.tensorboard(path, folders))
    if summaries := sorted(path.rglob(trackers.SUMMARY)):
        return _joined([_json(summary) for summary in summaries])
    files = {file: delimited.cells(file) for file in sorted(path.rglob("*.csv"))}
    if not files:
        raise InputError(f"{path} holds neither a study nor MLflow's, TensorBoard's, W&B's or CSV files of runs")
    tables = [_of_cells(file, table) for file, table in files.items()]
    if all(_header(table) == trackers.EXPORT for table in files.values()):
        return _numbered(trackers.one_a_run(tables))
    return _joined(tables)


def _numbered(table: pd.DataFrame) -> pd.DataFrame:
    """Words that are numbers as numbers."""
    places = [str(place) for place in table[PLACE]]
    words = [n for n in table.columns if n != PLACE and table[n].map(lambda v: v is None or isinstance(v, str)).all()]
    return table.assign(**{name: delimited.column(table[name].fillna("").astype(str), places) for name in words})


def _delimited(path: Path) -> pd.DataFrame:
    return _of_cells(path, delimited.cells(path))


def _header(table: pd.DataFrame) -> list[str]:
    return [name for name in table.columns if name != PLACE]


def _of_cells(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    header = _header(table)
    if header == trackers.EXPORT:
        return trackers.tensorboard_csv(path, table)
    if trackers.is_chart(header):
        return trackers.chart(path, delimited.typed(table))
    if {"summary", "config"} <= set(header):
        return _records(trackers.unpacked(table))
    if runs_csv.is_study(header):
        words = [name for name in header if name not in study_frame.NUMBERS]
        return delimited.typed(table.assign(**{name: table[name].map(from_data_cell) for name in words}), text=words)
    return delimited.typed(delimited.plain(table) if any(name.startswith("metrics.") for name in header) else table)


def _parquet(path: Path) -> pd.DataFrame:
    try:
        import pyarrow  # noqa: PLC0415 - an extra
        from pyarrow import parquet  # noqa: PLC0415 - an extra
    except ImportError:
        raise InputError(f"{path} needs pyarrow; install it with `pip install 'headstart[parquet]'`") from None
    try:
        found = parquet.ParquetFile(path).read()
        nested = any(pyarrow.types.is_nested(kind) for kind in found.schema.types)
        table = pd.read_parquet(path)
    except (OSError, ValueError, NotImplementedError) as error:
        raise InputError(f"{path} is not a parquet file: {str(error).splitlines()[0]}") from None
    places = [f"{path}, row {i}" for i in range(1, len(table) + 1)]
    if nested:
        return _records(list(zip(places, found.to_pylist(), strict=True)))
    return table.rename(columns=str).assign(**{PLACE: places})


def _json(path: Path) -> pd.DataFrame:
    """A list of runs, or one object whose values are lists; W&B's `config` and `summary` come to the top."""
    value = _parsed(path, _decoded(path), "")
    if path.name != trackers.SUMMARY and isinstance(value, Mapping) and value and all(map(_is_list, value.values())):
        value = _rows(path, value)
    if path.name == trackers.SUMMARY and isinstance(value, Mapping):
        run = path.parent.parent.name if path.parent.name == "files" else path.parent.name
        value = {"run": run, "config": trackers.beside(path), "summary": value}
    values = value if isinstance(value, list) else [value]
    return _records([(f"{path}, entry {i}", one) for i, one in enumerate(values, 1)])


def _is_list(value: object) -> bool:
    return isinstance(value, list)


def _rows(path: Path, columns: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    """Columns as rows. Raises InputError naming a column that is not as long as the first."""
    first, *_ = columns
    for name, values in columns.items():
        if len(values) != len(columns[first]):
            raise InputError(
                f"{path}: {printable(name)} has {len(values)} values where {printable(first)} has {len(columns[first])}"
            )
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _json_lines(path: Path) -> pd.DataFrame:
    lines = enumerate(_decoded(path).split("\n"), 1)
    return _records([(f"{path}, row {n}", _parsed(path, line, f", row {n}")) for n, line in lines if line.strip()])


def _decoded(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(unreadable(path, error)) from None
    except UnicodeDecodeError as error:
        row = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{path}, row {row} is not JSON: it must be text in UTF-8 ({error.reason})") from None


def _parsed(path: Path, text: str, row: str) -> Any:
    try:
        return json.loads(text, parse_int=_whole)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}{row} is not JSON: {error}") from None


def _whole(digits: str) -> int | str:
    """A whole number; one that no column of numbers can hold is a name."""
    return int(digits) if len(digits) < 19 else digits


def _records(values: list[tuple[str, Any]]) -> pd.DataFrame:
    """Runs as names and values, each with its place; nested names are dotted, and a list is its text."""
    rows = []
    for place, value in values:
        if not isinstance(value, Mapping):
            raise InputError(f"{place} is {value!r:.60}; it must be names and values")
        try:
            rows.append({str(n): _one(cell) for n, cell in flatten(value) if "_wandb" not in str(n).split(".")})
        except RecursionError:
            raise InputError(f"{place} nests names in names too deeply for a run") from None
    return delimited.plain(pd.DataFrame(rows)).assign(**{PLACE: [place for place, _ in values]})


def _one(cell: Any) -> Any:
    return json.dumps(cell, default=str) if isinstance(cell, (list, tuple, set)) else cell


READERS = {
    ".parquet": _parquet,
    ".json": _json,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    **dict.fromkeys((".db", ".sqlite", ".sqlite3"), mlflow_runs.store),
}
