"""Runs in forked children that are killed or denied the disk at a chosen moment.

A fork costs milliseconds where a new interpreter costs seconds of imports, so that every single write of a run can be
tried. Children leave by os._exit, so nothing of pytest runs twice.
"""

import errno
import os
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

from headstart.records import files
from headstart.records import folder as runs
from headstart.records.config import Config
from headstart.records.folder import RunFolder
from headstart.training import run as pretraining

FILES = ("autoencoder", "head", "backbone")


def fork(action: Callable[[], None]) -> int:
    """Start a child that does `action`; returns its process number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        action()
        code = 0
    except BaseException:
        if os.environ.get("HEADSTART_SOAK_VERBOSE"):
            traceback.print_exc()
    finally:
        os._exit(code)


def wait(child: int, limit: float = 600.0) -> int:
    """The child's exit code, minus the signal that ended it; a child that hangs fails the test."""
    until = time.monotonic() + limit
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError(f"a run hung for {limit} s")


def go(config: Config, out: Path) -> Callable[[], None]:
    """A run of `config`, or going on with it."""

    def run() -> None:
        pretraining.run(config, out, quiet=True)

    return run


class Writes:
    """The system calls through which `files.write` reaches the disk, counted; the one numbered `fault` misbehaves.

    kind: `kill` ends the process there as SIGKILL does; `full` says that the disk is full.
    """

    def __init__(self, fault: int = -1, kind: str = "kill") -> None:
        self.count, self.fault, self.kind = 0, fault, kind
        names = {name: getattr(os, name) for name in dir(os)}
        names["fsync"], names["replace"] = self._guard(os.fsync), self._guard(os.replace)
        self.os = SimpleNamespace(**names)

    def _guard(self, call: Callable[..., object]) -> Callable[..., object]:
        def guarded(*arguments: object) -> object:
            self.count += 1
            if self.count == self.fault:
                if self.kind == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise OSError(errno.ENOSPC, "No space left on device")
            return call(*arguments)

        return guarded

    def install(self) -> None:
        """Make every write of this process go through the counters."""
        files.os = self.os  # type: ignore[attr-defined,assignment]


def count_writes(config: Config, out: Path) -> int:
    """System calls of an undisturbed run."""
    told = out.with_suffix(".count")

    def counted() -> None:
        writes = Writes()
        writes.install()
        go(config, out)()
        told.write_text(str(writes.count))

    assert wait(fork(counted)) == 0
    return int(told.read_text())


def faulty(config: Config, out: Path, fault: int, kind: str) -> Callable[[], None]:
    """A run whose system call number `fault` misbehaves."""

    def action() -> None:
        Writes(fault, kind).install()
        go(config, out)()

    return action


def same(one: RunFolder, other: RunFolder) -> None:
    """Both finished with the same bytes and the same results."""
    for name in FILES:
        assert getattr(one, name).read_bytes() == getattr(other, name).read_bytes(), name
    for key in ("probes", "untrained", "autoencoder", "contrastive", "geometry", "config_hash"):
        assert one.read_result()[key] == other.read_result()[key], key
    assert timeless(one) == timeless(other)


def timeless(run: RunFolder) -> list[dict[str, object]]:
    """The metrics without what a clock measured."""
    times = {"pairs_per_s", "pictures_per_s", "data_wait", "seconds"}
    return [{k: v for k, v in line.items() if k not in times} for line in runs.read_metrics(run.metrics)]


def intact(run: RunFolder) -> None:
    """Whatever stands in the folder under its final name can be read."""
    from headstart.data.splits import Splits
    from headstart.engine.importers import read_tensors
    from headstart.records.config import load

    for name in FILES:
        if getattr(run, name).exists():
            read_tensors(getattr(run, name))
    if run.result.exists():
        run.read_result()
    if run.config.exists():
        load(run.config)
    if run.splits.exists():
        Splits.load(run.splits, 1797)
    runs.read_metrics(run.metrics)
