"""A study on this machine: in the calling process, or in several worker processes that are replaced when they die."""

import contextlib
import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from headstart.engine.device import available_cores
from headstart.engine.stopping import SAVED, stop_on_signals, stop_requested
from headstart.records.claim import identity
from headstart.records.errors import Interrupted, RunError
from headstart.records.files import read
from headstart.records.folder import RunFolder
from headstart.study.file import Planned
from headstart.study.shared import Work
from headstart.study.worker import GIVE_UP, REPLACE_ME, Worker, fail

DEATHS = 2
"""A run whose process died so often has failed; the first time may have been somebody else's fault."""


def on_this_machine(work: Work, planned: Sequence[Planned], workers: int) -> None:
    """Do the study with `workers` processes of this machine, or (0) in this one.

    A worker whose process dies is replaced; a run that it dies of twice has failed.
    """
    workers = min(workers, len(planned))
    threads = work.threads or max(1, available_cores() // max(1, workers))
    work = replace(work, threads=threads, bars=workers <= 1)
    if workers == 0:
        worker = Worker(work, planned)
        while not worker.do_all():
            worker.fresh = True  # there is no other process to take its place
    else:
        pool = Pool(replace(work, sharers=math.ceil(workers / len(_devices(work.device)))))
        _supervise(pool, workers)
        over = (RunFolder(Path(work.out) / "runs" / run.name).is_over() for run in planned)
        if pool.asked or (pool.stopped and not all(over)):
            raise Interrupted(SAVED)


def _supervise(pool: "Pool", workers: int) -> None:
    """Keep `workers` processes at work until they find nothing more to do."""
    with stop_on_signals():
        try:
            for slot in range(workers):
                pool.start(slot)
            while pool.alive:
                time.sleep(0.1)
                if stop_requested() and not pool.asked:
                    pool.ask_to_stop()
                pool.replace_ended()
        finally:
            pool.ask_to_stop()
            for process in pool.alive:
                process.wait()
                process.communicate()


class Pool:
    """Worker processes of this machine, each in a slot with its device.

    Attributes:
        asked: whether they were asked to stop.
        stopped: whether one stopped that was not done, asked here or by somebody else, or for want of time.
    """

    def __init__(self, work: Work) -> None:
        self.work, self.devices = work, _devices(work.device)
        self.alive: dict[subprocess.Popen[bytes], int] = {}
        self.asked = self.stopped = False
        self._deaths: Counter[str] = Counter()
        self._lost = 0

    def start(self, slot: int) -> None:
        """Start a worker."""
        device = self.devices[slot % len(self.devices)]
        told = json.dumps(dataclasses.asdict(replace(self.work, device=device)))
        # Not multiprocessing's spawn, which imports the caller's main module again. -P: the current folder may hold
        # somebody's pictures, and a yaml.py. The pipe ends with this process, however it ends.
        command = [sys.executable, "-P", "-m", "headstart.study.process", told]
        self.alive[subprocess.Popen(command, stdin=subprocess.PIPE)] = slot

    def ask_to_stop(self) -> None:
        """Ask every worker to save and stop; none is replaced from then on."""
        self.asked |= bool(self.alive)
        for process in self.alive:
            with contextlib.suppress(OSError):
                process.terminate()

    def replace_ended(self) -> None:
        """Start a worker in the place of each that ended before its work was done."""
        for process in [p for p in self.alive if p.poll() is not None]:
            slot, code = self.alive.pop(process), process.returncode
            process.communicate()
            self.stopped |= code == Interrupted.exit_code
            if self.asked or code in (0, Interrupted.exit_code):
                continue
            if code == GIVE_UP:
                raise RunError("the study stops; the same command goes on when what is said above is mended")
            if code != REPLACE_ME:
                self._blame(process.pid, code)
            self.start(slot)

    def _blame(self, pid: int, code: int) -> None:
        """Count a death against the run that the worker was at; one that it died of twice has failed."""
        held = [path.parent for path in (Path(self.work.out) / "runs").glob("*/.claim") if _is_held_by(path, pid)]
        for folder in held:
            self._deaths[folder.name] += 1
            count = self._deaths[folder.name]
            if count >= DEATHS:
                fail(RunFolder(folder), f"its process was ended {count} times, at last {_ending(code)}")
        self._lost = 0 if held else self._lost + 1
        if self._lost > DEATHS:
            raise RunError(f"a worker process of the study ends with code {code} before it begins a run")


def _is_held_by(claim: Path, pid: int) -> bool:
    with contextlib.suppress(OSError, ValueError):
        holder = json.loads(read(claim))
        return bool(holder["pid"] == pid and holder["host"] == identity()["host"])
    return False


def _devices(device: str) -> list[str]:
    """What the workers take in turns."""
    if device not in ("auto", "cuda"):
        return [device]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = visible.split(",") if visible else list(Path("/proc/driver/nvidia/gpus").glob("*"))
    return [f"cuda:{i}" for i in range(len(found))] if len(found) > 1 and visible != "" else [device]


def _ending(code: int) -> str:
    if code >= 0:
        return f"with exit code {code}"
    name = signal.Signals(-code).name if -code in {s.value for s in signal.Signals} else str(-code)
    return f"by {name}" + ("; is there enough memory?" if name == "SIGKILL" else "")
