"""The paper's autoencoder, from which every kind derives: flatten, Linear(D, 512), ReLU, embedding Linear(512, d);
Linear(d, 512), ReLU, Linear(512, D), sigmoid (paper 3.2, 3.3).

Names of sizes: D values of a picture or of h, H hidden features (the backbone's), d latent size, N pictures.
"""

import math
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headstart.records.errors import InputError

EVALUATION_BATCH, EVALUATION_VALUES = 1000, 2**24
"""Rows that go through an autoencoder at once where no gradient is asked for, and values in them, at most."""


def rows_at_once(in_features: int) -> int:
    """How many rows of that width these are."""
    return max(1, min(EVALUATION_BATCH, EVALUATION_VALUES // in_features))


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

    >>> autoencoder = Autoencoder(3 * 8 * 8, hidden_features=64, latent_dim=16)
    >>> x = autoencoder.prepare(torch.zeros(4, 3, 8, 8, dtype=torch.uint8))
    >>> autoencoder(x).shape == x.shape, autoencoder.embedding
    (True, Linear(in_features=64, out_features=16, bias=True))
    """

    kind = "mlp"
    draws = False
    """Whether the loss draws noise or a mask."""
    options: tuple[str, ...] = ()
    """Numbers among the settings of `AutoencoderConfig` that this kind has as attributes; they stand in its file."""
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


def _initialise(model: nn.Module, generator: torch.Generator) -> None:
    """Draw every layer's weights as torch's own `reset_parameters` does, from this generator."""
    for layer in model.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
            bound = 1 / math.sqrt(layer.weight[0].numel())
            assert layer.bias is not None
            nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
        elif isinstance(layer, nn.LayerNorm):
            layer.reset_parameters()


@torch.no_grad()
def reconstruct(model: Autoencoder, pictures: Tensor) -> Tensor:
    """uint8 pictures (N, 3, S, S) -> their reconstructions, uint8 of the same shape, on the CPU.

    Raises InputError when the model is not one of pictures of this size.
    """
    shape = tuple(pictures.shape[1:])
    if not isinstance(model, Autoencoder) or model.on != "pixels" or model.in_features != math.prod(shape):
        raise InputError(f"this autoencoder does not reconstruct pictures of shape {shape}")
    parts = []
    for batch in pictures.split(rows_at_once(model.in_features)):
        x = model(model.prepare(batch.to(model.embedding.weight.device))).view(batch.shape)
        if model.normalized:
            x = x * model.std.view(3, 1, 1) + model.mean.view(3, 1, 1)
        parts.append(x.mul(255).round().clamp(0, 255).to(torch.uint8).cpu())
    return torch.cat(parts)
