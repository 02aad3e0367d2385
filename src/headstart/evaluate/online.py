"""A linear classifier trained beside SimCLR, so that its user sees accuracy and not only loss.

Comes in: representations h of each step, detached. Goes out: accuracy on validation views after each epoch. No gradient
reaches the backbone and nothing is drawn, so training with and without it is the same to the byte.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from headstart.engine.device import sent
from headstart.engine.observer import EpochEnd


class OnlineProbe:
    """An observer of `contrastive.train`.

    Both views of every labelled picture of a batch make one step of Adam. Features are standardised by the batch at
    hand, whose scale drifts with the backbone.

    Args:
        labels: (n,) int64 of all pictures, -1 where there is none.
        classes: number of classes.
    """

    def __init__(self, labels: np.ndarray, classes: int, lr: float = 1e-2) -> None:
        self.labels = torch.as_tensor(labels)
        self.classes, self.lr = classes, lr
        self.weights: Tensor | None = None
        self.saved: dict[str, Any] = {}

    def step(self, h: Tensor, indices: Tensor) -> None:
        """One step on h (2n, F) of the pictures `indices` (n,)."""
        if self.weights is None:
            self._begin(h.shape[1], h.device)
        assert self.weights is not None
        y = self.there[indices].repeat(2)
        with torch.enable_grad(), torch.autocast(h.device.type, enabled=False):
            logits = _standardised(h.detach()) @ self.weights[:-1] + self.weights[-1]
            # A sum and a clamped count: a batch without labels gives no NaN, and a GPU is not waited for.
            loss = F.cross_entropy(logits, y, ignore_index=-1, reduction="sum") / (y >= 0).sum().clamp_min(1)
        (self.weights.grad,) = torch.autograd.grad(loss, self.weights)
        self.optimizer.step()

    def epoch_end(self, event: EpochEnd) -> dict[str, float]:
        """`accuracy` (fraction) on the labelled pictures among those the event shows; nothing where none is."""
        y = self.labels[event.indices].repeat(2)
        if self.weights is None or not bool((y >= 0).any()):
            return {}
        with torch.no_grad():
            predicted = (_standardised(event.h) @ self.weights[:-1] + self.weights[-1]).argmax(1).cpu()
        return {"accuracy": (predicted == y)[y >= 0].double().mean().item()}

    def state_dict(self) -> dict[str, Any]:
        """Weights and optimiser state; before the first step what was loaded, if anything was."""
        if self.weights is None:
            return self.saved
        return {"weights": self.weights.detach(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken, from the next step on: that tells the device (a file's is the CPU).

        A classifier of another number of classes, in a set that has grown since, begins anew.
        """
        fits = not state or state["weights"].shape[1] == self.classes
        self.weights, self.saved = None, state if fits else {}

    def _begin(self, width: int, device: torch.device) -> None:
        start = self.saved["weights"] if self.saved else torch.zeros(width + 1, self.classes)
        self.weights = start.detach().clone().to(device).requires_grad_(True)
        self.there = sent(self.labels, device)
        self.optimizer = torch.optim.Adam([self.weights], lr=self.lr)
        if self.saved:
            self.optimizer.load_state_dict(self.saved["optimizer"])


def _standardised(h: Tensor) -> Tensor:
    std, mean = torch.std_mean(h.float(), dim=0, correction=0)
    return (h.float() - mean) / (std + 1e-5)
