"""Where a command writes: nothing is replaced there but what Headstart wrote.

Comes in: a path that somebody gave, before anything is computed for it. Goes out: nothing, or one sentence.
Nothing here imports torch.
"""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from headstart.records.errors import InputError
from headstart.records.files import expanded, opened, parse_json, read, try_writing
from headstart.records.names import HUB
from headstart.records.text import first_few


def no_input(out: str | Path, given: Iterable[str | Path], option: str = "--out", *, pictures: bool = False) -> None:
    """Raise InputError where a result would replace what it is made from: before anything is computed for it.

    given: paths of the inputs; names of sets among them are no paths and do no harm.
    pictures: whether pictures are written to `out`; inside a folder of DATA they would be pictures of the set.
    """
    place = _real(out)
    for name in given:
        path = _real(str(name).removeprefix(f"{HUB}:"))
        if place == path and path.exists():
            raise InputError(f"{option} {out} is what the command reads; give a path of its own")
        if pictures and path.is_dir() and place.is_relative_to(path):
            raise InputError(
                f"{option} {out} lies inside {name}, and its pictures would be taken for pictures of that folder; "
                "give a path outside of it"
            )


def _real(name: str | Path) -> Path:
    return Path(os.path.realpath(expanded(name)))


def check_output_file(out: str | Path, option: str = "--out") -> None:
    """Raise InputError where no file can be written: before anything is computed for it."""
    path = expanded(out)
    if path.is_dir():
        raise InputError(f"{option} {out} is a folder; give a file")
    if (path.exists() and not path.is_file()) or _is_of_devices(_real(path.parent)):
        raise InputError(f"{option} {out} is a device or a pipe, which a file would replace; give a file")
    _check_writable(path, f"{option} {out}", "another file")


def check_own(out: str | Path, holds: Sequence[str] = (), option: str = "--out", told_in: Path | None = None) -> None:
    """Raise InputError where a file would be replaced that Headstart did not write: before anything is computed for it.

    Args:
        holds: the columns of the CSV that is written, or names that its JSON has. Unset: it says near its beginning or
            its end that it is Headstart's.
        told_in: the file beside it that says so in its place.
    """
    path = expanded(out)
    if not is_taken(path):
        return
    try:
        others = _says_otherwise(told_in or path, holds)
    except FileNotFoundError:
        others = f"there is no {told_in} beside it"
    except (OSError, ValueError, RecursionError):
        others = "it cannot be read"
    if others:
        raise InputError(
            f"{option} {out} is there, and is none that this command writes ({others}); move it, or give another"
        )


def is_taken(path: Path) -> bool:
    """Whether there is a file with something in it: `mktemp` leaves an empty one to be written to."""
    return path.is_file() and path.stat().st_size > 0


ENDS = 1 << 16
"""Bytes at both ends of a file in which it says whose it is."""


def _says_otherwise(path: Path, holds: Sequence[str]) -> str:
    """Why a file is none of Headstart's; nothing where it is. Raises OSError, ValueError, RecursionError."""
    if not holds:
        with opened(path) as file:
            start = file.read(ENDS)
            file.seek(max(0, path.stat().st_size - ENDS))
            return "" if b"headstart" in (start + file.read()).lower() else "it says nothing of Headstart"
    if path.suffix == ".csv":
        with opened(path) as file:
            header = file.readline(ENDS).decode("utf-8-sig", "replace")
        columns = [cell for cell in re.split(r"[,;\t]", re.sub(r'["\r\n]', "", header)) if cell.strip()]
        return "" if {*columns} == {*holds} else f"its columns are {first_few(columns, 6)}"
    value = parse_json(read(path))
    return "" if isinstance(value, dict) and {*holds} <= value.keys() else f"it has no {holds[0]}"


def check_output_folder(out: str | Path, option: str = "--out", instead: str = "another folder") -> None:
    """Raise InputError where files cannot be written into such a folder: before anything is computed for it."""
    path, what = expanded(out), f"{option} {out}".strip()
    if path.exists() and not path.is_dir():
        raise InputError(f"{what} is a file, not a folder; give {instead}")
    _check_writable(path / "result.json", what, instead)


LOGS = (".yaml", ".yml", ".log", ".txt", ".out", ".err")
"""What people put into a folder of results themselves: settings, and what was printed."""
FILES = (".html", ".csv", ".json", ".png", ".jpg", ".jpeg", ".svg", ".npz", ".parquet", ".pt", ".safetensors", ".onnx")
"""What files are called, and no folder."""
KINDS = {
    "study.yaml": "study",
    "finetune.json": "classifier",
    "result.json": "run",
    "stages.json": "run",
    "splits.npz": "run",
}
"""By which file a folder is known."""
OWN = {
    *KINDS,
    "metrics.jsonl",
    "checkpoint.pt",
    "checkpoint.previous.pt",
    "failed.json",
    "autoencoder.safetensors",
    "classifier.safetensors",
    "map.csv",
    "duplicates.csv",
    "comparisons.csv",
}
"""Of which a folder of results holds one at least."""


def kind_of(folder: Path) -> str:
    """`study`, `classifier` or `run`, finished or not; nothing where a folder is none of these."""
    return next((kind for name, kind in KINDS.items() if (folder / name).exists()), "")


def check_results_folder(out: str | Path, kind: str = "") -> None:
    """Raise InputError for a folder that is in use for something else: what is written could replace what is there.

    One that is empty, holds results, or no more than settings and logs, is none of these.
    kind: `run`, `study` or `classifier`: what makes no other kind of folder its own.
    """
    path = expanded(out)
    if path.suffix.lower() in FILES and not path.exists():
        raise InputError(f"--out {out} is called as a file is, and is to be a folder; give {path.with_suffix('')}")
    check_output_folder(out)
    try:
        names = sorted(os.listdir(path))
    except OSError:  # it is still to be made
        return
    held = kind_of(path)
    if kind and held and held != kind:
        raise InputError(f"{out} holds a {held}, not a {kind}; give another --out")
    others = [name for name in names if not name.startswith(".") and not name.endswith(LOGS) and name != "lost+found"]
    if others and not OWN & {*names} and not (kind == "study" and "runs" in names):  # an import that was interrupted
        raise InputError(
            f"--out {out} holds other files ({first_few(others)}) and no {kind or 'results'}; give a new folder"
        )


def _is_of_devices(folder: Path) -> bool:
    """Whether a folder's entries are no files, even where they lead to one, as /dev/stdout and /dev/fd/1 may."""
    return folder == Path("/dev") or (folder.name == "fd" and folder.is_relative_to("/proc"))


def _check_writable(path: Path, what: str, instead: str) -> None:
    try:
        os.fsencode(path.absolute()).decode()  # not every library that writes takes a path of other bytes
        try_writing(path)
    except UnicodeError:
        raise InputError(f"{what} cannot be written: its path is no text (UTF-8); give {instead}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{what} cannot be written: {reason}; give {instead}") from None
