"""Embeddings of a set of any size, streamed into one file that stays and follows its pictures.

Comes in: a run and DATA. Goes out: `.npz` or `.parquet` (docs/using.md). A block of pictures is in memory at a time,
and the file gets its name only when it is whole. What a file holds already is not embedded again: the content of a
picture decides, not its name or its time.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from headstart.data import catalog
from headstart.data.images import Images
from headstart.engine import progress
from headstart.engine.device import Compute, choose
from headstart.engine.stopping import interrupted_by_signals
from headstart.records import files
from headstart.records.errors import InputError
from headstart.records.folder import EMBEDDINGS
from headstart.records.outputs import check_output_file, is_taken, no_input
from headstart.use.embeddings import about, made_by, paths_of
from headstart.use.embeddings_file import (
    about_of,
    check_rows,
    has_paths,
    need_pyarrow,
    rows_of,
    write_npz,
    write_parquet,
)
from headstart.use.load import Run

STOPPED = "stopped before the file was whole; nothing was kept, the same command starts again"
BLOCK = 16_384
"""Pictures whose embeddings are held at once: 32 MB at 512 features."""


@dataclass(frozen=True)
class Embedded:
    """How many pictures a file holds, how many of them were embedded now, and how many that it held are gone."""

    pictures: int
    new: int
    gone: int


@dataclass(frozen=True)
class Kept:
    """Rows that a file holds already, by the content of their pictures; paths: whether it says where they lie."""

    features: np.ndarray
    digests: Sequence[bytes]
    paths: bool = False

    @cached_property
    def rows(self) -> dict[bytes, int]:
        """The row of each content."""
        return {digest: row for row, digest in enumerate(self.digests)}

    def of(self, digests: np.ndarray) -> np.ndarray:
        """The row of each picture, -1 where it is new."""
        return np.array([self.rows.get(digest.tobytes(), -1) for digest in digests], dtype=np.int64)

    def gone(self, digests: np.ndarray) -> int:
        """How many of its pictures are not among those of these contents; of two that are the same, one may be."""
        return (Counter(self.digests) - Counter(digest.tobytes() for digest in digests)).total()


def embed(
    run: Run,
    data: str | Path | Sequence[str | Path] | Images,
    out: str | Path,
    *,
    paths: bool = False,
    batch_size: int = 512,
    compute: Compute | None = None,
    quiet: bool = False,
) -> Embedded:
    """Write the representation h of every picture of DATA; a file that is there gets what is new, loses what is gone.

    `.npz`: `names` (relative, `/`), `embeddings` float32 (N, num_features), `labels` int64 (-1 none), `classes`; and
    `digests` uint8 (N, 16), the pictures' content, and `about`, JSON: the run, its weights, size and Z-score.
    `.parquet` (extra `parquet`): a row a picture, `name`, `label` (the class, a dictionary-encoded string whose codes
    are the npz's labels; null for none), `embedding` (num_features float32); digests and about in its metadata.
    With `paths` also where each picture lies: `paths`, or a last column `path`, absolute; the name where a picture lies
    inside another file. A file that has them keeps them.

    Raises:
        InputError: a wrong ending, a missing package, bad DATA. Interrupted: stopped; what was there is left.
    """
    out = files.expanded(out)
    check_out(out)
    images = data if isinstance(data, Images) else run.open_images(data)
    no_input(out, images.data.sources)
    compute = compute or choose()
    said = about(run, images.data, compute)
    kept = kept_in(out, said, quiet)
    old = kept.of(images.digests)
    new = int((old < 0).sum())
    write = write_npz if out.suffix == ".npz" else write_parquet
    width = int(run.backbone.num_features)  # type: ignore[arg-type]
    with interrupted_by_signals(STOPPED), progress.stage("embedding", new, quiet=quiet) as bar:
        blocks = stream(run, images, kept.features, old, batch_size, compute, bar)
        where = paths_of(images.names, catalog.find(images.data)) if paths or kept.paths else None
        files.sweep(out)
        files.write(out, lambda file: write(file, images, blocks, width, json.dumps(said), where))
    return Embedded(len(images), new, kept.gone(images.digests))


def check_out(out: Path) -> None:
    """Raise InputError for a file that could not be written, or that `embed` did not write and that may be all that
    somebody has: before a picture is read for it."""
    if out.suffix not in EMBEDDINGS:
        raise InputError(f"--out {out} must end in .npz or .parquet")
    if out.suffix == ".parquet":
        need_pyarrow()
    check_output_file(out)
    if is_taken(out):
        with _cannot_follow(out):
            about_of(rows_of(out, only_about=True), out)


def kept_in(path: Path, said: dict[str, object], quiet: bool) -> Kept:
    """What can be taken over of a file; nothing, and that is said, where other weights or another size made it.

    Raises InputError for a file that is damaged, or that `embed` did not write.
    """
    nothing = Kept(np.empty((0, 0), np.float32), [])
    if not is_taken(path):
        return nothing
    with _cannot_follow(path):
        found = rows_of(path)
        before, now = made_by(about_of(found, path)), made_by(said)
        if not (other := [name for name in now if before[name] != now[name]]):
            check_rows(path)
    if not other:
        return Kept(found["embeddings"], [digest.tobytes() for digest in found["digests"]], has_paths(path))
    if not quiet:
        made = " and another ".join(other)
        progress.say(f"{path} is there, but it was made with another {made}: every picture is embedded again")
    return nothing


@contextlib.contextmanager
def _cannot_follow(path: Path) -> Iterator[None]:
    """What a file that is there is refused with."""
    try:
        yield
    except InputError as error:
        raise InputError(f"--out {path} is there, and cannot be brought up to date: {error}; or remove it") from None


def stream(
    run: Run,
    images: Images,
    kept: np.ndarray,
    old: np.ndarray,
    batch_size: int,
    compute: Compute,
    bar: progress.Bar,
) -> Iterator[np.ndarray]:
    """Embeddings of all pictures in order, float32 (up to BLOCK, num_features) at a time: of `kept`, or new ones."""
    for start in range(0, len(images), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(images)))
        known = old[rows] >= 0
        fresh = run.features_of(images, rows[~known], compute, batch_size=batch_size, progress=bar.advance)
        block = np.empty((len(rows), fresh.shape[1]), np.float32)
        block[~known] = fresh
        block[known] = kept[old[rows][known]] if known.any() else block[known]
        yield block
