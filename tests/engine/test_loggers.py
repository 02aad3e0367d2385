"""Loggers, read back from what TensorBoard, MLflow and W&B really wrote."""

import contextlib
import importlib.util
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from headstart.engine import loggers
from headstart.records.errors import InputError
from headstart.records.folder import Metrics
from headstart.records.names import LOGGERS
from headstart.records.registry import Choice

LINES = [
    {"stage": "autoencoder", "epoch": 1, "step": 5, "loss": 0.5, "val_loss": None},
    {"stage": "contrastive", "epoch": 1, "step": 4, "loss": 6.5, "note": "text"},
    {"stage": "contrastive", "epoch": 2, "step": 8, "loss": 6.25},
]


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason="needs the extra loggers")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of a study."""
    run = tmp_path / "study" / "runs" / "data=digits,seed=0"
    run.mkdir(parents=True)
    (tmp_path / "study" / "study.yaml").write_text("name: x\n")
    return run


def write(folder: Path, name: str) -> None:
    """Two lines, a stop, and a resumed run that writes a third."""
    settings = {f"section.option{i}": i for i in range(150)}
    metrics = Metrics(folder / "metrics.jsonl")
    with contextlib.suppress(KeyboardInterrupt), loggers.attached(metrics, [name], folder, settings):
        metrics.log(**LINES[0])
        metrics.log(**LINES[1])
        metrics.flush()
        metrics.flush()
        metrics.log(stage="contrastive", epoch=2, step=8, loss=99.0)  # never written, so never sent
        raise KeyboardInterrupt
    metrics = Metrics(folder / "metrics.jsonl")
    assert len(metrics.lines) == 2
    with loggers.attached(metrics, [name], folder, settings):
        metrics.log(**LINES[2])
        metrics.flush()
    assert metrics.listeners == []


@needs("tensorboard")
def test_tensorboard(folder: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write(folder, "tensorboard")
    events = EventAccumulator(str(folder.parent.parent / "loggers" / "tensorboard" / folder.name))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("contrastive/loss")] == [(4, 6.5), (8, 6.25)]
    assert [(e.step, e.value) for e in events.Scalars("autoencoder/loss")] == [(5, 0.5)]
    assert "autoencoder/val_loss" not in events.Tags()["scalars"]


@needs("mlflow")
def test_mlflow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    write(folder, "mlflow")
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder.parent.parent / 'loggers' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("study")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])  # the resumed one is the same
    assert run.info.run_name == folder.name
    assert run.info.status == "FINISHED"
    assert len(run.data.params) == 150
    history = client.get_metric_history(run.info.run_id, "contrastive/loss")
    assert [(m.step, m.value) for m in history] == [(4, 6.5), (8, 6.25)]
    assert not (folder / "mlruns").exists()


@needs("mlflow")
def test_mlflow_and_names_that_its_filters_quote(tmp_path: Path) -> None:
    run = tmp_path / "it's a study" / "runs" / "it's a run"
    run.mkdir(parents=True)
    write(run, "mlflow")
    asks = tmp_path / "why?" / "run"
    asks.mkdir(parents=True)
    with pytest.raises(InputError, match=r"mlflow takes the \? in"):
        write(asks, "mlflow")


@needs("wandb")
def test_wandb(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    write(folder, "wandb")
    root = folder.parent.parent / "loggers" / "wandb"
    runs = sorted(root.glob("offline-run-*"))
    assert len(runs) == 2  # W&B makes one a call
    wanted = (b"contrastive/loss", b"6.25", b"study")
    until = time.monotonic() + 600
    while time.monotonic() < until:  # W&B's own process may still be writing
        stored = b"".join(path.read_bytes() for run in runs for path in run.glob("*.wandb"))
        if all(text in stored for text in wanted):
            break
        time.sleep(0.2)
    assert all(text in stored for text in wanted)
    assert not (folder / "wandb").exists()


@pytest.mark.parametrize("named", [".", "deeper/.."])
def test_a_single_run_keeps_its_loggers_itself(tmp_path: Path, named: str) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "deeper").mkdir()
    metrics = Metrics(tmp_path / "metrics.jsonl")
    with loggers.attached(metrics, ["tensorboard"], tmp_path / named, {}):
        metrics.log(**LINES[0])
        metrics.flush()
    assert list((tmp_path / "loggers" / "tensorboard" / tmp_path.name).iterdir())


def test_without_loggers_nothing_is_imported_or_written(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl")
    with loggers.attached(metrics, [], tmp_path, {}):
        metrics.log(**LINES[0])
        metrics.flush()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with (
        pytest.raises(InputError, match=r"headstart\[tensorboard\]"),
        loggers.attached(Metrics(tmp_path / "m.jsonl"), ["tensorboard"], tmp_path, {}),
    ):
        pass


def test_all_that_were_opened_are_closed_where_another_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[str, bool]] = []

    class Open:
        def __init__(self, root: Path, group: str, run: str, settings: Mapping[str, Any]) -> None:
            pass

        def send(self, lines: Sequence[loggers.Line]) -> None:
            raise AssertionError

        def close(self, finished: bool) -> None:
            said.append(("closed", finished))

    def broken(*_: object) -> loggers.Logger:
        raise OSError("its store is damaged")

    monkeypatch.setattr(LOGGERS, "_choices", dict(LOGGERS._choices))
    LOGGERS.register(Choice(name="open", help="", make=Open))
    LOGGERS.register(Choice(name="broken", help="", make=broken))
    metrics = Metrics(tmp_path / "m.jsonl")
    with pytest.raises(OSError, match="damaged"), loggers.attached(metrics, ["open", "broken"], tmp_path, {}):
        pass
    assert said == [("closed", False)]
    with loggers.attached(metrics, ["open"], tmp_path, {}):
        pass
    assert said[1:] == [("closed", True)]
    assert metrics.listeners == []
