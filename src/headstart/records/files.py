"""Files: written whole or not at all, and read with the file's name in every complaint.

Nothing here imports torch.
"""

import contextlib
import difflib
import errno
import hashlib
import io
import itertools
import json
import math
import os
import re
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from glob import escape
from pathlib import Path
from typing import Any, BinaryIO

import yaml
from pydantic import TypeAdapter

from headstart.records.errors import InputError, RunError
from headstart.records.validation import problem


def expanded(name: str | Path) -> Path:
    """A path with `~` for the home folder, where there is such a home and no file of that very name.

    Raises InputError for what is no path.
    """
    if not isinstance(name, (str, Path)):
        raise InputError(f"a path is of type {type(name).__name__}; it must be text or a pathlib.Path")
    if not str(name).startswith("~") or os.path.lexists(name):
        return Path(name)
    try:
        return Path(name).expanduser()
    except RuntimeError:  # nobody of that name, or no home
        return Path(name)


def last_name(path: Path) -> str:
    """The last part of a path; of `.` and `..`, that of the folder they stand for."""
    return path.name if path.name.strip(".") else path.resolve().name


def nearby(name: str | Path) -> str:
    """` (perhaps you meant NAME)` where something beside what is not there has almost its name; else nothing.

    Of a path below a folder that is not there, it is about that folder.
    """
    path = expanded(name)
    with contextlib.suppress(OSError, ValueError):
        rest = []
        while not _is_there(path.parent):
            rest.append(path.name)
            path = path.parent
        close = difflib.get_close_matches(path.name, os.listdir(path.parent), n=1)
        return f" (perhaps you meant {path.with_name(close[0]).joinpath(*reversed(rest))})" if close else ""
    return ""


def unreadable(path: str | Path, error: OSError) -> str:
    """What is said of a file that cannot be read: that there is none, that it is a folder, or the system's words."""
    if isinstance(error, IsADirectoryError):
        return f"{path} is a folder; give a file"
    return missing(path) or f"{path} cannot be read: {error.strerror or error}"


def missing(name: str | Path, what: str = "file") -> str:
    """`there is no WHAT NAME (perhaps you meant OTHER)` where there is nothing of that name; else nothing."""
    path = expanded(name)
    with contextlib.suppress(OSError, ValueError):  # no path at all, or one that may not be looked at
        try:
            path.stat()
        except FileNotFoundError:
            gone = f"{name} is a link to what is not there"
            return gone if _is_there(path) else f"there is no {what} {name}{nearby(name)}"
    return ""


def write(
    path: str | Path, content: bytes | str | Callable[[BinaryIO], object], *, within: str | Path | None = None
) -> None:
    """Write a whole file or leave what was there: temporary file, fsync, rename, fsync of the folder.

    `content` is bytes, text (UTF-8; a path's bytes that are none become `\\udcff`, which JSON reads back), or a
    function that writes to an open binary file. A crash, a kill or a full disk at any moment leaves either the old file
    or the new one, never a torn one.
    within: a folder that has to be there still, such as a run's: only what lies between it and the file is made.
    Raises RunError naming the file when the disk is full, or the folder is gone or cannot be written.
    """
    path = Path(path)
    unfinished = temporary(path)
    try:
        make_folder(path.parent, within)
        with open(unfinished, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode(errors="backslashreplace") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        _sync_folder(path.parent)
    except OSError as error:
        there = os.path.lexists(within or path.parent)
        kept = "nothing already there was lost" if there else "its folder was removed or unmounted meanwhile"
        raise RunError(f"{path} could not be written: {error.strerror or error}; {kept}") from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


def sweep(path: Path) -> None:
    """Remove what writers of this file left that were killed: what none has touched for an hour."""
    for left in path.parent.glob(f".{escape(path.name)}.*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > 3600:
                left.unlink()


def make_folder(folder: Path, within: str | Path | None = None) -> None:
    """Make a folder and those above it; below `within` alone, where that is given. Raises OSError."""
    if within is None:
        folder.mkdir(parents=True, exist_ok=True)
        return
    made = Path(within)
    for part in folder.relative_to(within).parts:
        made /= part
        made.mkdir(exist_ok=True)


def try_writing(path: Path) -> None:
    """Write and remove an empty file where `path` or the first folder that it needs would be. Raises OSError."""
    folder, missing = path.parent, [temporary(path).name]
    while not _is_there(folder):
        missing.append(folder.name)
        folder = folder.parent
    for name in missing:
        _is_there(folder / name)  # which may be too long for the file system
    probe = folder / missing[0]
    probe.write_bytes(b"")
    probe.unlink(missing_ok=True)  # another process may sweep what looks left behind


def _is_there(path: Path) -> bool:
    try:
        return bool(path.lstat())
    except FileNotFoundError:
        return False


def temporary(path: Path) -> Path:
    """Where a file is written before it gets its name; `sweep` knows it."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")  # process ids repeat among containers


def _sync_folder(folder: Path) -> None:
    # A rename survives a power cut only once the folder itself is on disk; Windows cannot open folders.
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


LARGEST = 1 << 30
"""Bytes of a file that is read whole."""


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[io.BufferedReader]:
    """A plain file, open for reading.

    Raises OSError for what is none, which a folder from elsewhere may hold: a pipe is never written to, a device has no
    end.
    """
    without_waiting = getattr(os, "O_NONBLOCK", 0)
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | without_waiting)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a plain file")
        yield file


def read(path: str | Path) -> bytes:
    """The content of a plain file of a size that is read whole. Raises OSError for anything else."""
    with opened(path) as file:
        if os.fstat(file.fileno()).st_size > LARGEST:
            raise OSError(errno.EFBIG, f"it holds more than {LARGEST >> 30} GiB")
        return file.read()


def digest(path: str | Path) -> str:
    """A name of a plain file's content, 16 hex digits. Raises InputError where it cannot be read."""
    try:
        with opened(path) as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()
    except OSError as error:
        raise InputError(unreadable(path, error)) from None


def write_json(path: str | Path, value: Any, *, within: str | Path | None = None) -> None:
    """Write a value as JSON, as `write` does; NaN and infinities are refused, so every reader can parse it."""
    write(path, as_json(value), within=within)


def as_json(value: Any) -> str:
    """A value as `write_json` writes it."""
    return json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def read_json(path: str | Path, shape: TypeAdapter[Any] | None = None, what: str = "what Headstart wrote") -> Any:
    """Parse a JSON file that is `what`, and has one of the shapes of records/schema.py.

    Raises InputError naming the file when it is missing, damaged, or not of that shape.
    """
    try:
        value = parse_json(read(path))
        wrong = None if shape is None else problem(value, shape)
    except OSError as error:
        raise InputError(unreadable(path, error)) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); delete it or restore it from a copy") from None
    if wrong:
        raise InputError(f"{path} is not {what}: {wrong}; delete it or restore it from a copy")
    return value


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text, which has no NaN and no infinity. Raises ValueError, RecursionError."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not a number of JSON")

    return json.loads(text, parse_constant=refuse)


def jsonl(lines: Iterable[Mapping[str, Any]]) -> str:
    """One JSON object a line."""
    return "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)


LARGEST_YAML = 1_000_000
"""Values in a YAML file, each counted as often as it is referred to."""
DEEPEST_YAML = 100
"""Lists and mappings within each other: libyaml follows them on the stack, which a hundred thousand would break."""


class _Checked:
    """YAML's safe subset, reading `1e-4` as the number YAML 1.2 says it is.

    References to references can make a few lines mean more values than fit in any memory; those are refused unread. So
    is a name given twice, of which YAML would take the last.
    """

    def get_single_node(self) -> Any:
        node = super().get_single_node()  # type: ignore[misc]
        if node is not None and _values_in(node, {}) > LARGEST_YAML:
            raise yaml.YAMLError("its references mean more values than any setting has")
        return node


class _Loader(_Checked, yaml.SafeLoader):  # type: ignore[misc]
    pass


class _FastLoader(_Checked, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The same by libyaml, where PyYAML was built with it."""


def _values_in(node: yaml.Node, known: dict[int, float]) -> float:
    """Values that a node stands for; infinitely many where it contains itself. YAMLError for a name given twice."""
    if id(node) not in known:
        known[id(node)] = math.inf
        if isinstance(node, yaml.MappingNode):
            _refuse_twice(node)
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        flat = (child for entry in children for child in (entry if isinstance(entry, tuple) else (entry,)))
        known[id(node)] = 1 + sum(_values_in(child, known) for child in flat)
    return known[id(node)]


def _refuse_twice(node: yaml.MappingNode) -> None:
    seen: set[str] = set()
    for name in (name for name, _ in node.value if isinstance(name, yaml.ScalarNode)):
        if name.value in seen:
            raise yaml.composer.ComposerError(None, None, f"{name.value} is given twice", name.start_mark)
        seen.add(name.value)


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Quotes the text that `_Loader` would read as a number."""


for _one in (_Loader, _FastLoader, _Dumper):
    _one.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def as_yaml(value: Any) -> str:
    """A plain value as YAML, in its own order, that `parse_yaml` reads as the same value."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


def parse_yaml(text: str) -> Any:
    """The plain value of a YAML text. Raises yaml.YAMLError, ValueError, RecursionError."""
    with contextlib.suppress(yaml.YAMLError):  # which the other says in clearer words, or has an answer to
        if not _is_deep(text):
            return yaml.load(text, Loader=_FastLoader)
    return yaml.load(text, Loader=_Loader)


def _is_deep(text: str) -> bool:
    """Whether lists and mappings are more than DEEPEST_YAML within each other, read no further than that."""
    steps = (
        isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        for event in yaml.parse(text, Loader=_FastLoader)
    )
    return any(depth > DEEPEST_YAML for depth in itertools.accumulate(steps))


def read_yaml(path: str | Path) -> Any:
    """Parse a YAML file into plain values; no tag can build an object.

    Raises InputError naming the file (and the line) when it cannot be read or is not YAML.
    """
    try:
        return parse_yaml(read(path).decode("utf-8"))
    except OSError as error:
        raise InputError(unreadable(path, error)) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        raise InputError(f"{path}{line} is not plain YAML: {getattr(error, 'problem', error)}") from None
