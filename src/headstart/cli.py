"""The commands: parse, call, print (design section 4). No logic, and no torch until a command needs it.

Each command is a function whose parameters are its options; its first docstring line is its help. Exit codes: 0 done,
1 failed, 2 bad input, 75 interrupted and resumable.
"""

import functools
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, arg

from headstart import __version__
from headstart.config import Config
from headstart.config import load as load_config
from headstart.config import preset as named_preset
from headstart.errors import HeadstartError, InputError, Interrupted

Sources = Positional[Annotated[tuple[str, ...], arg(metavar="DATA...")]]
Options = Annotated[Config, arg(name="")]


def demo(out: Path = Path("runs/demo"), threads: int | None = None) -> int:
    """The main job on the digits that ship with scikit-learn: both of the paper's heads, compared.

    Args:
        out: where the two runs and their report go; a second call continues or shows what is there.
        threads: CPU threads. Unset: one per core.
    """
    from headstart.demo import run

    return run(out, threads)


def pretrain(
    sources: Sources = (),
    *,
    out: Path,
    overwrite: bool = False,
    extend: bool = False,
    max_seconds: float | None = None,
    preset: Literal["paper"] | None = None,
    config: Path | None = None,
    options: Options,
) -> int:
    """One run: autoencoder, head, SimCLR, and probes where there are labels.

    Args:
        sources: folders of pictures, a text or CSV list, or a named set with its root (cifar10:ROOT).
        out: the run folder.
        overwrite: replace a finished run.
        extend: go on with a finished run for more SimCLR epochs.
        max_seconds: save and stop (exit 75) after this many seconds.
        preset: paper for the authors' setting.
        config: settings from a run's config.yaml; DATA is then optional.
    """
    from headstart import pretraining

    if sources:
        options = replace(options, data=replace(options.data, sources=sources))
    if not options.data.sources:
        raise InputError("pretrain needs DATA: a folder of pictures, a list file, or a named set such as cifar10:ROOT")
    deadline = None if max_seconds is None else time.monotonic() + max_seconds
    path = pretraining.run(options, out, overwrite=overwrite, extend=extend, deadline=deadline)
    from headstart.report.screen import print_run

    print_run(path)
    return 0


COMMANDS: dict[str, Callable[..., int]] = {"demo": demo, "pretrain": pretrain}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _dispatch(argv)
    except HeadstartError as error:
        _complain(f"headstart: {error}")
        code = error.exit_code
    except KeyboardInterrupt:
        _complain("headstart: stopped; what was saved before is kept")
        code = Interrupted.exit_code
    except BrokenPipeError:  # the reader of our output (head, less) has gone; that is no failure of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        _print_help()
        return 0
    if argv[0] == "--version":
        print(f"headstart {__version__}")
        return 0
    words, rest = _command_words(argv)
    command = COMMANDS[words]
    if command is pretrain:
        command = functools.partial(command, options=_base_config(rest))
    return tyro.cli(
        command, args=rest, prog=f"headstart {words}",
    )  # fmt: skip


def _command_words(argv: list[str]) -> tuple[str, list[str]]:
    """The command's name (one word, or two for `study plan`) and its arguments."""
    for count in (2, 1):
        words = " ".join(argv[:count])
        if words in COMMANDS:
            return words, argv[count:]
    import difflib

    close = difflib.get_close_matches(argv[0], {name.split()[0] for name in COMMANDS}, n=1)
    hint = f" (perhaps you meant {close[0]})" if close else ""
    raise InputError(f"there is no command {' '.join(argv[:1])!r}{hint}; `headstart --help` lists them")


def _base_config(argv: list[str]) -> Config:
    """What the options start from: a preset and a config file are looked at before everything else."""
    sources = tuple(value for value in argv[:1] if not value.startswith("-"))
    base = named_preset(_value_of("--preset", argv), sources)
    file = _value_of("--config", argv)
    return base if file is None else load_config(file, base)[0]


def _value_of(option: str, argv: list[str]) -> str | None:
    for here, after in zip(argv, [*argv[1:], None], strict=True):
        if here == option:
            return after
        if here.startswith(f"{option}="):
            return here.split("=", 1)[1]
    return None


def _print_help() -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    for name, command in COMMANDS.items():
        table.add_row(f"  [bold]{name}[/]", (command.__doc__ or "").strip().splitlines()[0])
    console = Console()
    console.print("usage: headstart COMMAND ...\n\nSimCLR pretraining with a head start, and an honest answer.\n")
    console.print(table)
    console.print("\n`headstart COMMAND --help` lists a command's options.")


def _complain(text: str) -> None:
    from headstart.runs import printable

    print(printable(text), file=sys.stderr)
