"""Lists of pictures, and tables that give pictures their labels.

Comes in: a .txt, .csv or .tsv file. Goes out: its pictures, with labels and official split where it has such columns.
"""

import csv
import io
import unicodedata
from pathlib import Path

from headstart.data.folders import SPLITS
from headstart.data.source import Entry
from headstart.records.errors import InputError
from headstart.records.text import from_data_cell, printable

LISTS = (".txt", ".csv", ".tsv")
"""Endings of files that list pictures."""

_PATH_COLUMNS = ("path", "file", "filename", "filepath", "image", "picture", "name")
_LABEL_COLUMNS = ("label", "class", "category", "target")


def _rows(path: Path) -> list[list[str]]:
    """The cells of a .csv or .tsv, or the lines of any other file as one cell each."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # a name may hold a line end of either kind
            text = file.read()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    if path.suffix.lower() not in (".csv", ".tsv"):
        return [[line.strip()] for line in text.splitlines() if line.strip() and not line.startswith("#")]
    separator = "\t" if path.suffix.lower() == ".tsv" else ";" if ";" in text[: text.find("\n")] else ","
    try:
        return [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True) if any(row)]
    except csv.Error as error:
        raise InputError(f"{path} is not a {path.suffix[1:].upper()} table: {error}") from None


def _table(path: Path) -> tuple[list[tuple[int, str, str, str]], bool]:
    """(line, path, label, split) of each row of a list, and whether it has labels; a header row is optional."""
    rows = _rows(path)
    if not rows:
        raise InputError(f"{path} is empty; expected one picture a line")
    header = [cell.strip().lower() for cell in rows[0]]
    at = next((header.index(name) for name in _PATH_COLUMNS if name in header), None)
    if at is None:
        at, label, split, first = 0, 1 if len(header) > 1 else None, None, 0
    else:
        label = next((header.index(name) for name in _LABEL_COLUMNS if name in header), None)
        split, first = header.index("split") if "split" in header else None, 1

    def cell(row: list[str], column: int | None) -> str:
        return from_data_cell(row[column].strip()) if column is not None and column < len(row) else ""

    lines = [(n, cell(r, at), cell(r, label), cell(r, split)) for n, r in enumerate(rows[first:], first + 1)]
    return lines, label is not None


def in_list(path: Path) -> tuple[list[Entry], list[tuple[str, str]]]:
    """Entries of a list, and (name, reason) of lines that are set aside."""
    entries: dict[str, Entry] = {}
    skipped = []
    for line, name, label, split in _table(path)[0]:
        if not name:
            raise InputError(f"{path}, row {line} names no picture; give its path, relative to the list or absolute")
        if split and split.lower() not in SPLITS:
            raise InputError(
                f"{path}, row {line} has the split {printable(split)!r}; it must be train, val, test or empty"
            )
        picture = path.parent / Path(name).expanduser()
        shown = Path(name).as_posix()
        entry = Entry(shown, str(picture), label or None, SPLITS.get(split.lower(), ""))
        if shown in entries and entries[shown] != entry:
            raise InputError(f"{path}, row {line} lists {printable(shown)} again, with another label or split")
        if picture.exists():
            entries[shown] = entry
        else:
            skipped.append((shown, "no such file"))
    if not entries:
        raise InputError(f"none of the {len(skipped)} pictures in {path} exist; paths are relative to its folder")
    return list(entries.values()), skipped


def labels_of_file(path: Path, names: list[str]) -> list[str | None]:
    """A label for each name from a CSV `name,label`; None where it has none.

    Raises InputError when the file cannot be read, names a picture that is not there, or matches none.
    """
    if not path.is_file():
        raise InputError(f"data.labels is {path}; it must be auto, folders, none, or an existing CSV file `name,label`")
    lines, has_labels = _table(path)
    if not has_labels:
        raise InputError(f"{path} has no label column; expected `name,label`")
    normal = {unicodedata.normalize("NFC", name): i for i, name in enumerate(names)}
    short: dict[str, int | None] = {}
    for i, name in enumerate(names):
        base = unicodedata.normalize("NFC", name.rsplit("/", 1)[-1])
        short[base] = None if base in short else i  # a file name that occurs twice names nothing
    labels: list[str | None] = [None] * len(names)
    matched = 0
    for _, name, label, _ in lines:
        wanted = unicodedata.normalize("NFC", Path(name).as_posix())
        at = normal.get(wanted, short.get(wanted))
        if at is not None:
            matched += 1
            labels[at] = label or None
    if not matched:
        raise InputError(
            f"none of the {len(lines)} names in {path} is a picture of DATA, such as {printable(names[0])}"
        )
    return labels
