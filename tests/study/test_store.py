"""Claims: one holder at a time, taken over from the dead, left to the living."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from threading import Barrier

import pytest

from headstart import study
from headstart.records.claim import STALE_SECONDS, Claim, identity
from headstart.records.errors import Interrupted
from tests.study.tiny import TINY, wait_for, written


def test_one_of_many_takes_a_claim(tmp_path: Path) -> None:
    barrier, tried = threading.Barrier(16), threading.Barrier(16)
    taken: list[int] = []

    def take() -> None:
        barrier.wait()
        with Claim(tmp_path).held() as mine:
            if mine:
                taken.append(1)
            tried.wait(60)  # nobody lets go before all have tried

    threads = [threading.Thread(target=take) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 1
    assert not list(tmp_path.iterdir())


def test_one_of_many_takes_over_from_a_dead_process(tmp_path: Path) -> None:
    for _ in range(20):
        dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
        holder = {**identity(), "token": "dead", "pid": int(dead.stdout), "started": "0"}
        (tmp_path / ".claim").write_text(json.dumps(holder))
        assert Claim(tmp_path).holder() is None
        barrier, tried = threading.Barrier(8), threading.Barrier(8)
        taken: list[int] = []

        def take(barrier: Barrier = barrier, tried: Barrier = tried, taken: list[int] = taken) -> None:
            barrier.wait()
            with Claim(tmp_path).held() as mine:
                if mine:
                    taken.append(1)
                tried.wait(60)  # nobody lets go before all have tried

        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(taken) == 1
        assert not list(tmp_path.iterdir())


def test_a_claim_from_another_machine_lasts_as_long_as_it_is_renewed(tmp_path: Path) -> None:
    holder = {**identity(), "host": "elsewhere", "token": "theirs"}
    (tmp_path / ".claim").write_text(json.dumps(holder))
    with Claim(tmp_path).held() as mine:
        assert not mine
    assert Claim(tmp_path).holder() == holder
    then = time.time() - STALE_SECONDS - 5
    os.utime(tmp_path / ".claim", (then, then))
    assert Claim(tmp_path).holder() is None
    with Claim(tmp_path).held() as mine:
        assert mine
    assert not list(tmp_path.iterdir())


def test_a_half_written_claim_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".claim").write_text('{"host": "x"')
    with Claim(tmp_path).held() as mine:
        assert mine


@pytest.mark.parametrize("now", ["another's", "half written", "gone"])
def test_a_holder_that_stood_still_gives_way_to_its_successor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: str
) -> None:
    monkeypatch.setattr("headstart.records.claim.BEAT_SECONDS", 0.01)
    lost, beats = threading.Event(), tmp_path / ".claim"
    successor = json.dumps({**identity(), "host": "machine-b", "token": "theirs"})
    with Claim(tmp_path).held(lost.set) as mine:
        assert mine
        if now == "another's":
            (tmp_path / "new").write_text(successor)
            (tmp_path / "new").replace(beats)
            assert lost.wait(60)
        else:  # nobody has it: nothing was taken over
            beats.unlink() if now == "gone" else beats.write_text(successor[:20])
            assert not lost.wait(0.2)
    assert lost.is_set() == (now == "another's")
    assert (beats.exists() and beats.read_text() == successor) == (now == "another's")


def test_a_run_that_was_taken_over_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process finds another's claim on the run when it wakes up, and leaves the run to it."""
    monkeypatch.setattr("headstart.records.claim.BEAT_SECONDS", 0.01)
    claim = tmp_path / "out" / "runs" / "data=digits,init=random,seed=0" / ".claim"
    theirs = json.dumps({**identity(), "host": "machine-b", "token": "theirs"})
    base = {**TINY["base"], "contrastive": {"epochs": 100_000, "batch_size": 16}}

    def overtake() -> None:
        wait_for(lambda: (claim.parent / "checkpoint.pt").exists())
        claim.with_name("theirs").write_text(theirs)
        claim.with_name("theirs").replace(claim)

    threading.Thread(target=overtake, daemon=True).start()
    with pytest.raises(Interrupted):
        study.run(written(tmp_path, base=base, seeds=[0]), tmp_path / "out", workers=0, quiet=True)
    assert claim.read_text() == theirs
    assert not (claim.parent / "failed.json").exists()
