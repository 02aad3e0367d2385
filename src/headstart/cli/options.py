"""What several commands ask for alike."""

from pathlib import Path
from typing import Annotated

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
