"""`headstart --print-completion SHELL`: what lets a shell complete commands and options.

Comes in: the commands. Goes out: the shell's script, from the same parameters as `--help`.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Union

import tyro

from headstart.cli.choices import PARSERS
from headstart.cli.train import pretrain
from headstart.records.config import Config
from headstart.records.errors import InputError

SHELLS = ("bash", "zsh", "fish")


def print_completion(shell: str, commands: Mapping[str, Callable[..., int]]) -> None:
    """Print the script for a shell. Raises InputError for a shell that there is none for."""
    if shell not in SHELLS:
        raise InputError(f"--print-completion is {shell or 'empty'}; it must be one of {', '.join(SHELLS)}")
    tyro.cli(_tree(commands), prog="headstart", args=["--tyro-print-completion", shell], registry=PARSERS)


def _tree(commands: Mapping[str, Callable[..., int]]) -> Any:
    """The commands as tyro's subcommands; those of two words (`study run`) stand below their first."""
    branches: dict[str, dict[str, Callable[..., Any]]] = {}
    for words, command in commands.items():
        first, _, second = words.partition(" ")
        command = functools.partial(command, options=Config()) if command is pretrain else command
        branches.setdefault(first, {})[second] = command
    return _union({first: below[""] if "" in below else _group(below) for first, below in branches.items()})


def _group(commands: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    def group(command: Any) -> None:
        """Many runs."""

    without_prefix: Any = tyro.conf.OmitSubcommandPrefixes
    group.__annotations__ = {"command": without_prefix[_union(commands)]}
    return group


def _union(commands: Mapping[str, Callable[..., Any]]) -> Any:
    return Union[  # noqa: UP007 - of a tuple that is computed
        tuple(
            Annotated[Any, tyro.conf.subcommand(name, constructor=command, description=_first_line(command))]
            for name, command in commands.items()
        )
    ]


def _first_line(command: Callable[..., Any]) -> str:
    said = (command.func if isinstance(command, functools.partial) else command).__doc__ or ""
    return said.strip().splitlines()[0]
