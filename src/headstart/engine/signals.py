"""Signals that ask a command to stop: Ctrl-C, SIGTERM, and SIGUSR1, which schedulers send.

A command ends with exit code 75 whenever one comes, but in an import, which ends first: what interrupts a library while
it is imported may be swallowed there, and leave half of it behind. Nothing here imports torch.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

from headstart.records.errors import Interrupted

STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]
AGAIN_SECONDS = 0.05
_CLOCK = getattr(signal, "SIGALRM", None)


def stop(number: int, frame: FrameType | None) -> None:
    """The handler of a command line: KeyboardInterrupt, as by Ctrl-C."""
    if not comes_again(number, frame):
        raise KeyboardInterrupt


def is_stop(error: BaseException | None) -> bool:
    """Whether an exception is a request to stop, or what a library made of one: a signal that comes twice is not
    waited for while something is imported, and there it can end as anybody's error `from` it."""
    while error is not None and not isinstance(error, (Interrupted, KeyboardInterrupt)):
        error = error.__cause__
    return error is not None


def comes_again(number: int, frame: FrameType | None) -> bool:
    """Whether an import is under way, after which the signal comes again.

    It is not waited for when asked a second time, nor where no clock can be had.
    """
    if _CLOCK is None or not _is_importing(frame) or signal.getsignal(_CLOCK) is not signal.SIG_DFL:
        return False
    signal.signal(_CLOCK, _Again(number))
    signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
    return True


@dataclass(frozen=True)
class _Again:
    """The clock's handler: raises the signal once nothing is being imported."""

    number: int

    def __call__(self, clock: int, frame: FrameType | None) -> None:
        if _is_importing(frame):
            signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
            return
        signal.signal(clock, signal.SIG_DFL)
        signal.raise_signal(self.number)


def _is_importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported, and by no function of ours that the import called."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        if frame.f_globals.get("__name__", "").startswith("headstart.") and frame.f_code.co_name != "<module>":
            return False
        frame = frame.f_back
    return False


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Within this context the signals that stop raise KeyboardInterrupt, so that what is half written is taken away.

    A training, which saves first, has handlers of its own; those that a caller has set stay.
    """
    found = {number: signal.getsignal(number) for number in STOPPING}
    found = {n: own for n, own in found.items() if own in (signal.SIG_DFL, signal.default_int_handler)}
    if threading.current_thread() is not threading.main_thread():
        found = {}  # only it may set handlers
    for number in found:
        signal.signal(number, stop)
    try:
        yield
    finally:
        if _CLOCK is not None and isinstance(signal.getsignal(_CLOCK), _Again):  # too late by now
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(_CLOCK, signal.SIG_DFL)
        for number, own in found.items():
            signal.signal(number, own)
