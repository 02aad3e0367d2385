"""A run that is asked to stop: what comes first is saved, then it ends with `Interrupted`.

A training asks after each step whether it should; what has nothing to save is interrupted at once.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from headstart.engine import signals
from headstart.engine.progress import say
from headstart.engine.signals import STOPPING
from headstart.records.errors import Interrupted

SAVED = "stopped after saving; the same command goes on from here"


class _Stop:
    """Whether a stop was asked for; no threading.Event, whose lock a handler would wait for for ever that comes while
    another is setting it."""

    asked = False


class _Ask:
    """The handler that remembers that a stop was asked for."""

    def __init__(self) -> None:
        self.before = {number: signal.getsignal(number) for number in STOPPING}

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and _Stop.asked:
            raise KeyboardInterrupt
        _Stop.asked = True
        outer = self.before[signal.Signals(number)]
        if callable(outer) and outer not in (signal.default_int_handler, signals.stop):
            outer(number, frame)  # a caller that does more than this must hear of it too


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Within this context SIGINT, SIGTERM and SIGUSR1 ask to save and stop; a second SIGINT stops at once.

    A context within another one changes nothing, so that whatever came between two runs of a study still holds.
    """
    on_main_thread = threading.current_thread() is threading.main_thread()  # only it may set handlers
    if not on_main_thread or isinstance(signal.getsignal(STOPPING[0]), _Ask):
        yield
        return
    ask = _Ask()
    _Stop.asked = False
    for number in STOPPING:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in ask.before.items():
            signal.signal(number, handler)
        _Stop.asked = False


def stop_requested() -> bool:
    """Whether a stop was asked for since the outermost `stop_on_signals` began."""
    return _Stop.asked


def give_way() -> None:
    """Ask to stop because another process has taken over what this one was at."""
    say("another process took over here, because this one stood still for so long; it stops")
    _Stop.asked = True


@contextmanager
def interrupted_by_signals(said: str) -> Iterator[None]:
    """Within this context SIGTERM and SIGUSR1, which would end the process without a word, raise `Interrupted(said)`.

    For work that has nothing to save and is done again. So do the signals of a `stop_on_signals` around it, and one
    that came before. Handlers that a caller has set stay.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        asked = before[signal.Signals(number)]
        if signals.comes_again(number, frame):
            return
        if isinstance(asked, _Ask):
            asked(number, frame)
        raise Interrupted(said)

    found = {number: signal.getsignal(number) for number in STOPPING}
    before = {
        number: own
        for number, own in found.items()
        if own is signal.SIG_DFL or isinstance(own, _Ask) or own is signals.stop  # the command line's, which says less
    }
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    for number in before:
        signal.signal(number, stop)
    try:
        if stop_requested():
            raise Interrupted(said)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
