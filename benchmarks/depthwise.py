"""Depthwise convolutions forth and back, and networks made of them, in two precisions: as the library does, and ours.

python -m benchmarks depthwise [--rounds 9] [--pictures 32]
"""

import functools
from collections.abc import Callable

import torch
from torch import nn

from benchmarks import common
from headstart import backbones
from headstart.engine import live_taps
from headstart.engine.device import choose

SHAPES = ((96, 3, 2, 56), (144, 5, 2, 28), (672, 5, 1, 7), (96, 7, 1, 28))
"""Channels, kernel, stride, side of the map: of EfficientNet, MobileNetV3 and ConvNeXt."""
NETWORKS = (
    "efficientnet_b0",
    "mobilenet_v3_large",
    "shufflenet_v2_x1_0",
    "convnext_tiny",
    "timm:tf_efficientnet_lite0",
)
SIDE = 112


def main(argv: list[str]) -> None:
    """Print one table a convolution and a network."""
    parser = common.options("depthwise", __doc__, rounds=9)
    parser.add_argument("--pictures", type=int, default=32)
    options = parser.parse_args(argv)
    choose("cpu", threads=options.threads)
    print(common.machine("cpu"))
    for channels, kernel, stride, side in SHAPES:
        conv = functools.partial(nn.Conv2d, channels, channels, kernel, stride, kernel // 2, groups=channels)
        title = f"{channels} channels, {kernel}x{kernel}, stride {stride}, maps of {side}x{side}"
        _table(title, conv, torch.randn(options.pictures, channels, side, side), options.rounds)
    for name in NETWORKS:
        network = functools.partial(backbones.build, name)
        _table(f"{name} at {SIDE} px", network, torch.randn(options.pictures, 3, SIDE, SIDE), options.rounds)


def _table(title: str, make: Callable[[], nn.Module], x: torch.Tensor, rounds: int) -> None:
    ours = make()
    if isinstance(ours, nn.Conv2d):
        ours.__class__ = live_taps.LiveConv2d
    else:
        live_taps.apply(ours, SIDE)
    layers = {"oneDNN": make(), "Headstart": ours}
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    ways: dict[str, common.Way] = {}
    for name, layer in layers.items():
        layer.to(memory_format=torch.channels_last)
        for precision in ("float32", "bfloat16"):
            step = functools.partial(_forth_and_back, layer, x, precision == "bfloat16")
            ways[f"{name}, {precision}"] = functools.partial(common.once, step, len(x))
    common.table(title, common.interleave(ways, rounds), "pictures")


def _forth_and_back(layer: nn.Module, x: torch.Tensor, bfloat16: bool) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        output = layer(x)
    output.float().square().mean().backward()
