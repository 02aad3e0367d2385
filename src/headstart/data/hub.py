"""Pictures of a set on a hub of data sets, through Hugging Face's `datasets` (extra): `hf:NAME`, `hf:NAME:CONFIG`.

Comes in: such a name, or `hf:FOLDER`, where what a hub would hold lies on this machine. Goes out: a `Source` of all its
splits, with the labels and class names it carries. `datasets` fetches and keeps the files; pictures are decoded here,
each where it lies when it is asked for, so that the whole is never in memory. No code of a data set is run.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headstart.data import words
from headstart.data.decode import UnreadableError
from headstart.data.labels import class_name, label_columns, none_said, without_minus_one
from headstart.data.source import Entry, Picture, Source, make
from headstart.records.errors import InputError
from headstart.records.files import expanded
from headstart.records.names import HUB
from headstart.records.text import not_used

EXTRA = "needs Hugging Face's datasets; install it with `pip install 'headstart[datasets]'`"


def on_hub(source: str) -> Source:
    """The pictures of `hf:NAME`. Raises InputError where there is none, it cannot be had or holds no pictures."""
    parts = _loaded(source)
    found = words.splits(list(parts))
    kinds = found.kinds if found is not None and found.official else {}
    entries: list[Entry] = []
    none: list[Any] = []
    notes = [f"taken for the official split: {', '.join(f'{n} ({k})' for n, k in kinds.items())}"] if kinds else []
    for name, table in parts.items():
        column, label, others = _columns(source, table)
        official = kinds.get(name, "")
        official = official if official in ("train", "val", "test") else ""
        for row, (picture, value, told) in enumerate(_rows(table, column, label)):
            entries.append(Entry(f"{name}/{row:07d}", picture, told, official))
            none += [value] if told is None else []
        if others:
            notes.append(f"{source}, {name}: {not_used('column', others)}")
    if not entries:
        raise InputError(f"{source} holds no pictures: it has no rows")
    labels, minus = without_minus_one([entry.label for entry in entries])
    entries = [replace(entry, label=label) for entry, label in zip(entries, labels, strict=True)]
    notes += [f"{source}: {note}" for note in none_said(none) + minus]
    kept = tuple(Path(file["filename"]) for table in parts.values() for file in table.cache_files)
    return make(source, entries, notes=tuple(notes), files=kept)


def _loaded(source: str) -> Mapping[str, Any]:
    """The tables of all splits, which `datasets` keeps in files that are mapped, not read."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import datasets  # noqa: PLC0415 - an extra
    except ImportError:
        raise InputError(f"{source} {EXTRA}") from None
    name = source.removeprefix(f"{HUB}:")
    place, _, config = (name, "", "") if expanded(name).exists() else name.partition(":")
    if not place:
        raise InputError(f"{source} names no set; give {HUB}:OWNER/NAME, or {HUB}:FOLDER of one on this machine")
    place = str(expanded(place)) if expanded(place).exists() else place
    try:
        return dict(datasets.load_dataset(place, config or None))
    except Exception as error:  # datasets, huggingface_hub, pyarrow and their network raise many kinds
        why = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"{source} cannot be had: {why.rstrip('.')}") from None


def _columns(source: str, table: Any) -> tuple[str, str | None, list[str]]:
    """The column of pictures, that of labels, and the others."""
    kinds = {name: type(kind).__name__ for name, kind in table.features.items()}
    column = next((name for name, kind in kinds.items() if kind == "Image"), None)
    if column is None:
        raise InputError(f"{source} has no column of pictures; it has {', '.join(kinds)}")
    rest = [name for name in kinds if name != column]
    called = [rest[i] for i in label_columns(rest)]
    named = called + [name for name in rest if kinds[name] == "ClassLabel" and name not in called]
    label = min(named, key=lambda name: kinds[name] != "ClassLabel", default=None)
    return column, label, [name for name in rest if name != label]


def _rows(table: Any, column: str, label: str | None) -> Iterator[tuple[Picture, Any, str | None]]:
    """Every picture, what the column of labels says of it, and the class that this means."""
    from datasets import Image  # noqa: PLC0415 - an extra

    names = getattr(table.features[label], "names", None) if label else None
    labels = table.select_columns([label])[:][label] if label else [None] * len(table)
    encoded = table.select_columns([column]).cast_column(column, Image(decode=False))
    size = (encoded.dataset_size or 0) // max(1, len(table))
    for row, value in enumerate(labels):
        yield HubCell(encoded, column, row, size), value, class_name(value, names or [])


@dataclass(frozen=True, slots=True)
class HubCell:
    """A picture's bytes in a row of a table; `size`: of a row, on the average."""

    table: Any
    column: str
    row: int
    size: int

    def read(self) -> bytes:
        """The bytes of the picture's own file. Raises UnreadableError where the row holds none, OSError."""
        value = self.table[self.row][self.column]
        if value and value.get("bytes"):
            return bytes(value["bytes"])
        if value and value.get("path"):
            return Path(value["path"]).read_bytes()
        raise UnreadableError("its row holds no picture")
