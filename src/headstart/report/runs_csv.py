"""A study's runs.csv, read back: `Records.runs` as the report wrote them, and what was compared."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from headstart.records.errors import InputError
from headstart.records.names import HEAD_INITS
from headstart.records.text import printable
from headstart.report.frame import COLUMNS, NUMBERS, WHOLE, ordered
from headstart.report.labels import head_parts


def is_study(columns: Iterable[str]) -> bool:
    """Whether a table has the columns of a study's runs.csv (`compare` is younger than the others)."""
    return {*COLUMNS} - {"compare"} <= {*columns}


def restored(table: pd.DataFrame, places: Sequence[str]) -> pd.DataFrame:
    """`Records.runs` from the table that a report writes of them (runs.csv), read as any table is.

    Raises InputError naming the place (of `places`, one a row) and the column where a cell is not what a report writes.
    """
    varied = [name for name in table.columns if name not in COLUMNS]
    text = [name for name in (*COLUMNS, *varied) if name not in (*NUMBERS, "frozen", "normalized")]
    table = table if "compare" in table else table.assign(compare="")
    runs = table.assign(
        **{name: table[name].astype(object).where(table[name].notna(), "").astype(str) for name in text}
    )
    for name in NUMBERS:
        numbers = pd.to_numeric(table[name].replace("", np.nan), errors="coerce")
        wrong = numbers.isna() & (table[name].notna() & (table[name] != "") if name not in WHOLE else True)
        _must(~wrong, table[name], places, "a number")
        runs[name] = numbers.astype(int) if name in WHOLE else numbers
    for name in ("frozen", "normalized"):
        said = table[name].astype(str)
        _must(said.isin(("True", "False")), table[name], places, "True or False")
        runs[name] = said == "True"
    _must(runs["init"].isin(list(HEAD_INITS)), runs["init"], places, f"one of {', '.join(HEAD_INITS)}")
    heads = runs["head"].map(
        lambda head: head_parts(head)[0] in HEAD_INITS and head.endswith(("-frozen", "-trainable"))
    )
    _must(heads, runs["head"], places, "an init with -frozen or -trainable")
    return ordered(runs, varied)


def compared(runs: pd.DataFrame) -> list[Any]:
    """What study.yaml names under `compare`, from the runs of one study or several."""
    named: list[Any] = []
    for text in runs["compare"].unique():
        try:
            stated = json.loads(text) if text else []
        except ValueError:
            stated = None
        if not isinstance(stated, list):
            raise InputError(f"runs.csv: compare is {text!r}; it must be a list as JSON, or empty")
        named += [entry for entry in stated if entry not in named]
    return named


def _must(right: pd.Series, values: pd.Series, places: Sequence[str], what: str) -> None:
    if not right.all():
        at = int(np.flatnonzero(~right)[0])
        value = values.iloc[at]
        said = "missing" if pd.isna(value) or value == "" else repr(printable(str(value)))
        raise InputError(f"{places[at]}: {values.name} is {said}; it must be {what}")
