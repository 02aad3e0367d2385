"""The run folder: its names, and the one function through which everything is written (design section 5).

Nothing here imports torch, so `study status` and `report` start at once.
"""

import contextlib
import json
import math
import os
import re
import unicodedata
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from headstart.records.errors import InputError, RunError
from headstart.records.schema import problem

SCHEMA = 1


def write(path: str | Path, content: bytes | str | Callable[[BinaryIO], object]) -> None:
    """Write a whole file or leave what was there: temporary file, fsync, rename, fsync of the folder.

    `content` is bytes, text (UTF-8), or a function that writes to an open binary file. A crash, a kill or a full
    disk at any moment leaves either the old file or the new one, never a torn one.
    Raises RunError naming the file when the disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")  # process ids repeat among containers
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise RunError(
            f"{path} could not be written: {error.strerror or error}; nothing already there was lost"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    # A rename survives a power cut only once the folder itself is on disk; Windows cannot open folders.
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_json(path: str | Path, value: Any) -> None:
    """Write a value as JSON; NaN and infinities are refused, so every reader can parse it."""
    write(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: str | Path, shape: Any = None, what: str = "what Headstart wrote") -> Any:
    """Parse a JSON file that is `what`, and has a `shape` as in shape.py.

    Raises InputError naming the file when it is missing, damaged, or not of that shape.
    """
    try:
        value = parse_json(Path(path).read_bytes())
        wrong = None if shape is None else problem(value, shape)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
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


_RUN = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes a cell that begins with it for: a formula, or nothing at all."""


def data_cell(text: str) -> str:
    """A name as a data file holds it: itself, with a leading ' only where a spreadsheet would run it.

    `from_data_cell` takes the ' off again; nothing else is escaped, for the column names a file.
    """
    return f"'{text}" if text[:1] in _RUN or from_data_cell(text) != text else text


def from_data_cell(text: str) -> str:
    """What `data_cell` was given."""
    return text[1:] if text[:1] == "'" and text[1:].lstrip("'")[:1] in _RUN else text


def printable(text: str) -> str:
    """Text with control and undecodable characters escaped, so that no file name can steer a terminal."""
    return "".join(
        c if unicodedata.category(c)[0] != "C" else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


def visible(text: str) -> str:
    """`printable` of a whole document: its line ends and tabs stay, other control characters are shown escaped."""
    return _UNSEEN.sub(lambda found: printable(found[0]), text)


_NUMBER = (None, float)
_PROBE = {
    "accuracy?": float,
    "n_test?": (None, int),
    "ci95?": (None, [float, float]),
    "correct?": (None, int),
    "confusion?": (None, [[float]]),
    "most_confused?": (None, [[str, str, int]]),
}
_GEOMETRY: dict[str, Any] = {}
_GEOMETRY["*"] = (None, str, bool, float, [float], [[float, float]], _GEOMETRY)

RECORD: dict[str, Any] = {
    "stage": {"autoencoder", "contrastive", "probe"},
    "data": {
        "name?": (None, str),
        "size?": (None, int),
        "normalize?": bool,
        "classes?": [str],
        "train?": int,
        "val?": int,
        "test?": int,
        "mean?": [float, float, float],
        "std?": [float, float, float],
    },
    "backbone": {"name": str},
    "head": {
        "init": str,
        "frozen": bool,
        "activation": str,
        "hidden_dim": int,
        "output_dim": int,
        "depth?": int,
        "batch_norm?": bool,
        "unfreeze_at?": _NUMBER,
    },
    "autoencoder": (None, {"test_mse?": _NUMBER, "val_mse?": _NUMBER, "best_epoch?": (None, int)}),
    "contrastive": (None, {"train_loss?": _NUMBER, "val_loss?": _NUMBER, "epochs?": (None, int)}),
    "probes": {"*": _PROBE},
    "untrained": {"*": _PROBE},
    "geometry": _GEOMETRY,
    "seconds": {"*": float},
    "imported?": {"autoencoder?": (None, str)},
}
"""What any result.json states (design section 5), an imported one too."""

RESULT = RECORD | {
    "config_hash": str,
    "data": {
        "name": str,
        "fingerprint": str,
        "size": int,
        "classes": [str],
        "train": int,
        "val": int,
        "test": int,
        "mean": [float, float, float],
        "std": [float, float, float],
    },
    "probes": {"*": _PROBE | {"accuracy": float, "ci95": [float, float]}},
    "untrained": {"*": _PROBE | {"accuracy": float, "ci95": [float, float]}},
}
"""What the result.json of a run of ours states."""

FAILED = {"reason?": str}
"""failed.json."""


class RunFolder:
    """A run's files by name.

    Attributes:
        path: the folder itself.
        config, splits, skipped, metrics, autoencoder, head, backbone, checkpoint, samples, evaluations, card,
        result, report: the files and folders of design section 5.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.splits = self.path / "splits.npz"
        self.skipped = self.path / "skipped.csv"
        self.metrics = self.path / "metrics.jsonl"
        self.autoencoder = self.path / "autoencoder.safetensors"
        self.head = self.path / "head.safetensors"
        self.backbone = self.path / "backbone.safetensors"
        self.checkpoint = self.path / "checkpoint.pt"
        self.samples = self.path / "samples"
        self.evaluations = self.path / "evaluations"
        self.card = self.path / "MODEL_CARD.md"
        self.result = self.path / "result.json"
        self.report = self.path / "report.html"
        self.failed = self.path / "failed.json"
        self.stages = self.path / "stages.json"  # what finished stages found, until result.json tells it

    def open(self) -> None:
        """Make the folder and prove that it can be written.

        Raises InputError when a file stands in its place or it cannot be written.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"--out {self.path} is a file; give a folder")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / f".writable.{uuid.uuid4().hex}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise InputError(f"--out {self.path} cannot be written: {error.strerror}; give another folder") from None

    def is_complete(self) -> bool:
        """Whether the run was finished up to its `stage`."""
        return self.result.exists()

    def read_result(self) -> dict[str, Any]:
        """result.json; raises InputError when the folder holds no finished run."""
        if not self.path.is_dir():
            raise InputError(f"{self.path} is not a run folder: there is no such folder")
        if not self.result.exists():
            raise InputError(f"{self.path} holds no finished run: it has no result.json")
        return read_json(self.result, RESULT, "a run's result")


class Metrics:
    """metrics.jsonl: one object a line, rewritten whole so that a kill never leaves half a line.

    Kept in memory; `flush` writes. On resume the lines after the restored checkpoint are forgotten, because the
    steps they speak of are done again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[dict[str, Any]] = read_metrics(path)
        self.listeners: list[Callable[[list[dict[str, Any]]], None]] = []  # see all lines whenever they were written

    def log(self, **values: Any) -> None:
        """Add one line; numbers that JSON cannot hold become null."""
        self.lines.append({k: _finite(v) for k, v in values.items()})

    def truncate(self, keep: int) -> None:
        """Forget all but the first `keep` lines."""
        del self.lines[keep:]

    def forget(self, stage: str) -> None:
        """Forget a stage's lines: it begins again."""
        self.lines[:] = [line for line in self.lines if line.get("stage") != stage]

    def flush(self) -> None:
        """Write what is in memory."""
        write(self.path, jsonl(self.lines))
        for listener in self.listeners:
            listener(self.lines)


def jsonl(lines: Iterable[Mapping[str, Any]]) -> str:
    """One JSON object a line."""
    return "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)


_LINE = {"stage?": str, "start?": str, "epoch?": int, "step?": int, "*": (None, bool, str, float)}
"""A line of metrics.jsonl."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; none where there is no file. Raises InputError naming a damaged line."""
    try:
        texts = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    lines = []
    for number, text in enumerate(texts, 1):
        try:
            line = parse_json(text) if text.strip() else {}
            wrong = problem(line, _LINE)
        except (ValueError, RecursionError) as error:
            wrong = str(error)
        if wrong:
            raise InputError(f"{path}, line {number} is damaged ({wrong}); remove that line")
        lines += [line] if line else []
    return lines


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """CSV text whose names no spreadsheet takes for formulas."""
    return csv_line(header) + "".join(csv_line(row) for row in rows)


def csv_line(row: Iterable[object]) -> str:
    """One row of a CSV: names as `data_cell` has them, fractions to six places.

    Quoted where a reader needs it; Python's own writer before 3.13 leaves a lone carriage return bare.
    """
    cells = (data_cell(c) if isinstance(c, str) else f"{c:.6f}" if isinstance(c, float) else str(c) for c in row)
    return ",".join(f'"{c.replace(chr(34), 2 * chr(34))}"' if _QUOTED.search(c) else c for c in cells) + "\n"


_QUOTED = re.compile('[,"\r\n]|^\\s|\\s$')
