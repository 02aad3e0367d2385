"""The gradient of the weights of ResNet-34's convolutions at 32 pixels, in bfloat16: the library's, and Headstart's.

python -m benchmarks small_maps [--rounds 9] [--pictures 512]
"""

import functools

import torch

from benchmarks import common
from headstart.engine import small_maps

SHAPES = ((64, 128, 3, 2, 8), (64, 128, 1, 2, 8), (128, 128, 3, 1, 4), (128, 256, 3, 2, 4))
"""Channels in, channels out, kernel, stride, side of the map."""


def main(argv: list[str]) -> None:
    """Print one table a convolution."""
    parser = common.options("small_maps", __doc__, rounds=9)
    parser.add_argument("--pictures", type=int, default=512)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads or common.cores())
    print(common.machine("cpu"))
    for channels, out, kernel, stride, side in SHAPES:
        x = torch.randn(options.pictures, channels, side, side).bfloat16().contiguous(memory_format=torch.channels_last)
        weight = torch.randn(out, channels, kernel, kernel).bfloat16().contiguous(memory_format=torch.channels_last)
        padding = kernel // 2
        grad = torch.randn_like(torch.nn.functional.conv2d(x, weight, None, stride, padding))
        library = functools.partial(
            torch.ops.aten.convolution_backward,
            grad,
            x,
            weight,
            None,
            (stride,) * 2,
            (padding,) * 2,
            (1, 1),
            False,
            (0, 0),
            1,
            (False, True, False),
        )
        ours = functools.partial(
            small_maps.weight_gradient, x, grad, (kernel, kernel), (stride, stride), (padding, padding)
        )
        ways = {"oneDNN": functools.partial(common.once, library), "Headstart": functools.partial(common.once, ours)}
        title = f"{channels} to {out} channels, {kernel}x{kernel}, stride {stride}, maps of {side}x{side}"
        common.table(title, common.interleave(ways, options.rounds), "gradients")
