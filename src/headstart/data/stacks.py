"""Pictures as arrays: an .npy of pictures, or an .npz of pictures and labels, undivided or in parts.

Comes in: such a file (`x_train`, `train_images`, `labels`, `classes` ...). Goes out: a picture a row with its label and
part, and a sentence for every array that was guessed or is not used.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from headstart.data import words
from headstart.data.labels import as_label, is_label, key, label_columns, none_said, without_minus_one
from headstart.data.source import Entry, Found
from headstart.records.arrays import in_words
from headstart.records.errors import InputError
from headstart.records.text import not_used

Arrays = dict[str, np.ndarray]
_PARTS = {"train": "train", "validation": "val", "valid": "val", "val": "val", "test": "test"}
"""Words in an array's name that say its part, a longer one before what it begins with."""


def in_arrays(path: Path) -> Found:
    """The pictures of such a file. Raises InputError naming it, and the array that is not what it should be."""
    arrays = _loaded(path)
    pictures = _pictures(path, arrays)
    if not pictures and "embeddings" in arrays:
        raise InputError(f"{path} holds embeddings, not pictures; give the pictures")
    if not pictures:
        raise InputError(
            f"{path} holds no uint8 pictures (N, H, W), (N, H, W, 3) or (N, 3, H, W); it holds {_listed(arrays)}"
        )
    if not any(len(array) for array in pictures.values()):
        raise InputError(f"{path} holds no pictures: {_listed(pictures)}")
    labels = _Labels(path, {name: array for name, array in arrays.items() if name not in pictures})
    entries: list[Entry] = []
    for name, array in pictures.items():
        prefix = f"{name}/" if len(pictures) > 1 else ""
        rows = zip(_in_colour(array, path, name), labels.of(name, len(array)), strict=True)
        official = _PARTS.get(_part(name), "") if len(pictures) > 1 else ""
        entries += [Entry(f"{prefix}{i:07d}", pixels, label, official) for i, (pixels, label) in enumerate(rows)]
    return Found(entries, notes=labels.notes())


def _loaded(path: Path) -> Arrays:
    """Every array of a file; that of an .npy stays on disk."""
    where = f"{path}"
    found: Arrays = {}
    try:
        loaded = np.load(path, mmap_mode="r" if path.suffix.lower() == ".npy" else None, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"images": loaded}
        for name in loaded.files:
            where = f"{path}, {name},"
            found[name] = np.asarray(loaded[name])
    except Exception as error:  # zipfile and numpy raise many kinds
        raise InputError(f"{where} cannot be read: {in_words(path, error)}") from None
    return found


def _pictures(path: Path, arrays: Arrays) -> Arrays:
    """The arrays of pictures; masks beside them are none."""
    found = {name: array for name, array in arrays.items() if array.ndim in (3, 4) and array.dtype == np.uint8}
    kinds = {name: means.kind for name in found if (means := words.meaning(name)) is not None}
    found = {name: array for name, array in found.items() if kinds.get(name) != "annotation"} or found
    for name, array in found.items():
        if 0 in array.shape[1:]:
            raise InputError(f"{path}: {name} {array.shape} holds pictures without pixels")
        if array.ndim == 3 and array.shape[2] in (1, 3, 4):
            n, height, width = array.shape
            raise InputError(
                f"{path}: {name} {array.shape} is one picture or {n} grey ones of {height} x {width} pixels (height x "
                f"width); give (1, {n}, {height}, {width}) for the one"
            )
    return found


def _in_colour(array: np.ndarray, path: Path, name: str) -> Iterable[np.ndarray]:
    """(H, W, 3) of each picture, without a copy."""
    if array.ndim == 4 and array.shape[3] not in (1, 3) and array.shape[1] in (1, 3):
        array = array.transpose(0, 2, 3, 1)
    if array.ndim == 3:
        array = array[..., None]
    if array.shape[3] not in (1, 3):
        raise InputError(f"{path}: {name} has {array.shape[3]} channels; pictures have 1 or 3")
    return np.broadcast_to(array, (*array.shape[:3], 3))


class _Labels:
    """The arrays beside the pictures: which are labels, which the names of classes, which nothing that is used."""

    def __init__(self, path: Path, arrays: Arrays) -> None:
        self._path = path
        self._arrays = arrays
        self._used: set[str] = set()
        self._said: list[str] = []

    def of(self, pictures: str, count: int) -> list[str | None]:
        """The label of each picture of an array: of the array of its part that is called so, or that alone repeats.

        Raises InputError where the labels are more or fewer than the pictures.
        """
        same = [name for name in self._arrays if _part(name) == _part(pictures)]
        called = [same[i] for i in label_columns([_without_part(name) for name in same])]
        called = [name for name in called if not self._is_of_names(name, count)]
        repeat = [name for name in same if not called and self._repeats(name, count)]
        if not called and len(repeat) != 1:
            return [None] * count
        name = (called or repeat)[0]
        array = self._arrays[name]
        if array.shape[:1] != (count,):
            raise InputError(f"{self._path}: {name} holds {_many(array)} labels, and {pictures} {count:,} pictures")
        self._used.add(name)
        if not called:
            self._said.append(f"{name} taken for the labels")
        labels, notes = without_minus_one(self._texts(name, array))
        self._said += [f"{name}: {note}" for note in notes]
        return self._named(labels, count)

    def notes(self) -> list[str]:
        """What was guessed, and what is not used."""
        unused = [name for name in self._arrays if name not in self._used]
        some = [not_used("array", unused)] if unused else []
        return [f"{self._path.name}: {note}" for note in [*self._said, *some]]

    def _texts(self, name: str, array: np.ndarray) -> list[str | None]:
        flat = array.reshape(-1) if array.ndim == 1 or array.shape[1:] == (1,) else None
        if flat is not None:
            self._said += [f"{name}: {note}" for note in none_said(flat.tolist())]
            return [as_label(value) for value in flat.tolist()]
        if array.ndim == 2 and np.isin(array, (0, 1)).all() and (array.sum(1) == 1).all():
            self._said.append(f"{name} taken for one class a column")
            return [str(place) for place in array.argmax(1).tolist()]
        self._said.append(f"{name} {array.shape} says no one class of each picture, so they are unlabelled")
        return [None] * len(array)

    def _named(self, labels: list[str | None], count: int) -> list[str | None]:
        """Numbers of classes as their names, where an array has these."""
        for name in filter(lambda name: self._is_of_names(name, count), self._arrays):
            names = [str(as_label(value)) for value in self._arrays[name].tolist()]
            if all(label is None or (label.isdecimal() and int(label) < len(names)) for label in labels):
                self._used.add(name)
                return [None if label is None else names[int(label)] for label in labels]
        return labels

    def _is_of_names(self, name: str, count: int) -> bool:
        array, called = self._arrays[name], key(name)
        return (
            array.ndim == 1
            and array.dtype.kind in "US"
            and len(array) != count
            and (is_label(name) or called.endswith("names"))
        )

    def _repeats(self, name: str, count: int) -> bool:
        array = self._arrays[name]
        flat = array.shape in ((count,), (count, 1)) and array.dtype.kind in "iubUS"
        return flat and 2 * len(np.unique(array)) <= count


def _part(name: str) -> str:
    return next((word for word in _PARTS if word in name.lower()), "")


def _without_part(name: str) -> str:
    part = _part(name)
    return name.lower().replace(part, "", 1) if part else name


def _many(array: np.ndarray) -> str:
    return f"{len(array):,}" if array.ndim else "no"


def _listed(arrays: Arrays) -> str:
    return ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in arrays.items())
