"""Which pictures train, validate and test, and their Z-score statistics (paper 3.3, 3.5; docs/the-paper.md).

Comes in: `Images` and `config.data`. Goes out: index arrays that follow from names, labels, the official split and
`data.split_seed` alone, so that autoencoder, SimCLR and probes of every run see the same split.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import random_split

from headstart.data.images import Images
from headstart.data.source import Source
from headstart.engine.progress import say
from headstart.engine.randomness import numpy_generator
from headstart.records.arrays import arrays
from headstart.records.config import DataConfig
from headstart.records.errors import InputError
from headstart.records.files import write as write_file
from headstart.records.text import number

VAL, TEST = 0.1, 0.2
"""Shares of the validation and test split (paper 3.3); with an official test split, val is that share of train."""

FEWEST = 10
"""So many contents, at the least, are needed to give each to one part."""

NOBODY = np.empty(0, np.int64)
"""No pictures."""


@dataclass(frozen=True)
class Splits:
    """Sorted int64 indices into `Images`. In the paper's Imagenette split, val is part of test."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray

    @property
    def every(self) -> np.ndarray:
        """Indices of all pictures that are in a part, sorted."""
        return np.unique(np.concatenate([self.train, self.val, self.test]))

    def same(self, other: "Splits") -> bool:
        """Whether both are the same three lists."""
        return all(np.array_equal(getattr(other, name), part) for name, part in vars(self).items())

    def save(self, path: str | Path, **more: np.ndarray) -> None:
        """Write `splits.npz`; `more` arrays stand beside the three lists."""
        arrays: Any = {**vars(self), **more}
        write_file(path, lambda file: np.savez(file, **arrays), within=Path(path).parent)

    @classmethod
    def load(cls, path: str | Path, pictures: int) -> "Splits":
        """Read the `splits.npz` of a set of so many pictures. Raises InputError when it is missing or damaged."""
        with reading(path) as file:
            return cls.of(file, pictures)

    @classmethod
    def of(cls, file: Mapping[str, np.ndarray], pictures: int) -> "Splits":
        """The three lists of an open file. Raises ValueError for what is no list of so many pictures' numbers."""
        parts = {name: file[name] for name in ("train", "val", "test")}
        for name, part in parts.items():
            if part.dtype.kind != "i" or part.ndim != 1 or not _rising(part, pictures):
                raise ValueError(f"{name} is not a rising list of numbers below {pictures}, its pictures")
        return cls(**{name: part.astype(np.int64) for name, part in parts.items()})


def _rising(part: np.ndarray, end: int) -> bool:
    return bool(len(part) and part[0] >= 0 and part[-1] < end and (part[1:] > part[:-1]).all())


@contextlib.contextmanager
def reading(path: str | Path) -> Iterator[Mapping[str, np.ndarray]]:
    """A `splits.npz`, open. Raises InputError when it is missing, or something in it is not as it was written."""
    try:
        with arrays(path) as file:
            yield file
    except FileNotFoundError:
        raise InputError(f"there is no {path}") from None
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); restore it, or remove the run and start again") from None


def make(images: Images | Source, data: DataConfig, before: Splits | None = None) -> Splits:
    """Split pictures, decoded or not yet, as `data.splits`, `data.split_seed` and `data.limit` say.

    Pictures of `before` keep their part, whatever it is; the others fill the parts up to their shares of all. Parts
    that are drawn share no content: copies of a picture, byte for byte, go where it goes.

    house: the official test split where there is one (val/ where there is no test/), val official or a tenth of train;
    else 70/10/20; draws are stratified by label. paper: as the authors' code did where there is an official split: val
    is a tenth of train and val by torch's `random_split`; in a train/val set (Imagenette) train is 90 % of train, the
    rest is unused, val is a tenth of the official val, and all of that is the test split.
    An official val or test split without any label, beside labelled training pictures, is left out.
    Raises InputError when there are too few pictures for three splits.
    """
    seed, labels = data.split_seed, images.labels
    has = {name: np.flatnonzero(images.official == name) for name in ("train", "val", "test")}
    pool = np.flatnonzero((images.official == "train") | (images.official == ""))
    without = [n for n in ("val", "test") if has[n].size and (labels[has[n]] < 0).all() and (labels[pool] >= 0).any()]
    if without:
        has |= dict.fromkeys(without, NOBODY)
        say(f"the official {' and '.join(without)} pictures have no labels: left out, and split anew from the others")
    placed = before or Splits(NOBODY, NOBODY, NOBODY)
    like = _drawn_with(images, placed.every)
    if not has["train"].size or not (has["test"].size or has["val"].size):
        everything = np.arange(len(images)) if not without else pool
        kinds = np.unique(like[everything])
        test, rest = draw(kinds, labels, TEST, seed, "test", placed.test, placed.every)
        val, train = draw(rest, labels, VAL / (1 - TEST), seed, "val", placed.val, placed.every)
        train, val, test = (everything[np.isin(like[everything], part)] for part in (train, val, test))
    elif data.splits == "paper":
        test = has["test"] if has["test"].size else has["val"]
        train, val = _as_run(np.union1d(pool, has["val"]) if has["test"].size else pool, images, seed)
        if not has["test"].size:
            _, val = _as_run(test, images, seed)
    elif has["test"].size and has["val"].size:
        train, val, test = pool, has["val"], has["test"]
    else:
        test = has["test"] if has["test"].size else has["val"]
        val, train = draw(np.unique(like[pool]), labels, VAL, seed, "val", placed.val, placed.every)
        train, val = (pool[np.isin(like[pool], part)] for part in (train, val))
    if before is not None:
        new = (np.setdiff1d(part, before.every) for part in (train, val, test))
        train, val, test = (np.union1d(*parts) for parts in zip(vars(before).values(), new, strict=True))
    if data.limit is not None and data.limit < len(train) + len(val):
        n_val = max(1, round(data.limit * len(val) / (len(train) + len(val))))
        train = balanced(train, labels, data.limit - n_val, seed)
        val = balanced(val, labels, n_val, seed)
    for name, part in (("training", train), ("validation", val), ("test", test)):
        if not len(part):
            raise InputError(f"{number(len(images), 'readable picture')}: too few, none is left for the {name} split")
    return Splits(train=train, val=val, test=test)


def _drawn_with(images: Images | Source, placed: np.ndarray) -> np.ndarray:
    """The picture with which each (n,) is drawn: its `originals` where there are FEWEST of them, else itself."""
    like = originals(images, placed) if isinstance(images, Images) else np.arange(len(images))
    return like if len(np.unique(like)) >= FEWEST else np.arange(len(images))


def originals(images: Images, placed: np.ndarray = NOBODY) -> np.ndarray:
    """For each picture (n,) the number of the first with its content, one of the `placed` where there is one."""
    names = np.ascontiguousarray(images.digests).view("V16").ravel()
    ordered = np.concatenate([placed, np.setdiff1d(np.arange(len(images)), placed)]).astype(np.int64)
    _, first, which = np.unique(names[ordered], return_index=True, return_inverse=True)
    found = np.empty(len(images), np.int64)
    found[ordered] = ordered[first[which]]
    return found


def copies(images: Images, splits: Splits) -> int:
    """How many test pictures are training pictures as well, byte for byte: of an official split, or one of before."""
    like = originals(images)
    return int(np.isin(like[splits.test], like[splits.train]).sum())


def check_training(splits: Splits, pictures: int) -> None:
    """Raise InputError where of so many pictures fewer than two are left to train on."""
    if (n_train := len(splits.train)) < 2:
        raise InputError(f"{pictures} pictures are too few: {n_train} would be left to train on, and SimCLR needs 2")


AUTHORS_SEED = 42
"""Of the generator with which the authors split; `data.split_seed` is added to it."""


def _as_run(pool: np.ndarray, images: Images | Source, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Nine tenths and a tenth of `pool`, sorted, as the authors' code drew them: torch's `random_split` of the set in
    torchvision's order, not stratified, floor sizes with the remainder to the first part."""
    ordered = pool[np.argsort(images.order[pool], kind="stable")]
    generator = torch.Generator().manual_seed(AUTHORS_SEED + seed)
    parts: Any = random_split(range(len(ordered)), [1 - VAL, VAL], generator=generator)  # type: ignore[arg-type]
    first, second = (np.sort(ordered[np.array(part.indices, dtype=np.int64)]) for part in parts)
    return first, second


def draw(
    pool: np.ndarray,
    labels: np.ndarray,
    share: float,
    seed: int,
    stream: str,
    drawn: np.ndarray = NOBODY,
    placed: np.ndarray = NOBODY,
) -> tuple[np.ndarray, np.ndarray]:
    """Two sorted parts of `pool`: a stratified random `share` of it (rounded; at least one of two or more), the rest.

    Every class (the unlabelled are one) gives its share to within one picture. Of the `placed`, the `drawn` belong to
    the first part and the others to the rest; so many more are drawn as its share of the whole pool lacks.
    """
    drawn, free = np.intersect1d(pool, drawn), pool[~np.isin(pool, placed)]
    rank, tie = _ranks(free, labels, seed, stream)
    count = np.bincount(labels[free] + 1)[labels[free] + 1]
    # Pictures of a class lie evenly along [0, 1), from a random start: the first `share` of all takes it from each.
    order = np.argsort((rank + tie) / count, kind="stable")
    n = round(share * len(pool))
    n = min(max(n, 1), len(pool) - 1) if len(pool) > 1 else 0
    first = np.union1d(drawn, free[order[: max(n - len(drawn), 0)]])
    return first, np.sort(pool[~np.isin(pool, first)])


def balanced(pool: np.ndarray, labels: np.ndarray, n: int, seed: int) -> np.ndarray:
    """A sorted subset of n, with as equal numbers of every class as there are; a smaller n gives a part of it."""
    rank, tie = _ranks(pool, labels, seed, "limit")
    return np.sort(pool[np.lexsort((tie, rank))[:n]])


def _ranks(pool: np.ndarray, labels: np.ndarray, seed: int, stream: str) -> tuple[np.ndarray, np.ndarray]:
    """For each of `pool`: its random rank within its class, and its class's random number in [0, 1)."""
    generator = numpy_generator(seed, f"split/{stream}")
    rank, tie = np.zeros(len(pool)), np.zeros(len(pool))
    for label in np.unique(labels[pool]):
        members = np.flatnonzero(labels[pool] == label)
        rank[members] = generator.permutation(len(members))
        tie[members] = generator.random()
    return rank, tie


def statistics(images: Images, splits: Splits, data: DataConfig) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Z-score (mean, std) per channel, float64 (3,), in units of [0, 1], for each of 'train', 'val', 'test'.

    `data.statistics` train: over all native pixels of the train split, used everywhere. paper: the mean over pictures
    of each picture's own, of the whole official train part for train and val, of the test split for test, and for a
    val that is a part of the test split (Imagenette).
    A channel that never varies has std 1, so that its Z-score is 0.
    """
    if data.statistics == "train":
        of_train = _divisible(pooled(images, splits.train))
        return {"train": of_train, "val": of_train, "test": of_train}
    official = np.flatnonzero(~np.isin(np.arange(len(images)), splits.test))
    of_train, of_test = (_divisible(per_picture(images, part)) for part in (official, splits.test))
    val_of_test = len(splits.val) and np.isin(splits.val, splits.test).all()
    return {"train": of_train, "val": of_test if val_of_test else of_train, "test": of_test}


def _divisible(found: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    mean, std = found
    return mean, np.where(std < 1e-5, 1.0, std)


def pooled(images: Images, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (3,) of all native pixels of these pictures, in units of [0, 1]."""
    pixels, sums, squares = (part[indices] for part in images.moments())
    mean = sums.sum(0) / pixels.sum()
    variance = squares.sum(0) / pixels.sum() - mean**2
    return mean / 255, np.sqrt(np.maximum(variance, 0)) / 255


def per_picture(images: Images, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over these pictures of each one's own mean and standard deviation (n - 1), (3,), in units of [0, 1]."""
    pixels, sums, squares = (part[indices] for part in images.moments())
    n = pixels[:, None]
    variance = (squares - sums**2 / n) / np.maximum(n - 1, 1)
    return (sums / n).mean(0) / 255, np.sqrt(np.maximum(variance, 0)).mean(0) / 255
