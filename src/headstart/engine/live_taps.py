"""Convolutions that skip kernel taps which see only padding.

Comes in: a network and the side of its pictures. Goes out: the same network, same parameters, same outputs and
gradients; where a feature map is so small that part of a zero-padded kernel only ever multiplies zeros, that part is
not computed.

At 32 pixels a ResNet with the ImageNet stem sees maps of 2 x 2 pixels in layer 3 and of 1 x 1 in layer 4: of the 36
products of a 3 x 3 kernel with the former 16 meet a pixel, of the 9 with the latter one. Leaving out terms that are
exactly zero is exact; only the order of the remaining additions changes. Weights, their gradients, the optimiser's
state and the state dict stay the full kernels.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from headstart.engine import depthwise, small_maps

Span = tuple[int, int]


def apply(backbone: nn.Module, size: int) -> nn.Module:
    """Make the convolutions of `backbone` that have dead taps for pictures (3, size, size) skip them; returns it.

    Those of small maps without dead taps change with them, for `small_maps`, and depthwise ones, for `depthwise`. Only
    plain nn.Conv2d with zero padding, and timm's that pads as TensorFlow does, change, and only in how they compute:
    each looks at the map it is really given, so any other size stays correct. Applying it twice changes nothing.
    """
    for conv, (height, width) in _map_sizes(backbone, size).items():
        if type(conv).__name__ == "Conv2dSame" and depthwise.pays(conv):
            conv.__class__ = LiveConv2dSame
        elif type(conv) is nn.Conv2d and (depthwise.pays(conv) or _gains(conv, height, width)):
            conv.__class__ = LiveConv2d
    return backbone


def _gains(conv: nn.Conv2d, height: int, width: int) -> bool:
    dead = products(conv, height, width) < products(conv, height, width, live=False)
    return dead or small_maps.pays(conv, height, width)


def products(conv: nn.Conv2d, height: int, width: int, live: bool = True) -> int:
    """Multiplications of a kernel with one map (C, height, width): those that a LiveConv2d computes, or all."""
    axes = _axes(conv, height, width) if live else None
    taps = conv.kernel_size[0] * conv.kernel_size[1]
    if axes and axes.windows:
        taps = height * width
    elif axes:
        taps = (axes.rows[1] - axes.rows[0]) * (axes.columns[1] - axes.columns[0])
    reach = [d * (k - 1) + 1 for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
    padding = [0, 0] if isinstance(conv.padding, str) else [2 * p for p in conv.padding]
    if conv.padding == "same":
        padding = [r - 1 for r in reach]
    outputs = [(e + p - r) // s + 1 for e, p, r, s in zip((height, width), padding, reach, conv.stride, strict=True)]
    return outputs[0] * outputs[1] * taps * conv.out_channels * conv.in_channels // conv.groups


class LiveConv2d(nn.Conv2d):
    """nn.Conv2d that leaves out what only multiplies padding at the size of the map it is given."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        axes = _axes(self, input.shape[2], input.shape[3]) if input.ndim == 4 else None
        if axes is None:
            return super()._conv_forward(input, weight, bias)
        applies = small_maps.applies(input)
        small, by_channel = applies and small_maps.pays(self, *input.shape[2:]), applies and depthwise.pays(self)
        if (axes.rows, axes.columns) != ((0, self.kernel_size[0]), (0, self.kernel_size[1])) and not axes.windows:
            weight = weight[:, :, slice(*axes.rows), slice(*axes.columns)]
        if not (axes.windows or small or by_channel):
            return nn.functional.conv2d(input, weight, bias, self.stride, axes.padding, self.dilation, self.groups)
        if torch.is_autocast_enabled(input.device.type):
            input = input.to(torch.get_autocast_dtype(input.device.type))
        if axes.windows:
            output = _WholeMap.apply(input, weight, axes.windows, axes.outputs)
        else:
            convolution = small_maps.convolution if small else depthwise.convolution
            output = convolution(input, weight, self.stride, axes.padding)  # type: ignore[arg-type]
        return output if bias is None else output + bias.to(output.dtype)[:, None, None]


class LiveConv2dSame(LiveConv2d):
    """timm's Conv2dSame, which pads its map by itself, as TensorFlow does: a pixel more at the end where it is odd."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) to (N, O, ceil(H / stride), ceil(W / stride))."""
        lacking = [
            max((-(-extent // s) - 1) * s + d * (k - 1) + 1 - extent, 0)
            for extent, k, s, d in zip(input.shape[2:], self.kernel_size, self.stride, self.dilation, strict=True)
        ]
        around = [part for total in reversed(lacking) for part in (total // 2, total - total // 2)]
        return self._conv_forward(nn.functional.pad(input, around), self.weight, self.bias)


def _map_sizes(backbone: nn.Module, size: int) -> dict[nn.Conv2d, Span]:
    """The last map each convolution is given for a picture (3, size, size)."""
    sizes: dict[nn.Conv2d, Span] = {}

    def look(conv: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(conv, nn.Conv2d)
        sizes[conv] = (inputs[0].shape[-2], inputs[0].shape[-1])

    hooks = [m.register_forward_pre_hook(look) for m in backbone.modules() if isinstance(m, nn.Conv2d)]
    modes = {module: module.training for module in backbone.modules()}
    first = next(backbone.parameters())
    try:
        backbone.eval()
        with torch.no_grad():
            backbone(torch.zeros(1, 3, size, size, device=first.device, dtype=first.dtype))
    finally:
        for module, mode in modes.items():
            module.training = mode
        for hook in hooks:
            hook.remove()
    return sizes


class _Axes:
    """What is live of a kernel at one size of its map.

    Attributes:
        rows, columns: first and last + 1 live tap along each axis; `padding` is what a convolution with these needs.
        windows: for each output the part of the kernel on the map, where that is the whole map for every output and
            fewer products than the live taps would be; else empty. `outputs`: height and width of the output then.
    """

    def __init__(
        self, kernel: Span, stride: Span, padding: Span, dilation: Span, groups: int, height: int, width: int
    ) -> None:
        both = [
            _live_span(*numbers) for numbers in zip(kernel, stride, padding, dilation, (height, width), strict=True)
        ]
        self.rows, self.columns = both
        self.padding = tuple(p - span[0] * d for p, span, d in zip(padding, both, dilation, strict=True))
        sides = [_windows(*numbers) for numbers in zip(kernel, stride, padding, (height, width), strict=True)]
        self.outputs = len(sides[0]), len(sides[1])
        pays = groups == 1 and dilation == (1, 1) and height * width < kernel[0] * kernel[1]
        self.windows = tuple(itertools.product(sides[0], sides[1])) if pays else ()


def _axes(conv: nn.Conv2d, height: int, width: int) -> _Axes | None:
    if isinstance(conv.padding, str) or conv.padding_mode != "zeros":
        return None
    return _cached_axes(conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, height, width)


@functools.lru_cache(maxsize=1024)
def _cached_axes(*geometry: Any) -> _Axes:
    return _Axes(*geometry)


def _live_span(taps: int, stride: int, padding: int, dilation: int, extent: int) -> Span:
    """First and last + 1 tap that meets a pixel; all taps where a cut kernel would need unequal padding."""
    outputs = range((extent + 2 * padding - dilation * (taps - 1) - 1) // stride + 1)
    live = [t for t in range(taps) if any(0 <= o * stride - padding + t * dilation < extent for o in outputs)]
    if not live:
        return 0, taps
    left, reach = padding - live[0] * dilation, dilation * (live[-1] - live[0]) + 1
    fits = left >= 0 and (extent + 2 * left - reach) // stride + 1 == len(outputs)
    return (live[0], live[-1] + 1) if fits else (0, taps)


def _windows(taps: int, stride: int, padding: int, extent: int) -> list[Span]:
    """For each output the taps that lie on the map, if for each that is the whole map; else nothing."""
    firsts = [padding - o * stride for o in range((extent + 2 * padding - taps) // stride + 1)]
    whole = all(first >= 0 and first + extent <= taps for first in firsts)
    return [(first, first + extent) for first in firsts] if whole else []


class _WholeMap(torch.autograd.Function):
    """A convolution each of whose outputs sees the whole map, as one product of matrices (pixels x channels)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, windows: tuple[tuple[Span, Span], ...], outputs: Span) -> Tensor:
        pixels = x.permute(0, 2, 3, 1).flatten(1)  # (N, H W C), a view of a channels_last map
        taps = weight.permute(0, 2, 3, 1)  # (O, k, k, C)
        parts = [taps[:, slice(*rows), slice(*columns)].to(x.dtype).flatten(1) for rows, columns in windows]
        matrix = torch.cat(parts)
        ctx.save_for_backward(pixels, matrix, weight)
        ctx.windows, ctx.shape = windows, x.shape
        return nn.functional.linear(pixels, matrix).view(len(x), *outputs, len(weight)).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        pixels, matrix, weight = ctx.saved_tensors
        grad = grads[0].permute(0, 2, 3, 1).flatten(1)
        n, channels, height, width = ctx.shape
        x_grad = weight_grad = None
        if ctx.needs_input_grad[0]:
            x_grad = (grad @ matrix).view(n, height, width, channels).permute(0, 3, 1, 2)
        if ctx.needs_input_grad[1]:
            parts = (grad.T @ pixels).view(len(ctx.windows), -1, height, width, channels).permute(0, 1, 4, 2, 3)
            weight_grad = torch.zeros_like(weight)
            for (rows, columns), part in zip(ctx.windows, parts, strict=True):
                weight_grad[:, :, slice(*rows), slice(*columns)] += part
        return x_grad, weight_grad, None, None
