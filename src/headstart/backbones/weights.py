"""Weights of a network: from a library, a file or a run; refused before anything trains where they do not fit.

Comes in: a network's name and `backbone.weights`. Goes out: the network with them, and what was read.
"""

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Generator, Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from headstart.backbones.networks import (
    TIMM,
    cannot_fetch,
    check_size,
    last_linear_name,
    network,
    sketch,
    timm,
)
from headstart.engine import state_dicts
from headstart.engine.importers import read_metadata, read_tensors
from headstart.engine.randomness import seeded
from headstart.records.errors import InputError
from headstart.records.files import digest
from headstart.records.folder import RunFolder
from headstart.records.names import BACKBONES

FETCHED = ("pretrained", "imagenet")
"""Words for the library's default weights of a network; the second only where these are ImageNet's."""

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""What timm asks its hub for, in that order."""

SIDE_CLASSIFIERS = ("aux1.", "aux2.", "AuxLogits.")
"""Of GoogLeNet and Inception v3, which are built without: no feature passes through them."""


def build(
    name: str,
    *,
    stem: str = "imagenet",
    weights: str | Path = "none",
    generator: Generator | None = None,
    size: int | None = None,
) -> nn.Module:
    """The network `name` without its last Linear layer.

    Args:
        name: any torchvision classification network, or `timm:NAME` (extra `timm`).
        stem: `imagenet`, the network's own; `cifar`, for ResNets: a 3x3 stride-1 first convolution, no max-pooling.
        weights: `none`; `pretrained`, torchvision's or timm's default ones, fetched where not cached (`imagenet` is
            the same where these are ImageNet's); a RUN's folder; or a state-dict FILE, whose heads are left out.
        generator: CPU generator the initial weights follow from; the global state stays untouched. None: torch's
            global generator is used and moves on.
        size: side of the square pictures in pixels. Vision transformers are built for it (None: their own), and a
            network that cannot take such pictures is refused.

    Returns:
        nn.Module: (N, 3, S, S) float -> (N, num_features), with the attribute `num_features`.

    Raises:
        InputError: unknown name, a stem or size the network cannot have, weights that cannot be fetched or do not fit.

    >>> build("resnet18", stem="cifar").num_features
    512
    """
    _check_words(name, stem, weights)
    backbone = seeded(generator, lambda: network(name, stem, size, fetched=weights in FETCHED))
    if size is not None:
        check_size(name, stem, size)
    if weights in FETCHED and not name.startswith(TIMM):
        given, _ = _fit(backbone, name, _torchvision_weights(name), f"{name}'s pretrained weights")
        backbone.load_state_dict(given)
    elif str(weights) not in ("none", *FETCHED):
        given, _ = _read(backbone, name, stem, weights)
        backbone.load_state_dict(given, strict=False)
    return backbone


def check(
    name: str, *, stem: str = "imagenet", weights: str | Path = "none", size: int | None = None, fetch: bool = False
) -> str:
    """Refuse what `build` would refuse, with a weights file read but no network built and no server asked.

    Args as for `build`; fetch: get the library's weights now where they are not on this machine, so that they cannot
    be missing later.

    Returns:
        What was read, such as `60 of 60 tensors, from encoder_q, not from encoder_k`; "" for weights without a file.
    """
    _check_words(name, stem, weights)
    outline = sketch(name, stem, size)
    if size is not None:
        check_size(name, stem, size)
    if fetch and weights in FETCHED and not cached(name):
        build(name, stem=stem, weights=weights, generator=Generator())
    return "" if str(weights) in ("none", *FETCHED) else _read(outline, name, stem, weights)[1]


def cached(name: str) -> bool:
    """Whether the library's default weights of a network are on this machine already; asks no server."""
    if not name.startswith(TIMM):
        urls, hub = [torchvision.models.get_model_weights(name).DEFAULT.url], None
    else:
        config = timm().get_pretrained_cfg(name.removeprefix(TIMM), allow_unregistered=True)
        urls, hub = [config.url] if config and config.url else [], config.hf_hub_id if config else None
    folder = Path(torch.hub.get_dir(), "checkpoints")
    if any((folder / url.rpartition("/")[2]).is_file() for url in urls):
        return True
    if not hub:
        return False
    find = importlib.import_module("huggingface_hub").try_to_load_from_cache
    return any(isinstance(find(hub, file), str) for file in HUB_FILES)


def recognise(tensors: Mapping[str, Tensor], family: str = "") -> tuple[str, str] | None:
    """Name and stem of the torchvision network whose state dict it is, its classifier aside; None for none.

    family: how names begin that are tried; all networks take seconds.
    """
    names = torchvision.models.list_models(module=torchvision.models, include=f"{family}*", exclude="regnet*")
    for name in sorted(names, key=lambda name: "resne" not in name):
        for stem in ("imagenet", "cifar") if "resne" in name else ("imagenet",):
            outline = sketch(name, stem, None)
            try:
                given, _ = _fit(outline, name, tensors, "")
                state_dicts.check_names(given, outline.state_dict(), "")
            except InputError:
                continue
            return name, stem
    return None


# ----------------------------------------------------------------------------------------------------------- parts


def _torchvision_weights(name: str) -> dict[str, Tensor]:
    try:
        with torch.random.fork_rng(devices=[]):
            return torchvision.models.get_model(name, weights="DEFAULT").state_dict()
    except (OSError, RuntimeError) as error:  # no connection, or a damaged download
        raise InputError(cannot_fetch(name, error)) from None


def no_library(name: str) -> str:
    """The sentence for a library's weights of a user's own network."""
    return f"no library has weights of {name}, which is your own; use backbone.weights none|FILE|RUN"


def _check_words(name: str, stem: str, weights: str | Path) -> None:
    """Refuse fetched weights that there are not, or not for this stem, without fetching them."""
    if weights not in FETCHED:
        return
    if name in BACKBONES:
        raise InputError(no_library(name))
    if stem == "cifar":
        raise InputError(
            f"backbone.weights {weights} are made for a 7x7 first convolution, and backbone.stem cifar has a 3x3 one; "
            "use backbone.stem imagenet, or backbone.weights none|FILE"
        )
    if not name.startswith(TIMM):
        return  # torchvision has ImageNet's for all of its networks
    config = timm().get_pretrained_cfg(name.removeprefix(TIMM), allow_unregistered=True)
    if config is not None and not config.has_weights:
        raise InputError(f"timm has no pretrained weights of {name}; use backbone.weights none|FILE")
    if (
        config is not None
        and weights == "imagenet"
        and not (config.num_classes == 1000 or re.search(r"in\d+k|imagenet", config.tag or ""))
    ):
        raise InputError(
            f"timm's weights of {name} are not ImageNet's but {config.tag}; use backbone.weights pretrained"
        )


def _read(backbone: nn.Module, name: str, stem: str, weights: str | Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a run or file under the network's names, fit to be loaded, and what was read."""
    path = weights_file(weights)
    about = read_metadata(path)
    made_for = about.get("backbone", name), about.get("stem", stem)
    if made_for[0].removeprefix(TIMM) != name.removeprefix(TIMM) or made_for[1] != stem:
        raise InputError(
            f"{weights} holds a {made_for[0]} with stem {made_for[1]}; use --backbone.name {made_for[0]} "
            f"--backbone.stem {made_for[1]}, or other weights"
        )
    own, tensors = backbone.state_dict(), read_tensors(path)
    try:
        given, found = _fit(backbone, name, tensors, str(weights))
        state_dicts.check_names(given, own, str(weights))
    except InputError as error:
        other = recognise(tensors, re.split(r"[\d_]", name.removeprefix(TIMM))[0])
        hint = f"; it is the state dict of a {other[0]} with stem {other[1]}" if other else ""
        raise InputError(f"{error}{hint}") from None
    state_dicts.check_values(given, own, str(weights))
    return given, found


def weights_file(weights: str | Path) -> Path:
    """The file itself, or the backbone of a run's folder."""
    folder = RunFolder(weights)
    if not folder.path.is_dir():
        return Path(weights)
    if not folder.backbone.is_file():
        raise InputError(
            f"backbone.weights {weights} is a folder without {folder.backbone.name}; a finished run of Headstart, or a "
            "state-dict file, is needed"
        )
    if folder.is_complete():
        folder.check_backbone(folder.read_result())
    return folder.backbone


def given_as(weights: str) -> str | None:
    """A name of the weights that a run is given from a file or a run, by their content; None where a library has them.

    Raises InputError where they cannot be read.
    """
    return None if weights in ("none", *FETCHED) else digest(weights_file(weights))


def check_given(weights: str, about: Mapping[str, Any]) -> None:
    """Raise InputError where the weights that a run began from are others by now, as `about` of its config.yaml tells:
    what it was before SimCLR would be another network."""
    if (began := about.get("given")) is not None and given_as(weights) != began:
        raise InputError(
            f"{weights} holds other weights than those that the run began from (its backbone.weights); put these back"
        )


def _fit(backbone: nn.Module, name: str, tensors: Mapping[str, Tensor], where: str) -> tuple[dict[str, Tensor], str]:
    """A state dict under the network's own names (whose values `state_dicts.check_values` judges), and what was read.

    It may be wrapped, under another implementation's names, with heads, or of a vision transformer's other size.
    """
    own = backbone.state_dict()
    if any(n.endswith(state_dicts.EFFICIENTNET) for n in tensors) and not name.startswith(f"{TIMM}tf_efficientnet"):
        raise InputError(
            f"{where} holds an EfficientNet whose padding and batch norm are TensorFlow's; {name} computes otherwise: "
            f"use --backbone.name {TIMM}tf_efficientnet_b0, {TIMM}tf_efficientnet_lite0 or whichever it is"
        )
    reading = state_dicts.read(tensors, own, where)
    heads = {n for n in reading.tensors if n not in own and _is_head(n, name)}
    given = {n: tensor for n, tensor in reading.tensors.items() if n not in heads}
    return _interpolated(backbone, given), state_dicts.describe(reading, sorted(heads))


def _is_head(tensor: str, network: str) -> bool:
    last = last_linear_name(network)
    beside = (*SIDE_CLASSIFIERS, f"{last}.") if last else SIDE_CLASSIFIERS
    return tensor.startswith(beside) or state_dicts.HEADS.fullmatch(tensor) is not None


def _interpolated(backbone: nn.Module, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """A vision transformer's positions, where the weights are for pictures of another size."""
    position = given.get("encoder.pos_embedding")
    if isinstance(backbone, VisionTransformer) and position is not None and position.ndim == 3:
        try:
            return dict(interpolate_embeddings(backbone.image_size, backbone.patch_size, given))
        except ValueError:  # its shape is another's, which is said in its place
            return given
    own, position = getattr(backbone, "pos_embed", None), given.get("pos_embed")
    if not isinstance(own, Tensor) or position is None or position.ndim != 3 or own.shape == position.shape:
        return given
    if own.shape[::2] != position.shape[::2] or not hasattr(backbone, "num_prefix_tokens"):
        return given
    resampled = importlib.import_module("timm.layers").resample_abs_pos_embed(
        position,
        new_size=list(backbone.patch_embed.grid_size),  # type: ignore[union-attr, arg-type]
        num_prefix_tokens=0 if getattr(backbone, "no_embed_class", False) else backbone.num_prefix_tokens,
    )
    return given | {"pos_embed": resampled}
