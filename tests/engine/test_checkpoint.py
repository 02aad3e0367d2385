"""Checkpoints: the previous one survives a torn write, flipped bytes are noticed, metrics are cut back."""

import tracemalloc
from pathlib import Path

import pytest
import torch

from headstart.engine import checkpoint, stopping
from headstart.engine.checkpoint import Checkpoints
from headstart.records.errors import InputError, Interrupted, RunError
from headstart.records.folder import Metrics


def opened(folder: Path, **options: object) -> Checkpoints:
    return Checkpoints(folder / "checkpoint.pt", Metrics(folder / "metrics.jsonl"), **options)  # type: ignore[arg-type]


def test_state_comes_back_and_metrics_are_cut_to_it(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.metrics.log(epoch=1)
    first.save("contrastive", {"weights": torch.arange(3), "step": 7, "best": {"loss": 0.5}, "none": None})
    first.metrics.log(epoch=2)
    first.metrics.flush()
    again = opened(tmp_path)
    state = again.load("contrastive")
    assert state is not None
    assert torch.equal(state["weights"], torch.arange(3))
    assert (state["step"], state["best"], state["none"]) == (7, {"loss": 0.5}, None)
    assert [line["epoch"] for line in again.metrics.lines] == [1]
    assert again.load("autoencoder") is None


@pytest.mark.parametrize("damage", ["torn", "flipped", "empty", "foreign"])
def test_a_damaged_checkpoint_falls_back_to_the_previous_one(tmp_path: Path, damage: str) -> None:
    first = opened(tmp_path)
    first.save("autoencoder", {"step": 1})
    first.save("autoencoder", {"step": 2})
    data = first.path.read_bytes()
    damaged = {
        "torn": data[: len(data) // 2],
        "flipped": data[:-10] + bytes([data[-10] ^ 1]) + data[-9:],
        "empty": b"",
        "foreign": b"PK\x03\x04" + data,
    }[damage]
    first.path.write_bytes(damaged)
    again = opened(tmp_path)
    state = again.load("autoencoder")
    assert state is not None
    assert state["step"] == 1
    again.save("autoencoder", {"step": 3})
    again.path.unlink()  # lost while it was written
    assert opened(tmp_path).load("autoencoder") == {"step": 1}, "the whole one was not replaced by the damaged one"


def test_a_checkpoint_is_read_without_a_copy_of_the_file(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.save("autoencoder", {"weights": torch.arange(2**20)})
    tracemalloc.start()  # of Python's own memory, which tensors' is not
    try:
        state = opened(tmp_path).load("autoencoder")
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert state is not None
    assert torch.equal(state["weights"], torch.arange(2**20))
    assert most < first.path.stat().st_size / 2


def test_stopping_saves_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = opened(tmp_path, minutes=100)
    kept.after_step("autoencoder", lambda: {"step": 1})
    assert not kept.path.exists()
    monkeypatch.setattr(stopping._Stop, "asked", True)
    with pytest.raises(Interrupted, match="same command"):
        kept.after_step("autoencoder", lambda: {"step": 2})
    state = opened(tmp_path).load("autoencoder")
    assert state == {"step": 2}


@pytest.mark.parametrize("fate", ["removed", "moved", "replaced", "removed and made again"])
def test_a_folder_that_is_gone_is_named_and_not_made_again(tmp_path: Path, fate: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    kept = opened(folder)
    kept.save("autoencoder", {"step": 1})
    folder.rename(tmp_path / "elsewhere")
    (tmp_path / "other").mkdir()
    if fate == "replaced":
        (tmp_path / "other").rename(folder)
    elif fate == "removed and made again":
        folder.mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RunError, match=r"run is gone: it was removed, moved or unmounted"):
        kept.save("autoencoder", {"step": 2})
    assert sorted(tmp_path.rglob("*")) == before
    if fate == "moved":
        (tmp_path / "elsewhere").rename(folder)
        kept.save("autoencoder", {"step": 2})
        assert opened(folder).load("autoencoder") == {"step": 2}


@pytest.mark.parametrize("lost", ["config.yaml", "splits.npz"])
def test_a_folder_that_is_removed_file_by_file_is_named(tmp_path: Path, lost: str) -> None:
    """What `rm -r` leaves where something is written while it works."""
    kept = opened(tmp_path)
    kept.beside = tmp_path / "config.yaml", tmp_path / "splits.npz"
    for path in kept.beside:
        path.touch()
    kept.save("autoencoder", {"step": 1})
    (tmp_path / lost).unlink()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RunError, match=f"{lost} is gone: it was removed while the training ran"):
        kept.save("autoencoder", {"step": 2})
    assert sorted(tmp_path.rglob("*")) == before


def test_a_process_that_does_not_write_leaves_the_folder_to_the_one_that_does(tmp_path: Path) -> None:
    reader = opened(tmp_path / "run", writes=False)  # before rank 0 has made it
    (tmp_path / "run").mkdir()
    reader.check_folder()
    reader.save("autoencoder", {"step": 1})
    assert not list((tmp_path / "run").iterdir())


def test_intervals(tmp_path: Path) -> None:
    every_step = opened(tmp_path, minutes=0)
    every_step.after_step("autoencoder", lambda: {"step": 1})
    assert every_step.path.exists()
    every_step.discard()
    by_epoch = opened(tmp_path, minutes=100, epochs=2)
    by_epoch.after_epoch("autoencoder", 1, lambda: {"epoch": 1})
    assert not by_epoch.path.exists()
    by_epoch.after_epoch("autoencoder", 2, lambda: {"epoch": 2})
    assert opened(tmp_path).load("autoencoder") == {"epoch": 2}


def test_a_checkpoint_never_runs_code(tmp_path: Path) -> None:
    import hashlib
    import io

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    buffer = io.BytesIO()
    torch.save({"stage": "autoencoder", "state": Bomb(), "metrics": 0}, buffer)
    body = buffer.getvalue()
    (tmp_path / "checkpoint.pt").write_bytes(checkpoint.MAGIC + hashlib.sha256(body).digest() + body)
    with pytest.raises(InputError, match=r"checkpoint\.pt holds more than tensors"):
        opened(tmp_path)
    assert not (tmp_path / "ran").exists()
