"""A study on a Ray cluster: Ray places a task an autoencoder and one a run, and starts them again when a node is lost.

Each task is a look of `worker.py` at its run; nothing here schedules.
"""

import contextlib
import logging
import os
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from headstart.engine.checkpoint import stop_on_signals, stop_requested
from headstart.engine.device import available_cores
from headstart.records.errors import InputError, Interrupted, RunError
from headstart.records.folder import RunFolder
from headstart.study import shared
from headstart.study.file import Planned
from headstart.study.shared import RayOptions, Work
from headstart.study.worker import POLL_SECONDS, Worker, fail, in_one_line, planned_by

SAVING_SECONDS = 60.0
NO_ROOM = "no room: "
"""What a task gives back, with the reason, where no other run could write either."""
RAY_RETRIES = 3
"""Nodes of a cluster are lost more often than processes of a machine."""


def on_ray(work: Work, planned: Sequence[Planned], options: RayOptions) -> None:
    """Do the study on a Ray cluster: an existing one, or one on this machine that ends with this call."""
    with cluster(options) as ray:
        has_gpu = ray.cluster_resources().get("GPU", 0) > 0 and work.device != "cpu"
        threads = work.threads or max(1, int(options.cpus or 1))
        # On this machine a run may ask for more threads than there are cores, as without Ray.
        cpus = options.cpus or (threads if options.address else min(threads, available_cores()))
        resources = {"num_cpus": cpus, "num_gpus": options.gpus if options.gpus is not None else float(has_gpu)}
        own = 0 if options.address else available_cores()  # what other machines hold at once is not known here
        sharers = max(1, int(1 / (options.gpus or 1) if has_gpu else own / cpus))
        _Tasks(ray, replace(work, threads=threads, bars=False, sharers=sharers), planned, resources).wait()


@contextlib.contextmanager
def cluster(options: RayOptions) -> Iterator[Any]:
    """Ray, connected: to the cluster that was named, or to one of our own that nobody else can reach."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if options.address is None:  # ends with us; one that was there is left as it is
        settings |= {"num_cpus": available_cores(), "include_dashboard": False}
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # Ray then listens on the loopback address alone
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # against other users of this machine
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else Ray keeps one in the home folder
    try:
        import ray  # noqa: PLC0415 - an extra
    except ImportError:
        raise InputError("--executor ray needs Ray; install it with `pip install 'headstart[ray]'`") from None
    # Ray lets its workers import from the folder that it is started in, and there a folder of pictures may hold a
    # `torch.py`. Without `local` it would join whatever cluster was last started on this machine, and die with it.
    with tempfile.TemporaryDirectory() as empty:
        with contextlib.chdir(empty):
            ray.init(address=options.address or "local", **settings)
        try:
            yield ray
        finally:
            ray.shutdown()


class _Tasks:
    """What Ray was given to do: every run that is not done, each after its autoencoder."""

    def __init__(self, ray: Any, work: Work, planned: Sequence[Planned], resources: Mapping[str, float]) -> None:
        self.ray, self.out = ray, Path(work.out)
        self.interrupted = self.cancelled = False
        self.no_room = ""
        task = ray.remote(max_retries=RAY_RETRIES, **resources)(ray_task)
        todo = [run for run in planned if not (self.out / "runs" / run.name / "result.json").exists()]
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
            raise Interrupted("stopped after saving; the same command goes on from here")

    def _take(self, reference: Any, name: str) -> None:
        try:
            outcome = self.ray.get(reference)
            self.interrupted |= outcome == "interrupted"
            if outcome.startswith(NO_ROOM):
                self.no_room = outcome.removeprefix(NO_ROOM)
        except Exception as error:
            folder = RunFolder(self.out / "runs" / name)
            if not self.cancelled and not folder.is_complete():
                fail(folder, in_one_line(error), str(error))


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
