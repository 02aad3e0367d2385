"""A masked autoencoder: a transformer sees some patches of a picture and is asked for the others (paper section 6).

After He et al. 2022 (Masked Autoencoders Are Scalable Vision Learners): the encoder reads only the patches that are
left, and only those that were hidden count in the loss. As the embedding layer has to read one vector of a picture, as
a head's first layer does, the tokens are laid side by side before it, hidden ones as zeros, and the decoder is the
paper's.

Names of sizes: N pictures, T patches of a picture (8 x 8), K of them seen, P side of a patch in pixels, w width of a
token.
"""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headstart.autoencoders.networks import Autoencoder
from headstart.engine.device import sent
from headstart.records.errors import InputError

ACROSS = 8
"""Patches along a side: of 4 pixels at 32 and of 16 at 128, as He et al. have them at 224."""
WIDTH = 64
BLOCKS = 2
HEADS = 4


class Masked(Autoencoder):
    """Asked for the patches that it did not see; without a mask it reconstructs the whole picture."""

    draws = True
    options = ("mask_ratio",)
    mask_ratio = 0.75
    """Share of the patches that are hidden; the authors' value."""

    def outer_layers(self, D: int, H: int) -> tuple[nn.Module, nn.Module]:
        """A transformer before the embedding layer. Raises InputError on features, which have no patches."""
        if self.on == "features":
            raise InputError(
                "autoencoder.kind is masked, which reads pictures; with autoencoder.on features use another"
            )
        if D < 12:
            raise InputError("autoencoder.kind is masked, which needs more than a pixel of a picture")
        return Patches(math.isqrt(D // 3), H), nn.Linear(H, D)

    def loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Mean squared error of x (N, D) over the values of hidden patches, scalar."""
        patches = self.encoder.hidden
        assert isinstance(patches, Patches)
        seen, hidden = (sent(part, x.device) for part in patches.mask(len(x), self.mask_ratio, generator))
        code = self.encoder.embedding(F.relu(patches(x, seen)))
        errors = (self.decoder(code) - x).square() * hidden
        return errors.sum() / hidden.sum()


class Patches(nn.Module):
    """Flattened pictures (N, 3 S S) -> (N, H): patches become tokens, transformer blocks, one Linear of all tokens.

    Pictures whose side ACROSS does not divide are filled up with zeros at the right and bottom.
    """

    def __init__(self, side: int, H: int) -> None:
        super().__init__()
        self.side = side
        self.patch = math.ceil(side / ACROSS)
        self.across = math.ceil(side / self.patch)
        self.token = nn.Linear(3 * self.patch**2, WIDTH)
        self.blocks = nn.ModuleList(PatchBlock() for _ in range(BLOCKS))
        self.norm = nn.LayerNorm(WIDTH)
        self.gathered = nn.Linear(self.across**2 * WIDTH, H)

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """(N, 3 S S) -> (N, H); `seen` (N, K) int64, the patches to look at. None: all."""
        tokens = self.token(self.cut(x))
        tokens = tokens + placed(self.across, tokens.device).to(tokens.dtype)
        index = None if seen is None else seen.unsqueeze(2).expand(-1, -1, WIDTH)
        if index is not None:
            tokens = tokens.gather(1, index)
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        if index is not None:
            # As in dropout, what is left stands for what is not, so that a whole picture's sum is as large.
            tokens = tokens * (self.across**2 / index.shape[1])
            tokens = tokens.new_zeros(len(x), self.across**2, WIDTH).scatter(1, index, tokens)
        gathered: Tensor = self.gathered(tokens.flatten(1))
        return gathered

    def cut(self, x: Tensor) -> Tensor:
        """(N, 3 S S) -> patches (N, T, 3 P P), row by row."""
        missing = self.across * self.patch - self.side
        pictures = F.pad(x.view(-1, 3, self.side, self.side), (0, missing, 0, missing))
        return F.unfold(pictures, self.patch, stride=self.patch).mT

    def mask(self, n: int, ratio: float, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """The patches seen of each of n pictures (n, K) int64, and the values that lie in the others (n, 3 S S) bool.

        Drawn on the CPU, so that every device sees the same.
        """
        T = self.across**2
        kept = min(max(round((1 - ratio) * T), 1), T - 1)  # something is seen, and something is asked for
        seen = torch.rand(n, T, generator=generator).argsort(1)[:, :kept]
        hidden = torch.ones(n, T, dtype=torch.bool).scatter(1, seen, False)
        pixels = hidden.view(n, self.across, self.across)
        for side in (1, 2):
            pixels = pixels.repeat_interleave(self.patch, side)
        pixels = pixels[:, None, : self.side, : self.side].expand(-1, 3, -1, -1)
        return seen, pixels.flatten(1)


class PatchBlock(nn.Module):
    """A transformer block (N, K, w) -> (N, K, w): attention, then an MLP of 4 w, each behind a norm and added."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.gathered = nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """(N, K, w) -> (N, K, w)."""
        q, k, v = self.qkv(self.norms[0](x)).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.gathered(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        y: Tensor = x + self.mlp(self.norms[1](x))
        return y


@functools.lru_cache(maxsize=8)
def placed(across: int, device: torch.device) -> Tensor:
    """`positions` on a device, made once."""
    return positions(across).to(device)


def positions(across: int) -> Tensor:
    """Where each patch lies, (T, w): sines and cosines of its row and column (Vaswani et al. 2017, in 2-D)."""
    frequencies = 10_000 ** -(torch.arange(WIDTH // 4) / (WIDTH // 4))
    angles = torch.outer(torch.arange(across), frequencies)
    waves = torch.cat([angles.sin(), angles.cos()], 1)  # (across, w / 2)
    rows, columns = waves.repeat_interleave(across, 0), waves.repeat(across, 1)
    return torch.cat([rows, columns], 1)
