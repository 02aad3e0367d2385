"""Pictures inside one file: a zip or tar of pictures, WebDataset shards, parquet with image bytes, .npy and .npz.

Comes in: such a file. Goes out: its pictures, each read where it lies when it is asked for, with labels and split where
the file carries them. Nothing is unpacked, and nothing in a file can execute.
"""

import json
import os
import struct
import tarfile
import threading
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from headstart.data.decode import MAX_BYTES, SUFFIXES, UnreadableError
from headstart.data.layout import Folder, Layout, Role
from headstart.data.source import Entry, Found
from headstart.data.table import class_name, is_label, no_label
from headstart.records.arrays import in_words
from headstart.records.errors import InputError
from headstart.records.text import number, printable

PACKED = (".zip", ".tar", ".parquet", ".npy", ".npz")
"""Endings of files that hold pictures."""
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
"""What gzip, bzip2, xz and zstd files begin with."""


def in_packed(path: Path, labels: str) -> Found:
    """The pictures of such a file. Raises InputError naming it, and what in it is missing."""
    readers: dict[str, Callable[[], Found]] = {
        ".zip": lambda: _in_archive(path, _zip_members(path), labels),
        ".tar": lambda: _in_archive(path, _tar_members(path), labels),
        ".parquet": lambda: _in_parquet(path),
        ".npy": lambda: _in_arrays(path),
        ".npz": lambda: _in_arrays(path),
    }
    try:
        found = readers[path.suffix.lower()]()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    if not found.entries and found.skipped:
        (name, reason), count = found.skipped[0], number(len(found.skipped), "picture")
        raise InputError(f"{path} holds {count}, none of which can be read ({printable(name)}: {reason})")
    if not found.entries:
        raise InputError(f"{path} holds no pictures that can be read; looked for {' '.join(sorted(SUFFIXES))} in it")
    found.files.append(path)
    return found


# ---------------------------------------------------------------------------------------------------- zip, tar, shards


@dataclass(frozen=True)
class Member:
    """A picture's bytes at one place of a file; deflated: as zip files keep them."""

    path: str
    offset: int
    stored: int
    size: int
    deflated: bool = False

    def read(self) -> bytes:
        """The bytes of the picture's own file. Raises UnreadableError where they are not all there."""
        if self.size > MAX_BYTES:
            raise UnreadableError(f"file of {self.size:,} bytes, more than {MAX_BYTES:,}")
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            data = file.read(self.stored)
        if self.deflated:
            try:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, self.size)
            except zlib.error as error:
                raise UnreadableError(f"damaged in its archive: {error}") from None
        if len(data) != self.size:
            raise UnreadableError(f"cut off in its archive: {len(data):,} of {self.size:,} bytes")
        return data


Listed = Iterator[tuple[str, Member | str]]
"""Names in an archive with what they are, or why they cannot be read."""


def _zip_members(path: Path) -> Listed:
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise InputError(f"{path} is no whole zip archive: {error}") from None
    with archive, open(path, "rb") as file:
        for info in archive.infolist():
            if info.is_dir():
                continue
            if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                yield info.filename, "encrypted or compressed in a way that is not read"
                continue
            file.seek(info.header_offset + 26)
            header = file.read(4)
            name, extra = struct.unpack("<HH", header) if len(header) == 4 else (0, 0)
            place = info.header_offset + 30 + name + extra
            deflated = info.compress_type == zipfile.ZIP_DEFLATED
            yield info.filename, Member(str(path), place, info.compress_size, info.file_size, deflated)


def _tar_members(path: Path) -> Listed:
    length, last = path.stat().st_size, path.name
    try:
        with tarfile.open(path, "r:") as archive:
            for info in archive:
                if info.isfile() and not info.issparse():
                    last = info.name
                    yield info.name, Member(str(path), info.offset_data, info.size, info.size)
            if archive.offset > length:
                raise tarfile.ReadError("unexpected end of data")
    except tarfile.ReadError as error:
        if last == path.name:
            with open(path, "rb") as file:
                compressed = file.read(6).startswith(COMPRESSED)
            wrong = "is compressed; uncompress it first" if compressed else f"is no whole tar archive ({error})"
            raise InputError(f"{path} {wrong}") from None
        yield f"{path.name} after {last}", f"cut off: {error}"


def _in_archive(path: Path, members: Listed, labels: str) -> Found:
    """Pictures of an archive: by its folders, or as WebDataset keeps them, with a .cls or .json beside each."""
    pictures: list[tuple[tuple[str, ...], Member]] = []
    beside: dict[str, Member] = {}
    skipped = []
    for name, member in members:
        parts = tuple(part for part in name.replace("\\", "/").split("/") if part not in ("", ".", ".."))
        is_picture = name.lower().endswith(tuple(SUFFIXES))
        if any(part.startswith(".") or part == "__MACOSX" for part in parts):
            continue
        if isinstance(member, str):
            skipped += [(name, member)] if is_picture or " after " in name else []
        elif is_picture:
            pictures.append((parts, member))
        elif parts[-1].lower().endswith((".cls", ".json")):
            beside["/".join(parts).rpartition(".")[0]] = member
    if any(_key("/".join(parts)) in beside for parts, _ in pictures):
        entries = []
        for parts, member in pictures:
            name = "/".join(parts)
            label, reason = _label_beside(beside.get(_key(name)))
            skipped += [(name, reason)] if reason else []
            entries.append(Entry(name, member, label))
        return Found(entries, skipped, ["taken for WebDataset: labels from .cls or .json beside the pictures"])
    layout = Layout(Folder.of(parts[:-1] for parts, _ in pictures), path.stem, labels)
    roles = [(parts, member, layout.roles.get(parts[:-1], Role())) for parts, member in pictures]
    entries = [Entry("/".join(parts), member, role.label, role.official) for parts, member, role in roles if role.kept]
    return Found(entries, skipped, layout.notes)


def _key(name: str) -> str:
    """What WebDataset joins files by: the path up to the first dot of the file's own name."""
    folder, slash, own = name.rpartition("/")
    return folder + slash + own.partition(".")[0]


def _label_beside(member: Member | None) -> tuple[str | None, str | None]:
    """(label or None, None), or why the file beside a picture cannot be read."""
    if member is None:
        return None, None
    try:
        text = member.read().decode("utf-8").strip()
        if not text.startswith("{"):
            return (None if no_label(text) else text), None
        values = {key: value for key, value in json.loads(text).items() if isinstance(value, (str, int))}
    except (UnreadableError, UnicodeDecodeError, ValueError, RecursionError) as error:
        return None, f"its label cannot be read: {error}"
    label = next((str(value) for key, value in values.items() if is_label(key)), "")
    return (None if no_label(label) else label), None


# -------------------------------------------------------------------------------------------------------------- parquet


@dataclass
class _Table:
    """A parquet file's column of image bytes; a few groups of rows stay in memory while their pictures are read."""

    path: Path
    column: str
    groups: OrderedDict[int, list[Any]] = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def value(self, group: int, row: int) -> Any:
        with self.lock:
            if group not in self.groups:
                from pyarrow import parquet  # noqa: PLC0415 - an extra

                table = parquet.ParquetFile(self.path).read_row_group(group, columns=[self.column])
                self.groups[group] = table.column(0).to_pylist()
                if len(self.groups) > 3:
                    self.groups.popitem(last=False)
            return self.groups[group][row]


@dataclass(frozen=True)
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


def _in_parquet(path: Path) -> Found:
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
    schema = file.schema_arrow
    column = next((name for name in schema.names if _holds_bytes(schema.field(name).type)), None)
    if column is None:
        raise InputError(f"{path} has no column of image bytes; it has {', '.join(schema.names)}")
    label = next((name for name in schema.names if name != column and is_label(name)), None)
    names = _class_names(schema.metadata or {}, label)
    others = [name for name in schema.names if name not in (column, label)]
    notes = [f"{path.name}: column{'s' if len(others) > 1 else ''} {', '.join(others)} not used"] if others else []
    table = _Table(path, column)
    entries: list[Entry] = []
    for group in range(file.num_row_groups):
        count = file.metadata.row_group(group).num_rows
        size = file.metadata.row_group(group).total_byte_size // max(1, count)
        values = file.read_row_group(group, columns=[label]).column(0).to_pylist() if label else [None] * count
        for row, value in enumerate(values):
            entries.append(Entry(f"{len(entries):07d}", Cell(table, group, row, size), class_name(value, names)))
    return Found(entries, notes=notes)


def _holds_bytes(kind: Any) -> bool:
    """binary, or Hugging Face's struct of bytes and path."""
    fields = [kind.field(i) for i in range(kind.num_fields)] if str(kind).startswith("struct") else []
    return str(kind) in ("binary", "large_binary") or any(f.name == "bytes" and "binary" in str(f.type) for f in fields)


def _class_names(metadata: dict[bytes, bytes], label: str | None) -> list[str]:
    """Hugging Face's names of a label column's numbers."""
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][label]["names"]
        return [str(name) for name in names]
    except (KeyError, TypeError, ValueError):
        return []


# --------------------------------------------------------------------------------------------------------------- arrays

_PARTS = (("train", "train"), ("val", "val"), ("valid", "val"), ("test", "test"))


def _loaded(path: Path) -> dict[str, np.ndarray]:
    """Every array of a file; that of an .npy stays on disk."""
    where = f"{path}"
    found: dict[str, np.ndarray] = {}
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


def _in_arrays(path: Path) -> Found:
    """A .npy of pictures, or a .npz of pictures and labels, undivided or in parts (`x_train`, `train_images` ...)."""
    arrays = _loaded(path)
    pictures = {name: array for name, array in arrays.items() if array.ndim in (3, 4) and array.dtype == np.uint8}
    if not pictures and "embeddings" in arrays:
        raise InputError(f"{path} holds embeddings, not pictures; give the pictures")
    if not pictures:
        shapes = ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in arrays.items())
        raise InputError(f"{path} holds no uint8 pictures (N, H, W), (N, H, W, 3) or (N, 3, H, W); it holds {shapes}")
    if not any(len(array) for array in pictures.values()):
        shapes = ", ".join(f"{name} {array.shape}" for name, array in pictures.items())
        raise InputError(f"{path} holds no pictures: {shapes}")
    entries: list[Entry] = []
    for name, array in pictures.items():
        part = next((part for word, part in _PARTS if word in name.lower()), "")
        labels = _labels_of(name, len(array), arrays)
        prefix = f"{name}/" if len(pictures) > 1 else ""
        rows = zip(_in_colour(array, path, name), labels, strict=True)
        official = part if len(pictures) > 1 else ""
        entries += [Entry(f"{prefix}{i:07d}", pixels, label, official) for i, (pixels, label) in enumerate(rows)]
    return Found(entries)


def _in_colour(array: np.ndarray, path: Path, name: str) -> Iterable[np.ndarray]:
    """(H, W, 3) of each picture, without a copy."""
    if array.ndim == 4 and array.shape[3] not in (1, 3) and array.shape[1] in (1, 3):
        array = array.transpose(0, 2, 3, 1)
    if array.ndim == 3:
        array = array[..., None]
    if array.shape[3] not in (1, 3):
        raise InputError(f"{path}: {name} has {array.shape[3]} channels; pictures have 1 or 3")
    return np.broadcast_to(array, (*array.shape[:3], 3))


def _labels_of(name: str, count: int, arrays: dict[str, np.ndarray]) -> list[str | None]:
    """The labels of an array of pictures: the array of as many numbers or words whose name is the most like its own."""
    part = next((word for word, _ in _PARTS if word in name.lower()), "")
    for other, array in arrays.items():
        flat = array.reshape(-1) if array.ndim == 1 or array.shape[1:] == (1,) else None
        own = next((word for word, _ in _PARTS if word in other.lower()), "")
        if flat is not None and len(flat) == count and own == part and flat.dtype.kind in "iuUS":
            return [None if no_label(str(value)) or value == -1 else str(value) for value in flat.tolist()]
    return [None] * count


def in_folder_packed(root: Path) -> list[Path]:
    """Files of pictures below a folder, in order of their names."""
    found = (Path(folder) / name for folder, _, names in os.walk(root) for name in names if not name.startswith("."))
    return sorted(path for path in found if path.suffix.lower() in PACKED)
