"""What a DATA name means: folders as people have them, lists of paths, and the named sets in their published files.

Comes in: `config.data`. Goes out: one `Source`, the list of its pictures with names, labels and official split, in an
order that depends on the names alone. No picture is decoded here (design section 4; paper Table 1).
"""

import csv
import io
import os
import pickle
import tarfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.data.decode import SUFFIXES
from headstart.records.config import DataConfig
from headstart.records.errors import InputError
from headstart.records.folder import printable

LISTS = (".txt", ".csv", ".tsv")
"""Endings of files that list pictures."""


Pictures = Sequence[str | np.ndarray] | np.ndarray


@dataclass(frozen=True)
class Source:
    """Pictures that are known by name but not yet decoded.

    Attributes:
        where: what the user calls it, absolute: the place that its cache belongs to.
        names: unique, relative, with `/`; sorted.
        pictures: a path each, or uint8 arrays (height, width, 3).
        labels: int64 (n,), -1 where there is none; classes: their names.
        official: (n,) of 'train', 'val', 'test' or ''.
        skipped: (name, reason) of pictures that were listed but are not there.
        crop_bottom: rows to cut off below (the banner of fgvc-aircraft).
        files: the files that array pictures come from.
        checksums: (file, md5) as published, of a named set.
    """

    where: str
    names: list[str]
    pictures: Pictures
    labels: np.ndarray
    classes: list[str]
    official: np.ndarray
    skipped: list[tuple[str, str]] = field(default_factory=list)
    crop_bottom: int = 0
    files: tuple[Path, ...] = ()
    checksums: tuple[tuple[Path, str], ...] = ()


def shown(source: str) -> str:
    """A source as a report shows it: the named set, or the last part of the path."""
    name, _, root = source.partition(":")
    return name if root and "/" not in name else Path(source).name


def find(data: DataConfig) -> Source:
    """What `data.sources` name.

    Raises InputError when there is nothing there, saying what was looked for, where, and how to get it.
    """
    if not data.sources:
        raise InputError(
            "no DATA given; name a folder of pictures, a list of paths, or a set such as digits or cifar10:ROOT"
        )
    named = [name for name in data.sources if _set_of(name)]
    if named and len(data.sources) > 1:
        raise InputError(f"{named[0]} must be the only DATA; unpack it into folders to combine it with others")
    source = _named_set(named[0], data) if named else _from_files(data.sources, data.labels)
    if data.labels == "none":
        return _relabel(source, [None] * len(source.names))
    if data.labels not in ("auto", "folders"):
        return _relabel(source, _labels_of_file(Path(data.labels), source.names))
    return source


def _make(where: str, entries: Iterable["Entry"], as_given: bool = False, **more: Any) -> Source:
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


@dataclass(frozen=True)
class Entry:
    """A picture file: its name, class (None: unlabelled) and official split."""

    name: str
    path: str
    label: str | None = None
    official: str = ""


def _number(labels: Sequence[str | None]) -> tuple[list[str], np.ndarray]:
    classes = sorted({label for label in labels if label is not None})
    number: dict[str | None, int] = {label: i for i, label in enumerate(classes)}
    return classes, np.array([number.get(label, -1) for label in labels], dtype=np.int64)


def _relabel(source: Source, labels: Sequence[str | None]) -> Source:
    classes, numbers = _number(labels)
    return replace(source, classes=classes, labels=numbers)


# ---------------------------------------------------------------------------------------------------------- folders

_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def _from_files(names: Sequence[str], labels: str) -> Source:
    parts: list[tuple[str, list[Entry], list[tuple[str, str]]]] = []
    lone: list[Path] = []
    for name in names:
        path = Path(name).expanduser()
        if path.is_dir():
            parts.append((path.resolve().name, _folder(path, labels), []))
        elif path.is_file() and path.suffix.lower() in LISTS:
            parts.append((path.stem, *_list(path)))
        elif path.is_file() and path.suffix.lower() in SUFFIXES:
            lone.append(path)
        elif path.is_file():
            raise InputError(
                f"{name} is neither a folder nor a list ({', '.join(LISTS)}) nor a picture; unpack archives first"
            )
        else:
            raise InputError(f"there is no folder, list or named set {name}; named sets are {', '.join(SETS)}")
    if lone:
        short = _distinct([path.name for path in lone], "{number}/{name}")
        parts.append(("", [Entry(_text(name), str(path)) for name, path in zip(short, lone, strict=True)], []))
    where = "\n".join(_text(os.path.abspath(Path(name).expanduser())) for name in names)
    if len(parts) == 1:
        _, entries, skipped = parts[0]
    else:
        prefixes = _distinct([prefix for prefix, _, _ in parts])
        entries = [
            Entry(f"{prefix}/{e.name}" if prefix else e.name, e.path, e.label, e.official)
            for prefix, (_, part, _) in zip(prefixes, parts, strict=True)
            for e in part
        ]
        skipped = [s for _, _, some in parts for s in some]
    if not entries:
        raise InputError(
            f"{', '.join(names)} holds no pictures; looked at any depth for files ending in "
            + " ".join(sorted(SUFFIXES))
        )
    return _make(where, entries, as_given=len(lone) == len(names), skipped=skipped)


def _distinct(names: list[str], again: str = "{name}-{number}") -> list[str]:
    """The names, numbered from the second of each kind on."""
    seen: Counter[str] = Counter()
    result = []
    for name in names:
        seen[name] += 1
        result.append(name if seen[name] == 1 else again.format(name=name, number=seen[name]))
    return result


def _folder(root: Path, labels: str) -> list[Entry]:
    """The pictures below a folder; first-level folders are classes unless pictures lie at the top."""
    found = list(walk(root))
    tops = {parts[0] for parts, _ in found if len(parts) > 1}
    is_split = "train" in {_SPLITS.get(top.lower()) for top in tops} and len(tops) > 1
    is_split = is_split and all(top.lower() in _SPLITS for top in tops)
    inside = [(parts[1:] if is_split and len(parts) > 1 else parts) for parts, _ in found]
    # Stray pictures beside train/ and test/ say nothing about the folders below those.
    at_top = any(
        len(rest) == 1 for rest, (parts, _) in zip(inside, found, strict=True) if not (is_split and len(parts) == 1)
    )
    classes = labels == "folders" or (labels == "auto" and not at_top)
    return [
        Entry(
            name="/".join(parts),
            path=path,
            label=rest[0] if classes and len(rest) > 1 else None,
            official=_SPLITS[parts[0].lower()] if is_split and len(parts) > 1 else "",
        )
        for rest, (parts, path) in zip(inside, found, strict=True)
    ]


def walk(root: Path, suffixes: Iterable[str] = SUFFIXES) -> Iterator[tuple[tuple[str, ...], str]]:
    """(name parts, path) of every file below `root` with one of these endings, but for hidden ones.

    Links to folders are followed, after everything real, each folder once: loops end, and the names do not depend on
    the order in which the file system lists them.
    """
    suffixes = tuple(suffixes)
    seen: set[tuple[int, int]] = set()
    waiting: list[tuple[tuple[str, ...], str]] = [((), str(root))]
    links: list[tuple[tuple[str, ...], str]] = []
    while waiting or links:
        parts, folder = waiting.pop() if waiting else links.pop(0)
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            entries = sorted(os.scandir(folder), key=lambda e: e.name)
        except OSError as error:
            if not parts:
                raise InputError(f"{folder} cannot be read: {error.strerror}") from None
            continue
        for entry in entries:
            name = entry.name
            if name.startswith(".") or name == "__MACOSX":
                continue
            inner = (*parts, _text(name))
            if name.lower().endswith(suffixes) and not entry.is_dir():
                yield inner, entry.path
            elif entry.is_dir(follow_symlinks=False):
                waiting.append((inner, entry.path))
            elif entry.is_symlink() and entry.is_dir():
                links.append((inner, entry.path))


def _text(name: str) -> str:
    """A file name as text that UTF-8 can hold (names on disk may be any bytes)."""
    try:
        name.encode()
        return name
    except UnicodeEncodeError:
        return os.fsencode(name).decode("utf-8", "backslashreplace")


# ------------------------------------------------------------------------------------------------------------ lists

_PATH_COLUMNS = ("path", "file", "filename", "filepath", "image", "picture", "name")
_LABEL_COLUMNS = ("label", "class", "category", "target")


def _rows(path: Path) -> list[list[str]]:
    """The cells of a .csv or .tsv, or the lines of any other file as one cell each."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    if path.suffix.lower() not in (".csv", ".tsv"):
        return [[line.strip()] for line in text.splitlines() if line.strip() and not line.startswith("#")]
    separator = "\t" if path.suffix.lower() == ".tsv" else ";" if ";" in text[: text.find("\n")] else ","
    try:
        return [row for row in csv.reader(io.StringIO(text), delimiter=separator, strict=True) if any(row)]
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
        return row[column].strip() if column is not None and column < len(row) else ""

    lines = [(n, cell(r, at), cell(r, label), cell(r, split)) for n, r in enumerate(rows[first:], first + 1)]
    return lines, label is not None


def _list(path: Path) -> tuple[list[Entry], list[tuple[str, str]]]:
    entries: dict[str, Entry] = {}
    skipped = []
    for line, name, label, split in _table(path)[0]:
        if not name:
            raise InputError(f"{path}, row {line} names no picture; give its path, relative to the list or absolute")
        if split and split.lower() not in _SPLITS:
            raise InputError(
                f"{path}, row {line} has the split {printable(split)!r}; it must be train, val, test or empty"
            )
        picture = path.parent / Path(name).expanduser()
        shown = Path(name).as_posix()
        entry = Entry(shown, str(picture), label or None, _SPLITS.get(split.lower(), ""))
        if shown in entries and entries[shown] != entry:
            raise InputError(f"{path}, row {line} lists {printable(shown)} again, with another label or split")
        if picture.exists():
            entries[shown] = entry
        else:
            skipped.append((shown, "no such file"))
    if not entries:
        raise InputError(f"none of the {len(skipped)} pictures in {path} exist; paths are relative to its folder")
    return list(entries.values()), skipped


def _labels_of_file(path: Path, names: list[str]) -> list[str | None]:
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


# ------------------------------------------------------------------------------------------------------- named sets


def _set_of(name: str) -> str | None:
    head = name.split(":", 1)[0]
    return head if head in SETS else None


def _named_set(name: str, data: DataConfig) -> Source:
    head, _, root = name.partition(":")
    if head == "digits":
        if root:
            raise InputError(f"digits ships with scikit-learn and has no folder; write digits instead of {name}")
        return _digits()
    if not root:
        raise InputError(f"{head} needs the folder its files are in: {head}:ROOT")
    folder = Path(root).expanduser()
    try:
        return SETS[head](folder, data)
    except _MissingError as missing:
        if not data.download:
            raise InputError(_how_to_get(head, folder, missing)) from None
    _download(head, folder)
    return SETS[head](folder, data)


class _MissingError(InputError):
    """A file of a named set that is not there."""

    def __init__(self, looked_for: Path) -> None:
        super().__init__(f"{looked_for} is missing after the download; the archive is not what it should be")
        self.looked_for = looked_for


def _how_to_get(head: str, folder: Path, missing: _MissingError) -> str:
    url, archive, _ = _archive(head)
    return (
        f"{head} needs {missing.looked_for}, which is not there; give --data.download to fetch it, "
        f"or unpack {archive} from {url} into {folder}"
    )


def _need(path: Path) -> Path:
    if not path.exists():
        raise _MissingError(path)
    return path


def _lines(path: Path) -> list[str]:
    """Lines of a named set's text file. Raises InputError when it is missing or not text."""
    try:
        return _need(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path} is not text; it is damaged or not the set's own file") from None


def _inside(root: Path, *names: str) -> Path:
    """The set's own folder: below root, or root itself when it bears that name or holds no such folder but is one."""
    for name in names:
        if (root / name).is_dir():
            return root / name
    return root if root.name in names else root / names[0]


def _digits() -> Source:
    """The 1,797 digits of scikit-learn, 8x8 with values 0 to 16, grown to 32x32 RGB: each pixel a block of 4x4."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    pictures = np.repeat(grey[..., None], 3, axis=3)
    return Source(
        where="digits",
        names=[f"digits/{i:05d}.png" for i in range(1, len(pictures) + 1)],
        pictures=pictures,
        labels=digits.target.astype(np.int64),
        classes=[str(name) for name in digits.target_names],
        official=np.full(len(pictures), "", dtype="U5"),
    )


def _cifar(root: Path, batches: dict[str, list[str]], labels_key: str, meta: tuple[str, str]) -> Source:
    meta_file, names_key = meta
    meta_path = _need(root / meta_file)
    files = [(split, _need(root / name)) for split, names in batches.items() for name in names]
    classes = [str(_string(name)) for name in _entry(read_pickle(meta_path), names_key, meta_path)]
    pixels, labels, official = [], [], []
    for split, path in files:
        content = read_pickle(path)
        rows = _entry(content, "data", path)
        if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.shape[1] != 3072 or rows.dtype != np.uint8:
            raise InputError(f"{path} holds no pictures of 3 x 32 x 32 bytes under 'data'; is it the published file?")
        numbers = np.asarray(_entry(content, labels_key, path), dtype=np.int64)
        if len(numbers) != len(rows):
            raise InputError(f"{path} holds {len(rows)} pictures but {len(numbers)} labels; is it the published file?")
        pixels.append(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        labels.append(_checked(numbers, len(classes), path))
        official += [split] * len(rows)
    return Source(
        where=os.path.abspath(root),
        names=_numbered(official),
        pictures=np.concatenate(pixels),
        labels=np.concatenate(labels),
        classes=classes,
        official=np.array(official, dtype="U5"),
        files=(meta_path, *(path for _, path in files)),
        checksums=_published(root, "CIFAR10" if labels_key == "labels" else "CIFAR100"),
    )


def _published(root: Path, name: str) -> tuple[tuple[Path, str], ...]:
    """(file, md5) of a set's published files, as torchvision knows them."""
    from torchvision import datasets

    published: Any = getattr(datasets, name)
    files = [(file, md5) for file, md5 in published.train_list + published.test_list]
    if hasattr(published, "meta"):
        files.append((published.meta["filename"], published.meta["md5"]))
    return tuple((root / file, md5) for file, md5 in files)


def _checked(labels: np.ndarray, classes: int, path: Path) -> np.ndarray:
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        raise InputError(f"{path} holds labels from {labels.min()} to {labels.max()}; there are {classes} classes")
    return labels


def _numbered(official: list[str]) -> list[str]:
    """train/00001.png, train/00002.png, ..., test/00001.png: these sets' pictures have no file names."""
    count: dict[str, int] = {}
    names = []
    for split in official:
        count[split] = count.get(split, 0) + 1
        names.append(f"{split}/{count[split]:05d}.png")
    return names


def _cifar10(root: Path, data: DataConfig) -> Source:
    batches = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
    return _cifar(_inside(root, "cifar-10-batches-py"), batches, "labels", ("batches.meta", "label_names"))


def _cifar100(root: Path, data: DataConfig) -> Source:
    batches = {"train": ["train"], "test": ["test"]}
    return _cifar(_inside(root, "cifar-100-python"), batches, "fine_labels", ("meta", "fine_label_names"))


def _stl10(root: Path, data: DataConfig) -> Source:
    root = _inside(root, "stl10_binary")
    classes = _lines(root / "class_names.txt")
    pixels, labels, official, files = [], [], [], [root / "class_names.txt"]
    for split in ("train", "test"):
        pictures = _stl10_pixels(root / f"{split}_X.bin")
        path = _need(root / f"{split}_y.bin")
        numbers = np.fromfile(path, np.uint8).astype(np.int64) - 1
        if len(numbers) != len(pictures):
            raise InputError(f"{path} holds {len(numbers)} labels, but {split}_X.bin {len(pictures)} pictures")
        pixels.append(pictures)
        labels.append(_checked(numbers, len(classes), path))
        official += [split] * len(pictures)
        files += [root / f"{split}_X.bin", path]
    names = _numbered(official)
    if data.unlabelled:
        more = _stl10_pixels(root / "unlabeled_X.bin")
        pixels.append(more)
        labels.append(np.full(len(more), -1, dtype=np.int64))
        official += ["train"] * len(more)
        names += [f"unlabelled/{i:06d}.png" for i in range(1, len(more) + 1)]
        files.append(root / "unlabeled_X.bin")
    return Source(
        where=os.path.abspath(root) + ("+unlabelled" if data.unlabelled else ""),
        names=names,
        pictures=[picture for part in pixels for picture in part],
        labels=np.concatenate(labels),
        classes=classes,
        official=np.array(official, dtype="U5"),
        files=tuple(files),
        checksums=_published(root, "STL10"),
    )


def _stl10_pixels(path: Path) -> np.ndarray:
    """Memory-mapped uint8 (n, 96, 96, 3); the file is column-major within each of the three channels."""
    size = _need(path).stat().st_size
    if size == 0 or size % (3 * 96 * 96):
        raise InputError(f"{path} has {size:,} bytes, not a multiple of 3 x 96 x 96; it is cut off or not STL-10")
    return np.memmap(path, np.uint8, mode="r").reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1)


IMAGENETTE_CLASSES = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}


def _imagenette(root: Path, data: DataConfig) -> Source:
    """The largest of the three sizes that is there; ROOT may also be one size's folder itself."""
    root = _inside(root, "imagenette2", "imagenette2-320", "imagenette2-160")
    entries = [
        Entry(e.name, e.path, IMAGENETTE_CLASSES.get(e.label or "", e.label), e.official)
        for split in ("train", "val")
        for parts, path in walk(_need(root / split))
        for e in [Entry("/".join((split, *parts)), path, parts[0] if len(parts) > 1 else None, split)]
    ]
    if not entries:
        raise _MissingError(root / "train" / next(iter(IMAGENETTE_CLASSES)))
    return _make(os.path.abspath(root), entries)


def _fgvc_aircraft(root: Path, data: DataConfig) -> Source:
    root = _inside(root, "fgvc-aircraft-2013b") / "data"
    entries = []
    for split in ("train", "val", "test"):
        path = root / f"images_{data.annotation}_{split}.txt"
        for number, line in enumerate(_lines(path), 1):
            picture, _, label = line.strip().partition(" ")
            if not label:
                raise InputError(
                    f"{path}, line {number} is {printable(line)!r}; expected a picture's number and its class"
                )
            entries.append(Entry(f"{split}/{picture}.jpg", str(root / "images" / f"{picture}.jpg"), label, split))
    if not any(os.path.exists(entry.path) for entry in entries):
        raise _MissingError(Path(entries[0].path) if entries else root / "images")
    return _make(os.path.abspath(root), entries, crop_bottom=20)


SETS: dict[str, Callable[[Path, DataConfig], Source]] = {
    "digits": lambda root, data: _digits(),
    "cifar10": _cifar10,
    "cifar100": _cifar100,
    "stl10": _stl10,
    "imagenette": _imagenette,
    "fgvc-aircraft": _fgvc_aircraft,
}
"""The named sets."""


# --------------------------------------------------------------------------------------------------- restricted pickle


def read_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in a CIFAR file, without running anything in it.

    Only plain values and byte arrays are rebuilt, by code of our own; whatever else the file asks for is refused.
    Raises InputError naming the file and what it asked for.
    """
    try:
        content = _Unpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        if not isinstance(content, dict):
            raise _RefusedError(f"a {type(content).__name__} in place of a dictionary")
        return {str(_string(k)): v.array() if isinstance(v, _Array) else v for k, v in content.items()}
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except _RefusedError as refused:
        raise InputError(f"{path} was refused: it asks for {refused}, which no CIFAR file needs") from None
    except Exception as error:  # a damaged pickle raises whatever it likes
        raise InputError(f"{path} is damaged or no CIFAR file: {str(error) or type(error).__name__}") from None


def _entry(content: dict[str, Any], key: str, path: Path) -> Any:
    if key not in content:
        raise InputError(f"{path} has no entry {key!r}; is it the published file?")
    return content[key]


def _string(value: object) -> object:
    return value.decode("latin1") if isinstance(value, bytes) else value


class _RefusedError(Exception):
    """A pickle asked for something that is not on the list."""


class _Dtype:
    """Stands for numpy.dtype: remembers its name, accepts its state, does nothing."""

    def __init__(self, name: object, *flags: object) -> None:
        self.name = str(_string(name)).lstrip("|<>=")

    def __setstate__(self, state: object) -> None:
        pass


class _Array:
    """Stands for numpy.ndarray while a file is read; only one-byte elements are believed."""

    def __init__(self, *arguments: object) -> None:
        self.shape: tuple[int, ...] = (0,)
        self.raw = b""

    def __setstate__(self, state: Any) -> None:
        _, self.shape, dtype, fortran, self.raw = state
        if not isinstance(dtype, _Dtype) or dtype.name != "u1" or fortran or not isinstance(self.raw, bytes):
            raise _RefusedError("an array that is not plain uint8")

    @classmethod
    def from_buffer(cls, raw: Any, dtype: Any, shape: Any, order: object) -> "_Array":
        array = cls()
        raw = bytes(raw) if isinstance(raw, bytearray) else raw
        array.__setstate__((1, shape, dtype, order not in ("C", b"C"), raw))
        return array

    def array(self) -> np.ndarray:
        return np.frombuffer(self.raw, np.uint8).reshape(self.shape)


def _latin1(text: str, encoding: object = "latin1") -> bytes:
    return text.encode("latin1")


class _Call:
    """A function that a pickle may call but not change (pickles can set attributes)."""

    __slots__ = ("_function",)
    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setattr__(self, name: str, value: object) -> None:
        raise _RefusedError(f"changing {name}")

    def __setstate__(self, state: object) -> None:
        raise _RefusedError("changing a function")


_ALLOWED = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Call(_Array) for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Call(_Array.from_buffer) for core in ("core", "_core")},
    ("numpy", "ndarray"): _Call(_Array),
    ("numpy", "dtype"): _Call(_Dtype),
    ("_codecs", "encode"): _Call(_latin1),
}


class _Unpickler(pickle._Unpickler):  # type: ignore[name-defined]
    # The one written in Python: its memo is a dictionary, so that a file cannot make it allocate gigabytes.
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise _RefusedError(printable(f"{module}.{name}"))
        return _ALLOWED[module, name]

    def persistent_load(self, pid: object) -> Any:
        raise _RefusedError("an object outside the file")

    def get_extension(self, code: int) -> Any:
        raise _RefusedError("an extension code")


# --------------------------------------------------------------------------------------------------------- download


def _archive(head: str) -> tuple[str, str, str | None]:
    """(address, file name, md5 or None where none was published) of a named set's archive, from torchvision."""
    from torchvision import datasets

    if head in ("cifar10", "cifar100"):
        published: Any = datasets.CIFAR10 if head == "cifar10" else datasets.CIFAR100
        return published.url, published.filename, published.tgz_md5
    if head == "stl10":
        return datasets.STL10.url, datasets.STL10.filename, datasets.STL10.tgz_md5
    if head == "imagenette":
        url, md5 = datasets.Imagenette._ARCHIVES["full"]
        return url, url.rsplit("/", 1)[-1], md5
    url = datasets.FGVCAircraft._URL
    return url, url.rsplit("/", 1)[-1], None


def _download(head: str, folder: Path) -> None:
    """Fetch a named set's archive through torchvision (which checks its md5) and unpack it into `folder`."""
    from torchvision.datasets.utils import download_url

    url, name, md5 = _archive(head)
    try:
        download_url(url, str(folder), name, md5)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{head} could not be fetched from {url}: {error}; unpack {name} into {folder} by hand"
        ) from None
    unpack(folder / name, folder)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar archive; members that would land outside `folder`, links out of it and devices are refused.

    Raises InputError naming the archive, also where this Python cannot refuse them (3.11 before 3.11.4).
    """
    if not hasattr(tarfile, "data_filter"):
        raise InputError(
            f"{archive} is not unpacked: this needs Python 3.11.4 or newer; unpack it into {folder} by hand"
        )
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InputError(f"{archive} cannot be unpacked into {folder}: {error}") from None
