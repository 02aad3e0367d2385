"""The autoencoder: the paper's layers and loop, its gradient, exact resume, its file, and the other kinds."""

import copy
import json
import math
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from headstart import autoencoders
from headstart.autoencoders import Autoencoder
from headstart.autoencoders.kinds import Sparse
from headstart.autoencoders.masked import Patches, positions
from headstart.engine import randomness
from headstart.engine.checkpoint import Checkpoints
from headstart.engine.device import Compute
from headstart.heads import ProjectionHead
from headstart.records.config import AutoencoderConfig
from headstart.records.errors import InputError, Interrupted, RunError
from headstart.records.folder import Metrics
from headstart.records.names import AUTOENCODER_KINDS
from headstart.training import autoencoder as ae
from headstart.training.autoencoder import TrainedAutoencoder

FLOAT32 = Compute(torch.device("cpu"), torch.float32)
BFLOAT16 = Compute(torch.device("cpu"), torch.bfloat16)
SIDE, H, LATENT = 8, 64, 16
D = 3 * SIDE * SIDE
COMBINATIONS = [
    (kind, on)
    for kind in AUTOENCODER_KINDS
    for on in autoencoders.SOURCES
    if on == "pixels" or kind not in ("conv", "masked")
]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int, seed: int, side: int = SIDE) -> Tensor:
    """Smooth colour gradients with a little noise: few numbers describe one, so there is something to learn."""
    g = seeded(seed)
    y, x = torch.meshgrid(torch.linspace(-1, 1, side), torch.linspace(-1, 1, side), indexing="ij")
    slopes = torch.rand(n, 3, 3, 1, 1, generator=g) * 2 - 1
    values = 128 + 60 * (slopes[:, 0] + slopes[:, 1] * x + slopes[:, 2] * y)
    return (values + 3 * torch.randn(values.shape, generator=g)).clamp(0, 255).to(torch.uint8)


@pytest.fixture(scope="module")
def splits() -> tuple[Tensor, Tensor, Tensor]:
    return pictures(230, 1), pictures(45, 2), pictures(45, 3)


@pytest.fixture(scope="module")
def feature_splits() -> tuple[Tensor, Tensor, Tensor]:
    """Features as an untrained backbone gives them: far from zero, hardly varying, of very different variances."""
    mix = torch.randn(8, H, generator=seeded(9)) * torch.logspace(-3, -1, H)
    train, val, test = (0.7 + torch.randn(n, 8, generator=seeded(n)) @ mix for n in (230, 45, 46))
    return train, val, test


def build(
    kind: str = "mlp", on: Any = "pixels", seed: int = 0, **options: Any
) -> tuple[Autoencoder, AutoencoderConfig]:
    options = {"epochs": 3, "batch_size": 20, "lr": 1e-3} | options
    config = AutoencoderConfig(kind=kind, on=on, **options)
    return autoencoders.build(config, D if on == "pixels" else H, H, LATENT, seeded(seed)), config


def train(
    model: Autoencoder,
    data: Any,
    config: AutoencoderConfig,
    folder: Path,
    compute: Compute = FLOAT32,
    log: Callable[..., None] = lambda **line: None,
    **options: Any,
) -> TrainedAutoencoder:
    given: Any = {"seed": 5, "checkpoints": checkpoints(folder), "quiet": True} | options
    return ae.train(model, data, config, compute=compute, log=log, **given)


def checkpoints(folder: Path, **options: Any) -> Checkpoints:
    return Checkpoints(folder / "checkpoint.pt", Metrics(folder / "metrics.jsonl"), **options)


# -------------------------------------------------------------------------------------------- the paper's model


def test_the_papers_layers_names_and_parameter_count() -> None:
    model = Autoencoder(3072, 512, 128)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert shapes == {
        "encoder.hidden.weight": (512, 3072),
        "encoder.hidden.bias": (512,),
        "encoder.embedding.weight": (128, 512),
        "encoder.embedding.bias": (128,),
        "decoder.hidden.weight": (512, 128),
        "decoder.hidden.bias": (512,),
        "decoder.output.weight": (3072, 512),
        "decoder.output.bias": (3072,),
    }
    assert model.embedding is model.encoder.embedding


def test_forward_is_linear_relu_embedding_linear_relu_linear_sigmoid() -> None:
    model, _ = build()
    x = torch.rand(7, 3, SIDE, SIDE, generator=seeded())
    w = model.state_dict()
    z = F.linear(x.flatten(1), w["encoder.hidden.weight"], w["encoder.hidden.bias"]).relu()
    z = F.linear(z, w["encoder.embedding.weight"], w["encoder.embedding.bias"])
    y = F.linear(z, w["decoder.hidden.weight"], w["decoder.hidden.bias"]).relu()
    y = F.linear(y, w["decoder.output.weight"], w["decoder.output.bias"]).sigmoid()
    assert torch.equal(model(x), y)


def test_initial_weights_follow_the_generator_and_leave_the_global_one_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = build(seed=1)[0], build(seed=1)[0], build(seed=2)[0]
    assert torch.equal(torch.get_rng_state(), before)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
        assert not torch.equal(value, other.state_dict()[name])


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_initial_weights_are_distributed_as_torchs_own(kind: str) -> None:
    ours = autoencoders.of_kind(kind, D, 256, 128, generator=seeded()).state_dict()
    torch.manual_seed(0)
    for name, value in autoencoders.of_kind(kind, D, 256, 128).state_dict().items():
        if value.numel() > 500:
            assert ours[name].abs().max().item() == pytest.approx(value.abs().max().item(), rel=0.02), name
            assert ours[name].std().item() == pytest.approx(value.std().item(), rel=0.05), name


# ------------------------------------------------------------------------------------------------ its training


def plain_loop(model: Autoencoder, data: Sequence[Tensor], config: AutoencoderConfig, seed: int) -> dict[str, Any]:
    """The paper's 3.3 and the authors' Lightning loop, transcribed in plain torch."""
    layers = nn.Sequential(
        nn.Linear(D, H), nn.ReLU(), nn.Linear(H, LATENT), nn.Linear(LATENT, H), nn.ReLU(), nn.Linear(H, D), nn.Sigmoid()
    )
    layers.load_state_dict(dict(zip(layers.state_dict(), model.state_dict().values(), strict=True)))
    train, val, test = (part.float().div(255).flatten(1) for part in data)
    optimizer = torch.optim.Adam(layers.parameters(), lr=config.lr)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=config.patience, factor=config.factor)
    best, lrs, val_losses = math.inf, [], []

    def mean_over_batches(x: Tensor) -> float:
        with torch.no_grad():
            return torch.stack([F.mse_loss(layers(b), b) for b in x.split(config.batch_size)]).mean().item()

    for epoch in range(config.epochs):
        lrs.append(optimizer.param_groups[0]["lr"])
        for batch in randomness.order(seed, "autoencoder", epoch, len(train)).split(config.batch_size):
            optimizer.zero_grad()
            F.mse_loss(layers(train[batch]), train[batch]).backward()
            optimizer.step()
        with torch.no_grad():
            val_losses.append(F.mse_loss(layers(val), val).item())  # every picture counts alike
        scheduler.step(val_losses[-1])
        if val_losses[-1] < best:
            best, best_epoch, weights = val_losses[-1], epoch + 1, copy.deepcopy(layers.state_dict())
    layers.load_state_dict(weights)
    return {
        "weights": list(weights.values()),
        "val": val_losses,
        "lr": lrs,
        "best": best_epoch,
        "test": mean_over_batches(test),
    }


def test_training_is_the_plain_loop(splits: tuple[Tensor, Tensor, Tensor], tmp_path: Path) -> None:
    # A learning rate so large that the validation loss jumps: the plateau rule and the best checkpoint both matter.
    model, config = build(epochs=14, lr=0.05, patience=0, factor=0.5)
    expected = plain_loop(model, splits, config, seed=5)
    found = train(model, splits, config, tmp_path)
    assert len(set(expected["lr"])) > 2
    assert expected["best"] < config.epochs
    assert [line["lr"] for line in found.history] == expected["lr"]
    assert found.best_epoch == expected["best"]
    assert [line["val_loss"] for line in found.history] == pytest.approx(expected["val"], rel=1e-4)
    assert found.val_mse == found.history[expected["best"] - 1]["val_loss"]
    assert found.test_mse == pytest.approx(expected["test"], rel=1e-4)
    for ours, plain in zip(found.model.state_dict().values(), expected["weights"], strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-3)


def test_it_learns_more_than_the_mean_picture(splits: tuple[Tensor, Tensor, Tensor], tmp_path: Path) -> None:
    model, config = build(epochs=40)
    test = splits[2].float() / 255
    mean_picture = (test - (splits[0].float() / 255).mean(0)).square().mean()
    assert train(model, splits, config, tmp_path).test_mse < mean_picture / 4


def test_bfloat16_learns_as_much(splits: tuple[Tensor, Tensor, Tensor], tmp_path: Path) -> None:
    model, config = build(epochs=25)
    rounded = train(copy.deepcopy(model), splits, config, tmp_path / "bfloat16", compute=BFLOAT16)
    exact = train(model, splits, config, tmp_path / "float32")
    assert rounded.test_mse == pytest.approx(exact.test_mse, rel=0.02)
    assert all(value.dtype == torch.float32 for value in rounded.model.state_dict().values())


def test_history_and_log_have_a_line_an_epoch(splits: tuple[Tensor, Tensor, Tensor], tmp_path: Path) -> None:
    model, config = build(epochs=2)
    lines = []
    found = train(model, splits, config, tmp_path, log=lambda **line: lines.append(line))
    assert [line["epoch"] for line in lines] == [1, 2]
    assert [line["step"] for line in lines] == [12, 24]
    assert all(line["stage"] == "autoencoder" and line["pictures_per_s"] > 0 for line in lines)
    assert all(0 <= line["data_wait"] <= 1 for line in lines)
    assert [{name: line[name] for name in found.history[0]} for line in lines] == found.history


def test_normalised_pictures_are_reconstructed_in_their_own_range(
    splits: tuple[Tensor, Tensor, Tensor], tmp_path: Path
) -> None:
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.3])
    model, config = build(normalize=True, epochs=30)
    found = train(model, splits, config, tmp_path, mean=mean, std=std)
    x = (splits[2].float() / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    with torch.no_grad():
        errors = (found.model(x) - x.flatten(1)).square().mean(1)
    assert found.test_mse == pytest.approx(torch.stack([e.mean() for e in errors.split(20)]).mean().item(), rel=1e-4)
    autoencoders.save(found.model, tmp_path / "a.safetensors")
    loaded = autoencoders.load(tmp_path / "a.safetensors")
    assert isinstance(loaded, Autoencoder)
    shown = autoencoders.reconstruct(loaded, splits[2])
    assert torch.equal(shown, autoencoders.reconstruct(found.model, splits[2]))
    # The sigmoid cannot reach Z-scores below 0, which is why normalising impairs it: pixels come out no darker than
    # the mean, and no brighter than a standard deviation above it.
    for channel in range(3):
        low, high = 255 * mean[channel], 255 * (mean[channel] + std[channel])
        assert shown[:, channel].min() >= int(low)
        assert shown[:, channel].max() <= math.ceil(high)


def test_normalising_needs_mean_and_std(splits: tuple[Tensor, Tensor, Tensor], tmp_path: Path) -> None:
    model, config = build(normalize=True)
    with pytest.raises(InputError, match="mean and std"):
        train(model, splits, config, tmp_path)


@pytest.mark.parametrize(("empty", "name"), [(0, "training"), (1, "validation"), (2, "test")])
def test_an_empty_split_is_refused(
    splits: tuple[Tensor, Tensor, Tensor], tmp_path: Path, empty: int, name: str
) -> None:
    data = [part[:0] if i == empty else part for i, part in enumerate(splits)]
    with pytest.raises(InputError, match=f"{name} split"):
        train(*build()[:1], data, build()[1], tmp_path)


def test_a_loss_that_is_no_number_ends_the_run_and_says_where(
    feature_splits: tuple[Tensor, Tensor, Tensor], tmp_path: Path
) -> None:
    model, config = build(on="features", epochs=2)
    model.embedding.weight.data[:] = 1e30  # squares to infinity
    with pytest.raises(RunError, match=r"loss is not finite \(epoch 1, step 1, learning rate 0.001\)"):
        train(model, feature_splits, config, tmp_path)


def test_weights_lost_in_the_last_step_of_an_epoch_are_noticed(
    splits: tuple[Tensor, Tensor, Tensor], tmp_path: Path
) -> None:
    model, config = build(epochs=2, batch_size=1000, lr=1e38)
    with pytest.raises(RunError, match="epoch 1, step 1, learning rate"):
        train(model, splits, config, tmp_path)


# ------------------------------------------------------------------------------------------------------ resume


class StopsAfter(Checkpoints):
    """Asks the run to stop after so many steps, as a signal does."""

    def __init__(self, steps: int, folder: Path) -> None:
        super().__init__(folder / "checkpoint.pt", Metrics(folder / "metrics.jsonl"))
        self.left = steps

    def stop_requested(self) -> bool:
        self.left -= 1
        return self.left == 0


@pytest.mark.parametrize("compute", [FLOAT32, BFLOAT16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(("kind", "on"), COMBINATIONS)
def test_resume_is_exact_to_the_byte(
    kind: str,
    on: str,
    compute: Compute,
    splits: tuple[Tensor, Tensor, Tensor],
    feature_splits: tuple[Tensor, Tensor, Tensor],
    tmp_path: Path,
) -> None:
    data = splits if on == "pixels" else feature_splits
    whole = train(*_started(kind, on, data), tmp_path / "whole", compute=compute)

    folder = tmp_path / "parts"
    folder.mkdir()
    stopping = StopsAfter(17, folder)  # in the middle of the second of three epochs
    with pytest.raises(Interrupted):
        train(*_started(kind, on, data), folder, compute=compute, checkpoints=stopping, log=stopping.metrics.log)
    resumed = checkpoints(folder)
    model, _, config = _started(kind, on, data)
    parts = train(model, data, config, folder, compute=compute, checkpoints=resumed, log=resumed.metrics.log)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, parts.model.state_dict()[name]), name
    assert parts.history == whole.history
    assert (parts.test_mse, parts.val_mse, parts.best_epoch) == (whole.test_mse, whole.val_mse, whole.best_epoch)
    assert [line["epoch"] for line in resumed.metrics.lines] == [1, 2, 3]


def _started(kind: str, on: str, data: Sequence[Tensor]) -> tuple[Autoencoder, Sequence[Tensor], AutoencoderConfig]:
    model, config = build(kind, on)
    return model, data, config


def test_the_best_epoch_is_one_of_the_pictures_that_are_there(
    splits: tuple[Tensor, Tensor, Tensor], tmp_path: Path
) -> None:
    """A set may have grown while it was stopped: what it reconstructed well before is no rival."""
    plain = torch.full_like(splits[1], 128)
    stopping = StopsAfter(24, tmp_path)  # two of three epochs
    with pytest.raises(Interrupted):
        train(*_started("mlp", "pixels", (splits[0], plain, plain)), tmp_path, checkpoints=stopping, named="few")
    found = train(*_started("mlp", "pixels", splits), tmp_path, named="more")
    assert found.history[1]["val_loss"] < found.history[2]["val_loss"] == found.val_mse
    assert found.best_epoch == 3


def test_resume_from_the_last_step_of_an_epoch(splits: tuple[Tensor, Tensor, Tensor], tmp_path: Path) -> None:
    whole = train(*_started("mlp", "pixels", splits), tmp_path / "whole")

    with pytest.raises(Interrupted):
        train(*_started("mlp", "pixels", splits), tmp_path, checkpoints=StopsAfter(12, tmp_path))
    parts = train(*_started("mlp", "pixels", splits), tmp_path)
    assert parts.history == whole.history
    assert all(torch.equal(a, b) for a, b in zip(parts.model.parameters(), whole.model.parameters(), strict=True))


# ------------------------------------------------------------------------------------------------- other kinds


@pytest.mark.parametrize(("kind", "on"), COMBINATIONS)
def test_every_kind_learns_and_has_an_embedding_layer(
    kind: str,
    on: str,
    splits: tuple[Tensor, Tensor, Tensor],
    feature_splits: tuple[Tensor, Tensor, Tensor],
    tmp_path: Path,
) -> None:
    data = splits if on == "pixels" else feature_splits
    model, config = build(kind, on, epochs=20, lr=3e-4 if kind == "masked" else 3e-3)
    assert (model.embedding.in_features, model.embedding.out_features) == (H, LATENT)
    assert {"encoder.embedding.weight", "encoder.embedding.bias"} <= model.state_dict().keys()
    found = train(model, data, config, tmp_path)
    mean_picture = ((data[2].float() - data[0].float().mean(0)) / 255).square().mean()
    baseline = mean_picture if on == "pixels" else 1.0  # on features it is a share of the variance
    assert found.test_mse < 0.9 * baseline


@pytest.mark.parametrize("side", [1, 5, 8, 30, 33])
def test_convolutions_fit_every_side(side: int) -> None:
    model = autoencoders.of_kind("conv", 3 * side * side, H, LATENT)
    assert model(torch.rand(2, 3, side, side)).shape == (2, 3 * side * side)


@pytest.mark.parametrize("kind", ["conv", "masked"])
def test_kinds_of_pictures_are_refused_on_features(kind: str) -> None:
    with pytest.raises(InputError, match=f"{kind}, which reads pictures"):
        build(kind, "features")


def test_noise_is_of_the_input_not_of_the_target() -> None:
    model, _ = build("denoising")
    x = torch.rand(6, D, generator=seeded())
    noisy = x + autoencoders.NOISE["pixels"] * torch.randn(x.shape, generator=seeded(4))
    assert model.loss(x, seeded(4)).item() == pytest.approx(F.mse_loss(model(noisy), x).item())


def test_variational_gradient_is_the_evidence_bounds() -> None:
    """Up to one factor, which Adam does not see; the bound's decoder variance is the one that maximises it."""
    model, _ = build("variational")
    x = torch.rand(6, D, generator=seeded())
    hidden = model.encoder.hidden(x).relu()
    assert model.encoder.log_variance is not None
    code = torch.distributions.Normal(model.embedding(hidden), (model.encoder.log_variance(hidden) / 2).exp())
    y = model.decoder(code.mean + code.stddev * torch.randn(6, LATENT, generator=seeded(4)))
    decoded = torch.distributions.Normal(y, (y - x).square().mean().sqrt())
    kl = torch.distributions.kl_divergence(code, torch.distributions.Normal(0.0, 1.0)).sum(1)
    bound = (decoded.log_prob(x).sum(1) - kl).mean()
    factor = -2 * (y - x).square().mean().item() / D
    expected = torch.autograd.grad(bound, list(model.parameters()))
    found = torch.autograd.grad(model.loss(x, seeded(4)), list(model.parameters()))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, factor * theirs, rtol=1e-3, atol=1e-7)


def masked_mse(model: Autoencoder, x: Tensor, ratio: float, generator: torch.Generator) -> Tensor:
    """He et al.'s loss transcribed picture by picture: hidden patches are left out of the input, and alone in the loss.

    The order of the drawn numbers says which patches are seen; pictures are of side 8, cut into 64 patches of 1 pixel.
    """
    patches: Any = model.encoder.hidden
    seen = round((1 - ratio) * 64)
    errors = []
    for picture, row in zip(x, torch.rand(len(x), 64, generator=generator).argsort(1), strict=True):
        kept, hidden = row[:seen], row[seen:]
        pixels = picture.view(3, 64)
        tokens = patches.token(pixels.T[kept]) + positions(8)[kept]
        for block in patches.blocks:
            q, k, v = block.qkv(block.norms[0](tokens)).view(seen, 3, 4, 16).permute(1, 2, 0, 3)
            attended = (q @ k.mT / 4).softmax(2) @ v  # of each of 4 heads
            tokens = tokens + block.gathered(attended.transpose(0, 1).reshape(seen, 64))
            tokens = tokens + block.mlp(block.norms[1](tokens))
        side_by_side = torch.zeros(64, 64)
        side_by_side[kept] = patches.norm(tokens) * 64 / seen
        h = patches.gathered(side_by_side.flatten()).relu()
        found = model.decoder(model.embedding(h)).view(3, 64)
        errors.append((found[:, hidden] - pixels[:, hidden]).square().flatten())
    return torch.cat(errors).mean()


@pytest.mark.parametrize("ratio", [0.75, 0.3])
def test_the_masked_loss_is_its_plain_transcription(ratio: float) -> None:
    model, _ = build("masked", mask_ratio=ratio)
    x = torch.rand(6, D, generator=seeded())
    expected = masked_mse(model, x, ratio, seeded(4))
    loss = model.loss(x, seeded(4))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    ours, plain = (torch.autograd.grad(value, list(model.parameters())) for value in (loss, expected))
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_only_hidden_patches_count_and_only_seen_ones_are_read() -> None:
    model, _ = build("masked")
    patches = cast(Patches, model.encoder.hidden)
    x = torch.rand(6, D, generator=seeded())
    seen, hidden = patches.mask(6, 0.75, seeded(4))
    assert seen.shape == (6, 16)
    assert hidden.sum(1).tolist() == [48 * 3] * 6
    with torch.no_grad():
        read = patches(x, seen)
        assert torch.equal(patches(torch.where(hidden, 0.0, x), seen), read)
        assert not torch.allclose(patches(torch.where(hidden, x, 0.0), seen), read)
    cast(
        nn.Linear, model.decoder.output
    ).weight.data.zero_()  # now what is reconstructed is the output's bias, whatever is read
    unseen = torch.where(hidden, x, torch.rand(6, D, generator=seeded(5)))
    assert model.loss(unseen, seeded(4)).item() == pytest.approx(model.loss(x, seeded(4)).item())
    assert model.loss(torch.where(hidden, 0.0, x), seeded(4)).item() != pytest.approx(model.loss(x, seeded(4)).item())


def test_the_mask_follows_its_generator_alone() -> None:
    patches = cast(Patches, build("masked")[0].encoder.hidden)
    before = torch.get_rng_state()
    first, again, other = (patches.mask(5, 0.75, seeded(seed)) for seed in (4, 4, 5))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])
    assert len({tuple(row.sort().values.tolist()) for row in first[0]}) == 5  # a mask of its own for every picture


@pytest.mark.parametrize("side", [2, 5, 8, 20, 32, 33])
def test_patches_fit_every_side(side: int) -> None:
    model = autoencoders.of_kind("masked", 3 * side * side, H, LATENT, generator=seeded())
    patches = cast(Patches, model.encoder.hidden)
    x = torch.rand(2, 3, side, side, generator=seeded())
    assert model(x).shape == (2, 3 * side * side)
    cut = patches.cut(x.flatten(1)).view(2, patches.across, patches.across, 3, patches.patch, patches.patch)
    whole = cut.permute(0, 3, 1, 4, 2, 5).reshape(2, 3, patches.across * patches.patch, -1)
    assert torch.equal(whole[:, :, :side, :side], x)
    seen, hidden = patches.mask(2, 0.75, seeded())
    pixels = hidden.view(2, 3, side, side)
    for picture in range(2):
        for patch in range(patches.across**2):
            row, column = (n * patches.patch for n in divmod(patch, patches.across))
            block = pixels[picture, :, row : row + patches.patch, column : column + patches.patch]
            assert block.eq(patch not in seen[picture]).all()


def test_a_masked_autoencoder_of_one_pixel_is_refused() -> None:
    with pytest.raises(InputError, match="more than a pixel"):
        autoencoders.of_kind("masked", 3, H, LATENT)


@pytest.mark.parametrize(("active", "units"), [(0.1, 2), (0.5, 8), (0.001, 1), (1.0, LATENT)])
def test_a_sparse_code_is_sparse_and_its_loss_the_plain_one(active: float, units: int) -> None:
    model, _ = build("sparse", active=active)
    x = torch.rand(6, D, generator=seeded())
    errors = []
    for picture, code in zip(x, cast(Sparse, model).code(x), strict=True):
        z = model.embedding(F.relu(cast(nn.Linear, model.encoder.hidden)(picture)))
        largest = z.sort(descending=True).indices[:units].tolist()
        plain = torch.stack([z[i] if i in largest else torch.zeros(()) for i in range(LATENT)])
        assert code.count_nonzero() == units
        torch.testing.assert_close(code, plain)
        errors.append((model.decoder(plain) - picture).square().mean())
    assert model.loss(x).item() == pytest.approx(torch.stack(errors).mean().item(), rel=1e-5)


@pytest.mark.parametrize(("kind", "option"), [("masked", {"mask_ratio": 0.5}), ("sparse", {"active": 0.25})])
def test_a_kinds_own_settings_stand_in_its_file(kind: str, option: dict[str, Any], tmp_path: Path) -> None:
    model, _ = build(kind, **option)
    autoencoders.save(model, tmp_path / "a.safetensors")
    loaded = autoencoders.load(tmp_path / "a.safetensors")
    assert {name: getattr(loaded, name) for name in option} == option
    x = torch.rand(4, D, generator=seeded())
    assert torch.equal(cast(Autoencoder, loaded).loss(x, seeded(1)), model.loss(x, seeded(1)))


@pytest.mark.parametrize("kind", AUTOENCODER_KINDS)
def test_a_head_starts_from_the_embedding_layer_of_every_kind(kind: str, tmp_path: Path) -> None:
    model, _ = build(kind)
    autoencoders.save(model, tmp_path / "a.safetensors")
    head = ProjectionHead.from_autoencoder(tmp_path / "a.safetensors", output_dim=8)
    assert torch.equal(head.first.weight, model.embedding.weight)
    assert torch.equal(head.first.bias, cast(Tensor, model.embedding.bias))
    ProjectionHead.from_autoencoder(tmp_path / "a.safetensors", output_dim=8, pretrained="all")


def test_on_features_the_embedding_layer_reads_h_itself(
    feature_splits: tuple[Tensor, Tensor, Tensor], tmp_path: Path
) -> None:
    model, config = build(on="features", epochs=60)
    found = train(model, feature_splits, config, tmp_path).model
    h = feature_splits[2]
    with torch.no_grad():
        code = F.linear(h, found.embedding.weight, found.embedding.bias)
        assert torch.equal(found.encoder(h), code)
        error = (found(h) - h).square().mean() / feature_splits[0].var(0, unbiased=False).mean()
    assert error < 0.5
    # Centred and scaled into it: the codes of features far from zero that hardly vary are centred and of order one.
    assert code.mean(0).abs().max() < 2 * code.std(0).max()
    assert 0.1 < code.std() < 10


def test_folding_the_standardisation_changes_nothing(feature_splits: tuple[Tensor, Tensor, Tensor]) -> None:
    model, _ = build("deep", "features")
    standardise = ae.Standardise.of(feature_splits[0])
    with torch.no_grad():
        expected = model(standardise(feature_splits[1])) * standardise.scale + standardise.mean
        standardise.fold_into(model)
        torch.testing.assert_close(model(feature_splits[1]), expected, rtol=1e-4, atol=1e-5)


def test_constant_features_are_no_division_by_zero() -> None:
    standardise = ae.Standardise.of(torch.full((5, H), 3.0))
    assert torch.equal(standardise(torch.full((2, H), 3.0)), torch.zeros(2, H))


# ------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(("kind", "on"), COMBINATIONS)
def test_a_saved_autoencoder_is_read_back(kind: str, on: str, tmp_path: Path) -> None:
    model, _ = build(kind, on)
    autoencoders.save(model, tmp_path / "a.safetensors", test_mse=0.5)
    loaded = autoencoders.load(tmp_path / "a.safetensors")
    assert (loaded.kind, loaded.on) == (kind, on)
    x = torch.rand(3, model.in_features)
    assert torch.equal(loaded(x), model(x))
    assert loaded.embedding.weight.requires_grad


def test_reconstructions_are_pictures(splits: tuple[Tensor, Tensor, Tensor], tmp_path: Path) -> None:
    model, config = build(epochs=30)
    found = train(model, splits, config, tmp_path).model
    shown = autoencoders.reconstruct(found, splits[2])
    assert shown.dtype == torch.uint8
    assert shown.shape == splits[2].shape
    exact = found(splits[2].float() / 255).view(shown.shape)
    assert (shown.float() - 255 * exact).abs().max() <= 0.5
    with pytest.raises(InputError, match=r"\(3, 9, 9\)"):
        autoencoders.reconstruct(found, pictures(1, 0, side=9))


def test_an_embedding_layer_alone_is_enough(tmp_path: Path) -> None:
    layer = {"encoder.embedding.weight": torch.randn(4, 6), "encoder.embedding.bias": torch.randn(4)}
    save_file(layer | {"encoder.layers.0.weight": torch.randn(2, 2)}, tmp_path / "a.safetensors")
    loaded = autoencoders.load(tmp_path / "a.safetensors")
    assert torch.equal(loaded.embedding.weight, layer["encoder.embedding.weight"])
    autoencoders.save(loaded, tmp_path / "b.safetensors")
    assert load_file(tmp_path / "b.safetensors").keys() == layer.keys()
    assert torch.equal(autoencoders.load(tmp_path / "b.safetensors").embedding.bias, layer["encoder.embedding.bias"])


def test_the_papers_keys_without_metadata_make_an_mlp(tmp_path: Path) -> None:
    model, _ = build()
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    loaded = autoencoders.load(tmp_path / "a.safetensors")
    x = torch.rand(2, D)
    assert torch.equal(loaded(x), model(x))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "a.safetensors"
    autoencoders.save(build()[0], path)
    return path


def resaved(path: Path, change: dict[str, Tensor | None], **metadata: str) -> Path:
    weights = {name: value for name, value in (load_file(path) | change).items() if value is not None}
    sizes = {"kind": "mlp", "on": "pixels", "in_features": str(D), "hidden_features": str(H), "latent_dim": str(LATENT)}
    save_file(weights, path, sizes | metadata)
    return path


@pytest.mark.parametrize(
    ("change", "metadata", "message"),
    [
        ({"encoder.hidden.bias": None}, {}, "encoder.hidden.bias"),
        ({"encoder.embedding.weight": None}, {}, "no embedding layer"),
        ({"encoder.embedding.bias": torch.zeros(3)}, {}, "no embedding layer"),
        ({"extra": torch.zeros(3)}, {}, "extra"),
        ({"decoder.output.weight": torch.zeros(2, H)}, {}, "decoder.output.weight"),
        ({"encoder.hidden.bias": torch.full((H,), math.nan)}, {}, "not finite"),
        ({"encoder.hidden.bias": torch.zeros(H, dtype=torch.int32)}, {}, "not finite"),
        ({}, {"kind": "transformer"}, "transformer"),
        ({}, {"kind": "deep"}, "not the deep autoencoder"),
        ({}, {"kind": "conv", "on": "features"}, "a conv autoencoder cannot be one of features"),
        ({}, {"kind": "masked", "on": "features", "mask_ratio": "0.5"}, "a masked autoencoder cannot be one of"),
        ({}, {"kind": "sparse"}, "active"),
        ({}, {"kind": "sparse", "active": "much"}, "active"),
        ({}, {"kind": "sparse", "active": "1.5"}, "active is 1.5"),
        ({}, {"kind": "conv", "in_features": str(D + 1)}, "shape"),
        ({}, {"on": "sound"}, "sound"),
        ({}, {"in_features": "9" * 5000}, "sizes"),
        ({}, {"in_features": str(2**60)}, "sizes"),
        ({}, {"in_features": str(2**23)}, "shape"),
        ({}, {"hidden_features": "-1"}, "sizes"),
        ({}, {"latent_dim": "0"}, "sizes"),
        ({}, {"mean": "0.5 0.5", "std": "1 1 1"}, "three numbers"),
        ({}, {"mean": "a b c", "std": "1 1 1"}, "three numbers"),
        ({}, {"mean": "0.5 0.5 0.5"}, "three numbers"),
    ],
)
def test_a_file_that_is_not_what_it_says_is_refused(
    saved: Path, change: dict[str, Tensor | None], metadata: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        autoencoders.load(resaved(saved, change, **metadata))
    assert str(saved) in str(caught.value)


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_a_truncated_file_is_refused(saved: Path, keep: int) -> None:
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"a\.safetensors"):
        autoencoders.load(saved)


@pytest.mark.parametrize(
    "header",
    [
        b"\xff" * 8,
        struct.pack("<Q", 2**40) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 4) + b"\x80\x04.x",
        (lambda body: struct.pack("<Q", len(body)) + body)(
            json.dumps({"a": {"dtype": "F32", "shape": [2**62, 8], "data_offsets": [0, 4]}}).encode()
        ),
    ],
)
def test_a_hostile_header_is_refused(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(header + b"\0" * 16)
    with pytest.raises(InputError, match=r"a\.safetensors"):
        autoencoders.load(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(InputError, match=str(path)):
            autoencoders.load(path)


# ------------------------------------------------------------------------------------------------ a kind of one's own


class Halved(Autoencoder):
    """Made of layers that torch.nn does not draw alone: a norm and a constant that no file holds."""

    def __init__(self, in_features: int, hidden_features: int, latent_dim: int, on: str) -> None:
        super().__init__(in_features, hidden_features, latent_dim, on)
        self.norm = nn.LayerNorm(in_features)
        self.register_buffer("scale", torch.full((), 0.5), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.norm(x.flatten(1)) * self.scale)


@pytest.fixture
def halved(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(AUTOENCODER_KINDS, "_choices", dict(AUTOENCODER_KINDS))
    autoencoders.register("halved", Halved, "a test's")
    return "halved"


def test_a_registered_kind_is_drawn_from_the_generator_trained_saved_and_loaded(
    halved: str, splits: tuple[Tensor, Tensor, Tensor], tmp_path: Path
) -> None:
    before = torch.get_rng_state()
    (model, config), (again, _) = build(halved, seed=5), build(halved, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(model.embedding.weight, again.embedding.weight)
    assert not torch.equal(model.embedding.weight, build(halved, seed=6)[0].embedding.weight)
    found = train(model, splits, config, tmp_path)
    autoencoders.save(found.model, tmp_path / "own.safetensors")
    loaded = autoencoders.load(tmp_path / "own.safetensors")
    assert isinstance(loaded, Halved)
    x = torch.rand(4, D, generator=seeded())
    assert torch.equal(loaded(x), found.model(x))


def test_a_kind_that_is_no_autoencoder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AUTOENCODER_KINDS, "_choices", dict(AUTOENCODER_KINDS))
    autoencoders.register("odd", lambda D, H, d, on: nn.Linear(D, d))  # type: ignore[arg-type, return-value]
    with pytest.raises(InputError, match=r"autoencoder.kind odd: its build must give .* 64 features into 16"):
        build("odd")


def test_validation_weighs_pictures_and_the_test_split_batches(tmp_path: Path) -> None:
    """45 pictures in batches of 20: a last batch of five hard ones is a ninth of the one and a third of the other."""
    model, config = build(epochs=1, lr=1e-9)
    grey = torch.full((45, 3, SIDE, SIDE), 128, dtype=torch.uint8)
    grey[40:] = 255
    found = train(model, (grey, grey, grey), config, tmp_path)
    x = grey.flatten(1) / 255
    with torch.no_grad():
        errors = (found.model(x) - x).square().mean(1)
    assert found.val_mse == pytest.approx(errors.mean().item(), rel=1e-5)
    batches = [errors[:20].mean(), errors[20:40].mean(), errors[40:].mean()]
    assert found.test_mse == pytest.approx(torch.stack(batches).mean().item(), rel=1e-5)
    assert found.test_mse > 2 * found.val_mse
