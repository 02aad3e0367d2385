"""CSV, TSV and what else is text with a separator: cells as text first, then numbers as numbers.

Comes in: a file. Goes out: its cells with the column `PLACE`, in which each row's file and line stand; `typed` makes
numbers of them whatever their decimal sign. What is no table ends in one sentence that names the file and the row.
"""

import csv
import io
import re
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from headstart.records.errors import InputError
from headstart.records.files import unreadable
from headstart.records.text import number as counted
from headstart.records.text import printable

PLACE = "where it stands"
"""Column: file and row, for sentences."""

OUTCOMES = "outcomes"
"""Attribute of a table: columns that a tracker calls metrics."""

NUMBER = re.compile(r"[-+]?([0-9]+([.,][0-9]*)?|[.,][0-9]+)([eE][-+]?[0-9]+)?( ?%)?")
GROUPED = re.compile(r"[-+]?[1-9][0-9]{0,2},[0-9]{3}")
"""Ten thousand, or ten with a decimal comma and three decimals."""
EMPTY = ("", "nan", "NaN", "NA", "N/A", "#N/A", "n/a", "null", "NULL", "None", "-", "–", "--")
"""What stands in a column of numbers where there is none."""
MISSING = ("nan", "NaN", "N/A", "null", "NULL")
"""What stands in a column of words where there is none; `None` and `-` may be words."""
NOTHING = "nan"
"""How a missing cell is spelt where rows are matched."""
EXACT = 2**53
"""Whole numbers above it are names: as floats, two of them may be one."""
SIGNATURES = {
    b"PK\x03\x04": "an Excel workbook or a zip archive; save the table as CSV",
    b"\x1f\x8b": "compressed (gzip); unpack it first",
    b"PAR1": "a parquet file; call it .parquet",
    b"SQLite format 3": "an sqlite file; an MLflow store is called .db",
}


def cells(path: Path) -> pd.DataFrame:
    """A file's cells, stripped, as text, with `PLACE`. Raises InputError naming the row that is not as the others."""
    text = _text(path)
    sign = _separator(text)
    lines = _lines(path, text, sign)
    if not lines:
        raise InputError(f"{path} is empty; it must have a header row and a row a run")
    header = [cell.strip() or f"column {i}" for i, cell in enumerate(lines[0][1], 1)]
    repeated = next((name for name in header if header.count(name) > 1), None)
    if repeated is not None:
        raise InputError(f"{path}, row 1: there are two columns {printable(repeated)!r}")
    for number, row in lines[1:]:
        if len(row) != len(header):
            raise InputError(
                f"{path}, row {number}: {counted(len(row), 'cell')} where the header has "
                f"{counted(len(header), 'column')}"
            )
        if [cell.strip() for cell in row] == lines[0][1]:
            raise InputError(f"{path}, row {number} repeats the header; take it out")
    table = pd.DataFrame([row for _, row in lines[1:]], columns=header, dtype=str)
    table = table.apply(lambda column: column.str.strip()) if len(table) else table
    table = table.assign(**{PLACE: [f"{path}, row {number}" for number, _ in lines[1:]]})
    if sign == ",":
        _refuse_grouped(table)
    return table


def _refuse_grouped(table: pd.DataFrame) -> None:
    """Refuse `10,000` in a file whose columns separate at commas, unless another of its numbers has a decimal comma."""
    doubtful = ""
    for name in table.columns.drop(PLACE):
        known = table[name][~table[name].isin(EMPTY)]
        values = known.unique()
        commas = [value for value in values if "," in value]
        if not commas or not all(map(NUMBER.fullmatch, values)):
            continue
        if not all(map(GROUPED.fullmatch, commas)):
            return
        at = known.index[known == commas[0]][0]
        doubtful = doubtful or f"{table[PLACE][at]}: {printable(name)} is {printable(commas[0])!r}"
    if doubtful:
        raise InputError(
            f"{doubtful}, which may be thousands or have a decimal comma, and no other number of the file tells; write "
            "it without the comma, or with a decimal point"
        )


def typed(table: pd.DataFrame, text: Collection[str] = ()) -> pd.DataFrame:
    """Columns of numbers as numbers; those of `text` as they are."""
    places = list(table[PLACE])
    own = [name for name in table.columns if name != PLACE and name not in text]
    return table.assign(**{name: column(table[name], places) for name in own})


def column(values: pd.Series, places: list[str]) -> pd.Series:
    """Numbers where all cells are, with one decimal sign; shares of percentages; else text."""
    filled = ~values.isin(EMPTY)
    known = values[filled]
    if known.empty or not all(map(NUMBER.fullmatch, known.unique())):
        return values.where(~values.isin(MISSING), "")
    _alike(known, known.str.contains("%", regex=False), places, "but not all of the column's numbers have a % sign")
    percent = known.str.endswith("%").all()
    known = known.str.rstrip(" %")
    commas = known.str.contains(",", regex=False)
    points = known.str.contains(".", regex=False)
    decimal = commas | points
    _alike(known[decimal], commas[decimal], places, "but the column's numbers have another decimal sign")
    if not decimal.any() and not percent and any(map(_is_a_name, known.unique())):
        return values
    numbers = known.str.replace(",", ".").astype(float)  # pandas' to_numeric may make a missing one of 1e999
    numbers = numbers / 100 if percent else numbers
    return numbers if filled.all() else numbers.reindex(values.index)


def spelt(values: pd.Series) -> pd.Series:
    """Cells as text that is the same from whatever file: 64.0 is `64`, `true` is `True`, a missing one is `NOTHING`."""
    codes, known = pd.factorize(values)
    words = np.array([*map(spelt_one, known), NOTHING], dtype=object)
    return pd.Series(words[codes], index=values.index, name=values.name, dtype=object)


def spelt_one(value: object) -> str:
    """One cell as `spelt` has it."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= EXACT:
        return str(int(value))
    text = str(value)
    return text.capitalize() if text.lower() in ("true", "false") else text or NOTHING


def _is_a_name(digits: str) -> bool:
    return "e" not in digits.lower() and (len(digits) > 300 or abs(int(digits)) > EXACT)


def _alike(known: pd.Series, marked: pd.Series, places: list[str], words: str) -> None:
    """Refuse a column some of whose cells are marked and some are not, naming the first of the fewer."""
    if marked.any() and not marked.all():
        few = marked if marked.sum() < (~marked).sum() else ~marked
        at = int(known[few].index[0])
        raise InputError(f"{places[at]}: {printable(str(known.name))} is {printable(known[at])!r}, {words}")


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(unreadable(path, error)) from None
    known = next((words for start, words in SIGNATURES.items() if raw.startswith(start)), None)
    if known is not None:
        raise InputError(f"{path} is {known}")
    wide = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        text = raw.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        row = raw[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path}, row {row} is not text in {'UTF-16' if wide else 'UTF-8'} ({error.reason}); save the table as CSV "
            "in UTF-8"
        ) from None
    if "\0" in text:
        row = text[: text.index("\0")].count("\n") + 1
        raise InputError(f"{path}, row {row} holds a NUL character: the file is damaged or no text; export it again")
    if text.lstrip().startswith("<"):
        raise InputError(f"{path} is a web page (HTML) or XML, not a table; download the file itself")
    return text


def _separator(text: str) -> str:
    """What the first row holds most of."""
    head = text.lstrip("\r\n").partition("\n")[0]
    return "\t" if "\t" in head else ";" if head.count(";") > head.count(",") else ","


def _lines(path: Path, text: str, sign: str) -> list[tuple[int, list[str]]]:
    """Number and cells of each row that is not empty."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=sign, strict=True)
    try:
        return [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        why = "a quotation mark is not closed" if "end of data" in str(error) else str(error)
        raise InputError(
            f"{path}, row {_started(text, sign, reader.line_num)} is not a row of a table: {why}"
        ) from None


def _started(text: str, sign: str, last: int) -> int:
    """The line at which the row that ends at line `last` begins."""
    reader, start = csv.reader(io.StringIO(text, newline=""), delimiter=sign, strict=True), 0
    try:
        for _ in reader:
            start = reader.line_num
    except csv.Error:
        return start + 1
    return last


def plain(table: pd.DataFrame) -> pd.DataFrame:
    """A tracker's table under plain names, which remembers what it calls metrics: runs are not matched on them."""
    names = plain_names(table.columns)
    found = table.rename(columns=names)
    found.attrs[OUTCOMES] = [names[name] for name in table.columns if _METRICS.match(name)]
    return found


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """Names without the section in which a tracker keeps them; a metric called like a setting is `NAME (metric)`."""
    found: dict[str, str] = {}
    for name in sorted(names, key=lambda name: _METRICS.match(name) is not None):
        plain = _SECTION.sub("", name)
        if plain in found.values():
            plain = f"{plain} (metric)" if _METRICS.match(name) else name
        found[name] = plain if plain not in found.values() else name
    return found


_METRICS = re.compile(r"(summary|summary_metrics|metrics)\.")
_SECTION = re.compile(r"^(config|summary|summary_metrics|params|metrics)\.")
