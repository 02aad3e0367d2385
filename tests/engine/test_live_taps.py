"""Live taps against the plain convolution: outputs and every gradient, at the sizes they are for and at any other."""

import copy
import io
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models import ResNet

from headstart.engine import live_taps, small_maps
from headstart.engine.live_taps import LiveConv2d


def cifar_stem(network: ResNet) -> ResNet:
    network.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    network.maxpool = nn.Identity()
    return network


def build(name: str) -> Any:
    torch.manual_seed(0)
    network = getattr(torchvision.models, name.removesuffix("-cifar"))(num_classes=5)
    return cifar_stem(network) if name.endswith("-cifar") else network


def outputs_and_gradients(network: nn.Module, x: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    out = network(x)
    probe = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    parameters = [p for p in network.parameters() if p.requires_grad]
    return [out.detach(), *torch.autograd.grad((out * probe).mean(), [x, *parameters])]


def assert_same(network: nn.Module, x: Tensor, size: int, atol: float = 1e-9, rtol: float = 1e-9) -> nn.Module:
    live = live_taps.apply(copy.deepcopy(network), size)
    for a, b in zip(outputs_and_gradients(live, x), outputs_and_gradients(network, x), strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol)
    return live


def count(network: nn.Module) -> int:
    return sum(type(m) is LiveConv2d for m in network.modules())


@pytest.mark.parametrize(
    ("name", "size", "changed"),
    [
        ("resnet18", 32, 15),  # every convolution of layers 2 to 4: their outputs have 4x4 pixels and fewer
        ("resnet34", 32, 29),
        ("resnet50", 32, 41),
        ("resnet18", 64, 10),
        ("resnet18-cifar", 16, 10),
        ("mobilenet_v3_small", 32, None),  # depthwise 5x5 on maps of one pixel
        ("densenet121", 32, None),
    ],
)
@pytest.mark.parametrize(
    ("channels_last", "everywhere"),
    [
        (True, False),  # as trainings have it
        (False, True),
        pytest.param(False, False, marks=pytest.mark.soak),
        pytest.param(True, True, marks=pytest.mark.soak),
    ],
    ids=["channels last", "small maps in any precision", "", "channels last, small maps in any precision"],
)
def test_networks(
    name: str, size: int, changed: int | None, channels_last: bool, everywhere: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small_maps, "applies", lambda input: everywhere)
    network = build(name).double()
    network.eval() if changed is None else network.train()  # batch norm over maps of one pixel amplifies roundings
    x = torch.randn(8, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    if channels_last:
        network, x = network.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    live = assert_same(network, x, size)
    assert count(live) == changed if changed is not None else count(live) > 0
    assert live.training == network.training


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_any_convolution(data: st.DataObject) -> None:
    """Any kernel, stride, padding, dilation and groups, at the size it was prepared for and at another."""
    draw = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    groups = data.draw(st.sampled_from([1, 1, 2, 4]))
    kernel, dilation = (draw(1, 7), draw(1, 7)), (draw(1, 3), draw(1, 3))
    stride, padding = (draw(1, 3), draw(1, 3)), (draw(0, 4), draw(0, 4))
    conv = nn.Conv2d(
        4,
        8,
        kernel,
        stride,
        padding,
        dilation,
        groups,
        bias=data.draw(st.booleans()),
    ).double()
    network = nn.Sequential(nn.Conv2d(3, 4, 1).double(), conv)
    smallest = max(d * (k - 1) + 1 - 2 * p for d, k, p in zip(dilation, kernel, padding, strict=True))
    size = draw(max(1, smallest), max(1, smallest) + 4)
    live = live_taps.apply(copy.deepcopy(network), size)
    for height, width in ((size, size), (size + 1, size), (size, size + 2), (size + 3, size + 3)):
        x = torch.randn(2, 3, height, width, dtype=torch.float64)
        for a, b in zip(outputs_and_gradients(live, x), outputs_and_gradients(network, x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_every_multiplication_counted_is_needed() -> None:
    """At 2 x 2 a 3 x 3 kernel has 16 products of 36, at 1 x 1 one of 9; at 4 x 4 no tap is dead."""
    conv = nn.Conv2d(8, 4, 3, padding=1)
    assert live_taps.products(conv, 2, 2) == 16 * 32
    assert live_taps.products(conv, 2, 2, live=False) == 36 * 32
    assert live_taps.products(conv, 1, 1) == 32
    assert live_taps.products(conv, 4, 4) == live_taps.products(conv, 4, 4, live=False) == 16 * 9 * 32
    assert live_taps.products(nn.Conv2d(8, 8, 3, padding=1, groups=8), 1, 1) == 8
    assert live_taps.products(nn.Conv2d(8, 4, 3, padding="same"), 2, 2) == 36 * 32


def test_networks_without_dead_taps_or_small_maps_stay_as_they_are() -> None:
    assert count(live_taps.apply(build("resnet18-cifar"), 64)) == 0


def test_another_size_at_run_time() -> None:
    network = build("resnet18").double().eval()
    live = live_taps.apply(copy.deepcopy(network), 32)
    for size in (32, 48, 64, 96, 33):
        x = torch.randn(1, 3, size, size, dtype=torch.float64)
        torch.testing.assert_close(live(x), network(x), rtol=1e-9, atol=1e-9)


def test_parameters_stay_the_full_ones() -> None:
    network = build("resnet18")
    live = live_taps.apply(copy.deepcopy(network), 32)
    assert list(live.state_dict()) == list(network.state_dict())
    for a, b in zip(live.state_dict().values(), network.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    live(torch.randn(4, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in live.parameters())
    plain = build("resnet18")
    plain.load_state_dict(live.state_dict())
    assert count(live_taps.apply(live, 32)) == count(live)
    buffer = io.BytesIO()
    torch.save(live, buffer)
    buffer.seek(0)
    again = torch.load(buffer, weights_only=False)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(again.eval()(x), live.eval()(x))


def test_frozen_layers_and_no_gradient() -> None:
    network = build("resnet18").double().eval()
    for parameter in network.layer4.parameters():
        parameter.requires_grad_(False)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    live = assert_same(network, x, 32)
    with torch.no_grad():
        assert torch.equal(live(x), live(x))


def test_bfloat16_autocast_rounds_no_more_than_the_plain_convolution() -> None:
    """Both against float32: the error of the skipping form is that of bfloat16 itself. Weight gradients are float32."""
    torch.manual_seed(0)
    conv = nn.Conv2d(64, 64, 3, padding=1, bias=True).to(memory_format=torch.channels_last)
    network = live_taps.apply(nn.Sequential(nn.Conv2d(3, 64, 1), copy.deepcopy(conv)), 2)
    live = network.get_submodule("1")
    assert type(live) is LiveConv2d
    x = torch.randn(32, 64, 2, 2).contiguous(memory_format=torch.channels_last)
    exact = outputs_and_gradients(conv, x)
    with torch.autocast("cpu", torch.bfloat16):
        plain, skipping = outputs_and_gradients(conv, x), outputs_and_gradients(live, x)
    assert skipping[0].dtype == plain[0].dtype == torch.bfloat16
    assert skipping[2].dtype == torch.float32
    for e, p, s in zip(exact, plain, skipping, strict=True):
        assert (s - e).norm() <= 1.2 * (p - e).norm() + 1e-6 * e.norm()
