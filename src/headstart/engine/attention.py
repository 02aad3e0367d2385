"""Attention under bfloat16 on a CPU: computed in float32 where the processor multiplies no bfloat16 tiles.

torch's kernel for it in bfloat16 is made for such tiles (AMX). Elsewhere the same kernel in float32 is, conversions
included, 2 to 3 times as fast at 49 to 101 tokens and 1.2 times at 197 and 257 (`python -m benchmarks attention`). The
rest of the network stays in bfloat16.
"""

import contextlib
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_KERNEL = functional.scaled_dot_product_attention
_LOCK = threading.Lock()
_within = 0
"""Contexts that are open, in all threads."""


def pays(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether attention in `dtype` on `device` is slower than in float32."""
    if device.type != "cpu" or dtype != torch.bfloat16:
        return False
    tiles = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return torch.backends.cpu.get_cpu_capability().startswith("AVX") and not tiles()


@contextlib.contextmanager
def in_float32(autocast: AbstractContextManager[object]) -> Iterator[None]:
    """`autocast` on a CPU, but that attention is float32's, rounded to autocast's precision, and so are its gradients.

    Networks find the function by its name in torch.nn.functional, where another stands meanwhile: a TorchFunctionMode
    would cost every operation of every network, and close the way that nn.MultiheadAttention takes in evaluation.
    """
    global _within
    with _LOCK:
        _within += 1
        functional.scaled_dot_product_attention = _attention
    try:
        with autocast:
            yield
    finally:
        with _LOCK:
            _within -= 1
            if not _within:
                functional.scaled_dot_product_attention = _KERNEL


def _attention(*args: Any, **named: Any) -> Tensor:
    if not torch.is_autocast_enabled("cpu"):  # another thread's, or within a part that wants its own precision
        return _KERNEL(*args, **named)
    with torch.autocast("cpu", enabled=False):
        output = _KERNEL(*map(_wide, args), **{name: _wide(value) for name, value in named.items()})
    return output.to(torch.get_autocast_dtype("cpu"))


def _wide(value: Any) -> Any:
    """A tensor of numbers in float32; a mask of truths, a number as it is."""
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value
