"""Lists of pictures, and tables that give pictures their labels.

Comes in: a .txt, .csv or .tsv file. Goes out: its pictures, with labels and official split where it has such columns.
"""

import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from headstart.data.decode import SUFFIXES
from headstart.data.source import Entry, Found, Source, relabel
from headstart.data.table import TableRow, read_table
from headstart.records.errors import InputError
from headstart.records.files import expanded
from headstart.records.text import first_few, number, printable

LISTS = (".txt", ".csv", ".tsv")
"""Endings of files that list pictures."""


def in_list(path: Path) -> Found:
    """The pictures of a list; those that are not there are set aside, each by itself.

    Raises InputError when two rows disagree about one picture, or none of the pictures is there.
    """
    table = read_table(path, lambda name: os.path.exists(path.parent / name))
    entries: dict[str, Entry] = {}  # by where a picture lies, however a row spells it
    rows: dict[str, TableRow] = {}
    skipped = []
    for row in table.rows:
        if not row.name:
            skipped.append((f"row {row.line}", "it names no picture"))
            continue
        place, name, reason = _located(path.parent, row.name)
        if reason:
            skipped.append((_short(name), reason))
            continue
        one = os.path.abspath(place)
        before = rows.setdefault(one, row)
        if before[2:] != row[2:]:
            raise _disagreement(path, before, row)
        entries.setdefault(one, Entry(name, place, row.label, row.split))
    named = [row.name for row in table.rows if row.name]
    if not named:
        empty = f" (row {table.rows[0].line} has nothing there)" if table.rows else ""
        raise InputError(f"{path} names no pictures{empty}; a line each is needed, with its path")
    if not entries:
        raise InputError(
            f"of {number(len(skipped), 'picture')} in {path} none exists; paths are relative to its folder, so the "
            f"first was looked for at {printable(_short(os.path.join(path.parent.absolute(), named[0])))} "
            f"({_located(path.parent, named[0])[2]})" + _label_behind(path, named[0])
        )
    return Found(list(entries.values()), skipped, table.notes)


def _label_behind(path: Path, name: str) -> str:
    """The way out where a line of plain text holds more than a path (`a.png 3`, as for Caffe)."""
    first = re.split(r"[\s,;]", name, maxsplit=1)[0]
    if path.suffix.lower() == ".txt" and first != name and first.lower().endswith(tuple(SUFFIXES)):
        return "; with labels behind the paths it must be a .csv or .tsv table"
    return ""


def _located(folder: Path, name: str) -> tuple[str, str, str | None]:
    """(path, name with /, None) of a picture in a list, or the reason why it is not there."""
    reason = "no such file"
    for spelled in _spellings(name):
        place = os.path.join(folder, spelled)
        try:
            os.stat(place)
            return place, os.path.normpath(spelled).replace(os.sep, "/"), None
        except FileNotFoundError:
            pass
        except OSError as error:
            reason = error.strerror or str(error)
        except ValueError:
            reason = "a NUL byte in its name"
    return "", Path(name).as_posix(), reason


def _spellings(name: str) -> Iterator[str]:
    """A name as it is written, and as another system would have written it."""
    yield name
    if name.startswith("~"):
        yield str(expanded(name))
    for form in ("NFC", "NFD"):
        if (other := unicodedata.normalize(form, name)) != name:
            yield other
    if "\\" in name:
        yield name.replace("\\", "/")
    if not name.lower().endswith(tuple(SUFFIXES)):
        yield from (name + ending for ending in (".jpg", ".png", ".jpeg", ".tif", ".bmp"))


def _short(name: str, longest: int = 120) -> str:
    return name if len(name) <= longest else f"{name[:longest]}… ({len(name):,} characters)"


def _disagreement(path: Path, first: TableRow, again: TableRow) -> InputError:
    said = [f"{row.label or 'no label'}{f' in {row.split}' if row.split else ''}" for row in (first, again)]
    return InputError(
        f"{path}, row {again.line} lists {printable(_short(again.name))} again, with another label or split: "
        f"{printable(said[1])} after {printable(said[0])} in row {first.line}; keep one of them"
    )


def labelled_by(path: Path, source: Source) -> Source:
    """A source with the labels, and where it has no official split also the split, of a table `name,label`.

    Raises InputError when the file cannot be read, has no labels, contradicts itself, or names no picture of these.
    """
    if not path.is_file():
        raise InputError(f"data.labels is {path}; it must be auto, folders, none, or an existing CSV file `name,label`")
    find = _Finder(source, path.parent)
    table = read_table(path, lambda name: find(name) is not None)
    if not table.labelled:
        columns = "".join(f" ({note.partition(': ')[2]})" for note in table.notes)
        raise InputError(f"{path} has no label column{columns}; expected `name,label`")
    chosen: dict[int, TableRow] = {}
    missing, several = 0, ""
    for row in table.rows:
        at = find(row.name)
        if at is None:
            missing += 1
            several = several or find.several(row.name)
        elif (before := chosen.setdefault(at, row))[2:] != row[2:]:
            raise _disagreement(path, before, row)
    if not chosen and several:
        raise InputError(f"{path} names no picture of DATA alone: {several}")
    if not chosen:
        raise InputError(
            f"of {number(missing, 'name')} in {path} none is a picture of DATA: it names "
            f"{printable(_short(table.rows[0].name)) if missing else 'none'}, DATA holds {printable(source.names[0])}"
        )
    notes = [*table.notes]
    if missing:
        which = f", or several: {several}" if several else ""
        notes.append(f"{path.name}: {missing} of {len(table.rows)} names are no picture of DATA{which}")
    labels = [chosen[i].label if i in chosen else None for i in range(len(source.names))]
    return _split_by(path, relabel(source, labels, notes=notes), chosen)


def _split_by(path: Path, source: Source, chosen: dict[int, TableRow]) -> Source:
    """A source with the split that a table's rows say, unless it has an official one."""
    if not any(row.split for row in chosen.values()):
        return source
    if (source.official != "").any():
        return replace(source, notes=(*source.notes, f"{path.name}: its split is not used, because DATA has one"))
    official = np.array([chosen[i].split if i in chosen else "" for i in range(len(source.names))], dtype="U5")
    return replace(source, official=official)


class _Finder:
    """The number of the picture that a table's name means: its whole name, its path (absolute, or from the table's
    folder), or its file name where that is unique."""

    def __init__(self, source: Source, folder: Path) -> None:
        self._folder = os.path.abspath(folder)
        self._whole = {unicodedata.normalize("NFC", name): i for i, name in enumerate(source.names)}
        self._paths = {
            unicodedata.normalize("NFC", os.path.abspath(path)): i
            for i, path in enumerate(source.pictures)
            if isinstance(path, str)
        }
        self._names = source.names
        self._short: dict[str, list[int]] = {}
        for i, name in enumerate(source.names):
            base = unicodedata.normalize("NFC", name.rsplit("/", 1)[-1])
            for form in {base, os.path.splitext(base)[0]}:
                self._short.setdefault(form, []).append(i)

    def __call__(self, name: str) -> int | None:
        """None: no picture, or several."""
        for wanted in self._spelled(name):
            place = os.path.normpath(os.path.join(self._folder, wanted))
            if (at := self._whole.get(wanted, self._paths.get(place))) is not None:
                return at
            if len(same := self._short.get(wanted, [])) == 1:
                return same[0]
        return None

    def several(self, name: str) -> str:
        """What is said of a file name that several pictures have; nothing where they have not."""
        same = next((self._short[wanted] for wanted in self._spelled(name) if wanted in self._short), [])
        which = first_few([printable(self._names[i]) for i in same], 3)
        return f"{printable(name)} could be {which}; write the folder as well" if same else ""

    @staticmethod
    def _spelled(name: str) -> Iterator[str]:
        for spelled in (name, name.replace("\\", "/")):
            yield unicodedata.normalize("NFC", os.path.normpath(spelled))
