"""What a head does to features: before its first step (`geometry.head` of result.json), and as it is trained."""

import copy
from collections.abc import Callable
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
        loss, gradient = gradient_reaching(head, views.cpu(), lambda z: nt_xent(z, temperature=temperature))
        statistics |= {"loss": loss.item(), "gradient_norm": gradient.item()}
    return statistics


def gradient_reaching(head: nn.Module, h: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """The loss of a head's projections, and the norm of its gradient with respect to h: the mean over rows, times their
    number. The loss is a mean over rows, so a row's gradient shrinks as 1 / 2N; times 2N, batches compare.

    The head is left as it is, its mode included.

    Args:
        h: (2N, in_features), rows i and i + N a pair.
        loss: of z (2N, output_dim).
    """
    h = h.detach().float().requires_grad_(True)
    with torch.enable_grad():
        value = loss(head(h))
        (gradient,) = torch.autograd.grad(value, h)
    return value.detach(), gradient.norm(dim=1).mean() * len(h)


def singular_values(head: nn.Module) -> list[float] | None:
    """Those of the first layer, descending; None for a head that has no layer `first`."""
    first = getattr(head, "first", None)
    if not isinstance(first, nn.Linear):
        return None
    return torch.linalg.svdvals(first.weight.detach().cpu().double()).tolist()


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
        "singular_values": singular_values(head),
        "preactivation_rms": before.square().mean().sqrt().item(),
        "hidden_mean": hidden.mean().item(),
        "hidden_std": hidden.std().item(),
        "hidden_flat": flat.float().mean().item(),
        "hidden_dead": flat.all(dim=0).float().mean().item(),
    }
