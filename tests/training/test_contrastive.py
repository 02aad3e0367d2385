"""SimCLR's step: against the plain one, in chunks, in several processes, with frozen and released layers."""

import datetime
import math
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from headstart import data
from headstart.augment import ViewPlan
from headstart.backbones import build
from headstart.data import splits as splitting
from headstart.engine import distributed, live_taps
from headstart.engine.checkpoint import Checkpoints
from headstart.engine.device import Compute
from headstart.engine.observer import EpochEnd
from headstart.engine.randomness import generator
from headstart.evaluate.views import augmenter
from headstart.heads import ProjectionHead
from headstart.ntxent import nt_xent
from headstart.records.config import Config, from_dict
from headstart.records.errors import InputError, RunError
from headstart.records.folder import Metrics
from headstart.training import contrastive, feed
from headstart.training.feed import Batch
from headstart.training.head_alone import HeadAlone
from headstart.training.loop import Step
from headstart.training.step import SimCLR, Stepper, loss_of, synchronised
from tests.processes import start_ranks
from tests.runs import small

CPU = Compute(torch.device("cpu"), torch.float32)
BATCH = 16


class Doubled(Stepper):
    """The same step in float64."""

    def _views(self, frames: Tensor, plan: ViewPlan) -> Tensor:
        return super()._views(frames, plan).double()


def without_norms() -> nn.Module:
    """A small network without batch norm, with dropout."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def stepper(backbone: nn.Module, width: int, kind: type[Stepper] = Doubled, **options: object) -> Stepper:
    config = small(contrastive={"batch_size": BATCH, **options})
    head = ProjectionHead(width, 8, 8, "sigmoid", generator=generator(0, "head"))
    model = SimCLR(backbone, head, config.contrastive.passes).double().train()
    return kind(model, augmenter(config.augment, 16, None, None), config, CPU)


def batch(chunk: int | None = None) -> Batch:
    """One global batch of digits with its draws; this rank's part of it."""
    images = data.open_images(small().data)
    batches = feed.Feed(images, augmenter(small().augment, 16, None, None), CPU, chunk).batches
    return next(batches(torch.arange(BATCH), BATCH, lambda step: generator(0, "augment", 0, step)))


def gradients(step: Stepper) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in step.model.named_parameters() if p.grad is not None}


def one_step(step: Stepper) -> tuple[float, dict[str, Tensor]]:
    loss, _ = step(batch(step.config.contrastive.chunk), 0.0, (0, 0))
    return loss.item(), gradients(step)


@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
def test_fast_step_equals_plain_step(stem: str) -> None:
    """Live taps, channels_last and one matmul loss against the textbook step, in float64."""
    backbone = build("resnet18", stem=stem, generator=generator(0, "b"), size=16)
    fast = stepper(live_taps.apply(backbone, 16).to(memory_format=torch.channels_last), 512)
    loss, grads = one_step(fast)

    plain = build("resnet18", stem=stem, generator=generator(0, "b"), size=16).double().train()
    head = ProjectionHead(512, 8, 8, "sigmoid", generator=generator(0, "head")).double()
    drawn = batch()
    both = augmenter(small().augment, 16, None, None).apply(drawn.frames, drawn.plans[0]).double()
    z = torch.nn.functional.normalize(head(plain(both)), dim=1)
    similarity = (z @ z.T / 0.5).fill_diagonal_(-math.inf)
    expected = torch.nn.functional.cross_entropy(similarity, torch.arange(2 * BATCH).roll(BATCH))
    expected.backward()
    assert loss == pytest.approx(expected.item(), abs=1e-9)
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(grads[f"backbone.{name}"], parameter.grad, rtol=0, atol=1e-9)


def test_two_passes_normalise_each_view_by_itself() -> None:
    one, two = (SimCLR(build("resnet18", generator=generator(0, "b")), nn.Identity(), n).train() for n in (1, 2))
    views = torch.rand(8, 3, 16, 16, generator=generator(0, "v"))
    apart = torch.cat([two.backbone(views[:4]), two.backbone(views[4:])])
    torch.testing.assert_close(two(views)[0], apart)
    assert not torch.allclose(one(views)[0], apart, atol=1e-3)


@pytest.mark.parametrize("chunk", [1, 5, 8])
def test_chunks_give_the_whole_batchs_loss_and_gradients(chunk: int) -> None:
    loss, grads = one_step(stepper(without_norms(), 16))
    torch.manual_seed(0)
    first, second = without_norms(), without_norms()
    second.load_state_dict(first.state_dict())
    loss, grads = one_step(stepper(first, 16))
    chunked_loss, chunked = one_step(stepper(second, 16, chunk=chunk))
    assert chunked_loss == pytest.approx(loss, abs=1e-12)
    for name, gradient in grads.items():
        torch.testing.assert_close(chunked[name], gradient, rtol=0, atol=1e-12)


def test_chunks_replay_dropout_and_move_running_statistics_once() -> None:
    backbone = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    step = stepper(backbone, 8, chunk=8)
    loss, grads = one_step(step)
    assert backbone[1].num_batches_tracked == 2
    again_loss, again = one_step(stepper(backbone, 8, chunk=8))
    assert again_loss == loss
    assert all(torch.equal(again[name], gradient) for name, gradient in grads.items())


def _rank(rank: int, ranks: int, folder: str, weights: dict[str, Tensor], chunk: int | None) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    backbone = without_norms()
    backbone.load_state_dict(weights)
    step = stepper(backbone, 16, chunk=chunk)
    loss, _ = step(batch(chunk), 0.0, (0, 0))
    mean = distributed.mean_over_ranks(loss)
    if rank == 0:
        torch.save({"loss": mean, "grads": gradients(step)}, f"{folder}/out.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize(("ranks", "chunk"), [(2, None), (4, None), (2, 3)])
def test_several_processes_give_one_processs_loss_and_gradients(tmp_path: Path, ranks: int, chunk: int | None) -> None:
    torch.manual_seed(0)
    backbone = without_norms()
    weights = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    loss, grads = one_step(stepper(backbone, 16))
    start_ranks(_rank, (ranks, str(tmp_path), weights, chunk), ranks)
    out = torch.load(tmp_path / "out.pt")
    assert out["loss"].item() == pytest.approx(loss, abs=1e-9)
    for name, gradient in grads.items():
        torch.testing.assert_close(out["grads"][name], gradient, rtol=0, atol=1e-9)


def _rank_diverges(rank: int, folder: str, chunk: int | None) -> None:
    torch.set_num_threads(1)
    wait = datetime.timedelta(minutes=2)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=wait)
    step = stepper(without_norms(), 16, chunk=chunk)
    if rank == 1:
        weights = dict(step.model.head.named_parameters())
        nn.init.constant_(weights["output.bias"], math.inf)
    loss, _ = step(batch(chunk), 0.0, (0, 0))
    alone = dist.new_subgroups(group_size=1)[0]
    own = loss_of(torch.full((4, 8), math.nan) if rank else torch.randn(4, 8), step.config, (0, 0), alone)
    torch.save([loss.item(), own.item()], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("chunk", [None, 3])
def test_all_processes_diverge_together(tmp_path: Path, chunk: int | None) -> None:
    """One whose projections are not finite leaves no other waiting for them."""
    start_ranks(_rank_diverges, (str(tmp_path), chunk), 2)
    (loss, own), (others_loss, others_own) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert math.isnan(loss)
    assert math.isnan(others_loss)
    assert math.isfinite(own)
    assert math.isnan(others_own)


@pytest.mark.parametrize("name", ["resnet18", "timm:tf_efficientnet_lite0", "timm:mobilenetv3_small_100"])
def test_norms_over_all_processes_keep_their_activations(name: str) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    backbone = build(name, generator=generator(0, "b"), size=32).eval()
    pictures = torch.rand(2, 3, 32, 32, generator=generator(0, "pictures"))
    before, names = backbone(pictures), list(backbone.state_dict())
    converted = synchronised(backbone)
    norms = [m for m in converted.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    assert list(converted.state_dict()) == names
    torch.testing.assert_close(converted(pictures), before)


class Counting:
    """An observer with a state."""

    def __init__(self) -> None:
        self.epochs = 0

    def step(self, h: Tensor, indices: Tensor) -> None:
        pass

    def epoch_end(self, event: EpochEnd) -> dict[str, float]:
        self.epochs += 1
        return {}

    def state_dict(self) -> dict[str, int]:
        return {"epochs": self.epochs}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epochs = state["epochs"]


def _rank_goes_on(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    found, losses = None, []
    for epochs in (1, 2):
        config = small(contrastive={"epochs": epochs})
        images = data.open_images(config.data)
        splits = splitting.make(images, config.data)
        config = replace(config, data=replace(config.data, size=16), contrastive=replace(config.contrastive, lr=0.05))
        checkpoints = Checkpoints(
            Path(folder) / "checkpoint.pt", Metrics(Path(folder) / "metrics.jsonl"), writes=rank == 0
        )
        observers = [Counting()] if rank == 0 else []  # as in a run: only the process that writes observes
        found = contrastive.train(
            build("resnet18", generator=generator(0, "b"), size=16),
            ProjectionHead(512, 8, 8),
            images,
            splits,
            config,
            compute=CPU,
            checkpoints=checkpoints,
            observers=observers,
            quiet=True,
        )
        losses.append(found.val_loss)
        distributed.wait_for_all()
    assert found is not None
    assert found.epochs == 2
    torch.save({"losses": losses, "seen": [o.epochs for o in observers]}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_several_processes_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    start_ranks(_rank_goes_on, (str(tmp_path),), 2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert first["seen"] == [2]
    assert first["losses"] == second["losses"]


def trained(config: Config, head: ProjectionHead, tmp_path: Path) -> tuple[nn.Module, contrastive.TrainedSimCLR]:
    images = data.open_images(config.data)
    splits = splitting.make(images, config.data)
    backbone = build("resnet18", generator=generator(0, "b"), size=16)
    checkpoints = Checkpoints(tmp_path / "checkpoint.pt", Metrics(tmp_path / "metrics.jsonl"))
    config = replace(config, data=replace(config.data, size=16), contrastive=replace(config.contrastive, lr=0.05))
    found = contrastive.train(backbone, head, images, splits, config, compute=CPU, checkpoints=checkpoints, quiet=True)
    return backbone, found


def _rank_rounds_otherwise(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    step = HeadAlone.step

    def rounded(self: HeadAlone, batch: Tensor, epoch: int, number: int) -> Step:
        done = step(self, batch, epoch, number)
        with torch.no_grad():
            for parameter in self.head.parameters():
                parameter.add_(rank / 1024)
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HeadAlone, "step", rounded)
        head = ProjectionHead(512, 8, 8, generator=generator(0, "head"))
        (Path(folder) / str(rank)).mkdir()
        trained(small(contrastive={"epochs": 1, "head_epochs": 1}), head, Path(folder) / str(rank))
    torch.save(head.state_dict(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_several_processes_go_on_from_one_head(tmp_path: Path) -> None:
    """Each trains the head alone by itself, on machines whose kernels may differ."""
    start_ranks(_rank_rounds_otherwise, (str(tmp_path),), 2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lars"])
def test_frozen_layer_never_moves(tmp_path: Path, optimizer: str) -> None:
    head = ProjectionHead.from_init(512, init="orthogonal", hidden_dim=8, output_dim=8, frozen=True)
    before = {name: p.clone() for name, p in head.state_dict().items()}
    trained(small(contrastive={"optimizer": optimizer, "epochs": 1, "weight_decay": 0.1}), head, tmp_path)
    after = head.state_dict()
    assert torch.equal(after["first.weight"], before["first.weight"])
    assert torch.equal(after["first.bias"], before["first.bias"])
    assert not torch.equal(after["output.weight"], before["output.weight"])
    assert head.first.weight.grad is None


def test_released_layer_moves_from_its_epoch_on(tmp_path: Path) -> None:
    head = ProjectionHead.from_init(512, init="orthogonal", hidden_dim=8, output_dim=8, frozen=True)
    before = head.first.weight.clone()
    trained(small(head={"unfreeze_at": 0.5}, contrastive={"epochs": 2}), head, tmp_path)
    assert not torch.equal(head.first.weight, before)


def test_keep_best_ends_with_the_best_epochs_weights(tmp_path: Path) -> None:
    head = ProjectionHead(512, 8, 8)
    _, found = trained(small(contrastive={"keep": "best", "epochs": 3}), head, tmp_path)
    assert found.val_loss is not None
    assert 1 <= found.best_epoch <= 3


def test_loss_that_is_not_finite_stops_and_names_the_step(tmp_path: Path) -> None:
    head = ProjectionHead(512, 8, 8)
    with torch.no_grad():
        next(head.output.parameters()).fill_(math.nan)
    with pytest.raises(RunError, match=r"not finite \(epoch 1, step \d"):
        trained(small(), head, tmp_path)


def test_draws_are_a_function_of_the_step() -> None:
    first, second = batch(), batch()
    assert torch.equal(first.frames, second.frames)
    numbers, again = (drawn.plans[0].numbers[drawn.plans[0].rows.argsort()] for drawn in (first, second))
    assert torch.equal(numbers, again)
    assert not torch.equal(numbers[:BATCH], numbers[BATCH:])


def test_batch_must_be_shared_evenly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    with pytest.raises(InputError, match="3 processes cannot share"):
        trained(from_dict({}, small()), ProjectionHead(512, 8, 8), tmp_path)


def test_loss_falls_on_real_pictures(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = small(contrastive={"epochs": 15}, data={"limit": 256})
        head = ProjectionHead(512, 32, 16)
        _, found = trained(config, head, Path(folder))
        assert found.train_loss < nt_xent(torch.randn(64, 16, generator=generator(0, "z"))).item() - 0.1


@pytest.mark.parametrize(
    ("n", "most", "sizes"), [(17, 8, [6, 6, 5]), (23, 11, [8, 8, 7]), (16, 8, [8, 8]), (4, 9, [4])]
)
def test_a_batch_is_cut_evenly(n: int, most: int, sizes: list[int]) -> None:
    """A last part of one pair has no variance for the batch norm of one view (`contrastive.passes 2`)."""
    parts = feed.parts_of(n, most)
    assert [len(part) for part in parts] == sizes
    assert torch.equal(torch.cat(parts), torch.arange(n))
