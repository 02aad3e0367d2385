"""Optimisers: who is decayed, LARS against its formula, and the learning rate as a function of the step."""

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from headstart.records.config import ContrastiveConfig
from headstart.training.optimizers import build, groups, learning_rate, peak_learning_rate


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 36, 5))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def test_norms_and_biases_are_decayed_only_when_asked() -> None:
    model = network()
    names = {id(p): name for name, p in model.named_parameters()}
    matrices, vectors = groups(model.named_parameters(), ContrastiveConfig(weight_decay=0.01))
    assert {names[id(p)] for p in matrices["params"]} == {"0.weight", "4.weight"}
    assert {names[id(p)] for p in vectors["params"]} == {"0.bias", "2.weight", "2.bias", "4.bias"}
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.01, 0.0)
    config = ContrastiveConfig(weight_decay=0.01, decay_norms_and_biases=True)
    assert [g["weight_decay"] for g in groups(model.named_parameters(), config)] == [0.01, 0.01]


def test_frozen_parameters_are_in_no_group() -> None:
    model: Any = network()
    model[0].requires_grad_(False)
    found = {id(p) for g in groups(model.named_parameters(), ContrastiveConfig()) for p in g["params"]}
    assert found == {id(p) for i in (2, 4) for p in model[i].parameters()}
    model.requires_grad_(False)
    assert groups(model.named_parameters(), ContrastiveConfig()) == []


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_fused_step_is_the_plain_one(optimizer: str, memory_format: torch.memory_format) -> None:
    """Also where a weight is channels_last and its gradient is not."""
    config = ContrastiveConfig(optimizer=optimizer, weight_decay=0.1)
    models = [network().to(memory_format=memory_format) for _ in range(2)]
    fused = build(models[0].named_parameters(), config)
    assert all(group["fused"] for group in fused.param_groups)
    plain = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[optimizer](
        [{k: v for k, v in g.items() if k != "adapt"} for g in groups(models[1].named_parameters(), config)],
        **({"lr": 0.0, "momentum": 0.9} if optimizer == "sgd" else {"lr": 0.0}),
        foreach=False,
        fused=False,
    )
    for step in range(4):
        x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        for model, opt in zip(models, (fused, plain), strict=True):
            set_lr(opt, 0.05 / (step + 1))
            opt.zero_grad()
            model(x).square().sum().backward()
            opt.step()
    for one, two in zip(*(model.parameters() for model in models), strict=True):
        assert torch.allclose(one, two, rtol=1e-4, atol=1e-6)


def test_lars_is_its_formula() -> None:
    """v <- m v + lr trust |w| / |g + d w| (g + d w); w <- w - v (SimCLR's published optimiser), plain for vectors."""
    config = ContrastiveConfig(optimizer="lars", weight_decay=0.3, momentum=0.8)
    layer = nn.Linear(4, 3)
    optimizer = build(layer.named_parameters(), config)
    w, b = (p.detach().double().numpy().copy() for p in (layer.weight, layer.bias))
    v, u = np.zeros_like(w), np.zeros_like(b)
    for step, lr in enumerate((2.0, 1.0, 0.5)):
        x = torch.randn(6, 4, generator=torch.Generator().manual_seed(step))
        set_lr(optimizer, lr)
        optimizer.zero_grad()
        layer(x).square().sum().backward()
        optimizer.step()
        y = x.double().numpy() @ w.T + b
        g, gb = 2 * y.T @ x.double().numpy(), 2 * y.sum(0)
        g = g + 0.3 * w
        v = 0.8 * v + lr * 0.001 * np.linalg.norm(w) / np.linalg.norm(g) * g
        u = 0.8 * u + lr * gb
        w, b = w - v, b - u
        np.testing.assert_allclose(layer.weight.detach().numpy(), w, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(layer.bias.detach().numpy(), b, rtol=1e-4, atol=1e-3)


def test_lars_of_many_weights_at_once_is_that_of_each_alone_to_the_bit() -> None:
    def step_of_one(weight: torch.Tensor, gradient: torch.Tensor, momentum: torch.Tensor, adapt: bool) -> None:
        direction = gradient.add(weight, alpha=0.3 if adapt else 0.0)
        if adapt:
            size, slope = weight.norm(), direction.norm()
            direction = direction * torch.where((size > 0) & (slope > 0), 0.001 * size / slope, 1.0)
        weight.sub_(momentum.mul_(0.8).add_(direction, alpha=0.5))

    config = ContrastiveConfig(optimizer="lars", weight_decay=0.3, momentum=0.8)
    model = network()
    plain = [p.detach().clone() for p in model.parameters()]
    moments = [torch.zeros_like(p) for p in plain]
    optimizer = build(model.named_parameters(), config)
    set_lr(optimizer, 0.5)
    for seed in range(5):
        optimizer.zero_grad()
        model(torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed))).square().sum().backward()
        for weight, p, momentum in zip(plain, model.parameters(), moments, strict=True):
            assert p.grad is not None
            step_of_one(weight, p.grad, momentum, p.ndim > 1)
        optimizer.step()
        assert all(torch.equal(weight, p) for weight, p in zip(plain, model.parameters(), strict=True))


def test_lars_moves_zero_weights_and_leaves_what_has_no_gradient() -> None:
    weight, other = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = build([("weight", weight), ("other", other)], ContrastiveConfig(optimizer="lars"))
    set_lr(optimizer, 0.1)
    weight.grad = torch.ones(2, 2)
    optimizer.step()
    assert torch.allclose(weight, torch.tensor(-0.1))
    assert torch.equal(other, torch.ones(2, 2))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lars"])
def test_every_optimizer_goes_on_bit_for_bit_from_its_state(optimizer: str) -> None:
    config = ContrastiveConfig(optimizer=optimizer)

    def train(model: nn.Module, opt: torch.optim.Optimizer, steps: Iterable[int]) -> None:
        for step in steps:
            set_lr(opt, 0.1 / (step + 1))
            opt.zero_grad()
            model(torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(step))).square().mean().backward()
            opt.step()

    straight = network()
    train(straight, build(straight.named_parameters(), config), range(6))
    first = network()
    saved = build(first.named_parameters(), config)
    train(first, saved, range(3))
    second = network()
    second.load_state_dict(first.state_dict())
    resumed = build(second.named_parameters(), config)
    resumed.load_state_dict(copy.deepcopy(saved.state_dict()))
    train(second, resumed, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), second.parameters(), strict=True))


# -------------------------------------------------------------------------------------------------- the learning rate


def test_the_papers_schedule_is_torchs_cosine_once_an_epoch() -> None:
    """Paper 3.5: CosineAnnealingLR, T_max 150, eta_min lr/50, stepped once an epoch, no warm-up."""
    config = ContrastiveConfig(epochs=150, lr=1.5, schedule="epoch", warmup_epochs=0, final_lr_fraction=1 / 50)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.5)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=150, eta_min=1.5 / 50)
    for epoch in range(150):
        (expected,) = scheduler.get_last_lr()
        assert learning_rate(config, epoch * 35, 35) == pytest.approx(expected, rel=1e-9)
        assert learning_rate(config, epoch * 35 + 34, 35) == pytest.approx(expected, rel=1e-9)
        optimizer.step()
        scheduler.step()


@given(
    epochs=st.integers(1, 40),
    steps=st.integers(1, 30),
    warmup=st.floats(0, 15),
    floor=st.floats(0, 1),
    schedule=st.sampled_from(["step", "epoch"]),
)
def test_the_rate_rises_to_the_peak_and_falls_to_the_floor(
    epochs: int, steps: int, warmup: float, floor: float, schedule: Any
) -> None:
    config = ContrastiveConfig(epochs=epochs, lr=2.0, warmup_epochs=warmup, final_lr_fraction=floor, schedule=schedule)
    rates = [learning_rate(config, step, steps) for step in range(epochs * steps)]
    assert all(0 <= rate <= 2.0 + 1e-12 for rate in rates)
    top = rates.index(max(rates))
    differences = np.diff(rates)
    assert (differences[:top] >= -1e-12).all()
    assert (differences[top:] <= 1e-12).all()
    if warmup < epochs:
        assert max(rates) >= floor * 2.0 - 1e-9
        assert min(rates[top:]) >= 2.0 * floor - 1e-9


def test_warm_up_is_linear_and_ends_at_the_peak() -> None:
    config = ContrastiveConfig(epochs=10, lr=1.0, warmup_epochs=2)
    assert [learning_rate(config, step, 5) for step in range(10)] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert learning_rate(config, 10, 5) == 1.0
    assert learning_rate(config, 49, 5) == pytest.approx(0.02, abs=2e-3)


def test_the_default_peak_follows_the_batch() -> None:
    assert peak_learning_rate(ContrastiveConfig(), 1280) == pytest.approx(1.5)  # the authors' CIFAR10 runs
    assert peak_learning_rate(ContrastiveConfig(optimizer="lars"), 4096) == pytest.approx(4.8)
    assert peak_learning_rate(ContrastiveConfig(optimizer="adamw"), 256) == pytest.approx(1e-3)
    assert peak_learning_rate(ContrastiveConfig(lr=0.07), 1280) == 0.07
