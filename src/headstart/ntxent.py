"""The contrastive loss: NT-Xent, Equation 2 of the paper, exactly.

Comes in: projections of two views of N pictures, rows i and i + N a pair. Goes out: the mean of l(i, j) over
all 2N rows.

    l(i, j) = -log  exp(sim(z_i, z_j) / tau)  /  sum over k != i of exp(sim(z_i, z_k) / tau)

With `u = z / (|z| sqrt(tau))` that is  logsumexp over k != i of u_i . u_k,  minus  u_i . u_j.  The second part
costs nothing. The first needs every product of two rows, and is computed in one of two ways that differ in
cost, never in value. Nothing is kept but one number a row, and the products are computed again in the backward
pass: O(N) memory.

- one process: blocks of the upper triangle, where u_i . u_k serves rows i and k;
- several processes, or a temperature so low that the exponentials need a running maximum: blocks of full
  rows.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from headstart.engine.arguments import check_views
from headstart.engine.batch_statistics import ranks
from headstart.records.errors import InputError

CPU_TILE = 256, 1024  # rows, columns: 1 MB of float32, which stays in a core's cache between the operations on it
GPU_TILE = 4096, 8192  # few kernels, and still no more than 128 MB
SAFE_EXPONENT = 60.0  # exp(+-60) and sums of it are far inside float32, so no maximum has to be subtracted


def nt_xent(z: Tensor, temperature: float = 0.5, group: dist.ProcessGroup | None = None) -> Tensor:
    """NT-Xent (paper Eq. 2; Chen et al. 2020) of two views.

    Args:
        z: (2N, d) floating point; rows i and i + N are the two views of picture i. Any scale: only directions
            count.
        temperature: tau > 0.
        group: the process group whose ranks' rows are negatives too; the default group where one is initialised,
            else none. Every rank passes the same number of rows.

    Returns a scalar: the mean over this rank's 2N rows. Its gradient with respect to this rank's z is that of
    the *sum* over ranks, so that the average DistributedDataParallel takes is the gradient of one process on
    the global batch.

    float64 is computed in float64, everything else in float32 whatever autocast says: a bfloat16 product has
    a relative error of 2^-9, which at tau = 0.1 is 2 % of an exponential. Memory is O(N).

    Raises InputError for anything but (2N, d) with N >= 2 over all ranks, a temperature that is not positive
    and, on the CPU, for values that are not finite. On other devices looking would stall the queue at every
    step: there a non-finite z gives a loss of NaN, which the trainer finds when it reads the losses.

    Where all projections point in one direction every other row is as likely, and the loss is log(2N - 1):

    >>> round(nt_xent(torch.ones(8, 16)).item(), 4), round(math.log(7), 4)
    (1.9459, 1.9459)
    """
    check_views(z, "nt_xent", temperature=temperature)
    if not isinstance(temperature, Real | Tensor) or not 0 < float(temperature) < math.inf:
        raise InputError(f"nt_xent: the temperature is {temperature}; it has to be a positive number.")
    world = ranks(group)
    if z.shape[0] * world < 4:
        raise InputError(
            f"nt_xent: the batch holds {z.shape[0] // 2} picture(s); the loss needs at least 2, because"
            " other pictures are the negatives."
        )
    if z.device.type == "cpu" and not torch.isfinite(z).all():
        raise InputError("nt_xent: z holds values that are not finite (NaN or infinity); the training has diverged.")

    with torch.autocast(z.device.type, enabled=False):
        z = z.to(torch.float64 if z.dtype == torch.float64 else torch.float32)
        # Dividing by the largest entry first keeps the norm of very long and very short rows inside the
        # number range.
        largest = z.detach().abs().amax(dim=1, keepdim=True)
        u = torch.nn.functional.normalize(z / torch.where(largest > 0, largest, 1.0), dim=1) * temperature**-0.5
        one, two = u.chunk(2)
        positives = (one * two).sum() * 2 / len(u)
        if world > 1:
            return _MeanLogSumExpOfRows.apply(u, group) - positives
        if 1 / temperature > SAFE_EXPONENT:
            return _MeanLogSumExpOfRows.apply(u, None) - positives
        return _MeanLogSumExpOfTriangle.apply(u) - positives


class _MeanLogSumExpOfTriangle(torch.autograd.Function):
    """u (M, d) -> mean over i of log sum over k != i of exp(u_i . u_k), each product computed once."""

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        total = u.new_zeros(len(u))
        for rows, columns, tile in _upper_tiles(u):
            total[rows] += tile.sum(dim=1)
            if columns != rows:
                total[columns] += tile.sum(dim=0)
        ctx.save_for_backward(u, total)
        return total.log().mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        u, total = ctx.saved_tensors
        share = total.reciprocal()
        grad = torch.zeros_like(u)
        with torch.autocast(u.device.type, enabled=False):  # somebody may call backward within theirs
            for rows, columns, tile in _upper_tiles(u):
                # d/du_i holds the softmax of row i and, since u_i is a column of every other row, the softmax of
                # each row k at i.
                tile.mul_(share[rows, None] + share[columns])
                grad[rows].addmm_(tile, u[columns])
                if columns != rows:
                    grad[columns].addmm_(tile.T, u[rows])
        return grad.mul_(grads[0] / len(u))


def _upper_tiles(u: Tensor) -> Any:
    """Yields (rows, columns, exp of the products of those rows with those columns): the diagonal blocks,
    their diagonal zero, and the tiles to the right of them."""
    tile_rows, tile_columns = CPU_TILE if u.device.type == "cpu" else GPU_TILE
    for start in range(0, len(u), tile_rows):
        stop = min(start + tile_rows, len(u))
        rows = slice(start, stop)
        yield rows, rows, (u[rows] @ u[rows].T).exp_().fill_diagonal_(0)
        for left in range(stop, len(u), tile_columns):
            columns = slice(left, min(left + tile_columns, len(u)))
            yield rows, columns, (u[rows] @ u[columns].T).exp_()


class _MeanLogSumExpOfRows(torch.autograd.Function):
    """u (m, d) of this rank -> mean over its rows of log sum over all ranks' k != i of exp(u_i . u_k).

    Ranks exchange u and one number a row in the forward pass and one scalar in the backward pass; the
    gradient with respect to this rank's u, of the sum of all ranks' outputs, is then computed here, without
    an all-reduce of the gathered matrix.
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        everyone = _gather(u, group)
        offset = _rank(group) * len(u)
        own = u.new_empty(len(u))
        for rows in _row_blocks(u, everyone):
            own[rows] = _products(u, rows, everyone, offset).logsumexp(dim=1)
        ctx.group, ctx.offset = group, offset
        ctx.save_for_backward(u, everyone, own, _gather(own, group))
        return own.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        u, everyone, own, theirs = ctx.saved_tensors
        weights = _gather(grads[0].reshape(1) / len(u), ctx.group)  # one a rank
        weight = weights[ctx.offset // len(u)]
        weights = weights.repeat_interleave(len(u))
        grad = torch.empty_like(u)
        with torch.autocast(u.device.type, enabled=False):
            for rows in _row_blocks(u, everyone):
                products = _products(u, rows, everyone, ctx.offset)
                softmax = (products - own[rows, None]).exp_().mul_(weight)
                softmax += products.sub_(theirs).exp_().mul_(weights)
                grad[rows] = softmax @ everyone
        return grad, None


def _row_blocks(u: Tensor, everyone: Tensor) -> list[slice]:
    """As many rows at once as make a tile of full rows, but enough for an efficient product."""
    tile_rows, tile_columns = CPU_TILE if u.device.type == "cpu" else GPU_TILE
    step = max(64, tile_rows * tile_columns // len(everyone))
    return [slice(start, min(start + step, len(u))) for start in range(0, len(u), step)]


def _products(u: Tensor, rows: slice, everyone: Tensor, offset: int) -> Tensor:
    """u[rows] times every row, minus infinity where a row meets itself."""
    products = u[rows] @ everyone.T
    products[:, offset + rows.start : offset + rows.stop].fill_diagonal_(-math.inf)
    return products


def _rank(group: dist.ProcessGroup | None) -> int:
    return dist.get_rank(group) if ranks(group) > 1 else 0


def _gather(rows: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """The ranks' rows one after the other. Not differentiable: the backward pass above accounts for it."""
    if ranks(group) == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(ranks(group))]
    dist.all_gather(parts, rows.contiguous(), group=group)
    return torch.cat(parts)
