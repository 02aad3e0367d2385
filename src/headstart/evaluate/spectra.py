"""Three figures that are said to follow accuracy without a label, each read from a spectrum.

Comes in: representations h of pictures, or of several views of each. Goes out: a number; no threshold, since none is
known to hold (docs/evaluation.md). RankMe is `geometry.effective_rank`, made of `rank_of`; the others stand here.
"""

import math

import torch
from torch import Tensor

RANKS = (4, 100)
"""Eigenvalues, counted from 1, through which alpha-ReQ's line is laid: its authors' own, in their code."""
FEWEST_RANKS = 10
"""Eigenvalues without which a line says nothing."""
DELTA, EPSILON = 1e-4, 1e-7
"""LiDAR's ridge on the scatter within pictures; what it and RankMe add to each share, as their papers have them."""


def alpha_req(variances: Tensor) -> float | None:
    """How fast the variances of h fall: the exponent of a power law (alpha-ReQ, Agrawal et al. 2022).

    The slope of log variance over log rank, by least squares with the weights 1/rank of the authors' code, over ranks
    4 to 100 or as many as there are. 0 is a flat spectrum; the larger, the fewer directions carry everything.

    Args:
        variances: (r,) eigenvalues of the covariance of h, largest first. Those that rounding alone made are left out.

    Returns:
        The exponent; None where fewer than ten ranks are left.
    """
    values = variances[variances > 1e-12 * variances[:1].clamp_min(1e-300)].double()[: RANKS[1]]
    if len(values) < RANKS[0] - 1 + FEWEST_RANKS:
        return None
    rank = torch.arange(1, len(values) + 1, dtype=torch.float64, device=values.device)[RANKS[0] - 1 :]
    x, y, weight = rank.log(), values[RANKS[0] - 1 :].log(), 1 / rank / (1 / rank).sum()
    x, y = x - (weight * x).sum(), y - (weight * y).sum()
    return -float((weight * x * y).sum() / (weight * x * x).sum())


def lidar(views: Tensor) -> float:
    """How many directions tell pictures apart, beside what differs within one picture (LiDAR, Thilak et al. 2023).

    exp of the entropy of the eigenvalues of Sw^(-1/2) Sb Sw^(-1/2), where Sb is the scatter of the pictures' means and
    Sw that of the views about them, plus 1e-4 on its diagonal. What is decomposed is the smaller M' Sw^(-1) M, with
    Sb = M M', which has the same eigenvalues. 1 to one less than the pictures: compare it only between the same
    number of pictures and views.

    Args:
        views: h (n, q, d) of q views of each of n pictures.

    Returns:
        The figure; 0 where all pictures have the same mean.
    """
    x = views.double()
    n, q, d = x.shape
    centres = x.mean(dim=1)
    between = (centres - centres.mean(dim=0)).T / math.sqrt(n)
    apart = (x - centres[:, None]).reshape(n * q, d)
    within = apart.T @ apart / (n * q) + DELTA * torch.eye(d, dtype=x.dtype, device=x.device)
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(within), between, upper=False)
    values = torch.linalg.eigvalsh(whitened.T @ whitened).clamp_min(0).flip(0)[:d]
    return rank_of(torch.cat([values, values.new_zeros(d - len(values))]))


def rank_of(values: Tensor) -> float:
    """exp of the entropy of the shares of (r,) numbers from 0 on: 1 (one has all) to r; 0 where all are 0."""
    if not float(values.sum()) > 0:
        return 0.0
    shares = values / values.sum() + EPSILON
    return math.exp(-float((shares * shares.log()).sum()))
