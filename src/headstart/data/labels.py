"""What classes are called, and what says that there is none: alike in tables, archives, parquet and arrays.

Comes in: headers and values as people and tools write them. Goes out: a class as text, or None.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from headstart.data.words import in_order
from headstart.records.text import first_few, number

_LABELS = in_order(
    "label class category target labels classes species labelname classname categoryname breed variety genus "
    "family diagnosis dx finding tag tags groundtruth gt labeltext classlabel y labelid classid categoryid "
    "targetid labelidx classidx classindex labelindex choice choices"
)
_NO_LABEL = {"", *in_order("na n/a #n/a <na> nan none null nil - -- ? unlabeled unlabelled missing")}
"""What people and pandas write where there is no label."""


def key(header: str) -> str:
    """A header without what is written around its words."""
    return re.sub(r"[\W_]+", "", header).lower()


def is_label(header: str) -> bool:
    """Whether a column of that name holds classes."""
    return key(header) in _LABELS


def label_columns(headers: Sequence[str]) -> list[int]:
    """The numbers of the columns of classes, the likeliest first."""
    known = [i for i, header in enumerate(headers) if is_label(header)]
    return sorted(known, key=lambda i: _LABELS.index(key(headers[i])))


def no_label(text: str) -> bool:
    """Whether a text is what stands where there is no label."""
    return text.strip().lower() in _NO_LABEL


def as_label(value: Any) -> str | None:
    """The class that a value of any kind means: 2.0 is 2 (a column with gaps), [2] is 2; None, also for several."""
    if isinstance(value, list | tuple):
        return as_label(value[0]) if len(value) == 1 else None
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return None if value is None or no_label(str(value)) else str(value)


def none_said(values: Iterable[Any]) -> list[str]:
    """Sentences for values that are no class: several classes at once, and texts that stand where there is none."""
    several, none = 0, Counter[str]()
    for value in values:
        if isinstance(value, list | tuple):
            several += len(value) > 1
        elif isinstance(value, str) and value.strip() and no_label(value):
            none[value.strip()] += 1
    said = [f"{number(several, 'row')} of several classes at once, left unlabelled"] if several else []
    return said + ([f"{number(none.total(), 'label')} {', '.join(none)} taken for none"] if none else [])


def class_name(value: Any, names: Sequence[str]) -> str | None:
    """The class that a cell of Hugging Face's means, where `names` are those of its numbers; None: no label."""
    label = as_label(value)
    if names and label is not None and label.isdecimal() and int(label) < len(names):
        return names[int(label)]
    return None if names and label == "-1" else label


def without_minus_one(labels: Sequence[str | None]) -> tuple[list[str | None], list[str]]:
    """Labels of which -1 is none where the others are numbers from 0, and a sentence about it.

    -1 beside 1 alone is a class, as in tables of yes and no.
    """
    others = {label for label in labels if label is not None} - {"-1"}
    count = sum(label == "-1" for label in labels)
    if not count or not others or others == {"1"} or not all(label.isdecimal() for label in others):
        return list(labels), []
    some = [None if label == "-1" else label for label in labels]
    return some, [f"{number(count, 'label')} -1 taken for none"]


def alike(classes: Sequence[str]) -> list[str]:
    """Sentences for classes whose names differ in case, blanks, outer zeros or the form of their accents alone, and may
    be meant as one, and for those that may be several in one name."""
    same = defaultdict(list)
    for name in classes:
        plain = " ".join(unicodedata.normalize("NFC", name).split()).casefold()
        if re.fullmatch(r"\d+(\.\d+)?", plain):
            whole, _, rest = plain.partition(".")
            plain = f"{whole.lstrip('0')}.{rest.rstrip('0')}"
        same[plain].append(name)
    doubtful = [" and ".join(map(_told_apart(names), names)) for names in same.values() if len(names) > 1]
    joined = [repr(name) for name in classes if same.keys() & set(_parts(name))]
    return [
        f"classes that may be {what}: {first_few(some, between='; ')}"
        for what, some in (
            ("one, but are taken for different ones", doubtful),
            ("several, but are taken for one each", joined),
        )
        if some
    ]


def _parts(name: str) -> list[str]:
    """What stands between the separators of a name that has some, written as `alike` compares names."""
    parts = re.split(r"[;|]", name)
    return [" ".join(part.split()).casefold() for part in parts] * (len(parts) > 1)


def _told_apart(names: Sequence[str]) -> Callable[[str], str]:
    """How to write names that may look alike: accents in two forms are shown by their numbers."""
    return repr if len({unicodedata.normalize("NFC", name) for name in names}) == len(names) else ascii
