"""A reader of CIFAR's pickle files that cannot run anything in them."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from headstart.records.errors import InputError
from headstart.records.files import unreadable
from headstart.records.text import printable


def read_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in a CIFAR file, without running anything in it.

    Only plain values and byte arrays are rebuilt, by code of our own; whatever else the file asks for is refused.
    Raises InputError naming the file and what it asked for.
    """
    try:
        content = _Unpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        if not isinstance(content, dict):
            raise _RefusedError(f"a {type(content).__name__} in place of a dictionary")
        return {str(plain(k)): v.array() if isinstance(v, _Array) else v for k, v in content.items()}
    except OSError as error:
        raise InputError(unreadable(path, error)) from None
    except _RefusedError as refused:
        raise InputError(f"{path} was refused: it asks for {refused}, which no CIFAR file needs") from None
    except Exception as error:  # a damaged pickle raises whatever it likes
        raise InputError(f"{path} is damaged or no CIFAR file: {str(error) or type(error).__name__}") from None


def plain(value: object) -> object:
    """Text in place of the byte strings of Python 2; all else as it is."""
    return value.decode("latin1") if isinstance(value, bytes) else value


class _RefusedError(Exception):
    """A pickle asked for something that is not on the list."""


class _Dtype:
    """Stands for numpy.dtype: remembers its name, accepts its state, does nothing."""

    def __init__(self, name: object, *flags: object) -> None:
        self.name = str(plain(name)).lstrip("|<>=")

    def __setstate__(self, state: object) -> None:
        pass


class _Array:
    """Stands for numpy.ndarray while a file is read; only one-byte elements are believed."""

    def __init__(self, *arguments: object) -> None:
        self.shape: tuple[int, ...] = (0,)
        self.raw = b""

    def __setstate__(self, state: Any) -> None:
        _, self.shape, dtype, fortran, self.raw = state
        if not isinstance(dtype, _Dtype) or dtype.name != "u1" or fortran or not isinstance(self.raw, bytes):
            raise _RefusedError("an array that is not plain uint8")

    @classmethod
    def from_buffer(cls, raw: Any, dtype: Any, shape: Any, order: object) -> "_Array":
        array = cls()
        raw = bytes(raw) if isinstance(raw, bytearray) else raw
        array.__setstate__((1, shape, dtype, order not in ("C", b"C"), raw))
        return array

    def array(self) -> np.ndarray:
        return np.frombuffer(self.raw, np.uint8).reshape(self.shape)


def _latin1(text: str, encoding: object = "latin1") -> bytes:
    return text.encode("latin1")


class _Call:
    """A function that a pickle may call but not change (pickles can set attributes)."""

    __slots__ = ("_function",)
    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setattr__(self, name: str, value: object) -> None:
        raise _RefusedError(f"changing {name}")

    def __setstate__(self, state: object) -> None:
        raise _RefusedError("changing a function")


_ALLOWED = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Call(_Array) for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Call(_Array.from_buffer) for core in ("core", "_core")},
    ("numpy", "ndarray"): _Call(_Array),
    ("numpy", "dtype"): _Call(_Dtype),
    ("_codecs", "encode"): _Call(_latin1),
}


class _Unpickler(pickle._Unpickler):
    # The one written in Python: its memo is a dictionary, so that a file cannot make it allocate gigabytes.
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise _RefusedError(printable(f"{module}.{name}"))
        return _ALLOWED[module, name]

    def persistent_load(self, pid: object) -> Any:
        raise _RefusedError("an object outside the file")

    def get_extension(self, code: int) -> Any:
        raise _RefusedError("an extension code")
