"""What a fault of Headstart's own looks like: what went wrong, where in the code, and on what machine.

It names no folder and nobody, so that it can be pasted into an issue as it is.
"""

import contextlib
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from headstart.records.text import printable


def tell(error: Exception, command: str) -> None:
    """Write the report on the error output."""
    print("\n".join(printable(line) for line in lines(error, command)), file=sys.stderr)


def lines(error: Exception, command: str) -> list[str]:
    """The report, line by line."""
    where = [
        f"  {'/'.join(Path(frame.filename).parts[-3:])}:{frame.lineno} in {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)[-12:]
    ]
    return [
        f"headstart: this is a fault of Headstart's own ({type(error).__name__}: {error}); what was saved is kept",
        f"Please report it with these lines. Command: {command}; the last calls:",
        *where,
        *_facts(),
    ]


def _facts() -> Iterator[str]:
    with contextlib.suppress(Exception):  # whatever is broken here may be what broke the command
        from headstart.cli.doctor import describe

        for name, value in describe().items():
            yield f"  {name}: {value}"
