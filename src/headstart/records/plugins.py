"""A user's own parts: modules that register heads, activations, probes, sets ... when they are imported.

Nothing is ever imported because a file names it: whoever gives the command names each module too (`--plugin MODULE`).
A run's records name the modules without which it cannot be opened again.
"""

import importlib
import sys
import traceback
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from headstart.records.errors import InputError
from headstart.records.names import AUTOENCODER_KINDS, BACKBONES, HEAD_KINDS

if TYPE_CHECKING:
    from headstart.records.config import Config

MODULE = "it must be a module that Python finds, such as my_module with my_module.py in a folder of PYTHONPATH"
_USED: list[str] = []
"""Modules that were named in this process."""


def use(modules: Iterable[str]) -> None:
    """Import modules, which register what they bring. Raises InputError naming one that is not found or fails."""
    for name in modules:
        if not all(part.isidentifier() for part in name.split(".")):
            raise InputError(f"--plugin {name!r} cannot be imported; {MODULE}")
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name and error.name.partition(".")[0] != name.partition(".")[0]:
                raise InputError(f"--plugin {name} imports {error.name}, which is not there; install it") from None
            raise InputError(f"--plugin {name} cannot be imported: nothing is there of that name; {MODULE}") from None
        except Exception as error:  # whatever a program of somebody's own may raise
            at = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__}: {error} ({at.filename}, line {at.lineno})"
            raise InputError(f"--plugin {name} cannot be imported: {what}") from error
        if module.__spec__ is not None and module.__spec__.origin is None:
            raise InputError(f"--plugin {name} is a folder and no module of Python's; {MODULE}")
        if name not in _USED:
            _USED.append(name)


def behind(config: "Config") -> list[str]:
    """The modules that a run needs: those that were named, and those of its own head, autoencoder and backbone."""
    chosen = (
        HEAD_KINDS.get(config.head.kind),
        AUTOENCODER_KINDS.get(config.autoencoder.kind),
        BACKBONES.get(config.backbone.name),
    )
    return list(dict.fromkeys([*_USED, *(choice.origin for choice in chosen if choice and choice.origin)]))


def check(about: Mapping[str, Any], where: object) -> None:
    """Raise InputError where what a record was made with (its `plugins`) has not been imported by anybody."""
    named = about.get("plugins") or ()
    for name in map(str, named if isinstance(named, (list, tuple)) else (named,)):
        if name not in sys.modules:
            raise InputError(
                f"{where} was made with the plugin {name}, which is a program; if you trust it, add --plugin {name} "
                "(in Python: import it)"
            )
