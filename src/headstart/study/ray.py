"""A study on a Ray cluster: Ray places a task an autoencoder and one a run, and starts them again when a node is lost.

Each task is a look of `worker.py` at its run; nothing here schedules.
"""

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from headstart.engine.cluster import RETRIES, cluster, raised, share
from headstart.engine.stopping import SAVED, stop_on_signals, stop_requested
from headstart.records.cluster import RayOptions
from headstart.records.errors import HeadstartError, Interrupted, RunError
from headstart.records.folder import RunFolder
from headstart.study import shared
from headstart.study.file import Planned
from headstart.study.shared import Work
from headstart.study.worker import POLL_SECONDS, Worker, fail, in_one_line, planned_by

SAVING_SECONDS = 60.0
NO_ROOM = "no room: "
"""What a task gives back, with the reason, where no other run could write either."""


def on_ray(work: Work, planned: Sequence[Planned], options: RayOptions) -> None:
    """Do the study on a Ray cluster: an existing one, or one on this machine that ends with this call."""
    with cluster(options) as ray:
        given = share(ray, options, work.threads, work.device)
        told = replace(work, threads=given.threads, bars=False, sharers=given.sharers)
        _Tasks(ray, told, planned, given.resources).wait()


class _Tasks:
    """What Ray was given to do: every run that is not done, each after its autoencoder."""

    def __init__(self, ray: Any, work: Work, planned: Sequence[Planned], resources: Mapping[str, float]) -> None:
        self.ray, self.out = ray, Path(work.out)
        self.interrupted = self.cancelled = False
        self.no_room = ""
        task = ray.remote(max_retries=RETRIES, **resources)(ray_task)
        todo = [run for run in planned if not RunFolder(self.out / "runs" / run.name).is_over()]
        needed = shared.autoencoders_of(todo)
        first = {digest: task.remote(work, run.name, autoencoder_only=True) for digest, run in needed.items()}
        self.autoencoders = list(first.values())
        self.waiting = {}
        for run in todo:
            # Ray starts a run when its autoencoder is there; until then it takes no place.
            trains = shared.trains_autoencoder(run.config)
            needs = first[shared.autoencoder_hash(run.config, run.point.data)] if trains else None
            self.waiting[task.remote(work, run.name, after=needs)] = run.name

    def wait(self) -> None:
        """Return when all are over; raise Interrupted where they were stopped, RunError where a disk is full."""
        with stop_on_signals():
            while self.waiting:
                self.interrupted |= stop_requested()
                if (self.interrupted or self.no_room) and not self.cancelled:
                    self.cancelled = True
                    for reference in [*self.autoencoders, *self.waiting]:
                        self.ray.cancel(reference)
                ready, _ = self.ray.wait(list(self.waiting), timeout=POLL_SECONDS)
                for reference in ready:
                    self._take(reference, self.waiting.pop(reference))
            if self.cancelled and self.autoencoders:  # let those in training save before the cluster goes
                self.ray.wait(self.autoencoders, num_returns=len(self.autoencoders), timeout=SAVING_SECONDS)
        if self.no_room:
            raise RunError(f"{self.no_room}; the study stops, and the same command goes on when there is room")
        if self.interrupted:
            raise Interrupted(SAVED)

    def _take(self, reference: Any, name: str) -> None:
        try:
            outcome = self.ray.get(reference)
            self.interrupted |= outcome == "interrupted"
            if outcome.startswith(NO_ROOM):
                self.no_room = outcome.removeprefix(NO_ROOM)
        except Exception as error:
            folder = RunFolder(self.out / "runs" / name)
            if not self.cancelled and not folder.is_complete():
                own = raised(error)
                reason = str(own) if isinstance(own, HeadstartError) else in_one_line(own)
                fail(folder, reason, str(error))


_workers: dict[Work, Worker] = {}
"""The worker of this Ray process, which keeps its pictures for the next task."""


def ray_task(work: Work, name: str, autoencoder_only: bool = False, after: object = None) -> str:
    """One run, or its autoencoder, in a Ray worker process; `after` is what Ray waits for before it starts this."""
    if work not in _workers:
        _workers.clear()
        with contextlib.suppress(OSError):  # another machine may not have it
            os.chdir(work.folder)
        _workers[work] = Worker(work, planned_by(work))
    worker = _workers[work]
    (run,) = [run for run in worker.planned if run.name == name]
    try:
        while True:
            worker.check_stop()
            outcome = worker.do_autoencoder(run) if autoencoder_only else worker.do(run)
            if outcome in ("done", "failed"):
                return outcome
            time.sleep(POLL_SECONDS)  # claimed elsewhere, or by a node that was lost and is not yet known to be
    except Interrupted:
        return "interrupted"
    except RunError as error:  # a failing run does not get here: the disk is full
        return f"{NO_ROOM}{error}"
