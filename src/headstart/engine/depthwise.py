"""Depthwise convolutions in bfloat16 on a CPU: those gradients in float32 that the library has no fast kernel for.

oneDNN falls back to plain loops for the input's gradient where the stride is above 1, and for the weights' where the
kernel is above 3 x 3: there bfloat16 is 3 to 100 times slower than float32, and a step of EfficientNet or MobileNetV3
slower as a whole (`python -m benchmarks depthwise`). The output and every other gradient stay in bfloat16.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Span = tuple[int, int]

KERNEL = 3
"""Kernels up to this side have fast gradients of their weights."""


def pays(conv: nn.Conv2d) -> bool:
    """Whether `conv` is of the kind that `convolution` is made for."""
    depthwise = 1 < conv.groups == conv.in_channels == conv.out_channels
    return depthwise and conv.dilation == (1, 1) and _slow(conv.stride, conv.kernel_size) != (False, False)


def convolution(input: Tensor, weight: Tensor, stride: Span, padding: Span) -> Tensor:
    """torch.nn.functional.conv2d of (N, C, H, W) and (C, 1, k, l) with C groups, in the input's precision."""
    output: Tensor = _Convolution.apply(input, weight, stride, padding)
    return output


def _slow(stride: tuple[int, ...], kernel: tuple[int, ...]) -> tuple[bool, bool]:
    """Whether the input's and the weights' gradient lack a fast kernel in bfloat16."""
    return max(stride) > 1, max(kernel) > KERNEL


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Span, padding: Span) -> Tensor:
        same = weight.to(x.dtype)
        ctx.save_for_backward(x, same)
        ctx.stride, ctx.padding = stride, padding
        return nn.functional.conv2d(x, same, None, stride, padding, 1, len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (x, weight), (grad,) = ctx.saved_tensors, grads
        given = grad, x, weight
        wide = tuple(tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in given)
        settings = None, ctx.stride, ctx.padding, (1, 1), False, (0, 0), len(weight)
        found: list[Tensor | None] = [None, None]
        for i, slow in enumerate(_slow(ctx.stride, weight.shape[2:])):
            if ctx.needs_input_grad[i]:
                wanted = tuple(j == i for j in range(3))
                found[i] = torch.ops.aten.convolution_backward(*(wide if slow else given), *settings, wanted)[i]
        x_grad, weight_grad = found
        return None if x_grad is None else x_grad.to(x.dtype), weight_grad, None, None
