"""Pictures in a parquet file: a column of image bytes, and beside it labels and a split, as Hugging Face writes them.

Comes in: such a file (extra `parquet`). Goes out: its pictures, each read when it is asked for, some megabytes of rows
at a time, whatever the groups of rows in the file are.
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from headstart.data.decode import UnreadableError
from headstart.data.labels import class_name, key, label_columns, none_said, without_minus_one
from headstart.data.source import Entry, Found
from headstart.data.table import PATHS, SPLITS, split_kind
from headstart.records.errors import InputError
from headstart.records.text import not_used

AT_ONCE = 16 * 2**20
"""Bytes of pictures, about, that are read from a parquet file at once."""
BATCHES, TABLES = 4, 2
"""So many such batches of a file stay in memory, and of so many files: pictures are read in order, or nearly."""


@dataclass(frozen=True, eq=False)
class _Table:
    """A parquet file's column of image bytes."""

    path: Path
    column: str

    def value(self, group: int, row: int) -> Any:
        with _LOCK:
            reader = _READERS.pop(self, None) or _Reader(self)
            _READERS[self] = reader
            if len(_READERS) > TABLES:
                _READERS.popitem(last=False)
        return reader.value(group, row)


class _Reader:
    """An open parquet file, read onwards a batch at a time; for what lies further back in a group it starts again."""

    def __init__(self, table: _Table) -> None:
        from pyarrow import parquet  # noqa: PLC0415 - an extra

        self._file = parquet.ParquetFile(table.path, buffer_size=2**20)
        self._column = table.column
        self._lock = threading.Lock()
        self._kept: list[_Batch] = []
        self._rest: Iterator[Any] = iter(())
        self._group, self._row = -1, 0

    def value(self, group: int, row: int) -> Any:
        with self._lock:
            while True:
                for batch in self._kept:
                    if batch.group == group and 0 <= row - batch.start < len(batch.values):
                        return batch.values[row - batch.start]
                self._read_on(group, row)

    def _read_on(self, group: int, row: int) -> None:
        """One batch further; from the beginning of the group where that is not on the way to the row."""
        meta = self._file.metadata.row_group(group)
        rows = max(1, AT_ONCE * meta.num_rows // max(1, meta.total_byte_size))
        if group != self._group or row < self._row:
            self._rest = self._file.iter_batches(rows, [group], [self._column], use_threads=False)
            self._group, self._row = group, 0
        column = next(self._rest).column(0)
        if self._row + BATCHES * rows > row:  # not one that is only passed
            self._kept = [*self._kept, _Batch(group, self._row, column.to_pylist())][-BATCHES:]
        self._row += len(column)


class _Batch(NamedTuple):
    group: int
    start: int
    values: list[Any]


_READERS: OrderedDict[_Table, _Reader] = OrderedDict()
_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True)
class Cell:
    """A picture's bytes in a row of a parquet file."""

    table: _Table
    group: int
    row: int
    size: int

    def read(self) -> bytes:
        """The bytes of the picture's own file. Raises UnreadableError where the row holds none."""
        try:
            value = self.table.value(self.group, self.row)
        except Exception as error:  # pyarrow raises kinds of its own
            raise UnreadableError(f"damaged in {self.table.path.name}: {error}") from None
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes):
            raise UnreadableError("its row holds no picture")
        return data


def in_parquet(path: Path) -> Found:
    """Its pictures. Raises InputError naming the file, and what it lacks."""
    try:
        import pyarrow  # noqa: PLC0415 - an extra
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError:
        raise InputError(
            f"{path}: .parquet needs pyarrow; install it with `pip install 'headstart[parquet]'`"
        ) from None
    try:
        file = parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise InputError(f"{path} is no whole parquet file: {error}") from None
    columns = _Columns.of(path, file.schema_arrow)
    table = _Table(path, columns.pictures)
    cells: list[Cell] = []
    labels: list[str | None] = []
    none: list[Any] = []
    parts: list[str | None] = []
    for group in range(file.num_row_groups):
        count = file.metadata.row_group(group).num_rows
        size = file.metadata.row_group(group).total_byte_size // max(1, count)
        wanted = [name for name in (columns.label, columns.split) if name]
        values = file.read_row_group(group, columns=wanted).to_pydict() if wanted else {}
        of_labels = values.get(columns.label, [None] * count)
        labels += (told := [class_name(value, columns.classes) for value in of_labels])
        none += [value for value, label in zip(of_labels, told, strict=True) if label is None]
        parts += [split_kind(str(value)) if value else "" for value in values.get(columns.split, [None] * count)]
        cells += [Cell(table, group, row, size) for row in range(count)]
    if not cells:
        raise InputError(f"{path} has no rows")
    told, notes = without_minus_one(labels)
    notes = none_said(none) + notes
    if None in parts:
        parts = [""] * len(parts)
        notes.append(f"column {columns.split} not used: it says more than train, val and test")
    rows = enumerate(zip(cells, told, parts, strict=True))
    entries = [Entry(f"{row:07d}", cell, label, part or "") for row, (cell, label, part) in rows]
    return Found(entries, notes=[f"{path.name}: {note}" for note in [*columns.notes, *notes]])


@dataclass(frozen=True)
class _Columns:
    """What the columns of a parquet file are: image bytes, labels (`classes`: their names), the split; '': none."""

    pictures: str
    label: str
    split: str
    classes: list[str]
    notes: list[str]

    @classmethod
    def of(cls, path: Path, schema: Any) -> "_Columns":
        """Of a schema. Raises InputError where there are no image bytes."""
        names = list(schema.names)
        of_bytes = [name for name in names if _holds_bytes(schema.field(name).type)]
        if not of_bytes:
            raise InputError(f"{path} has no column of image bytes; it has {', '.join(names)}")
        pictures = next((name for name in of_bytes if key(name) in PATHS), of_bytes[0])
        rest = [name for name in names if name != pictures]
        said = _features(schema.metadata or {})
        classes = [name for name in rest if said.get(name, {}).get("_type") == "ClassLabel"]
        label = next((rest[i] for i in label_columns(rest)), classes[0] if len(classes) == 1 else "")
        split = next((name for name in rest if name != label and key(name) in SPLITS), "")
        others = [name for name in rest if name not in (label, split)]
        notes = [not_used("column", others)] if others else []
        return cls(pictures, label, split, _names(said.get(label, {})), notes)


def _holds_bytes(kind: Any) -> bool:
    """binary, or Hugging Face's struct of bytes and path."""
    fields = [kind.field(i) for i in range(kind.num_fields)] if str(kind).startswith("struct") else []
    return str(kind) in ("binary", "large_binary") or any(f.name == "bytes" and "binary" in str(f.type) for f in fields)


def _names(feature: dict[str, Any]) -> list[str]:
    """The classes behind a label column's numbers, by Hugging Face's description of it."""
    names = feature.get("names")
    return [str(name) for name in names] if isinstance(names, list) else []


def _features(metadata: dict[bytes, bytes]) -> dict[str, dict[str, Any]]:
    """What Hugging Face's `datasets` says of each column, where it wrote the file."""
    try:
        found = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in found.items() if isinstance(feature, dict)}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}
