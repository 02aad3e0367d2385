"""Attention under bfloat16 on a CPU is float32's, where that is the faster."""

from typing import Any

import pytest
import torch
from torch import Tensor

from headstart import backbones
from headstart.engine import attention
from headstart.engine.device import Compute

CPU = torch.device("cpu")
LOW = Compute(CPU, torch.bfloat16)
kernel: Any = torch.nn.functional.scaled_dot_product_attention


def parts(dtype: torch.dtype = torch.bfloat16) -> list[Tensor]:
    """Queries, keys and values (2, 3, 50, 16)."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, 3, 50, 16, generator=generator).to(torch.bfloat16).to(dtype).requires_grad_() for _ in range(3)
    ]


@pytest.fixture(params=[True, False], ids=["without tiles", "with tiles"])
def pays(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Processors of both kinds."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: not request.param, raising=False)
    return bool(request.param)


def test_it_is_computed_in_float32_where_there_are_no_tiles(pays: bool) -> None:
    """The output is rounded once, and every gradient."""
    low, wide = parts(), parts(torch.float32)
    with LOW.autocast():
        output = kernel(low[0], low[1], value=low[2], is_causal=True)
    expected = kernel(*wide, is_causal=True)
    assert output.dtype == torch.bfloat16
    assert torch.equal(output, expected.to(torch.bfloat16)) or not pays
    torch.testing.assert_close(output.float(), expected, rtol=0.02, atol=0.02)
    output.float().square().sum().backward()
    expected.to(torch.bfloat16).float().square().sum().backward()
    for one, other in zip(low, wide, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.equal(one.grad, other.grad.to(torch.bfloat16)) or not pays


@pytest.mark.parametrize(
    "mask", [torch.ones(50, 50, dtype=torch.bool).tril(), torch.zeros(50, 50)], ids=["truths", "sums"]
)
def test_it_takes_every_mask(mask: Tensor) -> None:
    """And a scale and no dropout, named or not."""
    low = parts()
    with attention.in_float32(torch.autocast("cpu", torch.bfloat16)):
        output = kernel(*low, mask, 0.0, scale=0.5)
    expected = kernel(*parts(torch.float32), mask, 0.0, scale=0.5)
    assert torch.equal(output, expected.to(torch.bfloat16))


def test_a_transformer_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What timm's attention calls is what is replaced."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    given: list[torch.dtype] = []
    wide = attention._wide

    def seen(value: object) -> object:
        if isinstance(value, Tensor):
            given.append(value.dtype)
        return wide(value)

    monkeypatch.setattr(attention, "_wide", seen)
    network = backbones.build("timm:test_vit", size=32).train()
    with LOW.autocast():
        h = network(torch.randn(2, 3, 32, 32))
    assert set(given) == {torch.bfloat16}
    h.float().sum().backward()


def test_elsewhere_nothing_changes() -> None:
    """float32, and a GPU."""
    assert not attention.pays(CPU, torch.float32)
    assert not attention.pays(torch.device("cuda"), torch.bfloat16)
