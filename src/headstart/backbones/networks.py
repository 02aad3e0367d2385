"""Networks by name, sketched or built: torchvision's or timm's without their classifier, or a user's own (paper 3.1).

Comes in: a name, a stem, a size. Goes out: the network itself, whose last Linear layer became nn.Identity, with random
weights or with those that timm fetches.
"""

import copy
import difflib
import functools
import importlib
from collections.abc import Callable, Collection
from typing import Any

import torch
import torchvision
from torch import nn

from headstart.records.errors import InputError
from headstart.records.names import BACKBONES, own

TIMM = "timm:"
OWN_SIZE = 224
"""Pixels for which a user's own network is sketched where no size is known yet."""


def network(name: str, stem: str, size: int | None, *, fetched: bool = False) -> nn.Module:
    """The network `name` for square pictures of that size; timm's with the weights it fetches, if asked."""
    if name in BACKBONES:
        made = _own_network(name, size)
    else:
        made = _timm_network(name, size, fetched) if name.startswith(TIMM) else _torchvision_network(name, size)
    return _with_cifar_stem(made, name) if stem == "cifar" else made


@functools.lru_cache
def sketch(name: str, stem: str, size: int | None) -> nn.Module:
    """The network without memory for its weights; not to be changed."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return network(name, stem, size)
        except NotImplementedError:  # some compute their widths with tensors
            return network(name, stem, size).to("meta")


def _with_cifar_stem(network: nn.Module, name: str) -> nn.Module:
    conv = getattr(network, "conv1", None)
    if not (isinstance(conv, nn.Conv2d) and conv.kernel_size == (7, 7) and hasattr(network, "maxpool")):
        raise InputError(f"backbone.stem cifar is for ResNets, not {name}; use backbone.stem imagenet")
    network.conv1 = nn.Conv2d(3, conv.out_channels, 3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")  # as every ResNet convolution
    network.maxpool = nn.Identity()
    return network


@functools.lru_cache
def check_size(name: str, stem: str, size: int) -> None:
    """One pass without data or arithmetic: many networks halve small pictures away."""
    try:
        sketch(name, stem, size).eval()(torch.empty(1, 3, size, size, device="meta"))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(f"backbone {name} cannot take {size} px pictures (data.size): {first_line(error)}") from None


def num_features(name: str) -> int:
    """Width of the features h of `name`, which is only sketched for it, not built."""
    return int(sketch(name, "imagenet", None).num_features)  # type: ignore[arg-type]


def last_linear_name(name: str) -> str:
    """Name of the removed layer, such as `fc` or `classifier.6`; '' for networks that are built without it."""
    return "" if name.startswith(TIMM) or name in BACKBONES else str(sketch(name, "imagenet", None).last_linear)


def options(name: str, size: int | None) -> dict[str, Any]:
    """What its library is told to build the network for pictures of that size."""
    return _timm_options(name, size) if name.startswith(TIMM) else _torchvision_options(name, size)


# --------------------------------------------------------------------------------------------------------- own ones


def register(name: str, build: Callable[[int], nn.Module], help: str = "") -> None:
    """Let `backbone.name` be `name`, here and in every study, from now on.

    Args:
        build: (size) -> a module (N, 3, size, size) -> (N, num_features), where `size` is the side of the pictures in
            pixels (224 where none is known yet, which must not change num_features). What it draws from torch's global
            generator follows from the run's seed.
        help: one line for `headstart list backbones`.

    Raises InputError for a name that is taken, torchvision's among them.
    """
    if name in torchvision.models.list_models(module=torchvision.models):
        raise InputError(f"backbone.name {name} is torchvision's already; give another name")
    BACKBONES.register(own(name, help, build, build))


def _own_network(name: str, size: int | None) -> nn.Module:
    side = size or OWN_SIZE
    network: nn.Module = BACKBONES[name].made()(side)
    outline = copy.deepcopy(network).to("meta").eval()
    try:
        h = outline(torch.empty(2, 3, side, side, device="meta"))
    except RuntimeError as error:
        raise InputError(f"backbone {name} cannot take {side} px pictures (data.size): {first_line(error)}") from None
    if not isinstance(h, torch.Tensor) or h.ndim != 2 or len(h) != 2:
        shape = tuple(h.shape) if isinstance(h, torch.Tensor) else type(h).__name__
        raise InputError(f"backbone {name} turns two pictures into {shape}; its build must give a module to (N, F)")
    network.num_features = h.shape[1]  # type: ignore[assignment]
    return network


# ----------------------------------------------------------------------------------------------------- torchvision


def _torchvision_network(name: str, size: int | None) -> nn.Module:
    check_torchvision(name)
    try:
        network = torchvision.models.get_model(name, **_torchvision_options(name, size))
    except (AssertionError, ValueError) as error:  # the transformers, about their picture size
        raise InputError(f"backbone {name} cannot be built for {size} px pictures: {first_line(error)}") from None
    width, last = _last_layer(network)
    network.set_submodule(last, nn.Identity())
    network.num_features, network.last_linear = width, last
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


def _last_layer(network: nn.Module) -> tuple[int, str]:
    """Input width and name of the layer that makes class scores of features."""
    linear = [(layer.in_features, name) for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    if linear:
        return linear[-1]
    classifier = network.get_submodule("classifier.1")  # SqueezeNet's is a 1x1 convolution
    assert isinstance(classifier, nn.Conv2d)
    return classifier.in_channels, "classifier.1"


# ------------------------------------------------------------------------------------------------------------ timm


def timm() -> Any:
    """The library, or how to install it."""
    try:
        return importlib.import_module("timm")
    except ImportError:
        raise InputError("backbone timm:NAME needs timm; install it with `pip install 'headstart[timm]'`") from None


def _timm_network(name: str, size: int | None, fetched: bool) -> nn.Module:
    library, plain = timm(), name.removeprefix(TIMM)
    _known(plain.split(".")[0], library.list_models(), "timm")
    options = _timm_options(name, size)
    try:
        network = library.create_model(plain, pretrained=fetched, **options)
    except NotImplementedError:  # it cannot be sketched
        raise
    # With pretrained weights this speaks to a server through whichever client timm uses, with that client's errors.
    except Exception as error:
        if fetched:
            raise InputError(cannot_fetch(name, error)) from None
        raise InputError(f"backbone {name} cannot be built with {options}: {first_line(error)}") from None
    network.num_features = getattr(network, "head_hidden_size", None) or network.num_features
    return network


def _timm_options(name: str, size: int | None) -> dict[str, Any]:
    config = timm().get_pretrained_cfg(name.removeprefix(TIMM), allow_unregistered=True)
    fixed = config is not None and config.fixed_input_size
    return {"num_classes": 0} | ({"img_size": size} if fixed and size is not None else {})


def check_torchvision(name: str) -> None:
    """Raise InputError where torchvision has no such network."""
    _known(name, torchvision.models.list_models(module=torchvision.models), "torchvision")


def _known(name: str, names: Collection[str], library: str) -> None:
    if name not in names:
        close = difflib.get_close_matches(name, names, n=3)
        hint = f" (perhaps you meant {', '.join(close)})" if close else ""
        raise InputError(f"backbone.name: {library} has no classification network {name!r}{hint}")


def cannot_fetch(name: str, error: Exception) -> str:
    """The sentence for weights that a library could not get."""
    return f"backbone.weights of {name} cannot be fetched ({first_line(error)}); use backbone.weights none|FILE"


def first_line(error: Exception) -> str:
    """What an error of another library says, without its further lines."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
