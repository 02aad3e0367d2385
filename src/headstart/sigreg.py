"""SIGReg, the objective of LeJEPA: projections drawn towards an isotropic Gaussian (Balestriero and LeCun 2025).

Comes in: projections of two views of N pictures, rows i and i + N a pair. Goes out:

    (1 - weight) * prediction  +  weight * statistic

prediction: mean squared distance of the views from their mean, over pictures, views and features.
statistic: for each view and each of M random directions a, the Epps-Pulley distance between the distribution of a . z
and the standard normal,

    N * integral over t in [-3, 3] of |mean of exp(i t a.z) - exp(-t^2/2)|^2 exp(-t^2/2) dt,

by the trapezoidal rule on 17 knots from 0 to 3, doubled since the integrand is even; then the mean over directions and
views.

The knots are equally spaced, so cos and sin of all multiples of t follow from those of the first by rotation: two
trigonometric functions a product instead of 34. They are made again in the backward pass: memory is O(N M), not 17
times as much.
"""

import functools
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from headstart.engine.arguments import check_views, draws, number, whole
from headstart.engine.batch_statistics import checked, count, product, total
from headstart.engine.device import sent
from headstart.records.errors import InputError

KNOTS = 17
LARGEST_T = 3.0
DIRECTIONS = 1024
"""The published settings of the quadrature and the sketch."""


def sigreg(
    z: Tensor,
    weight: float = 0.05,
    directions: int | Tensor = DIRECTIONS,
    group: dist.ProcessGroup | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """LeJEPA's objective for two views.

    Args:
        z: (2N, d) floating point; rows i and i + N are the two views of picture i.
        weight: lambda of the paper, in [0, 1] (0.05).
        directions: how many random unit vectors are drawn, anew in each call, or the vectors themselves (d, M).
        group: the process group whose ranks' rows make up the batch; the default group where one is initialised. Every
            rank has to draw the same directions: pass generators in the same state.
        generator: a CPU generator for the directions.

    Returns a scalar over the global batch; its gradient with respect to this rank's z is that of the sum over ranks, so
    that the average DistributedDataParallel takes is one process's. float64 is computed in float64, everything else in
    float32 whatever autocast says.

    Raises InputError for a weight outside [0, 1], and for anything but floating point (2N, d) with N >= 2.

    Projections that lie as a standard normal would cost less than those that all lie in one point:

    >>> draws = torch.Generator().manual_seed(0)
    >>> normal = torch.randn(256, 8, generator=draws).repeat(2, 1)
    >>> bool(sigreg(normal, generator=draws) < sigreg(torch.zeros(512, 8), generator=draws))
    True
    """
    check_views(z, "sigreg", weight=weight)
    number("sigreg", "weight", weight, 0, 1)
    parts = terms(z, directions, group, generator)
    return (1 - weight) * parts["prediction"] + weight * parts["statistic"]


def terms(
    z: Tensor,
    directions: int | Tensor = DIRECTIONS,
    group: dist.ProcessGroup | None = None,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """The two parts before they are weighted.

    `prediction`: mean squared distance of the views from their mean.
    `statistic`: of the order of 1 for Gaussian projections, however many; of the order of N for collapsed ones.
    """
    z = checked(z, "sigreg", group)
    with torch.autocast(z.device.type, enabled=False):
        n = count(z, group)
        if not isinstance(directions, Tensor):
            whole("sigreg", "directions", directions)
            draws("sigreg", generator)
            directions = F.normalize(torch.randn(z.shape[1], directions, generator=generator, dtype=z.dtype), dim=0)
        if directions.ndim != 2 or directions.shape[0] != z.shape[1] or directions.shape[1] == 0:
            raise InputError(
                f"sigreg: directions have the shape {tuple(directions.shape)}; they have to be ({z.shape[1]}, M)"
            )
        along = product(z, sent(directions.to(z.dtype), z.device))
        statistic = torch.stack([_epps_pulley(view, n, group) for view in along.chunk(2)]).mean()
        one, two = z.chunk(2)
        return {"prediction": (one - two).square().mean() / 4, "statistic": statistic}


def _epps_pulley(x: Tensor, n: int, group: dist.ProcessGroup | None) -> Tensor:
    """Mean over columns of x (N, M) of the distance between each column's distribution and the standard normal."""
    _, phi, weights = _quadrature(x.dtype, x.device)
    cosine, sine = total(_CharacteristicFunction.apply(x), group).unbind()  # (17, M) each
    distance = (cosine / n - phi[:, None]).square() + (sine / n).square()
    return n * (weights[:, None] * distance).sum(dim=0).mean()


@functools.cache
@torch.inference_mode(False)  # one made within it could not be used in training afterwards
def _quadrature(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Knots t, the normal's characteristic function there, and the weights of the sum, each (17,)."""
    t = torch.linspace(0, LARGEST_T, KNOTS, dtype=torch.float64)
    phi = torch.exp(-t.square() / 2)
    rule = torch.full_like(t, 2 * LARGEST_T / (KNOTS - 1))
    rule[0] = rule[-1] = LARGEST_T / (KNOTS - 1)
    t, phi, weights = (v.to(device, dtype) for v in (t, phi, rule * phi))
    return t, phi, weights


class _CharacteristicFunction(torch.autograd.Function):
    """x (N, M) -> sums over rows of cos(t x) and sin(t x) at every knot: (2, 17, M)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        sums = x.new_empty(2, KNOTS, x.shape[1])
        for k, (cosine, sine) in enumerate(_rotations(x)):
            torch.sum(cosine, dim=0, out=sums[0, k])
            torch.sum(sine, dim=0, out=sums[1, k])
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        t = _quadrature(x.dtype, x.device)[0]
        of_cosine, of_sine = (grads[0] * t[:, None]).unbind()
        grad = torch.zeros_like(x)
        for k, (cosine, sine) in enumerate(_rotations(x)):
            grad.addcmul_(cosine, of_sine[k]).addcmul_(sine, of_cosine[k], value=-1)
        return grad


def _rotations(x: Tensor) -> Any:
    """Yields cos(t x) and sin(t x) for every knot t, each from the one before by a rotation of t_1 x."""
    step = LARGEST_T / (KNOTS - 1)
    turn_cosine, turn_sine = (x * step).cos_(), (x * step).sin_()
    cosine, sine = torch.ones_like(x), torch.zeros_like(x)
    yield cosine, sine
    for _ in range(KNOTS - 1):
        cosine, sine = (
            torch.mul(cosine, turn_cosine).addcmul_(sine, turn_sine, value=-1),
            torch.mul(sine, turn_cosine).addcmul_(cosine, turn_sine),
        )
        yield cosine, sine
