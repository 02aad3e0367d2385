"""One process of a study: it walks along the planned runs, claims one that nobody has done or claimed, and does it.

So any number of processes, jobs and machines may work on one study folder, and none of them needs to know the others.
`local.py` starts them on this machine (`process.py`), `ray.py` on a cluster.
"""

import errno
import json
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from headstart import backbones
from headstart.data import Images
from headstart.data.splits import Splits
from headstart.engine.progress import duration, say
from headstart.engine.signals import is_stop
from headstart.engine.stopping import give_way, interrupted_by_signals, stop_on_signals, stop_requested
from headstart.records import files, schema
from headstart.records.claim import Claim, identity
from headstart.records.config import Config
from headstart.records.errors import HeadstartError, Interrupted, RunError
from headstart.records.folder import RunFolder
from headstart.study import shared
from headstart.study import store as study_store
from headstart.study.file import Planned, expand, load
from headstart.study.opening import Opened
from headstart.study.shared import Work
from headstart.training import run as pretraining
from headstart.training.result import of_before

Outcome = Literal["done", "failed", "claimed", "waiting"]
"""Of one look at a run: finished; failed; another process has it; its autoencoder is being trained by another."""

POLL_SECONDS = 0.5
REPLACE_ME = 64
"""Exit code of a worker that did its duty but should not do another run: an unexpected error may have left a broken
device or little memory behind."""

STOPPED = "stopped; the same command goes on from here"
GIVE_UP = 73
"""Exit code of a worker that met, and said, what would be in the way of every run."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def planned_by(work: Work) -> list[Planned]:
    """The runs of the study that a worker was told of."""
    return expand(load(Path(work.out), plugin=work.plugins))


class Worker:
    """One process's view of a study, with what its runs share: decoded pictures and splits."""

    def __init__(self, work: Work, planned: Sequence[Planned]) -> None:
        self.work, self.planned = work, planned
        self.out = Path(work.out)
        self.fresh = True
        self._renewed: dict[str, float] = {}
        self._opened = Opened()

    @property
    def deadline(self) -> float | None:
        """As `time.monotonic()` counts."""
        return None if self.work.deadline is None else time.monotonic() + self.work.deadline - time.time()

    def check_stop(self) -> None:
        """Raises Interrupted when asked to stop."""
        if stop_requested() or (self.work.deadline is not None and time.time() >= self.work.deadline):
            raise Interrupted(STOPPED)

    def do_all(self) -> bool:
        """Do every run that nobody else does, until none is left for this process.

        False when an unexpected error came between: a new process should do the others.
        """
        left = list(self.planned)
        with stop_on_signals():
            while left:
                outcomes = self._walk(left)
                if not self.fresh:
                    return False
                if {"done", "failed"} & set(outcomes):
                    continue
                if "waiting" not in outcomes and not any(self._may_be_dead(run) for run in left):
                    break
                time.sleep(POLL_SECONDS)
        return True

    def _walk(self, left: list[Planned]) -> list[Outcome]:
        """Look at each run once; those that are over leave the list."""
        outcomes: list[Outcome] = []
        for run in list(left):
            self.check_stop()
            outcomes.append(self.do(run))
            if outcomes[-1] in ("done", "failed"):
                left.remove(run)
            if not self.fresh:
                break
        return outcomes

    def _may_be_dead(self, run: Planned) -> bool:
        """Whether a run's holder, on another machine, has not been heard of since this was first asked.

        It may have lost its power a moment ago; a run is left to somebody who is seen to live.
        """
        renewed = Claim(self.out / "runs" / run.name).renewed()
        return renewed is not None and self._renewed.setdefault(run.name, renewed) == renewed

    # ------------------------------------------------------------------------------------------------------ one run

    def do(self, run: Planned) -> Outcome:
        """Do one run, unless it is done, has failed, or is somebody else's."""
        folder = RunFolder(self.out / "runs" / run.name)
        if folder.is_reported():
            self._tidy(folder)
            return "done"
        if folder.failed.exists():
            return "failed"
        config = self._here(run.config)
        epochs = {"autoencoder": config.autoencoder.epochs, "contrastive": config.contrastive.epochs}
        with Claim(folder.path).held(give_way, epochs=epochs) as mine:
            if not mine:
                return "claimed"
            if folder.is_over():
                return self.do(run)
            return self._attempt(folder, lambda: self._run(run, config, folder))

    def _here(self, config: Config) -> Config:
        return replace(config, threads=self.work.threads, device=self.work.device)

    def _attempt(self, folder: RunFolder, do: Callable[[], Outcome]) -> Outcome:
        """Call `do`, and turn whatever goes wrong into failed.json."""
        try:
            return do()
        except (Interrupted, KeyboardInterrupt):
            raise
        except HeadstartError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in NO_ROOM:
                raise  # no other run could write either, and none of them is to blame
            fail(folder, str(error))
        except Exception as error:
            if is_stop(error):
                raise Interrupted(STOPPED) from error
            fail(folder, in_one_line(error), traceback.format_exc())
            self.fresh = False
        return "failed"

    def _run(self, run: Planned, config: Config, folder: RunFolder) -> Outcome:
        images, split = self._open(config)
        if shared.trains_autoencoder(config) and not folder.stages.exists():
            digest = shared.autoencoder_hash(config, images.fingerprint)
            trained = self._autoencoder_folder(run, config, digest)
            outcome = self._autoencoder(trained, config, digest)
            if outcome == "failed":
                why = files.read_json(trained.failed, schema.FAILED).get("reason", "")
                raise RunError(f"its autoencoder failed: {why}")
            if outcome != "done":
                return "waiting"
            study_store.hand_over_autoencoder(study_store.autoencoder_file(self.out, digest), trained, folder)
        key = shared.before_hash(config, images.fingerprint, backbones.given_as(config.backbone.weights))
        started = time.monotonic()
        self._say(f"begun: {self._place(run)}")
        self._train(config, folder, images, split, before=study_store.read_before(self.out, key))
        result = folder.read_result()
        study_store.write_before(self.out, key, of_before(result))
        self._tidy(folder)
        self._say(f"done: {self._place(run)} in {duration(time.monotonic() - started)}{_accuracy(result)}")
        return "done"

    def _open(self, config: Config) -> tuple[Images, Splits]:
        with interrupted_by_signals(STOPPED):
            return self._opened.of(config)

    def _place(self, run: Planned) -> str:
        return f"run {self.planned.index(run) + 1} of {len(self.planned)}, {run.name}"

    def _train(self, config: Config, folder: RunFolder, images: Images, split: Splits, **more: Any) -> None:
        pretraining.run(
            config,
            folder.path,
            images=images,
            splits=split,
            deadline=self.deadline,
            claimed=True,
            sharers=self.work.sharers,
            quiet=self.work.quiet or not self.work.bars,
            **more,
        )

    # ----------------------------------------------------------------------------------------------- its autoencoder

    def do_autoencoder(self, run: Planned) -> Outcome:
        """Train the autoencoder of a run, unless it is done, has failed, or is somebody else's."""
        config = self._here(run.config)
        images, _ = self._open(config)
        digest = shared.autoencoder_hash(config, images.fingerprint)
        return self._autoencoder(self._autoencoder_folder(run, config, digest), config, digest)

    def _autoencoder_folder(self, run: Planned, config: Config, digest: str) -> RunFolder:
        return RunFolder(self.out / "runs" / shared.autoencoder_name(config, run.point.data, digest))

    def _autoencoder(self, folder: RunFolder, config: Config, digest: str) -> Outcome:
        """Train the autoencoder that a run needs, unless it is in the store."""
        stored = study_store.autoencoder_file(self.out, digest)
        if stored.exists() and folder.is_reported():
            return "done"
        if folder.failed.exists():
            return "failed"
        with Claim(folder.path).held(give_way, epochs={"autoencoder": config.autoencoder.epochs}) as mine:
            if not mine:
                return "claimed"
            if (stored.exists() and folder.is_reported()) or folder.failed.exists():
                return self._autoencoder(folder, config, digest)
            return self._attempt(folder, lambda: self._train_autoencoder(folder, config, stored))

    def _train_autoencoder(self, folder: RunFolder, config: Config, stored: Path) -> Outcome:
        if not (folder.is_reported() and folder.autoencoder.exists()):
            images, split = self._open(config)
            self._train(shared.autoencoder_config(config), folder, images, split, overwrite=folder.is_complete())
        study_store.link(folder.autoencoder, stored)
        self._tidy(folder)
        self._say(f"done: {folder.path.name}")
        return "done"

    def _tidy(self, folder: RunFolder) -> None:
        """With `keep records`, leave a finished run's results and metrics alone."""
        if self.work.keep == "records":
            for path in (*folder.weights, *folder.checkpoints):
                path.unlink(missing_ok=True)

    def _say(self, text: str) -> None:
        if not self.work.quiet:
            say(text)


# --------------------------------------------------------------------------------------------------------- failing


def fail(folder: RunFolder, reason: str, details: str = "") -> None:
    """Record why a run failed; it is left alone from then on."""
    say(f"failed: {folder.path.name}: {reason}")
    where = identity()
    files.write_json(folder.failed, {"reason": reason, "traceback": details, "host": where["host"], "at": time.time()})


def in_one_line(error: Exception) -> str:
    """An unexpected error as a reason."""
    return f"{type(error).__name__}: {str(error).strip() or 'no message'}".splitlines()[0]


def _accuracy(result: Mapping[str, Any]) -> str:
    found = [f"{name} {probe['accuracy']:.1%}" for name, probe in result["probes"].items() if "accuracy" in probe]
    return f": {', '.join(found[:2])}" if found else ""


# ---------------------------------------------------------------------------------------------------- as a process


def main(told: str) -> int:
    """A worker process; returns its exit code."""
    values = json.loads(told)
    work = Work(**values | {"plugins": tuple(values["plugins"])})
    try:
        return 0 if Worker(work, planned_by(work)).do_all() else REPLACE_ME
    except (Interrupted, KeyboardInterrupt):
        return Interrupted.exit_code
    except (HeadstartError, OSError) as error:  # a run's own end in its failed.json: the claims of all are in the way
        say(str(error))
        return GIVE_UP
