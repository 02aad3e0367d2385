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

from headstart.engine.importers import read_tensors
from headstart.records.errors import InputError

TIMM = "timm:"

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
        weights: `none`; `imagenet`, torchvision's or timm's default ones, fetched where not cached; or a state-dict
            file (.safetensors, or torch.save's), whose classifier, if any, is left out.
        generator: CPU generator the initial weights follow from; the global state stays untouched. None: torch's
            global generator is used and moves on.
        size: side of the square pictures in pixels. Vision transformers are built for it (None: their own), and a
            network that cannot take such pictures is refused.

    Returns:
        nn.Module: (N, 3, S, S) float -> (N, num_features), with the attribute `num_features`.

    Raises:
        InputError: unknown name, a stem or size the network cannot have, weights that cannot be fetched or do not fit.
    """
    if stem == "cifar" and weights == "imagenet":
        raise InputError(
            "backbone.weights imagenet are made for a 7x7 first convolution, and backbone.stem cifar has a 3x3 one; "
            "use backbone.stem imagenet, or backbone.weights none|FILE"
        )
    fetched = weights == "imagenet"
    if name.startswith(TIMM):
        backbone = _seeded(generator, lambda: _timm_network(name, stem, size, fetched))
        width, last = getattr(backbone, "head_hidden_size", None) or backbone.num_features, ""
    else:
        _known(name, torchvision.models.list_models(module=torchvision.models), "torchvision")
        backbone = _seeded(generator, lambda: _torchvision_network(name, stem, size))
        width, last = _last_layer(backbone)
        backbone.set_submodule(last, nn.Identity())
        if fetched:
            _load(backbone, _torchvision_weights(name), f"{name}'s ImageNet weights", {f"{last}."})
    backbone.num_features = width  # type: ignore[assignment]
    if size is not None and (name, stem, size) not in _FITTING:
        _check_size(backbone, name, size)
        _FITTING.add((name, stem, size))
    if str(weights) not in ("none", "imagenet"):
        classifier = {f"{last}."} if last else _timm_classifier(backbone)
        _load(backbone, read_tensors(weights), str(weights), classifier)
    return backbone


def num_features(name: str) -> int:
    """Width of the features h of `name`; torchvision's networks are only sketched for it, not built."""
    return build(name).num_features if name.startswith(TIMM) else _outline(name)[0]  # type: ignore[return-value]


def last_linear_name(name: str) -> str:
    """Name of the removed layer, such as `fc` or `classifier.6`; '' for timm, which builds networks without it."""
    return "" if name.startswith(TIMM) else _outline(name)[1]


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


def _torchvision_network(name: str, stem: str, size: int | None) -> nn.Module:
    try:
        network = torchvision.models.get_model(name, **_torchvision_options(name, size))
    except (AssertionError, ValueError) as error:  # the transformers, about their picture size
        raise InputError(f"backbone {name} cannot be built for {size} px pictures: {_first_line(error)}") from None
    return _with_cifar_stem(network, name) if stem == "cifar" else network


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


@functools.lru_cache
def _outline(name: str) -> tuple[int, str]:
    """num_features and the last Linear's name, from the network without memory for its weights."""
    _known(name, torchvision.models.list_models(module=torchvision.models), "torchvision")
    make = functools.partial(torchvision.models.get_model, name, **_torchvision_options(name, None))
    try:
        with torch.device("meta"):
            network = make()
    except NotImplementedError:  # RegNets compute their widths with tensors
        with torch.random.fork_rng(devices=[]):
            network = make()
    return _last_layer(network)


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


def _timm_network(name: str, stem: str, size: int | None, fetched: bool) -> nn.Module:
    timm, plain = _timm(), name.removeprefix(TIMM)
    _known(plain.split(".")[0], timm.list_models(), "timm")
    options = _timm_options(name, size)
    try:
        network = timm.create_model(plain, pretrained=fetched, **options)
    # With pretrained weights this speaks to a server through whichever client timm uses, with that client's errors.
    except Exception as error:
        if fetched:
            raise InputError(_cannot_fetch(name, error)) from None
        raise InputError(f"backbone {name} cannot be built with {options}: {_first_line(error)}") from None
    return _with_cifar_stem(network, name) if stem == "cifar" else network


def _timm_options(name: str, size: int | None) -> dict[str, Any]:
    config = _timm().get_pretrained_cfg(name.removeprefix(TIMM), allow_unregistered=True)
    fixed = config is not None and config.fixed_input_size
    return {"num_classes": 0} | ({"img_size": size} if fixed and size is not None else {})


def _timm_classifier(network: nn.Module) -> set[str]:
    names = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    return {f"{name}." for name in ((names,) if isinstance(names, str) else names)}


# ----------------------------------------------------------------------------------------------------------- shared


def _seeded(generator: Generator | None, make: Callable[[], nn.Module]) -> nn.Module:
    """`make()` with every draw following from `generator`."""
    if generator is None:
        return make()
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return make()


def _with_cifar_stem(network: nn.Module, name: str) -> nn.Module:
    conv = getattr(network, "conv1", None)
    if not (isinstance(conv, nn.Conv2d) and conv.kernel_size == (7, 7) and hasattr(network, "maxpool")):
        raise InputError(f"backbone.stem cifar is for ResNets, not {name}; use backbone.stem imagenet")
    network.conv1 = nn.Conv2d(3, conv.out_channels, 3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")  # as every ResNet convolution
    network.maxpool = nn.Identity()
    return network


_FITTING: set[tuple[str, str, int]] = set()
"""Names, stems and sizes that went together: a run builds its network several times, and the check takes as long."""


def _check_size(network: nn.Module, name: str, size: int) -> None:
    """One pass without data or arithmetic: many networks halve small pictures away."""
    weightless = {n: t.to("meta") for n, t in (*network.named_parameters(), *network.named_buffers())}
    was_training = network.training
    try:
        torch.func.functional_call(network.eval(), weightless, torch.empty(1, 3, size, size, device="meta"))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(f"backbone {name} cannot take {size} px pictures (data.size): {_first_line(error)}") from None
    finally:
        network.train(was_training)


def _load(network: nn.Module, tensors: Mapping[str, Tensor], where: str, classifier: Collection[str]) -> None:
    """Load a state dict that may have a wrapper's prefix, a classifier, or a vision transformer's other size."""
    own = network.state_dict()
    given = _without_prefix(tensors, own)
    dropped = (*classifier, *SIDE_CLASSIFIERS)
    given = {name: tensor for name, tensor in given.items() if not name.startswith(dropped)}
    position = given.get("encoder.pos_embedding")
    if isinstance(network, VisionTransformer) and position is not None and position.ndim == 3:
        given = dict(interpolate_embeddings(network.image_size, network.patch_size, given))  # type: ignore[arg-type]
    counters = {name for name in own if name.endswith("num_batches_tracked")}  # absent from files of old
    problems = {
        "missing": [name for name in own if name not in given and name not in counters],
        "unknown": [name for name in given if name not in own],
        "of another shape": [
            f"{name} {tuple(given[name].shape)} instead of {tuple(own[name].shape)}"
            for name in own
            if name in given and given[name].shape != own[name].shape
        ],
    }
    if any(problems.values()):
        listed = "; ".join(
            f"{len(names)} {kind}: {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
            for kind, names in problems.items()
            if names
        )
        raise InputError(f"{where} does not fit the backbone ({listed})")
    network.load_state_dict(given, strict=False)


def _without_prefix(tensors: Mapping[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """Names without what a wrapper put in front (`module.`, `backbone.`), and only those that had it."""
    first = next(iter(own))
    prefixes = {name.removesuffix(first) for name in tensors if name == first or name.endswith(f".{first}")}
    prefix = max(sorted(prefixes), key=lambda p: sum(p + name in tensors for name in own), default="")
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _known(name: str, names: Collection[str], library: str) -> None:
    if name not in names:
        close = difflib.get_close_matches(name, names, n=3)
        hint = f" (perhaps you meant {', '.join(close)})" if close else ""
        raise InputError(f"backbone.name: {library} has no classification network {name!r}{hint}")


def _cannot_fetch(name: str, error: Exception) -> str:
    return (
        f"backbone.weights imagenet of {name} cannot be fetched ({_first_line(error)}); use backbone.weights none|FILE"
    )


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
