"""Embeddings of a set of any size, streamed into one file.

Comes in: a run and DATA. Goes out: `.npz` or `.parquet` (design section 4). A block of pictures is in memory at a time,
and the file gets its name only when it is whole.
"""

import contextlib
import io
import signal
import threading
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from headstart.data.images import Images
from headstart.engine import progress
from headstart.engine.device import Compute, choose
from headstart.evaluate import features
from headstart.records import folder as runs
from headstart.records.errors import InputError, Interrupted
from headstart.use.load import Run

BLOCK = 16_384
"""Pictures whose embeddings are held at once: 32 MB at 512 features."""


def embed(
    run: Run,
    data: str | Path | Sequence[str | Path] | Images,
    out: str | Path,
    *,
    batch_size: int = 512,
    compute: Compute | None = None,
    quiet: bool = False,
) -> int:
    """Write the representation h of every picture of DATA.

    `.npz`: `names` (relative, `/`), `embeddings` float32 (N, num_features), `labels` int64 (-1 none), `classes`.
    `.parquet` (extra `parquet`): a row a picture, `name`, `label` (the class, a dictionary-encoded string whose codes
    are the npz's labels; null for none), `embedding` (num_features float32).

    Returns:
        The number of pictures.

    Raises:
        InputError: a wrong ending, a missing package, bad DATA. Interrupted: stopped; no file is left.
    """
    out = Path(out)
    if out.suffix not in (".npz", ".parquet"):
        raise InputError(f"--out {out} must end in .npz or .parquet")
    if out.suffix == ".parquet":
        _need_pyarrow()
    images = data if isinstance(data, Images) else run.open_images(data)
    write = _write_npz if out.suffix == ".npz" else _write_parquet
    width = int(run.backbone.num_features)  # type: ignore[arg-type]
    with _terminating_cleanly(), progress.stage("embedding", len(images), quiet=quiet) as bar:
        blocks = stream(run, images, batch_size, compute or choose(), bar)
        runs.write(out, lambda file: write(file, images, blocks, width))
    return len(images)


def stream(run: Run, images: Images, batch_size: int, compute: Compute, bar: progress.Bar) -> Iterator[np.ndarray]:
    """Embeddings of all pictures in order, float32 (up to BLOCK, num_features) at a time."""
    for start in range(0, len(images), BLOCK):
        yield features.extract(
            run.backbone,
            images,
            np.arange(start, min(start + BLOCK, len(images))),
            size=run.size,
            mean=run.mean,
            std=run.std,
            compute=compute,
            batch_size=batch_size,
            progress=bar.advance,
        )


def _write_npz(file: BinaryIO, images: Images, blocks: Iterable[np.ndarray], width: int) -> None:
    """What `np.savez` writes, with one array's rows coming in blocks."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in (
            ("names", np.array(images.names, dtype=np.str_)),
            ("labels", images.labels.astype(np.int64)),
            ("classes", np.array(images.classes, dtype=np.str_)),
        ):
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, allow_pickle=False)
            archive.writestr(f"{name}.npy", buffer.getbuffer())
        with archive.open("embeddings.npy", "w", force_zip64=True) as member:
            header = {"descr": "<f4", "fortran_order": False, "shape": (len(images), width)}
            np.lib.format.write_array_header_1_0(member, header)  # type: ignore[arg-type]
            for block in blocks:
                member.write(np.ascontiguousarray(block, dtype="<f4").data)


def _write_parquet(file: BinaryIO, images: Images, blocks: Iterable[np.ndarray], width: int) -> None:
    pyarrow: Any = _need_pyarrow()
    from pyarrow import parquet  # noqa: PLC0415 - an extra

    label = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
    fields = [("name", pyarrow.string()), ("label", label), ("embedding", pyarrow.list_(pyarrow.float32(), width))]
    schema = pyarrow.schema(fields)
    classes = pyarrow.array(images.classes, pyarrow.string())
    done = 0
    with parquet.ParquetWriter(file, schema) as writer:
        for block in blocks:
            rows = slice(done, done + len(block))
            labels = images.labels[rows].astype(np.int32)
            columns = [
                pyarrow.array(images.names[rows], pyarrow.string()),
                pyarrow.DictionaryArray.from_arrays(pyarrow.array(labels, mask=labels < 0), classes),
                pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(block.reshape(-1)), width),
            ]
            writer.write_table(pyarrow.Table.from_arrays(columns, schema=schema))
            done += len(block)


def _need_pyarrow() -> Any:
    try:
        import pyarrow  # noqa: PLC0415 - an extra
    except ImportError:
        raise InputError(".parquet needs pyarrow; install it with `pip install 'headstart[parquet]'`") from None
    return pyarrow


@contextlib.contextmanager
def _terminating_cleanly() -> Iterator[None]:
    """SIGTERM becomes an exception, so that the unfinished file is removed on the way out, as Ctrl-C's does."""

    def stop(number: int, frame: object) -> None:
        raise Interrupted("stopped before the file was whole; nothing was kept, the same command starts again")

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
