"""Sums over the batch of all processes, with the gradient that a loss of such sums needs.

A loss that every rank computes from the same sums has, on each, the gradient of one copy. Summing over ranks in the
backward pass as well makes it the gradient of the sum of the copies; DistributedDataParallel's average over ranks then
is the gradient of one process on the global batch.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from headstart.engine.arguments import check_views
from headstart.records.errors import InputError


def ranks(group: dist.ProcessGroup | None) -> int:
    """Processes that share the batch; 1 where no group is initialised."""
    return dist.get_world_size(group) if dist.is_available() and dist.is_initialized() else 1


def total(x: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """The sum over ranks of `x`, differentiable."""
    return x if ranks(group) == 1 else _Total.apply(x, group)


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        ctx.group = group
        x = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(x, group=group)
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        grad = grads[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad, group=ctx.group)
        return grad, None


def checked(z: Tensor, name: str, group: dist.ProcessGroup | None) -> Tensor:
    """z in the type it is computed in: float64 stays, everything else becomes float32.

    Raises InputError for anything but floating point (2N, d) with N >= 2 over all ranks.
    """
    check_views(z, name)
    if count(z, group) < 2:
        raise InputError(f"{name}: the batch holds {len(z) // 2} picture(s); its statistics need at least 2.")
    return z.to(torch.float64 if z.dtype == torch.float64 else torch.float32)


def count(z: Tensor, group: dist.ProcessGroup | None) -> int:
    """Pictures in the global batch; every rank passes the same number of rows."""
    return z.shape[0] // 2 * ranks(group)


def centred(view: Tensor, n: int, group: dist.ProcessGroup | None) -> Tensor:
    """A view's rows (N, d) without the global batch's mean."""
    return view - total(view.sum(dim=0), group) / n


def outer_product(one: Tensor, two: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """one^T two (d, d) of one, two (N, d), summed over the rows of all ranks."""
    return total(_Product.apply(one, two, True), group)


def product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in their own type."""
    return _Product.apply(a, b, False)


class _Product(torch.autograd.Function):
    """a @ b, or a^T @ b, in their own type in the backward pass too, which somebody may call within their autocast."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, transposed: bool) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.transposed = transposed
        return (a.T if transposed else a) @ b

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (a, b), grad = ctx.saved_tensors, grads[0]
        of_a = of_b = None
        with torch.autocast(a.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                of_a = b @ grad.T if ctx.transposed else grad @ b.T
            if ctx.needs_input_grad[1]:
                of_b = a @ grad if ctx.transposed else a.T @ grad
        return of_a, of_b, None
