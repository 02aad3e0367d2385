"""How others load and receive a backbone: plain loading lines, and which formats a network can be exported in."""

import re

from headstart.backbones.networks import TIMM, last_linear_name, options
from headstart.records.errors import InputError
from headstart.records.names import BACKBONES, FORMATS, Format

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
    if format != "onnx" and backbone_name in BACKBONES:
        raise InputError(f"{backbone_name} is your own and has no counterpart in {format}{other}")
    if format == "torchvision" and backbone_name != plain and not TWINS.fullmatch(plain):
        raise InputError(f"{backbone_name} is timm's and has no counterpart in torchvision{other}")
    if format in ("timm", "hub") and backbone_name == plain and not TWINS.fullmatch(plain):
        raise InputError(f"{backbone_name} has no timm network with the same parameters{other}")


def exportable(backbone_name: str) -> tuple[Format, ...]:
    """The formats that `backbone_name` can be exported in, without building it."""
    if backbone_name in BACKBONES:
        return ("onnx",)
    plain = backbone_name.removeprefix(TIMM)
    twin = TWINS.fullmatch(plain)
    own: tuple[Format, ...] = ("torchvision",) if plain == backbone_name else ("timm", "hub")
    return tuple(f for f in FORMATS if f == "onnx" or f in own or twin)


def loading_lines(
    name: str, *, stem: str = "imagenet", size: int | None = None, file: str = "backbone.safetensors"
) -> str:
    """Plain Python that loads `file` as `backbone` with torchvision or timm alone, for metadata and model cards.

    Args as for `build`. Every key of the file is used, and none of the network's is missing.
    """
    if name in BACKBONES:
        module = BACKBONES[name].origin
        lines = [f"import {module}"] if module else []
        lines += ["from headstart import backbones", "from safetensors.torch import load_file"]
        lines += [f"backbone = backbones.build({name!r}, size={size})"]
        return "\n".join([*lines, f"backbone.load_state_dict(load_file({file!r}))"])
    library, make = (
        ("timm", f"timm.create_model({name.removeprefix(TIMM)!r}")
        if name.startswith(TIMM)
        else ("torchvision", f"torchvision.models.get_model({name!r}")
    )
    lines = [
        f"import {library}, torch",
        "from safetensors.torch import load_file",
        f"backbone = {make}{''.join(f', {key}={value!r}' for key, value in options(name, size).items())})",
    ]
    if stem == "cifar":
        lines += [
            "backbone.conv1 = torch.nn.Conv2d(3, backbone.conv1.out_channels, 3, stride=1, padding=1, bias=False)",
            "backbone.maxpool = torch.nn.Identity()",
        ]
    if last := last_linear_name(name):
        lines.append(f"backbone.set_submodule({last!r}, torch.nn.Identity())")
    return "\n".join([*lines, f"backbone.load_state_dict(load_file({file!r}))"])
