"""The paper's projection head g, a plain `nn.Module` that fits any SimCLR loop (paper 3.4).

Comes in: sizes, and for most inits a trained autoencoder or features of the untrained backbone. Goes out: the head,
with its first layer frozen or trainable.

A frozen layer does not require gradients and is in no optimiser group (`optimizers.groups`), so neither weight decay
nor momentum ever touches it. With `batch_norm` the norm behind a frozen layer still learns its scale and shift.
"""

from typing import Any, Literal, Self

from torch import Generator, Tensor, nn

from headstart.engine.arguments import check_features, draws, flags, whole
from headstart.engine.importers import AutoencoderSource, autoencoder_state
from headstart.heads.starts import check_pretrained, linear, start
from headstart.records.errors import InputError
from headstart.records.names import ACTIVATIONS, ActivationName, HeadInitName


class ProjectionHead(nn.Module):
    """(N, in_features) -> (N, output_dim): Linear, activation, Linear (paper Eq. 1); random and trainable.

    Args:
        in_features: width of the backbone's features h.
        hidden_dim: dim(g), output features of the first layer.
        output_dim: dim(z).
        activation: one of `records.names.ACTIVATIONS`: relu, silu, sigmoid, tanh, gelu, leaky_relu, identity.
        depth: Linear layers, 1 to 4. 2 is the paper's. 1 is the first layer alone, without activation, and needs
            `hidden_dim == output_dim`; 3 and 4 put hidden_dim x hidden_dim layers in between.
        batch_norm: batch norm between every layer and its activation (the last layer has neither).
        generator: CPU generator of the weights; the global one when None, with nn.Linear's own draws.

    Attributes:
        first: nn.Linear(in_features, hidden_dim), the layer that starts from somewhere.
        hidden: nn.ModuleList of the depth - 2 layers in between.
        output: nn.Linear(hidden_dim, output_dim) (nn.Identity at depth 1).
        activation: nn.Module.

    Raises:
        InputError: a size, depth or activation that cannot be.

    >>> head = ProjectionHead(512, hidden_dim=256, output_dim=128, activation="sigmoid")
    >>> sum(weights.numel() for weights in head.parameters())
    164224
    """

    def __init__(
        self,
        in_features: int,
        hidden_dim: int = 256,
        output_dim: int = 128,
        activation: ActivationName = "relu",
        depth: int = 2,
        batch_norm: bool = False,
        *,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        make_activation = ACTIVATIONS.known(activation).made()
        for name, size in (("in_features", in_features), ("hidden_dim", hidden_dim), ("output_dim", output_dim)):
            whole("head", name, size)
        whole("head", "depth", depth, most=4)
        flags("head", batch_norm=batch_norm)
        draws("head", generator)
        if depth == 1 and hidden_dim != output_dim:
            raise InputError(
                f"head: at depth 1 the first layer is the output layer, but hidden_dim is {hidden_dim} and "
                f"output_dim {output_dim}; they must be equal"
            )
        self.depth = depth
        self.first = linear(in_features, hidden_dim, generator)
        self.hidden = nn.ModuleList(linear(hidden_dim, hidden_dim, generator) for _ in range(depth - 2))
        self.output = linear(hidden_dim, output_dim, generator) if depth > 1 else nn.Identity()
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden_dim) for _ in range(depth - 1) if batch_norm)
        self.activation = make_activation()

    def forward(self, h: Tensor) -> Tensor:
        """(N, in_features) -> (N, output_dim)."""
        check_features(h, self.first, one_axis=len(self.norms) > 0)
        x = self.first(h)
        if self.depth == 1:
            return x
        for i, layer in enumerate((*self.hidden, self.output)):
            x = layer(self.activation(self.norms[i](x) if self.norms else x))
        return x

    @property
    def frozen(self) -> bool:
        """Whether the first layer keeps the weights it started with."""
        return not self.first.weight.requires_grad

    @frozen.setter
    def frozen(self, frozen: bool) -> None:
        self.first.requires_grad_(not frozen)

    @classmethod
    def from_autoencoder(
        cls,
        autoencoder: AutoencoderSource,
        output_dim: int = 128,
        activation: ActivationName = "relu",
        frozen: bool = True,
        **options: Any,
    ) -> Self:
        """The paper's head: the first layer is a pretrained autoencoder's embedding layer, bit for bit.

        Args:
            autoencoder: what `importers.autoencoder_state` takes: a file, a run, a pythae folder, a module. It sets
                in_features and hidden_dim.
            output_dim, activation, frozen: as elsewhere.
            options: further options of `from_init`.
        """
        state = autoencoder_state(autoencoder)
        hidden_dim, in_features = state["encoder.embedding.weight"].shape
        return cls.from_init(
            in_features,
            init="autoencoder",
            hidden_dim=hidden_dim,
            output_dim=output_dim,
            activation=activation,
            frozen=frozen,
            autoencoder=state,
            **options,
        )

    @classmethod
    def from_init(
        cls,
        in_features: int,
        *,
        init: HeadInitName,
        hidden_dim: int = 256,
        output_dim: int = 128,
        activation: ActivationName = "relu",
        frozen: bool = True,
        autoencoder: AutoencoderSource | None = None,
        features: Tensor | None = None,
        generator: Generator | None = None,
        depth: int = 2,
        batch_norm: bool = False,
        match_scale: bool = False,
        pretrained: Literal["first", "all"] = "first",
        output_init: HeadInitName | None = None,
    ) -> Self:
        """A head whose first layer comes from `init`; every other layer is the same for all inits.

        Args:
            init: `random`: the layer's own default. `autoencoder`: the embedding layer. `orthogonal`: a uniformly
                drawn (semi-)orthogonal matrix, zero biases. `spectrum`: uniformly drawn singular bases with the
                embedding layer's singular values, and its biases. `shuffled`: the embedding layer's weights in
                random order, and its biases in random order. `pca`: the leading principal directions of `features`,
                largest entry positive, with biases that subtract their mean (the output is PCA's transform).
            frozen: keep the first layer as it starts.
            autoencoder: source of the embedding layer (autoencoder, spectrum, shuffled); see `from_autoencoder`.
            features: (K, in_features) h of the untrained backbone, for `pca` (K > hidden_dim) and `match_scale`.
            generator: CPU generator. The weights of a random head are drawn from it first, whatever the init, so
                the layers behind the first are equal for every init.
            match_scale: multiply the first layer by the one number that gives its output on `features` the root mean
                square of the random init's; without `features`, its weight matrix that one's Frobenius norm.
            pretrained: `all` also starts the output layer from the autoencoder: the decoder's first layer through its
                output_dim leading left singular vectors, which keeps the inner products of the decoder's hidden
                features best; `spectrum` and `shuffled` treat it as the first. It always trains. Only at depth 2.
            output_init: another start of the output layer: `autoencoder` is the layer of `pretrained all`, `spectrum`
                and `shuffled` are made from it; not `pca`. None: as `pretrained`. Not with its `all`; only at depth 2.

        Raises:
            InputError: what the init needs is missing or has another width than the head.

        >>> head = ProjectionHead.from_init(64, init="orthogonal", hidden_dim=32, output_dim=16, frozen=True)
        >>> head.frozen, round(float(head.first.weight.norm() ** 2), 3)
        (True, 32.0)
        """
        flags("head", frozen=frozen, match_scale=match_scale)
        check_pretrained(pretrained, init, depth, output_init)
        head = cls(
            in_features, hidden_dim, output_dim, activation, depth=depth, batch_norm=batch_norm, generator=generator
        )
        start(
            head,
            init=init,
            frozen=frozen,
            autoencoder=autoencoder,
            features=features,
            generator=generator,
            match_scale=match_scale,
            pretrained=pretrained,
            output_init=output_init,
        )
        return head
