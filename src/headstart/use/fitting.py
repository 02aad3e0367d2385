"""One training of one classifier, and many in a row that an interruption does not lose.

Comes in: a run, labelled pictures, and `Fit`s: from which weights, on which pictures, how fast. Goes out: the best
weights of each by its validation pictures. Every draw follows from the seed and the step alone, so that all starts see
the same pictures in the same order, and a training that was stopped goes on to the same weights.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from headstart.augment import SimCLRAugment
from headstart.data import Images
from headstart.engine import progress
from headstart.engine.checkpoint import Checkpoints, State
from headstart.engine.device import Compute
from headstart.engine.randomness import generator, order
from headstart.records.errors import InputError, RunError
from headstart.training.step import stochastic_layers
from headstart.use.classifier import Classifier, probabilities
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
            model, best = self._train(fit)
            model.load_state_dict(best["tensors"])
            self.done[fit.name] = keep(model, best)
            self.state = None
        return self.done[fit.name]

    def probabilities(self, model: Classifier, indices: np.ndarray) -> Tensor:
        """(len(indices), classes) float32."""
        run = self.run
        return torch.cat(list(probabilities(model, self.images, indices, run.size, (run.mean, run.std), self.compute)))

    def _train(self, fit: Fit) -> tuple[Classifier, dict[str, Any]]:
        model = Classifier(self._backbone(fit.start), len(self.images.classes))
        model.to(memory_format=torch.channels_last).to(self.compute.device)
        optimizer = self._optimizer(model, fit.layer_decay)
        best: dict[str, Any] = {"score": [-1.0, 0.0], "epoch": 0, "tensors": {}}
        step, stale = 0, 0
        if self.state is not None:
            model.load_state_dict(self.state["model"])
            optimizer.load_state_dict(self.state["optimizer"])
            best, step, stale = self.state["best"], self.state["step"], self.state["stale"]
        per_epoch = self.steps_per_epoch(len(fit.train))
        total = (fit.stop_after or fit.epochs) * per_epoch

        def current() -> State:
            state: State = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            state |= {"best": best, "step": step, "stale": stale}
            return {"identity": self.identity, "done": self.done, "state": state}

        with progress.stage(fit.name, total, step, quiet=self.quiet) as bar:
            while step < total and stale < self.settings.patience:
                loss = self._step(model, optimizer, fit, step)
                step += 1
                if step % per_epoch == 0:
                    score, epoch = self._score(model, fit), step // per_epoch
                    better = score is None or score > best["score"]
                    stale = 0 if better else stale + 1
                    if better:
                        best = {"score": score or [], "epoch": epoch, "tensors": _copied(model)}
                    self._log(fit, epoch, loss, score)
                    bar.advance(0, **({} if score is None else {"accuracy": score[0]}))
                bar.advance(1, loss=loss)
                self.checkpoints.after_step("finetune", current)
        return model, best

    def _log(self, fit: Fit, epoch: int, loss: float, score: list[float] | None) -> None:
        found = {} if score is None else {"val_accuracy": score[0], "val_loss": -score[1]}
        self.checkpoints.metrics.log(stage="finetune", start=fit.name, epoch=epoch, loss=loss, **found)

    def _backbone(self, start: str) -> nn.Module:
        if start == "adapted":
            return copy.deepcopy(self.run.backbone)
        return self.run.untrained_backbone() if start == "given" else self.run.random_backbone()

    def _batch(self, n: int) -> int:
        return min(self.settings.batch_size, n)

    def steps_per_epoch(self, n: int) -> int:
        """A pass over n pictures, whose last, smaller batch is left to the next pass's order (of one picture there are
        no batch statistics); or FEWEST_STEPS."""
        return max(FEWEST_STEPS, n // self._batch(n))

    def _optimizer(self, model: Classifier, layer_decay: float) -> torch.optim.Optimizer:
        grouped = groups(model, self.settings.weight_decay, layer_decay)
        if self.settings.optimizer == "sgd":
            return torch.optim.SGD(grouped, lr=0.0, momentum=0.9)
        return torch.optim.AdamW(grouped, lr=0.0)

    def _step(self, model: Classifier, optimizer: torch.optim.Optimizer, fit: Fit, step: int) -> float:
        """One optimiser step; what it sees follows from the seed and `step` alone."""
        n, seed = self._batch(len(fit.train)), self.settings.seed
        number, position = divmod(step, len(fit.train) // n)
        shuffled = fit.train[order(seed, "finetune/order", number, len(fit.train)).numpy()]
        chosen = shuffled[position * n : (position + 1) * n]
        frames, valid = self.images.batch(chosen)
        height, width = valid.unbind(1)
        draws = self.augment.draw(n, height, width, generator=generator(seed, "finetune/draws", step))
        pictures = self.augment.apply(frames.to(self.compute.device), draws)
        targets = torch.from_numpy(self.images.labels[chosen]).to(self.compute.device)
        rate = fit.lr * schedule(step, fit.epochs * self.steps_per_epoch(len(fit.train)))
        for group in optimizer.param_groups:
            group["lr"] = rate * group["rate"]
        model.train()
        with stochastic_layers(self.compute.device, seed, step), self.compute.autocast():
            loss = cross_entropy(model(pictures.contiguous(memory_format=torch.channels_last)).float(), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise RunError(f"the loss of step {step + 1} is {value}; try a smaller --lr than {fit.lr:g}")
        return value

    def _score(self, model: Classifier, fit: Fit) -> list[float] | None:
        """Accuracy and negative loss on the validation pictures: the larger pair is the better one."""
        if not len(fit.val):
            return None
        labels = torch.from_numpy(self.images.labels[fit.val])
        p = self.probabilities(model, fit.val)
        loss = -p[torch.arange(len(labels)), labels].clamp(min=1e-12).log().mean()
        return [float((p.argmax(1) == labels).float().mean()), -float(loss)]


def groups(model: Classifier, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    """Optimiser groups: each block's `rate` is `layer_decay` times that of the block after it; the classifier's is 1.

    Blocks count in the order in which the network registers them, which is that of its forward pass. Norms and biases
    are not decayed.
    """
    named = list(model.named_parameters())
    blocks = list(dict.fromkeys(block_of(name) for name, _ in named))
    return [
        {
            "params": [p],
            "rate": layer_decay ** (len(blocks) - 1 - blocks.index(block_of(name))),
            "weight_decay": weight_decay if p.ndim > 1 else 0.0,
        }
        for name, p in named
    ]


def block_of(name: str) -> str:
    """The block that a parameter belongs to: its name up to the first part with a number (`backbone.layer3`,
    `backbone.features.7`, `backbone.encoder.layers.encoder_layer_2`), or its layer's where no part has one."""
    parts = name.split(".")
    numbered = next((i for i, part in enumerate(parts[:-1]) if any(c.isdigit() for c in part)), len(parts) - 2)
    return ".".join(parts[: numbered + 1])


def schedule(step: int, total: int) -> float:
    """Warm-up over a twentieth of the steps, then a half cosine to 0."""
    warm = max(1, total // 20)
    return (step + 1) / warm if step < warm else (1 + math.cos(math.pi * (step - warm) / max(1, total - warm))) / 2


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}
