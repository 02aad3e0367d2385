"""What a head does to the untrained backbone's features before its first step: `geometry.head` of result.json."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from headstart.ntxent import nt_xent

FLAT = 0.005
"""A hidden unit is flat where its activation's slope is below this share of the activation's steepest."""


def head_statistics(
    head: nn.Module, features: Tensor, views: Tensor | None = None, temperature: float = 0.5
) -> dict[str, Any]:
    """What the head does to features at this moment; `geometry.head` of result.json holds it for step 0.

    The head is left as it is; batch norm uses the batch's own statistics, as in training.

    Args:
        features: (K, in_features) h of un-augmented pictures.
        views: (2N, in_features) h of augmented pictures, rows i and i + N a pair; None leaves the gradient out.
        temperature: of NT-Xent.

    Returns:
        `singular_values` of the first layer, descending; `hidden_mean` and `hidden_std` of the activated first layer
        over pictures and units; `hidden_flat`, the share of all (picture, unit) whose activation has under 0.5 % of
        its steepest slope (saturated, or off); `hidden_dead`, the share of units flat for every picture;
        `preactivation_rms`; `loss` and `gradient_norm`, NT-Xent of the views' projections and the norm of its
        gradient with respect to h, averaged over rows and multiplied by their number (so that it does not shrink
        with the batch); both None without views. A head that has no layer `first` has these two alone.
    """
    head = copy.deepcopy(head).train().cpu().float().requires_grad_(False)
    statistics: dict[str, Any] = {"loss": None, "gradient_norm": None}
    if isinstance(getattr(head, "first", None), nn.Linear):
        statistics = {**_first_layer(head, features.detach().cpu().float()), **statistics}
    if views is not None:
        h = views.detach().cpu().float().requires_grad_(True)
        with torch.enable_grad():
            loss = nt_xent(head(h), temperature=temperature)
            (gradient,) = torch.autograd.grad(loss, h)
        # The loss is a mean over rows, so a row's gradient shrinks as 1 / 2N; times 2N, batches compare.
        statistics["loss"] = loss.item()
        statistics["gradient_norm"] = gradient.norm(dim=1).mean().item() * len(h)
    return statistics


def _first_layer(head: nn.Module, features: Tensor) -> dict[str, Any]:
    first: nn.Linear = head.first  # type: ignore[assignment]
    before = first(features)
    norms = getattr(head, "norms", None)
    if isinstance(norms, nn.ModuleList) and len(norms):
        before = norms[0](before)
    activation = getattr(head, "activation", None)
    if not isinstance(activation, nn.Module) or getattr(head, "depth", 2) == 1:
        activation = nn.Identity()
    before.requires_grad_(True)
    with torch.enable_grad():
        hidden = activation(before)
        (slope,) = torch.autograd.grad(hidden.sum(), before)
    flat = slope.abs() < FLAT * (0.25 if isinstance(activation, nn.Sigmoid) else 1.0)
    return {
        "singular_values": torch.linalg.svdvals(first.weight.double()).tolist(),
        "preactivation_rms": before.square().mean().sqrt().item(),
        "hidden_mean": hidden.mean().item(),
        "hidden_std": hidden.std().item(),
        "hidden_flat": flat.float().mean().item(),
        "hidden_dead": flat.all(dim=0).float().mean().item(),
    }
