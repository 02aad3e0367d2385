"""The weights' gradient as one product, against the library's: the same in float64, no worse in bfloat16."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.grad import conv2d_weight

from headstart.engine import small_maps


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_any_convolution(data: st.DataObject) -> None:
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    kernel, stride = data.draw(pair), data.draw(pair)
    padding = data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    height, width = (data.draw(st.integers(k, 6)) for k in kernel)
    n, channels, out = (data.draw(st.integers(1, 5)) for _ in range(3))
    layout = data.draw(st.sampled_from([torch.contiguous_format, torch.channels_last]))
    conv = nn.Conv2d(channels, out, kernel, stride, padding, bias=False).double()
    x = torch.randn(n, channels, height, width, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    wanted = conv(x)
    found = small_maps.convolution(x, conv.weight, stride, padding)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    probe = torch.randn_like(wanted)
    for ours, theirs in zip(*(torch.autograd.grad(y, (x, conv.weight), probe) for y in (found, wanted)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert small_maps.pays(conv, height, width) == (wanted.shape[2] * wanted.shape[3] <= small_maps.PIXELS)


@pytest.mark.parametrize("limit", [1, 5_000, 2**22])
def test_parts_of_a_batch_add_up(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_maps, "PATCHES", limit)
    x, grad = torch.randn(7, 8, 4, 4).double(), torch.randn(7, 6, 4, 4).double()
    found = small_maps.weight_gradient(x, grad, (3, 3), (1, 1), (1, 1))
    wanted = conv2d_weight(x, (6, 8, 3, 3), grad, padding=1)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_bfloat16_rounds_no_more_than_the_library() -> None:
    x, grad = torch.randn(64, 32, 4, 4).bfloat16(), torch.randn(64, 16, 4, 4).bfloat16()
    exact = conv2d_weight(x.double(), (16, 32, 3, 3), grad.double(), padding=1)
    library = conv2d_weight(x, (16, 32, 3, 3), grad, padding=1)
    ours = small_maps.weight_gradient(x, grad, (3, 3), (1, 1), (1, 1))
    assert (ours - exact).norm() <= 1.2 * (library - exact).norm()


def test_only_where_it_was_measured_to_pay() -> None:
    conv = nn.Conv2d(4, 4, 3, padding=1)
    assert small_maps.pays(conv, 4, 4)
    assert not small_maps.pays(conv, 5, 4)
    others: list[dict[str, Any]] = [{"groups": 2}, {"dilation": 2, "padding": 2}, {"padding": "same"}]
    for other in (*others, {"padding_mode": "reflect"}):
        assert not small_maps.pays(nn.Conv2d(4, 4, 3, **{"padding": 1, **other}), 4, 4)
    x = torch.randn(1, 4, 4, 4)
    assert not small_maps.applies(x)
    assert small_maps.applies(x.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        assert small_maps.applies(x)
        with torch.no_grad():
            assert not small_maps.applies(x)
