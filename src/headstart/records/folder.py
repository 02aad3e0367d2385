"""The run folder: the names of its files, its result and its metrics (docs/using.md).

Nothing here imports torch, so `study status` and `report` start at once.
"""

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from headstart.records.config import Config, hash_of, load
from headstart.records.errors import InputError
from headstart.records.files import expanded, jsonl, missing, nearby, parse_json, read, read_json, unreadable, write
from headstart.records.outputs import check_output_folder, kind_of
from headstart.records.schema import LINE, RESULT
from headstart.records.seal import check_recorded
from headstart.records.validation import problem

EMBEDDINGS = (".npz", ".parquet")
"""Endings of the files that `embed` writes, which stand in place of a run and its pictures."""
MARK = b"headstart"
"""In the metadata of a parquet file: what it says about itself, by which it is told from a set of pictures."""


class RunFolder:
    """A run's files by name.

    Attributes:
        path: the folder itself.
        config, splits, skipped, metrics, autoencoder, head, backbone, checkpoint, samples, evaluations, card,
        result, report: the files and folders of docs/architecture.md.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = expanded(path)
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
        self.stages = self.path / "stages.json"  # what finished stages found, until result.json and the report tell it

    @property
    def checkpoints(self) -> tuple[Path, Path]:
        """The last state saved, and the one before it."""
        return self.checkpoint, previous(self.checkpoint)

    def open(self) -> Path:
        """Make the folder and prove that it can be written; its path.

        Raises InputError when a file stands in its place or it cannot be written.
        """
        check_output_folder(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        return self.path

    @property
    def weights(self) -> tuple[Path, ...]:
        """The files of weights."""
        return self.autoencoder, self.head, self.backbone

    def is_complete(self) -> bool:
        """Whether the run was finished up to its `stage`."""
        return self.result.exists()

    def is_reported(self) -> bool:
        """Whether it is complete and its page is made too: a process may have ended between the two."""
        return self.is_complete() and not self.stages.exists()

    def is_over(self) -> bool:
        """Whether a study leaves the run alone: it is done, or has failed."""
        return self.is_reported() or self.failed.exists()

    def read_settings(self, result: Mapping[str, Any]) -> tuple[Config, dict[str, Any]]:
        """The settings under which the run's `result` was computed, and config.yaml's `about`.

        Raises InputError as `config.load` does, and where they are others: cut short, altered, or of another run.
        """
        config, about = load(self.config)
        if hash_of(config, str(about.get("fingerprint"))) != result["config_hash"]:
            raise InputError(
                f"{self.config} is not the one under which result.json beside it was computed: cut short, altered, or "
                "of another run; restore both from a copy"
            )
        return config, about

    def read_result(self) -> dict[str, Any]:
        """result.json; raises InputError when the folder holds no finished run."""
        if not _is_folder(self.path):
            check_embeddings(self.path)
            why = "it is a file" if os.path.lexists(self.path) else f"there is no such folder{nearby(self.path)}"
            raise InputError(f"{self.path} is not a run folder: {why}")
        if not self.result.exists():
            raise InputError(f"{self.path} holds {self._instead()}")
        return read_json(self.result, RESULT, "a run's result")

    def _instead(self) -> str:
        """What is here in place of a finished run, and what to give."""
        if (self.path / "finetune.json").exists():
            return "a classifier, not a run; give the run that it was made from"
        if (self.path / "study.yaml").exists():
            return f"a study, not a run; give one of its runs, a folder in {self.path / 'runs'}"
        if self.failed.exists():
            return f"no finished run: it failed, and {self.failed.name} says why"
        if kind_of(self.path):
            return "no finished run: it has no result.json yet; the command that began it goes on with it"
        return "no run: it has no result.json; give a folder that `headstart pretrain` made"

    def check_backbone(self, result: Mapping[str, Any]) -> None:
        """Raise InputError where a finished run lacks its weights, or has others than its `result` speaks of."""
        if not self.backbone.exists():
            why = f"{self.backbone.name} is gone; restore it from a copy, or train again with --overwrite"
            if result["stage"] == "autoencoder":
                why = "it stopped after stage autoencoder; run `headstart pretrain` on it without --stages"
            raise InputError(f"{self.path} has no backbone: {why}")
        check_recorded(self.backbone, result, self.result.name)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:  # a name that is too long, a loop of links
        raise InputError(f"{str(path)[:100]} is not a run folder: {error.strerror}") from None


def check_embeddings(path: Path) -> None:
    """Raise InputError where there is nothing of a name that ends as a file of embeddings does."""
    if path.suffix in EMBEDDINGS and (absent := missing(path)):
        raise InputError(f"{absent}; give a file that `headstart embed` wrote, or a finished run")


def previous(checkpoint: Path) -> Path:
    """Where the state before the last is kept until the last is whole."""
    return checkpoint.with_suffix(".previous.pt")


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
        """Forget all but the first `keep` lines, and what later ones say of the pictures: an extension has them."""
        self.lines[keep:] = [line for line in self.lines[keep:] if line.get("stage") == "data"]

    def forget(self, stage: str) -> None:
        """Forget a stage's lines: it begins again."""
        self.lines[:] = [line for line in self.lines if line.get("stage") != stage]

    def flush(self) -> None:
        """Write what is in memory."""
        write(self.path, jsonl(self.lines), within=self.path.parent)
        for listener in self.listeners:
            listener(self.lines)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; none where there is no file. Raises InputError naming a damaged line."""
    try:
        texts = read(path).splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(unreadable(path, error)) from None
    lines = []
    for number, text in enumerate(texts, 1):
        try:
            line = parse_json(text) if text.strip() else {}
            wrong = problem(line, LINE)
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
