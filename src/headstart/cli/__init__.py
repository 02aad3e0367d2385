"""The command line: parse, call, print."""

import sys
from collections.abc import Sequence

from headstart.engine.signals import stoppable
from headstart.records.errors import Interrupted

STOPPED = "headstart: stopped; what was saved before is kept, and the same command goes on from there"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code; it can be stopped while its parts are still being imported.

    arguments: the words after `headstart`; None: those of this process.
    """
    try:
        with stoppable():
            from headstart.cli.commands import main as run

            run(arguments)
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        sys.exit(Interrupted.exit_code)


__all__ = ["main"]
