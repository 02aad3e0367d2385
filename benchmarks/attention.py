"""Attention under bfloat16 on a CPU, forth and back: torch's choice, its other kernels and layouts, and Headstart's.

    python -m benchmarks attention [--rounds 5] [--pictures 16]

The first tables are of attention alone, on parts of one product (N, T, 3, H, D) seen as (N, H, T, D), as timm's
transformers hand it over; the last of whole networks.
"""

import argparse
import contextlib
import functools
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks import common
from headstart import backbones
from headstart.engine.attention import in_float32
from headstart.engine.device import choose

SHAPES = ((3, 49, 32), (12, 49, 64), (6, 65, 64), (6, 101, 64), (6, 197, 64), (12, 197, 64), (6, 257, 64))
"""Heads, tokens, width of a head: windows of 7x7, ViT-S/16 at 128, 160, 224 and 256 px, ViT-B/16."""
NETWORKS = (("timm:vit_small_patch16_224", 128), ("timm:vit_small_patch16_224", 224))
Context = Callable[[], AbstractContextManager[object]]


def main(argv: list[str]) -> None:
    """Print one table a shape and a network."""
    parser = common.options("attention", __doc__, rounds=5)
    parser.add_argument("--pictures", type=int, default=16, help="as many views")
    options = parser.parse_args(argv)
    choose("cpu", threads=options.threads)
    print(common.machine("cpu"))
    low = functools.partial(torch.autocast, "cpu", torch.bfloat16)
    contexts: dict[str, Context] = {"torch's choice": low, "Headstart": lambda: in_float32(low())}
    for heads, tokens, width in SHAPES:
        product = torch.randn(options.pictures, tokens, 3, heads, width, dtype=torch.bfloat16, requires_grad=True)
        runs = {name: functools.partial(_attend, product, context) for name, context in contexts.items()}
        runs["torch's choice, contiguous"] = functools.partial(_attend, product, low, contiguous=True)
        runs["its plain products"] = functools.partial(_attend, product, low, math=True)
        _table(f"{heads} heads, {tokens} tokens, width {width}", runs, options)
    for name, size in NETWORKS:
        network = backbones.build(name, size=size).train()
        views = torch.randn(options.pictures, 3, size, size)
        runs = {way: functools.partial(_train, network, views, context) for way, context in contexts.items()}
        _table(f"{name} at {size} px", runs, options)


def _table(title: str, runs: Mapping[str, Callable[[], None]], options: argparse.Namespace) -> None:
    ways = {name: functools.partial(common.once, run, options.pictures) for name, run in runs.items()}
    common.table(title, common.interleave(ways, options.rounds), "pictures")


def _attend(product: Tensor, context: Context, contiguous: bool = False, math: bool = False) -> None:
    query, key, value = product.permute(2, 0, 3, 1, 4).unbind(0)
    if contiguous:
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
    with context(), sdpa_kernel(SDPBackend.MATH) if math else contextlib.nullcontext():
        output = nn.functional.scaled_dot_product_attention(query, key, value)
    output.transpose(1, 2).float().square().mean().backward()


def _train(network: nn.Module, views: Tensor, context: Context) -> None:
    with context():
        h = network(views)
    h.float().square().mean().backward()
