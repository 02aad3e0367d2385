"""The authors' MLflow exports as typed rows: CSV files of three kinds, told apart by their columns.

Numbers may have a decimal point or a decimal comma. Every complaint names file and row, as a spreadsheet counts.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import pandas as pd

from headstart.records.errors import InputError
from headstart.records.files import unreadable
from headstart.records.text import printable


@dataclass(frozen=True)
class ExportRow:
    """One parsed row and where it stands."""

    file: Path
    number: int
    """As a spreadsheet counts: the header is row 1."""
    values: Mapping[str, Any]

    def __getitem__(self, column: str) -> Any:
        """The value in a column."""
        return self.values[column]

    @property
    def place(self) -> str:
        """Where it stands, for a complaint."""
        return f"{self.file}, row {self.number}"


SETTINGS: dict[str, str] = {
    "backbone": "text",
    "weights": "text",
    "dataset_name": "text",
    "img_size": "count",
    "standardize": "flag",
    "batch_size": "count",
    "epochs": "count",
    "learning_rate": "number",
    "momentum": "number",
    "weight_decay": "number",
    "temperature": "number",
    "projection_head": "text",
    "projection_head_activation": "text",
    "projection_head_embedding_dim": "count",
    "latent_dimensions": "count",
    "freeze_projection_head": "flag",
    "simclr_trainable_params": "whole",
    "simclr_non_trainable_params": "whole",
}
"""Settings of a SimCLR run, stated by its training row and again by its evaluation row."""

RECORD = {"Run ID": "text", "Start Time": "text", "Duration": "duration"}

METRICS = ("MulticlassAccuracy", "MulticlassF1Score", "MulticlassPrecision", "MulticlassRecall")

COLUMNS: dict[str, dict[str, str]] = {
    "autoencoder": RECORD
    | {
        "dataset_name": "text",
        "img_size": "count",
        "batch_size": "count",
        "epochs": "count",
        "learning_rate": "number",
        "weight_decay": "number",
        "standardize": "flag",
        "latent_dimensions": "count",
        "model_ckpt": "text",
        "test_mse": "share",
        "train_loss": "loss",
        "val_loss": "loss",
    },
    "training": RECORD
    | SETTINGS
    | {
        "projection_head_weights": "optional",
        "simclr_model_ckpt": "text",
        "train_loss": "loss",
        "val_loss": "loss",
    },
    "evaluation": RECORD
    | SETTINGS
    | {
        "simclr_model_ckpt": "text",
        "logreg_model_ckpt": "text",
        "logreg_trainable_params": "count",
        "eval_epochs": "count",
        "eval_learning_rate": "number",
        "eval_weight_decay": "number",
        "eval_test_perc": "share",
        "test_loss": "loss",
        "test_micro_MulticlassAccuracy": "share",
        **{f"test_macro_{name}": "share" for name in METRICS},
    },
}

KEY = {"autoencoder": "model_ckpt", "training": "simclr_model_ckpt", "evaluation": "simclr_model_ckpt"}

NUMBER = re.compile(r"[-+]?\d+(?:[.,](\d+))?(?:[eE][-+]?\d+)?")
DECIMAL = ("number", "share", "loss")
UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
DURATION = re.compile(r"(\d+(?:[.,]\d+)?)\s*(ms|s|min|h|d)")


def read_export(path: Path) -> tuple[str, list[ExportRow]]:
    """Read one CSV export: its kind (autoencoder, training or evaluation) and its typed rows.

    One file has one decimal sign throughout. Raises InputError naming the file and row for a missing column, a cell
    that is not what its column holds, a number with the other decimal sign, and a row that repeats an earlier one.
    """
    table = _table(path)
    kind = _kind(path, list(table.columns))
    missing = [column for column in COLUMNS[kind] if column not in table.columns]
    if missing:
        raise InputError(f"{path}, row 1: the {kind} export lacks the column {', '.join(map(repr, missing))}")
    table = table.loc[:, ~table.columns.duplicated()][list(COLUMNS[kind])]
    _check_decimal_sign(path, table[[c for c, sort in COLUMNS[kind].items() if sort in DECIMAL]])
    rows = [
        ExportRow(
            path, int(number), {c: _cell(f"{path}, row {number}", c, COLUMNS[kind][c], v) for c, v in cells.items()}
        )
        for number, cells in zip(table.index, table.to_dict("records"), strict=True)
    ]
    refuse_repeats(rows, "Run ID")
    return kind, rows


def _table(path: Path) -> pd.DataFrame:
    """The cells as text, by column and by row number; blank rows are left out."""
    try:  # pandas' other reader fills torn rows with empty cells
        table = pd.read_csv(
            path,
            header=None,
            dtype=str,
            keep_default_na=False,
            encoding="utf-8-sig",
            skip_blank_lines=False,
            engine="python",
        )
    except pd.errors.EmptyDataError:
        table = pd.DataFrame()
    except OSError as error:
        raise InputError(unreadable(path, error)) from None
    except ValueError as error:
        raise InputError(f"{path} is not a CSV file in UTF-8: {error}") from None
    table.index += 1
    table = table.dropna(how="all")
    if table.empty:
        raise InputError(f"{path} is empty; it must be a CSV export with a header row")
    torn = table.index[table.isna().any(axis=1)]
    if len(torn):
        cells = int(table.loc[torn[0]].notna().sum())
        raise InputError(f"{path}, row {torn[0]}: {cells} cells where the header has {table.shape[1]} columns")
    return table.iloc[1:].set_axis(list(table.iloc[0]), axis=1)


def _kind(path: Path, header: list[str]) -> str:
    marks = {
        "evaluation": ("logreg_model_ckpt", "logreg_trainable_params", "test_micro_MulticlassAccuracy"),
        "training": ("simclr_model_ckpt", "projection_head", "simclr_trainable_params"),
        "autoencoder": ("test_mse", "model_ckpt", "input_dimensions"),
    }
    for kind, columns in marks.items():
        if any(column in header for column in columns):
            return kind
    raise InputError(
        f"{path}, row 1: none of the columns {', '.join(c for columns in marks.values() for c in columns)}; "
        "it must be an export of autoencoder, SimCLR or evaluation runs"
    )


def _check_decimal_sign(path: Path, numbers: pd.DataFrame) -> None:
    cells = numbers.stack()
    used = {sign: cells[cells.str.contains(sign, regex=False)] for sign in ".,"}
    if all(len(found) for found in used.values()):
        sign = min(used, key=lambda s: len(used[s]))
        (number, column), value = used[sign].index[0], used[sign].iloc[0]
        other = {".": "comma", ",": "point"}[sign]
        raise InputError(
            f"{path}, row {number}: {column} is {printable(value)!r}, but the file's numbers have a decimal {other}"
        )


def _cell(place: str, column: str, sort: str, text: str) -> Any:
    value, right = PARSERS[sort](text.strip())
    if value is None:
        raise InputError(f"{place}: {column} is {printable(text)!r}; it must be {right}")
    return value


def _number(text: str, good: Callable[[float], bool], right: str) -> tuple[float | None, str]:
    value = float(text.replace(",", ".")) if NUMBER.fullmatch(text) and len(text) < 40 else None
    return (value if value is not None and good(value) else None), right


def _whole(text: str, least: int) -> tuple[int | None, str]:
    value = int(text) if re.fullmatch(r"\d{1,12}", text, re.ASCII) else None
    return (value if value is not None and value >= least else None), f"a whole number of at least {least}"


def _duration(text: str) -> tuple[float | None, str]:
    # MLflow writes durations with a point whatever the other numbers have.
    match = DURATION.fullmatch(text)
    seconds = float(match[1].replace(",", ".")) * UNITS[match[2]] if match and len(text) < 40 else None
    return seconds, "a duration such as 49.4min or 2.0h"


PARSERS: dict[str, Callable[[str], tuple[Any, str]]] = {
    "text": lambda text: (text or None, "filled in"),
    "optional": lambda text: (text, ""),
    "flag": lambda text: ({"True": True, "False": False}.get(text), "True or False"),
    "count": lambda text: _whole(text, 1),
    "whole": lambda text: _whole(text, 0),
    "number": lambda text: _number(text, lambda v: 0 <= v < float("inf"), "a number of 0 or more"),
    "loss": lambda text: _number(text, isfinite, "a number"),
    "share": lambda text: _number(text, lambda v: 0 <= v <= 1, "a number from 0 to 1 (is the decimal sign lost?)"),
    "duration": _duration,
}


def refuse_repeats(rows: Iterable[ExportRow], column: str) -> dict[str, ExportRow]:
    """Rows by what a column holds; raises InputError naming both where two hold the same."""
    seen: dict[str, ExportRow] = {}
    for row in rows:
        first = seen.setdefault(row[column], row)
        if first is not row:
            where = f"row {first.number}" + ("" if first.file == row.file else f" of {first.file}")
            raise InputError(f"{row.place} repeats {where}: the same {column} {printable(row[column])!r}")
    return seen
