"""Tables of pictures as people and tools write them: which column names the picture, its class, its split.

Comes in: a .csv, .tsv or .txt file. Goes out: a row a picture, and a sentence for every column that was guessed or is
not used. What a column means follows from its header first and from its values second (docs/data.md).
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from headstart.data import words
from headstart.data.decode import SUFFIXES
from headstart.records.errors import InputError
from headstart.records.text import from_data_cell, printable


def _in_order(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_PATHS = _in_order(
    "path file filename filepath fullpath relpath relativepath image imagefile imagefilename imagename "
    "imagepath img imgfile imgname imgpath picture picturename photo photoname fname uri name imageid imgid "
    "pictureid photoid imageindex key id"
)
_LABELS = _in_order(
    "label class category target labels classes species labelname classname categoryname breed variety genus "
    "family diagnosis dx finding tag tags groundtruth gt labeltext classlabel y labelid classid categoryid "
    "targetid labelidx classidx classindex labelindex"
)
_SPLITS = _in_order("split subset partition set usage phase dataset datasplit splitname fold mode")
_FLAGS = {
    **dict.fromkeys(_in_order("isvalid isval valid val validation isvalidation isdev"), ("val", "train")),
    **dict.fromkeys(_in_order("istest test istesting isholdout"), ("test", "train")),
    **dict.fromkeys(_in_order("istrain train istraining"), ("train", "test")),
}
"""Columns of yes and no that say a split, and which for yes and for no."""
_YES_OR_NO = {"1": True, "1.0": True, "true": True, "yes": True, "0": False, "0.0": False, "false": False, "no": False}
_NO_LABEL = frozenset(
    ("", *_in_order("na n/a #n/a <na> nan none null nil - -- ? unlabeled unlabelled missing")),
)
"""What people and pandas write where there is no label."""


def is_label(header: str) -> bool:
    """Whether a column of that name holds classes."""
    return re.sub(r"[\W_]+", "", header).lower() in _LABELS


def no_label(text: str) -> bool:
    """Whether a text is what stands where there is no label."""
    return text.strip().lower() in _NO_LABEL


def class_name(value: object, names: Sequence[str]) -> str | None:
    """The class that a cell of Hugging Face's means, where `names` are those of its numbers; None: no label."""
    if isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    return None if value is None or no_label(str(value)) or (names and value == -1) else str(value)


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
    kept = [(line, cells) for line, cells in lines if not cells[0].startswith("#") or is_picture(cells[0])]
    if not kept:
        raise InputError(f"{path} is empty; expected one picture a line")
    columns = _Columns(path, [cells for _, cells in kept])
    if len(kept) < len(lines) and path.suffix.lower() != ".txt":
        columns.notes.append(f"{path.name}: {len(lines) - len(kept)} comment lines passed over")
    rows = columns.rows(kept)
    return Table(rows, columns.label is not None or bool(columns.one_of), columns.notes)


def _cells(path: Path) -> list[tuple[int, list[str]]]:
    """(line, cells) of a .csv or .tsv; of any other file each line as one cell."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # a name may hold a line end of either kind
            text = file.read()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    kind = path.suffix.lower()
    if kind not in (".csv", ".tsv"):
        return [(n, [line.strip()]) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    first = next((line for line in text.splitlines() if line.strip() and not line.startswith("#")), "")
    separator = "\t" if kind == ".tsv" else next((mark for mark in ";,\t|" if mark in first), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        return [
            (reader.line_num, [from_data_cell(cell.strip()) for cell in row])
            for row in reader
            if any(cell.strip() for cell in row)
        ]
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num} is not a {kind[1:].upper()} table: {error}") from None


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
            self.name, self.label = 0, 1 if len(rows[0]) > 1 else None
            self._say_unused(list(range(2, max(map(len, rows)))))
            return
        keys = [re.sub(r"[\W_]+", "", cell).lower() for cell in self.header]
        self.name = self._named(keys, _PATHS, body)
        rest = [i for i in range(len(keys)) if i != self.name]
        self._find_splits(keys, rest, body)
        rest = [i for i in rest if i != self.split and i not in self.flags]
        self._find_labels(keys, rest, body)
        self._say_unused([i for i in rest if i != self.label and i not in self.one_of])

    @staticmethod
    def _header(rows: Sequence[list[str]]) -> list[str]:
        """The first row where it is a header: it names the picture's column, or is no picture where the next row is."""
        first = rows[0]
        known = any(re.sub(r"[\W_]+", "", cell).lower() in _PATHS for cell in first)
        named = any(_is_name(cell) for cell in first)
        return first if not named and (known or (len(rows) > 1 and any(map(_is_name, rows[1])))) else []

    def _named(self, keys: list[str], wanted: Sequence[str], body: Sequence[list[str]]) -> int:
        """The column of pictures: the first by header whose cells look like files, else the first by header."""
        known = sorted((i for i, key in enumerate(keys) if key in wanted), key=lambda i: wanted.index(keys[i]))
        looking = [i for i in range(len(keys)) if body and _is_name(_cell(body[0], i))]
        return next(
            (i for i in known if i in looking), (known or looking)[0] if not (known and looking) else looking[0]
        )

    def _find_splits(self, keys: list[str], rest: list[int], body: Sequence[list[str]]) -> None:
        for i in sorted((i for i in rest if keys[i] in _SPLITS), key=lambda i: _SPLITS.index(keys[i])):
            values = Counter(_cell(row, i) for row in body)
            if keys[i] == "split" or any(value and _kind(value) for value in values):
                self.split = i
                return
        self.flags = {
            i: _FLAGS[keys[i]]
            for i in rest
            if keys[i] in _FLAGS and all(_cell(row, i).lower() in _YES_OR_NO for row in body)
        }

    def _find_labels(self, keys: list[str], rest: list[int], body: Sequence[list[str]]) -> None:
        known = sorted((i for i in rest if keys[i] in _LABELS), key=lambda i: _LABELS.index(keys[i]))
        if known:
            self.label = known[0]
            return
        yes_or_no = [i for i in rest if self.header[i] and all(_cell(row, i).lower() in _YES_OR_NO for row in body)]
        if len(yes_or_no) > 1:
            self.one_of = yes_or_no
            self._say(f"{self._called(yes_or_no)} taken for one class a column")
        elif len(rest) == 1 and _repeats([_cell(row, rest[0]) for row in body]):
            self.label = rest[0]
            self._say(f"{self._called(rest)} taken for the label")

    def rows(self, lines: Sequence[tuple[int, list[str]]]) -> list[TableRow]:
        """A row for every line below the header."""
        rows, none, several = [], Counter[str](), 0
        for line, cells in lines[1:] if self.header else lines:
            label = None
            if self.one_of:
                yes = [i for i in self.one_of if _YES_OR_NO[_cell(cells, i).lower()]]
                several += len(yes) > 1
                label = self.header[yes[0]] if len(yes) == 1 else None
            elif self.label is not None:
                text = _cell(cells, self.label)
                label = None if no_label(text) else text
                if label is None and text:
                    none[text] += 1
            rows.append(TableRow(line, _cell(cells, self.name), label, self._split_of(line, cells)))
        if several:
            self._say(f"{several} rows have several classes and are left unlabelled")
        if none.total():
            self._say(f"{none.total()} labels {', '.join(none)} taken for none")
        return rows

    def _split_of(self, line: int, cells: list[str]) -> str:
        if self.split is not None:
            text = _cell(cells, self.split)
            kind = _kind(text) if text else ""
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
        more = f" and {len(names) - shown} more" if len(names) > shown else ""
        return f"column{'s' if len(names) > 1 else ''} {', '.join(names[:shown])}{more}"

    def _say(self, what: str) -> None:
        self.notes.append(f"{self.path.name}: {what}")


def _cell(row: list[str], column: int) -> str:
    return row[column] if column < len(row) else ""


def _is_name(cell: str) -> bool:
    return cell.lower().endswith(tuple(SUFFIXES))


def _kind(text: str) -> str | None:
    """The official split that a word means; unlabelled pictures are there to train on."""
    means = words.meaning(text)
    if means is None or means.rest or means.kind == "annotation" or "hold" in text.lower():
        return None  # a hold-out may be either
    return "train" if means.kind in ("unlabelled", "labelled") else means.kind


def _repeats(values: list[str]) -> bool:
    """Whether these could be classes: each occurs twice on average, and they are no measurements."""
    different = {value for value in values if value}
    return 0 < 2 * len(different) <= len(values) and not any(re.fullmatch(r"-?\d*\.\d+", value) for value in different)
