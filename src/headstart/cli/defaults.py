"""What a command's options start from: a preset, a config file, a run's own way of reading pictures.

The command line is looked at before it is parsed.
"""

import functools
import itertools
from collections.abc import Callable
from pathlib import Path

import tyro

from headstart.cli.choices import PARSERS
from headstart.cli.options import Sources
from headstart.cli.train import pretrain
from headstart.records.config import Config, DataConfig
from headstart.records.config import load as load_config
from headstart.records.located import reading
from headstart.records.presets import preset as named_preset


def base_config(argv: list[str]) -> Config:
    """What the options start from: a preset and a config file are looked at before everything else."""
    preset, file = _value_of("--preset", argv), _value_of("--config", argv)
    sources = _sources_of(argv)
    if preset is not None and file is not None and not sources:
        sources = load_config(file)[0].data.sources
    base = named_preset(preset, sources)
    return base if file is None else load_config(file, base)[0]


def reading_of(command: Callable[..., int], argv: list[str]) -> DataConfig:
    """What the DATA options of a command on a run start from: how the run's own pictures were read, or those of a
    file of embeddings."""
    from headstart.records.folder import RunFolder

    if {"-h", "--help"} & {*argv}:
        return DataConfig()

    @functools.wraps(command)
    def only_run(**given: object) -> object:
        return next(iter(given.values()))

    path = Path(str(tyro.cli(only_run, args=argv, prog="headstart")))
    if path.suffix in (".npz", ".parquet") and path.is_file():
        from headstart.use.embeddings import run_of

        return run_of(path)[2] or DataConfig()
    config = RunFolder(path).config
    return reading(load_config(config)[0]) if config.exists() else DataConfig()


def _sources_of(argv: list[str]) -> tuple[str, ...]:
    """DATA, wherever it stands among the options; nothing where the parser will complain or show its help."""
    if not any(here.partition("=")[0] == "--preset" for here in argv) or {"-h", "--help"} & {*argv}:
        return ()

    @functools.wraps(pretrain)
    def only_sources(sources: Sources = (), **_: object) -> tuple[str, ...]:
        return sources

    return tyro.cli(
        functools.partial(only_sources, options=Config()), args=argv, prog="headstart pretrain", registry=PARSERS
    )


def _value_of(option: str, argv: list[str]) -> str | None:
    for here, after in itertools.zip_longest(argv, argv[1:]):
        if here == option:
            return after
        if here.startswith(f"{option}="):
            return here.split("=", 1)[1]
    return None
