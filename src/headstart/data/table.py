"""Tables of pictures as people and tools write them: which column names the picture, its class, its split.

Comes in: a .csv, .tsv or .txt file. Goes out: a row a picture, and a sentence for every column that was guessed or is
not used. What a column means follows from its header first and from its values second (docs/data.md).
"""

import contextlib
import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from headstart.data import words
from headstart.data.decode import SUFFIXES
from headstart.data.labels import is_label, key, label_columns, no_label, none_said, without_minus_one
from headstart.records.errors import InputError
from headstart.records.files import unreadable
from headstart.records.text import first_few, from_data_cell, printable

PATHS = words.in_order(
    "path file filename filepath fullpath relpath relativepath image imagefile imagefilename imagename "
    "imagepath img imgfile imgname imgpath picture picturename photo photoname fname uri name imageid imgid "
    "pictureid photoid imageindex idcode key id"
)
SPLITS = words.in_order("split subset partition set usage phase dataset datasplit splitname fold mode")
_FLAGS = {
    **dict.fromkeys(words.in_order("isvalid isval valid val validation isvalidation isdev"), ("val", "train")),
    **dict.fromkeys(words.in_order("istest test istesting isholdout"), ("test", "train")),
    **dict.fromkeys(words.in_order("istrain train istraining"), ("train", "test")),
}
"""Columns of yes and no that say a split, and which for yes and for no."""
SNIFFED = 20
"""By so many rows it is told what separates a table's cells."""
_YES_OR_NO = {"1": True, "1.0": True, "true": True, "yes": True, "0": False, "0.0": False, "false": False, "no": False}


class TableRow(NamedTuple):
    """A row of a table: its line, the picture it names, its class (None: none) and split ('': none)."""

    line: int
    name: str
    label: str | None
    split: str


@dataclass
class Table:
    """What a table says of pictures.

    Attributes:
        rows: one a line that names a picture.
        labelled: whether some column is of classes.
        notes: which columns were guessed or not used, and what else was passed over.
    """

    rows: list[TableRow]
    labelled: bool
    notes: list[str] = field(default_factory=list)


def read_table(path: Path, is_picture: Callable[[str], bool]) -> Table:
    """Read a table; a header is optional (without one: path, label).

    is_picture: whether a cell names a picture that is there, which tells a name that begins with # from a comment.
    Raises InputError naming file and line: not text, not a table, empty, a split that is none.
    """
    lines = _cells(path)
    header = lines[0][0] if _marked_header(lines) else 0
    kept = [(n, cells) for n, cells in lines if n == header or not cells[0].startswith("#") or is_picture(cells[0])]
    if not kept:
        raise InputError(f"{path} is empty; expected one picture a line")
    columns = _Columns(path, [cells for _, cells in kept])
    if len(kept) < len(lines) and path.suffix.lower() != ".txt":
        columns.notes.append(f"{path.name}: {len(lines) - len(kept)} comment lines passed over")
    rows = columns.rows(kept)
    return Table(rows, columns.label is not None or bool(columns.one_of), columns.notes)


def _marked_header(lines: Sequence[tuple[int, list[str]]]) -> bool:
    """Whether the first line is a header behind a # (`#filename,label`, as annotation tools write) and no comment."""
    first = lines[0][1] if lines else []
    return (
        len(first) > 1
        and first[0].startswith("#")
        and any(key(cell) in PATHS for cell in first)
        and not any(map(_is_name, first))
        and next((len(cells) == len(first) for _, cells in lines[1:] if not cells[0].startswith("#")), False)
    )


def _cells(path: Path) -> list[tuple[int, list[str]]]:
    """(line, cells) of a .csv or .tsv; of any other file each line as one cell."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # a name may hold a line end of either kind
            text = file.read()
    except OSError as error:
        raise InputError(unreadable(path, error)) from None
    except UnicodeDecodeError as error:
        if path.suffix.lower() not in (".csv", ".tsv", ".txt"):
            raise InputError(f"{path} is no text, and a table is (.csv, .tsv or .txt)") from None
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    if text.count("\0") > len(text) // 4:
        raise InputError(f"{path} is UTF-16 text; save it as UTF-8")
    kind = path.suffix.lower()
    lines = list(io.StringIO(text, newline=None))  # ends at \n and \r alone: U+2028 and the like may stand in names
    if kind not in (".csv", ".tsv"):
        return [(n, [line.strip()]) for n, line in enumerate(lines, 1) if line.strip()]
    first = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    separator = "\t" if kind == ".tsv" else _separator(text, first)
    if said := re.fullmatch(r'"?sep=(.)"?\s*', first):  # Excel's own first line
        separator, text = said[1], text.replace(first.rstrip("\n"), "", 1)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        return [
            (reader.line_num, [from_data_cell(cell.strip()) for cell in row])
            for row in reader
            if any(cell.strip() for cell in row)
        ]
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num} is not a {kind[1:].upper()} table: {error}") from None


def _separator(text: str, first: str) -> str:
    """Of the marks under which the first rows have as many cells each, two or more, the one that comes first; else of
    those in the first line."""
    there = sorted((mark for mark in ";,\t|" if mark in first), key=first.index)
    for mark in there:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
        with contextlib.suppress(csv.Error):
            cells = {len(row) for row in itertools.islice(filter(None, rows), SNIFFED)}
            if len(cells) == 1 and max(cells) > 1:
                return mark
    return next((mark for mark in ";,\t|" if mark in there), ",")


class _Columns:
    """What each column of a table means.

    Attributes:
        header: the names of the columns; empty where there is none.
        name, label, split: the number of the column; None where there is none.
        flags: columns of yes and no that say a split; one_of: columns of which each says yes for one class.
    """

    def __init__(self, path: Path, rows: Sequence[list[str]]) -> None:
        self.path = path
        self.notes: list[str] = []
        self.label: int | None = None
        self.split: int | None = None
        self.flags: dict[int, tuple[str, str]] = {}
        self.one_of: list[int] = []
        self.header = self._header(rows)
        body = rows[1:] if self.header else rows
        if not self.header:
            self._without_header(rows)
            return
        keys = list(map(key, self.header))
        self.name = self._named(keys, PATHS, body)
        rest = [i for i in range(len(keys)) if i != self.name]
        self._find_splits(keys, rest, body)
        rest = [i for i in rest if i != self.split and i not in self.flags]
        self._find_labels(keys, rest, body)
        self._say_unused([i for i in rest if i != self.label and i not in self.one_of])

    @staticmethod
    def _header(rows: Sequence[list[str]]) -> list[str]:
        """The first row where it is a header: it names the picture's column, or a column of classes or splits behind
        another, or is no picture where the next row is."""
        first = rows[0]
        known = any(key(cell) in PATHS for cell in first) or any(
            is_label(cell) or key(cell) in SPLITS for cell in first[1:]
        )
        named = any(_is_name(cell) for cell in first)
        return first if not named and (known or (len(rows) > 1 and any(map(_is_name, rows[1])))) else []

    def _without_header(self, rows: Sequence[list[str]]) -> None:
        """Columns told by their values alone: the picture, a split where all are words for one, the class."""
        wide = range(max(map(len, rows)))
        self.name = next((i for i in wide if _is_name(_cell(rows[0], i))), 0)
        rest = [i for i in wide if i != self.name]
        self.split = next((i for i in rest if all(split_kind(_cell(row, i)) for row in rows)), None)
        rest = [i for i in rest if i != self.split and i > self.name] or [i for i in rest if i != self.split]
        self.label = rest[0] if rest else None
        if self.name or self.split is not None:
            taken = {"the picture": self.name, "its split": self.split, "its class": self.label}
            some = ", ".join(f"number {i + 1} for {what}" for what, i in taken.items() if i is not None)
            self._say(f"columns without a header, taken: {some}")
        self._say_unused([i for i in wide if i not in (self.name, self.label, self.split)])

    def _named(self, keys: list[str], wanted: Sequence[str], body: Sequence[list[str]]) -> int:
        """The column of pictures: the first by header whose cells look like files, else the first by header."""
        known = sorted((i for i, key in enumerate(keys) if key in wanted), key=lambda i: wanted.index(keys[i]))
        looking = [i for i in range(len(keys)) if body and _is_name(_cell(body[0], i))]
        return next((i for i in known if i in looking), (looking or known or [0])[0])

    def _find_splits(self, keys: list[str], rest: list[int], body: Sequence[list[str]]) -> None:
        for i in sorted((i for i in rest if keys[i] in SPLITS), key=lambda i: SPLITS.index(keys[i])):
            values = Counter(_cell(row, i) for row in body)
            if keys[i] == "split" or any(value and split_kind(value) for value in values):
                self.split = i
                return
        self.flags = {
            i: _FLAGS[keys[i]]
            for i in rest
            if keys[i] in _FLAGS and all(_cell(row, i).lower() in _YES_OR_NO for row in body)
        }

    def _find_labels(self, keys: list[str], rest: list[int], body: Sequence[list[str]]) -> None:
        known = label_columns([keys[i] for i in rest])
        if known:
            self.label = rest[known[0]]
            return
        yes_or_no = [i for i in rest if self.header[i] and all(_cell(row, i).lower() in _YES_OR_NO for row in body)]
        if len(yes_or_no) > 1:
            self.one_of = yes_or_no
            self._say(f"{self._called(yes_or_no)} taken for one class a column")
        elif len(rest) == 1 and _repeats([_cell(row, rest[0]) for row in body]):
            self.label = rest[0]
            self._say(f"{self._called(rest)} taken for the label")

    def _label_of(self, cells: list[str]) -> tuple[str | None, str | tuple[str, ...] | None]:
        """A line's class, and what the table says in its place."""
        if self.one_of:
            yes = tuple(self.header[i] for i in self.one_of if _YES_OR_NO[_cell(cells, i).lower()])
            return (yes[0] if len(yes) == 1 else None), yes
        text = None if self.label is None else _cell(cells, self.label)
        return (None if text is None or no_label(text) else text), text

    def rows(self, lines: Sequence[tuple[int, list[str]]]) -> list[TableRow]:
        """A row for every line below the header."""
        rows: list[TableRow] = []
        none: list[str | tuple[str, ...] | None] = []
        for line, cells in lines[1:] if self.header else lines:
            label, value = self._label_of(cells)
            none += [value] if label is None else []
            rows.append(TableRow(line, _cell(cells, self.name), label, self._split_of(line, cells)))
        for said in none_said(none):
            self._say(said)
        labels, notes = without_minus_one([row.label for row in rows])
        self.notes += [f"{self.path.name}: {note}" for note in notes]
        self._say_ragged(lines)
        return [row._replace(label=label) for row, label in zip(rows, labels, strict=True)]

    def _say_ragged(self, lines: Sequence[tuple[int, list[str]]]) -> None:
        """Cells beyond the header's last: a comma that is not quoted has moved what stands behind it."""
        longer = [line for line, cells in lines if self.header and any(cells[len(self.header) :])]
        if longer:
            self._say(
                f"row{'s' if len(longer) > 1 else ''} {first_few([*map(str, longer)])} have more cells than the "
                "header; what is beyond is not used (quote names that hold the separator)"
            )

    def _split_of(self, line: int, cells: list[str]) -> str:
        if self.split is not None:
            text = _cell(cells, self.split)
            kind = split_kind(text) if text else ""
            if kind is None:
                raise InputError(
                    f"{self.path}, row {line} has the split {printable(text)!r}; it must be train, val, test or empty"
                )
            return kind
        said = [yes if _YES_OR_NO[_cell(cells, i).lower()] else no for i, (yes, no) in self.flags.items()]
        # is_valid and is_test together: whichever says that it is not training.
        return next((kind for kind in said if kind != "train"), "train" if said else "")

    def _say_unused(self, columns: list[int]) -> None:
        if columns:
            self._say(f"{self._called(columns)} not used")

    def _called(self, columns: list[int], shown: int = 8) -> str:
        names = [printable((self.header[i] if self.header else "") or f"number {i + 1}") for i in columns]
        names = [
            f"{name} (number {i + 1})" if self.header.count(name) > 1 else name
            for i, name in zip(columns, names, strict=True)
        ]
        return f"column{'s' if len(names) > 1 else ''} {first_few(names, shown)}"

    def _say(self, what: str) -> None:
        self.notes.append(f"{self.path.name}: {what}")


def _cell(row: list[str], column: int) -> str:
    return row[column] if column < len(row) else ""


def _is_name(cell: str) -> bool:
    return cell.lower().endswith(tuple(SUFFIXES))


def split_kind(text: str) -> str | None:
    """The official split that a word means; unlabelled pictures are there to train on."""
    means = words.meaning(text)
    if means is None or means.rest or means.kind == "annotation" or "hold" in text.lower():
        return None  # a hold-out may be either
    return "train" if means.kind in ("unlabelled", "labelled") else means.kind


def _repeats(values: list[str]) -> bool:
    """Whether these could be classes: each occurs twice on average, and they are no measurements."""
    different = {value for value in values if value}
    return 0 < 2 * len(different) <= len(values) and not any(re.fullmatch(r"-?\d*\.\d+", value) for value in different)
