"""A set of pictures that grows: those that were there keep their split, new ones join it, gone ones are named.

Comes in: what `remember` left in splits.npz, and the pictures as they are now. Goes out: their split, and what changed.
A picture is known by its content and its name, or by its content alone where it was renamed or moved.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headstart.data import splits as splitting
from headstart.data.images import Images
from headstart.data.splits import Splits
from headstart.records.config import DataConfig
from headstart.records.errors import InputError
from headstart.records.text import first_few, printable

SHOWN = 8
"""So many names of removed pictures stand in a sentence; all of them in config.yaml."""

DIGEST = 16
"""Bytes of a picture's digest."""


@dataclass(frozen=True)
class Growth:
    """What changed in a set since its split was made.

    Attributes:
        new: how many new pictures there are in each of train, val and test.
        removed: names of the pictures that are gone.
    """

    new: dict[str, int]
    removed: list[str]

    @property
    def news(self) -> int:
        """How many new pictures there are in all."""
        return sum(self.new.values())

    def __str__(self) -> str:
        """What changed, for the person at the keyboard."""
        parts = ", ".join(f"{n} {name}" for name, n in self.new.items())
        shown = first_few([printable(name) for name in self.removed], SHOWN)
        gone = f"; {len(self.removed)} removed: {shown}" if self.removed else ""
        if self.news:
            return f"{self.news} new pictures ({parts}){gone}; the others keep their split"
        return f"no new pictures{gone}" if gone else "the same pictures under other names, labels or splits"


def remember(images: Images) -> dict[str, np.ndarray]:
    """What splits.npz keeps beside its lists to know these pictures again: digests uint8 (n, 16), names in bytes."""
    return {"digests": images.digests, "names": np.frombuffer("\0".join(images.names).encode(), np.uint8)}


@dataclass(frozen=True)
class Remembered:
    """The pictures of a splits.npz as they were: names, digests uint8 (n, 16), and their split."""

    names: list[str]
    digests: np.ndarray
    splits: Splits

    def split_of_the_same(self, images: Images) -> Splits | None:
        """The split where these are the same pictures, under whatever names, labels and order; None where not."""
        was = _matched(self.names, self.digests, images)
        return _carried(self.splits, was) if len(was) == len(self.names) and (was >= 0).all() else None

    def learned(self, images: Images) -> Splits:
        """Those of other pictures whose content is in the train or the val split; no test pictures."""
        train, val = ({row.tobytes() for row in self.digests[part]} for part in (self.splits.train, self.splits.val))
        now = [row.tobytes() for row in images.digests]
        where = np.array(["train" if one in train else "val" if one in val else "" for one in now])
        return Splits(np.flatnonzero(where == "train"), np.flatnonzero(where == "val"), splitting.NOBODY)


def recall(path: Path) -> Remembered | None:
    """What `remember` left; None for a split that remembers no pictures: a study's, or one made before runs could grow.

    Raises InputError when the file is missing or damaged.
    """
    with splitting.reading(path) as file:
        if "digests" not in file:
            return None
        digests, names = file["digests"], file["names"].tobytes().decode().split("\0")
        if digests.dtype != np.uint8 or digests.shape != (len(names), DIGEST):
            raise ValueError(f"digests is {digests.dtype} {digests.shape} for {len(names)} names")
        return Remembered(names, digests, Splits.of(file, len(names)))


def follow(
    path: Path, images: Images, data: DataConfig, fingerprint: str | None
) -> tuple[Splits | None, Growth | None]:
    """The split of pictures that a run has begun with, carried over to what they are now, and what changed if any did.

    fingerprint: of the pictures then; labels that have changed since are told by it alone.
    None twice for a split that remembers no pictures.
    Raises InputError when the file is damaged, or the set cannot grow: an authors' split, or a limited set.
    """
    before = recall(path)
    if before is None:
        return None, None
    if before.names == images.names and np.array_equal(before.digests, images.digests):
        same = fingerprint == images.fingerprint
        return before.splits, None if same else Growth(dict.fromkeys(vars(before.splits), 0), [])
    if data.splits == "paper" or data.limit is not None:
        which = "--data.splits paper" if data.splits == "paper" else "--data.limit"
        raise InputError(f"the pictures have changed, and a run with {which} has a fixed set; give another --out")
    was = _matched(before.names, before.digests, images)
    carried = _carried(before.splits, was)
    after = splitting.make(images, data, carried)
    new = {name: len(part) - len(getattr(carried, name)) for name, part in vars(after).items()}
    gone = np.setdiff1d(np.arange(len(before.names)), was)
    return after, Growth(new, [before.names[i] for i in gone])


def _carried(before: Splits, was: np.ndarray) -> Splits:
    """The same parts of pictures that had the places `was` (n,) before."""
    return Splits(*(np.flatnonzero(np.isin(was, part)) for part in vars(before).values()))


def _matched(names: list[str], digests: np.ndarray, images: Images) -> np.ndarray:
    """For every picture its place (n,) among those that were there, -1 where it is new."""
    old, now = ([row.tobytes() for row in found] for found in (digests, images.digests))
    exactly = {key: i for i, key in enumerate(zip(names, old, strict=True))}
    was = np.array([exactly.get(key, -1) for key in zip(images.names, now, strict=True)], dtype=np.int64)
    renamed: dict[bytes, list[int]] = defaultdict(list)
    for i in np.setdiff1d(np.arange(len(names)), was)[::-1]:
        renamed[old[i]].append(int(i))
    for i in np.flatnonzero(was < 0):
        if waiting := renamed[now[i]]:
            was[i] = waiting.pop()
    return was
