"""Values that users and files give, checked where they are declared, and what is wrong with one in a sentence.

A setting or a record says in its type what is right (`Count`, `Share`, a Literal, `must(...)`); pydantic checks it, and
`sentence` turns what it found into `NAME is VALUE; it must be ...`.
"""

import difflib
import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Any, TypeVar, dataclass_transform

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import ArgsKwargs, ErrorDetails

from headstart.records.errors import InputError

T = TypeVar("T")


def must(good: Callable[[Any], bool], right: str) -> AfterValidator:
    """A check that no bound can say; `right` ends the sentence `NAME is VALUE; it must be ...`."""

    def checked(value: Any) -> Any:
        if not good(value):
            raise ValueError(right)
        return value

    return AfterValidator(checked)


def _number(value: Any) -> Any:
    if isinstance(value, bool):  # to Python True is 1; to a person it is no number
        raise ValueError("a number")
    return value


def _text(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, (str, os.PathLike)) else value


Whole = Annotated[int, BeforeValidator(_number)]
Real = Annotated[float, BeforeValidator(_number)]
Count = Annotated[Whole, Field(ge=1)]
FEWEST_PIXELS = 8
"""A side of training pictures."""
Pixels = Annotated[Whole, Field(ge=FEWEST_PIXELS, le=4096)]
"""The side of a square picture; 4096 is 50 MB a picture in bytes, 200 in float32."""
Width = Annotated[Whole, Field(ge=1, le=65536)]
"""Features of a layer."""
MOST_THREADS = 1024
"""Some thousands more, and torch's pool ends the process."""
Threads = Annotated[Whole, Field(ge=1, le=MOST_THREADS)]
NotNegative = Annotated[Whole, Field(ge=0)]
MOST_SEED = 2**53 - 1
"""The largest whole number that every reader of JSON reads as itself."""
Seed = Annotated[Whole, Field(ge=0, le=MOST_SEED)]
Positive = Annotated[Real, Field(gt=0)]
Amount = Annotated[Real, Field(ge=0)]
Share = Annotated[Real, Field(ge=0, le=1)]
Text = Annotated[str, BeforeValidator(_text)]
"""Text, or a path."""
Several = BeforeValidator(_several)
"""One text stands for a list of it."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
def settings(name: str) -> Callable[[type[T]], type[T]]:
    """A frozen dataclass of settings whose values are checked; `name` stands before theirs in the sentence."""

    def made(cls: type[T]) -> type[T]:
        checked: Any = dataclass(frozen=True, kw_only=True, config={"extra": "forbid", "allow_inf_nan": False})(cls)
        construct = checked.__init__

        @functools.wraps(construct)
        def __init__(self: T, **values: Any) -> None:  # noqa: N807 - it takes that one's place
            try:
                construct(self, **values)
            except ValidationError as error:
                prefix = f"{name}." if name else ""
                known = [prefix + one.name for one in fields(checked)]
                raise InputError(sentence(error, values, prefix=prefix, written=option, known=known)) from None

        checked.__init__ = __init__
        return checked

    return made


def option(name: str) -> str:
    """A setting as the command line writes it."""
    return name.replace("_", "-")


def problem(value: Any, shape: TypeAdapter[Any]) -> str | None:
    """What is wrong with `value`, as `NAME is VALUE; it must be ...`; None when it fits."""
    try:
        shape.validate_python(value)
    except ValidationError as error:
        return sentence(error, value)
    return None


def sentence(
    error: ValidationError,
    value: Any,
    where: str = "",
    prefix: str = "",
    written: Callable[[str], str] = str,
    known: Iterable[str] = (),
) -> str:
    """The first thing that is wrong with `value`, in the words of a person.

    Args:
        error: what pydantic found.
        value: what was checked.
        where: the file, or what else holds it.
        prefix: stands before the name.
        written: how a name is written.
        known: names among which an unknown one may be meant.
    """
    found = [(_path(value, one["loc"], one["type"]), one) for one in error.errors(include_url=False)]
    unknown = [one for one in found if one[1]["type"] in _UNKNOWN]
    first = (unknown or found)[0][0]
    path = max((path for path, _ in found if path[: len(first)] == first), key=len)
    wrongs = [one for other, one in found if other == path]
    name = prefix + _name(path) if path else prefix.rstrip(".")
    if wrongs[0]["type"] in _UNKNOWN:
        return f"{where or 'config'} has the unknown key {name!r}{nearest(name, known)}"
    told = f"{where}: " if where else ""
    if isinstance(wrongs[0]["input"], ArgsKwargs):  # of several values together, and a sentence of its own
        return f"{told}{_right(wrongs)}"
    if wrongs[0]["type"].startswith("missing") and isinstance(wrongs[0]["loc"][-1], str):
        return f"{told}{written(name)} is missing"
    return f"{told}{written(name) or 'its content'} is {_shown(wrongs[0]['input'])}; it must be {_right(wrongs)}"


_UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")


def _name(path: Sequence[int | str]) -> str:
    """A path as people write it, `factors.head[1]`, with whatever could steer a terminal escaped."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return repr("".join(parts).removeprefix("."))[1:-1][:100]


def nearest(name: str, known: Iterable[str]) -> str:
    """` (perhaps you meant 'NAME')`, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (perhaps you meant {close[0]!r})" if close else ""


def _path(value: Any, steps: Sequence[int | str], kind: str) -> tuple[int | str, ...]:
    """The names that lead to what is wrong, without those of a union's choices, which are no part of the value."""
    path: list[int | str] = []
    for number, step in enumerate(steps, 1):
        if (isinstance(value, Mapping) and step in value) or (isinstance(value, list) and _is_index(step, value)):
            value = value[step]  # type: ignore[index]
            path.append(step)
        elif kind.startswith("missing") and number == len(steps) and isinstance(step, str):
            path.append(step)
    return tuple(path)


def _is_index(step: int | str, value: Sequence[Any]) -> bool:
    return isinstance(step, int) and step < len(value)


def _right(wrongs: list[ErrorDetails]) -> str:
    """What would be right: every choice of a union, but `None` only where there is nothing else."""
    rights = list(dict.fromkeys(_one_right(one) for one in wrongs if one["type"] != "none_required"))
    return " or ".join(rights) or "null"


def _one_right(wrong: ErrorDetails) -> str:
    context, kind = wrong.get("ctx", {}), wrong["type"]
    if kind == "value_error":
        return str(context["error"])
    if kind in ("literal_error", "enum"):
        return str(context["expected"]).replace("'", "")
    if kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        return f"{words} {context[bound]}"
    if kind == "missing":  # in a list, which is too short
        return f"a list of at least {int(wrong['loc'][-1]) + 1}"
    return next((right for start, right in _KINDS.items() if kind.startswith(start)), wrong["msg"])


_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "greater than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "below"),
    "too_short": ("min_length", "a list of at least"),
    "too_long": ("max_length", "a list of at most"),
}
_KINDS = {
    "int_": "a whole number",
    "float_": "a number",
    "finite_number": "a finite number",
    "bool_": "true or false",
    "string_": "text",
    "list_": "a list",
    "tuple_": "a list",
    "dict_": "names and values",
    "mapping_": "names and values",
    "dataclass_": "names and values",
    "model_": "names and values",
    "none_required": "null",
}


def _shown(value: Any) -> str:
    if isinstance(value, int) and abs(value) >= 2**64:
        return "a huge number"
    try:
        text = repr(value)  # which escapes whatever could steer a terminal
    except ValueError:  # Python writes out no number of over 4,300 digits
        return "full of huge numbers"
    return f"{text[:60]}{'...' if len(text) > 60 else ''}"
