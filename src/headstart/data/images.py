"""Every source becomes one `Images`: decoded once, in parallel, then held in memory or memory-mapped.

Comes in: `config.data`. Goes out: uint8 pictures with their own sizes, names, labels and official split. SimCLR's crop
reads pictures at their native size, everything else squares (`data.resize`; docs/the-paper.md).
"""

import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from headstart.data import cache, catalog
from headstart.data.decode import frames_of
from headstart.data.labels import alike
from headstart.data.prepare import how, one_square, prepare, squares, squash, training_size
from headstart.data.source import Source
from headstart.engine.progress import say
from headstart.records.config import DataConfig
from headstart.records.errors import InputError, RunError
from headstart.records.levels import Levels, shown
from headstart.records.text import number, printable

TOLERATED = 10
"""So many bad files never stop a run; beyond them `data.max_skipped` counts."""


class Images:
    """Decoded pictures; cheap to share between the runs of one process, safe to read from several threads.

    Attributes:
        names: unique, relative, with `/`; sorted within their source.
        labels: int64 (n,), -1 where there is none.
        classes: names of the labels.
        official: (n,) of 'train', 'val', 'test' or '' where the source gives no split.
        order: int64 (n,), the order of torchvision's data set, in which the authors split.
        fingerprint: 16 hex digits that name the content: file bytes, names, labels, official split; not the place.
        skipped: (name, reason) of the pictures that were set aside.
        sizes: int64 (n, 2), height and width of each picture as it is kept; native: as its file has it.
        size: the native side in pixels if all pictures are one square size, else None.
        digests: uint8 (n, 16), a name of each picture's content.
        data: the options they were opened with.
    """

    def __init__(self, source: Source, store: cache.Store, data: DataConfig) -> None:
        kept = store.index
        self.names = [source.names[i] for i in kept]
        self.labels = source.labels[kept]
        self.classes = list(source.classes)
        self.official = source.official[kept]
        self.order = source.order[kept] if len(source.order) else kept
        self.skipped = source.skipped + [(source.names[i], reason) for i, reason in store.skipped]
        self.sizes, self.native = store.sizes, store.native
        self.size = one_square(store.native)
        self.fingerprint = _fingerprint(self, store.digests)
        self.digests = store.digests
        self.data = data
        self._store = store
        self._how = how(data)
        self._uniform = len(kept) > 0 and bool((store.sizes == store.sizes[0]).all())
        self._trusted = np.full(len(kept), store.resident)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def resident(self) -> bool:
        """Whether the pictures are in memory; otherwise they are read from a memory-mapped file."""
        return self._store.resident

    def training_size(self, size: int | Literal["auto"], auto_size: int | None = None) -> int:
        """The side S of training pictures for `data.size` and `data.auto_size`."""
        return training_size(self.native, size, auto_size)

    def batch(self, indices: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Pictures at the size they are kept in, for the random crop.

        Returns frames uint8 (N, 3, H, W), padded with zeros at the right and bottom up to the batch's largest, and
        valid int64 (N, 2): each picture's height and width.
        Raises RunError when the memory-mapped file behind them turns out to be damaged.
        """
        rows = _rows(indices)
        self._verify(rows)
        store = self._store
        sizes = store.sizes[rows]
        if self._uniform:
            height, width = store.sizes[0]
            frames = store.frames.reshape(-1, 3, height, width)[rows]
        else:
            height, width = sizes.max(axis=0) if len(rows) else (0, 0)
            frames = np.zeros((len(rows), 3, height, width), np.uint8)
            for frame, row, (h, w) in zip(frames, rows, sizes, strict=True):
                frame[:, :h, :w] = self._frame(row)
        return torch.from_numpy(np.asarray(frames)), torch.from_numpy(sizes)

    def flat(self, indices: Any) -> torch.Tensor:
        """The same pictures without padding, uint8 (bytes,), each (3, h, w), one after the other."""
        rows = _rows(indices)
        self._verify(rows)
        store = self._store
        bounds = zip(store.offsets[rows], store.offsets[rows + 1], strict=True)
        parts = [store.frames[start:stop] for start, stop in bounds]
        return torch.from_numpy(np.concatenate(parts) if parts else np.empty(0, np.uint8))

    def squashed(self, indices: Any, size: int) -> torch.Tensor:
        """Un-augmented pictures, uint8 (N, 3, size, size), made squares as `data.resize` says: `squash` as
        torchvision's `Resize((size, size))` does it on the PIL picture (antialiased bilinear).

        Exact, byte for byte, at the training size the pictures were opened for and for pictures kept at their native
        size. At another size, of pictures that were reduced, it is computed from the reduced ones.
        """
        rows = _rows(indices)
        store = self._store
        if self._uniform and self.size == size == store.sizes[0, 0]:
            return self.batch(rows)[0]
        self._verify(rows)
        if store.side == size:
            return torch.from_numpy(np.asarray(store.squashed.reshape(-1, 3, size, size)[rows]))
        squares = np.empty((len(rows), 3, size, size), np.uint8)

        def fill(at: int) -> None:
            squares[at] = squash(self._frame(rows[at]).transpose(1, 2, 0), size, self._how)

        if len(rows) < 64:
            for at in range(len(rows)):
                fill(at)
        else:
            with ThreadPoolExecutor(torch.get_num_threads()) as pool:
                deque(pool.map(fill, range(len(rows)), chunksize=64), maxlen=0)
        return torch.from_numpy(squares)

    def name_of(self, *parts: np.ndarray) -> str:
        """16 hex digits that name the content of these parts, in whatever order and under whatever names."""
        digest = hashlib.sha256()
        for part in parts:
            rows = self.digests[part]
            digest.update(len(rows).to_bytes(8) + rows[np.lexsort(rows.T)].tobytes())
        return digest.hexdigest()[:16]

    def moments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Per picture, over its native pixels: how many (n,), and per channel the sum and the sum of squares (n, 3)."""
        return self.native.prod(axis=1), self._store.sums, self._store.squares

    def _frame(self, row: int) -> np.ndarray:
        store = self._store
        return store.frames[store.offsets[row] : store.offsets[row + 1]].reshape(3, *store.sizes[row])

    def _verify(self, rows: np.ndarray) -> None:
        """Check pictures of a memory map the first time they are read: checking all at the start would read it all."""
        if self.resident:
            return
        new = rows[~self._trusted[rows]]
        bad = self._store.damaged(new)
        if bad is not None:
            assert self._store.path is not None
            cache.remove(self._store.path)
            raise RunError(
                f"the picture cache {self._store.path} is damaged at {printable(self.names[bad])} and was removed; "
                "the same command decodes the pictures again"
            )
        self._trusted[new] = True


BLOCK = 4096
"""Pictures that are copied to a device at once."""


def gathered(
    read: Callable[[torch.Tensor], torch.Tensor], shape: tuple[int, ...], device: torch.device
) -> torch.Tensor:
    """All rows (N, ...) uint8 that `read` gives for their numbers, on the device; the host never holds all of them."""
    everything = torch.empty(shape, dtype=torch.uint8, device=device)
    for rows in torch.arange(shape[0]).split(BLOCK):
        everything[rows[0] : rows[-1] + 1] = read(rows)
    return everything


@dataclass(frozen=True)
class Squashed:
    """Un-augmented pictures of a split, uint8 (N, 3, size, size), read when they are asked for: as much of a tensor as
    a training needs, for sets larger than their memory budget."""

    images: Images
    rows: np.ndarray
    size: int

    device = torch.device("cpu")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: torch.Tensor) -> torch.Tensor:
        return self.images.squashed(self.rows[chosen.numpy()], self.size)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """As of the whole tensor."""
        return len(self), 3, self.size, self.size

    @property
    def nbytes(self) -> int:
        """Of the whole tensor."""
        return math.prod(self.shape)

    def split(self, count: int) -> Iterator[torch.Tensor]:
        """The pictures in order, `count` at once."""
        return (self[rows] for rows in torch.arange(len(self)).split(count))

    def to(self, device: torch.device) -> "torch.Tensor | Squashed":
        """On a GPU all of them; in the host's memory they stay where they are."""
        return self if device.type == "cpu" else gathered(self.__getitem__, self.shape, device)


def open_images(data: DataConfig, crop_scale: float = 0.08, crop_ratio: float = 3 / 4) -> Images:
    """Read every picture that `data.sources` name, or map what an earlier call decoded.

    crop_scale, crop_ratio: the smallest crop of the augmentation; pictures are kept large enough for it to show
    `data.detail` pixels per pixel of the training size.
    Raises InputError when there are no pictures, or more than ten files and more than `data.max_skipped` of all are
    unreadable.
    """
    source = catalog.find(data)
    for note in (*source.notes, *_stacks(source)):
        say(note)
    images = Images(source, prepare(source, data, crop_scale * crop_ratio), data)
    _report(images, data.max_skipped)
    if data.auto_size and data.size == "auto" and images.size is None:
        size = images.training_size(data.size, data.auto_size)
        if size < data.auto_size:  # small pictures: kept for the size that they have
            return open_images(replace(data, size=size), crop_scale, crop_ratio)
    return images


def squares_of(source: Source, data: DataConfig) -> Images:
    """Pictures of a source whose squares alone are wanted, once: decoded now, and kept in memory alone."""
    return Images(source, squares(source, data), data)


def _fingerprint(images: Images, digests: np.ndarray) -> str:
    names = [*images.classes, ""]
    digest = hashlib.sha256()
    for name, label, split, content in zip(images.names, images.labels, images.official, digests, strict=True):
        digest.update(f"{name}\0{names[label]}\0{split}\0".encode() + content.tobytes())
    return digest.hexdigest()[:16]


def _report(images: Images, max_skipped: float) -> None:
    """Count what was set aside, on the screen; refuse a source with too much of it."""
    report_skipped(images.skipped, len(images), max_skipped)
    check_range(images.data.range, _one_value(images))
    labelled = int((images.labels >= 0).sum())
    if 0 < labelled < len(images):
        say(f"{labelled} of {len(images)} pictures have labels")
    if labelled and len(images.classes) == 1:
        say(one_class(images.classes[0]))
    for doubt in (*alike(images.classes), *_doubts(images)):
        say(doubt)


def report_skipped(skipped: Sequence[tuple[str, str]], readable: int, max_skipped: float) -> None:
    """Say how many pictures were set aside beside those that can be read. Raises InputError where it is too many."""
    check_skipped(skipped, readable, max_skipped)
    if bad := len(skipped):
        say(f"{bad} of {bad + readable} pictures set aside ({_some(skipped)}{'; ...' if bad > 3 else ''})")


def check_skipped(skipped: Sequence[tuple[str, str]], readable: int, max_skipped: float) -> None:
    """Raise InputError where too many pictures were set aside beside those that can be read."""
    bad, total = len(skipped), len(skipped) + readable
    if not readable:
        raise InputError(f"of {number(total, 'picture')} none can be read ({_some(skipped)})")
    if bad > TOLERATED and bad > max_skipped * total:
        raise InputError(
            f"{bad} of {total} pictures cannot be read, more than data.max-skipped {max_skipped:g} allows "
            f"({_some(skipped)}); `headstart check` lists them all"
        )


def _some(skipped: Sequence[tuple[str, str]]) -> str:
    return "; ".join(f"{printable(name)}: {printable(reason)}" for name, reason in skipped[:3])


def check_range(levels: Levels, all_are: float | None) -> None:
    """Raise InputError where a given range left one value, black or white, in every pixel of all pictures."""
    if isinstance(levels, tuple) and all_are in (0, 255):
        raise InputError(
            f"under --data.range {shown(levels)} every pixel of every picture is {'white' if all_are else 'black'}; "
            "`headstart check` says which values they hold"
        )


def _one_value(images: Images) -> float | None:
    """The value of every pixel of every picture; None where they differ."""
    pixels, sums, squares = (part.sum() for part in images.moments())
    mean = sums / (3 * pixels)
    return round(mean, 6) if squares / (3 * pixels) - mean**2 < 1e-6 else None


def _doubts(images: Images) -> Iterator[str]:
    """What is odd about the pixels of a whole set."""
    pixels, sums, squares = images.moments()
    mean = sums.sum(0) / pixels.sum()
    variance = squares.sum(0) / pixels.sum() - mean**2
    for name, value, spread in zip(CHANNELS, mean, variance, strict=True):
        if spread < 1e-6:
            yield constant(name, value)
    if mean.max() <= 16 and variance.max() < 10**2:  # 12 bits in 16 are at most 16
        yield (
            f"the pictures are nearly black (mean {mean.mean():.1f} of 255); files of 16 bits that hold 10 to 14 come "
            "out so: give --data.range 0 4095 (12 bits) or percentile"
        )


LOOKED_AT = 8
"""TIFF files of which a run looks whether they are stacks; `headstart check` looks at all."""


def _stacks(source: Source) -> Iterator[str]:
    """Whether TIFF files hold more than the page that is read, as far as some of them show."""
    tiffs = [i for i, name in enumerate(source.names) if name.lower().endswith((".tif", ".tiff"))]
    looked = tiffs[:: math.ceil(len(tiffs) / LOOKED_AT) or 1]
    pictures = (source.pictures[i] for i in looked)
    found = [frames_of(picture) for picture in pictures if not isinstance(picture, np.ndarray)]
    if several := [pages for pages in found if pages > 1]:
        yield several_frames(f"{len(several)} of {number(len(looked), 'TIFF file')} that were looked at", several)


def several_frames(which: str, frames: Sequence[int]) -> str:
    """The sentence for `which` files that hold so many frames or pages each."""
    hold = "holds" if len(frames) == 1 else "hold"
    return f"{which} {hold} several frames or pages (up to {max(frames):,}), of which the first alone is read"


def one_class(name: str) -> str:
    """The sentence for labels that tell nothing apart."""
    return f"all labels are of one class, {name}: probes and fine-tuning need two"


CHANNELS = ("red", "green", "blue")


def constant(channel: str, value: float) -> str:
    """The sentence for a channel that has one value in all pictures."""
    return f"{channel} is {value:.0f} in every pixel of every picture; its Z-score is 0"


def _rows(indices: Any) -> np.ndarray:
    return np.asarray(indices, dtype=np.int64).reshape(-1)
