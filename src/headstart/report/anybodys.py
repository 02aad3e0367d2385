"""Tables of anybody's runs: CSV, TSV, parquet, JSON, MLflow's sqlite store, W&B's and TensorBoard's exports.

Comes in: files and study folders, in any mixture. Goes out: one table, a row a run, numbers as numbers whatever their
decimal sign, and in the column `PLACE` where each row stands. A file that is not what it should be ends in one
sentence that names the file, the row and the column.
"""

import csv
import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from headstart.records.config import flatten
from headstart.records.errors import InputError
from headstart.records.text import printable
from headstart.report import frame as study_frame

PLACE = "where it stands"
"""Column: file and row, for sentences."""

NUMBER = re.compile(r"[-+]?(\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?")
EMPTY = ("", "nan", "NaN", "NA", "N/A", "null", "None", "-", "–")
TENSORBOARD = ["Wall time", "Step", "Value"]


def read_tables(paths: Iterable[str | Path]) -> pd.DataFrame:
    """All files as one table. Raises InputError naming what is wrong, where."""
    tables = [_read(Path(path)) for path in paths]
    if not tables:
        raise InputError(
            "there is nothing to compare; give files of runs (CSV, parquet, JSON, an MLflow store) or a study"
        )
    table = pd.concat(tables, ignore_index=True)
    if len(table) == 0:
        raise InputError(f"{', '.join(map(str, paths))}: no row of a run")
    return table


def _read(path: Path) -> pd.DataFrame:
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise InputError(f"{path} is not there; give a file of runs or a study folder")
    kinds = {".parquet": _parquet, ".json": _json, ".jsonl": _json_lines, ".ndjson": _json_lines}
    kinds |= dict.fromkeys((".db", ".sqlite", ".sqlite3"), _mlflow)
    return kinds.get(path.suffix.lower(), _delimited)(path)


def _folder(path: Path) -> pd.DataFrame:
    """A study folder's runs; or a folder of TensorBoard's CSV exports, a file a run."""
    if (path / "runs").is_dir() or (path / "result.json").exists():
        runs = study_frame.read(path).runs
        return runs.astype(dict.fromkeys(runs.select_dtypes("category"), str)).assign(
            **{PLACE: f"{path}, " + runs["run"]}
        )
    files = sorted(path.rglob("*.csv"))
    if not files:
        raise InputError(f"{path} is neither a study folder nor one of CSV exports")
    return pd.concat([_delimited(file) for file in files], ignore_index=True)


def _delimited(path: Path) -> pd.DataFrame:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not text in UTF-8: {getattr(error, 'strerror', None) or error}") from None
    if text.lstrip().startswith("<"):
        raise InputError(f"{path} is a web page (HTML) or XML, not a table; download the file itself")
    head = text.partition("\n")[0]
    sign = "\t" if "\t" in head else ";" if head.count(";") > head.count(",") else ","
    try:
        lines = [
            (n, cells) for n, cells in _numbered(csv.reader(text.splitlines(keepends=True), delimiter=sign)) if cells
        ]
    except csv.Error as error:
        raise InputError(f"{path} is not a table: {error}") from None
    if not lines:
        raise InputError(f"{path} is empty; it must have a header row and a row a run")
    header = [cell.strip() for cell in lines[0][1]]
    repeated = next((name for name in header if header.count(name) > 1), None)
    if repeated is not None:
        raise InputError(f"{path}, row 1: there are two columns {printable(repeated)!r}")
    for number, cells in lines[1:]:
        if len(cells) != len(header):
            raise InputError(f"{path}, row {number}: {len(cells)} cells where the header has {len(header)} columns")
    table = pd.DataFrame([cells for _, cells in lines[1:]], columns=header, dtype=str)
    if header == TENSORBOARD:
        last = table.tail(1)
        return pd.DataFrame({"run": [path.stem], "Value": [_number(last["Value"].iloc[0])], PLACE: [str(path)]})
    places = [f"{path}, row {number}" for number, _ in lines[1:]]
    return pd.DataFrame({name: _column(table[name], places) for name in header}).assign(**{PLACE: places})


def _numbered(reader: Any) -> Iterator[tuple[int, list[str]]]:
    for cells in reader:
        yield reader.line_num, cells


def _column(values: pd.Series, places: list[str]) -> pd.Series:
    """Numbers where all cells are, with one decimal sign; else text."""
    stripped = values.str.strip()
    filled = ~stripped.isin(EMPTY)
    known = stripped[filled]
    if known.empty or not known.map(lambda cell: NUMBER.fullmatch(cell) is not None).all():
        return stripped.where(filled, "")
    commas, points = known.str.contains(",", regex=False), known.str.contains(".", regex=False)
    if commas.any() and points.any():
        few = commas if commas.sum() < points.sum() else points
        at = int(known[few].index[0])
        raise InputError(
            f"{places[at]}: {printable(str(values.name))} is {known[at]!r}, but the column's numbers have another "
            "decimal sign"
        )
    numbers = pd.to_numeric(known.str.replace(",", "."))
    return numbers if filled.all() else numbers.reindex(values.index)


def _number(text: str) -> float:
    return float(text.replace(",", "."))


def _parquet(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path)
    except ImportError:
        raise InputError(f"{path} needs pyarrow; install it with `pip install 'headstart[parquet]'`") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a parquet file: {error}") from None
    return table.assign(**{PLACE: [f"{path}, row {i}" for i in range(1, len(table) + 1)]})


def _json(path: Path) -> pd.DataFrame:
    """A list of runs, or one object whose values are lists; W&B's `config` and `summary` come to the top."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    if isinstance(value, Mapping) and all(isinstance(column, list) for column in value.values()):
        value = [dict(zip(value, row, strict=False)) for row in zip(*value.values(), strict=False)]
    return _records(path, value if isinstance(value, list) else [value], "entry")


def _json_lines(path: Path) -> pd.DataFrame:
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            found += [json.loads(line)] if line.strip() else []
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}, row {number} is not JSON: {error}") from None
    return _records(path, found, "row")


def _records(path: Path, values: list[Any], word: str) -> pd.DataFrame:
    rows = []
    for number, value in enumerate(values, 1):
        if not isinstance(value, Mapping):
            raise InputError(f"{path}, {word} {number} is {value!r:.60}; it must be names and values")
        flat = {name: cell for name, cell in flatten(value) if not isinstance(cell, list)}
        rows.append({re.sub(r"^(config|summary|summary_metrics|params|metrics)\.", "", n): v for n, v in flat.items()})
    return pd.DataFrame(rows).assign(**{PLACE: [f"{path}, {word} {i}" for i in range(1, len(rows) + 1)]})


def _mlflow(path: Path) -> pd.DataFrame:
    """Runs of an MLflow store: their parameters, and the last value of each metric."""
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as store:
            runs = pd.read_sql(
                "select run_uuid, name as run_name, experiment_id from runs where lifecycle_stage = 'active'", store
            )
            params = pd.read_sql("select run_uuid, key, value from params", store)
            metrics = pd.read_sql("select run_uuid, key, value from latest_metrics", store)
    except (sqlite3.Error, pd.errors.DatabaseError) as error:
        raise InputError(f"{path} is not an MLflow store: {str(error).splitlines()[-1]}") from None
    places = [f"{path}, run {name}" for name in runs["run_name"]]
    for part in (params, metrics):
        wide = part.pivot(index="run_uuid", columns="key", values="value")
        taken = {name: f"{name} (metric)" for name in wide.columns if name in runs}
        runs = runs.join(wide.rename(columns=taken), on="run_uuid")
    text_columns = [name for name in runs.columns if not pd.api.types.is_numeric_dtype(runs[name])]
    text = {name: _column(runs[name].fillna("").astype(str), places) for name in text_columns}
    return runs.assign(**text, **{PLACE: places})
