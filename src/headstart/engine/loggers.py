"""The lines of metrics.jsonl, also shown in TensorBoard, MLflow or W&B (extra `loggers`), all on this machine.

Lines go out when they have been written to metrics.jsonl, so a resumed run does not repeat any. Runs of one study are
grouped, and what is written lies in STUDY/loggers/ (of a single run: RUN/loggers/). Nothing is sent over the network.
"""

import contextlib
import importlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from headstart.records.errors import InputError
from headstart.records.files import last_name
from headstart.records.folder import Metrics
from headstart.records.names import LOGGERS

Line = Mapping[str, Any]

PACKAGES = ("tensorboard", "mlflow", "wandb")
"""Loggers that are called as the package each of them needs."""
UNSENT = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "WANDB_ERROR_REPORTING": "false"}
"""Keeps them from looking up a host, W&B even where a run is offline; to be set before they are imported."""


class Logger(Protocol):
    """One destination."""

    def send(self, lines: Sequence[Line]) -> None:
        """Show these lines, which no earlier call had."""

    def close(self, finished: bool) -> None:
        """No more lines come for now; `finished` is False where the run stopped or failed."""


def check(names: Sequence[str], folder: Path | None = None) -> None:
    """Raise InputError for a logger whose package is not installed, or that cannot write for the run in `folder`."""
    for name in names:
        if name in PACKAGES:
            _package(name)
    if "mlflow" in names and folder is not None and "?" in str(root := _root(folder.absolute())):
        raise InputError(f"mlflow takes the ? in {root} for the end of its store's path; give another --out")


def _root(folder: Path) -> Path:
    """The study's folder of a run of a study, else the run's own."""
    in_study = folder.parent.name == "runs" and (folder.parent.parent / "study.yaml").exists()
    return folder.parent.parent if in_study else folder


@contextlib.contextmanager
def attached(metrics: Metrics, names: Sequence[str], folder: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """For the time of the context, what `metrics` writes goes to the loggers `names` as well.

    Args:
        folder: the run folder; its name is the run's, and its study's folder the group's.
        settings: the run's settings by dotted name.

    Raises InputError as `check` does.
    """
    check(names, folder)
    folder = folder.absolute()
    root = _root(folder)
    group, run = last_name(root), last_name(folder)
    loggers: list[Logger] = []
    # Known by what they are, not by their number: a stage that begins again forgets lines.
    sent: dict[int, Line] = {id(line): line for line in metrics.lines}

    def send(lines: Sequence[Line]) -> None:
        new = [line for line in lines if id(line) not in sent]
        sent.update((id(line), line) for line in new)
        for logger in loggers if new else []:
            logger.send(new)

    def close(logger: Logger) -> None:
        logger.close(finished)

    finished = False
    with contextlib.ExitStack() as opened:
        for name in names:
            logger: Logger = LOGGERS[name].made()(root / "loggers", group, run, settings)
            opened.callback(close, logger)
            loggers.append(logger)
        if loggers:
            metrics.listeners.append(send)
            opened.callback(metrics.listeners.remove, send)
        yield
        finished = True


def figures_of(line: Line) -> tuple[int, dict[str, float]]:
    """A line's step, and its numbers as `stage/name`."""
    stage = line.get("stage", "run")
    numbers = {
        f"{stage}/{name}": float(value)
        for name, value in line.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and name != "step"
    }
    return int(line.get("step") or line.get("epoch") or 0), numbers


def _package(name: str) -> Any:
    for variable, value in UNSENT.items():
        os.environ.setdefault(variable, value)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"loggers: {name} cannot be imported ({error}); install it with `pip install 'headstart[{name}]'`"
        ) from None


class TensorBoard:
    """loggers/tensorboard/RUN/: event files."""

    def __init__(self, root: Path, group: str, run: str, settings: Mapping[str, Any]) -> None:
        self.writer = _package("torch.utils.tensorboard").SummaryWriter(root / "tensorboard" / run)
        self.writer.add_text("settings", "\n".join(f"    {name}: {value}" for name, value in settings.items()))

    def send(self, lines: Sequence[Line]) -> None:
        """See `Logger`."""
        for line in lines:
            step, numbers = figures_of(line)
            for name, value in numbers.items():
                self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self, finished: bool) -> None:
        """See `Logger`."""
        self.writer.close()


class MLflow:
    """loggers/mlflow.db: one experiment a study; a resumed run goes on in its own."""

    def __init__(self, root: Path, group: str, run: str, settings: Mapping[str, Any]) -> None:
        self.entities = _package("mlflow.entities")
        root.mkdir(parents=True, exist_ok=True)
        with _alone(root / ".mlflow.lock"):  # the first one makes the tables
            self.client = _package("mlflow").MlflowClient(tracking_uri=f"sqlite:///{root / 'mlflow.db'}")
            experiment = self.client.get_experiment_by_name(group)
            number = (
                experiment.experiment_id
                if experiment
                else self.client.create_experiment(group, artifact_location=(root / "mlflow-artifacts").as_uri())
            )
        quote = '"' if "'" in run else "'"
        tag = f"tags.`headstart.run` = {quote}{run}{quote}"
        before = self.client.search_runs([number], tag, max_results=1)
        if before:
            self.run = before[0].info.run_id
            self.client.update_run(self.run, status="RUNNING")
            return
        self.run = self.client.create_run(number, run_name=run, tags={"headstart.run": run}).info.run_id
        params = [self.entities.Param(name, str(value)[:500]) for name, value in settings.items()]
        for first in range(0, len(params), 100):  # as many as one call may hold
            self.client.log_batch(self.run, params=params[first : first + 100])

    def send(self, lines: Sequence[Line]) -> None:
        """See `Logger`."""
        now = int(1000 * time.time())
        metrics = [
            self.entities.Metric(name, value, now, step)
            for step, numbers in map(figures_of, lines)
            for name, value in numbers.items()
        ]
        for first in range(0, len(metrics), 1000):
            self.client.log_batch(self.run, metrics=metrics[first : first + 1000])

    def close(self, finished: bool) -> None:
        """See `Logger`."""
        self.client.set_terminated(self.run, "FINISHED" if finished else "KILLED")


class WandB:
    """loggers/wandb/: offline runs, which `wandb sync` uploads if one wants; grouped by study."""

    def __init__(self, root: Path, group: str, run: str, settings: Mapping[str, Any]) -> None:
        wandb = _package("wandb")
        root.mkdir(parents=True, exist_ok=True)
        options = wandb.Settings(silent=True, console="off", x_disable_stats=True, x_disable_meta=True)
        self.run = wandb.init(
            mode="offline",
            project="headstart",
            group=group,
            name=run,
            dir=str(root),
            config=dict(settings),
            settings=options,
            reinit="create_new",
        )

    def send(self, lines: Sequence[Line]) -> None:
        """See `Logger`."""
        for line in lines:
            step, numbers = figures_of(line)
            stage = line.get("stage", "run")
            # W&B's own step must only ever grow, and each stage begins at 0 again.
            self.run.log({**numbers, f"{stage}/step": step})

    def close(self, finished: bool) -> None:
        """See `Logger`."""
        self.run.finish(exit_code=0 if finished else 1)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time; without locks (Windows), all at once."""
    with open(path, "ab") as file:
        with contextlib.suppress(ImportError, OSError):
            import fcntl  # noqa: PLC0415 - not on Windows

            fcntl.flock(file, fcntl.LOCK_EX)
        yield
