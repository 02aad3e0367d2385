"""SimCLR's end-to-end training of backbone and projection head (paper 3.1, 3.5).

Comes in: a backbone f, a head g, pictures, the split. Goes out: both trained in place, and what the training saw.
Two views of every picture are drawn on the device for the whole batch, passed through f and g, and pulled together
by NT-Xent. Every draw follows from (seed, stream, epoch, step), so a resumed run continues to the byte and every
head sees the same pictures in the same order.
"""

import contextlib
import inspect
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from headstart.augment import Draw, SimCLRAugment
from headstart.data.images import Images, gathered
from headstart.data.splits import Splits
from headstart.engine import distributed, progress
from headstart.engine.checkpoint import Checkpoints, State
from headstart.engine.device import Compute
from headstart.engine.observer import EpochEnd, Observer
from headstart.engine.prefetch import Prefetch
from headstart.engine.randomness import generator, order
from headstart.ntxent import nt_xent
from headstart.records.config import AugmentConfig, Config
from headstart.records.errors import InputError, RunError
from headstart.training import optimizers

STAGE = "contrastive"


@dataclass(kw_only=True)
class Trained:
    """What the training saw.

    Attributes:
        train_loss, val_loss: of the epoch whose weights were kept.
        epochs: epochs trained.
        best_epoch: the epoch of the lowest validation loss, from 1.
    """

    train_loss: float
    val_loss: float | None
    epochs: int
    best_epoch: int


class SimCLR(nn.Module):
    """g after f (paper Eq. 1), with batch norm over both views at once or one pass a view."""

    def __init__(self, backbone: nn.Module, head: nn.Module, passes: int = 1) -> None:
        super().__init__()
        self.backbone, self.head, self.passes = backbone, head, passes

    def forward(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """views (2n, 3, S, S) -> h (2n, num_features), z (2n, output_dim)."""
        h = torch.cat([self.backbone(v) for v in views.chunk(self.passes)])
        return h, self.head(h)


def augmenter(config: AugmentConfig, size: int, mean: Tensor | None, std: Tensor | None) -> SimCLRAugment:
    """The family T at the training size; its last step is the Z-score where mean and std are given."""
    return SimCLRAugment(
        size=size,
        crop_scale=config.crop_scale,
        crop_ratio=config.crop_ratio,
        flip=config.flip,
        jitter=config.jitter,
        jitter_p=config.jitter_p,
        grey_p=config.grey_p,
        blur_p=config.blur_p,
        blur_sigma=config.blur_sigma,
        blur_kernel=config.blur_kernel,
        mean=mean,
        std=std,
    )


@dataclass
class Batch:
    """Pictures of one step on this rank: frames (n, 3, H, W) uint8 and the draws of both their views."""

    indices: Tensor
    frames: Tensor
    params: Draw


def check_batch(batch_size: int) -> None:
    """Raise InputError for a global batch that the processes cannot share."""
    if batch_size % distributed.world_size():
        raise InputError(
            f"contrastive.batch-size is {batch_size}, which {distributed.world_size()} processes cannot share evenly; "
            "give a multiple"
        )


def batches(
    images: Images,
    indices: Tensor,
    augment: SimCLRAugment,
    batch_size: int,
    frames: Callable[[Tensor], Tensor],
    draws: Callable[[int], torch.Generator],
    first: int = 0,
) -> Iterator[Batch]:
    """The steps of one epoch from step `first`: pictures of `indices` in order, with the draws of each step.

    The draws are made for the global batch and cut to this rank's slice, so any number of processes sees the same.
    """
    for step in range(first, count_steps(len(indices), batch_size)):
        chosen = indices[step * batch_size : (step + 1) * batch_size]
        params = draw_pairs(augment, images, chosen, draws(step))
        mine = torch.arange(len(chosen))[distributed.slice_of(len(chosen))]
        both_views = torch.cat([mine, mine + len(chosen)])
        yield Batch(chosen[mine], frames(chosen[mine]), params[both_views])


def frames_on(device: torch.device, images: Images) -> Callable[[Tensor], Tensor]:
    """Function from picture numbers (n,) to their frames (n, 3, H, W) uint8 on the device.

    A GPU with room for it keeps the whole set, if its pictures are of one size, so that no step waits for the bus.
    """
    if device.type == "cuda":
        sizes = np.unique(images.sizes, axis=0)
        if len(sizes) == 1 and 3 * len(images) * int(sizes.prod()) < torch.cuda.mem_get_info(device)[0] / 2:
            shape = (len(images), 3, *map(int, sizes[0]))
            everything = gathered(lambda rows: images.batch(rows)[0], shape, device)
            return lambda chosen: everything[chosen.to(device, non_blocking=True)]
        return lambda chosen: images.batch(chosen)[0].pin_memory().to(device, non_blocking=True)
    return lambda chosen: images.batch(chosen)[0].to(device)


def normalize(pictures: Tensor, mean: Tensor | None, std: Tensor | None) -> Tensor:
    """uint8 (N, 3, S, S) -> float32 in [0, 1], Z-scored where mean and std (3,) are given."""
    x = pictures.float() / 255
    return (
        x if mean is None or std is None else (x - mean.to(x.device)[:, None, None]) / std.to(x.device)[:, None, None]
    )


def mixed(indices: np.ndarray, seed: int) -> Tensor:
    """Pictures in an order of their own that never changes: as they are stored, they lie class by class."""
    return torch.as_tensor(indices)[order(seed, "mixed", 0, len(indices))]


def draw_pairs(augment: SimCLRAugment, images: Images, chosen: Tensor, draws: torch.Generator) -> Draw:
    """Draws for two views of each chosen picture: 2n rows, rows i and i + n a pair."""
    heights, widths = torch.from_numpy(images.sizes[chosen.numpy()]).repeat(2, 1).unbind(1)
    return augment.draw(2 * len(chosen), heights, widths, generator=draws)


def count_steps(n: int, batch_size: int, drop_last: bool = True) -> int:
    """Batches in n pictures."""
    return n // batch_size if drop_last else math.ceil(n / batch_size)


OWN_BUFFERS: dict[str, Any] = {  # each rank keeps its batch norm's running statistics; torch 2.15 renamed the option
    "forward_sync_buffers"
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel.__init__).parameters
    else "broadcast_buffers": False
}


class Stepper:
    """One optimiser step: forward, NT-Xent over the whole batch, backward, update.

    `release` lets a frozen first layer train from then on. It gets an optimiser group of its own, so that the order
    of the groups, and with it a resumed run, does not depend on when that happened.
    """

    def __init__(self, model: SimCLR, augment: SimCLRAugment, config: Config, compute: Compute) -> None:
        self.model, self.augment, self.config, self.compute = model, augment, config, compute
        self.optimizer = optimizers.build(model.named_parameters(), config.contrastive)
        self.parallel = self._wrap()

    def _wrap(self) -> nn.Module:
        if distributed.world_size() == 1:
            return self.model
        return DistributedDataParallel(self.model, **OWN_BUFFERS)

    def release(self) -> None:
        """Let the head's first layer train."""
        first = self.model.head.first
        assert isinstance(first, nn.Linear)
        first.requires_grad_(True)
        for group in optimizers.groups(first.named_parameters(), self.config.contrastive):
            self.optimizer.add_param_group(group)
        self.parallel = self._wrap()

    def __call__(self, batch: Batch, lr: float, position: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Take one step at learning rate `lr`; returns the detached loss () and h (2n, num_features)."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        chunk = self.config.contrastive.chunk
        step = self._whole if chunk is None or chunk >= len(batch.frames) else self._chunked
        with stochastic_layers(self.compute.device, self.config.seed, *position):
            loss, h = step(batch)
        self.optimizer.step()
        return loss, h

    def _whole(self, batch: Batch) -> tuple[Tensor, Tensor]:
        views = self._views(batch.frames, batch.params)
        with self.compute.autocast():
            h, z = self.parallel(views)
        loss = loss_of(z, self.config.contrastive.temperature)
        loss.backward()
        return loss.detach(), h.detach()

    def _chunked(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """GradCache (Gao et al. 2021): projections chunk by chunk without a graph, the loss and its gradient at them
        over the whole batch, then each chunk again with a graph, fed with its part of that gradient.

        Exact for networks without batch norm; with it, each chunk is normalised by its own statistics.
        """
        n = len(batch.frames)
        chunks = torch.arange(n).split(self.config.contrastive.chunk or n)

        def forward(rows: Tensor, model: nn.Module) -> tuple[Tensor, Tensor]:
            views = self._views(batch.frames[rows], batch.params[torch.cat([rows, rows + n])])
            with self.compute.autocast():
                return model(views)

        with torch.no_grad(), running_statistics_kept(self.model):
            parts = [forward(rows, self.model) for rows in chunks]
        h, z = (_pairs_first(list(tensors)) for tensors in zip(*parts, strict=True))
        z.requires_grad_(True)
        loss = loss_of(z, self.config.contrastive.temperature)
        (gradient,) = torch.autograd.grad(loss, z)
        torch.manual_seed(torch.initial_seed())  # dropout draws the same masks again
        for rows in chunks:
            last = rows is chunks[-1]
            with contextlib.nullcontext() if last else self._without_sync():
                part = forward(rows, self.parallel)[1]
                part.backward(gradient[torch.cat([rows, rows + n])].to(part.dtype))
        return loss.detach(), h

    def _without_sync(self) -> contextlib.AbstractContextManager[object]:
        if isinstance(self.parallel, DistributedDataParallel):
            return self.parallel.no_sync()
        return contextlib.nullcontext()

    def _views(self, frames: Tensor, params: Draw) -> Tensor:
        return self.augment.apply(frames, params).contiguous(memory_format=torch.channels_last)


def loss_of(z: Tensor, temperature: float, group: dist.ProcessGroup | None = None) -> Tensor:
    """NT-Xent; NaN for z (2n, d) that are not finite: then the training has diverged, and nobody's input was bad."""
    if z.device.type == "cpu" and not bool(z.isfinite().all()):
        return z.sum() * math.nan
    return nt_xent(z, temperature, group=group)


def _pairs_first(chunks: list[Tensor]) -> Tensor:
    """Chunks of 2c rows, each first and second views -> all first views, then all second views."""
    first, second = zip(*(chunk.chunk(2) for chunk in chunks), strict=True)
    return torch.cat([*first, *second])


@contextlib.contextmanager
def running_statistics_kept(model: nn.Module) -> Iterator[None]:
    """Batch norm normalises as in training but leaves its running statistics to the second pass."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


@contextlib.contextmanager
def stochastic_layers(device: torch.device, seed: int, *position: int) -> Iterator[None]:
    """Dropout and stochastic depth draw from torch's global generator; in here it is a function of the position too."""
    key = generator(seed, "stochastic-layers", *position, distributed.rank()).initial_seed()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(key)
        yield


def _synchronise_norms(model: SimCLR, device: torch.device) -> None:
    """Several GPUs normalise by the statistics of the whole batch; several CPU processes each by their own part's."""
    if distributed.world_size() == 1:
        return
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    elif distributed.rank() == 0 and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()):
        progress.say(
            f"batch norm: each of {distributed.world_size()} CPU processes uses the statistics of its own part"
        )


class Watch:
    """The pictures that validation and observers look at, with draws that never change."""

    def __init__(
        self, images: Images, splits: Splits, config: Config, augment: SimCLRAugment, compute: Compute
    ) -> None:
        self.images, self.config, self.augment, self.compute = images, config, augment, compute
        self.indices = mixed(splits.val, config.seed)
        self.watched = (self.indices if len(self.indices) >= 2 else mixed(splits.train, config.seed))[:WATCHED]
        self.alone = dist.new_subgroups(group_size=1)[0] if distributed.world_size() > 1 else None

    def validation_loss(self, model: SimCLR) -> float | None:
        """Mean over the batches of the validation split, each rank taking its share of them; None without a split.

        A batch never mixes with other ranks', and all use rank 0's running statistics (the ones that are saved), so
        the loss does not depend on their number, nor on whether the run was resumed.
        """
        distributed.share_from_rank_0(model.buffers())
        contrastive = self.config.contrastive
        assert contrastive.batch_size is not None
        steps = count_steps(len(self.indices), contrastive.batch_size, contrastive.drop_last_validation)
        sums = torch.zeros(2, dtype=torch.float64)
        for step in range(distributed.rank(), steps, distributed.world_size()):
            chosen = self.indices[step * contrastive.batch_size : (step + 1) * contrastive.batch_size]
            if len(chosen) >= 2:
                _, z = self.pass_through(model, chosen, step)
                sums += torch.tensor([loss_of(z, contrastive.temperature, self.alone).item(), 1])
        total, count = distributed.sum_over_ranks(sums).tolist()
        if not math.isfinite(total):
            raise RunError(
                "SimCLR is diverging: its validation loss is not finite; a lower --contrastive.lr or "
                "--precision float32 usually helps"
            )
        return total / count if count else None

    def look(self, model: SimCLR) -> tuple[Tensor, Tensor]:
        """h (2K, F) and z (2K, d) in float32 of two augmented views of the watched pictures."""
        return self.pass_through(model, self.watched, 0, augmented=True)

    @torch.no_grad()
    def pass_through(
        self, model: SimCLR, chosen: Tensor, step: int, augmented: bool | None = None
    ) -> tuple[Tensor, Tensor]:
        """Two views of the chosen pictures through the model in evaluation mode."""
        if augmented is None:
            augmented = self.config.contrastive.validation_views == "augmented"
        if augmented:
            draws = draw_pairs(self.augment, self.images, chosen, generator(self.config.seed, "validation", step))
            frames = self.images.batch(chosen)[0].to(self.compute.device)
            views = self.augment.apply(frames, draws)
        else:
            pictures = self.images.squashed(chosen, self.augment.size).to(self.compute.device)
            views = normalize(pictures, self.augment.mean, self.augment.std).repeat(2, 1, 1, 1)
        was_training = model.training
        model.eval()
        part = self.config.contrastive.chunk or len(views)
        with self.compute.autocast():
            parts = [model(v.contiguous(memory_format=torch.channels_last)) for v in views.split(2 * part)]
        model.train(was_training)
        h, z = (torch.cat(tensors).float() for tensors in zip(*parts, strict=True))
        return h, z


WATCHED = 512
"""Pictures whose representations observers see after each epoch."""


def train(
    backbone: nn.Module,
    head: nn.Module,
    images: Images,
    splits: Splits,
    config: Config,
    *,
    compute: Compute,
    checkpoints: Checkpoints,
    mean: Tensor | None = None,
    std: Tensor | None = None,
    observers: Sequence[Observer] = (),
    log: Callable[..., None] = lambda **_: None,
    quiet: bool = False,
) -> Trained:
    """Train backbone and head in place on the train split (paper 3.5).

    Args:
        backbone: (N, 3, S, S) -> (N, num_features).
        head: (N, num_features) -> (N, output_dim); parameters without gradient stay bit-identical.
        config: resolved, that is with `data.size`, `contrastive.batch_size` and `contrastive.lr` filled in.
        mean, std: (3,) in [0, 1] units, or None for no Z-score.
        observers: watch each step and epoch.
        log: receives one record an epoch, by keyword.

    Raises:
        RunError: the loss is not finite (naming epoch, step and learning rate).
        Interrupted: a signal came; the state is saved.
    """
    settings = config.contrastive
    assert settings.batch_size is not None
    assert isinstance(config.data.size, int)
    check_batch(settings.batch_size)
    augment = augmenter(config.augment, config.data.size, mean, std).to(compute.device)
    model = SimCLR(backbone, head, settings.passes).to(compute.device).to(memory_format=torch.channels_last).train()
    _synchronise_norms(model, compute.device)
    stepper = Stepper(model, augment, config, compute)
    frames = frames_on(compute.device, images)
    watch = Watch(images, splits, config, augment, compute)
    pictures = torch.as_tensor(splits.train)
    steps = count_steps(len(pictures), settings.batch_size)
    release_at = None if config.head.unfreeze_at is None else math.ceil(config.head.unfreeze_at * settings.epochs)
    now = Position(loss_sum=torch.zeros((), dtype=torch.float64)).to(compute.device)
    best: dict[str, Any] = {}

    def state() -> State:
        now.check_finite()
        return {
            "model": model.state_dict(),
            "optimizer": stepper.optimizer.state_dict(),
            "observers": [observer.state_dict() for observer in observers],
            "now": asdict(now),
            "best": best,
        }

    saved = checkpoints.load(STAGE)
    if saved:
        with checkpoints.restoring():
            now = Position(**saved["now"]).to(compute.device)
            best = saved["best"]
            model.load_state_dict(saved["model"])
            if now.released:
                stepper.release()
            stepper.optimizer.load_state_dict(saved["optimizer"])
            if observers:  # rank 0's; the other processes have none to restore
                for observer, its_state in zip(observers, saved["observers"], strict=True):
                    observer.load_state_dict(its_state)

    with progress.stage("SimCLR", settings.epochs * steps, now.epoch * steps + now.step, quiet) as bar:
        while now.epoch < settings.epochs:
            if now.epoch == release_at and not now.released:
                stepper.release()
                now.released = True
            permuted = pictures[order(config.seed, "order", now.epoch, len(pictures))]
            draws = partial(generator, config.seed, "augment", now.epoch)
            feed = Prefetch(batches(images, permuted, augment, settings.batch_size, frames, draws, now.step))
            clock = Clock(settings.batch_size)
            for batch in feed:
                lr = optimizers.learning_rate(settings, now.epoch * steps + now.step, steps)
                loss, h = stepper(batch, lr, (now.epoch, now.step))
                now.add(loss, lr)
                for observer in observers:
                    observer.step(h, batch.indices)
                bar.advance(1, **clock.tick(feed.waited))
                if now.step < steps:
                    checkpoints.after_step(STAGE, state)

            train_loss = now.end_epoch(steps)
            val_loss = watch.validation_loss(model)
            h, z = watch.look(model)
            event = EpochEnd(
                epoch=now.epoch,
                epochs=settings.epochs,
                train_loss=train_loss,
                val_loss=val_loss,
                lr=lr,
                h=h,
                z=z,
                indices=watch.watched,
            )
            figures = {name: value for observer in observers for name, value in observer.epoch_end(event).items()}
            log(
                stage=STAGE,
                epoch=now.epoch,
                step=now.epoch * steps,
                loss=train_loss,
                val_loss=val_loss,
                lr=lr,
                **clock.figures,
                **figures,
            )
            bar.advance(0, loss=train_loss, **{k: v for k, v in figures.items() if k == "accuracy"})
            if val_loss is None or not best or val_loss < best["val_loss"]:
                best = {"epoch": now.epoch, "train_loss": train_loss, "val_loss": val_loss}
                if settings.keep == "best":
                    best["model"] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            now.last = (train_loss, val_loss)
            checkpoints.after_epoch(STAGE, now.epoch, state)
            checkpoints.after_step(STAGE, state)
    checkpoints.save(STAGE, state())
    train_loss, val_loss = now.last
    if settings.keep == "best" and best["val_loss"] is not None:
        model.load_state_dict(best["model"])
        train_loss, val_loss = best["train_loss"], best["val_loss"]
    return Trained(train_loss=train_loss, val_loss=val_loss, epochs=now.epoch, best_epoch=best["epoch"])


@dataclass(kw_only=True)
class Position:
    """Where a training stands.

    Attributes:
        epoch, step: finished epochs, and finished steps of the next.
        loss_sum: sum of this epoch's losses, on the device, so that no step waits for it.
        lr: of the last step.
        released: whether a frozen first layer has been released.
        last: train and validation loss of the last finished epoch.
    """

    loss_sum: Tensor
    epoch: int = 0
    step: int = 0
    lr: float = 0.0
    released: bool = False
    last: tuple[float, float | None] = (math.nan, None)

    def to(self, device: torch.device) -> "Position":
        """The same with its sum on `device`, in double precision where the device has it."""
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.loss_sum = self.loss_sum.to(device, dtype)
        return self

    def add(self, loss: Tensor, lr: float) -> None:
        """Count one step. On a CPU its loss is looked at now; elsewhere a save or the epoch's end does it."""
        self.loss_sum += loss
        self.step += 1
        self.lr = lr
        if loss.device.type == "cpu":
            self.check_finite()

    def check_finite(self) -> None:
        """Raises RunError when a loss of this epoch was NaN or infinite."""
        if not bool(self.loss_sum.isfinite()):
            raise RunError(
                f"SimCLR is diverging: its loss is not finite (epoch {self.epoch + 1}, step {self.step}, learning rate "
                f"{self.lr:.3g}); the last good checkpoint is kept. A lower --contrastive.lr or --precision float32 "
                "usually helps"
            )

    def end_epoch(self, steps: int) -> float:
        """The epoch's mean loss over all ranks; moves on to the next epoch."""
        self.check_finite()
        mean = distributed.mean_over_ranks(self.loss_sum / steps).item()
        self.loss_sum = torch.zeros_like(self.loss_sum)
        self.epoch, self.step = self.epoch + 1, 0
        return mean


class Clock:
    """Pairs per second, and the share of the time spent waiting for data, since it was made."""

    def __init__(self, pairs: int) -> None:
        self.pairs, self.steps, self.started = pairs, 0, time.perf_counter()
        self.figures: dict[str, float] = {}

    def tick(self, waited: float) -> dict[str, float]:
        """Count one step of `pairs` pairs; `waited` is the waiting so far, in seconds."""
        self.steps += 1
        seconds = time.perf_counter() - self.started
        self.figures = {"pairs_per_s": self.steps * self.pairs / seconds, "data_wait": waited / seconds}
        return self.figures
