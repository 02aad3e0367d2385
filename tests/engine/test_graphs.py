"""Recorded passes without a GPU: a graph that is replayed by computing again; tests/device has them on a real one."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from headstart.engine import distributed, graphs, memory
from headstart.engine.device import Compute
from headstart.ntxent import nt_xent
from headstart.training.step import SimCLR

HOST = Compute(torch.device("cpu"), torch.float32)


def network() -> SimCLR:
    """f and g with batch norm, an unused layer and one without gradient."""
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    head = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    head[0].requires_grad_(False)
    model = SimCLR(backbone, head)
    model.register_module("unused", nn.Linear(2, 2))
    return model


class Replayed:
    """In place of torch.cuda.CUDAGraph: `again` computes what was recorded, into the same tensors."""

    again: Callable[[], None]

    def replay(self) -> None:
        self.again()

    def pool(self) -> None:
        """A graph's memory."""


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Callable[[SimCLR, Tensor], graphs.Passes]:
    @contextlib.contextmanager
    def recording(graph: Replayed, **options: Any) -> Iterator[None]:
        yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Replayed)
    monkeypatch.setattr(torch.cuda, "graph", recording)

    def made(model: SimCLR, views: Tensor) -> graphs.Passes:
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        recorded = graphs.Passes(model, views, HOST)
        for name, buffer in model.named_buffers():  # recording computes nothing
            buffer.copy_(buffers[name])
        kept: list[Tensor] = []

        def forward() -> None:
            h, z = model(recorded.views)
            kept[:] = [z]
            recorded.h.copy_(h.detach())
            recorded.z.copy_(z.detach())

        def backward() -> None:
            found = torch.autograd.grad(kept[0], recorded.moved, recorded.slope, allow_unused=True)
            for there, gradient in zip(recorded.gradients, found, strict=True):
                assert (there is None) == (gradient is None)
                if there is not None and gradient is not None:
                    there.copy_(gradient)

        recorded.forward.again, recorded.backward.again = forward, backward  # type: ignore[attr-defined]
        return recorded

    return made


def test_steps_are_those_of_autograd(passes: Callable[[SimCLR, Tensor], graphs.Passes]) -> None:
    """Loss, h, every gradient and the running statistics, over steps on other views than were recorded."""
    plain, other = network(), network()
    draws = torch.Generator().manual_seed(0)
    batches = [torch.rand(8, 3, 6, 6, generator=draws).contiguous(memory_format=torch.channels_last) for _ in range(4)]
    recorded = passes(other, torch.rand(8, 3, 6, 6, generator=draws).contiguous(memory_format=torch.channels_last))
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9) for model in (plain, other)]
    for views in batches:
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        h, z = plain(views)
        loss = nt_xent(z)
        loss.backward()
        there, h_there = recorded(views, nt_xent)
        assert torch.equal(loss, there)
        assert torch.equal(h, h_there)
        for (name, one), two in zip(plain.named_parameters(), other.parameters(), strict=True):
            if one.grad is None or two.grad is None:
                assert one.grad is two.grad, name
            else:
                assert torch.equal(one.grad, two.grad), name
        for optimizer in optimizers:
            optimizer.step()
    for one, two in zip(plain.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(one, two)


def test_h_of_a_step_is_not_overwritten_by_the_next(passes: Callable[[SimCLR, Tensor], graphs.Passes]) -> None:
    """Somebody who watches may keep it."""
    one, two = torch.rand(2, 8, 3, 6, 6)
    recorded = passes(network(), one)
    _, h = recorded(one, nt_xent)
    before = h.clone()
    recorded(two, nt_xent)
    assert torch.equal(h, before)


def test_a_gradient_lies_as_its_parameter() -> None:
    parameter = torch.rand(4, 3, 3, 3).contiguous(memory_format=torch.channels_last)
    gradient = torch.rand(4, 3, 3, 3)
    laid = graphs._laid_out(gradient, parameter)
    assert laid.stride() == parameter.stride()
    assert torch.equal(laid, gradient)


class Own(nn.Module):
    """Of a package that is not known."""


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Compute:
    """What `may_record` asks of a GPU, pretended: 1 GiB taken by a step, 10 free."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 2**30)
    monkeypatch.setattr(memory, "free", lambda device, sharers: 10 * 2**30)
    return Compute(torch.device("cuda", 0), torch.bfloat16)


def test_who_is_recorded(gpu: Compute, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known networks by one process on a GPU with room, unless the environment says no."""
    model = network()
    assert graphs.may_record(model, gpu)
    assert not graphs.may_record(model, HOST)
    assert not graphs.may_record(SimCLR(Own(), nn.Identity()), gpu)
    with monkeypatch.context() as patch:
        patch.setattr(memory, "free", lambda device, sharers: 2**30)
        assert not graphs.may_record(model, gpu)
    with monkeypatch.context() as patch:
        patch.setattr(distributed, "world_size", lambda: 2)
        assert not graphs.may_record(model, gpu)
    monkeypatch.setenv("HEADSTART_CUDA_GRAPHS", "0")
    assert not graphs.may_record(model, gpu)


def test_what_cannot_be_recorded_is_computed_all_the_same(
    gpu: Compute, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(network: nn.Module, views: Tensor, compute: Compute) -> graphs.Passes:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(graphs, "Passes", refused)
    monkeypatch.setattr(graphs, "_undone_where_it_fails", contextlib.nullcontext)
    assert graphs.recorded(network(), torch.rand(8, 3, 6, 6), gpu) is None
    assert "slower: operation not permitted when stream is capturing\n" in capsys.readouterr().err
    assert graphs.recorded(network(), torch.rand(8, 3, 6, 6), HOST) is None
