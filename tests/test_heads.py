"""Projection heads: what defines each init, what freezing means, and the authors' own parameter counts."""

import copy
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.heads import ProjectionHead, head_statistics
from headstart.heads.attention import AttentionHead
from headstart.heads.step_zero import gradient_reaching
from headstart.records.config import ContrastiveConfig, HeadConfig
from headstart.records.errors import InputError
from headstart.records.names import ACTIVATIONS, HEAD_INITS
from headstart.training.optimizers import build, groups

INITS = ("random", "autoencoder", "orthogonal", "spectrum", "shuffled", "pca")
IN, HIDDEN, OUT = 40, 24, 10


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def autoencoder() -> dict[str, torch.Tensor]:
    """State of a small MLP autoencoder with a decaying spectrum, as trained ones have."""
    g = seeded(7)
    layers = {"encoder.hidden": (IN, 30), "encoder.embedding": (HIDDEN, IN), "decoder.hidden": (IN, HIDDEN)}
    state = {}
    for name, shape in layers.items():
        left, _, right = torch.linalg.svd(torch.randn(shape, generator=g), full_matrices=False)
        state[f"{name}.weight"] = left * 2.0 ** -torch.arange(min(shape)) @ right
        state[f"{name}.bias"] = torch.randn(shape[0], generator=g)
    return state


@pytest.fixture(scope="module")
def features() -> torch.Tensor:
    g = seeded(3)
    return torch.randn(100, IN, generator=g) * torch.linspace(0.1, 3, IN) + torch.randn(IN, generator=g)


@pytest.fixture
def head_of(autoencoder: dict[str, Tensor], features: Tensor) -> Callable[..., ProjectionHead]:
    def make(init: str, **options: Any) -> ProjectionHead:
        given: Any = {"hidden_dim": HIDDEN, "output_dim": OUT, "activation": "tanh", "generator": seeded()} | options
        return ProjectionHead.from_init(IN, init=init, autoencoder=autoencoder, features=features, **given)

    return make


def output_of(head: ProjectionHead) -> nn.Linear:
    assert isinstance(head.output, nn.Linear)
    return head.output


# ----------------------------------------------- what defines each init


def test_random_is_the_default_init_of_linear() -> None:
    torch.manual_seed(11)
    plain = nn.Sequential(nn.Linear(IN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, OUT))
    torch.manual_seed(11)
    head = ProjectionHead(IN, HIDDEN, OUT)
    x = torch.randn(5, IN)
    assert torch.equal(head(x), plain(x))
    assert not head.frozen


def test_autoencoder_is_the_embedding_layer_bit_for_bit(autoencoder: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(autoencoder, tmp_path / "autoencoder.safetensors")
    head = ProjectionHead.from_autoencoder(tmp_path / "autoencoder.safetensors", output_dim=OUT, activation="sigmoid")
    assert torch.equal(head.first.weight, autoencoder["encoder.embedding.weight"])
    assert torch.equal(head.first.bias, autoencoder["encoder.embedding.bias"])
    assert (head.first.in_features, head.first.out_features, head.output.out_features) == (IN, HIDDEN, OUT)
    assert head.frozen
    assert isinstance(head.activation, nn.Sigmoid)


@pytest.mark.parametrize(("in_features", "hidden_dim"), [(40, 24), (24, 40), (512, 256), (30, 30)])
def test_orthogonal_is_orthogonal(in_features: int, hidden_dim: int) -> None:
    weight = ProjectionHead.from_init(
        in_features, init="orthogonal", hidden_dim=hidden_dim, generator=seeded()
    ).first.weight.double()
    short = weight if hidden_dim <= in_features else weight.T
    assert (short @ short.T - torch.eye(len(short))).abs().max() < 1e-6


def test_orthogonal_is_drawn_uniformly() -> None:
    """The first entry of a uniformly drawn orthogonal matrix has mean 0 and variance 1/n; a QR without the sign fix
    gives it one sign."""
    g = seeded()
    entries = torch.tensor(
        [
            ProjectionHead.from_init(4, init="orthogonal", hidden_dim=4, generator=g).first.weight[0, 0].item()
            for _ in range(600)
        ]
    )
    assert abs(entries.mean()) < 4 * 0.5 / math.sqrt(600)
    assert entries.square().mean().item() == pytest.approx(0.25, rel=0.2)


def test_spectrum_keeps_the_singular_values_and_nothing_of_their_directions(
    head_of: Callable[..., ProjectionHead], autoencoder: dict[str, Tensor]
) -> None:
    head, source = head_of("spectrum"), autoencoder["encoder.embedding.weight"]
    values = torch.linalg.svdvals(source.double())
    assert torch.allclose(torch.linalg.svdvals(head.first.weight.double()), values, rtol=1e-5, atol=1e-7)
    assert torch.equal(head.first.bias, autoencoder["encoder.embedding.bias"])
    leading = [torch.linalg.svd(w.double()).Vh[0] for w in (head.first.weight.detach(), source)]
    assert abs(leading[0] @ leading[1]) < 0.6  # two random directions in 40 dimensions: 0.16 expected


def test_shuffled_keeps_the_entries_and_changes_the_spectrum(
    head_of: Callable[..., ProjectionHead], autoencoder: dict[str, Tensor]
) -> None:
    head, weight = head_of("shuffled"), autoencoder["encoder.embedding.weight"]
    assert torch.equal(head.first.weight.flatten().sort().values, weight.flatten().sort().values)
    assert torch.equal(head.first.bias.sort().values, autoencoder["encoder.embedding.bias"].sort().values)
    assert not torch.equal(head.first.bias, autoencoder["encoder.embedding.bias"])
    before, after = torch.linalg.svdvals(weight), torch.linalg.svdvals(head.first.weight)
    assert after[0] < 0.8 * before[0]


def test_pca_is_scikit_learns_transform(head_of: Callable[..., ProjectionHead], features: Tensor) -> None:
    head = head_of("pca")
    pca = PCA(n_components=HIDDEN, svd_solver="full").fit(features.double().numpy())
    np.testing.assert_allclose(head.first.weight.detach().numpy(), pca.components_, atol=1e-5)
    expected = pca.transform(features.double().numpy())
    np.testing.assert_allclose(head.first(features).detach().numpy(), expected, atol=1e-4)


# --------------------------------------------------------------------------------------------- what they have in common


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("frozen", [True, False])
def test_every_init_exists_frozen_and_trainable(
    head_of: Callable[..., ProjectionHead], init: str, frozen: bool
) -> None:
    head = head_of(init, frozen=frozen)
    assert head.frozen is frozen
    head(torch.randn(6, IN)).square().sum().backward()
    assert (head.first.weight.grad is None) is frozen
    assert (head.first.bias.grad is None) is frozen
    assert head.output.weight.grad is not None


@pytest.mark.parametrize("init", INITS)
def test_layers_behind_the_first_do_not_depend_on_the_init(head_of: Callable[..., ProjectionHead], init: str) -> None:
    head, random = head_of(init, depth=4), head_of("random", depth=4)
    for name, tensor in head.state_dict().items():
        if not name.startswith("first."):
            assert torch.equal(tensor, random.state_dict()[name]), name


@pytest.mark.parametrize("init", INITS)
def test_only_the_given_generator_is_drawn_from(head_of: Callable[..., ProjectionHead], init: str) -> None:
    before = torch.get_rng_state()
    one, two, other = head_of(init), head_of(init), head_of(init, generator=seeded(1))
    assert torch.equal(torch.get_rng_state(), before)
    x = torch.randn(3, IN)
    assert torch.equal(one(x), two(x))
    assert not torch.equal(one(x), other(x))


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_every_activation_stands_between_first_and_output(activation: str) -> None:
    head = ProjectionHead(IN, HIDDEN, OUT, activation)
    x = torch.randn(5, IN)
    function = (lambda v: v) if activation == "identity" else getattr(F, activation)
    assert torch.allclose(head(x), head.output(function(head.first(x))))


@given(
    in_features=st.integers(1, 30),
    hidden_dim=st.integers(1, 30),
    output_dim=st.integers(1, 30),
    depth=st.integers(1, 4),
    batch_norm=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_any_sizes(in_features: int, hidden_dim: int, output_dim: int, depth: int, batch_norm: bool) -> None:
    if depth == 1:
        hidden_dim = output_dim
    head = ProjectionHead(in_features, hidden_dim, output_dim, "silu", depth=depth, batch_norm=batch_norm)
    assert head(torch.randn(4, in_features)).shape == (4, output_dim)
    layers = {name.rpartition(".")[0] for name in head.state_dict() if not name.startswith("norms.")}
    between = {f"hidden.{i}" for i in range(depth - 2)}
    assert layers == ({"first"} if depth == 1 else {"first", "output"} | between)
    assert sum(isinstance(m, nn.BatchNorm1d) for m in head.modules()) == (depth - 1 if batch_norm else 0)


def test_batch_norm_stands_before_the_activation() -> None:
    head = ProjectionHead(IN, HIDDEN, OUT, "sigmoid", depth=3, batch_norm=True)
    x = torch.randn(16, IN)
    expected = F.sigmoid(F.batch_norm(head.first(x), None, None, training=True))
    expected = head.output(F.sigmoid(F.batch_norm(head.hidden[0](expected), None, None, training=True)))
    assert torch.allclose(head(x), expected, atol=1e-5)


# ------------------------------------------------------------------------------------------------------------ matching


@pytest.mark.parametrize("init", INITS)
def test_match_scale_gives_every_init_the_output_scale_of_random(
    head_of: Callable[..., ProjectionHead], features: Tensor, init: str
) -> None:
    def rms(head: ProjectionHead) -> float:
        return head.first(features).square().mean().sqrt().item()

    assert rms(head_of(init, match_scale=True)) == pytest.approx(rms(head_of("random")), rel=1e-4)
    plain, matched = head_of(init).first, head_of(init, match_scale=True).first
    ratio = (matched.weight / plain.weight).median()
    assert torch.allclose(matched.weight, plain.weight * ratio, rtol=1e-4, atol=1e-7)
    assert torch.allclose(matched.bias, plain.bias * ratio, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("init", ["random", "autoencoder", "orthogonal", "spectrum", "shuffled"])
def test_match_scale_without_features_matches_frobenius_norms(autoencoder: dict[str, Tensor], init: str) -> None:
    norms = [
        ProjectionHead.from_init(
            IN, init=i, hidden_dim=HIDDEN, autoencoder=autoencoder, generator=seeded(), match_scale=True
        ).first.weight.norm()
        for i in (init, "random")
    ]
    assert norms[0].item() == pytest.approx(norms[1].item(), rel=1e-5)


# ----------------------------------------------- the whole head at once


def test_pretrained_all_keeps_the_decoders_inner_products_best(
    head_of: Callable[..., ProjectionHead], autoencoder: dict[str, Tensor]
) -> None:
    head = head_of("autoencoder", pretrained="all")
    assert torch.equal(head.first.weight, autoencoder["encoder.embedding.weight"])
    decoder = autoencoder["decoder.hidden.weight"].double()
    left, values, right = torch.linalg.svd(decoder, full_matrices=False)
    best = right[:OUT].T * values[:OUT].square() @ right[:OUT]  # of rank OUT (Eckart, Young)
    last = output_of(head)
    output = last.weight.detach().double()
    assert torch.allclose(output.T @ output, best, atol=1e-5)
    expected_bias = left[:, :OUT].T @ autoencoder["decoder.hidden.bias"].double()
    assert torch.allclose(last.bias.detach().double(), expected_bias, atol=1e-5)
    assert last.weight.requires_grad


@pytest.mark.parametrize("init", [name for name, init in HEAD_INITS.items() if init.from_embedding])
def test_pretrained_all_is_controlled_like_the_first_layer(head_of: Callable[..., ProjectionHead], init: str) -> None:
    full, control = output_of(head_of("autoencoder", pretrained="all")), output_of(head_of(init, pretrained="all"))
    if init == "spectrum":
        assert torch.allclose(torch.linalg.svdvals(control.weight), torch.linalg.svdvals(full.weight), atol=1e-5)
    assert torch.equal(control.bias.sort().values, full.bias.sort().values)
    if init == "shuffled":
        assert torch.equal(control.weight.flatten().sort().values, full.weight.flatten().sort().values)
    assert torch.equal(control.weight, full.weight) is (init == "autoencoder")


def test_an_output_layer_from_the_decoder_has_controls(head_of: Callable[..., ProjectionHead]) -> None:
    """The first layer is the embedding layer in all of them; only the output layer's origin differs."""
    whole = head_of("autoencoder", pretrained="all")
    heads = {
        name: head_of("autoencoder", output_init=name) for name in ("random", "autoencoder", "spectrum", "orthogonal")
    }
    for head in heads.values():
        assert torch.equal(head.first.weight, whole.first.weight)
        assert output_of(head).weight.requires_grad
    assert torch.equal(output_of(heads["autoencoder"]).weight, output_of(whole).weight)
    assert torch.equal(output_of(heads["random"]).weight, output_of(head_of("autoencoder")).weight)
    spectrum, orthogonal = output_of(heads["spectrum"]), output_of(heads["orthogonal"])
    values = torch.linalg.svdvals(output_of(whole).weight)
    assert torch.allclose(torch.linalg.svdvals(spectrum.weight), values, atol=1e-5)
    assert torch.equal(spectrum.bias, output_of(whole).bias)
    assert not torch.allclose(spectrum.weight, output_of(whole).weight, atol=0.01)
    assert torch.allclose(orthogonal.weight @ orthogonal.weight.T, torch.eye(OUT), atol=1e-5)
    assert not orthogonal.bias.any()


def test_the_decoders_output_layer_alone_stands_behind_any_first_layer(
    head_of: Callable[..., ProjectionHead],
) -> None:
    head = head_of("random", output_init="autoencoder", frozen=False)
    assert torch.equal(head.first.weight, head_of("random").first.weight)
    assert torch.equal(output_of(head).weight, output_of(head_of("autoencoder", pretrained="all")).weight)
    assert HeadConfig(init="random", frozen=False, output_init="spectrum").needs_autoencoder
    assert not HeadConfig(init="random", frozen=False, output_init="orthogonal").needs_autoencoder


# ------------------------------------------------------------------------------------------------------------- freezing


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lars"])
@pytest.mark.parametrize("init", INITS)
def test_a_frozen_layer_is_byte_identical_after_training_and_resume(
    head_of: Callable[..., ProjectionHead], init: str, optimizer: str
) -> None:
    config = ContrastiveConfig(optimizer=optimizer, weight_decay=0.1, decay_norms_and_biases=True)
    head = head_of(init)
    start = head.first.weight.numpy(force=True).tobytes(), head.first.bias.numpy(force=True).tobytes()
    trained = {id(p) for group in groups(head.named_parameters(), config) for p in group["params"]}
    assert trained == {id(head.output.weight), id(head.output.bias)}

    def train(head: ProjectionHead, optimizer: torch.optim.Optimizer, steps: int) -> None:
        for _ in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = 0.05
            optimizer.zero_grad()
            head(torch.ones(4, IN)).square().mean().backward()
            optimizer.step()

    first = build(head.named_parameters(), config)
    train(head, first, 5)
    resumed = head_of("random", frozen=True)
    resumed.load_state_dict(head.state_dict())
    second = build(resumed.named_parameters(), config)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    train(resumed, second, 5)
    end = resumed.first.weight.numpy(force=True).tobytes(), resumed.first.bias.numpy(force=True).tobytes()
    assert end == start
    assert not torch.equal(output_of(resumed).weight, output_of(head_of(init)).weight)


# ---------------------------------------------------------------------------------------------------------- statistics


def plain_nt_xent(z: torch.Tensor, temperature: float) -> torch.Tensor:
    u = F.normalize(z, dim=1)
    logits = (u @ u.T / temperature).fill_diagonal_(-math.inf)
    return F.cross_entropy(logits, torch.arange(len(z)).roll(len(z) // 2))


def test_head_statistics(head_of: Callable[..., ProjectionHead], features: Tensor) -> None:
    head = head_of("autoencoder", activation="sigmoid")
    views = torch.randn(12, IN, generator=seeded(5))
    before = copy.deepcopy(head.state_dict())
    found = head_statistics(head, features, views, temperature=0.2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in head.state_dict().items())
    assert head.frozen
    np.testing.assert_allclose(
        found["singular_values"],
        np.linalg.svd(head.first.weight.numpy(force=True), compute_uv=False),
        rtol=1e-3,
        atol=1e-6,
    )
    hidden = torch.sigmoid(head.first(features))
    assert found["hidden_mean"] == pytest.approx(hidden.mean().item(), rel=1e-5)
    assert found["hidden_std"] == pytest.approx(hidden.std().item(), rel=1e-5)
    assert found["preactivation_rms"] == pytest.approx(head.first(features).square().mean().sqrt().item(), rel=1e-5)
    h = views.clone().requires_grad_()
    loss = plain_nt_xent(head(h), 0.2)
    loss.backward()
    assert h.grad is not None
    assert found["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert found["gradient_norm"] == pytest.approx(12 * h.grad.norm(dim=1).mean().item(), rel=1e-4)


def test_the_gradient_that_reaches_h_leaves_the_head_as_it_is() -> None:
    torch.manual_seed(0)
    head = ProjectionHead(6, 5, 4, "tanh", batch_norm=True).eval()
    for parameter in head.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before, h = copy.deepcopy(head.state_dict()), torch.randn(12, 6)
    loss, norm = gradient_reaching(head, h, lambda z: plain_nt_xent(z, 0.5))
    asked = h.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(plain_nt_xent(head(asked), 0.5), asked)
    assert loss.item() == pytest.approx(plain_nt_xent(head(h), 0.5).item())
    assert norm.item() == pytest.approx(12 * wanted.norm(dim=1).mean().item())
    assert not head.training
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in head.parameters())


def test_dead_and_saturated_units_are_counted() -> None:
    head = ProjectionHead(4, 4, 2, "relu")
    with torch.no_grad():
        head.first.weight.copy_(torch.eye(4))
        head.first.bias.copy_(torch.tensor([10.0, -10.0, 0.0, 0.0]))
    features = torch.tensor([[1.0, 1, 1, -1], [1, 1, -1, -1]])
    found = head_statistics(head, features)
    assert found["hidden_dead"] == 0.5  # the second unit and the fourth
    assert found["hidden_flat"] == pytest.approx(5 / 8)
    assert found["gradient_norm"] is None
    head.activation = nn.Sigmoid()
    assert head_statistics(head, features * 0)["hidden_flat"] == pytest.approx(0.5)  # sigmoid(+-10) is flat
    head.activation = nn.LeakyReLU()
    assert head_statistics(head, features)["hidden_flat"] == 0


def test_statistics_leave_batch_norm_alone(features: Tensor) -> None:
    head = ProjectionHead(IN, HIDDEN, OUT, batch_norm=True).eval()
    head_statistics(head, features)
    assert head.norms[0].num_batches_tracked == 0
    assert not head.training


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("h", "message"),
    [
        (torch.randn(2, 8, 1, 1), r"shape \(2, 8, 1, 1\); it has to be \(N, 8\); h.flatten\(1\)"),
        (torch.randn(2, 9), r"shape \(2, 9\); it has to be \(N, 8\)$"),
        (torch.randn(2, 8).half(), "h is torch.float16, the head's weights are torch.float32"),
        (torch.randn(2, 8).double(), "h is torch.float64"),
        (torch.zeros(2, 8, dtype=torch.uint8), "h is torch.uint8"),
        (np.zeros((2, 8), np.float32), "of type ndarray"),
    ],
)
@pytest.mark.parametrize("make", [ProjectionHead, AttentionHead])
def test_what_is_no_h_is_named(h: Any, message: str, make: Any) -> None:
    head = make(8, hidden_dim=4, output_dim=2)
    with pytest.raises(InputError, match=message):
        head(h)
    with torch.autocast("cpu", torch.bfloat16):
        assert head(torch.randn(2, 8).bfloat16()).shape == (2, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init": "xavier"}, "init is 'xavier'"),
        ({"init": "spectrum", "autoencoder": None}, "needs an autoencoder"),
        ({"init": "autoencoder", "hidden_dim": 25}, "40 features into 24"),
        ({"init": "pca", "features": None}, "needs features"),
        ({"init": "pca", "features": torch.randn(HIDDEN, IN)}, "24 directions"),
        ({"init": "pca", "features": torch.randn(99, IN - 1)}, "shape"),
        ({"init": "random", "features": torch.full((9, IN), math.nan)}, "finite"),
        ({"init": "random", "activation": "swish"}, "activation is 'swish'"),
        ({"init": "random", "depth": 5}, "depth is 5"),
        ({"init": "random", "depth": 1}, "must be equal"),
        ({"init": "random", "hidden_dim": 0}, "hidden_dim is 0"),
        ({"init": "pca", "pretrained": "all"}, "pretrained all"),
        ({"init": "autoencoder", "pretrained": "all", "depth": 3}, "depth 3"),
        ({"init": "autoencoder", "pretrained": "all", "output_dim": 25}, "at most 24 outputs"),
        ({"init": "random", "output_init": "spectrum", "autoencoder": None}, "init spectrum needs an autoencoder"),
        ({"init": "random", "output_init": "spectrum", "output_dim": 25}, "at most 24 outputs"),
        ({"init": "random", "output_init": "pca"}, "output_init pca is for"),
        ({"init": "autoencoder", "output_init": "spectrum", "pretrained": "all"}, "pretrained first"),
        ({"init": "autoencoder", "output_init": "spectrum", "depth": 3}, "depth 3"),
    ],
)
def test_bad_input_is_one_sentence(
    autoencoder: dict[str, Tensor], features: Tensor, options: dict[str, Any], message: str
) -> None:
    given: Any = {"autoencoder": autoencoder, "features": features, "hidden_dim": HIDDEN, "output_dim": OUT} | options
    with pytest.raises(InputError, match=message):
        ProjectionHead.from_init(IN, **given)


@pytest.mark.parametrize("size", [0, -1, 8.0, "8", None, True])
@pytest.mark.parametrize("name", ["in_features", "hidden_dim", "output_dim"])
def test_sizes_that_are_none_are_one_sentence(name: str, size: Any) -> None:
    given: Any = {"in_features": 8, "hidden_dim": 4, "output_dim": 2} | {name: size}
    with pytest.raises(InputError, match=f"{name} is {size!r}; it must be at least 1"):
        ProjectionHead(**given)


def test_features_as_an_array_are_one_sentence() -> None:
    features: Any = np.zeros((30, 8), np.float32)
    with pytest.raises(InputError, match="features are a ndarray"):
        ProjectionHead.from_init(8, init="pca", hidden_dim=4, features=features)


def test_an_autoencoder_without_a_decoder_cannot_start_the_output_layer(autoencoder: dict[str, Tensor]) -> None:
    embedding = {name: tensor for name, tensor in autoencoder.items() if "embedding" in name}
    with pytest.raises(InputError, match="decoder"):
        ProjectionHead.from_autoencoder(embedding, output_dim=OUT, pretrained="all")


# ----------------------------------------------- the authors' published runs


def published_runs() -> pd.DataFrame:
    folder = Path(os.environ.get("HEADSTART_DATA", "")) / "reference"
    if not (folder / "simclr-train.csv").is_file():
        pytest.skip("needs HEADSTART_DATA with the authors' runs")
    files = [folder / "simclr-train.csv", folder / "simclr-train-ae-nonfrozen.csv"]
    return pd.concat([pd.read_csv(file, decimal=",") for file in files], ignore_index=True)


def test_parameter_counts_of_all_published_runs() -> None:
    from headstart import backbones

    runs = published_runs()
    assert len(runs) == 765
    with torch.device("meta"):
        backbone = sum(p.numel() for p in backbones.build("resnet34").parameters())
    for row in runs.itertuples():
        frozen = row.projection_head == "ae" and row.freeze_projection_head
        # The constructor and the flag are all it takes; which weights they are does not change their number.
        head = ProjectionHead(512, row.projection_head_embedding_dim, row.latent_dimensions)
        head.frozen = frozen
        counts = {flag: sum(p.numel() for p in head.parameters() if p.requires_grad is flag) for flag in (True, False)}
        assert backbone + counts[True] == row.simclr_trainable_params, row.run_name
        assert counts[False] == row.simclr_non_trainable_params, row.run_name
