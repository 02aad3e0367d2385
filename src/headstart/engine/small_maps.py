"""Convolutions of small maps in bfloat16 on a CPU: the gradient of their weights as one product of matrices.

oneDNN computes that gradient slowly where a map has few pixels (`python -m benchmarks small_maps`): in ResNet-34 at 32
pixels it was a third of a step. Laid out as (pixels of all pictures x taps and channels), the map's patches give it in
one product, rounded once; output and the input's gradient stay the library's.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Span = tuple[int, int]

PIXELS = 16
"""Outputs of more pixels than this are left to the library."""

PATCHES = 2**22
"""Elements of the patches that are laid out at once: 8 MB, which an allocator reuses and a cache partly holds."""


def pays(conv: nn.Conv2d, height: int, width: int) -> bool:
    """Whether `conv`, given maps (C, height, width), is of the kind that `convolution` is made for."""
    if isinstance(conv.padding, str) or conv.padding_mode != "zeros" or conv.groups > 1 or conv.dilation != (1, 1):
        return False
    rows, columns = (
        (extent + 2 * p - k) // s + 1
        for extent, p, k, s in zip((height, width), conv.padding, conv.kernel_size, conv.stride, strict=True)
    )
    return rows * columns <= PIXELS


def applies(input: Tensor) -> bool:
    """Whether this map is multiplied in bfloat16, on a CPU, and a gradient is wanted."""
    if input.device.type != "cpu" or not torch.is_grad_enabled():
        return False
    autocast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return autocast or input.dtype == torch.bfloat16


def convolution(input: Tensor, weight: Tensor, stride: Span, padding: Span) -> Tensor:
    """torch.nn.functional.conv2d of (N, C, H, W) and (O, C, k, l), in the input's precision."""
    output: Tensor = _Convolution.apply(input, weight, stride, padding)
    return output


def weight_gradient(x: Tensor, grad: Tensor, kernel: Span, stride: Span, padding: Span) -> Tensor:
    """Gradient (O, C, k, l) of the weights, from the map (N, C, H, W) and its output's gradient (N, O, rows, columns).

    Products in the map's precision; float32 (of a float64 map float64), summed over parts of the batch in that.
    """
    (n, channels, _, _), (out, rows, columns) = x.shape, grad.shape[1:]
    taps = kernel[0] * kernel[1] * channels
    part = max(1, PATCHES // (rows * columns * taps))
    total = torch.zeros(taps, out, dtype=torch.promote_types(x.dtype, torch.float32))
    around = (0, 0, padding[1], padding[1], padding[0], padding[0])
    for start in range(0, n, part):
        pixels = nn.functional.pad(x[start : start + part].permute(0, 2, 3, 1), around).contiguous()
        of_picture, of_row, of_pixel, _ = pixels.stride()
        patches = pixels.as_strided(
            (len(pixels), rows, columns, kernel[0], kernel[1] * channels),
            (of_picture, stride[0] * of_row, stride[1] * of_pixel, of_row, 1),
        )
        ours = grad[start : start + part].permute(0, 2, 3, 1).reshape(-1, out)
        total += patches.reshape(-1, taps).T @ ours
    return total.view(*kernel, channels, out).permute(3, 2, 0, 1)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Span, padding: Span) -> Tensor:
        same = weight.to(x.dtype)
        ctx.save_for_backward(x, same)
        ctx.stride, ctx.padding = stride, padding
        return nn.functional.conv2d(x, same, None, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (x, weight), (grad,) = ctx.saved_tensors, grads
        x_grad = weight_grad = None
        if ctx.needs_input_grad[0]:
            x_grad = torch.ops.aten.convolution_backward(
                grad, x, weight, None, ctx.stride, ctx.padding, (1, 1), False, (0, 0), 1, (True, False, False)
            )[0]
        if ctx.needs_input_grad[1]:
            weight_grad = weight_gradient(x, grad, weight.shape[2:], ctx.stride, ctx.padding)
        return x_grad, weight_grad, None, None
