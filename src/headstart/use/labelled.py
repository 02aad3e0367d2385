"""Which labelled pictures train a classifier, which decide when it stops, and which judge it.

Comes in: a run, labelled pictures and what is asked for. Goes out: their numbers, in parts or folds, or one sentence.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from headstart.data import growing
from headstart.data import splits as splitting
from headstart.data.images import Images
from headstart.data.seen import TooFewError, split_to_judge
from headstart.data.splits import Splits
from headstart.engine.progress import say
from headstart.engine.randomness import numpy_generator
from headstart.records.errors import InputError
from headstart.records.text import be, first_few, number, printable
from headstart.use.load import Run
from headstart.use.settings import FinetuneSettings

FOLDS = 5


def split(run: Run, images: Images, settings: FinetuneSettings, quiet: bool) -> Splits:
    """The labelled pictures of each split, as many to train on as are asked for. No picture that the run was trained on
    is tested on, where that leaves enough; --final has no splits.

    Raises InputError where there are too few labels to train on or to judge by.
    """
    parts = None if settings.final else _unseen(run, images)
    if parts is None:
        parts = _labelled(splitting.make(images, replace(images.data, limit=None)), images)
        if not quiet:
            _say_seen(run, images, parts.every if settings.final else parts.test)
    if not settings.final and not quiet:
        _say_missing(parts, images)
    parts = replace(parts, train=draw_labels(parts.train, images.labels, settings))
    if settings.final:
        _check_folds(images.labels[pool_of(parts, settings)], images.classes)
    else:
        for name, part in vars(parts).items():
            _check_any(part, f"picture of the {name} split")
        _check_classes(images.labels[parts.train], images.classes, " of the training split")
    return parts


def _unseen(run: Run, images: Images) -> Splits | None:
    """The labelled pictures of the split on which the run is judged; None where a part of it has too few."""
    given, own = replace(images.data, limit=None), run.config.data
    fingerprint = str(run.result["data"]["fingerprint"])
    try:
        parts, is_own = split_to_judge(run.folder, images, given, own, fingerprint, others=True)
    except TooFewError:
        return None
    if is_own and own.limit is not None:  # the labels of those that were left out are there to be used
        parts = replace(parts, train=np.setdiff1d(np.arange(len(images)), np.union1d(parts.val, parts.test)))
    parts = _labelled(parts, images)
    enough = all(len(part) for part in vars(parts).values()) and len(np.unique(images.labels[parts.train])) > 1
    return parts if enough else None


def _labelled(parts: Splits, images: Images) -> Splits:
    return Splits(**{name: part[images.labels[part] >= 0] for name, part in vars(parts).items()})


def _say_seen(run: Run, images: Images, judges: np.ndarray) -> None:
    """Say how many of the pictures that judge, `judges` (n,), SimCLR was trained on, without their labels."""
    known = growing.recall(run.folder.splits) if run.folder.splits.exists() else None
    if known is not None and (seen := len(np.intersect1d(known.learned(images).train, judges))):
        of = number(len(judges), "picture")
        say(f"SimCLR has seen {seen:,} of the {of} that judge it here, without labels: it may look too good")


def _say_missing(parts: Splits, images: Images) -> None:
    """Say which classes no picture of validation or test is of."""
    every = np.unique(images.labels[parts.every])
    for name, part in (("validation", parts.val), ("test", parts.test)):
        if len(missing := np.setdiff1d(every, images.labels[part])):
            which = first_few([printable(images.classes[i]) for i in missing])
            say(f"no picture of {which} is in the {name} split; --final judges by all labelled pictures")


def pool_of(parts: Splits, settings: FinetuneSettings) -> np.ndarray:
    """What `--final` judges by and trains on: the labelled pictures of every split, or those that are drawn."""
    return parts.every if settings.labels == 1 and settings.per_class is None else parts.train


def _check_folds(labels: np.ndarray, classes: Sequence[str]) -> None:
    """Raise InputError where folds would leave out the only picture of every class but one."""
    _check_any(labels, "picture")
    _check_classes(labels, classes)
    counts = np.unique(labels, return_counts=True)[1]
    if (twice := int((counts > 1).sum())) < 2:
        raise InputError(
            "--final judges every labelled picture by a training that left it out, so at least two classes need two "
            f"labels each; of {number(len(labels), 'label')} in {number(len(counts), 'class')}, "
            f"{number(twice, 'class')} {'has' if twice == 1 else 'have'} two"
        )


def _check_any(rows: np.ndarray, what: str) -> None:
    if not len(rows):
        raise InputError(
            f"no {what} has a label; put pictures into one folder a class, or give --data.labels FILE with columns "
            "name,label"
        )


def _check_classes(labels: np.ndarray, classes: Sequence[str], where: str = "") -> None:
    if len(found := np.unique(labels)) < 2:
        raise InputError(
            f"{number(len(labels), 'labelled picture')}{where} {be(len(labels))} of one class, "
            f"{printable(classes[found[0]])}; a classifier needs at least two"
        )


def draw_labels(train: np.ndarray, labels: np.ndarray, settings: FinetuneSettings) -> np.ndarray:
    """A class-balanced `labels` share of the training pictures, at least one of every class, or `per_class` of each
    (all where a class has fewer); sorted."""
    if settings.per_class is not None:
        most = settings.per_class
        members = [train[labels[train] == label] for label in np.unique(labels[train])]
        drawn = (splitting.balanced(m, labels, most, settings.seed) for m in members)
        return np.sort(np.concatenate([splitting.NOBODY, *drawn]))
    if settings.labels == 1:
        return train
    n = max(round(settings.labels * len(train)), len(np.unique(labels[train])))
    return splitting.balanced(train, labels, n, settings.seed)


def fold_of(labels: np.ndarray, seed: int, like: np.ndarray | None = None) -> np.ndarray:
    """Which of FOLDS each picture is left out in; every class is spread over them as evenly as it goes.

    like: (n,) numbers that copies of a picture have in common; they are left out together where FOLDS are others.
    """
    if like is not None and len(np.unique(like)) >= FOLDS:
        _, one, copy_of = np.unique(like, return_index=True, return_inverse=True)
        return fold_of(labels[one], seed)[copy_of]
    draws = numpy_generator(seed, "finetune/folds")
    folds, first = np.zeros(len(labels), np.int64), 0
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        folds[draws.permutation(members)] = (first + np.arange(len(members))) % FOLDS
        first += len(members)  # the next class goes on where this one ended, so that the folds are equally large
    return folds
