"""The autoencoders whose embedding layer can start the projection head (paper 3.2): the networks and their files.

The paper's is `mlp`: flatten, Linear(D, 512), ReLU, embedding Linear(512, d); Linear(d, 512), ReLU, Linear(512, D),
sigmoid. The other kinds are its future work. How they are trained stands in training/autoencoder.py.

Names of sizes: D values of a picture or of h, H hidden features (the backbone's), d latent size, N pictures.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import cast, get_args

import safetensors
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headstart.engine.importers import autoencoder_state
from headstart.engine.randomness import seeded
from headstart.engine.weights import save as write_weights
from headstart.records.config import AutoencoderConfig
from headstart.records.errors import InputError
from headstart.records.folder import RunFolder
from headstart.records.names import AUTOENCODER_KINDS, Choice

SOURCES = get_args(AutoencoderConfig.__annotations__["on"])

NOISE = {"pixels": 0.1, "features": 0.4}
"""Standard deviation of the denoising kind's Gaussian noise: of values in [0, 1], and of standardised features. Both
are about 0.4 of the input's own standard deviation."""

EVALUATION_BATCH = 1000
"""Rows that go through an autoencoder at once where no gradient is asked for."""


class Encoder(nn.Module):
    """Flattened input (N, D) -> embedding (N, d): hidden layers, ReLU, embedding layer.

    On features there are no hidden layers: the embedding layer reads h itself, which is what a head's first layer
    reads.
    """

    log_variance: nn.Linear | None

    def __init__(self, hidden: nn.Module, embedding: nn.Linear) -> None:
        super().__init__()
        self.hidden = hidden
        self.embedding = embedding
        self.log_variance = None

    def hidden_activations(self, x: Tensor) -> Tensor:
        """What the embedding layer reads, (N, H)."""
        return x if isinstance(self.hidden, nn.Identity) else F.relu(self.hidden(x))

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) -> (N, d)."""
        return self.embedding(self.hidden_activations(x))


class Decoder(nn.Module):
    """Embedding (N, d) -> reconstruction (N, D), in [0, 1] for pixels: Linear, ReLU, output layers, sigmoid."""

    def __init__(self, hidden: nn.Linear, output: nn.Module, bounded: bool) -> None:
        super().__init__()
        self.hidden = hidden
        self.output = output
        self.bounded = bounded

    def forward(self, z: Tensor) -> Tensor:
        """(N, d) -> (N, D), float32."""
        x = self.output(F.relu(self.hidden(z)))
        x = x.float() if x.dtype == torch.bfloat16 else x  # the sigmoid and the loss are not rounded
        return torch.sigmoid(x) if self.bounded else x


class Autoencoder(nn.Module):
    """An autoencoder; this class is the paper's (3.2, 3.3), and those derived from it are the other kinds.

    Args:
        in_features: D, 3 S S for pictures of side S, or the length of h.
        hidden_features: H, the backbone's `num_features`, so that the embedding layer fits a head on it.
        latent_dim: d, the head's `hidden_dim`.
        on: `pixels`, or `features`: then the encoder is the embedding layer alone, Linear(D, d), and D should be H.
        generator: of the initial weights, which follow each layer's own default distribution. None: torch's global
            one, as in any other module.
    """

    kind = "mlp"
    draws = False
    """Whether the loss draws noise."""
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        latent_dim: int,
        on: str = "pixels",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.on = on
        self.in_features, self.hidden_features, self.latent_dim = in_features, hidden_features, latent_dim
        with torch.device("meta") if generator else nullcontext():
            self.encoder, self.decoder = self.layers()
        if generator:
            self.to_empty(device="cpu")
            _initialise(self, generator)
        self.register_buffer("mean", torch.zeros(3, device="cpu"), persistent=False)
        self.register_buffer("std", torch.ones(3, device="cpu"), persistent=False)

    def layers(self) -> tuple[Encoder, Decoder]:
        """Both halves: the embedding layer between the `outer_layers`."""
        D, H, d = self.in_features, self.hidden_features, self.latent_dim
        hidden, output = self.outer_layers(D, H)
        on_features = self.on == "features"
        encoder = Encoder(nn.Identity() if on_features else hidden, nn.Linear(D if on_features else H, d))
        return encoder, Decoder(nn.Linear(d, H), output, bounded=self.on == "pixels")

    def outer_layers(self, D: int, H: int) -> tuple[nn.Module, nn.Module]:
        """(N, D) -> (N, H) before the embedding layer, and (N, H) -> (N, D) after the decoder's hidden layer."""
        return nn.Linear(D, H), nn.Linear(H, D)

    @property
    def embedding(self) -> nn.Linear:
        """The embedding layer, Linear(H, d): what a head's first layer starts from."""
        return self.encoder.embedding

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) or (N, 3, S, S) -> reconstruction (N, D), float32."""
        reconstruction: Tensor = self.decoder(self.encoder(x.flatten(1)))
        return reconstruction

    def loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Mean squared error (Equation 4) of x (N, D), scalar; a kind that `draws` takes its noise from `generator`."""
        return F.mse_loss(self(x), x)

    def prepare(self, batch: Tensor) -> Tensor:
        """uint8 pictures (N, 3, S, S) -> (N, D) float32 in [0, 1], or Z-scored; features pass as they are."""
        if batch.dtype != torch.uint8:
            return batch
        x = batch.float().div_(255)
        if self.normalized:
            x = x.sub_(self.mean.view(3, 1, 1)).div_(self.std.view(3, 1, 1))
        return x.flatten(1)

    normalized = False
    """Whether pictures are Z-scored with `mean` and `std`."""

    def normalize_with(self, mean: Tensor, std: Tensor) -> None:
        """Z-score pictures from now on; mean and std (3,) of pixels in [0, 1]."""
        self.mean = torch.as_tensor(mean, dtype=torch.float32, device=self.mean.device)
        self.std = torch.as_tensor(std, dtype=torch.float32, device=self.std.device)
        self.normalized = True


class Deep(Autoencoder):
    """One more layer of 2 H features on each side."""

    def outer_layers(self, D: int, H: int) -> tuple[nn.Module, nn.Module]:
        """Two layers each, with a ReLU between them."""
        hidden = nn.Sequential(nn.Linear(D, 2 * H), nn.ReLU(), nn.Linear(2 * H, H))
        return hidden, nn.Sequential(nn.Linear(H, 2 * H), nn.ReLU(), nn.Linear(2 * H, D))


class Convolutional(Autoencoder):
    """Three stride-2 convolutions on each side."""

    def outer_layers(self, D: int, H: int) -> tuple[nn.Module, nn.Module]:
        """Raises InputError on features, which have no rows and columns."""
        if self.on == "features":
            raise InputError("autoencoder.kind is conv, which reads pictures; with autoencoder.on features use another")
        return _convolutions(D, H)


class Denoising(Autoencoder):
    """Reads noisy input, reconstructs it without the noise."""

    draws = True

    def loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Mean squared error of x (N, D) and what is made of x with Gaussian noise, scalar."""
        return F.mse_loss(self(x + NOISE[self.on] * _noise(x, generator)), x)


class Variational(Autoencoder):
    """The embedding layer gives the mean of a Gaussian code."""

    draws = True

    def layers(self) -> tuple[Encoder, Decoder]:
        """With a layer beside the embedding layer for the code's log variance."""
        encoder, decoder = super().layers()
        encoder.log_variance = nn.Linear(encoder.embedding.in_features, self.latent_dim)
        return encoder, decoder

    def loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Mean squared error and KL term of x (N, D), scalar.

        The KL term is weighted so that the gradient is the evidence bound's whose Gaussian decoder has the variance
        that fits best, the batch's mean squared error (Rybkin et al. 2021). With unit variance pictures in [0, 1]
        would not be worth a single bit of code.
        """
        assert self.encoder.log_variance is not None
        features = self.encoder.hidden_activations(x)
        mean = self.encoder.embedding(features).float()
        log_variance = self.encoder.log_variance(features).float()
        z = mean + (log_variance / 2).exp() * _noise(mean, generator)
        kl = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean() / 2
        mse = F.mse_loss(self.decoder(z), x)
        return mse + mse.detach() * 2 * kl / self.in_features


class EmbeddingOnly(nn.Module):
    """An embedding layer without the rest of its autoencoder, as imported ones may be; its weights are to be loaded."""

    kind = "embedding"

    def __init__(self, in_features: int, latent_dim: int) -> None:
        super().__init__()
        self.encoder = Encoder(nn.Identity(), nn.utils.skip_init(nn.Linear, in_features, latent_dim))

    @property
    def embedding(self) -> nn.Linear:
        """The embedding layer."""
        return self.encoder.embedding


def build(
    config: AutoencoderConfig, in_features: int, hidden_features: int, latent_dim: int, generator: torch.Generator
) -> Autoencoder:
    """An untrained autoencoder of the config's kind; sizes as for `Autoencoder`.

    Raises InputError for a convolutional one on features, which have no rows and columns.
    """
    return of_kind(config.kind, in_features, hidden_features, latent_dim, config.on, generator)


def of_kind(
    kind: str,
    in_features: int,
    hidden_features: int,
    latent_dim: int,
    on: str = "pixels",
    generator: torch.Generator | None = None,
) -> Autoencoder:
    """An untrained autoencoder of a registered kind; the rest as for `Autoencoder`."""
    make = AUTOENCODER_KINDS.known(kind).made()
    model: Autoencoder = make(in_features, hidden_features, latent_dim, on, generator)
    model.kind = kind
    return model


def register(name: str, build: Callable[[int, int, int, str], Autoencoder], help: str = "") -> None:
    """Let `autoencoder.kind` be `name`, here and in every study, from now on.

    Args:
        build: (in_features, hidden_features, latent_dim, on) -> an `Autoencoder`, such as a class derived from it;
            what it draws from torch's global generator follows from the run's seed.
        help: one line for `headstart list autoencoders`.

    Raises InputError for a name that is taken; a run raises it where `build` makes something else.
    """

    def make(D: int, H: int, d: int, on: str, generator: torch.Generator | None = None) -> Autoencoder:
        model = seeded(generator, lambda: build(D, H, d, on))
        layer = getattr(getattr(model, "encoder", None), "embedding", None)
        width = D if on == "features" else H
        if not isinstance(model, Autoencoder) or getattr(layer, "weight", torch.empty(0)).shape != (d, width):
            raise InputError(
                f"autoencoder.kind {name}: its build must give a headstart.autoencoders.Autoencoder whose "
                f"encoder.embedding is a Linear layer of {width} features into {d}"
            )
        return model

    AUTOENCODER_KINDS.register(Choice(name=name, help=help or "a kind of your own", make=make))


def _convolutions(D: int, H: int) -> tuple[nn.Module, nn.Module]:
    side = math.isqrt(D // 3)
    small = math.ceil(side / 8)
    hidden = nn.Sequential(
        nn.Unflatten(1, (3, side, side)),
        nn.Conv2d(3, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 128, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128 * small * small, H),
    )
    output = nn.Sequential(
        nn.Linear(H, 128 * small * small),
        nn.ReLU(),
        nn.Unflatten(1, (128, small, small)),
        nn.ConvTranspose2d(128, 64, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(32, 3, 4, stride=2, padding=1),
        _Crop(side),
        nn.Flatten(),
    )
    return hidden, output


class _Crop(nn.Module):
    """(N, C, height, width) -> its top left square, for sides that 8 does not divide."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        return x[..., : self.side, : self.side]


def _initialise(model: nn.Module, generator: torch.Generator) -> None:
    """Draw every layer's weights as torch's own `reset_parameters` does, from this generator."""
    for layer in model.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
            bound = 1 / math.sqrt(layer.weight[0].numel())
            assert layer.bias is not None
            nn.init.uniform_(layer.bias, -bound, bound, generator=generator)


def _noise(like: Tensor, generator: torch.Generator | None) -> Tensor:
    # Drawn on the CPU, so that every device sees the same noise.
    return torch.randn(like.shape, generator=generator).to(like.device, non_blocking=True)


@torch.no_grad()
def reconstruct(model: Autoencoder, pictures: Tensor) -> Tensor:
    """uint8 pictures (N, 3, S, S) -> their reconstructions, uint8 of the same shape, on the CPU.

    Raises InputError when the model is not one of pictures of this size.
    """
    shape = tuple(pictures.shape[1:])
    if not isinstance(model, Autoencoder) or model.on != "pixels" or model.in_features != math.prod(shape):
        raise InputError(f"this autoencoder does not reconstruct pictures of shape {shape}")
    parts = []
    for batch in pictures.split(EVALUATION_BATCH):
        x = model(model.prepare(batch.to(model.embedding.weight.device))).view(batch.shape)
        if model.normalized:
            x = x * model.std.view(3, 1, 1) + model.mean.view(3, 1, 1)
        parts.append(x.mul(255).round().clamp(0, 255).to(torch.uint8).cpu())
    return torch.cat(parts)


# ------------------------------------------------------------------------------------------------------------- files


def save(model: Autoencoder | EmbeddingOnly, path: str | Path, **metadata: object) -> None:
    """Write an autoencoder as safetensors; its kind and sizes stand in the metadata, and what else is given."""
    sizes = ("on", "in_features", "hidden_features", "latent_dim") if isinstance(model, Autoencoder) else ()
    known = {name: str(getattr(model, name)) for name in ("kind", *sizes)}
    if isinstance(model, Autoencoder) and model.normalized:
        known |= {name: " ".join(map(str, getattr(model, name).tolist())) for name in ("mean", "std")}
    write_weights(path, model.state_dict(), **{**metadata, **known})


def load(path: str | Path) -> Autoencoder | EmbeddingOnly:
    """Read what `save` wrote, or any safetensors file with `encoder.embedding.weight` and `.bias`.

    Without a kind in the metadata, the paper's eight keys make an `mlp`; otherwise only the embedding layer is kept.
    Raises InputError naming the file when it cannot be read, is damaged, or its tensors are not what it says.
    """
    return assemble(path, *read(path))


def find(source: str) -> Autoencoder | EmbeddingOnly:
    """A finished autoencoder: our file or run, or what `importers` reads (whole where it is the paper's MLP)."""
    path = Path(source)
    path = RunFolder(path).autoencoder if RunFolder(path).autoencoder.exists() else path
    weights, metadata = read(path) if path.suffix == ".safetensors" else ({}, {})
    return assemble(path, weights if "kind" in metadata else autoencoder_state(path), metadata)


def assemble(path: str | Path, weights: dict[str, Tensor], metadata: dict[str, str]) -> Autoencoder | EmbeddingOnly:
    """The autoencoder that a file's tensors, under Headstart's names, and its metadata describe; `load` says how."""
    weight, bias = (weights.get(f"encoder.embedding.{name}") for name in ("weight", "bias"))
    if weight is None or bias is None or weight.dim() != 2 or bias.shape != weight.shape[:1] or not weight.numel():
        raise InputError(
            f"{path} holds no embedding layer: it needs encoder.embedding.weight (d, H) and encoder.embedding.bias (d)"
        )
    model: Autoencoder | EmbeddingOnly
    kind = metadata.get("kind", "mlp" if set(weights) == _MLP_KEYS else "embedding")
    if kind == "embedding":
        model = EmbeddingOnly(weight.shape[1], weight.shape[0])
        weights = {name: value for name, value in weights.items() if name in model.state_dict()}
    else:
        model = _shaped_as_said(path, kind, weights, metadata)
    for name, value in weights.items():
        if not value.is_floating_point() or not value.isfinite().all():
            raise InputError(f"{path} is damaged: {name} holds values that are not finite numbers; train it again")
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if expected != found:
        name = min(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        raise InputError(
            f"{path} is not the {kind} autoencoder it says it is: {name} has shape {found.get(name, 'none')}, "
            f"expected {expected.get(name, 'none')}"
        )
    if any(buffer.is_meta for buffer in model.buffers()):  # a constant of a kind of one's own, which no file holds
        model = _really(cast(Autoencoder, model))
    model.load_state_dict({name: value.float() for name, value in weights.items()}, assign=True)
    return model.eval()


def _really(outline: Autoencoder) -> Autoencoder:
    """An autoencoder with memory in place of one without."""
    made = of_kind(outline.kind, outline.in_features, outline.hidden_features, outline.latent_dim, outline.on)
    if outline.normalized:
        made.normalize_with(outline.mean, outline.std)
    return made


_MLP_KEYS = {
    f"{part}.{name}"
    for part in ("encoder.hidden", "encoder.embedding", "decoder.hidden", "decoder.output")
    for name in ("weight", "bias")
}
_LARGEST = 2**24


def read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors and the metadata of a safetensors file; nothing in it can run."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except (safetensors.SafetensorError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} is not a whole safetensors file ({error}); copy it again or train it again") from None


def _shaped_as_said(path: str | Path, kind: str, weights: dict[str, Tensor], metadata: dict[str, str]) -> Autoencoder:
    """The empty autoencoder of the file's kind and sizes, without memory for weights yet."""
    if kind not in AUTOENCODER_KINDS:
        raise InputError(f"{path} is of kind {kind!r}; known kinds are {', '.join(AUTOENCODER_KINDS)}")
    if "kind" not in metadata:
        hidden, D = weights["encoder.hidden.weight"].shape
        metadata = metadata | {"on": "pixels", "in_features": f"{D}", "hidden_features": f"{hidden}"}
        metadata["latent_dim"] = str(len(weights["encoder.embedding.bias"]))
    on = metadata.get("on")
    sizes = [metadata.get(name, "") for name in ("in_features", "hidden_features", "latent_dim")]
    if (
        on is None
        or on not in SOURCES
        or not all(len(s) < 9 and s.isdecimal() and 0 < int(s) < _LARGEST for s in sizes)
    ):
        raise InputError(f"{path} does not say its sizes: its metadata has on {on!r} and sizes {sizes}")
    D, H, d = map(int, sizes)
    if kind == "conv" and on == "features":
        raise InputError(f"{path} is damaged: a conv autoencoder cannot be one of features")
    with torch.device("meta"):
        model = of_kind(kind, D, H, d, on)
    if "mean" in metadata or "std" in metadata:
        try:
            mean, std = ([float(v) for v in metadata[name].split()] for name in ("mean", "std"))
            model.normalize_with(torch.tensor(mean).reshape(3), torch.tensor(std).reshape(3))
        except (KeyError, ValueError, RuntimeError):
            raise InputError(f"{path} is damaged: its metadata's mean and std must be three numbers each") from None
    return model
