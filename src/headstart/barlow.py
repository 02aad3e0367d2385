"""Barlow Twins: the cross-correlation of two views' projections, drawn towards the identity (Zbontar et al. 2021).

Comes in: projections of two views of N pictures, rows i and i + N a pair. Goes out: Equation 1 of that paper.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from headstart.engine.arguments import check_views, number
from headstart.engine.batch_statistics import centred, checked, count, outer_product, ranks, total

EPSILON = 1e-5
"""Added to the variance under the root, as the authors' batch norm does: a feature that does not vary is 0, not NaN."""


def barlow(
    z: Tensor, off_diagonal: float = 5e-3, epsilon: float = EPSILON, group: dist.ProcessGroup | None = None
) -> Tensor:
    """Barlow Twins of two views.

    Args:
        z: (2N, d) floating point; rows i and i + N are the two views of picture i. Any scale and offset: each feature
            is standardised over the batch, each view by itself.
        off_diagonal: lambda of the paper (5e-3, its section 2.2).
        epsilon: added to the variance under the root.
        group: the process group whose ranks' rows make up the batch; the default group where one is initialised.

    Returns a scalar over the global batch; its gradient with respect to this rank's z is that of the sum over ranks, so
    that the average DistributedDataParallel takes is one process's. float64 is computed in float64, everything else in
    float32 whatever autocast says. Memory is O(N d + d^2).

    Raises InputError for anything but floating point (2N, d) with N >= 2 over all ranks.

    Views that agree, of features that are not correlated, cost nothing:

    >>> view = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> round(barlow(torch.cat([view, view])).item(), 6)
    0.0
    """
    check_views(z, "barlow", off_diagonal=off_diagonal, epsilon=epsilon)
    number("barlow", "epsilon", epsilon, 0)
    parts = terms(z, epsilon, group)
    return parts["invariance"] + off_diagonal * parts["redundancy"]


def terms(z: Tensor, epsilon: float = EPSILON, group: dist.ProcessGroup | None = None) -> dict[str, Tensor]:
    """The two parts before they are weighted.

    `invariance`: from 0 (the views agree in every feature) to about d (they have nothing in common).
    `redundancy`: from 0 (no two features are correlated) to about d^2 (all of them are one).
    """
    z = checked(z, "barlow", group)
    with torch.autocast(z.device.type, enabled=False):
        n = count(z, group)
        one, two = (_standardised(view, n, epsilon, group) for view in z.chunk(2))
        correlation = outer_product(one, two, group) / n
        return {
            "invariance": (1 - correlation.diagonal()).square().sum(),
            "redundancy": correlation.square().fill_diagonal_(0).sum(),
        }


def _standardised(view: Tensor, n: int, epsilon: float, group: dist.ProcessGroup | None) -> Tensor:
    if ranks(group) == 1 and epsilon > 0:  # the same in one pass over memory
        return F.batch_norm(view, None, None, training=True, eps=epsilon)
    view = centred(view, n, group)
    return view * (total(view.square().sum(dim=0), group) / n + epsilon).rsqrt()
