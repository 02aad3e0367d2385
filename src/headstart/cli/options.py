"""What several commands ask for alike."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, UseAppendAction, arg

from headstart.records.config import Config, DataConfig

Sources = Positional[Annotated[tuple[str, ...], arg(metavar="DATA...")]]
Options = Annotated[Config, arg(name="")]
Data = Positional[Annotated[tuple[str, ...], arg(metavar="DATA...")]]
RunPath = Positional[Annotated[Path, arg(metavar="RUN")]]
Reading = Annotated[DataConfig, arg(name="data")]
"""The options of `pretrain` that say how DATA is read; they begin as the run's (`defaults.reading_for`)."""
Plugins = Annotated[
    tuple[str, ...],
    UseAppendAction,
    arg(metavar="MODULE", help="a module of yours that registers heads, backbones ...; imported before anything else"),
]
"""`--plugin A --plugin B`; `commands.py` imports them before the other options are read, which may name what they
bring."""


def typed(values: Mapping[str, Any], usual: Mapping[str, Any], section: str = "") -> Iterator[str]:
    """The options among `values` that are not as usual, as they are typed."""
    for name, value in ((name, value) for name, value in values.items() if value != usual[name]):
        option = name.replace("_", "-")
        yield f"--{section}{'no-' if value is False else ''}{option}"
        several = [] if isinstance(value, bool) else value if isinstance(value, (list, tuple)) else [value]
        yield from (f"{one:g}" if isinstance(one, float) else str(one) for one in several)


def with_plugins(modules: tuple[str, ...]) -> Iterator[str]:
    """These plugins, as they are typed."""
    for module in modules:
        yield from ("--plugin", module)
