"""The steps of test_pretended.py on a real GPU, which itself refuses to be waited for in them."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from headstart import backbones, data
from headstart.data.frames import Frames
from headstart.engine import graphs, live_taps, memory
from headstart.engine.checkpoint import Checkpoints
from headstart.engine.device import Compute
from headstart.engine.randomness import generator
from headstart.heads import ProjectionHead
from headstart.ntxent import nt_xent
from headstart.records.config import DataConfig
from headstart.records.folder import Metrics
from headstart.records.names import AUTOENCODER_KINDS
from headstart.training import step
from headstart.training.step import SimCLR
from tests.device import stages

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _modes() -> Iterator[None]:
    yield
    if torch.cuda.is_available():
        torch.cuda.set_sync_debug_mode("default")


def check(stage: stages.Stage) -> None:
    """Five steps, of which the last ones wait for nothing, with finite losses."""
    losses = [stage.step(number) for number in range(3)]  # the passes are recorded in the third
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    losses += [stage.step(number) for number in range(2)]
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


def exact(device: torch.device) -> tuple[SimCLR, torch.optim.Optimizer]:
    """ResNet-18 and a head with its first layer frozen, in float64; and what moves them."""
    backbone = backbones.build("resnet18", stem="imagenet", generator=generator(0, "backbone"), size=stages.SIZE)
    head = ProjectionHead(512, 32, 16, "sigmoid", generator=generator(0, "head"))
    head.first.requires_grad_(False)
    model = SimCLR(live_taps.apply(backbone, stages.SIZE), head).to(device, torch.float64)
    return model.train(), torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def test_recorded_passes_are_those_of_autograd(gpu: torch.device) -> None:
    """Loss, h, every weight and the running statistics, over steps on other views than were recorded."""
    (plain, one), (other, two) = exact(gpu), exact(gpu)
    draws = torch.Generator(gpu).manual_seed(0)
    draw = partial(torch.rand, 64, 3, stages.SIZE, stages.SIZE, generator=draws, device=gpu, dtype=torch.float64)
    nt_xent(other(draw())[1]).backward()  # in which the libraries begin
    recorded = graphs.Passes(other, draw(), Compute(gpu, torch.float32))
    other.load_state_dict(plain.state_dict())
    for _ in range(4):
        views = draw()
        one.zero_grad(set_to_none=True)
        h, z = plain(views)
        loss = nt_xent(z)
        loss.backward()
        there, h_there = recorded(views, nt_xent)
        assert torch.allclose(loss, there, rtol=1e-9)
        assert torch.allclose(h, h_there, rtol=1e-6)
        one.step()
        two.step()
    for name, tensor in plain.state_dict().items():
        assert torch.allclose(tensor.double(), other.state_dict()[name].double(), rtol=1e-6, atol=1e-9), name


def losses_of(stage: stages.Stage) -> list[float]:
    """Of six steps, twice the same three batches."""
    return [stage.step(number % 3).item() for number in range(6)]


@pytest.mark.parametrize("options", [{}, {"optimizer": "adamw"}, {"objective": "vicreg", "lr": 0.01}], ids=str)
def test_a_run_records_its_passes(gpu: torch.device, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The losses are those of the kernels one by one, as far as float32 and sums in no fixed order let them."""
    monkeypatch.setattr(stages, "compute", lambda device: Compute(device, torch.float32))
    recorded = stages.simclr(gpu, **{"lr": 0.001, **options})
    losses = losses_of(recorded)
    assert stages.stepper(recorded).recorded is not None
    monkeypatch.setenv("HEADSTART_CUDA_GRAPHS", "0")
    plain = stages.simclr(gpu, **{"lr": 0.001, **options})
    assert losses_of(plain) == pytest.approx(losses, rel=0.02)
    assert stages.stepper(plain).recorded is None


def test_compiled_passes_are_recorded(gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile's kernels in a graph: the losses are those of the plain network, to float32's rounding."""
    monkeypatch.setattr(stages, "compute", lambda device: Compute(device, torch.float32))
    compiled = stages.simclr(gpu, lr=0.001, compile=True)
    losses = losses_of(compiled)
    stepper = stages.stepper(compiled)
    assert stepper.network is not stepper.parallel
    assert stepper.recorded is not None
    assert losses_of(stages.simclr(gpu, lr=0.001)) == pytest.approx(losses, rel=0.02)


def test_a_released_layer_is_recorded_anew(gpu: torch.device) -> None:
    stage = stages.simclr(gpu)
    losses_of(stage)
    stepper = stages.stepper(stage)
    first = stepper.model.head.first
    assert isinstance(first, nn.Linear)
    assert first.weight.grad is None
    stepper.release()
    before = first.weight.detach().clone()
    assert all(math.isfinite(loss) for loss in losses_of(stage))
    assert stepper.recorded is not None
    assert not torch.equal(first.weight, before)


def test_a_recording_that_fails_leaves_nothing_behind(gpu: torch.device, capsys: pytest.CaptureFixture[str]) -> None:
    """A graph of autograd that somebody keeps belongs to the stream that is not recorded."""
    stage = stages.simclr(gpu)
    weight = [it for it in stages.stepper(stage).model.parameters() if it.requires_grad][-1]
    kept, stream = weight.clone(), torch.cuda.current_stream(gpu)
    assert all(math.isfinite(loss) for loss in losses_of(stage))
    assert stages.stepper(stage).recorded is None
    assert "every kernel of a step is launched by itself" in capsys.readouterr().err
    assert torch.cuda.current_stream(gpu) == stream
    assert torch.rand(8, device=gpu).unique().numel() == 8
    del kept
    other = stages.simclr(gpu)
    assert all(math.isfinite(loss) for loss in losses_of(other))
    assert stages.stepper(other).recorded is not None


class Dropping(nn.Module):
    """Half of the pixels' means are dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.dropout = nn.Linear(3, 64), nn.Dropout(0.5)

    def forward(self, views: Tensor) -> tuple[Tensor, Tensor]:
        h = self.linear(views.mean(dim=(2, 3)))
        return h, self.dropout(h)


def test_dropout_in_recorded_passes_follows_the_seed(gpu: torch.device) -> None:
    views = torch.rand(64, 3, 8, 8, device=gpu)
    with step.stochastic_layers(gpu, 0, 0):
        passes = graphs.Passes(Dropping().to(gpu), views, stages.compute(gpu))

    def loss_at(*position: int) -> float:
        with step.stochastic_layers(gpu, 0, *position):
            return passes(views, lambda z: z.float().square().mean())[0].item()

    assert loss_at(1) == loss_at(1)
    assert len({loss_at(number) for number in range(4)}) == 4


def test_a_network_of_unknown_modules_is_not_recorded(gpu: torch.device) -> None:
    """It may decide in Python what to compute."""
    assert not graphs.may_record(Dropping(), stages.compute(gpu))


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
