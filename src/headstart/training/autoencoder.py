"""Training the autoencoder whose embedding layer starts the projection head (paper 3.3).

Comes in: the pictures of the three splits, or the features h of a backbone. Goes out: the autoencoder of the lowest
validation loss and its mean squared error on the test split. The networks themselves stand in autoencoders/.
"""

import math
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from headstart import autoencoders, backbones
from headstart.autoencoders import Autoencoder, rows_at_once
from headstart.data.images import Squashed
from headstart.engine import memory, randomness
from headstart.engine.checkpoint import Checkpoints, State
from headstart.engine.device import Compute, fetched, sent
from headstart.records.config import AutoencoderConfig, Config
from headstart.records.errors import InputError
from headstart.training.loop import Epoch, Loop, Step, Training

STAGE = "autoencoder"
Rows = Tensor | Squashed


def outline(config: Config, size: int) -> Autoencoder:
    """The autoencoder that a run at this size would train, on the device `meta`: its shapes without its memory.

    Raises InputError for one that cannot be.
    """
    settings, width = config.autoencoder, backbones.num_features(config.backbone.name)
    inputs = width if settings.on == "features" else 3 * size * size
    with torch.device("meta"):
        return autoencoders.of_kind(settings.kind, inputs, width, config.head.hidden_dim, settings.on)


@dataclass(frozen=True, kw_only=True)
class TrainedAutoencoder:
    """A trained autoencoder.

    Attributes:
        model: with the weights of the best epoch, on the CPU, in evaluation mode.
        test_mse: mean over the test split's batches of the mean squared error, in float32. In units of the values in
            [0, 1] (of the Z-scored values when normalised); on features a share of their variance.
        val_mse: mean over the validation split's pictures, at the best epoch.
        best_epoch: from 1.
        history: one dict an epoch: epoch, loss, val_loss, lr (the one it was trained with).
    """

    model: Autoencoder
    test_mse: float
    val_mse: float
    best_epoch: int
    history: list[dict[str, float]]


def train(
    model: Autoencoder,
    data: tuple[Rows, Rows, Rows],
    config: AutoencoderConfig,
    *,
    seed: int,
    compute: Compute,
    checkpoints: Checkpoints,
    log: Callable[..., None],
    mean: Tensor | None = None,
    std: Tensor | None = None,
    named: str = "",
    quiet: bool = False,
) -> TrainedAutoencoder:
    """Train on the first of three splits, choose the epoch on the second, test on the third (paper 3.3).

    Adam without weight decay, ReduceLROnPlateau on the validation loss, the checkpoint of the lowest one. A run that
    was interrupted goes on from `checkpoints` and ends, on a CPU, with the same bytes.

    Args:
        model: from `autoencoders.build`; trained in place.
        data: train, val, test: uint8 pictures (N, 3, S, S), in memory or read batch by batch, or float features
            (N, F). The last batch of each may be smaller.
        seed: of the order of the pictures and the noise.
        log: called once an epoch with stage, epoch, step, loss, val_loss, lr, pictures_per_s, data_wait.
        mean, std: (3,) of the pixels in [0, 1]; needed when `config.normalize`.
        named: a name of the pictures, which may grow between two calls (`Images.name_of`).

    Raises:
        InputError: a split is empty, or mean and std are missing.
        RunError: the loss is no longer a number, or memory ran out.
        Interrupted: asked to stop; the state is saved.
    """
    check_splits(*data)
    if config.normalize and model.on == "pixels":
        if mean is None or std is None:
            raise InputError("autoencoder.normalize needs the mean and std of the pictures")
        model.normalize_with(mean, std)
    model = model.to(compute.device)
    standardise = Standardise.of(cast(Tensor, data[0])) if model.on == "features" else None
    train_data, val_data, test_data = (
        _near(standardise(cast(Tensor, split)) if standardise else split, compute) for split in data
    )
    training = Autoencoding(model, config, train_data, val_data, seed, compute, named)
    Loop(training, checkpoints, log, quiet).run(checkpoints.load(STAGE))
    model.load_state_dict(training.best["weights"])
    test_mse = _mean_over_batches(_errors(model, test_data), config.batch_size)
    if standardise:
        standardise.fold_into(model)
    return TrainedAutoencoder(
        model=model.cpu().eval(),
        test_mse=test_mse,
        val_mse=training.best["val_loss"],
        best_epoch=training.best["epoch"],
        history=training.history,
    )


def check_splits(*splits: Sized) -> None:
    """Raise InputError where one of train, val and test is empty."""
    for name, split in zip(("training", "validation", "test"), splits, strict=True):
        if len(split) == 0:
            raise InputError(f"the autoencoder's {name} split holds no pictures; give more pictures")


class Autoencoding(Training):
    """What the autoencoder's training does in a step, and what it keeps (paper 3.3)."""

    stage, title, unit = STAGE, STAGE, "pictures"

    def __init__(
        self,
        model: Autoencoder,
        config: AutoencoderConfig,
        data: Rows,
        val_data: Rows,
        seed: int,
        compute: Compute,
        named: str = "",
    ) -> None:
        self.model, self.config, self.data, self.val_data = model, config, data, val_data
        self.seed, self.compute, self.device = seed, compute, compute.device
        self.epochs, self.steps = config.epochs, math.ceil(len(data) / config.batch_size)
        self.optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, fused=True)
        self.scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimizer, factor=config.factor, patience=config.patience
        )
        self.named = named
        self.best: dict[str, Any] = {"val_loss": math.inf, "epoch": 0, "weights": {}, "pictures": named}
        self.history: list[dict[str, float]] = []
        self.if_diverged = "a smaller --autoencoder.lr may help"
        self.if_out_of_memory = f"a smaller --autoencoder.batch-size (now {config.batch_size}) needs less"

    def begin_epoch(self, epoch: int) -> None:
        """In a set that has grown since, the errors of before say nothing of the pictures that are there now."""
        if self.best.get("pictures", self.named) != self.named:
            self.best |= {"val_loss": math.inf, "pictures": self.named}
            self.scheduler.best = math.inf

    def batches(self, epoch: int, first: int) -> Iterator[Tensor]:
        """The epoch's pictures or features in an order of its own; the last batch may be smaller."""
        order = sent(randomness.order(self.seed, STAGE, epoch, len(self.data)), self.data.device)
        for chosen in order.split(self.config.batch_size)[first:]:
            yield sent(self.data[chosen], self.device)

    def step(self, batch: Tensor, epoch: int, step: int) -> Step:
        """One step of Adam on the batch's loss (Equation 4)."""
        x = self.model.prepare(batch)
        noise = randomness.generator(self.seed, "autoencoder-noise", epoch, step) if self.model.draws else None
        self.optimizer.zero_grad()
        with self.compute.autocast():
            loss = self.model.loss(x, noise)
        loss.backward()
        self.optimizer.step()
        return Step(loss.detach(), self.optimizer.param_groups[0]["lr"], len(x))

    def validate(self) -> float:
        """Mean squared error on the validation split, every picture counting alike."""
        return _errors(self.model, self.val_data).mean().item()

    def end_epoch(self, epoch: Epoch) -> dict[str, Any]:
        """Keep the best weights, adapt the learning rate."""
        assert epoch.val_loss is not None
        if epoch.val_loss < self.best["val_loss"]:
            weights = fetched(self.model.state_dict())
            self.best |= {"val_loss": epoch.val_loss, "epoch": epoch.number, "weights": weights}
        self.scheduler.step(epoch.val_loss)
        line = {"epoch": epoch.number, "loss": epoch.loss, "val_loss": epoch.val_loss, "lr": epoch.lr}
        self.history.append(line)
        return {}

    def state(self) -> State:
        """All that the rest of the training depends on."""
        return {
            "best": self.best,
            "history": self.history,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
        }

    def restore(self, state: State) -> None:
        """Go on from a saved state."""
        self.best, self.history = state["best"], state["history"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])


def _near(data: Rows, compute: Compute) -> Rows:
    """The data on the device, or where it is when it would fill more than half of the device's free memory."""
    device = compute.device
    far = device.type == "cuda" and not memory.holds(device, data.nbytes, compute.sharers)
    return data if far else data.to(device)


@torch.no_grad()
def _errors(model: Autoencoder, data: Rows) -> Tensor:
    """Mean squared reconstruction error of each picture, computed in float32, as float64 (N,) on the CPU."""
    errors, device = [], model.embedding.weight.device
    for batch in data.split(rows_at_once(model.in_features)):
        x = model.prepare(sent(batch, device))
        errors.append((model(x) - x).square().mean(1))
    return torch.cat(errors).cpu().double()


def _mean_over_batches(errors: Tensor, batch_size: int) -> float:
    """As the authors report the test split: a smaller last batch counts as much as the others."""
    return torch.stack([batch.mean() for batch in errors.split(batch_size)]).mean().item()


@dataclass(frozen=True)
class Standardise:
    """Features centred, and divided by one number: the root of their mean variance over the training split.

    One number for all, because a feature that hardly varies before SimCLR would otherwise get a huge weight in the
    embedding layer, and SimCLR makes it vary. `fold_into` moves both into the autoencoder's outer layers, so that its
    embedding layer reads h itself.
    """

    mean: Tensor
    scale: Tensor

    @classmethod
    def of(cls, features: Tensor) -> "Standardise":
        """From training features (N, F)."""
        variance = features.double().var(0, unbiased=False).mean()
        scale = variance.sqrt().float() if variance > 0 else torch.ones(())
        return cls(features.double().mean(0).float(), scale)

    def __call__(self, features: Tensor) -> Tensor:
        """(N, F) -> (N, F) float32."""
        return (features.float() - self.mean) / self.scale

    @torch.no_grad()
    def fold_into(self, model: Autoencoder) -> None:
        """Make an autoencoder of standardised features one of features as they are: the same function of h."""
        mean, scale = self.mean.to(model.embedding.weight.device), self.scale.to(model.embedding.weight.device)
        for layer in (model.encoder.embedding, model.encoder.log_variance):
            if layer is not None:
                layer.weight.div_(scale)
                layer.bias.sub_(layer.weight @ mean)
        output = [layer for layer in model.decoder.output.modules() if isinstance(layer, nn.Linear)][-1]
        output.weight.mul_(scale)
        output.bias.mul_(scale).add_(mean)
