"""What moves the weights: the optimiser, who is decayed, and the learning rate of every step (paper 3.5).

Comes in: named parameters and the `contrastive` settings. Goes out: a torch optimiser, and the learning rate as a plain
function of the step, so that a resumed run needs no scheduler's state.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from headstart.records.config import ContrastiveConfig, default_learning_rate
from headstart.records.names import OPTIMIZERS

FUSED_ON = {"cpu", "cuda"}
"""Devices whose one-kernel optimiser step is used."""


def groups(parameters: Iterable[tuple[str, nn.Parameter]], config: ContrastiveConfig) -> list[dict[str, Any]]:
    """Optimiser groups of named parameters: weight matrices and kernels, and everything with one axis or none.

    The second group (norms, biases) is not decayed unless `decay_norms_and_biases`, and LARS does not adapt its steps.
    Parameters that need no gradient are in no group: neither decay nor momentum ever moves a frozen layer.
    """
    moved = [parameter for _, parameter in parameters if parameter.requires_grad]
    decay = config.weight_decay
    both: list[dict[str, Any]] = [
        {"params": [p for p in moved if p.ndim > 1], "weight_decay": decay, "adapt": True},
        {
            "params": [p for p in moved if p.ndim <= 1],
            "weight_decay": decay if config.decay_norms_and_biases else 0.0,
            "adapt": False,
        },
    ]
    return [group for group in both if group["params"]]


def groups_of(backbone: nn.Module, head: nn.Module, config: ContrastiveConfig) -> list[dict[str, Any]]:
    """`groups` of both networks; where the head has a rate of its own, they stand apart, each with its `rate`, the
    factor of the scheduled learning rate."""
    if config.head_lr is None:
        both = [*backbone.named_parameters(), *head.named_parameters()]
        return [{**group, "rate": 1.0} for group in groups(both, config)]
    assert config.lr is not None
    rates = (backbone, 1.0), (head, config.head_lr / config.lr)
    return [{**group, "rate": rate} for part, rate in rates for group in groups(part.named_parameters(), config)]


def build(parameters: Iterable[tuple[str, nn.Parameter]], config: ContrastiveConfig) -> Optimizer:
    """The optimiser of `config` over `groups(parameters, config)`: SGD with momentum (the paper's), AdamW, or LARS.

    `momentum` is AdamW's first beta. The learning rate is 0 until the first `learning_rate` is put into its groups.
    """
    return _made(groups(parameters, config), config)


def build_for(backbone: nn.Module, head: nn.Module, config: ContrastiveConfig) -> Optimizer:
    """The same over `groups_of(backbone, head, config)`."""
    return _made(groups_of(backbone, head, config), config)


def _made(grouped: list[dict[str, Any]], config: ContrastiveConfig) -> Optimizer:
    optimizer: Optimizer = OPTIMIZERS.known(config.optimizer).made()(grouped, config.momentum)
    return optimizer


def sgd(grouped: list[dict[str, Any]], momentum: float) -> Optimizer:
    """SGD with momentum."""
    return SGD(grouped, lr=0.0, momentum=momentum, fused=_fused(grouped))


def adamw(grouped: list[dict[str, Any]], momentum: float) -> Optimizer:
    """Adam with decoupled weight decay."""
    return AdamW(grouped, lr=0.0, betas=(momentum, 0.999), fused=_fused(grouped))


def lars(grouped: list[dict[str, Any]], momentum: float) -> Optimizer:
    """SGD whose steps are scaled layer by layer."""
    return LARS(grouped, lr=0.0, momentum=momentum)


def _fused(grouped: list[dict[str, Any]]) -> bool | None:
    return all(p.device.type in FUSED_ON for group in grouped for p in group["params"]) or None


class LARS(Optimizer):
    """SGD with momentum whose step is scaled layer by layer (You et al. 2017, as in SimCLR's published code).

    A layer's step is multiplied by trust * |w| / |g + decay w|, where both norms are positive. Groups with
    `adapt=False` (norms, biases) take plain SGD steps. The momentum buffer holds scaled steps, learning rate included.

    Args:
        params: parameters or groups, each with `weight_decay` and `adapt`.
        lr: learning rate, 0 or more.
        momentum: in [0, 1).
        trust: trust coefficient.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
        adapt: bool = True,
    ) -> None:
        super().__init__(
            params,
            {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust, "adapt": adapt},
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            moved = [(weight, weight.grad) for weight in group["params"] if weight.grad is not None]
            if moved:
                self._update([weight for weight, _ in moved], [gradient for _, gradient in moved], group)
        return loss

    def _update(self, weights: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        """All weights of a group together: a GPU launches one kernel for many, and on a CPU each number is the same."""
        directions = torch._foreach_add(gradients, weights, alpha=group["weight_decay"])
        if group["adapt"]:
            # On the device throughout: asking for a norm's value would make the host wait for every layer.
            size, slope = (torch.stack(torch._foreach_norm(tensors)) for tensors in (weights, directions))
            ratios = torch.where((size > 0) & (slope > 0), group["trust"] * size / slope, 1.0)
            torch._foreach_mul_(directions, ratios.unbind())
        for weight in weights:
            if "momentum_buffer" not in self.state[weight]:
                self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        buffers = [self.state[weight]["momentum_buffer"] for weight in weights]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, directions, alpha=group["lr"])
        torch._foreach_sub_(weights, buffers)


def peak_learning_rate(config: ContrastiveConfig, batch_size: int) -> float:
    """`contrastive.lr` or, unset, the one that follows from batch size and optimiser."""
    return default_learning_rate(config.optimizer, batch_size) if config.lr is None else config.lr


def learning_rate(config: ContrastiveConfig, step: int, steps_per_epoch: int) -> float:
    """Linear warm-up to `config.lr` (which must be set), then a half cosine down to `final_lr_fraction` of it.

    Args:
        config: `lr`, `epochs`, `warmup`, `final_lr_fraction`, and `schedule`: along the curve every step, or once an
            epoch (then, without warm-up, CosineAnnealingLR(T_max=epochs) stepped once an epoch, as the authors ran).
        step: from 0, over the whole training.
        steps_per_epoch: at least 1.
    """
    assert config.lr is not None
    per_epoch = steps_per_epoch if config.schedule == "step" else 1
    position = step if config.schedule == "step" else step // steps_per_epoch
    warm, total = config.warmup * per_epoch, config.epochs * per_epoch
    if position < warm:
        return config.lr * min(1.0, (position + 1) / warm)
    progress = min(1.0, (position - warm) / max(total - warm, 1))
    floor = config.final_lr_fraction
    return config.lr * (floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2)
