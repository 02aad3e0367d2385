"""The ways a command can end other than well; each has an exit code, and none a traceback."""

import functools
import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class HeadstartError(Exception):
    """Base of every error Headstart raises on purpose. The message is one sentence for the person at the keyboard."""

    exit_code = 1


class RunError(HeadstartError):
    """A run failed for a reason that is not the caller's input (exit code 1)."""


class InputError(HeadstartError, ValueError):
    """Bad input: what was wrong, where, and what would be right (exit code 2)."""

    exit_code = 2


class Interrupted(HeadstartError):  # noqa: N818 - a request to stop is no error
    """Stopped by a signal or `--max-seconds` after saving; the same command goes on from there (exit code 75)."""

    exit_code = 75


def in_python(text: str) -> str:
    """A sentence that names options of the command line, with Python's keywords in their place."""
    return re.sub(r"(?<!\S)--([a-z][a-z-]*)(?:\.([a-z-]*[a-z]))?", _keyword, text)


def _keyword(option: re.Match[str]) -> str:
    name, inner = option[1].replace("-", "_"), (option[2] or "").replace("-", "_")
    if inner.startswith("no_"):
        return f"{name}=dict({inner.removeprefix('no_')}=False)"
    if inner:
        return f"{name}=dict({inner}=...)"
    return f"{name}=True" if name in ("overwrite", "extend") else name


def speaks_python(function: Callable[P, T]) -> Callable[P, T]:
    """For what is called from Python alone: its errors say `overwrite=True`, not `--overwrite`."""

    @functools.wraps(function)
    def called(*arguments: P.args, **named: P.kwargs) -> T:
        try:
            return function(*arguments, **named)
        except HeadstartError as error:
            error.args = (in_python(str(error)),)
            raise

    return called
