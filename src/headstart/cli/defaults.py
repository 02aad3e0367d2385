"""What a command's options start from: a preset, a config file, a run's own way of reading pictures.

The command line is looked at before it is parsed.
"""

import contextlib
import functools
import io
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tyro

from headstart.cli.choices import PARSERS
from headstart.cli.train import pretrain
from headstart.records.config import Config, DataConfig
from headstart.records.config import load as load_config
from headstart.records.files import expanded
from headstart.records.folder import RunFolder
from headstart.records.located import reading
from headstart.records.presets import preset as named_preset
from headstart.records.text import visible


def parsed(command: Callable[..., int], argv: list[str], program: str, **begin: Any) -> dict[str, Any]:
    """The arguments of a command, by name; wrong ones end the program with exit code 2, told on the error output.

    A path may begin with `~`, which shells leave as it is behind `--out=`.

    begin: what some of them are where nothing is given.
    """

    @functools.wraps(command)
    def given(**values: Any) -> dict[str, Any]:
        return {name: _at_home(value) for name, value in values.items()}

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(functools.partial(given, **begin), args=argv, prog=program, registry=PARSERS)
    finally:
        sys.stderr.write(visible(said.getvalue()))  # what was typed may hold what steers a terminal
        if "nrecognized" in said.getvalue():
            sys.stderr.writelines(f"{line}\n" for line in _answered_flags(argv))


def _at_home(value: Any) -> Any:
    return expanded(value) if isinstance(value, Path) else value


def _answered_flags(argv: list[str]) -> Iterator[str]:
    """What is right in place of `--head.frozen no`."""
    for option, value in itertools.pairwise(argv):
        if option.startswith("--") and value.lower() in ("yes", "no", "true", "false", "on", "off"):
            section, dot, name = option.removeprefix("--").rpartition(".")
            yield f"{option} takes no value: {option} is yes, --{section}{dot}no-{name.removeprefix('no-')} is no"


def base_config(argv: list[str]) -> Config:
    """What the options start from: a preset and a config file are looked at before everything else. A run that is
    extended goes on with its own settings."""
    options = ("--preset", "--config", "--backbone.weights", "--out")
    preset, file, weights, out = (_value_of(option, argv) for option in options)
    if "--extend" in argv and out and not (preset or file) and (own := RunFolder(out).config).exists():
        return load_config(own)[0]
    written = Config() if file is None else load_config(file)[0]
    sources = _sources_of(argv) or written.data.sources
    base = named_preset(preset, sources, weights or written.backbone.weights)
    return base if file is None else load_config(file, base)[0]


def reading_for(command: Callable[..., int], argv: list[str]) -> DataConfig:
    """What the DATA options of a command on a run start from: how the run's own pictures were read, or those of a
    file of embeddings, or what given weights expect."""
    if {"-h", "--help"} & {*argv}:
        return DataConfig()

    given = parsed(command, argv, "headstart")
    path = expanded(str(next(iter(given.values()))))
    if path.suffix in (".npz", ".parquet") and path.is_file():
        from headstart.use.embeddings import run_of

        return run_of(path)[2] or DataConfig()
    if (path / "finetune.json").exists():
        from headstart.use.classifier import read_record, reading_of

        return reading_of(read_record(path))
    config = RunFolder(path).config
    if config.exists():
        return reading(load_config(config)[0])
    if path.is_file() or given.get("weights", "none") != "none":
        from headstart.evaluate.foreign import AS_EXPECTED

        return AS_EXPECTED
    return DataConfig()


def _sources_of(argv: list[str]) -> tuple[str, ...]:
    """DATA, wherever it stands among the options; nothing where the parser will complain or show its help."""
    if not any(here.partition("=")[0] == "--preset" for here in argv) or {"-h", "--help"} & {*argv}:
        return ()

    return parsed(pretrain, argv, "headstart pretrain", options=Config())["sources"]


def values_of(option: str, argv: list[str]) -> list[str]:
    """What an option is given, each time it is."""
    found = []
    for here, after in itertools.zip_longest(argv, argv[1:]):
        if here == option and after is not None:
            found.append(after)
        elif here.startswith(f"{option}="):
            found.append(here.split("=", 1)[1])
    return found


def _value_of(option: str, argv: list[str]) -> str | None:
    """What an option is given last, which is what holds."""
    return next(reversed(values_of(option, argv)), None)
