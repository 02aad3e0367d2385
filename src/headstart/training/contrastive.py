"""SimCLR's end-to-end training of backbone and projection head (paper 3.1, 3.5).

Comes in: a backbone f, a head g, pictures, the split. Goes out: both trained in place, and what the training saw.
Two views of every picture are drawn on the device for the whole batch (views.py), passed through f and g, and pulled
together by NT-Xent (step.py). Every draw follows from (seed, stream, epoch, step), so a resumed run continues (on a CPU
to the byte) and every head sees the same pictures in the same order.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from headstart import objectives
from headstart.augment import Draw, SimCLRAugment
from headstart.backbones.blocks import freeze
from headstart.data.images import Images
from headstart.data.splits import Splits
from headstart.engine import distributed, memory
from headstart.engine.checkpoint import Checkpoints, State
from headstart.engine.device import Compute, sent, tuned, zscored
from headstart.engine.memory import pictures_at_once
from headstart.engine.observer import EpochEnd, Observer
from headstart.engine.prefetch import Prefetch
from headstart.engine.randomness import generator, order
from headstart.evaluate.views import augmenter, draw_pairs
from headstart.heads.step_zero import gradient_reaching
from headstart.records.config import Config
from headstart.training import optimizers
from headstart.training.feed import Batch, Feed, check_batch, count_steps, mixed, of_pairs, parts_of
from headstart.training.head_alone import STAGE as HEAD_STAGE
from headstart.training.head_alone import HeadAlone
from headstart.training.loop import Epoch, Loop, Step, Training
from headstart.training.step import SimCLR, Stepper, loss_of, pairs_first, synchronise_norms

STAGE = "contrastive"
WATCHED = 512
"""Pictures whose representations observers see after each epoch."""

KEPT = 16
"""A GPU keeps the views that are looked at after each epoch, up to this part of its free memory: beside the pictures
(engine/memory.py) and what a step was planned to fill."""


@dataclass(frozen=True, kw_only=True)
class TrainedSimCLR:
    """What the training saw.

    Attributes:
        train_loss, val_loss: of the epoch whose weights were kept.
        epochs: epochs trained.
        best_epoch: the epoch of the lowest validation loss on the pictures that are there now, from 1.
    """

    train_loss: float
    val_loss: float | None
    epochs: int
    best_epoch: int


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
) -> TrainedSimCLR:
    """Train backbone and head in place on the train split (paper 3.5).

    Args:
        backbone: (N, 3, S, S) -> (N, num_features).
        head: (N, num_features) -> (N, output_dim); parameters without gradient stay bit-identical.
        config: resolved, that is with `data.size`, `contrastive.batch_size` and `contrastive.lr` filled in.
        mean, std: (3,) in [0, 1] units, or None for no Z-score.
        observers: watch each step and epoch.
        log: receives one record an epoch, by keyword.

    Raises:
        RunError: the loss is not finite (naming epoch, step and learning rate), or memory ran out.
        Interrupted: a signal came; the state is saved.
    """
    assert isinstance(config.data.size, int)
    augment = augmenter(config.augment, config.data.size, mean, std).to(compute.device)
    settings = config.contrastive
    model = SimCLR(backbone, head, settings.passes, settings.norms)
    training = Contrastive(model, augment, images, splits, config, compute)
    training.observers = observers
    saved = checkpoints.load(STAGE)
    if saved is None and settings.head_epochs:
        _train_head_alone(training, images, augment, compute, checkpoints, log, quiet)
    memory.give_back()  # what features were taken with; the steps need other sizes
    loop = Loop(training, checkpoints, log, quiet)
    loop.run(saved)
    checkpoints.save(STAGE, loop.state())  # whatever the interval: `--extend` goes on from here
    kept = training.keep()
    return TrainedSimCLR(
        train_loss=kept["train_loss"],
        val_loss=kept["val_loss"],
        epochs=loop.epoch,
        best_epoch=training.best["epoch"],
    )


def _train_head_alone(
    training: "Contrastive",
    images: Images,
    augment: SimCLRAugment,
    compute: Compute,
    checkpoints: Checkpoints,
    log: Callable[..., None],
    quiet: bool,
) -> None:
    """Train g before f moves (head_alone.py); the features that it sees are gone when this returns."""
    model, group = training.model, training.watch.alone
    alone = HeadAlone.of(model, images, training.pictures, training.config, augment, compute, group, quiet)
    Loop(alone, checkpoints, log, quiet).run(checkpoints.load(HEAD_STAGE))
    distributed.share_from_rank_0(model.head.state_dict().values())  # kernels of other machines have rounded otherwise
    model.train()


class Contrastive(Training):
    """What SimCLR does in a step and after an epoch (paper 3.5).

    Attributes:
        model: g after f, in training mode.
        stepper: takes the steps; `optimizers.groups` says what it moves, and how fast.
        observers: watch each step and epoch.
        best: the epoch of the lowest validation loss: `epoch`, `train_loss`, `val_loss`, the `pictures` it was trained
            and judged on, and where its weights are to be kept `model`.
        last: the same of the last finished epoch.
    """

    stage, title, unit = STAGE, "SimCLR", "pairs"
    observers: Sequence[Observer] = ()

    def __init__(
        self, model: SimCLR, augment: SimCLRAugment, images: Images, splits: Splits, config: Config, compute: Compute
    ) -> None:
        settings = config.contrastive
        assert settings.batch_size is not None
        check_batch(settings.batch_size)
        freeze(model.backbone, settings.frozen_share)
        self.model = model.to(compute.device).to(memory_format=torch.channels_last).train()
        synchronise_norms(self.model, compute.device)
        self.stepper = Stepper(self.model, augment, config, compute)
        self.watch = Watch(images, splits, config, augment, compute)
        self.feed = Feed(images, augment, compute, settings.chunk)
        self.config, self.device = config, compute.device
        self.pictures = torch.as_tensor(splits.train)
        self.named = images.name_of(splits.train, splits.val)
        self.batch_size = settings.batch_size
        self.epochs, self.steps = settings.epochs, count_steps(len(self.pictures), self.batch_size)
        self.released = False
        self.best: dict[str, Any] = {}
        self.last: dict[str, Any] = {}
        self.if_diverged = "A lower --contrastive.lr or --precision float32 usually helps"
        self.if_out_of_memory = (
            "a smaller --contrastive.chunk (pairs on the device at once, now "
            f"{settings.chunk or self.batch_size}) keeps the batch and its loss"
        )

    def begin_epoch(self, epoch: int) -> None:
        """Release a frozen first layer when its time has come."""
        share = self.config.head.unfreeze_at
        if share is not None and epoch == math.ceil(share * self.epochs) and not self.released:
            self._release()

    def _release(self) -> None:
        self.stepper.release()
        self.released = True

    def batches(self, epoch: int, first: int) -> Iterable[Batch]:
        """The epoch's pictures in an order of its own, prepared ahead in a thread; what does not fill a batch is
        left to another epoch's order."""
        seed = self.config.seed
        permuted = self.pictures[order(seed, "order", epoch, len(self.pictures))]
        draws = partial(generator, seed, "augment", epoch)
        return Prefetch(self.feed.batches(permuted, self.batch_size, draws, first))

    def step(self, batch: Batch, epoch: int, step: int) -> Step:
        """One step along the learning rate's schedule."""
        lr = optimizers.learning_rate(self.config.contrastive, epoch * self.steps + step, self.steps)
        loss, h = self.stepper(batch, lr, (epoch, step))
        for observer in self.observers:
            observer.step(h, batch.indices)
        return Step(loss, lr, self.batch_size)

    def validate(self) -> float | None:
        """The objective on the validation split."""
        return self.watch.validation_loss(self.model)

    def end_epoch(self, epoch: Epoch) -> dict[str, Any]:
        """What the observers see in the epoch; keeps the weights of the best one where they are asked for."""
        h, z = self.watch.look(self.model)
        draws = generator(self.config.seed, "objective", epoch.number)
        terms = objectives.terms(z, self.config, self.watch.alone, draws)
        event = EpochEnd(
            epoch=epoch.number,
            epochs=self.epochs,
            train_loss=epoch.loss,
            val_loss=epoch.val_loss,
            lr=epoch.lr,
            h=h,
            z=z,
            indices=self.watch.watched,
            terms=terms,
        )
        figures: dict[str, Any] = {**terms, "h_gradient_norm": self.watch.gradient(self.model, h)}
        for observer in self.observers:
            figures |= observer.epoch_end(event)
        self.last = {"epoch": epoch.number, "train_loss": epoch.loss, "val_loss": epoch.val_loss}
        of_others = self.best.get("pictures", self.named) != self.named  # their loss says nothing of these
        lowest = self.best["val_loss"] if self.best and not of_others else None
        if epoch.val_loss is None or lowest is None or epoch.val_loss < lowest:
            self.best = self.last | {"pictures": self.named}
            if self.config.contrastive.keep == "best":
                self.best["model"] = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        return figures

    def keep(self) -> dict[str, Any]:
        """End with the weights of the epoch that `contrastive.keep` asks for; returns what is known of it."""
        if self.config.contrastive.keep == "best" and self.best["val_loss"] is not None:
            self.model.load_state_dict(self.best["model"])
            return self.best
        return self.last

    def state(self) -> State:
        """All that the rest of the training depends on."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.stepper.optimizer.state_dict(),
            "observers": {name: observer.state_dict() for name, observer in self._named_observers().items()},
            "released": self.released,
            "best": self.best,
            "last": self.last,
        }

    def restore(self, state: State) -> None:
        """Go on from a saved state."""
        self.best, self.last = state["best"], state["last"]
        self.model.load_state_dict(state["model"])
        if state["released"]:
            self._release()
        self.stepper.optimizer.load_state_dict(state["optimizer"])
        named, seen = self._named_observers(), state["observers"]
        if isinstance(seen, list):  # as checkpoints had them before they had names
            seen = dict(zip(named, seen, strict=False))
        for name in named.keys() & seen.keys():  # a set may have got labels since, and processes but rank 0 have none
            named[name].load_state_dict(seen[name])

    def _named_observers(self) -> dict[str, Observer]:
        return {type(observer).__name__: observer for observer in self.observers}


class Watch:
    """The pictures that validation and observers look at, with draws that never change."""

    def __init__(
        self, images: Images, splits: Splits, config: Config, augment: SimCLRAugment, compute: Compute
    ) -> None:
        self.images, self.config, self.augment, self.compute = images, config, augment, compute
        self.indices = mixed(splits.val, config.seed)
        self.watched = (self.indices if len(self.indices) >= 2 else mixed(splits.train, config.seed))[:WATCHED]
        self.alone = dist.new_subgroups(group_size=1)[0] if distributed.world_size() > 1 else None
        self.kept: dict[tuple[int, int, bool], list[Tensor]] = {}
        self.most = 0
        self.room = 0 if compute.device.type != "cuda" else (memory.free(compute.device, compute.sharers) or 0) // KEPT

    def validation_loss(self, model: SimCLR) -> float | None:
        """Mean over the batches of the validation split, each rank taking its share of them; None without a split.

        A batch never mixes with other ranks', and all use rank 0's running statistics (the ones that are saved), so
        the loss does not depend on their number, nor on whether the run was resumed.
        """
        distributed.share_from_rank_0(model.buffers())
        contrastive = self.config.contrastive
        assert contrastive.batch_size is not None
        steps = count_steps(len(self.indices), contrastive.batch_size, contrastive.drop_last_validation)
        losses = [torch.zeros(0, device=self.compute.device)]  # they stay on the device until all are there
        for step in range(distributed.rank(), steps, distributed.world_size()):
            chosen = self.indices[step * contrastive.batch_size : (step + 1) * contrastive.batch_size]
            if len(chosen) >= 2:
                _, z = self.pass_through(model, chosen, step)
                losses.append(loss_of(z, self.config, (0, step), self.alone).view(1))
        sums = torch.zeros(2, dtype=torch.float64)
        for loss in torch.cat(losses).cpu().tolist():
            sums += torch.tensor([loss, 1])
        total, count = distributed.sum_over_ranks(sums).tolist()
        return total / count if count else None

    def look(self, model: SimCLR) -> tuple[Tensor, Tensor]:
        """h (2K, F) and z (2K, d) in float32 of two augmented views of the watched pictures."""
        return self.pass_through(model, self.watched, 0, augmented=True)

    def gradient(self, model: SimCLR, h: Tensor) -> float | None:
        """The norm of the objective's gradient that reaches h (2K, F), as `geometry.head` has it of step 0, but for
        batch norm, which uses its running statistics; None where it is not finite."""
        training = model.head.training
        _, found = gradient_reaching(model.head.eval(), h, lambda z: loss_of(z, self.config, (0, 0), self.alone))
        model.head.train(training)
        norm = float(found.cpu())
        return norm if math.isfinite(norm) else None

    @torch.no_grad()
    def pass_through(
        self, model: SimCLR, chosen: Tensor, step: int, augmented: bool | None = None
    ) -> tuple[Tensor, Tensor]:
        """Two views of the chosen pictures through the model in evaluation mode, as many at once as fit."""
        if augmented is None:
            augmented = self.config.contrastive.validation_views == "augmented"
        was_training = model.training
        model.eval()
        parts = []
        for views in self._pieces(chosen, step, augmented):
            self.most = max(self.most, len(views))
            with self.compute.autocast(), tuned(len(views) == self.most):
                parts.append(model(views))
        model.train(was_training)
        h, z = (pairs_first(list(tensors)).float() for tensors in zip(*parts, strict=True))
        return h, z

    def _pieces(self, chosen: Tensor, step: int, augmented: bool) -> Iterable[Tensor]:
        """The views in pieces, channels_last; the same after every epoch, so a GPU keeps those it has room for."""
        key = step, len(chosen), augmented
        if key in self.kept:
            return self.kept[key]
        pieces = self._made(chosen, step, augmented)
        size = 2 * len(chosen) * 3 * self.augment.size**2 * 4
        if size > self.room:
            return pieces
        self.room -= size
        self.kept[key] = list(pieces)
        return self.kept[key]

    def _made(self, chosen: Tensor, step: int, augmented: bool) -> Iterator[Tensor]:
        draws = None
        if augmented:
            draws = draw_pairs(self.augment, self.images, chosen, generator(self.config.seed, "validation", step))
        n, pairs = len(chosen), pictures_at_once(self.augment.size, self.compute.device) // 2
        for rows in parts_of(n, min(pairs, self.config.contrastive.chunk or pairs)):
            views = self._views(chosen[rows], None if draws is None else draws[of_pairs(rows, n)])
            yield views.contiguous(memory_format=torch.channels_last)

    def _views(self, chosen: Tensor, draws: Draw | None) -> Tensor:
        """Two views (2n, 3, S, S) of each chosen picture; without draws the un-augmented picture twice."""
        if draws is not None:
            return self.augment.apply(sent(self.images.batch(chosen)[0], self.compute.device), draws)
        pictures = sent(self.images.squashed(chosen, self.augment.size), self.compute.device)
        return zscored(pictures, self.augment.mean, self.augment.std).repeat(2, 1, 1, 1)
