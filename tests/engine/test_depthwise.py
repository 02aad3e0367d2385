"""Depthwise convolutions whose gradients are taken in float32: the same in float64, no worse in bfloat16."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from headstart import backbones
from headstart.engine import depthwise, live_taps, small_maps


def gradients(output: Tensor, conv: nn.Conv2d, x: Tensor, probe: Tensor) -> tuple[Tensor, ...]:
    """Of the map, then of the weights."""
    return torch.autograd.grad(output, (x, conv.weight), probe)


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_any_convolution(data: st.DataObject) -> None:
    pair = st.tuples(st.integers(1, 5), st.integers(1, 5))
    kernel, stride = data.draw(pair), data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    height, width = (data.draw(st.integers(k, 9)) for k in kernel)
    channels = data.draw(st.integers(2, 5))
    layout = data.draw(st.sampled_from([torch.contiguous_format, torch.channels_last]))
    conv = nn.Conv2d(channels, channels, kernel, stride, padding, groups=channels, bias=False).double()
    x = torch.randn(3, channels, height, width, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    wanted = conv(x)
    found = depthwise.convolution(x, conv.weight, stride, padding)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    probe = torch.randn_like(wanted)
    both = (gradients(output, conv, x, probe) for output in (found, wanted))
    for ours, theirs in zip(*both, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert depthwise.pays(conv) == (max(stride) > 1 or max(kernel) > 3)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 1), (5, 2), (7, 1)])
def test_bfloat16_rounds_no_more_than_the_library(kernel: int, stride: int) -> None:
    conv = nn.Conv2d(32, 32, kernel, stride, kernel // 2, groups=32, bias=False).bfloat16()
    x = torch.randn(8, 32, 14, 14).bfloat16().requires_grad_()
    output = conv(x)
    probe = torch.randn_like(output)
    exact_conv, exact_x = copy.deepcopy(conv).double(), x.detach().double().requires_grad_()
    exact = gradients(exact_conv(exact_x), exact_conv, exact_x, probe.double())
    library = gradients(output, conv, x, probe)
    ours = gradients(depthwise.convolution(x, conv.weight, conv.stride, conv.padding), conv, x, probe)  # type: ignore[arg-type]
    for true, theirs, mine in zip(exact, library, ours, strict=True):
        assert (mine.double() - true).norm() <= 1.05 * (theirs.double() - true).norm()


def test_only_where_it_was_measured_to_pay() -> None:
    plain: dict[str, Any] = {"kernel_size": 3, "padding": 1, "groups": 8}
    assert depthwise.pays(nn.Conv2d(8, 8, **{**plain, "stride": 2}))
    assert depthwise.pays(nn.Conv2d(8, 8, **{**plain, "kernel_size": 5}))
    assert not depthwise.pays(nn.Conv2d(8, 8, **plain))
    others: list[dict[str, Any]] = [{"groups": 4}, {"groups": 1}, {"dilation": 2}, {"out_channels": 16}]
    for other in others:
        settings = {"in_channels": 8, "out_channels": 8, **plain, "stride": 2, **other}
        assert not depthwise.pays(nn.Conv2d(**settings))


@pytest.mark.parametrize("size", [32, 45])
@pytest.mark.parametrize("name", ["timm:tf_efficientnet_lite0", "efficientnet_b0", "mobilenet_v3_small"])
def test_networks_of_them_stay_as_they_are(name: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    network = backbones.build(name).double().eval()
    live = live_taps.apply(copy.deepcopy(network), size)
    changed = [module for module in live.modules() if isinstance(module, live_taps.LiveConv2d)]
    assert sum(depthwise.pays(module) for module in changed) == sum(
        depthwise.pays(module) for module in network.modules() if isinstance(module, nn.Conv2d)
    )
    monkeypatch.setattr(small_maps, "applies", lambda input: True)
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    outputs = [net(x) for net in (live, network)]
    torch.testing.assert_close(*outputs, rtol=1e-9, atol=1e-9)
    for output in outputs:
        output.square().mean().backward()
    for ours, theirs in zip(live.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-10)


def test_bfloat16_under_autocast_gives_float32_weights_their_gradient() -> None:
    conv = nn.Conv2d(8, 8, 5, 2, 2, groups=8)
    network = live_taps.apply(nn.Sequential(nn.Conv2d(3, 8, 1), conv), 16)
    with torch.autocast("cpu", torch.bfloat16):
        output = network(torch.randn(4, 3, 16, 16))
    output.float().sum().backward()
    assert output.dtype == torch.bfloat16
    assert conv.weight.grad is not None
    assert conv.weight.grad.dtype == torch.float32
