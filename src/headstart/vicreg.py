"""VICReg: variance, invariance and covariance of the projections (Bardes, Ponce and LeCun 2022).

Comes in: projections of two views of N pictures, rows i and i + N a pair. Goes out: Equation 6 of that paper, with the
constants of its authors' code, for which 25, 25, 1 were chosen: there the invariance is a mean over the d features as
well, and the variance term is halved.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from headstart.engine.arguments import check_views
from headstart.engine.batch_statistics import centred, checked, count, outer_product

EPSILON = 1e-4
"""Added to the variance under the root (their Equation 1)."""


def vicreg(
    z: Tensor,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """VICReg of two views.

    Args:
        z: (2N, d) floating point; rows i and i + N are the two views of picture i.
        invariance, variance, covariance: lambda, mu and nu of the paper (section 4.2).
        group: the process group whose ranks' rows make up the batch; the default group where one is initialised.

    Returns a scalar. Variance and covariance are those of the global batch; its gradient with respect to this rank's z
    is that of the sum over ranks, so that the average DistributedDataParallel takes is one process's. float64 is
    computed in float64, everything else in float32 whatever autocast says. Memory is O(N d + d^2).

    Raises InputError for anything but floating point (2N, d) with N >= 2 over all ranks.

    Features of one value throughout cost `variance` times the hinge alone, which the root's constant keeps below 1:

    >>> round(vicreg(torch.ones(8, 3)).item(), 2)
    24.75
    """
    check_views(z, "vicreg", invariance=invariance, variance=variance, covariance=covariance)
    parts = terms(z, group)
    return invariance * parts["invariance"] + variance * parts["variance"] + covariance * parts["covariance"]


def terms(z: Tensor, group: dist.ProcessGroup | None = None) -> dict[str, Tensor]:
    """The three parts before they are weighted.

    `invariance`: mean squared difference of the views.
    `variance`: from 0 (every feature has a standard deviation of 1 or more) to 1 (none varies).
    `covariance`: from 0 (no two features are correlated).
    """
    z = checked(z, "vicreg", group)
    with torch.autocast(z.device.type, enabled=False):
        views, n = z.chunk(2), count(z, group)
        spread, overlap = z.new_zeros(()), z.new_zeros(())
        for view in views:
            view = centred(view, n, group)
            matrix = outer_product(view, view, group) / (n - 1)
            deviation = (matrix.diagonal() + EPSILON).sqrt()
            spread = spread + F.relu(1 - deviation).mean() / 2
            overlap = overlap + matrix.square().fill_diagonal_(0).sum() / view.shape[1]
        return {"invariance": F.mse_loss(views[0], views[1]), "variance": spread, "covariance": overlap}
