"""The steps of test_pretended.py on a real GPU, which itself refuses to be waited for in them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from headstart import data
from headstart.data.frames import Frames
from headstart.engine import memory
from headstart.engine.checkpoint import Checkpoints
from headstart.records.config import DataConfig
from headstart.records.folder import Metrics
from headstart.records.names import AUTOENCODER_KINDS
from tests.device import stages

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _modes() -> Iterator[None]:
    yield
    if torch.cuda.is_available():
        torch.cuda.set_sync_debug_mode("default")


def check(stage: stages.Stage) -> None:
    """Three steps, of which the last ones wait for nothing, with finite losses."""
    losses = [stage.step(0)]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    losses += [stage.step(1), stage.step(2)]
    torch.cuda.set_sync_debug_mode("default")
    assert torch.stack(losses).isfinite().all()


def test_views_are_those_of_the_cpu(gpu: torch.device) -> None:
    there, here = (stages.augmented(device)().cpu() for device in (gpu, torch.device("cpu")))
    assert torch.allclose(there, here, atol=1e-2)


@pytest.mark.parametrize("options", [{}, {"chunk": 8}, {"optimizer": "lars"}, {"optimizer": "adamw"}], ids=str)
def test_simclr(gpu: torch.device, options: dict[str, Any]) -> None:
    stage = stages.simclr(gpu, **options)
    check(stage)
    assert stages.end_of_epoch(stage.training)["h_mean_norm"] > 0


def test_pictures_of_many_sizes(gpu: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Padded as the host pads them, whether the device keeps all of them or is sent each batch."""
    stage = stages.simclr(gpu, sources=stages.unequal(tmp_path / "pictures"))
    check(stage)
    images = data.open_images(DataConfig(sources=(str(tmp_path / "pictures"),), size=stages.SIZE))
    rows = torch.tensor([5, 0, 99, 5])
    for room in (True, False):
        monkeypatch.setattr(memory, "holds", lambda *_, room=room: room)
        frames, (beside,) = Frames(images, stages.compute(gpu)).of(rows, [rows])
        assert torch.equal(frames.cpu(), images.batch(rows)[0])
        assert torch.equal(beside.cpu(), rows)


def test_a_run_goes_on_from_its_checkpoint(gpu: torch.device, tmp_path: Path) -> None:
    first, second = stages.simclr(gpu), stages.simclr(gpu)
    first.step(0)
    Checkpoints(tmp_path / "checkpoint.pt", Metrics(tmp_path / "metrics.jsonl")).save(
        "contrastive", first.training.state()
    )
    saved = Checkpoints(tmp_path / "checkpoint.pt", Metrics(tmp_path / "metrics.jsonl")).load("contrastive")
    assert saved is not None
    second.training.restore(saved)
    assert torch.allclose(second.step(1), first.step(1), rtol=1e-2)


@pytest.mark.parametrize("kind", AUTOENCODER_KINDS)
def test_autoencoder(gpu: torch.device, kind: str) -> None:
    stage = stages.autoencoder(gpu, kind)
    check(stage)
    stages.end_of_epoch(stage.training)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_fine_tuning(gpu: torch.device, tmp_path: Path, optimizer: str) -> None:
    stage = stages.finetuning(gpu, tmp_path, optimizer=optimizer)
    check(stage)
    assert "val_accuracy" in stages.end_of_epoch(stage.training)


@pytest.mark.parametrize("wait", [lambda x: x.item(), lambda x: x.cpu()], ids=["item", "cpu"])
def test_a_wait_is_refused(gpu: torch.device, wait: Callable[[torch.Tensor], object]) -> None:
    x = torch.ones((), device=gpu)
    torch.cuda.set_sync_debug_mode("error")
    with pytest.raises(RuntimeError, match="synchroniz"):
        wait(x)
