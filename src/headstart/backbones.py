"""The feature extractor f: torchvision's or timm's networks without their classifier (paper 3.1, 3.5).

Comes in: a name, a stem, weights, a random generator. Goes out: the network itself, whose last Linear layer became
nn.Identity, so that its state dict loads into the plain network and lacks that layer alone.
"""

import difflib
import functools
import importlib
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torchvision
from torch import Generator, Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from headstart.engine import state_dicts
from headstart.engine.importers import read_metadata, read_tensors
from headstart.records.errors import InputError
from headstart.records.folder import RunFolder

TIMM = "timm:"

FETCHED = ("pretrained", "imagenet")
"""Words for the library's default weights of a network; the second only where these are ImageNet's."""

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
    """
    _check_words(name, stem, weights)
    backbone = _seeded(generator, lambda: _network(name, stem, size, fetched=weights in FETCHED))
    if size is not None:
        _check_size(name, stem, size)
    if str(weights) not in ("none", *FETCHED):
        given, _ = _read(backbone, name, stem, weights)
        backbone.load_state_dict(given, strict=False)
    return backbone


def check(name: str, *, stem: str = "imagenet", weights: str | Path = "none", size: int | None = None) -> str:
    """Refuse what `build` would refuse, with a weights file read but no network built and nothing fetched.

    Args as for `build`.

    Returns:
        What was read, such as `60 of 60 tensors, from encoder_q, not from encoder_k`; "" for weights without a file.
    """
    _check_words(name, stem, weights)
    sketch = _sketch(name, stem, size)
    if size is not None:
        _check_size(name, stem, size)
    return "" if str(weights) in ("none", *FETCHED) else _read(sketch, name, stem, weights)[1]


def recognise(tensors: Mapping[str, Tensor], family: str = "") -> tuple[str, str] | None:
    """Name and stem of the torchvision network whose state dict it is, its classifier aside; None for none.

    family: how names begin that are tried; all networks take seconds.
    """
    names = torchvision.models.list_models(module=torchvision.models, include=f"{family}*", exclude="regnet*")
    for name in sorted(names, key=lambda name: "resne" not in name):
        for stem in ("imagenet", "cifar") if "resne" in name else ("imagenet",):
            network = _sketch(name, stem, None)
            try:
                given, _ = _fit(network, name, tensors, "")
                state_dicts.check_names(given, network.state_dict(), "")
            except InputError:
                continue
            return name, stem
    return None


def num_features(name: str) -> int:
    """Width of the features h of `name`, which is only sketched for it, not built."""
    return int(_sketch(name, "imagenet", None).num_features)  # type: ignore[arg-type]


def last_linear_name(name: str) -> str:
    """Name of the removed layer, such as `fc` or `classifier.6`; '' for timm, which builds networks without it."""
    return "" if name.startswith(TIMM) else str(_sketch(name, "imagenet", None).last_linear)


def loading_lines(
    name: str, *, stem: str = "imagenet", size: int | None = None, file: str = "backbone.safetensors"
) -> str:
    """Plain Python that loads `file` as `backbone` with torchvision or timm alone, for metadata and model cards.

    Args as for `build`. Every key of the file is used, and none of the network's is missing.
    """
    library, make, options = (
        ("timm", f"timm.create_model({name.removeprefix(TIMM)!r}", _timm_options(name, size))
        if name.startswith(TIMM)
        else ("torchvision", f"torchvision.models.get_model({name!r}", _torchvision_options(name, size))
    )
    lines = [
        f"import {library}, torch",
        "from safetensors.torch import load_file",
        f"backbone = {make}{''.join(f', {key}={value!r}' for key, value in options.items())})",
    ]
    if stem == "cifar":
        lines += [
            "backbone.conv1 = torch.nn.Conv2d(3, backbone.conv1.out_channels, 3, stride=1, padding=1, bias=False)",
            "backbone.maxpool = torch.nn.Identity()",
        ]
    if last := last_linear_name(name):
        lines.append(f"backbone.set_submodule({last!r}, torch.nn.Identity())")
    return "\n".join([*lines, f"backbone.load_state_dict(load_file({file!r}))"])


# ----------------------------------------------------------------------------------------------------- torchvision


def _torchvision_network(name: str, size: int | None, fetched: bool) -> nn.Module:
    _known(name, torchvision.models.list_models(module=torchvision.models), "torchvision")
    try:
        network = torchvision.models.get_model(name, **_torchvision_options(name, size))
    except (AssertionError, ValueError) as error:  # the transformers, about their picture size
        raise InputError(f"backbone {name} cannot be built for {size} px pictures: {_first_line(error)}") from None
    width, last = _last_layer(network)
    network.set_submodule(last, nn.Identity())
    network.num_features, network.last_linear = width, last  # type: ignore[assignment]
    if fetched:
        where = f"{name}'s pretrained weights"
        given, _ = _fit(network, name, _torchvision_weights(name), where)
        state_dicts.check_names(given, network.state_dict(), where)
        network.load_state_dict(given, strict=False)
    return network


def _torchvision_options(name: str, size: int | None) -> dict[str, Any]:
    options: dict[str, Any] = {"weights": None}
    if name in ("googlenet", "inception_v3"):
        options |= {"aux_logits": False, "init_weights": True}
    if size is not None and name.startswith("vit_"):
        options["image_size"] = size
    if size is not None and name.startswith("maxvit_"):
        options["input_size"] = (size, size)
    return options


def _torchvision_weights(name: str) -> dict[str, Tensor]:
    try:
        return torchvision.models.get_model(name, weights="DEFAULT").state_dict()
    except (OSError, RuntimeError) as error:  # no connection, or a damaged download
        raise InputError(_cannot_fetch(name, error)) from None


def _last_layer(network: nn.Module) -> tuple[int, str]:
    """Input width and name of the layer that makes class scores of features."""
    linear = [(layer.in_features, name) for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    if linear:
        return linear[-1]
    classifier = network.get_submodule("classifier.1")  # SqueezeNet's is a 1x1 convolution
    assert isinstance(classifier, nn.Conv2d)
    return classifier.in_channels, "classifier.1"


# ------------------------------------------------------------------------------------------------------------ timm


def _timm() -> Any:
    try:
        return importlib.import_module("timm")
    except ImportError:
        raise InputError("backbone timm:NAME needs timm; install it with `pip install 'headstart[timm]'`") from None


def _timm_network(name: str, size: int | None, fetched: bool) -> nn.Module:
    timm, plain = _timm(), name.removeprefix(TIMM)
    _known(plain.split(".")[0], timm.list_models(), "timm")
    options = _timm_options(name, size)
    try:
        network = timm.create_model(plain, pretrained=fetched, **options)
    except NotImplementedError:  # it cannot be sketched
        raise
    # With pretrained weights this speaks to a server through whichever client timm uses, with that client's errors.
    except Exception as error:
        if fetched:
            raise InputError(_cannot_fetch(name, error)) from None
        raise InputError(f"backbone {name} cannot be built with {options}: {_first_line(error)}") from None
    network.num_features = getattr(network, "head_hidden_size", None) or network.num_features
    return network


def _timm_options(name: str, size: int | None) -> dict[str, Any]:
    config = _timm().get_pretrained_cfg(name.removeprefix(TIMM), allow_unregistered=True)
    fixed = config is not None and config.fixed_input_size
    return {"num_classes": 0} | ({"img_size": size} if fixed and size is not None else {})


# ----------------------------------------------------------------------------------------------------------- shared


def _seeded(generator: Generator | None, make: Callable[[], nn.Module]) -> nn.Module:
    """`make()` with every draw following from `generator`."""
    if generator is None:
        return make()
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return make()


def _network(name: str, stem: str, size: int | None, *, fetched: bool = False) -> nn.Module:
    network = (_timm_network if name.startswith(TIMM) else _torchvision_network)(name, size, fetched)
    return _with_cifar_stem(network, name) if stem == "cifar" else network


@functools.lru_cache
def _sketch(name: str, stem: str, size: int | None) -> nn.Module:
    """The network without memory for its weights; not to be changed."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return _network(name, stem, size)
        except NotImplementedError:  # some compute their widths with tensors
            return _network(name, stem, size).to("meta")


def _with_cifar_stem(network: nn.Module, name: str) -> nn.Module:
    conv = getattr(network, "conv1", None)
    if not (isinstance(conv, nn.Conv2d) and conv.kernel_size == (7, 7) and hasattr(network, "maxpool")):
        raise InputError(f"backbone.stem cifar is for ResNets, not {name}; use backbone.stem imagenet")
    network.conv1 = nn.Conv2d(3, conv.out_channels, 3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")  # as every ResNet convolution
    network.maxpool = nn.Identity()
    return network


@functools.lru_cache
def _check_size(name: str, stem: str, size: int) -> None:
    """One pass without data or arithmetic: many networks halve small pictures away."""
    try:
        _sketch(name, stem, size).eval()(torch.empty(1, 3, size, size, device="meta"))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(f"backbone {name} cannot take {size} px pictures (data.size): {_first_line(error)}") from None


def _check_words(name: str, stem: str, weights: str | Path) -> None:
    """Refuse fetched weights that there are not, or not for this stem, without fetching them."""
    if weights not in FETCHED:
        return
    if stem == "cifar":
        raise InputError(
            f"backbone.weights {weights} are made for a 7x7 first convolution, and backbone.stem cifar has a 3x3 one; "
            "use backbone.stem imagenet, or backbone.weights none|FILE"
        )
    if not name.startswith(TIMM):
        return  # torchvision has ImageNet's for all of its networks
    config = _timm().get_pretrained_cfg(name.removeprefix(TIMM), allow_unregistered=True)
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


def _read(network: nn.Module, name: str, stem: str, weights: str | Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a run or file under the network's names, fit to be loaded, and what was read."""
    path = _weights_file(weights)
    about = read_metadata(path)
    made_for = about.get("backbone", name), about.get("stem", stem)
    if made_for[0].removeprefix(TIMM) != name.removeprefix(TIMM) or made_for[1] != stem:
        raise InputError(
            f"{weights} holds a {made_for[0]} with stem {made_for[1]}; use --backbone.name {made_for[0]} "
            f"--backbone.stem {made_for[1]}, or other weights"
        )
    own, tensors = network.state_dict(), read_tensors(path)
    try:
        given, found = _fit(network, name, tensors, str(weights))
        state_dicts.check_names(given, own, str(weights))
    except InputError as error:
        other = recognise(tensors, re.split(r"[\d_]", name.removeprefix(TIMM))[0])
        hint = f"; it is the state dict of a {other[0]} with stem {other[1]}" if other else ""
        raise InputError(f"{error}{hint}") from None
    state_dicts.check_values(given, own, str(weights))
    return given, found


def _weights_file(weights: str | Path) -> Path:
    folder = RunFolder(weights)
    if not folder.path.is_dir():
        return Path(weights)
    if not folder.backbone.is_file():
        raise InputError(
            f"backbone.weights {weights} is a folder without {folder.backbone.name}; a finished run of Headstart, or a "
            "state-dict file, is needed"
        )
    return folder.backbone


def _fit(network: nn.Module, name: str, tensors: Mapping[str, Tensor], where: str) -> tuple[dict[str, Tensor], str]:
    """A state dict under the network's own names (whose values `state_dicts.check` judges), and what was read.

    It may be wrapped, under another implementation's names, with heads, or of a vision transformer's other size.
    """
    own = network.state_dict()
    if any(n.endswith(state_dicts.EFFICIENTNET) for n in tensors) and not name.startswith(f"{TIMM}tf_efficientnet"):
        raise InputError(
            f"{where} holds an EfficientNet whose padding and batch norm are TensorFlow's; {name} computes otherwise: "
            f"use --backbone.name {TIMM}tf_efficientnet_b0, {TIMM}tf_efficientnet_lite0 or whichever it is"
        )
    reading = state_dicts.read(tensors, own, where)
    heads = {n for n in reading.tensors if n not in own and _is_head(n, name)}
    given = {n: tensor for n, tensor in reading.tensors.items() if n not in heads}
    return _interpolated(network, given), state_dicts.describe(reading, sorted(heads))


def _is_head(tensor: str, network: str) -> bool:
    last = last_linear_name(network)
    beside = (*SIDE_CLASSIFIERS, f"{last}.") if last else SIDE_CLASSIFIERS
    return tensor.startswith(beside) or state_dicts.HEADS.fullmatch(tensor) is not None


def _interpolated(network: nn.Module, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """A vision transformer's positions, where the weights are for pictures of another size."""
    position = given.get("encoder.pos_embedding")
    if isinstance(network, VisionTransformer) and position is not None and position.ndim == 3:
        try:
            return dict(interpolate_embeddings(network.image_size, network.patch_size, given))  # type: ignore[arg-type]
        except ValueError:  # its shape is another's, which is said in its place
            return given
    own, position = getattr(network, "pos_embed", None), given.get("pos_embed")
    if not isinstance(own, Tensor) or position is None or position.ndim != 3 or own.shape == position.shape:
        return given
    if own.shape[::2] != position.shape[::2] or not hasattr(network, "num_prefix_tokens"):
        return given
    resampled = importlib.import_module("timm.layers").resample_abs_pos_embed(
        position,
        new_size=list(network.patch_embed.grid_size),  # type: ignore[union-attr, arg-type]
        num_prefix_tokens=0 if getattr(network, "no_embed_class", False) else network.num_prefix_tokens,
    )
    return given | {"pos_embed": resampled}


def _known(name: str, names: Collection[str], library: str) -> None:
    if name not in names:
        close = difflib.get_close_matches(name, names, n=3)
        hint = f" (perhaps you meant {', '.join(close)})" if close else ""
        raise InputError(f"backbone.name: {library} has no classification network {name!r}{hint}")


def _cannot_fetch(name: str, error: Exception) -> str:
    return f"backbone.weights of {name} cannot be fetched ({_first_line(error)}); use backbone.weights none|FILE"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


Format = Literal["torchvision", "timm", "onnx"]


FORMATS: tuple[Format, ...] = get_args(Format)


TWINS = re.compile(
    r"(resnet(18|34|50|101|152)|resnext(50_32x4d|101_32x8d|101_64x4d)|wide_resnet(50|101)_2"
    r"|densenet(121|161|169|201))"
)
"""Networks that torchvision and timm build with the same parameter names and the same arithmetic."""


def check_exportable(backbone_name: str, format: str) -> None:
    """Raise InputError, in one sentence, when `backbone_name` cannot be exported as `format`. Builds nothing."""
    if format not in FORMATS:
        raise InputError(f"--format is {format}; it must be one of {', '.join(FORMATS)}")
    other = f"; it can be exported as {', '.join(exportable(backbone_name))}" if exportable(backbone_name) else ""
    plain = backbone_name.removeprefix(TIMM)
    if format == "torchvision" and backbone_name != plain and not TWINS.fullmatch(plain):
        raise InputError(f"{backbone_name} is timm's and has no counterpart in torchvision{other}")
    if format == "timm" and backbone_name == plain and not TWINS.fullmatch(plain):
        raise InputError(f"{backbone_name} has no timm network with the same parameters{other}")
    if format == "onnx" and plain in NOT_ONNX:
        raise InputError(f"{backbone_name} cannot be exported as onnx: {NOT_ONNX[plain]}{other}")


def exportable(backbone_name: str) -> tuple[Format, ...]:
    """The formats that `backbone_name` can be exported in, without building it."""
    plain = backbone_name.removeprefix(TIMM)
    twin = TWINS.fullmatch(plain)
    own: Format = "torchvision" if plain == backbone_name else "timm"
    return tuple(f for f in FORMATS if (plain not in NOT_ONNX if f == "onnx" else f == own or twin))


NOT_ONNX: dict[str, str] = {}
"""Networks that the exporter does not get right, with the reason (found by `benchmarks/exports.py`)."""
