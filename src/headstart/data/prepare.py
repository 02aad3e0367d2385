"""Every picture of a source decoded, reduced and squashed once, then kept in memory or in the cache.

Comes in: a `Source` and how its pictures are to be kept. Goes out: a `cache.Store` of all that can be read, and the
reasons for the others.
"""

import errno
import hashlib
import io
import itertools
import math
import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import PIL
import torch
from PIL import Image

from headstart.data import cache
from headstart.data.decode import HEIF, NotNowError, UnreadableError, read_picture
from headstart.data.source import Picture, Pictures, Source
from headstart.engine.memory import free
from headstart.engine.progress import say, stage
from headstart.records.config import DataConfig
from headstart.records.errors import InputError, RunError
from headstart.records.files import write as write_file
from headstart.records.levels import Levels
from headstart.records.validation import FEWEST_PIXELS

AUTO_SIZE = 128
"""Training size of pictures that are larger or not of one size (paper Table 1)."""
FEW = 16
"""So few pictures (a query, say) are decoded each time rather than kept on disk."""
LONGEST = 2048
"""A kept frame is at most so many pixels long, or eight training sizes where that is more: two thin strips, one lying
and one standing, would otherwise make every frame of their batch as large as both are long."""
How = tuple[str, str]
"""How pictures become squares: `data.resize`, and an interpolation."""

PLAIN: How = ("squash", "bilinear")
"""As in the authors' runs."""


def training_size(native: np.ndarray, size: int | Literal["auto"], auto_size: int | None = None) -> int:
    """The side of training pictures in pixels, for `data.size` and `data.auto_size`.

    native: (n, 2), height and width of each picture as its file has it.
    Raises InputError where auto would take a side that no network has a use for.
    """
    if size != "auto":
        return size
    largest = auto_size or AUTO_SIZE
    one = one_square(native)
    if one is not None and one <= largest:
        if one < FEWEST_PIXELS:
            raise InputError(
                f"all pictures are {one} x {one} pixels, and training pictures have at least {FEWEST_PIXELS} a side; "
                f"give --data.size {FEWEST_PIXELS} or more"
            )
        return one
    if auto_size is None or not len(native):
        return largest
    shorter = int(np.median(native.min(axis=1)))
    return min(largest, max(32, shorter // 32 * 32))  # a network halves its maps five times


def one_square(native: np.ndarray) -> int | None:
    """The side of pictures that are all one square size."""
    return int(native[0, 0]) if len(native) and bool((native == native[0, 0]).all()) else None


def prepare(source: Source, data: DataConfig, smallest: float) -> cache.Store:
    """Every readable picture of a source, decoded now or by an earlier call.

    smallest: share times aspect ratio of the augmentation's smallest crop; pictures are kept large enough for it to
    show `data.detail` pixels per pixel of the training size.
    """
    plan = _planned(source, data, smallest)
    memory = int(data.memory_gib * 2**30)
    small = len(source.names) <= FEW or (isinstance(source.pictures, np.ndarray) and source.pictures.nbytes <= memory)
    return _decode_in_memory(source, plan, "") if small else _cached(source, plan, _said_folder(data), memory)


def squares(source: Source, data: DataConfig) -> cache.Store:
    """Every readable picture of a source, decoded now and kept in memory alone: for its square of `data.size`, the
    very one that `prepare` makes. Frames are as small as squares are."""
    return _decode_in_memory(source, replace(_planned(source, data, 1), pixels=1), "")


def _planned(source: Source, data: DataConfig, smallest: float) -> "_Plan":
    size = data.auto_size or AUTO_SIZE if data.size == "auto" else data.size
    pixels = size**2 * data.detail**2 / smallest
    return _Plan(size, data.size == "auto", pixels, source.crop_bottom, how(data), levels=data.range)


@dataclass(frozen=True)
class _Plan:
    """How pictures are kept: made squares of `size`, and frames of no more pixels than `pixels` (0: native).

    uniform: the side that all pictures are expected to have, in which case nothing is squashed; 0: not expected.
    """

    size: int
    auto: bool
    pixels: float
    crop_bottom: int
    how: How = PLAIN
    uniform: int = 0
    levels: Levels = field(default="auto", repr=False)  # so that caches of before it keep their key

    @property
    def others(self) -> tuple[object, ...]:
        """What of this is not as in runs of before it could be chosen."""
        return (*(() if self.how == PLAIN else self.how), *(() if self.levels == "auto" else (self.levels,)))

    @property
    def side(self) -> int:
        return 0 if self.uniform else self.size


class _NotUniformError(Exception):
    """A picture of another size after all."""


def _cached(source: Source, plan: _Plan, folder: Path | None, memory: int) -> cache.Store:
    """The store of a source from its file, which is written first where there is none or it is out of date.

    A file that another user wrote and that cannot be read or replaced is let be; then there is one of our own.
    """
    key = _key(source, plan)
    if folder is None:
        return _decode_in_memory(source, plan, key, memory)
    what = [source.where, plan.size, plan.auto, plan.pixels, *plan.others]
    name = hashlib.sha256(repr(what).encode("utf-8", "replace")).hexdigest()[:24]
    user = os.getuid() if hasattr(os, "getuid") else 0
    for path in (folder / f"{name}.pictures", folder / f"{name}.{user}.pictures"):
        try:
            store = _current(path, key, memory)
        except PermissionError:
            continue
        if store is not None:
            return store
        if _replaceable(path, user):
            return _written(source, plan, key, path, memory)
    say(f"{folder} holds files of other users: the decoded pictures are not kept for the next start")
    return _decode_in_memory(source, plan, key, memory)


def _replaceable(path: Path, user: int) -> bool:
    """Whether a file may be put in this place: in a folder for everybody only its owner replaces what is there."""
    try:
        owner, folder = path.stat().st_uid, path.parent.stat()
    except OSError:
        return True
    return not folder.st_mode & stat.S_ISVTX or user in (0, owner, folder.st_uid)


def _written(source: Source, plan: _Plan, key: str, path: Path, memory: int) -> cache.Store:
    """The store of a source, decoded into its file unless another process just did.

    What could not be read for a reason that may pass is not kept as unreadable: the file goes again once it is open.
    """
    passing: list[str] = []

    def watched(rows: Iterable[cache.Row | cache.Skipped]) -> Iterator[cache.Row | cache.Skipped]:
        for row in rows:
            if isinstance(row, cache.Skipped) and row.passing:
                passing.append(row.reason)
            yield row

    with cache.lock(path):
        if (store := _current(path, key, memory)) is None:

            def write(rows: Iterable[cache.Row | cache.Skipped], side: int) -> None:
                passing.clear()
                write_file(path, lambda file: cache.write(file, key, watched(rows), side, path.parent))

            _decode(source, plan, write)
            store = _current(path, key, memory)
            if passing:
                say(f"{len(passing)} pictures cannot be read now ({passing[0]}): nothing is kept for the next start")
                with suppress(OSError):
                    path.unlink()
    if store is None:
        raise RunError(f"the picture cache {path} could not be read back; is something else writing there?")
    return store


def _room() -> float:
    """Bytes of memory for a file of pictures: half of what is free, for a training has to fit beside them."""
    left = free(torch.device("cpu"))
    return math.inf if left is None else left / 2


def _current(path: Path, key: str, memory: int) -> cache.Store | None:
    """The store at `path` if it is whole and of this very source.

    Raises PermissionError where it is not ours, and InputError where a limit of this process has no room for it.
    """
    try:
        store = cache.read(path, min(memory, _room()))
    except FileNotFoundError:
        return None
    except PermissionError:
        raise
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise InputError(
                f"the picture cache {path} takes {path.stat().st_size / 2**30:.1f} GiB, more than this process's limit "
                "of memory (ulimit -v) leaves; raise it, or give smaller or fewer pictures (--data.size, --data.limit)"
            ) from None
        raise RunError(f"the picture cache {path} cannot be read: {error.strerror}") from None
    except cache.DamagedError as error:
        say(f"the picture cache {path} is damaged ({error}); decoding the pictures again")
        return None
    if store.key != key:
        return None  # the pictures, or what decodes them, have changed
    return store


def _decode_in_memory(source: Source, plan: _Plan, key: str, memory: float = math.inf) -> cache.Store:
    buffer = io.BytesIO()

    def write(rows: Iterable[cache.Row | cache.Skipped], side: int) -> None:
        buffer.seek(0)
        buffer.truncate()
        cache.write(buffer, key, _limited(rows, memory), side, None)

    _decode(source, plan, write)
    return cache.parse(np.frombuffer(buffer.getbuffer(), np.uint8), None, True)


def _limited(rows: Iterable[cache.Row | cache.Skipped], memory: float) -> Iterator[cache.Row | cache.Skipped]:
    total = 0
    for row in rows:
        if isinstance(row, cache.Row):
            total += row.frame.nbytes + (0 if row.squashed is None else row.squashed.nbytes)
        if total > memory:
            raise InputError("the pictures do not fit in data.memory-gib; give a data.cache-dir that can be written")
        yield row


def _decode(source: Source, plan: _Plan, write: Callable[[Iterator[cache.Row | cache.Skipped], int], None]) -> None:
    """Decode everything into `write`, guessing from the first picture whether all are squares of one size.

    Such a set needs no squashed copies. A wrong guess starts over: that happens once, and early, in mixed sets.
    """
    first = next((r for r in _rows_of(source, plan, range(len(source.names))) if isinstance(r, cache.Row)), None)
    uniform = 0
    if first is not None and first.native[0] == first.native[1]:
        side = first.native[0]
        uniform = side if side == plan.size or (plan.auto and side <= plan.size) else 0
    guess = replace(plan, uniform=uniform)
    try:
        write(_all_rows(source, guess), guess.side)
    except _NotUniformError:
        write(_all_rows(source, plan), plan.side)


def _all_rows(source: Source, plan: _Plan) -> Iterator[cache.Row | cache.Skipped]:
    """Every picture in order; large ones decoded by several threads that run a bounded distance ahead."""
    decode, chunks = partial(_decode_chunk, source, plan), _chunks(source.pictures)
    with stage("pictures", len(source.names)) as bar:
        for rows in map(decode, chunks) if _tiny(source.pictures) else _ahead(decode, chunks):
            yield from rows
            bar.advance(len(rows))


def _ahead(
    decode: Callable[[range], list[cache.Row | cache.Skipped]], chunks: Iterator[range]
) -> Iterator[list[cache.Row | cache.Skipped]]:
    """`map(decode, chunks)` by as many threads as torch has, which `--threads` sets."""
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[list[cache.Row | cache.Skipped]]] = deque()
        try:
            for chunk in itertools.chain(chunks, [None] * (threads + 2)):
                if chunk is not None:
                    waiting.append(pool.submit(decode, chunk))
                if waiting and (chunk is None or len(waiting) > threads + 2):
                    yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _chunks(pictures: Pictures) -> Iterator[range]:
    """Runs of pictures: at most 256, and about 2 MB of files, so that what is in flight stays small."""
    start, size = 0, 0
    for i, picture in enumerate(pictures):
        size += _bytes_of(picture)
        if i + 1 - start == 256 or size > 2_000_000:
            yield range(start, i + 1)
            start, size = i + 1, 0
    if start < len(pictures):
        yield range(start, len(pictures))


def _bytes_of(picture: Picture) -> int:
    if isinstance(picture, np.ndarray):
        return picture.nbytes
    if not isinstance(picture, str):
        return picture.size
    try:
        return os.stat(picture).st_size
    except OSError:
        return 0


def _tiny(pictures: Pictures) -> bool:
    """Whether the files are so small that threads would only fight over the interpreter."""
    some = [_bytes_of(picture) for picture in itertools.islice(pictures, 0, None, max(1, len(pictures) // 100))]
    return sum(some) < 16_000 * len(some)


_NO_SUMS = np.zeros(3), np.zeros(3)


def _decode_chunk(source: Source, plan: _Plan, chunk: range) -> list[cache.Row | cache.Skipped]:
    rows = list(_rows_of(source, plan, chunk))
    kept = [row for row in rows if isinstance(row, cache.Row)]
    if plan.uniform and kept:  # small pictures of one size: summed together, in a third of the time
        sums = dict(
            zip((r.place for r in kept), zip(*_sums(np.stack([r.frame for r in kept])), strict=True), strict=True)
        )
        rows = [
            row._replace(sums=sums[row.place][0], squares=sums[row.place][1]) if isinstance(row, cache.Row) else row
            for row in rows
        ]
    return rows


def _rows_of(source: Source, plan: _Plan, indices: Iterable[int]) -> Iterator[cache.Row | cache.Skipped]:
    """Decode some pictures of a source: a row each, or the reason why there is none."""
    for index in indices:
        picture = source.pictures[index]
        try:
            if isinstance(picture, np.ndarray):
                pixels, data = picture, np.ascontiguousarray(picture).tobytes()
            else:
                pixels, data = read_picture(picture, plan.levels)
        except UnreadableError as error:
            yield cache.Skipped(index, str(error), isinstance(error, NotNowError))
            continue
        if plan.crop_bottom and len(pixels) > plan.crop_bottom:
            pixels = pixels[: -plan.crop_bottom]
        height, width = pixels.shape[:2]
        if plan.uniform and (height, width) != (plan.uniform, plan.uniform):
            raise _NotUniformError
        native = np.ascontiguousarray(pixels.transpose(2, 0, 1))
        sums, squares = _NO_SUMS if plan.uniform else _sums(native[None])
        yield cache.Row(
            place=index,
            frame=_reduced(native, plan),
            squashed=squash(pixels, plan.size, plan.how) if plan.side else None,
            native=(height, width),
            sums=sums.reshape(3),
            squares=squares.reshape(3),
            digest=hashlib.blake2b(data, digest_size=16).digest(),
        )


def _sums(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per picture and channel of uint8 (n, 3, h, w): the sum of values and of their squares, float64 (n, 3).

    Rows are summed in single precision, which is exact up to 258 pixels wide, and the row sums in double.
    """
    sums, squares = np.zeros((2, len(pictures), 3))
    for top in range(0, pictures.shape[2], 32):  # bands that stay in the processor's cache
        band = pictures[:, :, top : top + 32].astype(np.float32)
        sums += band.sum(3).sum(2, dtype=np.float64)
        squares += np.einsum("nchw,nchw->nch", band, band).sum(2, dtype=np.float64)
    return sums, squares


def _reduced(picture: np.ndarray, plan: _Plan) -> np.ndarray:
    """The frame that is kept of uint8 (3, h, w): itself, or with fewer pixels where the smallest crop needs fewer.

    A crop of share s and aspect ratio r of an h x w picture has a shorter side of sqrt(s r h w). That stays at least
    `detail` times the training size, and so does the picture's own shorter side; but for strips longer than `LONGEST`.
    """
    _, height, width = picture.shape
    longest = max(height, width) / max(LONGEST, 8 * plan.size)
    if not plan.pixels or (height * width <= plan.pixels and longest <= 1):
        return picture
    scale = min(max(math.sqrt(plan.pixels / (height * width)), plan.size / min(height, width)), 1 / longest)
    if scale >= 1:
        return picture
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return _resized(picture.transpose(1, 2, 0), size, Image.Resampling.BICUBIC)


def how(data: DataConfig) -> How:
    """How un-augmented pictures become squares: `data.resize` and `data.interpolation`."""
    return data.resize, "bilinear" if data.interpolation == "backbone" else data.interpolation


def squash(pixels: np.ndarray, size: int, how: How = PLAIN) -> np.ndarray:
    """uint8 (3, size, size) of uint8 (h, w, 3), as `data.resize` and `data.interpolation` say.

    These very calls are what torchvision makes on a PIL picture: Resize((S, S)) for `squash`, Resize(S) and
    CenterCrop(S) for `crop`. `pad` makes the longer side S and adds black on both sides.
    """
    resize, method = how[0], Image.Resampling[how[1].upper()]
    if resize == "squash":
        return _resized(pixels, (size, size), method)
    height, width = pixels.shape[:2]
    to = (min if resize == "crop" else max)(height, width)
    picture = _resized(pixels, (max(1, int(size * width / to)), max(1, int(size * height / to))), method)
    over_y, over_x = picture.shape[1] - size, picture.shape[2] - size  # negative where black is added
    if resize == "crop":
        top, left = round(over_y / 2), round(over_x / 2)
        return np.ascontiguousarray(picture[:, top : top + size, left : left + size])
    return np.pad(picture, ((0, 0), (-over_y // 2, -over_y - -over_y // 2), (-over_x // 2, -over_x - -over_x // 2)))


def _resized(pixels: np.ndarray, size: tuple[int, int], method: Image.Resampling) -> np.ndarray:
    picture = Image.fromarray(np.ascontiguousarray(pixels)).resize(size, method)
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))


def _key(source: Source, plan: _Plan) -> str:
    """What a store depends on: each file's name, length and times, which pictures inside files are meant, how they are
    decoded, and by what."""
    digest = hashlib.sha256(repr((plan, LONGEST, PIL.__version__, HEIF, cache.VERSION)).encode())
    digest.update(b"" if plan.levels == "auto" else repr(plan.levels).encode())
    paths = [] if isinstance(source.pictures, np.ndarray) else [p for p in source.pictures if isinstance(p, str)]
    for path in (*map(str, source.files), *paths):
        digest.update(cache.known(path).encode("utf-8", "surrogateescape"))
    if len(paths) < len(source.names):  # the others lie inside those files, and a store holds them in this order
        digest.update("\0".join(source.names).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _said_folder(data: DataConfig) -> Path | None:
    """The cache folder; None, with a word on the screen, where there is none."""
    folder, why = cache.folder(data)
    if folder is None:
        say(f"{why}: the decoded pictures are not kept for the next start (see data.cache-dir)")
    return folder
