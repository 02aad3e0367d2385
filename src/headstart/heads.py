"""The projection head g, and where its first layer comes from (paper 3.4; the inits of docs/heads.md).

Comes in: sizes, and for most inits a trained autoencoder or features of the untrained backbone. Goes out: a
`ProjectionHead`, a plain `nn.Module` that fits any SimCLR loop, with its first layer frozen or trainable.

A frozen layer does not require gradients and is in no optimiser group (`optimizers.groups`), so neither weight decay
nor momentum ever touches it. With `batch_norm` the norm behind a frozen layer still learns its scale and shift.
"""

import copy
from dataclasses import dataclass
from typing import Any, Literal, Self, cast

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from headstart.engine.importers import AutoencoderSource, autoencoder_state
from headstart.ntxent import nt_xent
from headstart.records.errors import InputError
from headstart.records.names import ACTIVATIONS, HEAD_INITS, ActivationName, HeadInitName

FLAT = 0.005
"""A hidden unit is flat where its activation's slope is below this share of the activation's steepest."""


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
            if size < 1:
                raise InputError(f"head: {name} is {size}; it must be at least 1")
        if not 1 <= depth <= 4:
            raise InputError(f"head: depth is {depth}; it must be 1, 2, 3 or 4")
        if depth == 1 and hidden_dim != output_dim:
            raise InputError(
                f"head: at depth 1 the first layer is the output layer, but hidden_dim is {hidden_dim} and "
                f"output_dim {output_dim}; they must be equal"
            )
        self.depth = depth
        self.first = _linear(in_features, hidden_dim, generator)
        self.hidden = nn.ModuleList(_linear(hidden_dim, hidden_dim, generator) for _ in range(depth - 2))
        self.output = _linear(hidden_dim, output_dim, generator) if depth > 1 else nn.Identity()
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden_dim) for _ in range(depth - 1) if batch_norm)
        self.activation = make_activation()

    def forward(self, h: Tensor) -> Tensor:
        """(N, in_features) -> (N, output_dim)."""
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
            match_scale: multiply the first layer (weights and biases) by the one number that gives its output on
                `features` the root mean square that the random init's has; without `features`, that gives its
                weight matrix the Frobenius norm of the random init's.
            pretrained: `all` also starts the output layer from the autoencoder: the decoder's first layer seen
                through its output_dim leading left singular vectors, which of all such layers keeps the inner
                products of the decoder's hidden features best. `spectrum` and `shuffled` then treat that layer as
                they treat the first. The output layer always stays trainable. Only at depth 2.

        Raises:
            InputError: what the init needs is missing or has another width than the head.
        """
        choice = HEAD_INITS.known(init)
        check_pretrained(pretrained, init, depth)
        head = cls(
            in_features, hidden_dim, output_dim, activation, depth=depth, batch_norm=batch_norm, generator=generator
        )
        if features is not None:
            features = _checked_features(features, in_features)
        random_scale = _scale(head.first, features)
        if choice.from_embedding:
            if autoencoder is None:
                raise InputError(f"head: init {init} needs an autoencoder, and none was given")
            state = autoencoder_state(autoencoder)
            _set(head.first, *choice.made()(Start(*_embedding(state, head.first), features, generator)))
            if pretrained == "all":
                output = cast(nn.Linear, head.output)
                _set(output, *choice.made()(Start(*_decoder_projection(state, output), features, generator)))
        else:
            _set(head.first, *choice.made()(Start(head.first.weight, head.first.bias, features, generator)))
        if match_scale:
            own_scale = _scale(head.first, features)
            if not own_scale > 0:
                raise InputError(f"head: match_scale cannot scale the {init} layer: its output is zero")
            with torch.no_grad():
                head.first.weight.mul_(random_scale / own_scale)
                head.first.bias.mul_(random_scale / own_scale)
        head.frozen = frozen
        return head


def _linear(in_features: int, out_features: int, generator: Generator | None) -> nn.Linear:
    """nn.Linear with its own default init, drawn from `generator` and nothing else."""
    layer = nn.utils.skip_init(nn.Linear, in_features, out_features)
    bound = in_features**-0.5
    nn.init.kaiming_uniform_(layer.weight, a=5**0.5, generator=generator)
    nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    return layer


def _set(layer: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)


def _embedding(state: dict[str, Tensor], layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """The embedding layer's weight and bias, where they fit `layer`."""
    weight, bias = state["encoder.embedding.weight"], state["encoder.embedding.bias"]
    if weight.shape != layer.weight.shape:
        raise InputError(
            f"head: the autoencoder's embedding layer turns {weight.shape[1]} features into {weight.shape[0]}; "
            f"this head needs {layer.in_features} into {layer.out_features}"
        )
    return weight, bias


def check_pretrained(pretrained: str, init: str, depth: int) -> None:
    """Raise InputError where an output layer cannot start from the autoencoder too."""
    from_embedding = [name for name, choice in HEAD_INITS.items() if choice.from_embedding]
    if pretrained == "all" and (init not in from_embedding or depth != 2):
        raise InputError(
            f"head: pretrained all is for a head of depth 2 with init {', '.join(from_embedding)}; "
            f"this one has depth {depth} and init {init}"
        )


def _decoder_projection(state: dict[str, Tensor], layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight and bias of the output layer that the decoder suggests.

    With the decoder's first layer D = U S V^T and k = output_dim, the layer is U_k^T (D x + b): of all layers with k
    outputs, none keeps the inner products of D x better (Eckart and Young).
    """
    weight, bias = state.get("decoder.hidden.weight"), state.get("decoder.hidden.bias")
    if weight is None or bias is None or weight.ndim != 2 or weight.shape[1] != layer.in_features:
        raise InputError("head: pretrained all needs an autoencoder whose decoder begins with a Linear layer")
    if layer.out_features > min(weight.shape):
        raise InputError(
            f"head: pretrained all gives at most {min(weight.shape)} outputs from this decoder, "
            f"but output_dim is {layer.out_features}"
        )
    left = torch.linalg.svd(weight.double(), full_matrices=False).U[:, : layer.out_features]
    return left.T @ weight.double(), left.T @ bias.double()


def _orthonormal(rows: int, columns: int, generator: Generator | None) -> Tensor:
    """Uniformly (Haar) drawn (rows, columns) matrix with orthonormal rows, or columns where there are fewer."""
    tall = torch.randn(max(rows, columns), min(rows, columns), dtype=torch.float64, generator=generator)
    q, r = torch.linalg.qr(tall)
    q = q * r.diagonal().sign()  # makes the factorisation unique, and so the draw uniform
    return q if rows >= columns else q.T


@dataclass(frozen=True)
class Start:
    """What a layer's init has to begin with. An init is a function of this; it gives the layer's weight and bias.

    Attributes:
        weight, bias: (out, in) and (out,): an embedding layer's for the inits that are made from one, else the layer's
            own default draw.
        features: (K, in) float64, h of the untrained backbone; None where they are not at hand.
        generator: for draws; see `ProjectionHead.from_init`.
    """

    weight: Tensor
    bias: Tensor
    features: Tensor | None
    generator: Generator | None


Layer = tuple[Tensor, Tensor]


def as_given(start: Start) -> Layer:
    """The layer that it begins with, as it is."""
    return start.weight, start.bias


def orthogonal(start: Start) -> Layer:
    """A uniformly drawn (semi-)orthogonal matrix, zero biases."""
    rows, columns = start.weight.shape
    return _orthonormal(rows, columns, start.generator), torch.zeros_like(start.bias)


def spectrum(start: Start) -> Layer:
    """Uniformly drawn singular bases with the layer's singular values, and its biases."""
    values = torch.linalg.svdvals(start.weight.double())
    left = _orthonormal(start.weight.shape[0], len(values), start.generator)
    right = _orthonormal(len(values), start.weight.shape[1], start.generator)
    return left * values @ right, start.bias


def shuffled(start: Start) -> Layer:
    """The layer's weights in random order, and its biases in random order."""
    entries = start.weight.flatten()[torch.randperm(start.weight.numel(), generator=start.generator)]
    return entries.view_as(start.weight), start.bias[torch.randperm(start.bias.numel(), generator=start.generator)]


def pca(start: Start) -> Layer:
    """PCA's transform to the directions of largest variance of the features."""
    return _principal_directions(start.features, len(start.weight))


def _checked_features(features: Tensor, in_features: int) -> Tensor:
    if features.ndim != 2 or features.shape[1] != in_features or not features.isfinite().all():
        raise InputError(
            f"head: features have shape {tuple(features.shape)}; finite (pictures, {in_features}) are needed"
        )
    return features.detach().to("cpu", torch.float64)


def check_directions(hidden_dim: int, pictures: int, width: int) -> None:
    """Raise InputError where `width` features of so many pictures have no `hidden_dim` principal directions."""
    if hidden_dim >= pictures or hidden_dim > width:
        raise InputError(
            f"head: init pca cannot find {hidden_dim} directions (head.hidden-dim) in {pictures} pictures of "
            f"{width} features; it takes more pictures, and no fewer features, than directions"
        )


def _principal_directions(features: Tensor | None, hidden_dim: int) -> Layer:
    """Weight and bias of PCA's transform to the `hidden_dim` directions of largest variance."""
    if features is None:
        raise InputError("head: init pca needs features of the untrained backbone, and none were given")
    check_directions(hidden_dim, *features.shape)
    mean = features.mean(dim=0)
    _, _, directions = torch.linalg.svd(features - mean, full_matrices=False)
    directions = directions[:hidden_dim]
    largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
    directions = directions * largest.sign()
    return directions, -directions @ mean


@torch.no_grad()
def _scale(layer: nn.Linear, features: Tensor | None) -> float:
    """Root mean square of the layer's output on `features`; its weights' Frobenius norm where there are none."""
    if features is None:
        return layer.weight.double().norm().item()
    return F.linear(features, layer.weight.double(), layer.bias.double()).square().mean().sqrt().item()


def head_statistics(
    head: ProjectionHead, features: Tensor, views: Tensor | None = None, temperature: float = 0.5
) -> dict[str, Any]:
    """What the head does to features at this moment; `geometry.head` of result.json holds it for step 0.

    The head is left as it is; batch norm uses the batch's own statistics, as in training.

    Args:
        features: (K, in_features) h of un-augmented pictures.
        views: (2N, in_features) h of augmented pictures, rows i and i + N a pair; None leaves the gradient out.
        temperature: of NT-Xent.

    Returns:
        `singular_values` of the first layer, descending; `hidden_mean` and `hidden_std` of the activated first layer
        over pictures and units; `hidden_flat`, the share of all (picture, unit) whose activation has under 0.5 % of
        its steepest slope (saturated, or off); `hidden_dead`, the share of units flat for every picture;
        `preactivation_rms`; `loss` and `gradient_norm`, NT-Xent of the views' projections and the norm of its
        gradient with respect to h, averaged over rows and multiplied by their number (so that it does not shrink
        with the batch); both None without views.
    """
    head = copy.deepcopy(head).train().cpu().float().requires_grad_(False)
    features = features.detach().cpu().float()
    before = head.first(features)
    if head.norms:
        before = head.norms[0](before)
    activation = head.activation if head.depth > 1 else nn.Identity()
    before.requires_grad_(True)
    with torch.enable_grad():
        hidden = activation(before)
        (slope,) = torch.autograd.grad(hidden.sum(), before)
    flat = slope.abs() < FLAT * (0.25 if isinstance(activation, nn.Sigmoid) else 1.0)
    statistics: dict[str, Any] = {
        "singular_values": torch.linalg.svdvals(head.first.weight.double()).tolist(),
        "preactivation_rms": before.square().mean().sqrt().item(),
        "hidden_mean": hidden.mean().item(),
        "hidden_std": hidden.std().item(),
        "hidden_flat": flat.float().mean().item(),
        "hidden_dead": flat.all(dim=0).float().mean().item(),
        "loss": None,
        "gradient_norm": None,
    }
    if views is not None:
        h = views.detach().cpu().float().requires_grad_(True)
        with torch.enable_grad():
            loss = nt_xent(head(h), temperature=temperature)
            (gradient,) = torch.autograd.grad(loss, h)
        # The loss is a mean over rows, so a row's gradient shrinks as 1 / 2N; times 2N, batches compare.
        statistics["loss"] = loss.item()
        statistics["gradient_norm"] = gradient.norm(dim=1).mean().item() * len(h)
    return statistics
