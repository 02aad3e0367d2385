"""How representations lie in space, which needs no labels: collapse shows here before it shows in accuracy.

Comes in: representations h or projections z, one row a picture or view. Goes out: single numbers, and a short spectrum.
Alignment and uniformity: Wang & Isola 2020 (arXiv 2005.10242); effective rank: RankMe, Garrido et al. 2023
(arXiv 2210.02885).
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from headstart.engine.device import fetched
from headstart.evaluate import spectra

MOST = 8192
"""Rows that pairwise figures look at; of more, evenly spaced ones."""
OF_FEATURES = (
    "uniformity",
    "effective_rank",
    "mean_norm",
    "dead",
    "spectrum",
    "spread",
    "centred_rank",
    "alpha_req",
)
"""What `of_features` tells besides the number of pictures."""


def alignment(x: Tensor) -> float:
    """Mean squared distance of the two views of a picture on the unit sphere, 0 (equal) to 4.

    x: (2K, d), rows i and i + K a pair.
    """
    return _alignment(x).item()


def _alignment(x: Tensor) -> Tensor:
    first, second = F.normalize(x, dim=1).chunk(2)
    return (first - second).square().sum(1).mean()


def uniformity(x: Tensor) -> float:
    """Log of the mean of exp(-2 |a - b|^2) over pairs of different rows on the unit sphere.

    0: all rows in one direction; about -4 in many dimensions: spread evenly. nan for fewer than two rows.
    x: (N, d).
    """
    return _uniformity(float(_kernels(x)), len(_thinned(x)))


def _kernels(x: Tensor) -> Tensor:
    """Sum of exp(-2 |a - b|^2) over all pairs of rows on the unit sphere, in float64."""
    x = F.normalize(_thinned(x), dim=1)
    parts = ((4 * (part @ x.T) - 4).exp().double().sum() for part in x.split(1024))
    return sum(parts, start=x.new_zeros((), dtype=torch.float64))


def _uniformity(total: float, n: int) -> float:
    if n < 2:
        return math.nan
    # Each row's distance to itself is 0: take those n ones out.
    return math.log(max((total - n) / (n * (n - 1)), 1e-300))


def spread(x: Tensor) -> float:
    """Mean squared distance between different rows on the unit sphere: 0 (one direction) to about 2 (even).

    x: (N, d).
    """
    return max(0.0, float(_spread(_where_doubles_are(x))))


def _spread(x: Tensor) -> Tensor:
    x = F.normalize(x.double(), dim=1)
    n = len(x)
    lengths = x.square().sum(1)  # 1, or 0 for a row of zeros
    return 2 * (n * lengths.sum() - x.sum(0).square().sum()) / max(n * (n - 1), 1)


def _repetition(x: Tensor) -> Tensor:
    """Mean squared correlation between different features: 0 (none) to 1 (all are one, up to scale and sign).

    x: (N, d). A feature that does not vary correlates with none; 0 for one feature.
    """
    x = F.normalize(_centred(x), dim=0)
    d = x.shape[1]
    return (x.T @ x).square().fill_diagonal_(0).sum() / max(d * (d - 1), 1)


def effective_rank(x: Tensor) -> float:
    """exp of the entropy of the singular values' shares (RankMe): 1 (one direction) to min(N, d).

    x: (N, d). 0 where all values are zero.
    """
    return spectra.rank_of(_squared_singular_values(x).sqrt())


def _in_short(variances: Tensor) -> list[list[float]]:
    """Shares of the variance along principal directions 1, 2, 4, 8, ..., as [position, share], largest first."""
    shares = variances / variances.sum().clamp_min(1e-300)
    positions = sorted({min(2**i, len(shares)) for i in range(len(shares).bit_length() + 1)})
    return [[position, float(shares[position - 1])] for position in positions]


def mean_norm(x: Tensor) -> float:
    """Mean Euclidean length of the rows."""
    return x.double().norm(dim=1).mean().item()


def of_features(features: np.ndarray) -> dict[str, Any]:
    """Figures of h (N, F) for result.json; None where one is not defined.

    `pictures`, `spread`, `uniformity`, `effective_rank` (RankMe), `centred_rank` (the same of h less its mean),
    `alpha_req`, `mean_norm`, `dead` (share of features that never change), `spectrum`.
    """
    h = torch.from_numpy(np.asarray(features, np.float32))
    if len(h) < 2 or not bool(h.isfinite().all()):
        return {"pictures": len(h)} | dict.fromkeys(OF_FEATURES)
    variances = _squared_singular_values(_centred(h))
    return {
        "pictures": len(h),
        "uniformity": uniformity(h),
        "effective_rank": effective_rank(h),
        "mean_norm": mean_norm(h),
        "dead": float((h == h[0]).all(0).double().mean()),
        "spectrum": _in_short(variances),
        "spread": spread(h),
        "centred_rank": spectra.rank_of(variances.sqrt()),
        "alpha_req": spectra.alpha_req(variances),
    }


def of_epoch(h: Tensor, z: Tensor) -> dict[str, float] | None:
    """Figures of the two views of pictures, h (2K, F) and z (2K, d); None where a number in them is not finite.

    For each the alignment, uniformity, effective rank and mean norm (`z_alignment`, ...), and `spread` and `repetition`
    of the first views' z. A GPU multiplies, copies sums and Gram matrices to the host all at once, and is waited for
    once; the eigenvalues are the host's.
    """
    h, z = _where_doubles_are(h), _where_doubles_are(z)
    first = z[: len(z) // 2]
    found = fetched({"spread": _spread(first), "repetition": _repetition(first)} | _sums(h, "h") | _sums(z, "z"))
    if not (found["h_finite"] and found["z_finite"]):
        return None
    figures = {"spread": max(0.0, float(found["spread"])), "repetition": float(found["repetition"])}
    for name, x in (("h", h), ("z", z)):
        figures |= {
            f"{name}_alignment": float(found[f"{name}_alignment"]),
            f"{name}_uniformity": _uniformity(float(found[f"{name}_kernels"]), len(_thinned(x))),
            f"{name}_effective_rank": spectra.rank_of(_eigenvalues(found[f"{name}_gram"]).sqrt()),
            f"{name}_mean_norm": float(found[f"{name}_mean_norm"]),
        }
    return figures


def _sums(x: Tensor, name: str) -> dict[str, Tensor]:
    """What the figures of `of_epoch` are made of, on the device."""
    parts = {
        "finite": x.isfinite().all(),
        "alignment": _alignment(x),
        "kernels": _kernels(x),
        "gram": _gram(x),
        "mean_norm": x.double().norm(dim=1).mean(),
    }
    return {f"{name}_{part}": value for part, value in parts.items()}


def _squared_singular_values(x: Tensor) -> Tensor:
    """Squared singular values of x (N, d), largest first, from the smaller Gram matrix, in float64."""
    return _eigenvalues(_gram(x))


def _gram(x: Tensor) -> Tensor:
    x = x.double()
    return x.T @ x if x.shape[1] <= x.shape[0] else x @ x.T


def _eigenvalues(gram: Tensor) -> Tensor:
    """Largest first; what rounding made negative is 0."""
    return torch.linalg.eigvalsh(gram).clamp_min(0).flip(0)


def _centred(x: Tensor) -> Tensor:
    return x.double() - x.double().mean(0)


def _where_doubles_are(x: Tensor) -> Tensor:
    """Apple's GPUs have no float64."""
    return x.cpu() if x.device.type == "mps" else x


def _thinned(x: Tensor) -> Tensor:
    return x[:: math.ceil(len(x) / MOST)] if len(x) > MOST else x
