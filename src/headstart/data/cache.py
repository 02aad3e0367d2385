"""Decoded pictures as plain arrays in one file, with checksums: written once, then memory-mapped or read whole.

Layout: a fixed header (magic, version, where the index lies, lengths, checksum) | all frames, one after the other |
all squashed pictures | small arrays (one row a picture) | a JSON index naming them. Nothing in it can execute.
"""

import json
import os
import struct
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from headstart.engine.progress import say
from headstart.records.config import DataConfig
from headstart.records.errors import InputError, RunError

MAGIC = b"HEADSTART IMAGES"
VERSION = 1
_HEADER = struct.Struct("<16sIIQQQ")  # magic, version, index crc32, index offset, index length, file length
_HEADER_SIZE = 64


class Row(NamedTuple):
    """One decoded picture.

    Attributes:
        place: its index in the source.
        frame: uint8 (3, h, w), as kept.
        squashed: uint8 (3, side, side), or None where the frame already is the square.
        native: height and width before it was reduced.
        sums, squares: per channel, over its native pixels: sum of values and of squared values.
        digest: 16 bytes that name its content.
    """

    place: int
    frame: np.ndarray
    squashed: np.ndarray | None
    native: tuple[int, int]
    sums: np.ndarray
    squares: np.ndarray
    digest: bytes


class Skipped(NamedTuple):
    """A picture set aside: its index in the source, the reason, and whether that may pass (permission, memory)."""

    place: int
    reason: str
    passing: bool = False


@dataclass(frozen=True)
class Store:
    """All kept pictures of a source. Row r's frame is `frames[offsets[r]:offsets[r + 1]]` as (3, *sizes[r]).

    Attributes:
        key: what the source was when this was written.
        skipped: [index in the source, reason] of the pictures set aside.
        side: of the squashed pictures; 0 where there are none.
        frames, squashed: flat uint8; in memory or memory-mapped.
        index (n,), sizes (n, 2), native (n, 2), offsets (n + 1,): int64; sums, squares (n, 3): float64;
        digests (n, 16): uint8; frame_crc, squashed_crc (n,): uint32.
        path: the file behind it; None for a store that was only ever in memory.
        resident: whether it is in memory (and was verified) as a whole.
    """

    key: str
    skipped: list[tuple[int, str]]
    side: int
    frames: np.ndarray
    squashed: np.ndarray
    index: np.ndarray
    sizes: np.ndarray
    native: np.ndarray
    offsets: np.ndarray
    sums: np.ndarray
    squares: np.ndarray
    digests: np.ndarray
    frame_crc: np.ndarray
    squashed_crc: np.ndarray
    path: Path | None = None
    resident: bool = True

    def damaged(self, rows: Iterable[int]) -> int | None:
        """The first of these rows whose bytes are not the ones that were written; None when all are."""
        square = 3 * self.side * self.side
        for row in rows:
            if zlib.crc32(self.frames[self.offsets[row] : self.offsets[row + 1]].data) != self.frame_crc[row]:
                return row
            if square and zlib.crc32(self.squashed[row * square : (row + 1) * square].data) != self.squashed_crc[row]:
                return row
        return None


def write(file: BinaryIO, key: str, rows: Iterable[Row | Skipped], side: int, scratch: Path | None) -> None:
    """Write a store to an open, seekable binary file.

    `rows` are pictures, or why there is none; `side` is 0 or that of every row's `squashed`;
    `scratch` is a folder for a nameless temporary file (None: hold it in memory).
    """
    arrays: dict[str, list[Any]] = {
        name: [] for name in ("index", "sizes", "native", "sums", "squares", "frame_crc", "squashed_crc")
    }
    digests, offsets, skipped = bytearray(), [0], []
    file.write(bytes(_HEADER_SIZE))
    with tempfile.SpooledTemporaryFile(
        max_size=0 if scratch is None else 1 << 24, dir=str(scratch or "") or None
    ) as squares:
        for row in rows:
            if not isinstance(row, Row):
                skipped.append(row[:2])
                continue
            file.write(row.frame.data)
            offsets.append(offsets[-1] + row.frame.nbytes)
            arrays["index"].append(row.place)
            arrays["sizes"].append(row.frame.shape[1:])
            arrays["native"].append(row.native)
            arrays["sums"].append(row.sums)
            arrays["squares"].append(row.squares)
            arrays["frame_crc"].append(zlib.crc32(row.frame.data))
            if side:
                assert row.squashed is not None
                squares.write(row.squashed.data)
                arrays["squashed_crc"].append(zlib.crc32(row.squashed.data))
            digests += row.digest
        placed = [_place("frames", "u1", (offsets[-1],), _HEADER_SIZE)]
        placed.append(_place("squashed", "u1", (squares.tell(),), file.tell()))
        squares.seek(0)
        while block := squares.read(1 << 22):
            file.write(block)
    n = len(offsets) - 1
    small = {
        "index": np.array(arrays["index"], "<i8"),
        "sizes": np.array(arrays["sizes"], "<i8").reshape(n, 2),
        "native": np.array(arrays["native"], "<i8").reshape(n, 2),
        "offsets": np.array(offsets, "<i8"),
        "sums": np.array(arrays["sums"], "<f8").reshape(n, 3),
        "squares": np.array(arrays["squares"], "<f8").reshape(n, 3),
        "digests": np.frombuffer(bytes(digests), "u1").reshape(n, 16),
        "frame_crc": np.array(arrays["frame_crc"], "<u4"),
        "squashed_crc": np.array(arrays["squashed_crc"], "<u4"),
    }
    for name, array in small.items():
        data = array.tobytes()
        placed.append({**_place(name, array.dtype.str, array.shape, file.tell()), "crc": zlib.crc32(data)})
        file.write(data)
    index = json.dumps({"key": key, "side": side, "skipped": skipped, "arrays": placed}).encode()
    at = file.tell()
    file.write(index)
    header = _HEADER.pack(MAGIC, VERSION, zlib.crc32(index), at, len(index), file.tell())
    file.seek(0)
    file.write(header + struct.pack("<I", zlib.crc32(header)))


def _place(name: str, dtype: str, shape: tuple[int, ...], offset: int) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": list(shape), "offset": offset}


class DamagedError(Exception):
    """The bytes are not those of a complete store; the message says what is wrong."""


def read(path: Path, memory: float) -> Store:
    """Open a store; held in memory and verified as a whole up to `memory` bytes, else memory-mapped.

    Raises DamagedError (cut off, a byte changed, another program's file) and FileNotFoundError.
    """
    length = path.stat().st_size
    if length < _HEADER_SIZE:
        raise DamagedError("it is cut off")
    resident = length <= memory
    data = np.fromfile(path, np.uint8) if resident else np.memmap(path, np.uint8, mode="r")
    store = parse(data, path, resident)
    if resident and store.damaged(range(len(store.index))) is not None:
        raise DamagedError("a checksum does not match")
    return store


def parse(data: np.ndarray, path: Path | None, resident: bool) -> Store:
    """The store inside a flat uint8 array; frames are not verified yet. Raises DamagedError."""
    header = data[: _HEADER.size].tobytes()
    (crc,) = struct.unpack("<I", data[_HEADER.size : _HEADER.size + 4].tobytes())
    magic, version, index_crc, at, length, total = _HEADER.unpack(header)
    if magic != MAGIC or version != VERSION or crc != zlib.crc32(header):
        raise DamagedError("its header is damaged or of another version")
    if total != len(data):
        raise DamagedError(f"it has {len(data):,} bytes instead of {total:,}")
    text = data[at : at + length].tobytes()
    if zlib.crc32(text) != index_crc:
        raise DamagedError("its index is damaged")
    index = json.loads(text)
    arrays = {}
    for entry in index["arrays"]:
        dtype = np.dtype(entry["dtype"])
        size = int(np.prod(entry["shape"])) * dtype.itemsize
        part = data[entry["offset"] : entry["offset"] + size]
        if "crc" in entry:
            part = np.frombuffer(part.tobytes(), dtype)  # copied: aligned, and out of the map
            if zlib.crc32(part.data) != entry["crc"]:
                raise DamagedError(f"its {entry['name']} are damaged")
        arrays[entry["name"]] = part.reshape(entry["shape"])
    skipped = [(int(i), str(reason)) for i, reason in index["skipped"]]
    return Store(key=index["key"], skipped=skipped, side=index["side"], path=path, resident=resident, **arrays)


def folder(data: DataConfig) -> tuple[Path | None, str]:
    """The folder of what is kept for the next start, made if need be; None, and why, where it cannot be written."""
    where = data.cache_dir or os.environ.get("HEADSTART_CACHE")
    try:
        path = Path(where or "~/.cache/headstart").expanduser()
    except RuntimeError:
        if where:
            raise InputError(f"data.cache-dir is {where}; there is no such home folder") from None
        return None, "there is no home folder"
    try:
        path.mkdir(parents=True, exist_ok=True)
        writable = os.access(path, os.W_OK)
    except OSError:
        writable = False
    return (path, "") if writable else (None, f"{path} cannot be written")


def known(path: str | Path) -> str:
    """What a file is known by from one start to the next: its name, length and times."""
    try:
        status = os.stat(path)
    except OSError:
        return f"{path}\0missing\n"
    # The time of change cannot be set back by a copy that keeps the time of modification.
    return f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\n"


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Let one process at a time build `path`; the others wait and then find it done.

    The kernel drops the lock when its holder dies. Where files cannot be locked (some network folders, Windows),
    both build: each to a name of its own, and the last rename wins with the same bytes.
    """
    with ExitStack() as held:
        try:
            import fcntl  # noqa: PLC0415 - not on Windows

            handle = held.enter_context(open(path.with_suffix(".lock"), "ab"))
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"waiting for another process that is reading the same pictures into {path}")
                fcntl.flock(handle, fcntl.LOCK_EX)
            for left_behind in path.parent.glob(f".{path.name}.*.tmp"):  # by a builder that was killed
                with suppress(OSError):
                    left_behind.unlink()
        except (ImportError, OSError):
            pass
        yield


def remove(path: Path) -> None:
    """Take a damaged store away, so that the next start builds it anew."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise RunError(f"the damaged picture cache {path} cannot be removed: {error.strerror}; delete it") from None
