"""The tiny study in forked children that are killed where a named file is put in its place.

    python -P -m tests.study.killed FILE OUT [WHEN:NAME]...

Each child begins or goes on with the study and kills itself before (or after) the first file of that name appears; the
last one is left alone. Prints how each ended. A process of its own, because what was imported once need not be again,
and because torch may not be used before a fork.
"""

import os
import signal
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

from headstart import study
from headstart.records import claim, files
from headstart.study import local, opening, ray, store, worker  # noqa: F401 - imported before the forks
from tests.soak.faults import fork, wait


def dying(call: Callable[..., object], when: str, name: str) -> Callable[..., object]:
    """`os.replace` or `os.link`, which ends the process before or after a file of that name appears."""

    def called(source: object, target: Path) -> None:
        here = fnmatch(Path(target).name, name)
        if here and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        call(source, target)
        if here:
            os.kill(os.getpid(), signal.SIGKILL)

    return called


def child(file: str, out: str, when: str = "", name: str = "") -> Callable[[], None]:
    """The study, killed at the named point."""

    def action() -> None:
        everything = {n: getattr(os, n) for n in dir(os)}
        calls = {n: dying(getattr(os, n), when, name) for n in ("replace", "link")}
        if name:
            claim.os = files.os = store.os = SimpleNamespace(**everything | calls)  # type: ignore[assignment, attr-defined]
        study.run(file, out, workers=0, quiet=True)

    return action


if __name__ == "__main__":
    for point in sys.argv[3:]:
        when, _, name = point.partition(":")
        print(point, wait(fork(child(sys.argv[1], sys.argv[2], when, name)), 600))
    print("left alone", wait(fork(child(sys.argv[1], sys.argv[2])), 600))
