"""Pictures that are known by name but not yet decoded: what every way of naming DATA comes to."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np


class Encoded(Protocol):
    """A picture file's bytes inside another file; `size`: how many, roughly."""

    @property
    def size(self) -> int:
        """Bytes."""

    def read(self) -> bytes:
        """The bytes. Raises UnreadableError, OSError."""


Picture = str | np.ndarray | Encoded
Pictures = Sequence[Picture] | np.ndarray


@dataclass(frozen=True)
class Source:
    """Pictures that are known by name but not yet decoded.

    Attributes:
        where: what the user calls it, absolute: the place that its cache belongs to.
        names: unique, relative, with `/`; sorted.
        pictures: each a path, a file inside another, or a uint8 array (height, width, 3).
        labels: int64 (n,), -1 where there is none; classes: their names.
        official: (n,) of 'train', 'val', 'test' or ''.
        skipped: (name, reason) of pictures that were listed but are not there.
        order: (n,) the number of each picture in torchvision's data set; empty: as here.
        crop_bottom: rows to cut off below (the banner of fgvc-aircraft).
        files: the files that other pictures than paths come from.
        checksums: (file, md5) as published, of a named set.
        notes: what folders and columns were taken for, and what was left out, a sentence each.
        others: files of other endings that lie in the folders, by ending.
    """

    where: str
    names: list[str]
    pictures: Pictures
    labels: np.ndarray
    classes: list[str]
    official: np.ndarray
    skipped: list[tuple[str, str]] = field(default_factory=list)
    order: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    crop_bottom: int = 0
    files: tuple[Path, ...] = ()
    checksums: tuple[tuple[Path, str], ...] = ()
    notes: tuple[str, ...] = ()
    others: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, slots=True)
class Entry:
    """A picture: its name, where it is, class (None: unlabelled) and official split."""

    name: str
    path: Picture
    label: str | None = None
    official: str = ""


@dataclass
class Found:
    """What one DATA holds: its picture files, those set aside, and what there is to say of them (as in `Source`)."""

    entries: list[Entry]
    skipped: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    files: list[Path] = field(default_factory=list)


def make(where: str, entries: Iterable[Entry], as_given: bool = False, **more: Any) -> Source:
    """A source of entries in the order of their names, or as given."""
    ordered = list(entries) if as_given else sorted(entries, key=lambda e: e.name)
    classes, labels = _number([e.label for e in ordered])
    return Source(
        where=where,
        names=[e.name for e in ordered],
        pictures=[e.path for e in ordered],
        labels=labels,
        classes=classes,
        official=np.array([e.official for e in ordered], dtype="U5"),
        **more,
    )


def part(source: Source, rows: slice) -> Source:
    """Some of its pictures, in their order, with the classes of all and nothing said of the others."""
    return replace(
        source,
        names=source.names[rows],
        pictures=source.pictures[rows],
        labels=source.labels[rows],
        official=source.official[rows],
        order=source.order[rows],
        skipped=[],
        notes=(),
    )


def relabel(source: Source, labels: Sequence[str | None], notes: Sequence[str] = ()) -> Source:
    """The same pictures with other labels (None: unlabelled), and what there is to say of them."""
    classes, numbers = _number(labels)
    return replace(source, classes=classes, labels=numbers, notes=(*source.notes, *notes))


def _number(labels: Sequence[str | None]) -> tuple[list[str], np.ndarray]:
    texts = {label: as_text(label) for label in labels if label is not None}  # a folder's name may be any bytes
    classes = sorted(set(texts.values()))
    number = {text: i for i, text in enumerate(classes)}
    return classes, np.array([-1 if label is None else number[texts[label]] for label in labels], dtype=np.int64)


def as_text(name: str) -> str:
    """A file name as text that UTF-8 can hold (names on disk may be any bytes)."""
    try:
        name.encode()
        return name
    except UnicodeEncodeError:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
