"""The two kinds of file that hold embeddings: an .npz of plain arrays, and a parquet table.

Comes in: rows in blocks, or a path. Goes out: a file that is written a block at a time; or its arrays, checked, the
embeddings of an .npz mapped where they lie. Beside what the contract names (docs/using.md) both carry `about`, the
identity of what embedded them, and `digests`, the content of every picture.
"""

import io
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from headstart.data.source import as_text
from headstart.records import schema
from headstart.records.arrays import in_words, missing
from headstart.records.errors import InputError
from headstart.records.folder import MARK
from headstart.records.validation import problem

NOT_OURS = "`headstart embed` did not write it, or an older one did"
AGAIN = "; embed the pictures again, into another file"
MEMBERS = ("names", "embeddings", "labels", "classes", "digests", "about")


class Pictured(Protocol):
    """What a file says of the pictures behind its rows; `Images` has it."""

    @property
    def names(self) -> list[str]: ...  # noqa: D102 - as of `Images`
    @property
    def labels(self) -> np.ndarray: ...  # noqa: D102
    @property
    def classes(self) -> list[str]: ...  # noqa: D102
    @property
    def digests(self) -> np.ndarray: ...  # noqa: D102
    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Named:
    """It alone, of pictures that are not open here."""

    names: list[str]
    labels: np.ndarray
    classes: list[str]
    digests: np.ndarray

    def __len__(self) -> int:
        return len(self.names)


def rows_of(path: Path, only_about: bool = False) -> dict[str, np.ndarray]:
    """names, embeddings, labels, classes, digests and about of a file, or the last alone.

    Raises InputError when it is not whole, or was not written by `embed`.
    """
    read = read_npz if path.suffix == ".npz" else read_parquet
    return read(path, ("about",) if only_about else MEMBERS)


def has_paths(path: Path) -> bool:
    """Whether such a file says where each picture lies."""
    if path.suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            return "paths.npy" in archive.namelist()
    from pyarrow import parquet  # noqa: PLC0415 - an extra

    return "path" in parquet.read_schema(path).names


def about_of(kept: Mapping[str, np.ndarray], path: Path) -> dict[str, Any]:
    """What a file says about itself. Raises InputError when that cannot be."""
    try:
        value = json.loads(str(kept["about"]))
        wrong = problem(value, schema.EMBEDDINGS)
    except ValueError as error:
        wrong = str(error)
    if wrong:
        raise InputError(f"{path} says about itself what cannot be ({wrong}){AGAIN}")
    return value


def read_npz(path: Path, members: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrays of an .npz, checked against their CRC-32; the embeddings stay on disk, mapped, because they are stored as
    they are, and `check_rows` checks them."""
    found: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in members:
                info = archive.getinfo(f"{name}.npy")
                with archive.open(info) as file:
                    version = np.lib.format.read_magic(file)
                    if version != (1, 0):
                        raise ValueError(f"{name} has the format {version}")
                    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
                    header = file.tell()
                    if name == "embeddings" and info.compress_type == zipfile.ZIP_STORED and not fortran:
                        start = _start_of(path, info) + header
                        found[name] = np.memmap(path, dtype, "r", start, shape) if shape[0] else np.empty(shape, dtype)
                    else:
                        with archive.open(info) as again:
                            found[name] = np.lib.format.read_array(again, allow_pickle=False)
    except KeyError as error:
        raise InputError(f"{path} has no {missing(error)}: {NOT_OURS}{AGAIN}") from None
    except Exception as error:  # zipfile and numpy raise many kinds
        raise InputError(f"{path} is damaged or no .npz ({in_words(path, error)}){AGAIN}") from None
    return found if "names" not in members else _whole(found, path)


def check_rows(path: Path) -> None:
    """Raise InputError where the embeddings in a file are not those that were written.

    An .npz holds their CRC-32, and all of them are read for it, as fast as the disk gives them. The pages of a parquet
    table have theirs, and were checked when it was read.
    """
    if path.suffix != ".npz":
        return
    try:
        with zipfile.ZipFile(path) as archive, archive.open("embeddings.npy") as file:
            while file.read(1 << 20):
                pass
    except Exception as error:
        raise InputError(f"{path} is damaged: {in_words(path, error)} where its embeddings are{AGAIN}") from None


def _start_of(path: Path, info: zipfile.ZipInfo) -> int:
    """Where a stored member's bytes begin."""
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)
        lengths = np.frombuffer(file.read(4), "<u2")
    return info.header_offset + 30 + int(lengths.sum())


def _whole(found: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    n = len(found["names"])
    right = {
        "names": found["names"].ndim == 1 and found["names"].dtype.kind == "U",
        "embeddings": found["embeddings"].dtype == np.float32 and found["embeddings"].ndim == 2,
        "labels": found["labels"].dtype == np.int64 and found["labels"].ndim == 1,
        "digests": found["digests"].dtype == np.uint8 and found["digests"].shape == (n, 16),
        "classes": found["classes"].ndim == 1,
    }
    for name, good in right.items():
        if not good or (name != "classes" and len(found[name]) != n):
            kind = f"{found[name].dtype} {found[name].shape}"
            raise InputError(f"{path} is damaged: {name} is {kind} for {n} names{AGAIN}")
    labels = found["labels"]
    if n and not (labels.min() >= -1 and labels.max() < len(found["classes"])):
        raise InputError(f"{path} is damaged: labels from {labels.min()} to {labels.max()}{AGAIN}")
    return found


def write_npz(
    file: BinaryIO,
    images: Pictured,
    blocks: Iterable[np.ndarray],
    width: int,
    about: str,
    paths: Sequence[str] | None = None,
) -> None:
    """What `np.savez` writes, with one array's rows coming in blocks."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in (
            ("names", np.array(images.names, dtype=np.str_)),
            ("labels", images.labels.astype(np.int64)),
            ("classes", np.array(images.classes, dtype=np.str_)),
            ("digests", np.asarray(images.digests)),
            ("about", np.array(about)),
            *([] if paths is None else [("paths", np.array(paths, dtype=np.str_))]),
        ):
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, allow_pickle=False)
            archive.writestr(f"{name}.npy", buffer.getbuffer())
        with archive.open("embeddings.npy", "w", force_zip64=True) as member:
            header = {"descr": "<f4", "fortran_order": False, "shape": (len(images), width)}
            np.lib.format.write_array_header_1_0(member, header)
            for block in blocks:
                member.write(np.ascontiguousarray(block, dtype="<f4").data)


def write_parquet(
    file: BinaryIO,
    images: Pictured,
    blocks: Iterable[np.ndarray],
    width: int,
    about: str,
    paths: Sequence[str] | None = None,
) -> None:
    """A row a picture; `about` and the digests in the table's metadata."""
    pyarrow = need_pyarrow()
    from pyarrow import parquet  # noqa: PLC0415 - an extra

    label = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
    fields = [("name", pyarrow.string()), ("label", label), ("embedding", pyarrow.list_(pyarrow.float32(), width))]
    fields += [] if paths is None else [("path", pyarrow.string())]
    metadata = {MARK: about, "headstart.digests": np.asarray(images.digests).tobytes().hex()}
    table = pyarrow.schema(fields, metadata)
    classes = pyarrow.array(images.classes, pyarrow.string())
    done = 0
    with parquet.ParquetWriter(file, table, write_page_checksum=True) as writer:
        for block in blocks:
            rows = slice(done, done + len(block))
            labels = images.labels[rows].astype(np.int32)
            columns = [
                pyarrow.array(images.names[rows], pyarrow.string()),
                pyarrow.DictionaryArray.from_arrays(pyarrow.array(labels, mask=labels < 0), classes),
                pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(block.reshape(-1)), width),
                *([] if paths is None else [pyarrow.array([*map(as_text, paths[rows])], pyarrow.string())]),
            ]
            writer.write_table(pyarrow.Table.from_arrays(columns, schema=table))
            done += len(block)


def need_pyarrow() -> Any:
    """The package. Raises InputError that says how to get it."""
    try:
        import pyarrow  # noqa: PLC0415 - an extra
    except ImportError:
        raise InputError(".parquet needs pyarrow; install it with `pip install 'headstart[parquet]'`") from None
    return pyarrow


def read_parquet(path: Path, members: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns of a parquet table as the arrays of an .npz."""
    pyarrow = need_pyarrow()
    from pyarrow import parquet  # noqa: PLC0415 - an extra

    try:
        file = parquet.ParquetFile(path, page_checksum_verification=True)
        metadata = file.schema_arrow.metadata or {}
        if MARK not in metadata:
            raise InputError(f"{path} says nothing about itself: {NOT_OURS}{AGAIN}")
        found = {"about": np.array(metadata[MARK].decode())}
        if "names" not in members:
            return found
        table = file.read()
        label = table["label"].combine_chunks()
        label = label if isinstance(label, pyarrow.DictionaryArray) else label.chunk(0)
        n = table.num_rows
        embedding = table["embedding"].combine_chunks()
        found["names"] = np.array(table["name"].to_pylist(), dtype=np.str_)
        found["embeddings"] = embedding.flatten().to_numpy().reshape(n, -1).astype(np.float32, copy=False)
        found["labels"] = label.indices.fill_null(-1).to_numpy().astype(np.int64)
        found["classes"] = np.array(label.dictionary.to_pylist(), dtype=np.str_)
        digests = metadata[b"headstart.digests"]
        found["digests"] = np.frombuffer(bytes.fromhex(digests.decode()), np.uint8).reshape(n, 16)
    except InputError:
        raise
    except Exception as error:  # pyarrow raises many kinds
        raise InputError(f"{path} is damaged or no parquet file ({error}){AGAIN}") from None
    return _whole(found, path)
