"""The named sets, in the files in which they are published (paper Table 1): their readers, which
`headstart.records.names.SETS` registers."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.data.download import fetch
from headstart.data.folders import Walk
from headstart.data.pickles import plain, read_pickle
from headstart.data.source import Entry, Source, make
from headstart.records.config import DataConfig
from headstart.records.errors import InputError
from headstart.records.files import expanded
from headstart.records.names import SETS
from headstart.records.text import printable


class _MissingError(InputError):
    """A file of a named set that is not there."""

    def __init__(self, looked_for: Path) -> None:
        super().__init__(f"{looked_for} is missing after the download; the archive is not what it should be")
        self.looked_for = looked_for


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


def digits(root: Path, data: DataConfig) -> Source:
    """The 1,797 digits of scikit-learn, 8x8 with values 0 to 16, grown to 32x32 RGB: each pixel a block of 4x4."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - slow, and rarely needed

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


def _cifar(
    root: Path, batches: dict[str, list[str]], labels_key: str, meta: tuple[str, str], md5: dict[str, str]
) -> Source:
    meta_file, names_key = meta
    meta_path = _need(root / meta_file)
    files = [(split, _need(root / name)) for split, names in batches.items() for name in names]
    classes = [str(plain(name)) for name in _entry(read_pickle(meta_path), names_key, meta_path)]
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
        checksums=_published(root, md5),
    )


def _published(root: Path, md5: dict[str, str]) -> tuple[tuple[Path, str], ...]:
    return tuple((root / file, digest) for file, digest in md5.items())


def _entry(content: dict[str, Any], key: str, path: Path) -> Any:
    if key not in content:
        raise InputError(f"{path} has no entry {key!r}; is it the published file?")
    return content[key]


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


CIFAR10_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}
CIFAR100_MD5 = {
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}
STL10_MD5 = {
    "train_X.bin": "918c2871b30a85fa023e0c44e0bee87f",
    "train_y.bin": "5a34089d4802c674881badbb80307741",
    "unlabeled_X.bin": "5242ba1fed5e4be9e1e742405eb56ca4",
    "test_X.bin": "7f263ba9f9e0b06b93213547f721ac82",
    "test_y.bin": "36f9794fa4beb8a2c72628de14fa638e",
}


def cifar10(root: Path, data: DataConfig) -> Source:
    """CIFAR-10's python version."""
    batches = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
    root = _inside(root, "cifar-10-batches-py")
    return _cifar(root, batches, "labels", ("batches.meta", "label_names"), CIFAR10_MD5)


def cifar100(root: Path, data: DataConfig) -> Source:
    """CIFAR-100's python version, with its fine labels."""
    batches = {"train": ["train"], "test": ["test"]}
    root = _inside(root, "cifar-100-python")
    return _cifar(root, batches, "fine_labels", ("meta", "fine_label_names"), CIFAR100_MD5)


def stl10(root: Path, data: DataConfig) -> Source:
    """STL-10's binary version."""
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
        checksums=_published(root, STL10_MD5),
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


def imagenette(root: Path, data: DataConfig) -> Source:
    """The largest of the three sizes that is there; ROOT may also be one size's folder itself."""
    root = _inside(root, "imagenette2", "imagenette2-320", "imagenette2-160")
    entries = [
        Entry(e.name, e.path, IMAGENETTE_CLASSES.get(e.label or "", e.label), e.official)
        for split in ("train", "val")
        for parts, path in Walk(_need(root / split))
        for e in [Entry("/".join((split, *parts)), path, parts[0] if len(parts) > 1 else None, split)]
    ]
    if not entries:
        raise _MissingError(root / "train" / next(iter(IMAGENETTE_CLASSES)))
    return make(os.path.abspath(root), entries)


def fgvc_aircraft(root: Path, data: DataConfig) -> Source:
    """FGVC-Aircraft 2013b, labelled as `data.annotation` says."""
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
    if not any(os.path.exists(str(entry.path)) for entry in entries):
        raise _MissingError(Path(str(entries[0].path)) if entries else root / "images")
    source = make(os.path.abspath(root), entries, crop_bottom=20)
    trainval = root / f"images_{data.annotation}_trainval.txt"  # torchvision's order, in which the authors split
    listed = _lines(trainval) if trainval.exists() else [Path(str(entry.path)).stem for entry in entries]
    place = {line.partition(" ")[0]: i for i, line in enumerate(listed)}
    order = [place.get(name[:-4].rpartition("/")[2], len(place) + i) for i, name in enumerate(source.names)]
    return replace(source, order=np.array(order, dtype=np.int64))


def named_set(name: str, data: DataConfig) -> Source:
    """The source that `NAME` or `NAME:ROOT` stands for, fetched first where `data.download` says so.

    Raises InputError when a file of it is missing, saying which, where and how to get it.
    """
    head, _, root = name.partition(":")
    known = SETS[head]
    if not known.archive:
        if root:
            raise InputError(f"{head} ships with a library and has no folder; write {head} instead of {name}")
        return known.made()(Path(), data)
    if not root:
        raise InputError(f"{head} needs the folder its files are in: {head}:ROOT")
    folder = expanded(root)
    try:
        return known.made()(folder, data)
    except _MissingError as missing:
        if not data.download:
            raise InputError(
                f"{head} needs {missing.looked_for}, which is not there; give --data.download to fetch it, "
                f"or unpack {known.archive.rsplit('/', 1)[-1]} from {known.archive} into {folder}"
            ) from None
    fetch(known, folder)
    return known.made()(folder, data)


def set_of(name: str) -> str | None:
    """The named set that a DATA name means; None where it means something else."""
    head = name.split(":", 1)[0]
    return head if head in SETS else None
