"""The other kinds of autoencoders, the paper's future work: each a class derived from the paper's (paper section 6)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headstart.autoencoders.networks import Autoencoder, Decoder, Encoder
from headstart.records.errors import InputError

NOISE = {"pixels": 0.1, "features": 0.4}
"""Standard deviation of the denoising kind's Gaussian noise: of values in [0, 1], and of standardised features. Both
are about 0.4 of the input's own standard deviation."""


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


class Sparse(Autoencoder):
    """Of the embedding only the largest units are passed on, the others are zero (Makhzani and Frey 2014)."""

    options = ("active",)
    active = 0.1
    """Share of the units that are passed on."""

    def code(self, x: Tensor) -> Tensor:
        """(N, D) -> (N, d), of which round(active d) values, at least one, are not zero."""
        z = self.encoder(x.flatten(1))
        largest = z.topk(max(1, round(self.active * self.latent_dim)), dim=1).indices
        return z * torch.zeros_like(z).scatter(1, largest, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        """As the paper's, by way of the sparse code."""
        reconstruction: Tensor = self.decoder(self.code(x))
        return reconstruction


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


def _noise(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal, of the shape of `like`. A GPU draws its own, from the same seed: making so many numbers on the
    host and copying them would take longer than the rest of the step."""
    if generator is not None and like.device.type == "cuda":
        generator = torch.Generator(like.device).manual_seed(generator.initial_seed())
    if like.device.type in ("cpu", "cuda"):
        return torch.randn(like.shape, generator=generator, device=like.device)
    return torch.randn(like.shape, generator=generator).to(like.device)
