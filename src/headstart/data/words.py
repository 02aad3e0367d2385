"""What people and tools call the folders around their pictures: splits, wrappers, annotations, folds, dates.

Comes in: a folder's name. Goes out: what it means, if anything. The words are those of torchvision's ImageFolder,
Kaggle, Roboflow, YOLO, Open Images, CycleGAN, MVTec and the like, in any case and with what is written around them.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple


def the_words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


def in_order(text: str) -> tuple[str, ...]:
    """The words of a text, as they follow each other."""
    return tuple(text.split())


_KIND = re.compile(
    r"""(?:(?P<train>train(?:ing|val)?|trn)
      | (?P<val>val(?:id(?:ation|ate|ating)?)?|dev(?:el(?:opment)?)?)
      | (?P<test>test(?:ing|s)?|tst|eval(?:uation)?|h[eo]ldout)
      | (?P<unlabelled>unlabel{1,2}ed|unsup(?:ervised)?|pred(?:ict(?:ions?)?)?)
      | (?P<labelled>label{1,2}ed)
      | (?P<annotation>labels?|masks?|ann(?:otation|ot)?s?|gt(?:fine|coarse)?|groundtruth|trimaps?|segmentations?
        |bbox(?:es)?))
      (?:set|data|split|images|imgs|pics|dir|folder)?""",
    re.IGNORECASE | re.VERBOSE,
)
"""What one word of a name says."""
_PIECES = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_]+")
_TOGETHER = re.compile(
    r"(?:train[-_ +&]*val|h[eo]ld[-_ ]*out|un[-_ ]*label{1,2}ed|ground[-_ ]*truth|gt[-_ ]*(?:fine|coarse))(?![a-z])",
    re.IGNORECASE,
)
"""Two words that are one."""
_NO_MATTER = the_words(
    "a all and b class classes cropped data dataset dir file files final folder for full images image img "
    "imgs jpeg jpg new of original part photo photos pic pics picture pictures png private public raw resized "
    "set small split stage the version v"
)
"""Words beside a split's own that change nothing."""
_PICTURES = the_words(
    "images image img imgs pictures picture pics photos jpegimages leftimg8bit frames rgb input inputs"
)
_WRAPPERS = _PICTURES | the_words(
    "archive data dataset datasets all download downloads extracted files raw input output"
)
_FOLD = re.compile(r"(?P<word>(?:cv|fold|k?fold|cross[-_ ]?val|split|batch|chunk|shard))[-_ ]?\d+", re.IGNORECASE)
_DATE = re.compile(
    r"(?:19|20)\d\d(?:[-_. ]?(?:0?[1-9]|1[0-2])(?:[-_. ]?\d{1,2})?)?(?:[-_ T].*)?"
    r"|\d{1,2}[-_.]\d{1,2}[-_.](?:19|20)\d\d"
)
_CAMERA = re.compile(r"[1-9]\d\d[A-Z0-9_]{5}|DCIM")


PARTS = ("train", "val", "test", "labelled")
"""Kinds of folders in which class folders may lie."""


class Meaning(NamedTuple):
    """What a folder's name says it holds.

    Attributes:
        kind: train, val, test, unlabelled, labelled or annotation.
        rest: the other words of the name, but for those that change nothing.
    """

    kind: str
    rest: frozenset[str]


def _joined(words: re.Match[str]) -> str:
    return re.sub(r"[-_ +&]", "", words[0]).lower()


def meaning(name: str) -> Meaning | None:
    """What a folder's name says it holds; None where it says nothing of the kind, or two things at once."""
    kinds, rest = set(), set()
    for word in _PIECES.findall(_TOGETHER.sub(_joined, name)):
        found = _KIND.fullmatch(word)
        if found and found.lastgroup:
            kinds.add(found.lastgroup)
        elif len(word) > 1 and word.lower() not in _NO_MATTER:
            rest.add(word.lower())
    if len(kinds) > 1 and "annotation" in kinds:
        kinds = {"annotation"}  # train_masks
    if len(kinds) > 1:
        kinds -= {"labelled"}  # train_labelled
        kinds = kinds & {"unlabelled"} or kinds  # unlabelled_train
    if len(kinds) != 1 or (kinds == {"annotation"} and rest):  # with_mask, a class
        return None
    return Meaning(kinds.pop(), frozenset(rest))


def class_and_part(name: str) -> tuple[str, str] | None:
    """A class and train, val or test where a folder's name says both (`cat_train`, `test-Cat`); else None."""
    means = meaning(name)
    if means is None or not means.rest or means.kind not in ("train", "val", "test"):
        return None
    found = next((piece for piece in _PIECES.finditer(name) if _KIND.fullmatch(piece[0])), None)
    if found is None:
        return None
    return (name[: found.start()] + name[found.end() :]).strip("-_ .+"), means.kind


def is_wrapper(name: str) -> bool:
    """Whether a folder of that name, alone in another, only lies around the pictures."""
    means = meaning(name)
    return name.lower() in _WRAPPERS or (means is not None and not means.rest)


def holds_pictures(name: str) -> bool:
    """Whether a folder's name says no more than that it holds pictures."""
    pieces = {piece.lower() for piece in _PIECES.findall(name)}
    return name.lower() in _PICTURES or bool(pieces & _PICTURES and pieces <= _PICTURES | {"dir", "folder"})


def no_classes(names: Iterable[str]) -> str | None:
    """What folders of these names are instead of classes: `folds`, `dates` or `folders of a camera`; None: nothing."""
    names = list(names)
    if not names:
        return None
    folds = [_FOLD.fullmatch(name) for name in names]
    if len(names) > 1 and len({fold["word"].lower() if fold else "" for fold in folds}) == 1 and folds[0]:
        return "folds"
    if all(_DATE.fullmatch(name) for name in names):
        return "dates"
    return "folders of a camera" if all(_CAMERA.fullmatch(name) for name in names) else None


class SplitWords(NamedTuple):
    """Folders beside each other that are parts of one set.

    Attributes:
        kinds: folder -> train, val, test, unlabelled, labelled or annotation, for those that say so.
        official: whether there is training beside something to test on.
    """

    kinds: dict[str, str]
    official: bool


def splits(names: Iterable[str]) -> SplitWords | None:
    """What folders beside each other say of a split; None where they are none.

    They are one where some say train and some val or test, or where every one of them is a part of a set; and where
    what else their names say does not tell them apart (train_station, test_tube).
    """
    found = {name: meaning(name) for name in names}
    known = {name: means for name, means in found.items() if means is not None}
    parts = {name: means for name, means in known.items() if means.kind in PARTS}
    if not parts:
        return None
    kinds = {means.kind for means in parts.values()}
    official = "train" in kinds and bool(kinds & {"val", "test"})
    explained = len(known) == len(found) > 1
    rests = {means.rest for means in parts.values()}
    told_apart = len(rests - {frozenset()}) > 1 or (len(rests) > 1 and not explained)
    if told_apart or not (official or explained):
        return None
    return SplitWords({name: means.kind for name, means in known.items()}, official)
