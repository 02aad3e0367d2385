"""The authors' runs as a study, and small run folders in the exact layout of our own."""

import io
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.records.config import Config, DataConfig, HeadConfig, to_yaml
from headstart.report import write_report
from headstart.statistics import wilson
from headstart.study.imports import import_csv

EXPORTS = (
    "ae-train.csv",
    "simclr-train.csv",
    "simclr-eval.csv",
    "simclr-train-ae-nonfrozen.csv",
    "simclr-eval-ae-nonfrozen.csv",
)


@pytest.fixture(scope="session")
def authors(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The authors' 780 records as a study folder; read only."""
    out = tmp_path_factory.mktemp("authors") / "study"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)  # 1,560 small files
        import_csv([reference / name for name in EXPORTS], out)
    return out


@pytest.fixture(scope="session")
def authors_report(authors: Path) -> Path:
    """The page of the authors' study, with its figures and tables beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        return write_report(authors)


def _png(rng: np.random.Generator) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (24, 64, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _probe(accuracy: float, n: int = 200) -> dict[str, Any]:
    correct = round(accuracy * n)
    return {"accuracy": correct / n, "correct": correct, "n_test": n, "ci95": list(wilson(correct, n))}


def _lines(epochs: int, accuracy: float) -> list[dict[str, Any]]:
    """What a training logs each epoch."""
    return [
        {
            "stage": "contrastive",
            "epoch": e,
            "step": 4 * e,
            "loss": 6 - 0.1 * e,
            "val_loss": 5.9 - 0.1 * e,
            "lr": 0.1,
            "pairs_per_s": 90.0,
            "data_wait": 0.0,
            "h_effective_rank": 20.0 + e,
            "accuracy": accuracy * e / epochs,
        }
        for e in range(1, epochs + 1)
    ]


def _result(config: Config, set_name: str, epochs: int) -> dict[str, Any]:
    """A result but for its probes."""
    head, counts = config.head, {"train": 700, "val": 100, "test": 200}
    names = ("init", "frozen", "activation", "hidden_dim", "output_dim")
    return {
        "schema": 1,
        "stage": "probe",
        "config_hash": "0" * 16,
        "data": {"name": set_name, "fingerprint": set_name, "size": 32, "classes": ["a", "b"], "skipped": 1, **counts},
        "backbone": {"name": "resnet18", "stem": "imagenet", "weights": "none"},
        "head": {name: getattr(head, name) for name in names},
        "autoencoder": {"test_mse": 0.01, "val_mse": 0.011, "best_epoch": 9} if head.init == "autoencoder" else None,
        "contrastive": {"train_loss": 5.0, "val_loss": 4.9, "epochs": epochs, "best_epoch": epochs},
        "geometry": {
            "effective_rank": 25.0,
            "spectrum": [[1, 1.0], [2, 0.4], [4, 0.1]],
            "head": {"singular_values": [3.0, 2.0, 1.0], "hidden_dead": 0.1, "loss": None},
        },
        "seconds": {"autoencoder": 2.0, "contrastive": 20.0 + config.seed, "probe": 1.0},
    }


def _finished_run(
    path: Path,
    *,
    init: str = "autoencoder",
    frozen: bool = True,
    seed: int = 0,
    accuracy: float = 0.8,
    set_name: str = "digits",
    hidden_dim: int = 64,
    output_dim: int = 32,
    activation: str = "relu",
    probes: tuple[str, ...] = ("paper", "linear"),
    epochs: int = 10,
    **settings: object,
) -> Path:
    rng = np.random.default_rng([seed, hidden_dim, output_dim])
    head = HeadConfig(init=init, frozen=frozen, activation=activation, hidden_dim=hidden_dim, output_dim=output_dim)
    config = replace(Config(), head=head, seed=seed, data=DataConfig(sources=(set_name,), size=32))
    for name, value in settings.items():
        section, _, last = name.rpartition("__")
        changed = {last: value}
        config = replace(config, **({section: replace(getattr(config, section), **changed)} if section else changed))
    (path / "samples").mkdir(parents=True)
    (path / "samples" / "pairs.png").write_bytes(_png(rng))
    (path / "samples" / "reconstructions.png").write_bytes(_png(rng))
    (path / "config.yaml").write_text(to_yaml(config, {"headstart": "0", "fingerprint": set_name}))
    (path / "skipped.csv").write_text("name,reason\n'=cmd()|x.png,<script>alert(1)</script>\n")
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in _lines(epochs, accuracy)))
    result = _result(replace(config, head=head), set_name, epochs)
    result["probes"] = {name: _probe(accuracy) for name in probes}
    result["untrained"] = {name: _probe(0.4) for name in probes}
    (path / "result.json").write_text(json.dumps(result))
    return path


@pytest.fixture
def make_run() -> Callable[..., Path]:
    """A finished run's folder: make_run(path, init=..., frozen=..., seed=..., accuracy=..., set_name=...).

    `settings` are others by dotted name with `__` for the dot: backbone__name="resnet50".
    """
    return _finished_run


@pytest.fixture(scope="session")
def study_run() -> Callable[..., Path]:
    """`make_run` for fixtures that outlive a test."""
    return _finished_run
