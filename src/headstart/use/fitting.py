"""One training of one classifier, and many in a row that an interruption does not lose.

Comes in: a run, labelled pictures, and `Fit`s: from which weights, on which pictures, how fast. Goes out: the best
weights of each by its validation pictures. Every draw follows from the seed and the step alone, so that all starts see
the same pictures in the same order, and a training that was stopped goes on to the same weights.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from headstart.augment import SimCLRAugment, ViewPlan
from headstart.backbones.blocks import block_of
from headstart.data import Images
from headstart.data.frames import Frames
from headstart.engine.checkpoint import Checkpoints, State
from headstart.engine.device import Compute, fetched
from headstart.engine.prefetch import Prefetch
from headstart.engine.randomness import generator, order
from headstart.records.errors import InputError
from headstart.training.loop import Epoch, Loop, Step, Training
from headstart.training.step import stochastic_layers
from headstart.use.classifier import Classifier, outputs
from headstart.use.load import Run
from headstart.use.settings import FinetuneSettings

FEWEST_STEPS = 4
"""Optimiser steps between two looks at the validation pictures, which with few labels cost more than training."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """One training.

    Attributes:
        name: unique; what the progress bar and metrics.jsonl call it.
        start: `adapted`, `given` or `scratch`.
        train, val: indices of pictures. Without any to validate on the last weights are kept.
        lr, layer_decay: of the classifier layer, and from block to block.
        epochs: the length of the learning rate's schedule; stop_after: of the training, where that is shorter.
    """

    name: str
    start: str
    train: np.ndarray
    val: np.ndarray
    lr: float
    layer_decay: float
    epochs: int
    stop_after: int | None = None


@dataclass
class Fitter:
    """What all trainings share, and what those that are done left behind."""

    run: Run
    images: Images
    settings: FinetuneSettings
    compute: Compute
    checkpoints: Checkpoints
    identity: str
    quiet: bool = False
    done: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.augment = SimCLRAugment(
            size=self.run.size,
            crop_scale=self.settings.crop_scale,
            flip=self.run.config.augment.flip,
            jitter_p=0,
            grey_p=0,
            blur_p=0,
            mean=self.run.mean,
            std=self.run.std,
        ).to(self.compute.device)
        self.frames = Frames(self.images, self.compute)
        self.state: State | None = None
        saved = self.checkpoints.load("finetune")
        if saved is not None:
            if saved["identity"] != self.identity:
                raise InputError(
                    f"{self.checkpoints.path.parent} was begun with other settings or pictures; repeat those, or "
                    "replace it with --overwrite"
                )
            self.done, self.state = saved["done"], saved["state"]

    def fit(self, fit: Fit, keep: Callable[[Classifier, dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
        """What `keep` makes of the trained network and of {score, epoch, tensors}; an earlier call's where it is
        done."""
        if fit.name not in self.done:
            training = Fitting(self, fit)
            log = partial(self.checkpoints.metrics.log, start=fit.name)
            Loop(training, self.checkpoints, log, self.quiet, around=self._with_what_is_done).run(self.state)
            training.model.load_state_dict(training.best["tensors"])
            self.done[fit.name] = keep(training.model, training.best)
            self.state = None
        return self.done[fit.name]

    def _with_what_is_done(self, state: State) -> State:
        return {"identity": self.identity, "done": self.done, "state": state}

    def probabilities(self, model: Classifier, indices: np.ndarray) -> Tensor:
        """(len(indices), classes) float32."""
        run = self.run
        return torch.cat(
            [p for p, _ in outputs(model, self.images, indices, run.size, (run.mean, run.std), self.compute)]
        )

    def backbone(self, start: str) -> nn.Module:
        """The network with the weights of a start."""
        if start == "adapted":
            return copy.deepcopy(self.run.backbone)
        return self.run.untrained_backbone() if start == "given" else self.run.random_backbone()

    def steps_per_epoch(self, n: int) -> int:
        """A pass over n pictures, whose last, smaller batch is left to the next pass's order (of one picture there are
        no batch statistics); or FEWEST_STEPS."""
        return max(FEWEST_STEPS, n // min(self.settings.batch_size, n))


class LabelledBatch(NamedTuple):
    """Frames (n, 3, H, W) uint8 of one step, what is due to their views, and labels (n,) int64, all on the device."""

    frames: Tensor
    plan: ViewPlan
    labels: Tensor


class Fitting(Training):
    """What one classifier's training does in a step, and what it keeps.

    Attributes:
        model: the network in training.
        best: {score, epoch, tensors} of its best epoch: accuracy and negative loss on the validation pictures, of
            which the larger pair is the better one; the last epoch without any, its score empty.
    """

    stage, unit = "finetune", "pictures"

    def __init__(self, fitter: Fitter, fit: Fit) -> None:
        self.fitter, self.given, self.title = fitter, fit, fit.name
        self.settings, self.device = fitter.settings, fitter.compute.device
        self.steps = fitter.steps_per_epoch(len(fit.train))
        self.epochs, self.schedule_steps = fit.stop_after or fit.epochs, fit.epochs * self.steps
        self.batch = min(self.settings.batch_size, len(fit.train))
        self.model = Classifier(fitter.backbone(fit.start), len(fitter.images.classes))
        self.model.to(memory_format=torch.channels_last).to(self.device)
        self.optimizer = self._optimizer()
        self.best: dict[str, Any] = {"score": [-1.0, 0.0], "epoch": 0, "tensors": {}}
        self.stale = 0
        self.score: list[float] = []
        self.if_diverged = f"try a smaller --lr than {fit.lr:g}"
        self.if_out_of_memory = f"a smaller --batch-size (now {self.batch}) needs less"

    def _optimizer(self) -> torch.optim.Optimizer:
        grouped = groups(self.model, self.settings.weight_decay, self.given.layer_decay)
        fused = self.device.type == "cuda" or None
        if self.settings.optimizer == "sgd":
            return torch.optim.SGD(grouped, lr=0.0, momentum=0.9, fused=fused)
        return torch.optim.AdamW(grouped, lr=0.0, fused=fused)

    def batches(self, epoch: int, first: int) -> Iterable[LabelledBatch]:
        """Pictures, prepared ahead in a thread; what a step sees follows from the seed and its number alone."""
        return Prefetch(self._batches(epoch, first))

    def _batches(self, epoch: int, first: int) -> Iterator[LabelledBatch]:
        fitter, train, seed = self.fitter, self.given.train, self.settings.seed
        for step in range(epoch * self.steps + first, (epoch + 1) * self.steps):
            number, position = divmod(step, len(train) // self.batch)
            shuffled = train[order(seed, "finetune/order", number, len(train)).numpy()]
            chosen = shuffled[position * self.batch : (position + 1) * self.batch]
            height, width = torch.from_numpy(fitter.images.sizes[chosen]).unbind(1)
            draws = fitter.augment.draw(self.batch, height, width, generator=generator(seed, "finetune/draws", step))
            plan, labels = fitter.augment.plan(draws), torch.from_numpy(fitter.images.labels[chosen])
            beside = (labels, plan.rows, plan.numbers)
            frames, (labels, rows, numbers) = fitter.frames.of(torch.from_numpy(chosen), beside)
            yield LabelledBatch(frames, replace(plan, rows=rows, numbers=numbers), labels)

    def step(self, batch: LabelledBatch, epoch: int, step: int) -> Step:
        """One step on the cross entropy."""
        pictures = self.fitter.augment.apply(batch.frames, batch.plan)
        number = epoch * self.steps + step
        rate = self.given.lr * schedule(number, self.schedule_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate"]
        self.model.train()
        with stochastic_layers(self.device, self.settings.seed, number), self.fitter.compute.autocast():
            scores = self.model(pictures.contiguous(memory_format=torch.channels_last))
            loss = cross_entropy(scores.float(), batch.labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return Step(loss.detach(), rate, self.batch)

    def validate(self) -> float | None:
        """Cross entropy on the validation pictures, if there are any."""
        self.score, val = [], self.given.val
        if not len(val):
            return None
        labels = torch.from_numpy(self.fitter.images.labels[val])
        p = self.fitter.probabilities(self.model, val)
        loss = -p[torch.arange(len(labels)), labels].clamp(min=1e-12).log().mean()
        self.score = [float((p.argmax(1) == labels).float().mean()), -float(loss)]
        return float(loss)

    def end_epoch(self, epoch: Epoch) -> dict[str, Any]:
        """Keep the best weights; stop after `patience` epochs without better ones."""
        better = not self.score or self.score > self.best["score"]
        self.stale = 0 if better else self.stale + 1
        if better:
            self.best = {"score": self.score, "epoch": epoch.number, "tensors": _copied(self.model)}
        return {"val_accuracy": self.score[0]} if self.score else {}

    @property
    def finished(self) -> bool:
        """Whether it has stopped getting better."""
        return self.stale >= self.settings.patience

    def state(self) -> State:
        """All that the rest of the training depends on."""
        state: State = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        return state | {"best": self.best, "stale": self.stale}

    def restore(self, state: State) -> None:
        """Go on from a saved state."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best, self.stale = state["best"], state["stale"]


def groups(model: Classifier, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    """Optimiser groups: each block's `rate` is `layer_decay` times that of the block after it; the classifier's is 1.

    Blocks count in the order in which the network registers them, which is that of its forward pass. Norms and biases
    are not decayed. Parameters that are treated alike share a group, which a GPU updates in one kernel.
    """
    named = list(model.named_parameters())
    blocks = list(dict.fromkeys(block_of(name) for name, _ in named))
    alike: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, p in named:
        rate = layer_decay ** (len(blocks) - 1 - blocks.index(block_of(name)))
        alike.setdefault((rate, weight_decay if p.ndim > 1 else 0.0), []).append(p)
    return [{"params": params, "rate": rate, "weight_decay": decay} for (rate, decay), params in alike.items()]


def schedule(step: int, total: int) -> float:
    """Warm-up over a twentieth of the steps, then a half cosine to 0."""
    warm = max(1, total // 20)
    return (step + 1) / warm if step < warm else (1 + math.cos(math.pi * (step - warm) / max(1, total - warm))) / 2


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.contiguous() for name, tensor in fetched(model.state_dict()).items()}
