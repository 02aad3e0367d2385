"""Attention under bfloat16 on a CPU is float32's, where that is the faster."""

import contextlib

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart import backbones
from headstart.engine import attention
from headstart.engine.device import Compute

CPU = torch.device("cpu")
LOW = Compute(CPU, torch.bfloat16)


def parts(dtype: torch.dtype = torch.bfloat16) -> list[Tensor]:
    """Queries, keys and values (2, 3, 50, 16)."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, 3, 50, 16, generator=generator).to(torch.bfloat16).to(dtype).requires_grad_() for _ in range(3)
    ]


@pytest.fixture(params=["AVX512", "AVX2", "tiles", "SVE256"])
def pays(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Processors of four kinds, and whether float32 is the faster one there."""
    capability = "AVX512" if request.param == "tiles" else request.param
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: request.param == "tiles", raising=False)
    return request.param.startswith("AVX")


def test_it_is_computed_in_float32_where_there_are_no_tiles(pays: bool) -> None:
    """The output is rounded once, and every gradient; elsewhere both are autocast's own."""
    assert attention.pays(CPU, torch.bfloat16) is pays
    ours, expected = parts(), parts(torch.float32 if pays else torch.bfloat16)
    with LOW.autocast():
        output = attend(ours)
    if pays:
        same = attend(expected).to(torch.bfloat16)
    else:
        with torch.autocast("cpu", torch.bfloat16):
            same = attend(expected)
    assert torch.equal(output, same)
    output.float().square().sum().backward()
    same.float().square().sum().backward()
    for one, other in zip(ours, expected, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.equal(one.grad, other.grad.to(torch.bfloat16))


def attend(given: list[Tensor]) -> Tensor:
    """As timm does, by the name in torch.nn.functional."""
    query, key, value = given
    return functional.scaled_dot_product_attention(query, key, value=value, is_causal=True)


@pytest.mark.parametrize(
    "mask", [torch.ones(50, 50, dtype=torch.bool).tril(), torch.zeros(50, 50)], ids=["truths", "sums"]
)
def test_it_takes_every_mask(mask: Tensor) -> None:
    """And a scale and no dropout, named or not."""
    low = parts()
    with attention.in_float32(torch.autocast("cpu", torch.bfloat16)):
        output = masked(low, mask)
    expected = masked(parts(torch.float32), mask)
    assert torch.equal(output, expected.to(torch.bfloat16))


def masked(given: list[Tensor], mask: Tensor) -> Tensor:
    """A mask and no dropout by position, a scale by name."""
    query, key, value = given
    return functional.scaled_dot_product_attention(query, key, value, mask, 0.0, scale=0.5)


@pytest.mark.parametrize("name", ["timm:test_vit", "vit_b_32"])
def test_a_transformer_finds_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """timm's attention and torch's nn.MultiheadAttention, in training."""
    given: list[torch.dtype] = []
    wide = attention._wide

    def seen(value: object) -> object:
        if isinstance(value, Tensor):
            given.append(value.dtype)
        return wide(value)

    monkeypatch.setattr(attention, "_wide", seen)
    network = backbones.build(name, size=32).train()
    with attention.in_float32(torch.autocast("cpu", torch.bfloat16)):
        h = network(torch.randn(2, 3, 32, 32))
    assert set(given) == {torch.bfloat16}
    h.float().sum().backward()


def test_the_short_way_of_evaluation_stays_open() -> None:
    """nn.MultiheadAttention takes one kernel there for all it does, unless something watches torch's functions."""
    layer = nn.MultiheadAttention(16, 2, batch_first=True).eval()
    x = torch.randn(2, 5, 16)
    context = attention.in_float32(torch.autocast("cpu", torch.bfloat16))
    with torch.inference_mode(), context, torch.profiler.profile() as seen:
        layer(x, x, x, need_weights=False)
    assert "aten::_native_multi_head_attention" in {event.key for event in seen.key_averages()}


def test_torchs_function_is_back_after_the_last_context() -> None:
    """Contexts of several threads end in any order; an error ends one too."""
    kernel = functional.scaled_dot_product_attention
    one, two = (attention.in_float32(contextlib.nullcontext()) for _ in range(2))
    one.__enter__()
    two.__enter__()
    assert functional.scaled_dot_product_attention is not kernel
    one.__exit__(None, None, None)
    assert functional.scaled_dot_product_attention is not kernel
    two.__exit__(None, None, None)
    assert functional.scaled_dot_product_attention is kernel
    with pytest.raises(ZeroDivisionError), attention.in_float32(torch.autocast("cpu", torch.bfloat16)):
        _ = 1 / 0
    assert functional.scaled_dot_product_attention is kernel


def test_out_of_autocast_it_is_torchs_own() -> None:
    """Where a part of a network wants its own precision, and in other threads."""
    given = parts()
    with attention.in_float32(torch.autocast("cpu", torch.bfloat16)), torch.autocast("cpu", enabled=False):
        output = attend(given)
    assert torch.equal(output, attend(parts()))


def test_elsewhere_nothing_changes() -> None:
    """float32, and a GPU."""
    assert not attention.pays(CPU, torch.float32)
    assert not attention.pays(torch.device("cuda"), torch.bfloat16)
