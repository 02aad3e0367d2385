"""A run that is asked to stop hears of it, whoever else handles signals, and however many come."""

import os
import signal
import subprocess
import sys

import pytest

from headstart.engine import stopping
from headstart.records.errors import Interrupted


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_during_work_without_a_state_is_an_interruption(number: signal.Signals) -> None:
    with pytest.raises(Interrupted, match="goes on"), stopping.interrupted_by_signals("it goes on"):
        signal.raise_signal(number)
    assert signal.getsignal(number) is signal.SIG_DFL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_so_it_is_within_a_training_that_saves(number: signal.Signals) -> None:
    with stopping.stop_on_signals():
        with pytest.raises(Interrupted, match="goes on"), stopping.interrupted_by_signals("it goes on"):
            signal.raise_signal(number)
        assert stopping.stop_requested()
        with pytest.raises(Interrupted), stopping.interrupted_by_signals("came before"):
            pytest.fail("work was begun after a stop was asked for")


FLOODED = """
import subprocess, sys
from headstart.engine.stopping import stop_on_signals, stop_requested

FLOOD = "import os, signal\\nfor i in range(20000): os.kill(os.getppid(), (signal.SIGTERM, signal.SIGUSR1)[i % 2])"
with stop_on_signals():
    sender = subprocess.Popen([sys.executable, "-c", FLOOD])
    while sender.poll() is None:
        pass
    print(stop_requested())
"""


def test_signals_that_come_while_another_is_handled_block_nothing() -> None:
    """A scheduler, or a launcher that dies, sends several: the handler of one waited for the lock of another's."""
    found = subprocess.run([sys.executable, "-c", FLOODED], capture_output=True, text=True, timeout=300)
    assert found.stdout == "True\n", found.stderr


def test_a_callers_handler_stays() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    try:
        with stopping.interrupted_by_signals("it goes on"):
            os.kill(os.getpid(), signal.SIGTERM)
        assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
