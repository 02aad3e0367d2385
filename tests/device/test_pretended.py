"""What a step asks of a GPU, seen without one; and that faults which were made on purpose are seen."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headstart.data import Images
from headstart.engine.checkpoint import Checkpoints
from headstart.evaluate.features import extract
from headstart.records.folder import Metrics
from headstart.records.names import AUTOENCODER_KINDS, OBJECTIVES
from headstart.training.contrastive import Contrastive
from tests.device import stages
from tests.device.pretended import CUDA, Seen, Watch

UPLOADS = 1
"""Copies to the device that a step may need where it keeps the pictures: their numbers and draws, in one."""


@pytest.fixture
def watch() -> Iterator[Watch]:
    with Watch().entered() as watch:
        yield watch


def second(stage: stages.Stage, watch: Watch) -> Seen:
    """What the second step does: the first one makes tables and the optimiser's state."""
    stage.step(0)
    watch.forget()
    stage.step(1)
    return watch.seen


def check(seen: Seen, launches: int, uploads: int = UPLOADS) -> None:
    """No wait, few uploads and none of them blocking, at most so many kernels."""
    assert not seen.waits
    assert not seen.blocking
    assert len(seen.uploads) <= uploads
    assert 0 < sum(seen.launches.values()) <= launches, seen.launches.most_common(8)


def fast(seen: Seen) -> bool:
    """Whether all convolutions were bfloat16 and channels_last."""
    return bool(seen.convolutions) and set(seen.convolutions) == {(torch.bfloat16, True)}


# ---------------------------------------------------------------------------------------------------- Headstart's steps


def test_augmentation(watch: Watch) -> None:
    augment = stages.augmented(CUDA)
    augment()
    watch.forget()
    views = augment()
    assert views.shape == (2 * stages.BATCH, 3, stages.SIZE, stages.SIZE)
    check(watch.seen, launches=230, uploads=2)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_step_of_simclr(objective: str, watch: Watch) -> None:
    """SIGReg's directions are drawn on the host: one more upload."""
    seen = second(stages.simclr(CUDA, objective=objective), watch)
    check(seen, launches=600 if objective == "nt_xent" else 1100, uploads=UPLOADS + (objective == "sigreg"))
    assert fast(seen)


def test_a_step_of_simclr_with_lars(watch: Watch) -> None:
    seen = second(stages.simclr(CUDA, optimizer="lars"), watch)
    check(seen, launches=620)
    assert fast(seen)


def test_a_step_in_chunks_makes_its_views_once(watch: Watch) -> None:
    """Views made again for the second pass of four chunks would be some 900 launches more."""
    seen = second(stages.simclr(CUDA, chunk=8), watch)
    check(seen, launches=2600)
    assert fast(seen)


@pytest.mark.parametrize("free", [2**36, 2**20], ids=["kept", "sent"])
def test_pictures_of_many_sizes_are_padded_by_the_device(
    free: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watch: Watch
) -> None:
    """Where it has no room for all of them they are sent as they are, without padding."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (free, free))
    stage = stages.simclr(CUDA, sources=stages.unequal(tmp_path / "pictures"))
    monkeypatch.setattr(Images, "batch", None)
    seen = second(stage, watch)
    kept = free == 2**36
    check(seen, launches=650, uploads=1 if kept else 2)  # these are above the size to which crops are in a table
    as_padded = stages.BATCH * 3 * (2 * stages.SIZE) ** 2
    assert max(upload.bytes for upload in seen.uploads) < as_padded / (10 if kept else 1)
    assert fast(seen)


def test_what_follows_from_sizes_alone_is_made_once(watch: Watch) -> None:
    """Of pictures above the size to which a table has all crops."""
    augment = stages.augmented(CUDA, side=64)
    augment()
    watch.forget()
    augment()
    assert not {"arange", "reciprocal", "neg"} & set(watch.seen.launches)


@pytest.mark.parametrize("kind", AUTOENCODER_KINDS)
def test_a_step_of_each_autoencoder(kind: str, watch: Watch) -> None:
    """Each step of these asks for an epoch's batches anew: the order is one of the uploads."""
    check(second(stages.autoencoder(CUDA, kind), watch), launches=250, uploads=3)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_step_of_fine_tuning(optimizer: str, tmp_path: Path, watch: Watch) -> None:
    seen = second(stages.finetuning(CUDA, tmp_path, optimizer=optimizer), watch)
    check(seen, launches=340)
    assert fast(seen)


def test_after_an_epoch_nothing_is_drawn_or_copied_again(watch: Watch) -> None:
    """Validation and what the observers look at: the same views each time, made once."""
    stage = stages.simclr(CUDA)
    stages.end_of_epoch(stage.training)
    watch.forget()
    stages.end_of_epoch(stage.training)
    assert not watch.seen.uploads
    assert not watch.seen.launches["index_select"]
    assert fast(watch.seen)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_after_an_epoch_the_device_is_waited_for_four_times(objective: str, watch: Watch) -> None:
    """For the validation losses, the online probe's accuracy, the gradient that reaches h, and all that is looked at of
    h and z; once more for the terms of an objective that has several."""
    stage = stages.simclr(CUDA, batch_size=8, objective=objective)
    stage.step(0)
    stages.end_of_epoch(stage.training)
    watch.forget()
    stages.end_of_epoch(stage.training)
    waits = sorted(wait.partition(" at ")[0] for wait in watch.seen.waits)
    assert waits == ["copy to the host"] * 3 + ["synchronize"] * (1 if objective == "nt_xent" else 2)
    assert not watch.seen.blocking
    assert not [name for name in watch.seen.launches if "eig" in name]


def test_cudnn_does_not_try_its_kernels_on_the_last_batch(watch: Watch) -> None:
    stage = stages.simclr(CUDA, batch_size=10, drop_last_validation=False)
    training = cast(Contrastive, stage.training)
    assert len(training.watch.indices) == 16
    training.validate()
    assert watch.seen.tried == {20}
    watch.forget()
    given: dict[str, Any] = {"size": 32, "mean": None, "std": None, "compute": stages.compute(CUDA), "batch_size": 16}
    extract(training.model.backbone, training.watch.images, np.arange(40), **given)
    assert watch.seen.tried == {16}


def test_a_checkpoint_is_copied_at_once(tmp_path: Path, watch: Watch) -> None:
    stage = stages.simclr(CUDA)
    stage.step(0)
    watch.forget()
    checkpoints = Checkpoints(tmp_path / "checkpoint.pt", Metrics(tmp_path / "metrics.jsonl"))
    checkpoints.save("contrastive", stage.training.state())
    assert len(watch.seen.waits) == 1
    saved = Checkpoints(tmp_path / "checkpoint.pt", Metrics(tmp_path / "metrics.jsonl")).saved
    assert saved is not None
    assert saved["state"]["model"].keys() == stage.training.state()["model"].keys()
    assert saved["state"]["optimizer"]["state"]


def test_copies_of_weights_are_waited_for_once(tmp_path: Path, watch: Watch) -> None:
    stage = stages.finetuning(CUDA, tmp_path)
    stage.training.validate()
    watch.forget()
    stages.end_of_epoch(stage.training)
    assert [wait for wait in watch.seen.waits if "device.py" in wait] == [
        wait for wait in watch.seen.waits if "synchronize" in wait
    ]
    assert sum("synchronize" in wait for wait in watch.seen.waits) == 1


# -------------------------------------------------------------------------------------------------------------- faults


def faulty(stage: stages.Stage, monkeypatch: pytest.MonkeyPatch, fault: Callable[[Tensor], object]) -> stages.Stage:
    """The same stage, whose network does something more with what it is given, or is given something else."""
    model: Any = stage.training.model  # type: ignore[attr-defined]
    forward = model.forward

    def more(x: Tensor) -> object:
        given = fault(x)
        return forward(given if isinstance(given, Tensor) and given.shape == x.shape else x)

    monkeypatch.setattr(model, "forward", more)
    return stage


@pytest.mark.parametrize(
    "fault",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).all()),
        lambda x: x.mean().cpu(),
        lambda x: (x[:, 0] > 0).nonzero(),
        lambda x: x[x[:, 0] > 0].sum(),
        lambda x: x[0].tolist(),
        lambda x: torch.linalg.eigvalsh(x[:, : len(x)]),
        lambda x: torch.zeros(3).copy_(x[0, :3]),
    ],
    ids=["item", "bool", "cpu", "nonzero", "mask", "tolist", "eigenvalues", "copy"],
)
def test_a_wait_is_seen(fault: Callable[[Tensor], object], monkeypatch: pytest.MonkeyPatch, watch: Watch) -> None:
    seen = second(faulty(stages.autoencoder(CUDA), monkeypatch, fault), watch)
    assert len(seen.waits) >= 1
    assert "test_pretended.py" in seen.waits[0]


@pytest.mark.parametrize(
    ("fault", "blocking"),
    [
        (lambda x: torch.ones(4).to(x.device), 1),
        (lambda x: torch.ones(4).to(x.device, non_blocking=True), 1),  # not page-locked
        (lambda x: torch.ones(4).pin_memory().to(x.device), 1),
        (lambda x: torch.tensor([1.0], device=x.device), 1),
        (lambda x: x[torch.arange(4)].sum(), 1),
        (lambda x: torch.empty(4, device=x.device).copy_(torch.ones(4)), 1),
        (lambda x: torch.ones(4).pin_memory().to(x.device, non_blocking=True), 0),
    ],
    ids=["to", "pageable", "pinned", "tensor", "index", "copy", "as it should be"],
)
def test_an_upload_is_seen(
    fault: Callable[[Tensor], object], blocking: int, monkeypatch: pytest.MonkeyPatch, watch: Watch
) -> None:
    uploads = len(second(stages.autoencoder(CUDA), watch).uploads)
    seen = second(faulty(stages.autoencoder(CUDA), monkeypatch, fault), watch)
    assert len(seen.blocking) == blocking
    assert len(seen.uploads) == uploads + 1


def test_a_convolution_in_float32_is_seen(monkeypatch: pytest.MonkeyPatch, watch: Watch) -> None:
    def fault(x: Tensor) -> None:
        with torch.autocast(x.device.type, enabled=False):
            nn.functional.conv2d(x, torch.zeros(1, 3, 1, 1, device=x.device))

    seen = second(faulty(stages.simclr(CUDA), monkeypatch, fault), watch)
    assert (torch.float32, True) in seen.convolutions


def test_a_lost_layout_is_seen(monkeypatch: pytest.MonkeyPatch, watch: Watch) -> None:
    seen = second(faulty(stages.simclr(CUDA), monkeypatch, lambda x: x.contiguous()), watch)
    assert (torch.bfloat16, False) in seen.convolutions


def test_a_loop_over_pictures_is_seen(monkeypatch: pytest.MonkeyPatch, watch: Watch) -> None:
    stage = stages.simclr(CUDA)
    before = sum(second(stage, watch).launches.values())
    seen = second(faulty(stage, monkeypatch, lambda x: [row.mul_(1) for row in x]), watch)
    assert sum(seen.launches.values()) == before + 2 * stages.BATCH > 600


def test_a_tensor_of_the_host_among_the_devices_fails(watch: Watch) -> None:
    with pytest.raises(RuntimeError, match="same device"):
        torch.ones(4, device=CUDA) + torch.ones(4)
