"""Real trainings on the digits: healthy ones draw no warning, and each way of going wrong is called by its name."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from headstart import data, objectives
from headstart.data import splits as splitting
from headstart.data.images import Images
from headstart.data.splits import Splits
from headstart.engine.checkpoint import Checkpoints
from headstart.engine.device import Compute
from headstart.engine.observer import EpochEnd, Observer
from headstart.evaluate.health import Health
from headstart.evaluate.online import OnlineProbe
from headstart.heads import ProjectionHead
from headstart.records.config import AugmentConfig, Config, ContrastiveConfig, DataConfig
from headstart.records.folder import Metrics
from headstart.training import contrastive

CONFIG = Config(
    data=DataConfig(sources=("digits",), limit=400, size=16),
    augment=AugmentConfig(crop_scale=(0.3, 1.0), flip=0.0),
    contrastive=ContrastiveConfig(epochs=12, batch_size=64, lr=0.075),
)


@pytest.fixture(scope="module")
def digits() -> tuple[Images, Splits]:
    images = data.open_images(CONFIG.data)
    return images, splitting.make(images, CONFIG.data)


def network(seed: int, width: int = 16) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, width, 3, 2, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, 2, 1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.Conv2d(2 * width, 4 * width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(4 * width),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )


def head(seed: int = 0, activation: str = "relu", init: str = "random", frozen: bool = False) -> ProjectionHead:
    return ProjectionHead.from_init(
        64,
        init=init,
        hidden_dim=32,
        output_dim=16,
        activation=activation,
        frozen=frozen,
        autoencoder=None,
        features=None,
        generator=torch.Generator().manual_seed(seed),
    )


def train(
    digits: tuple[Images, Splits],
    tmp_path: Path,
    head: ProjectionHead,
    seed: int = 0,
    observers: Sequence[Observer] = (),
    **settings: Any,
) -> tuple[Any, ...]:
    """A real training; returns what Health said and recorded, the log, and the trained backbone."""
    images, splits = digits
    config = replace(CONFIG, seed=seed, contrastive=replace(CONFIG.contrastive, **settings))
    said: list[str] = []
    log: list[dict[str, Any]] = []
    health = Health(said.append)
    backbone = network(seed + 1)
    contrastive.train(
        backbone,
        head,
        images,
        splits,
        config,
        compute=Compute(torch.device("cpu"), torch.float32),
        checkpoints=Checkpoints(tmp_path / f"{len(observers)}.pt", Metrics(tmp_path / "metrics.jsonl"), minutes=60),
        observers=[health, *observers],
        log=lambda **values: log.append(values),
        quiet=True,
    )
    return said, health, log, backbone


ACTIVATIONS = ("relu", "tanh", "sigmoid", "silu", "gelu")


@pytest.mark.parametrize("seed", [0, 3, 6, 9, *(pytest.param(n, marks=pytest.mark.soak) for n in (1, 2, 4, 5, 7, 8))])
def test_healthy_trainings_draw_no_warning(digits: tuple[Images, Splits], tmp_path: Path, seed: int) -> None:
    made = head(seed, ACTIVATIONS[seed % 5], ("random", "orthogonal")[seed % 2], frozen=seed >= 5)
    said, health, log, _ = train(digits, tmp_path, made, seed)
    assert said == []
    assert health.history[-1]["spread"] > 3 * health.history[0]["spread"], "it did learn to tell pictures apart"
    assert log[-1]["loss"] < log[0]["loss"]
    assert "warning" not in log[-1]


ALONE = {"vicreg": {"variance": 0.0, "covariance": 0.0}, "barlow": {"off_diagonal": 0.0}, "sigreg": {"weight": 0.0}}
"""Each objective's coefficients with which its invariance term is alone."""


def under(monkeypatch: pytest.MonkeyPatch, objective: str, **coefficients: float) -> dict[str, Any]:
    """Coefficients of an objective for the trainings below, and what it trains well with."""
    section = replace(getattr(CONFIG, objective), **coefficients)
    monkeypatch.setattr(f"{__name__}.CONFIG", replace(CONFIG, **{objective: section}))
    return {"objective": objective, "optimizer": "adamw", "lr": 0.003}


@pytest.mark.parametrize("objective", ALONE)
def test_other_objectives_draw_no_warning_either(
    digits: tuple[Images, Splits], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: str
) -> None:
    said, health, _, _ = train(digits, tmp_path, head(), **under(monkeypatch, objective))
    assert said == []
    assert health.history[-1]["spread"] > 0.3


@pytest.mark.parametrize(
    ("objective", "says", "helps"),
    [
        ("vicreg", r"the variance term is (0\.9\d|1) of at most 1", "--vicreg.variance"),
        (
            "barlow",
            r"features of z repeat one another \(mean squared correlation (0\.9\d|1) of 1; the redundancy is",
            "--barlow.off",
        ),
        ("sigreg", "where a Gaussian has about 1", "--sigreg.weight"),
    ],
)
def test_invariance_alone_collapses_and_is_named(
    digits: tuple[Images, Splits],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    objective: str,
    says: str,
    helps: str,
) -> None:
    """Barlow Twins standardises features, so that its invariance alone leaves them alive; what it does not see is that
    they are one: a head whose outputs begin as copies stays one feature."""
    made = head()
    if objective == "barlow":
        with torch.no_grad():
            weight = made.get_parameter("output.weight")
            weight.copy_(weight[:1].expand_as(weight))
    said, _, log, _ = train(digits, tmp_path, made, epochs=6, **under(monkeypatch, objective, **ALONE[objective]))
    assert named(said) == ["collapsing"]
    assert [line["warning"] for line in log if "warning" in line] == ["collapsing"]
    assert re.search(says, said[0])
    assert helps in said[0]
    assert "negatives" not in said[0]


def named(said: Sequence[str]) -> list[str]:
    return [name for line in said for name in ("diverging", "collapsing", "stopped learning") if name in line]


def test_no_negatives(digits: tuple[Images, Splits], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def alignment_alone(z: Tensor, temperature: float, group: object = None) -> Tensor:
        first, second = nn.functional.normalize(z, dim=1).chunk(2)
        return -(first * second).sum(1).mean() / temperature

    monkeypatch.setattr(objectives, "nt_xent", alignment_alone)
    said, _, log, _ = train(digits, tmp_path, head(), epochs=8)
    assert named(said) == ["collapsing"]
    assert [line["warning"] for line in log if "warning" in line] == ["collapsing"]
    assert "negatives" in said[0], "what usually helps"


def test_dead_activation(digits: tuple[Images, Splits], tmp_path: Path) -> None:
    dead = head()
    with torch.no_grad():
        dead.first.bias.fill_(-1e3)
    said, health, _, _ = train(digits, tmp_path, dead, epochs=8)
    assert named(said) == ["collapsing"]
    assert health.history[-1]["spread"] < 1e-6


def test_far_too_high_learning_rate(digits: tuple[Images, Splits], tmp_path: Path) -> None:
    said, _, _, _ = train(digits, tmp_path, head(), lr=30.0, epochs=6)
    assert named(said) == ["diverging"]
    assert "--contrastive.lr" in said[0]


def test_too_high_learning_rate_that_collapses(digits: tuple[Images, Splits], tmp_path: Path) -> None:
    said, _, _, _ = train(digits, tmp_path, head(), lr=3.0, epochs=8)
    assert named(said) == ["collapsing"]


def test_a_loss_that_comes_back_up() -> None:
    health = Health(lambda _: None)
    for epoch, loss in enumerate([4.8, 4.4, 4.1, 4.0, 3.9, 4.5, 4.8, 4.8], start=1):
        health.epoch_end(event(epoch, loss))
    assert health.said == ["diverging"]


def test_a_learning_rate_too_low_to_learn(digits: tuple[Images, Splits], tmp_path: Path) -> None:
    images, splits = digits
    few = images, replace(splits, train=splits.train[:128])
    said, _, _, _ = train(few, tmp_path, head(), lr=1e-9, epochs=80)
    assert named(said) == ["stopped learning"]


def event(
    epoch: int, loss: float, epochs: int = 8, lr: float = 0.1, scale: float = 1.0, spread: bool = True
) -> EpochEnd:
    g = torch.Generator().manual_seed(epoch)
    z = torch.randn(32, 8, generator=g) if spread else torch.ones(32, 8)
    return EpochEnd(
        epoch=epoch,
        epochs=epochs,
        train_loss=loss,
        val_loss=loss,
        lr=lr,
        h=scale * z,
        z=z,
        indices=torch.arange(len(z) // 2),
    )


def test_values_that_are_not_finite() -> None:
    said: list[str] = []
    health = Health(said.append)
    figures = health.epoch_end(event(1, 4.8, scale=float("inf")))
    assert named(said) == ["diverging"]
    assert figures == {"warning": "diverging"}


def test_each_warning_comes_once_and_a_resumed_run_remembers() -> None:
    said: list[str] = []
    health = Health(said.append)
    for epoch in range(1, 6):
        health.epoch_end(event(epoch, 4.8, spread=False))
    again = Health(said.append)
    again.load_state_dict(health.state_dict())
    for epoch in range(6, 9):
        again.epoch_end(event(epoch, 4.8, spread=False))
    assert named(said) == ["collapsing"]
    assert len(again.history) == 8


def test_stopped_learning_needs_a_high_learning_rate() -> None:
    for lr, expected in ((0.1, ["stopped learning"]), (0.04, [])):
        health = Health(lambda _: None)
        health.epoch_end(event(1, 5.0, lr=0.1))
        for epoch in range(2, 25):
            health.epoch_end(event(epoch, 4.5 + 0.001 * (epoch % 2), lr=lr))
        assert health.said == expected


class TestOnlineProbe:
    def test_sees_progress(self, digits: tuple[Images, Splits], tmp_path: Path) -> None:
        images, _ = digits
        probe = OnlineProbe(images.labels, 10)
        _, _, log, _ = train(digits, tmp_path, head(activation="tanh"), observers=[probe])
        accuracy = [line["accuracy"] for line in log]
        assert all(0 <= value <= 1 for value in accuracy)
        assert max(accuracy[-3:]) > 0.25, "ten classes"
        assert max(accuracy[-3:]) > accuracy[0]

    def test_changes_nothing_in_the_training(self, digits: tuple[Images, Splits], tmp_path: Path) -> None:
        images, _ = digits
        torch.manual_seed(7)
        _, _, _, without = train(digits, tmp_path, head(), epochs=2)
        state = torch.get_rng_state()
        probe = OnlineProbe(images.labels, 10)
        _, _, _, beside = train(digits, tmp_path, head(), epochs=2, observers=[probe])
        assert torch.equal(torch.get_rng_state(), state)
        for a, b in zip(without.state_dict().values(), beside.state_dict().values(), strict=True):
            assert torch.equal(a, b)

    def test_is_a_plain_classifier_with_adam(self, digits: tuple[Images, Splits]) -> None:
        images, _ = digits
        probe = OnlineProbe(images.labels, 10)
        linear = nn.Linear(6, 10)
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
        optimizer = torch.optim.Adam(linear.parameters(), lr=1e-2)
        for turn in range(5):
            indices = torch.arange(turn, 40 + turn)
            h = torch.randn(80, 6, generator=torch.Generator().manual_seed(turn), requires_grad=True)
            probe.step(h, indices)
            assert h.grad is None
            x = (h.detach() - h.detach().mean(0)) / (h.detach().std(0, correction=0) + 1e-5)
            y = torch.as_tensor(images.labels)[indices].repeat(2)
            optimizer.zero_grad()
            nn.functional.cross_entropy(linear(x), y).backward()
            optimizer.step()
        assert probe.weights is not None
        torch.testing.assert_close(probe.weights[:-1].T, linear.weight)
        torch.testing.assert_close(probe.weights[-1], linear.bias)

    def test_without_labels(self, digits: tuple[Images, Splits]) -> None:
        images, _ = digits
        probe = OnlineProbe(images.labels * 0 - 1, 10)
        probe.step(torch.randn(20, 6), torch.arange(10))
        assert probe.epoch_end(event(1, 4.8)) == {}
        assert probe.weights is not None
        assert bool(probe.weights.isfinite().all())
        assert not probe.weights.any(), "nothing to learn from"

    def test_resumes_to_the_byte(self, digits: tuple[Images, Splits]) -> None:
        images, _ = digits
        batches = [torch.randn(20, 6, generator=torch.Generator().manual_seed(i)) for i in range(6)]
        through, halted, resumed = (OnlineProbe(images.labels, 10) for _ in range(3))
        for h in batches:
            through.step(h, torch.arange(10))
        for h in batches[:3]:
            halted.step(h, torch.arange(10))
        resumed.load_state_dict(halted.state_dict())
        for h in batches[3:]:
            resumed.step(h, torch.arange(10))
        assert through.weights is not None
        assert resumed.weights is not None
        assert torch.equal(through.weights, resumed.weights)
