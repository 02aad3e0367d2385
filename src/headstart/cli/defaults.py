"""What a command's options start from: a preset, a config file, a run's own way of reading pictures.

The command line is looked at before it is parsed.
"""

import contextlib
import dataclasses
import functools
import io
import itertools
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import tyro

from headstart.cli.choices import PARSERS
from headstart.cli.train import pretrain
from headstart.records.config import Config, DataConfig
from headstart.records.config import load as load_config
from headstart.records.errors import InputError
from headstart.records.files import expanded
from headstart.records.folder import RunFolder
from headstart.records.located import reading
from headstart.records.presets import preset as named_preset
from headstart.records.text import visible


def parsed(command: Callable[..., int], argv: list[str], program: str, **begin: Any) -> dict[str, Any]:
    """The arguments of a command, by name. Raises InputError for wrong ones, in the words of `refusals`.

    A path may begin with `~`, which shells leave as it is behind `--out=`.

    begin: what some of them are where nothing is given.
    """

    @functools.wraps(command)
    def given(**values: Any) -> dict[str, Any]:
        return {name: _at_home(value) for name, value in values.items()}

    make = functools.partial(given, **begin)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(make, args=argv, prog=program, registry=PARSERS)
    except SystemExit as stop:
        if stop.code:
            from headstart.cli import refusals

            if told := refusals.sentence(said.getvalue(), argv, program, lambda: _options(make)):
                raise InputError(told) from None
        sys.stderr.write(visible(said.getvalue()))  # what was typed may hold what steers a terminal
        raise


def joined(command: Callable[..., int], argv: list[str]) -> list[str]:
    """`--metric a --metric b` as `--metric a b`: of a list given in parts tyro would take the last part, in silence.

    The lists come behind everything else, where they can take no word that is not theirs.
    """
    typed = [word.partition("=")[0] for word in argv if word.startswith("--")]
    if len({*typed}) == len(typed) or "--" in argv:
        return argv
    lists: dict[str, list[str]] = {option: [] for option in _lists(command) if typed.count(option) > 1}
    others: list[str] = []
    at = others
    for word in argv:
        option, equals, value = word.partition("=")
        if option in lists:
            lists[option] += [value] if equals else []
            at = others if equals else lists[option]
        else:
            at = others if re.match("--?[a-z]", word) else at
            at.append(word)
    return [*others, *itertools.chain.from_iterable([option, *values] for option, values in lists.items())]


def _lists(what: Any, prefix: str = "") -> Iterator[str]:
    """The options that take any number of values behind one name."""
    for name, hint in get_type_hints(what, include_extras=True).items():
        kind, marks = _unmarked(hint)
        name = next((mark.name for mark in marks if getattr(mark, "name", None) is not None), name)
        if dataclasses.is_dataclass(kind):
            yield from _lists(kind, f"{prefix}{name}." if name else prefix)
        elif not marks & {tyro.conf.Positional, tyro.conf.Suppress, tyro.conf.UseAppendAction}:
            choices = [kind, *(_unmarked(choice)[0] for choice in get_args(kind))]
            if any(get_origin(choice) is tuple and ... in get_args(choice) for choice in choices):
                yield f"--{prefix}{name}".replace("_", "-")


def _unmarked(hint: Any) -> tuple[Any, set[Any]]:
    """A type without what `Annotated` says of it, and that."""
    return (hint.__origin__, {*hint.__metadata__}) if hasattr(hint, "__metadata__") else (hint, set())


def _options(make: Callable[..., Any]) -> list[str]:
    """Every option of a command, as its help names them."""
    shown = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(shown):
        tyro.cli(make, args=["--help"], registry=PARSERS)
    return sorted(set(re.findall(r"--[a-z][\w.-]*", shown.getvalue())))


def _at_home(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_at_home, value))
    return expanded(value) if isinstance(value, Path) else value


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


def reading_for(command: Callable[..., int], argv: list[str], program: str) -> DataConfig:
    """What the DATA options of a command on a run start from: how the run's own pictures were read, or those of a
    file of embeddings, or what given weights expect."""
    if {"-h", "--help"} & {*argv}:
        return DataConfig()

    given = parsed(command, argv, program)
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
