"""What can be named, on the command line: options take their choices from the registries, and `list` prints them."""

from typing import Any

from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from headstart.records import names
from headstart.records.errors import InputError
from headstart.records.names import Chosen
from headstart.records.presets import PRESETS

PARSERS = ConstructorRegistry()
"""How options are read: settings that hold a registered name offer what is registered when they are parsed."""


@PARSERS.primitive_rule
def _registered(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[str] | None:
    if not (isinstance(info.type, type) and issubclass(info.type, Chosen)):
        return None
    choices = tuple(info.type.registry)
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{{{','.join(choices)}}}",
        instance_from_str=lambda arguments: arguments[0],
        is_instance=lambda value: isinstance(value, str),
        str_from_instance=lambda value: [value],
        choices=choices,
    )


LISTED: dict[str, names.Names[Any]] = {
    "probes": names.PROBES,
    "data": names.SETS,
    "heads": names.HEAD_INITS,
    "head-kinds": names.HEAD_KINDS,
    "activations": names.ACTIVATIONS,
    "autoencoders": names.AUTOENCODER_KINDS,
    "stems": names.STEMS,
    "optimizers": names.OPTIMIZERS,
    "objectives": names.OBJECTIVES,
    "loggers": names.LOGGERS,
    "formats": names.FORMATS,
}
"""What `headstart list` prints of the registries."""


def listed(what: str) -> list[tuple[str, str]]:
    """(name, help) of everything of a kind; raises InputError for a kind that there is not."""
    if what == "backbones":
        import torchvision

        own = torchvision.models.list_models(module=torchvision.models)
        yours = [(name, choice.help) for name, choice in names.BACKBONES.items()]
        return [*((name, "torchvision") for name in own), ("timm:NAME", "any network of timm (extra `timm`)"), *yours]
    if what == "presets":
        from headstart.study.named import presets

        studies = ((name, f"study: {choice.help}") for name, choice in presets().items())
        return [*((name, f"pretrain: {choice.help}") for name, choice in PRESETS.items()), *studies]
    if what not in LISTED:
        raise InputError(f"headstart list {what}: it must be one of {', '.join(('backbones', 'presets', *LISTED))}")
    return [(name, choice.help) for name, choice in LISTED[what].items()]
