"""The command line: which command it names, its help, and how it ends.

Each command is a function whose parameters are its options; its first docstring line is its help. No torch until a
command needs it. Exit codes: 0 done, 1 failed, 2 bad input, 75 interrupted and resumable.
"""

import contextlib
import difflib
import inspect
import io
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from headstart.cli import STOPPED, bug, compare, defaults, look, study, train, use
from headstart.engine.signals import is_stop, stoppable
from headstart.records import plugins
from headstart.records.errors import HeadstartError, InputError, Interrupted
from headstart.records.text import printable
from headstart.records.version import __version__

COMMANDS: dict[str, Callable[..., int]] = {
    "demo": train.demo,
    "pretrain": train.pretrain,
    "evaluate": use.evaluate,
    "embed": use.embed,
    "search": use.search,
    "select": use.select,
    "map": use.map,
    "finetune": use.finetune,
    "predict": use.predict,
    "export": use.export,
    "study plan": study.study_plan,
    "study run": study.study_run,
    "study status": study.study_status,
    "study import": study.study_import,
    "report": study.report,
    "compare": compare.compare,
    "check": look.check,
    "list": look.list_,
    "doctor": look.doctor,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # letters that the terminal's encoding lacks are shown escaped
            stream.reconfigure(errors="backslashreplace")
    try:
        with stoppable():
            code = _dispatch(argv)
    except HeadstartError as error:
        _complain(f"headstart: {error}")
        code = error.exit_code
    except MemoryError:
        _complain("headstart: out of memory; smaller or fewer pictures (--data.size, --data.limit) need less")
        code = 1
    except KeyboardInterrupt:
        _complain(STOPPED)
        code = Interrupted.exit_code
    except BrokenPipeError:  # the reader of our output (head, less) has gone; that is no failure of ours
        code = 0
    except OSError as error:  # a disk, a permission: the system's own words name the file
        _complain(f"headstart: {error}")
        code = 1
    except Exception as error:
        if is_stop(error):
            _complain(STOPPED)
            code = Interrupted.exit_code
        else:
            bug.tell(error, next((name for name in COMMANDS if argv[: len(name.split())] == name.split()), "none"))
            code = 1
    _let_go()
    sys.exit(code)


def _let_go() -> None:
    """Write out what is left; where nobody reads it any more, Python would complain of that at its very end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        _print_help()
        return 0
    if argv[0] == "--version":
        print(f"headstart {__version__}")
        return 0
    if argv[0] == "--print-completion":
        from headstart.cli.completion import print_completion

        print_completion("".join(argv[1:2]), COMMANDS)
        return 0
    words, rest = _command_words(argv)
    command = COMMANDS[words]
    _refuse_empty(rest)
    rest = defaults.joined(command, rest)
    plugins.use(defaults.values_of("--plugin", rest))
    if {"-h", "--help"} & {*rest}:
        _print_most_used(words)
    program, begin = f"headstart {words}", dict[str, Any]()
    if command is train.pretrain:
        begin["options"] = defaults.base_config(rest)
    elif "reading" in inspect.signature(command).parameters:
        begin["reading"] = defaults.reading_for(command, rest, program)
    return command(**defaults.parsed(command, rest, program, **begin))


def _refuse_empty(arguments: Sequence[str]) -> None:
    """An empty path would mean the folder that one stands in: most likely a variable of the shell that is not set."""
    for before, argument in zip(("", *arguments), arguments, strict=False):
        if not argument.strip() or re.fullmatch(r"--[\w.-]+=", argument):
            what = argument.rstrip("=").strip() or (before if before.startswith("-") else "an argument")
            raise InputError(f"{what} is empty (''); is a variable not set?")


def _command_words(argv: list[str]) -> tuple[str, list[str]]:
    """The command's name (one word, or two for `study plan`) and its arguments."""
    for count in (2, 1):
        words = " ".join(argv[:count])
        if words in COMMANDS:
            return words, argv[count:]
    parts = [name for name in COMMANDS if name.startswith(f"{argv[0]} ")]
    if parts:
        raise InputError(f"headstart {argv[0]} is {', '.join(parts[:-1])} or {parts[-1]}; which of them?")
    known = {*(name.split()[0] for name in COMMANDS), "--help", "--version"}
    close = difflib.get_close_matches(argv[0], known, n=1)
    hint = f" (perhaps you meant {close[0]})" if close else ""
    raise InputError(f"there is no command {' '.join(argv[:1])!r}{hint}; `headstart --help` lists them")


def _print_help() -> None:
    from rich.table import Table

    from headstart.engine.progress import Patient

    table = Table(box=None, show_header=False, pad_edge=False)
    for name, command in COMMANDS.items():
        table.add_row(f"  [bold]{name}[/]", (command.__doc__ or "").strip().splitlines()[0])
    console = Patient()
    console.print("usage: headstart COMMAND ...\n\nSimCLR pretraining with a head start, and an honest answer.\n")
    console.print(table)
    console.print(
        "\n`headstart COMMAND --help` lists a command's options, `--version` tells Headstart's, and "
        "`--print-completion SHELL` prints what lets bash, zsh or fish complete them."
    )


MOST_USED = {
    "pretrain": {
        "--out RUN": "the run folder",
        "--preset NAME": "a setting with a name: `headstart list presets`",
        "--backbone.name NAME": "the network: `headstart list backbones`",
        "--backbone.weights W": "its weights: none, pretrained, imagenet, FILE, RUN",
        "--head.init INIT": "the head's first layer: `headstart list heads`",
        "--head.no-frozen": "train that layer too",
        "--contrastive.epochs N": "SimCLR's passes over the pictures",
        "--contrastive.batch-size N": "pairs in a batch",
        "--data.size PX": "side of the square training pictures",
        "--device D": "auto, cpu, cuda, cuda:N or mps",
    },
}
"""What `--help` begins with where a command has more options than a screen has lines."""


def _print_most_used(words: str) -> None:
    if words in MOST_USED:
        print("most used:")
        for option, what in MOST_USED[words].items():
            print(f"  {option:<28}{what}")
        print()


def _complain(text: str) -> None:
    text = printable(text)
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns
        text = textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)
    with contextlib.suppress(BrokenPipeError):  # nobody reads it; the exit code says it too
        print(text, file=sys.stderr)
