"""`headstart check`: what is in a source, and everything about it that would disturb a run or its numbers.

Comes in: `config.data`. Goes out: a `Report`; as JSON, and as a table for the screen. Every picture is decoded once,
nothing is kept but its size, kind and digest.
"""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from headstart.data import catalog, splits
from headstart.data.decode import UnreadableError, frames, opened, read_picture, wide_samples
from headstart.data.images import CHANNELS, check_range, check_skipped, constant, one_class, several_frames
from headstart.data.labels import alike
from headstart.data.odd import Impression, look, odd
from headstart.data.prepare import training_size
from headstart.data.reopen import check_whole
from headstart.data.source import Picture, Source
from headstart.engine.device import available_cores, checked_threads
from headstart.engine.progress import stage
from headstart.records.config import DataConfig
from headstart.records.errors import InputError
from headstart.records.levels import Levels, shown
from headstart.records.text import first_few, number, printable

SHOWN = 10
"""So many of each kind are named on the screen; the JSON names all."""


@dataclass(frozen=True)
class Report:
    """What `check` found.

    Attributes:
        data: DATA as given.
        pictures: how many are listed; readable: how many decode.
        classes: readable pictures of each class, by name; unlabelled: of none.
        splits: readable pictures of each official split ('' where the source gives none).
        sizes: 'height x width' and how many, the most frequent first; formats, modes: likewise (as stored).
        training_size: the side that `--data.size auto` gives.
        unreadable: (name, reason), sorted by name.
        duplicates: groups of names whose pixels are the same.
        leaks: those groups that lie across train and test (or val): they inflate accuracy.
        conflicts: those groups whose labels differ.
        altered: (file, published md5, found md5) of a named set's files that are not the published ones.
        refusal: what `pretrain` would say of these pictures instead of starting; '' where a run starts.
        taken: what folders and columns were taken for, and what was left out, a sentence each.
        others: files of other endings that lie in the folders, by ending.
        doubts: what is odd about the set as a whole, a sentence each.
        odd: (name, why) of pictures that stand out: dark, white, of one colour, blurred, of odd size or shape.
    """

    data: list[str]
    pictures: int
    readable: int
    classes: dict[str, int]
    unlabelled: int
    splits: dict[str, int]
    sizes: dict[str, int]
    formats: dict[str, int]
    modes: dict[str, int]
    training_size: int
    unreadable: list[tuple[str, str]]
    duplicates: list[list[str]]
    leaks: list[list[str]]
    conflicts: list[list[str]]
    altered: list[tuple[str, str, str]]
    refusal: str
    taken: list[str]
    others: dict[str, int]
    doubts: list[str]
    odd: list[tuple[str, str]]

    @property
    def starts(self) -> bool:
        """Whether a run would start with these pictures."""
        return not self.refusal

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**dataclasses.asdict(self), "starts": self.starts}

    def table(self) -> Group:
        """What a terminal shows (rich); names are printed, never obeyed."""
        labelled = f"{self.readable - self.unlabelled:,} in {number(len(self.classes), 'class')}"
        again, groups = sum(len(g) - 1 for g in self.duplicates), number(len(self.duplicates), "group")
        leaks = number(len(self.leaks), "group") + (" (they inflate accuracy)" if self.leaks else "")
        summary = Table("what", "found", title=printable(" ".join(self.data)), title_justify="left")
        for what, found in (
            ("pictures", f"{self.pictures:,}, of which {len(self.unreadable):,} unreadable"),
            ("a run starts", f"no: {self.refusal}" if self.refusal else "yes"),
            ("training size", f"{self.training_size} px"),
            ("labels", f"{labelled}; {self.unlabelled:,} without"),
            ("official split", _counted({name or "none": n for name, n in self.splits.items()})),
            ("sizes (height x width)", _counted(self.sizes)),
            ("formats", _counted(self.formats)),
            ("other files", _counted({ending or "without ending": n for ending, n in self.others.items()}) or "none"),
            ("modes", _counted(self.modes)),
            ("exact duplicates", f"{again:,} in {groups}"),
            ("... across splits", leaks),
            ("... of several labels", number(len(self.conflicts), "group")),
            ("odd pictures", _counted(_frequent(why.partition(":")[0] for _, why in self.odd)) or "none"),
        ):
            summary.add_row(what, _plain(found))
        parts = [summary]
        for title, columns, rows in (
            ("what folders and columns were taken for", ("note",), [(note,) for note in self.taken]),
            ("odd about the whole set", ("note",), [(doubt,) for doubt in self.doubts]),
            ("classes", ("class", "pictures"), [(name, f"{n:,}") for name, n in self.classes.items()]),
            ("unreadable", ("picture", "reason"), self.unreadable),
            ("odd pictures", ("picture", "why"), self.odd),
            ("the same picture more than once", ("pictures",), [(first_few(g, 6),) for g in self.duplicates]),
            ("the same picture in several splits", ("pictures",), [(first_few(g, 6),) for g in self.leaks]),
            ("the same picture with several labels", ("pictures",), [(first_few(g, 6),) for g in self.conflicts]),
            ("not the published files", ("file", "published md5", "found"), self.altered),
        ):
            if rows:
                parts.append(_listed(title, columns, rows))
        return Group(*parts)


def run(data: DataConfig, threads: int | None = None) -> Report:
    """Read every picture that `data.sources` name, once, with so many threads (unset: one per core).

    Raises InputError when there is nothing there, or for fewer threads than one.
    """
    check_whole(data)
    threads = checked_threads(threads) or available_cores()
    source = catalog.find(data)
    found = list(_inspect(source, threads, data.range))
    good = np.array([isinstance(f, _Found) for f in found], dtype=bool)
    readable = [f for f in found if isinstance(f, _Found)]
    usable = _part(source, np.flatnonzero(good))
    names, labels, official = usable.names, usable.labels, usable.official
    unreadable = source.skipped + [
        (name, f) for name, f in zip(source.names, found, strict=True) if not isinstance(f, _Found)
    ]
    groups: dict[bytes, list[int]] = {}
    for i, one in enumerate(readable):
        groups.setdefault(one.digest, []).append(i)
    same = [group for group in groups.values() if len(group) > 1]
    return Report(
        data=list(data.sources),
        pictures=len(found) + len(source.skipped),
        readable=len(readable),
        classes={name: int((labels == i).sum()) for i, name in enumerate(source.classes)},
        unlabelled=int((labels < 0).sum()),
        splits=_frequent(official.tolist()),
        sizes=_frequent(f"{f.size[0]} x {f.size[1]}" for f in readable),
        formats=_frequent(f.format for f in readable),
        modes=_frequent(f.mode for f in readable),
        training_size=training_size(np.array([f.size for f in readable]).reshape(-1, 2), data.size, data.auto_size),
        unreadable=sorted(unreadable),
        duplicates=[[names[i] for i in group] for group in same],
        leaks=[[names[i] for i in group] for group in same if len({official[i] for i in group}) > 1],
        conflicts=[[names[i] for i in g] for g in same if len({labels[i] for i in g if labels[i] >= 0}) > 1],
        altered=list(_altered(source)),
        refusal=_refusal(usable, readable, unreadable, data),
        taken=list(source.notes),
        others=_frequent(source.others),
        odd=[(names[i], why) for i, why in odd([f.look for f in readable], [f.size for f in readable])],
        doubts=[*_doubts(readable, source.classes, labels), *_doubts_of_range(readable, data.range)],
    )


@dataclass(frozen=True)
class _Found:
    """One readable picture: height and width, format and mode as stored, digest of its RGB pixels, and the
    lowest and highest value (3,) of each channel; look: how dark, flat and sharp it is; wide: of grey samples of more
    than 8 bits, before `data.range`; frames: how many there are, of which the first is read."""

    size: tuple[int, int]
    format: str
    mode: str
    digest: bytes
    low: np.ndarray
    high: np.ndarray
    look: Impression
    wide: tuple[float, float] | None
    frames: int


def _part(source: Source, rows: np.ndarray) -> Source:
    """The names, labels and split of some of its pictures."""
    return replace(
        source,
        names=[source.names[i] for i in rows],
        labels=source.labels[rows],
        official=source.official[rows],
        order=source.order[rows] if len(source.order) else rows,
    )


def _refusal(usable: Source, readable: Sequence[_Found], unreadable: list[tuple[str, str]], data: DataConfig) -> str:
    """What a run refuses of its pictures before it trains, in its own words; '' where it would begin."""
    try:
        check_skipped(unreadable, len(readable), data.max_skipped)
        low, high = _ends(readable)
        check_range(data.range, float(low[0]) if low.min() == high.max() else None)
        splits.check_training(splits.make(usable, data), len(usable))
    except InputError as error:
        return str(error)
    return ""


def _inspect(source: Source, threads: int, levels: Levels) -> Iterator[_Found | str]:
    """Each picture of a source, or the reason why it cannot be read."""

    def one(picture: Picture) -> _Found | str:
        kind, wide, pages = ("array", "RGB"), None, 1
        pixels = picture
        if not isinstance(pixels, np.ndarray):
            try:
                pixels, data = read_picture(pixels, levels)
            except UnreadableError as error:
                return str(error)
            with opened(data) as header:
                kind, values = (header.format or "", header.mode), wide_samples(data, header)
                pages = frames(header)
            wide = None if values is None else _extremes(values)
        digest = hashlib.blake2b(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes(), digest_size=16)
        flat = pixels.reshape(-1, 3)
        ends = flat.min(axis=0), flat.max(axis=0)
        return _Found((pixels.shape[0], pixels.shape[1]), *kind, digest.digest(), *ends, look(pixels), wide, pages)

    with stage("checking", len(source.names)) as bar, ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(source.names), 256):
            for found in pool.map(one, source.pictures[start : start + 256]):
                bar.advance()
                yield found


def _doubts(readable: Sequence[_Found], classes: Sequence[str], labels: np.ndarray) -> Iterator[str]:
    if not readable:
        return
    for channel, lowest, highest in zip(CHANNELS, *_ends(readable), strict=True):
        if lowest == highest:
            yield constant(channel, lowest)
    if len(classes) == 1 and (labels >= 0).any():
        yield one_class(classes[0])
    yield from alike(classes)
    if several := [one.frames for one in readable if one.frames > 1]:
        yield several_frames(number(len(several), "picture"), several)
    if len(readable) < 10:
        yield f"{len(readable)} pictures are too few to learn from, and a test split of them says nothing"


def _ends(readable: Sequence[_Found]) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest value (3,) of each channel in all pictures."""
    return reduce(np.minimum, (one.low for one in readable)), reduce(np.maximum, (one.high for one in readable))


def _extremes(values: np.ndarray) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _doubts_of_range(readable: Sequence[_Found], levels: Levels) -> Iterator[str]:
    wide = [one.wide for one in readable if one.wide is not None]
    if not wide or levels == "percentile":
        return
    low, high = min(low for low, _ in wide), max(high for _, high in wide)
    many = f"{len(wide):,} picture{'s' * (len(wide) > 1)} of more than 8 bits"
    if isinstance(levels, tuple):
        beyond = sum(one[0] < levels[0] or one[1] > levels[1] for one in wide)
        if beyond:
            yield (
                f"{beyond:,} of {many} hold values beyond --data.range {shown(levels)}, which come out black or "
                f"white; all lie from {low:g} to {high:g}"
            )
        return
    bits = next((bits for bits in (8, 10, 12, 14) if 1 < high < 2**bits), None)
    if bits:
        yield (
            f"{many} hold values from {low:g} to {high:g} ({bits} bits), so they come out dark; give --data.range "
            f"0 {2**bits - 1} or percentile"
        )


def _altered(source: Source) -> Iterator[tuple[str, str, str]]:
    for path, published in source.checksums:
        if path.exists():
            with open(path, "rb") as file:
                found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            if found != published:
                yield str(path), published, found


def _frequent(values: Any) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _counted(counts: dict[str, int]) -> str:
    return first_few([f"{name}: {n:,}" for name, n in counts.items()], SHOWN)


def _plain(text: str) -> Text:
    return Text(printable(text))


def _listed(title: str, columns: tuple[str, ...], rows: list[Any]) -> Table:
    table = Table(title) if len(columns) == 1 else Table(*columns, title=title, title_justify="left")
    for row in rows[:SHOWN]:
        table.add_row(*(_plain(str(cell)) for cell in row))
    if len(rows) > SHOWN:
        table.add_row(_plain(f"... and {len(rows) - SHOWN:,} more (--json FILE names all)"))
    return table
