"""The command line: parse, call, print."""

import sys

from headstart.engine.signals import stoppable
from headstart.records.errors import Interrupted

STOPPED = "headstart: stopped; what was saved before is kept, and the same command goes on from there"


def main() -> None:
    """Run one command and exit with its code; it can be stopped while its parts are still being imported."""
    try:
        with stoppable():
            from headstart.cli.commands import main as run

            run()
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        sys.exit(Interrupted.exit_code)


__all__ = ["main"]
