"""Pictures inside one file: a zip or tar of pictures, WebDataset shards, parquet in `parquet`, arrays in `stacks`.

Comes in: such a file. Goes out: its pictures, each read where it lies when it is asked for, with labels and split where
the file carries them. Nothing is unpacked, and nothing in a file can execute.
"""

import json
import posixpath
import struct
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from headstart.data.decode import MAX_BYTES, SUFFIXES, UnreadableError
from headstart.data.labels import as_label, label_columns, without_minus_one
from headstart.data.layout import JUNK, Folder, Layout, Role
from headstart.data.parquet import in_parquet
from headstart.data.source import Entry, Found, as_text
from headstart.data.stacks import in_arrays
from headstart.records.errors import InputError
from headstart.records.files import unreadable
from headstart.records.folder import MARK
from headstart.records.text import number, printable

PACKED = (".zip", ".tar", ".parquet", ".npy", ".npz")
"""Endings of files that hold pictures."""
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
"""What gzip, bzip2, xz and zstd files begin with."""
METHODS = {6: "implode", 9: "deflate64", 12: "bzip2", 14: "lzma", 93: "zstd", 95: "xz", 98: "ppmd"}
"""Of zip, that are not read."""


def in_packed(path: Path, labels: str) -> Found:
    """The pictures of such a file. Raises InputError naming it, and what in it is missing."""
    readers: dict[str, Callable[[], Found]] = {
        ".zip": lambda: _in_archive(path, _zip_members(path), labels),
        ".tar": lambda: _in_archive(path, _tar_members(path), labels),
        ".parquet": lambda: in_parquet(path),
        ".npy": lambda: in_arrays(path),
        ".npz": lambda: in_arrays(path),
    }
    try:
        found = readers[path.suffix.lower()]()
    except OSError as error:
        raise InputError(unreadable(path, error)) from None
    if not found.entries and found.skipped:
        (name, reason), count = found.skipped[0], number(len(found.skipped), "picture")
        raise InputError(f"{path} holds {count}, none of which can be read ({printable(name)}: {reason})")
    if not found.entries:
        some = ", ".join(f"{n:,} {ending or 'without ending'}" for ending, n in found.others.most_common(5))
        raise InputError(
            f"{path} holds no pictures that can be read; looked for {' '.join(sorted(SUFFIXES))} in it"
            + (f"; it holds {some}" if some else "")
        )
    found.files.append(path)
    return found


def written_here(path: Path) -> bool:
    """Whether such a file is one of `embed` or `map`, which holds no pictures of a set."""
    try:
        if path.suffix.lower() == ".npz":
            with zipfile.ZipFile(path) as archive:
                return {"about.npy", "digests.npy"} <= set(archive.namelist())
        if path.suffix.lower() == ".parquet":
            from pyarrow import parquet  # noqa: PLC0415 - an extra

            return MARK in (parquet.read_schema(path).metadata or {})
    except Exception:  # damaged, or not to be read without an extra: that is said where it is opened
        return False
    return False


# ---------------------------------------------------------------------------------------------------- zip, tar, shards


@dataclass(frozen=True, slots=True)
class Member:
    """A picture's bytes at one place of a file; deflated: as zip files keep them; crc: their CRC-32, if it is kept."""

    path: str
    offset: int
    stored: int
    size: int
    deflated: bool = False
    crc: int | None = None

    def read(self) -> bytes:
        """The bytes of the picture's own file. Raises UnreadableError where they are not all there."""
        if (most := max(self.size, self.stored)) > MAX_BYTES:
            raise UnreadableError(f"file of {most:,} bytes, more than {MAX_BYTES:,}")
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            data = file.read(self.stored)
        if self.deflated:
            try:
                # One byte more than it says to hold: of 0 zlib would unpack without end.
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, self.size + 1)
            except zlib.error as error:
                raise UnreadableError(f"damaged in its archive: {error}") from None
        if len(data) != self.size:
            wrong = "cut off" if len(data) < self.size else "longer than it says"
            raise UnreadableError(f"{wrong} in its archive: {len(data):,} of {self.size:,} bytes")
        if self.crc is not None and zlib.crc32(data) != self.crc:
            raise UnreadableError("damaged in its archive: its checksum is another")
        return data


Listed = Iterator[tuple[str, Member | str]]
"""Names in an archive with what they are, or why they cannot be read."""


def _zip_members(path: Path) -> Listed:
    try:
        archive = zipfile.ZipFile(path)
    except NotImplementedError as error:
        raise InputError(
            f"{path} cannot be read ({error}); pack it again with deflate, as zip does by itself"
        ) from None
    except (zipfile.BadZipFile, struct.error, ValueError) as error:
        raise InputError(f"{path} is no whole zip archive: {error}") from None
    with archive, open(path, "rb") as file:
        for info in archive.infolist():
            if info.is_dir():
                continue
            if info.flag_bits & 1:
                yield info.filename, "encrypted in its archive; pack it again without a password"
                continue
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                kind = METHODS.get(info.compress_type, "a method unknown here")
                yield info.filename, f"compressed with {kind}; pack it again with deflate, as zip does by itself"
                continue
            file.seek(info.header_offset + 26)
            header = file.read(4)
            name, extra = struct.unpack("<HH", header) if len(header) == 4 else (0, 0)
            place = info.header_offset + 30 + name + extra
            deflated = info.compress_type == zipfile.ZIP_DEFLATED
            yield info.filename, Member(str(path), place, info.compress_size, info.file_size, deflated, info.CRC)


def _tar_members(path: Path) -> Listed:
    last = path.name
    files: dict[str, Member] = {}
    links: dict[str, str] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for info in archive:
                if info.isfile() and not info.issparse():
                    last = info.name
                    member = Member(str(path), info.offset_data, info.size, info.size)
                    files[posixpath.normpath(info.name)] = member
                    yield info.name, member
                elif info.islnk() or info.issym():  # GNU tar keeps the second name of one file as a link
                    beside = "" if info.islnk() else posixpath.dirname(info.name)
                    links[posixpath.normpath(info.name)] = posixpath.normpath(posixpath.join(beside, info.linkname))
                elif info.issparse():
                    yield info.name, "kept as a sparse file in its archive; pack it again without --sparse"
            with open(path, "rb") as file:
                file.seek(archive.offset)
                mark = file.read(tarfile.BLOCKSIZE)
            if mark != bytes(tarfile.BLOCKSIZE):  # cut off, or damaged: tarfile ends there without a word
                raise tarfile.ReadError("unexpected end of data")
    except tarfile.ReadError as error:
        if last == path.name:
            with open(path, "rb") as file:
                compressed = file.read(6).startswith(COMPRESSED)
            wrong = "is compressed; uncompress it first" if compressed else f"is no whole tar archive ({error})"
            raise InputError(f"{path} {wrong}") from None
        yield f"{path.name} after {last}", f"cut off: {error}"
    for name, target in links.items():
        passed = {name}
        while target in links and target not in passed:
            passed.add(target)
            target = links[target]
        yield name, files.get(target, f"a link to {printable(target)}, which is no file of the archive")


def _in_archive(path: Path, members: Listed, labels: str) -> Found:
    """Pictures of an archive: by its folders, or as WebDataset keeps them, with a label in a file beside each."""
    found = _Members(path)
    for name, member in members:
        found.add(name, member)
    beside = None if labels == "folders" else found.labels()
    if beside is not None:
        found.leave_out_second_pictures()
    layout = Layout(Folder.of(parts[:-1] for parts in found.pictures), path.stem, labels if beside is None else "none")
    entries = []
    for parts, member in found.pictures.items():
        role, name = layout.roles.get(parts[:-1], Role()), "/".join(parts)
        label = role.label if beside is None else beside[name]
        entries += [Entry(name, member, label, role.official)] if role.kept else []
    taken = [] if beside is None else ["taken for WebDataset: labels from .cls or .json beside the pictures"]
    return Found(entries, found.skipped, taken + layout.notes + found.notes(), found.others)


class _Members:
    """What an archive holds: pictures by the parts of their names, files of labels beside them, those set aside."""

    def __init__(self, path: Path) -> None:
        self.pictures: dict[tuple[str, ...], Member] = {}
        self.skipped: list[tuple[str, str]] = []
        self.others: Counter[str] = Counter()
        self._path = path
        self._beside: dict[str, Member] = {}
        self._again: list[str] = []
        self._said: list[str] = []

    def add(self, name: str, member: Member | str) -> None:
        """One of its files, or why it cannot be read. Of two of one name the later counts, as unpacking leaves it."""
        name = as_text(name.replace("\\", "/"))
        parts = tuple(part for part in name.split("/") if part not in ("", ".", ".."))
        if not parts or any(part.startswith(".") or part in JUNK for part in parts):
            return
        is_picture = parts[-1].lower().endswith(tuple(SUFFIXES))
        stem, dot, ending = parts[-1].lower().rpartition(".")
        if isinstance(member, str):
            self.skipped += [(name, member)] if is_picture or " after " in name else []
        elif is_picture:
            self._again += ["/".join(parts)] * (parts in self.pictures)
            self.pictures[parts] = member
        else:
            self.others[dot + ending if dot and stem else ""] += 1
            of = "/".join(parts)[: -len(ending) - 1]
            if ending == "cls" or (ending == "json" and of not in self._beside):
                self._beside[of] = member

    def labels(self) -> dict[str, str | None] | None:
        """The label of each picture where a file beside some picture says one; else None."""
        labels: dict[str, str | None] = {}
        unread = []
        for name in map("/".join, self.pictures):
            labels[name], reason = _label_beside(self._beside.get(_key(name)))
            unread += [f"the label of {printable(name)} cannot be read ({reason})"] if reason else []
        self._said = unread[:3] + [f"so cannot {len(unread) - 3:,} more"] * (len(unread) > 3)
        told, notes = without_minus_one(list(labels.values()))
        self._said += notes
        return dict(zip(labels, told, strict=True)) if any(told) else None

    def leave_out_second_pictures(self) -> None:
        """Of the pictures of one WebDataset sample (0001.jpg, 0001.seg.png) only the one with the shortest ending is
        of the set."""
        dots: dict[str, int] = {}
        for parts in self.pictures:
            count, sample = parts[-1].count("."), _key("/".join(parts))
            dots[sample] = min(count, dots.get(sample, count))
        second = [parts for parts in self.pictures if parts[-1].count(".") > dots[_key("/".join(parts))]]
        for parts in second:
            del self.pictures[parts]
        if second:
            example = printable("/".join(second[0]))
            self._said.append(f"left out: {number(len(second), 'picture')} beside that of their sample ({example})")

    def notes(self) -> list[str]:
        """What was passed over, a sentence each."""
        notes = [f"{self._path.name}: {note}" for note in self._said]
        if self._again:
            some = ", ".join(map(printable, dict.fromkeys(self._again[:3])))
            notes.append(
                f"{self._path.name}: {number(len(self._again), 'file')} under a name that there was before ({some}); "
                "the last counts"
            )
        return notes


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
        if not text.startswith(("{", "[")):
            return as_label(text), None
        found = json.loads(text)
    except (UnreadableError, UnicodeDecodeError, ValueError, RecursionError) as error:
        return None, str(error)
    values = found if isinstance(found, dict) else {}
    headers = [header for header, value in values.items() if not isinstance(value, dict)]
    value = next((values[headers[i]] for i in label_columns(headers)), None)
    return as_label(value), "it says several classes" if isinstance(value, list) and len(value) > 1 else None
