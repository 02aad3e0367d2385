"""A user's own parts: modules that register heads, activations, probes, sets ... when they are imported.

Nothing is ever imported because a file names it: whoever gives the command names each module too (`--plugin MODULE`).
"""

import importlib
from collections.abc import Iterable

from headstart.records.errors import InputError


def use(modules: Iterable[str]) -> None:
    """Import modules, which register what they bring. Raises InputError naming one that is not found."""
    for name in modules:
        try:
            importlib.import_module(name)
        except (ModuleNotFoundError, ValueError, TypeError) as error:
            raise InputError(
                f"--plugin {name} cannot be imported ({error}); it must be a module that Python finds, such as "
                "my_module with my_module.py in a folder of PYTHONPATH"
            ) from None
