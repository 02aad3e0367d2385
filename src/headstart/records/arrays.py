"""Files of numpy's, read without running anything in them, and said in words why one cannot be.

Nothing here imports torch.
"""

import contextlib
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from headstart.records.files import opened

OBJECTS = "which are not loaded, because they could run code"


@contextlib.contextmanager
def arrays(path: str | Path) -> Iterator[Mapping[str, np.ndarray]]:
    """An `.npz`, open: its arrays by name, each read when it is asked for.

    Raises FileNotFoundError, and ValueError that says in words why it, or what was asked for, cannot be read.
    """
    try:
        with opened(path) as whole:
            found: Any = np.load(whole, allow_pickle=False)
            if isinstance(found, np.ndarray):
                raise ValueError("it is a single array (.npy), not an archive of arrays (.npz)")
            with found:
                yield found
    except FileNotFoundError:
        raise
    except Exception as error:  # zipfile and numpy raise many kinds
        raise ValueError(in_words(path, error)) from error


def missing(error: KeyError) -> str:
    """The array that a file has not, from zipfile's or numpy's words."""
    text = str(error.args[0])
    name = re.search(r"named '(.*)'", text) or re.fullmatch(r"(.*) is not a file.*", text)
    return (name[1] if name else text).removesuffix(".npy")


def in_words(path: str | Path, error: Exception) -> str:
    """Why numpy could not read a file. numpy takes all that it does not know for a pickle, and says so."""
    with contextlib.suppress(OSError), opened(path) as file:
        first = file.read(2)
        if not first:
            return "it is empty"
        if first[:1] == b"\x80":
            return f"it is a pickle: Python objects, {OBJECTS}"
        if first not in (b"PK", b"\x93N"):
            return "it is no file of arrays (.npy or .npz)"
        if isinstance(error, zipfile.BadZipFile | zlib.error | EOFError):
            return "it was cut short or its bytes were altered"
        if "pickle" in str(error):
            return f"it holds Python objects, {OBJECTS}"
    if isinstance(error, KeyError):
        return f"it has no {missing(error)}"
    if isinstance(error, MemoryError):
        return "it claims more values than fit into memory"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error) if isinstance(error, ValueError) else "it holds what is no array"
