"""An attention head: the paper's head whose parts of h may look at each other before they are added (paper section 6).

h is cut into equal parts, and the first layer's columns with it, so that each part gives one token and all tokens add
up to the layer's output, `first(h)`. Transformer blocks let the tokens exchange what they hold; the activated sum goes
through the output layer. The blocks begin as the identity: at step 0 this head is the paper's with the same two
layers, and the first one may be an autoencoder's embedding layer bit for bit.
"""

import math

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from headstart.engine.arguments import check_features, draws, whole
from headstart.heads.starts import linear
from headstart.records.config import HeadConfig
from headstart.records.errors import InputError
from headstart.records.names import ACTIVATIONS, ActivationName

HEADS = 4
"""Attention heads, where the width can be shared among so many."""


class AttentionHead(nn.Module):
    """(N, in_features) -> (N, output_dim): a token for each part of h, transformer blocks, sum, activation, Linear.

    Args:
        in_features: width of the backbone's features h; a multiple of `tokens`.
        hidden_dim: dim(g), width of the tokens.
        output_dim: dim(z).
        activation: as for `ProjectionHead`; also in the blocks.
        tokens: parts of h.
        blocks: 1 or 2.
        generator: CPU generator of the weights; the global one when None.

    Attributes:
        first: nn.Linear(in_features, hidden_dim), the layer that starts from somewhere (`heads.start`).
        blocks: nn.ModuleList of `TokenBlock`.
        output: nn.Linear(hidden_dim, output_dim).
        activation: nn.Module.

    Raises:
        InputError: sizes that cannot be.

    >>> AttentionHead(512, hidden_dim=64, output_dim=32, tokens=8)(torch.zeros(2, 512)).shape
    torch.Size([2, 32])
    """

    def __init__(
        self,
        in_features: int,
        hidden_dim: int = 256,
        output_dim: int = 128,
        activation: ActivationName = "relu",
        tokens: int = 8,
        blocks: int = 1,
        *,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        make_activation = ACTIVATIONS.known(activation).made()
        sizes = {"in_features": in_features, "hidden_dim": hidden_dim, "output_dim": output_dim, "tokens": tokens}
        for name, size in sizes.items():
            whole("head", name, size)
        whole("head", "blocks", blocks, most=2)
        draws("head", generator)
        if in_features % tokens:
            raise InputError(
                f"head: kind attention cannot cut {in_features} features into {tokens} equal parts (head.tokens); give "
                "a divisor"
            )
        self.tokens = tokens
        self.first = linear(in_features, hidden_dim, generator)
        self.output = linear(hidden_dim, output_dim, generator)
        self.blocks = nn.ModuleList(TokenBlock(hidden_dim, make_activation(), generator) for _ in range(blocks))
        self.activation = make_activation()

    def forward(self, h: Tensor) -> Tensor:
        """(N, in_features) -> (N, output_dim)."""
        check_features(h, self.first, one_axis=True)
        parts = h.unflatten(1, (self.tokens, -1))
        x = torch.einsum("ntc,dtc->ntd", parts, self.first.weight.unflatten(1, (self.tokens, -1)))
        x = x + self.first.bias / self.tokens
        for block in self.blocks:
            x = block(x)
        z: Tensor = self.output(self.activation(x.sum(dim=1)))
        return z


class TokenBlock(nn.Module):
    """A transformer block, (N, T, d) -> (N, T, d): attention, then an MLP of 2 d units, each behind a norm and added.

    The last layer of both begins at zero, and the block as the identity.
    """

    def __init__(self, width: int, activation: nn.Module, generator: Generator | None) -> None:
        super().__init__()
        self.heads = math.gcd(width, HEADS)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv = linear(width, 3 * width, generator)
        self.gathered = linear(width, width, generator)
        self.hidden = linear(width, 2 * width, generator)
        self.last = linear(2 * width, width, generator)
        self.activation = activation
        for layer in (self.gathered, self.last):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, d) -> (N, T, d)."""
        x = x + self.gathered(self.attend(self.norms[0](x)))
        return x + self.last(self.activation(self.hidden(self.norms[1](x))))

    def attend(self, x: Tensor) -> Tensor:
        """(N, T, d) -> (N, T, d): each token gathers the values of all, by softmax of query times key."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (N, heads, T, d / heads)
        shares = F.softmax(q @ k.mT / math.sqrt(q.shape[-1]), dim=-1)
        return (shares @ v).transpose(1, 2).flatten(2)


def of(in_features: int, settings: HeadConfig, generator: Generator | None = None) -> AttentionHead:
    """The registered kind; raises InputError for settings that only an mlp has."""
    if settings.depth != 2 or settings.batch_norm:
        raise InputError(
            "head.depth and head.batch-norm are for head.kind mlp; kind attention has head.tokens and head.blocks"
        )
    return AttentionHead(
        in_features,
        settings.hidden_dim,
        settings.output_dim,
        settings.activation,
        settings.tokens,
        settings.blocks,
        generator=generator,
    )
