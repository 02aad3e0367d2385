"""Where a head's first layer comes from (paper 3.4; the inits of docs/heads.md).

Comes in: a head with a layer `first`, and an autoencoder or features of the untrained backbone. Goes out: the same
head, that layer started as asked, frozen or trainable; every other layer as it was drawn.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from headstart.engine.arguments import draws
from headstart.engine.importers import AutoencoderSource, autoencoder_state
from headstart.records.errors import InputError
from headstart.records.names import HEAD_INITS, HeadInitName


def start(
    head: nn.Module,
    *,
    init: HeadInitName,
    frozen: bool = True,
    autoencoder: AutoencoderSource | None = None,
    features: Tensor | None = None,
    generator: Generator | None = None,
    match_scale: bool = False,
    pretrained: Literal["first", "all"] = "first",
    output_init: HeadInitName | None = None,
) -> None:
    """Let the first layer of any head start where `init` says, in place; see `ProjectionHead.from_init`.

    Args:
        head: a module whose `first` is an nn.Linear that reads h; for `pretrained all` and `output_init` its `output`
            is one, too.

    Raises InputError as `ProjectionHead.from_init`, and for a head without such a layer.

    >>> head = nn.Sequential()
    >>> head.first = nn.Linear(8, 4)
    >>> start(head, init="orthogonal")
    >>> head.first.weight.requires_grad
    False
    """
    HEAD_INITS.known(init)
    draws("head", generator)
    if getattr(head, "first", None) is not None or init != "random" or frozen:
        _start_first(head, init, frozen, autoencoder, features, generator, match_scale)
    output_init = init if pretrained == "all" else output_init
    if output_init is not None:
        _start_layer(layer(head, "output"), output_init, autoencoder, _decoder_projection, None, generator)


def _start_first(
    head: nn.Module,
    init: HeadInitName,
    frozen: bool,
    autoencoder: AutoencoderSource | None,
    features: Tensor | None,
    generator: Generator | None,
    match_scale: bool,
) -> None:
    first = layer(head, "first")
    if features is not None:
        features = _checked_features(features, first.in_features)
    random_scale = _scale(first, features)
    _start_layer(first, init, autoencoder, _embedding, features, generator)
    if match_scale:
        own_scale = _scale(first, features)
        if not own_scale > 0:
            raise InputError(f"head: match_scale cannot scale the {init} layer: its output is zero")
        with torch.no_grad():
            first.weight.mul_(random_scale / own_scale)
            first.bias.mul_(random_scale / own_scale)
    first.requires_grad_(not frozen)


def _start_layer(
    layer: nn.Linear,
    init: HeadInitName,
    autoencoder: AutoencoderSource | None,
    counterpart: Callable[[dict[str, Tensor], nn.Linear], "Layer"],
    features: Tensor | None,
    generator: Generator | None,
) -> None:
    """Start a layer from its `counterpart` in the autoencoder, or without one, as `init` says."""
    choice = HEAD_INITS.known(init)
    given = layer.weight, layer.bias
    if choice.from_embedding:
        if autoencoder is None:
            raise InputError(f"head: init {init} needs an autoencoder, and none was given")
        given = counterpart(autoencoder_state(autoencoder), layer)  # type: ignore[assignment]
    _set(layer, *choice.made()(Start(*given, features, generator)))


def layer(head: nn.Module, name: str) -> nn.Linear:
    """The Linear layer of that name, such as `first`; raises InputError for a head without it."""
    found = getattr(head, name, None)
    if not isinstance(found, nn.Linear) or found.bias is None:
        raise InputError(
            f"head: {type(head).__name__} has no nn.Linear called {name} with weights and biases, which could start "
            "from somewhere or be frozen; give it one, or use head.init random and head.frozen false"
        )
    return found


def linear(in_features: int, out_features: int, generator: Generator | None) -> nn.Linear:
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


def check_pretrained(pretrained: str, init: str, depth: int, output_init: str | None = None) -> None:
    """Raise InputError where an output layer cannot start as it should."""
    if pretrained not in ("first", "all"):
        raise InputError(f"head: pretrained is {pretrained!r}; it must be first or all")
    if output_init is not None and (pretrained == "all" or output_init == "pca" or depth != 2):
        raise InputError(
            f"head: output_init {output_init} is for a head of depth 2 with pretrained first, and not pca, which needs "
            f"features; this one has depth {depth} and pretrained {pretrained}"
        )
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
        raise InputError("head: an output layer from the decoder needs one that begins with a Linear layer")
    if layer.out_features > min(weight.shape):
        raise InputError(
            f"head: this decoder gives an output layer of at most {min(weight.shape)} outputs, "
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
    if not isinstance(features, Tensor):
        raise InputError(
            f"head: features are a {type(features).__name__}; a tensor (pictures, {in_features}) is needed"
        )
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
