"""Whether a value that was read from a file has the shape its readers rely on.

A record may come from another version, another program or somebody who means harm. A shape is data: `str`, `bool`,
`int`, `float` (any finite number), `None`, a set of allowed texts, a tuple of choices, `[shape]` for a list of any
length, `[shape, shape]` for one of just that length, and a dict for names and values: `name?` may be missing, and `*`
stands for every name that is not listed (without it those are free).
"""

from collections.abc import Mapping
from typing import Any

LARGEST = 1e100
"""Beyond it a number is nobody's measurement, and arithmetic with it overflows."""


def problem(value: Any, shape: Any, where: str = "") -> str | None:
    """What is wrong with `value`, as `NAME is VALUE; it must be ...`; None when it fits."""
    if isinstance(shape, dict):
        return _in_names(value, shape, where)
    if isinstance(shape, list):
        return _in_list(value, shape, where)
    if isinstance(shape, tuple):
        problems = [problem(value, choice, where) for choice in shape]
        return None if None in problems else problems[-1]  # the last choice is the one to speak of
    good, right = _plain(value, shape)
    return None if good else _wrong(value, right, where)


def _in_names(value: Any, shape: dict[str, Any], where: str) -> str | None:
    if not isinstance(value, Mapping):
        return _wrong(value, "names and values", where)
    prefix = f"{where}." if where else ""
    for name, inner in shape.items():
        key = name.removesuffix("?")
        if key in value:
            if found := problem(value[key], inner, f"{prefix}{key}"):
                return found
        elif key == name != "*":
            return f"{prefix}{key} is missing"
    if "*" in shape:
        listed = {name.removesuffix("?") for name in shape}
        found_in = (problem(item, shape["*"], f"{prefix}{key}") for key, item in value.items() if key not in listed)
        return next((found for found in found_in if found), None)
    return None


def _in_list(value: Any, shape: list[Any], where: str) -> str | None:
    if not isinstance(value, list):
        return _wrong(value, "a list", where)
    if len(shape) > 1 and len(value) != len(shape):
        return _wrong(value, f"a list of {len(shape)}", where)
    shapes = shape if len(shape) > 1 else shape * len(value)
    found_in = (problem(item, one, f"{where}[{i}]") for i, (item, one) in enumerate(zip(value, shapes, strict=True)))
    return next((found for found in found_in if found), None)


def _plain(value: Any, shape: Any) -> tuple[bool, str]:
    """Whether it is of a plain kind, and how a person calls that kind."""
    if shape is None:
        return value is None, "null"
    if isinstance(shape, (set, frozenset)):
        return isinstance(value, str) and value in shape, f"one of {', '.join(sorted(shape))}"
    if shape is str or shape is bool:
        return isinstance(value, shape), "text" if shape is str else "true or false"
    if isinstance(value, bool) or not isinstance(value, int if shape is int else (int, float)):
        return False, "a whole number" if shape is int else "a number"
    if shape is int:
        return abs(value) < 2**53, "a whole number that is not huge"
    return abs(value) < LARGEST, "a number that is finite and not huge"


def _wrong(value: Any, right: str, where: str) -> str:
    huge = isinstance(value, int) and abs(value) >= 2**64  # too long to write out
    text = "a huge number" if huge else repr(value)  # which escapes whatever could steer a terminal
    where = repr(where)[1:-1][:100] if where else "its content"
    return f"{where} is {text[:60]}{'...' if len(text) > 60 else ''}; it must be {right}"
