"""Where the runs of a study are done: in this process, in several on this machine, or on a Ray cluster.

Every process does the same: it walks along the planned runs, claims one that nobody has done or claimed, and does it.
So any number of processes, jobs and machines may work on one study folder, and none of them needs to know the others.
Ray places processes and starts them again when a node is lost; nothing here schedules.
"""

import contextlib
import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

from headstart.engine.progress import duration, say
from headstart.records import folder as runs
from headstart.records.errors import HeadstartError, InputError, Interrupted, RunError
from headstart.records.folder import RunFolder
from headstart.study import shared
from headstart.study import store as study_store
from headstart.study.file import Planned, expand, load
from headstart.study.shared import RayOptions
from headstart.study.store import Claim

if TYPE_CHECKING:
    from headstart.data import Images
    from headstart.data.splits import Splits
    from headstart.records.config import Config

Outcome = Literal["done", "failed", "claimed", "waiting"]
"""Of one look at a run: finished; failed; another process has it; its autoencoder is being trained by another."""

POLL_SECONDS = 0.5
SAVING_SECONDS = 60.0
DEATHS = 2
"""A run whose process died so often has failed; the first time may have been somebody else's fault."""
RAY_RETRIES = 3
"""Nodes of a cluster are lost more often than processes of a machine."""
REPLACE_ME = 64
"""Exit code of a worker that did its duty but should not do another run: an unexpected error may have left a broken
device or little memory behind."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every process of a study is told; `deadline` is in seconds since the epoch, as other machines know it."""

    out: str
    threads: int | None
    device: str
    keep: Literal["all", "records"]
    deadline: float | None
    quiet: bool
    bars: bool = True


def check_data(planned: Sequence[Planned]) -> None:
    """Raise InputError now when a data set is not there, instead of once a run."""
    from headstart.data import catalog

    for config in {run.point.data: run.config for run in planned}.values():
        catalog.find(config.data)


# ---------------------------------------------------------------------------------------------------------- one process


class Worker:
    """One process's view of a study, with what its runs share: decoded pictures and splits."""

    def __init__(self, work: Work, planned: Sequence[Planned]) -> None:
        self.work, self.planned = work, planned
        self.out = Path(work.out)
        self.stop = threading.Event()
        self.fresh = True
        self._renewed: dict[str, float] = {}
        self._opened: dict[Any, Any] = {}

    @property
    def deadline(self) -> float | None:
        """As `time.monotonic()` counts."""
        return None if self.work.deadline is None else time.monotonic() + self.work.deadline - time.time()

    def check_stop(self) -> None:
        """Raises Interrupted when asked to stop."""
        if self.stop.is_set() or (self.work.deadline is not None and time.time() >= self.work.deadline):
            raise Interrupted("stopped; the same command goes on from here")

    def do_all(self) -> None:
        """Do every run that nobody else does; returns when none is left for this process."""
        open_runs = list(self.planned)
        with self.stopping_on_signals():
            while open_runs:
                outcomes = []
                for run in list(open_runs):
                    self.check_stop()
                    outcomes.append(self.do(run))
                    if outcomes[-1] in ("done", "failed"):
                        open_runs.remove(run)
                    if not self.fresh:
                        return
                if {"done", "failed"} & set(outcomes):
                    continue
                if "waiting" not in outcomes and not any(self._may_be_dead(run) for run in open_runs):
                    return
                self.stop.wait(POLL_SECONDS)

    def _may_be_dead(self, run: Planned) -> bool:
        """Whether a run's holder, on another machine, has not been heard of since this was first asked.

        It may have lost its power a moment ago; a run is left to somebody who is seen to live.
        """
        renewed = Claim(self.out / "runs" / run.name).renewed()
        return renewed is not None and self._renewed.setdefault(run.name, renewed) == renewed

    def do(self, run: Planned) -> Outcome:
        """Do one run, unless it is done, has failed, or is somebody else's."""
        folder = RunFolder(self.out / "runs" / run.name)
        if folder.is_complete():
            self.tidy(folder)
            return "done"
        if folder.failed.exists():
            return "failed"
        config = replace(run.config, threads=self.work.threads, device=self.work.device)
        epochs = {"autoencoder": config.autoencoder.epochs, "contrastive": config.contrastive.epochs}
        with Claim(folder.path).held(epochs=epochs) as mine:
            if not mine:
                return "claimed"
            if folder.is_complete() or folder.failed.exists():
                return self.do(run)
            return self._attempt(folder, lambda: self._run(run, config, folder))

    def _attempt(self, folder: RunFolder, do: Any) -> Outcome:
        """Call `do`, and turn whatever goes wrong into failed.json."""
        try:
            outcome: Outcome = do()
        except (Interrupted, KeyboardInterrupt):
            raise
        except HeadstartError as error:
            fail(folder, str(error))
            return "failed"
        except Exception as error:
            fail(folder, _in_one_line(error), traceback.format_exc())
            self.fresh = False
            return "failed"
        return outcome

    def _run(self, run: Planned, config: "Config", folder: RunFolder) -> Outcome:
        from headstart.training import run as pretraining

        images, splits = self.open(config)
        if shared.trains_autoencoder(config) and not folder.stages.exists():
            digest = shared.autoencoder_hash(config, images.fingerprint)
            trained = self.autoencoder_folder(run, config, digest)
            outcome = self.autoencoder(trained, config, digest)
            if outcome == "failed":
                why = runs.read_json(trained.failed, runs.FAILED).get("reason", "")
                raise RunError(f"its autoencoder failed: {why}")
            if outcome != "done":
                return "waiting"
            study_store.hand_over_autoencoder(study_store.autoencoder_file(self.out, digest), trained, folder)
        key = shared.untrained_hash(config, images.fingerprint)
        started = time.monotonic()
        pretraining.run(
            config,
            folder.path,
            images=images,
            splits=splits,
            untrained=study_store.read_untrained(self.out, key),
            deadline=self.deadline,
            quiet=self.work.quiet or not self.work.bars,
        )
        result = folder.read_result()
        study_store.write_untrained(self.out, key, result["untrained"])
        self.tidy(folder)
        self._say(f"done: {run.name} in {duration(time.monotonic() - started)}{_accuracy(result)}")
        return "done"

    def open(self, config: "Config") -> tuple["Images", "Splits"]:
        """The pictures and their split, read once a process."""
        from headstart import data
        from headstart.data import splits

        crop = (config.augment.crop_scale[0], config.augment.crop_ratio[0])
        neutral = replace(config.data, split_seed=0, splits="house", limit=None, normalize=True, statistics="train")
        if ("images", neutral, crop) not in self._opened:
            self._opened.clear()  # one data set at a time: a study walks from one to the next
            self._opened["images", neutral, crop] = data.open_images(config.data, *crop)
        images = self._opened["images", neutral, crop]
        if ("splits", config.data) not in self._opened:
            self._opened["splits", config.data] = splits.make(images, config.data)
        return images, self._opened["splits", config.data]

    def do_autoencoder(self, run: Planned) -> Outcome:
        """Train the autoencoder of a run, unless it is done, has failed, or is somebody else's."""
        config = replace(run.config, threads=self.work.threads, device=self.work.device)
        images, _ = self.open(config)
        digest = shared.autoencoder_hash(config, images.fingerprint)
        return self.autoencoder(self.autoencoder_folder(run, config, digest), config, digest)

    def autoencoder_folder(self, run: Planned, config: "Config", digest: str) -> RunFolder:
        """The run folder of the autoencoder that a run needs."""
        return RunFolder(self.out / "runs" / shared.autoencoder_name(config, run.point.data, digest))

    def autoencoder(self, folder: RunFolder, config: "Config", digest: str) -> Outcome:
        """Train the autoencoder that a run needs, unless it is in the store."""
        from headstart.training import run as pretraining

        stored = study_store.autoencoder_file(self.out, digest)
        if stored.exists() and folder.is_complete():
            return "done"
        if folder.failed.exists():
            return "failed"
        with Claim(folder.path).held(epochs={"autoencoder": config.autoencoder.epochs}) as mine:
            if not mine:
                return "claimed"
            if (stored.exists() and folder.is_complete()) or folder.failed.exists():
                return self.autoencoder(folder, config, digest)

            def train() -> Outcome:
                images, splits = self.open(config)
                if not (folder.is_complete() and folder.autoencoder.exists()):
                    pretraining.run(
                        shared.autoencoder_config(config),
                        folder.path,
                        images=images,
                        splits=splits,
                        overwrite=folder.is_complete(),
                        deadline=self.deadline,
                        quiet=self.work.quiet or not self.work.bars,
                    )
                study_store.publish_autoencoder(folder, stored)
                self.tidy(folder)
                self._say(f"done: {folder.path.name}")
                return "done"

            return self._attempt(folder, train)

    def tidy(self, folder: RunFolder) -> None:
        """With `keep records`, leave a finished run's results and metrics alone."""
        if self.work.keep == "records":
            previous = folder.checkpoint.with_suffix(".previous.pt")
            for path in (folder.backbone, folder.head, folder.autoencoder, folder.checkpoint, previous):
                path.unlink(missing_ok=True)

    def _say(self, text: str) -> None:
        if not self.work.quiet:
            say(text)

    @contextlib.contextmanager
    def stopping_on_signals(self) -> Iterator[None]:
        """Between runs, too, SIGINT, SIGTERM and SIGUSR1 ask to stop."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, frame: FrameType | None) -> None:
            if number == signal.SIGINT and self.stop.is_set():
                raise KeyboardInterrupt
            self.stop.set()

        before = {number: signal.signal(number, ask) for number in _signals()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _signals() -> list[signal.Signals]:
    return [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]


def _accuracy(result: Mapping[str, Any]) -> str:
    found = [f"{name} {probe['accuracy']:.1%}" for name, probe in result["probes"].items() if "accuracy" in probe]
    return f": {', '.join(found[:2])}" if found else ""


def _in_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip() or 'no message'}".splitlines()[0]


def fail(folder: RunFolder, reason: str, details: str = "") -> None:
    """Record why a run failed; it is left alone from then on."""
    say(f"failed: {folder.path.name}: {reason}")
    where = study_store.identity()
    runs.write_json(folder.failed, {"reason": reason, "traceback": details, "host": where["host"], "at": time.time()})


# --------------------------------------------------------------------------------------------------------- this machine


def on_this_machine(work: Work, planned: Sequence[Planned], workers: int) -> None:
    """Do the study with `workers` processes of this machine, or (0) in this one.

    A worker whose process dies is replaced; a run that it dies of twice has failed.
    """
    if workers < 0:
        raise InputError(f"--workers is {workers}; it must be 0 (in this process) or more")
    from headstart.engine.device import available_cores

    threads = work.threads or max(1, available_cores() // max(1, workers))
    work = replace(work, threads=threads, bars=workers <= 1)
    if workers == 0:
        worker = Worker(work, planned)
        while True:
            worker.fresh = True
            worker.do_all()
            if worker.fresh:
                return
    _supervise(work, planned, workers)


def _supervise(work: Work, planned: Sequence[Planned], workers: int) -> None:
    devices = _devices(work.device)
    stop = threading.Event()
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {n: signal.signal(n, lambda *_: stop.set()) for n in _signals()}
    alive: dict[subprocess.Popen[bytes], int] = {}
    deaths: Counter[str] = Counter()
    lost = 0
    interrupted = False
    try:
        for slot in range(min(workers, max(1, len(planned)))):
            alive[_start(work, devices[slot % len(devices)])] = slot
        while alive:
            time.sleep(0.1)
            if stop.is_set():
                stop.clear()
                interrupted = True
                _ask_to_stop(alive)
            for process in [p for p in alive if p.poll() is not None]:
                slot, code = alive.pop(process), process.returncode
                if code == Interrupted.exit_code:
                    interrupted = True
                if code in (0, Interrupted.exit_code) or interrupted:
                    continue
                if code != REPLACE_ME:
                    blamed = _blame(work, process.pid, code, deaths)
                    lost = 0 if blamed else lost + 1
                    if lost > DEATHS:
                        raise RunError(f"a worker process of the study ends with code {code} before it begins a run")
                alive[_start(work, devices[slot % len(devices)])] = slot
    finally:
        _ask_to_stop(alive)
        for process in alive:
            process.wait()
        for number, handler in before.items():
            signal.signal(number, handler)
    if interrupted:
        raise Interrupted("stopped after saving; the same command goes on from here")


def _ask_to_stop(processes: Mapping[subprocess.Popen[bytes], int]) -> None:
    for process in processes:
        with contextlib.suppress(OSError):
            process.terminate()


def _start(work: Work, device: str) -> "subprocess.Popen[bytes]":
    told = json.dumps(dataclasses.asdict(replace(work, device=device)))
    # Not multiprocessing's spawn, which imports the caller's main module again.
    return subprocess.Popen([sys.executable, "-m", "headstart.study.executors", told], stdin=subprocess.DEVNULL)


def _devices(device: str) -> list[str]:
    """What the workers take in turns."""
    if device not in ("auto", "cuda"):
        return [device]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = visible.split(",") if visible else list(Path("/proc/driver/nvidia/gpus").glob("*"))
    return [f"cuda:{i}" for i in range(len(found))] if len(found) > 1 and visible != "" else [device]


def _blame(work: Work, pid: int, code: int, deaths: Counter[str]) -> bool:
    """Count a dead worker's run; one that it died of twice has failed. False where it was at none."""
    blamed = False
    for path in (Path(work.out) / "runs").glob("*/.claim"):
        with contextlib.suppress(OSError, ValueError):
            holder = json.loads(path.read_text(encoding="utf-8"))
            if holder["pid"] == pid and holder["host"] == study_store.identity()["host"]:
                blamed = True
                name = path.parent.name
                deaths[name] += 1
                if deaths[name] >= DEATHS:
                    fail(RunFolder(path.parent), f"its process was ended {deaths[name]} times, at last {_ending(code)}")
    return blamed


def _ending(code: int) -> str:
    if code >= 0:
        return f"with exit code {code}"
    name = signal.Signals(-code).name if -code in {s.value for s in signal.Signals} else str(-code)
    return f"by {name}" + ("; is there enough memory?" if name == "SIGKILL" else "")


def _follow_parent(stop_after: float = 1.0) -> None:
    """Ask this process to stop when the one that started it is gone, so that no worker is left behind."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(stop_after)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def main(told: str) -> int:
    """A worker process; returns its exit code."""
    work = Work(**json.loads(told))
    _follow_parent()
    worker = Worker(work, _planned(work.out))
    try:
        worker.do_all()
    except (Interrupted, KeyboardInterrupt):
        return Interrupted.exit_code
    return 0 if worker.fresh else REPLACE_ME


def _planned(out: str) -> list[Planned]:
    return expand(load(Path(out)))


# ------------------------------------------------------------------------------------------------------------------ Ray


def on_ray(work: Work, planned: Sequence[Planned], options: RayOptions) -> None:
    """Do the study on a Ray cluster: one task an autoencoder, one a run; Ray starts lost ones again."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # token authentication would write into the home folder
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise InputError("--executor ray needs Ray; install it with `pip install 'headstart[ray]'`") from None
    from headstart.engine.device import available_cores

    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if options.address is None:  # a cluster of our own, which ends with us; one that was there is left as it is
        settings |= {"num_cpus": available_cores(), "include_dashboard": False}
    # Without `local` Ray would join whatever cluster was last started on this machine, and die with it.
    ray.init(address=options.address or "local", **settings)
    try:
        has_gpu = ray.cluster_resources().get("GPU", 0) > 0 and work.device != "cpu"
        threads = work.threads or max(1, int(options.cpus or 1))
        work = replace(work, threads=threads, bars=False)
        # On this machine a run may ask for more threads than there are cores, as without Ray.
        cpus = options.cpus or (threads if options.address else min(threads, available_cores()))
        resources = {"num_cpus": cpus, "num_gpus": options.gpus if options.gpus is not None else float(has_gpu)}
        _submit(ray, work, planned, resources)
    finally:
        ray.shutdown()


def _submit(ray: Any, work: Work, planned: Sequence[Planned], resources: Mapping[str, float]) -> None:
    task = ray.remote(max_retries=RAY_RETRIES, **resources)(ray_task)
    todo = [run for run in planned if not (Path(work.out) / "runs" / run.name / "result.json").exists()]
    first = {
        digest: task.remote(work, run.name, autoencoder_only=True)
        for digest, run in shared.autoencoders_of(todo).items()
    }
    waiting = {}
    for run in todo:
        # Ray starts a run when its autoencoder is there; until then it takes no place.
        needs = (
            first[shared.autoencoder_hash(run.config, run.point.data)]
            if shared.trains_autoencoder(run.config)
            else None
        )
        waiting[task.remote(work, run.name, after=needs)] = run.name
    stop = threading.Event()
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {n: signal.signal(n, lambda *_: stop.set()) for n in _signals()}
    interrupted = False
    try:
        while waiting:
            if stop.is_set() and not interrupted:
                interrupted = True
                for reference in [*first.values(), *waiting]:
                    ray.cancel(reference)
            ready, _ = ray.wait(list(waiting), timeout=POLL_SECONDS)
            for reference in ready:
                name = waiting.pop(reference)
                try:
                    interrupted |= ray.get(reference) == "interrupted"
                except Exception as error:
                    if interrupted:
                        continue
                    folder = RunFolder(Path(work.out) / "runs" / name)
                    if not folder.is_complete():
                        fail(folder, _in_one_line(error), str(error))
        if interrupted and first:  # let autoencoders in training save before the cluster goes
            ray.wait(list(first.values()), num_returns=len(first), timeout=SAVING_SECONDS)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if interrupted:
        raise Interrupted("stopped after saving; the same command goes on from here")


_ray_worker: dict[Work, Worker] = {}


def ray_task(work: Work, name: str, autoencoder_only: bool = False, after: object = None) -> str:
    """One run, or its autoencoder, in a Ray worker process, which keeps its pictures for the next task."""
    if work not in _ray_worker:
        _ray_worker.clear()
        _ray_worker[work] = Worker(work, _planned(work.out))
    worker = _ray_worker[work]
    (run,) = [run for run in worker.planned if run.name == name]
    try:
        while True:
            worker.check_stop()
            outcome: Outcome = worker.do_autoencoder(run) if autoencoder_only else worker.do(run)
            if outcome in ("done", "failed"):
                return outcome
            time.sleep(POLL_SECONDS)  # claimed elsewhere, or by a node that was lost and is not yet known to be
    except Interrupted:
        return "interrupted"


# ------------------------------------------------------------------------------------------------------------ estimate

CALIBRATION_SECONDS = 2.0
CALIBRATION_PAIRS = 32
"""Pairs of a timed step on a CPU, where time grows with their number; a GPU gets the whole batch."""
PICTURES = {
    "imagenette": 9469,
    "stl10": 5000,
    "cifar10": 50_000,
    "fgvc-aircraft": 6667,
    "cifar100": 50_000,
    "digits": 1797,
}
"""Official training pictures, for a plan made before the data are there."""
SIDES = {"stl10": 96, "cifar10": 32, "cifar100": 32, "digits": 32}


def calibrated_seconds(planned: Sequence[Planned], autoencoders: Sequence[Planned]) -> tuple[float, str]:
    """Seconds that SimCLR and autoencoders take one after another, from a few real steps on random pictures at each
    size, and what was measured. Probes and the reading of pictures come on top."""
    pictures: dict[str, int] = {}
    of_pair: dict[Any, float] = {}
    total = 0.0
    for run, what in [*((run, "simclr") for run in planned), *((run, "autoencoder") for run in autoencoders)]:
        config = run.config
        if run.point.data not in pictures:
            pictures[run.point.data] = _training_pictures(config)
        side = config.data.size if isinstance(config.data.size, int) else SIDES.get(run.point.data, 128)
        batch = config.contrastive.batch_size or 256
        timed = _seconds_of_pair if what == "simclr" else _seconds_of_picture
        kind = (batch, config.contrastive.passes) if what == "simclr" else config.autoencoder.kind
        about = (timed, kind, side, config.backbone, config.precision, config.threads, config.device)
        if about not in of_pair:
            of_pair[about] = timed(config, side, batch)
        epochs = config.contrastive.epochs if what == "simclr" else config.autoencoder.epochs
        limit = config.data.limit or pictures[run.point.data]
        total += epochs * min(limit, pictures[run.point.data]) * of_pair[about]
    return total, f"{len(of_pair)} kinds of step, timed here; probes come on top"


def _training_pictures(config: "Config") -> int:
    from headstart.data import catalog

    name = config.data.sources[0]
    if name in PICTURES:
        return round(PICTURES[name] * (0.7 if name == "digits" else 0.9))
    source = catalog.find(config.data)
    official = int((source.official == "train").sum())
    return round(official * 0.9) if official else round(len(source.names) * 0.7)


def _timed(step: Any, device: Any) -> float:
    """Seconds of one call, after one that does not count."""
    import torch

    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    step()
    synchronize()
    started, count = time.perf_counter(), 0
    while count < 1 or (time.perf_counter() - started < CALIBRATION_SECONDS and count < 10):
        step()
        synchronize()
        count += 1
    return (time.perf_counter() - started) / count


def _seconds_of_pair(config: "Config", side: int, batch_size: int) -> float:
    import torch

    from headstart import backbones
    from headstart.engine import live_taps
    from headstart.engine.device import choose
    from headstart.heads import ProjectionHead
    from headstart.training import contrastive

    compute = choose(config.device, config.precision, config.threads)
    pairs = min(batch_size, CALIBRATION_PAIRS) if compute.device.type == "cpu" else batch_size
    config = replace(
        config, data=replace(config.data, size=side), contrastive=replace(config.contrastive, batch_size=pairs, lr=1e-3)
    )
    backbone = backbones.build(config.backbone.name, stem=config.backbone.stem, size=side)
    live_taps.apply(backbone, side)
    head = ProjectionHead(backbone.num_features, config.head.hidden_dim, config.head.output_dim)  # type: ignore[arg-type]
    model = contrastive.SimCLR(backbone, head, config.contrastive.passes)
    model = model.to(compute.device).to(memory_format=torch.channels_last).train()
    augment = contrastive.augmenter(config.augment, side, None, None).to(compute.device)
    generator = torch.Generator().manual_seed(0)
    draws = augment.draw(2 * pairs, side, side, generator=generator)
    frames = torch.randint(0, 256, (pairs, 3, side, side), dtype=torch.uint8, generator=generator).to(compute.device)
    stepper = contrastive.Stepper(model, augment, config, compute)
    batch = contrastive.Batch(torch.arange(pairs), frames, draws)
    return _timed(lambda: stepper(batch, 1e-3, (0, 0)), compute.device) / pairs


def _seconds_of_picture(config: "Config", side: int, batch_size: int) -> float:
    import torch

    from headstart import backbones
    from headstart.engine.device import choose
    from headstart.training import autoencoder as autoencoders

    compute = choose(config.device, config.precision, config.threads)
    # The batch of SimCLR has no part in this one.
    n, width = config.autoencoder.batch_size, backbones.num_features(config.backbone.name)
    values = width if config.autoencoder.on == "features" else 3 * side * side
    model = autoencoders.build(
        config.autoencoder, values, width, config.head.hidden_dim, torch.Generator().manual_seed(0)
    ).to(compute.device)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    x = torch.rand(n, values, device=compute.device)

    def step() -> None:
        optimizer.zero_grad()
        with compute.autocast():
            loss = model.loss(x, torch.Generator().manual_seed(0))
        loss.backward()
        optimizer.step()

    return _timed(step, compute.device) / n


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
