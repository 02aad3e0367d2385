"""A study on Ray: the same results, lost workers, and a cluster that nobody else can reach."""

import errno
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headstart import study
from headstart.engine.cluster import WAITS, cluster
from headstart.engine.stopping import interrupted_by_signals, stop_on_signals, stop_requested
from headstart.records import files
from headstart.records.claim import Claim
from headstart.records.errors import InputError, Interrupted, RunError
from headstart.study import RayOptions
from headstart.study import ray as on_ray
from tests.study.tiny import assert_same, half_done, results, sprung, start, wait_for, written

NEEDS_RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra ray")


@NEEDS_RAY
def test_ray_does_the_same_survives_a_killed_worker_and_tells_failures(
    tmp_path: Path, uninterrupted: dict[str, Any]
) -> None:
    """One cluster for three claims: same results; a killed worker's run is retried and resumes; a run that fails
    every time ends as failed with its reason and the study exits 1."""
    factors = {"head.init": ["random", "autoencoder"], "contrastive.temperature": [0.5, 1e-30]}
    exclude = [
        {"contrastive.temperature": 1e-30, "head.init": "autoencoder"},
        {"contrastive.temperature": 1e-30, "seed": 1},
    ]
    out = tmp_path / "out"
    process = start(written(tmp_path, factors=factors, exclude=exclude), out, executor="ray", quiet=True)
    (holder, *_) = wait_for(lambda: [held for p in half_done(out) if (held := Claim(p.parent).holder())])
    os.kill(holder["pid"], signal.SIGKILL)
    assert process.wait(1800) == 1
    status = study.status(out)
    ((name, reason),) = status.failed
    assert "1e-30" in name
    assert "finite" in reason
    done = {name.replace(",temperature=0.5", ""): found for name, found in results(out).items()}
    assert done.keys() == uninterrupted.keys()
    for name, (result, lines, weights) in done.items():
        wanted = uninterrupted[name]
        assert (lines, weights) == wanted[1:], name
        assert {k: v for k, v in result.items() if k != "config_hash"} == {
            k: v for k, v in wanted[0].items() if k != "config_hash"
        }
    assert sprung(out) == "", "a worker imports from the folder in which the command was given"


@NEEDS_RAY
@pytest.mark.soak
def test_smoke_is_identical_run_by_run_with_both_executors(tmp_path: Path) -> None:
    options = {"threads": 1, "quiet": True}
    assert start("smoke", tmp_path / "local", workers=2, **options).wait(3600) == 0
    assert start("smoke", tmp_path / "ray", executor="ray", **options).wait(3600) == 0
    assert sum(name.startswith("data=") for name in results(tmp_path / "local")) == 16
    assert_same(results(tmp_path / "ray"), results(tmp_path / "local"))


CLUSTER = """
import json, os, subprocess, sys
from headstart.study import RayOptions
from headstart.engine.stopping import interrupted_by_signals, stop_on_signals, stop_requested
from headstart.engine.cluster import cluster
with cluster(RayOptions()) as ray:
    ray.get(ray.remote(lambda: None).remote())
    print(json.dumps({
        "ports": subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True).stdout,
        "parents": subprocess.run(["ps", "-Ao", "pid=,ppid="], capture_output=True, text=True).stdout,
        "me": os.getpid(),
        "address": ray.get_runtime_context().gcs_address,
    }))
"""


@NEEDS_RAY
@pytest.mark.skipif(not (shutil.which("ss") and shutil.which("ps")), reason="needs ss and ps")
def test_a_cluster_of_our_own_listens_on_the_loopback_address_alone_and_wants_a_token(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {"HOME": str(tmp_path)}
    command = [sys.executable, "-P", "-c", CLUSTER]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    pairs = (line.split() for line in told["parents"].splitlines())
    parent = {int(child): int(above) for child, above in pairs}

    def is_ours(pid: int) -> bool:
        return pid == told["me"] or (pid in parent and is_ours(parent[pid]))

    listening = [
        line.split()[3]
        for line in told["ports"].splitlines()
        if any(is_ours(int(pid)) for pid in re.findall(r"pid=(\d+)", line))
    ]
    assert len(listening) >= 3  # of Ray's processes, so that we know that we look at them
    assert [a for a in listening if not a.startswith(("127.", "[::1]", "[::ffff:127."))] == []
    assert not (tmp_path / ".ray").exists(), "a token was kept in the home folder"


@NEEDS_RAY
def test_a_cluster_that_was_named_is_joined_as_its_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing about where it listens or who may join is ours to say."""
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=lambda **_: None, shutdown=lambda: None))
    with cluster(RayOptions(address="10.0.0.1:6379")):
        assert {name for name in os.environ if name.startswith("RAY_")} == {"RAY_USAGE_STATS_ENABLED"}


@pytest.fixture
def own_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a cluster sets in the environment is as it was afterwards."""
    names = ["USAGE_STATS_ENABLED", "ENABLE_WINDOWS_OR_OSX_CLUSTER", "AUTH_MODE", "AUTH_TOKEN", *WAITS]
    for name in names:
        monkeypatch.setenv(f"RAY_{name}", "0")


@pytest.mark.usefixtures("own_variables")
@pytest.mark.parametrize("slow", [0, 2, 9])
@pytest.mark.parametrize("words", ["The current node timed out during startup", "Timed out waiting for file port_1"])
def test_a_busy_machine_may_need_several_tries_to_start_a_cluster(
    words: str, slow: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def init(**_: object) -> None:
        asked.append(1)
        if len(asked) <= slow:
            raise RuntimeError(words)

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init, shutdown=lambda: None))
    with pytest.raises(RunError, match="did not start") if slow == 9 else nullcontext(), cluster(RayOptions()):
        assert len(asked) == slow + 1


def test_whoever_starts_ray_keeps_their_own_way_to_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray sets a handler of SIGTERM that ends the process: a study would not save its runs and not end with 75."""

    def init(**_: object) -> None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init, shutdown=lambda: None))
    with pytest.raises(Interrupted), interrupted_by_signals("stopped"), cluster(RayOptions(address="10.0.0.1:6379")):
        signal.raise_signal(signal.SIGTERM)
    before = signal.getsignal(signal.SIGTERM)
    with cluster(RayOptions(address="10.0.0.1:6379")), stop_on_signals():
        signal.raise_signal(signal.SIGTERM)
        assert stop_requested()
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.usefixtures("own_variables")
@pytest.mark.parametrize("patience", [60, 0])
def test_a_node_that_is_slow_to_start_is_waited_for(patience: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own function for it is asked again, and is as it was afterwards."""
    asked: list[tuple[str, str]] = []

    def get_node(address: str, node: str) -> str:
        asked.append((address, node))
        if len(asked) < 4:
            raise RuntimeError("no such node yet")
        return "there"

    services = SimpleNamespace(get_node=get_node)
    ray = SimpleNamespace(init=lambda **_: services.get_node("address", "node"), shutdown=lambda: None)
    monkeypatch.setattr("headstart.engine.cluster.PATIENCE", patience)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray._private.services", services)
    with nullcontext() if patience else pytest.raises(RuntimeError, match="no such node"), cluster(RayOptions()):
        assert asked == [("address", "node")] * 4
    assert services.get_node is get_node


class Given:
    """What Ray hands out for a task."""

    def __init__(self, outcome: str) -> None:
        self.outcome = outcome


class Eager:
    """Ray's calls, in this process: a task is done when it is asked for."""

    def remote(self, **_: Any) -> Callable[[Callable[..., str]], SimpleNamespace]:
        return lambda task: SimpleNamespace(remote=lambda *a, **named: Given(task(*a, **named)))

    def wait(self, waiting: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        return waiting, []

    def get(self, reference: Given) -> str:
        return reference.outcome

    def cancel(self, reference: Given) -> None:
        pass

    def cluster_resources(self) -> dict[str, float]:
        return {}


def test_a_full_disk_stops_a_study_on_ray_and_fails_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        if Path(target).name == "head.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device")
        os.replace(source, target)

    file, out = written(tmp_path, seeds=[0], factors={"head.init": ["random", "orthogonal"]}), tmp_path / "out"
    monkeypatch.setattr(on_ray, "cluster", lambda _: nullcontext(Eager()))
    monkeypatch.setattr(on_ray, "_workers", {})
    with monkeypatch.context() as disk:
        disk.setattr(files, "os", SimpleNamespace(**{name: getattr(os, name) for name in dir(os)} | {"replace": full}))
        with pytest.raises(RunError, match=r"No space left.*goes on when there is room"):
            study.run(file, out, executor="ray", quiet=True)
    assert not list(out.glob("runs/*/failed.json"))
    assert study.run(file, out, executor="ray", quiet=True).done == 2  # room was made


class TaskError(Exception):
    """What Ray raises of a task that raised, or that waited for one that did."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(f"ray::ray_task() (pid=7)\n{cause}")
        self.cause = cause


class Wrapping(Eager):
    """The same, where tasks may raise."""

    def remote(self, **_: Any) -> Callable[[Callable[..., str]], SimpleNamespace]:
        def given(task: Callable[..., str], *args: Any, **named: Any) -> Any:
            try:
                return Given(task(*args, **named | {"after": self.get(named.get("after", Given("")))}))
            except Exception as error:
                return TaskError(error)

        return lambda task: SimpleNamespace(remote=lambda *a, **named: given(task, *a, **named))

    def get(self, reference: Any) -> str:
        if isinstance(reference, TaskError):
            raise reference
        return super().get(reference or Given(""))


def test_a_failed_autoencoder_is_told_in_its_own_words_and_not_trained_for_runs_that_are_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def gone(_: object, run: study.Planned) -> str:
        asked.append(run.name)
        raise InputError("the pictures are gone")

    file, out = written(tmp_path, factors={"head.init": ["autoencoder"]}), tmp_path / "out"
    monkeypatch.setattr(on_ray, "cluster", lambda _: nullcontext(Wrapping()))
    monkeypatch.setattr(on_ray, "_workers", {})
    monkeypatch.setattr("headstart.study.worker.Worker.do_autoencoder", gone)
    assert study.run(file, out, executor="ray", quiet=True).failed == 2
    told = [files.read_json(path) for path in out.glob("runs/*/failed.json")]
    assert [one["reason"] for one in told] == ["the pictures are gone"] * 2
    assert len(asked) == 2
    study.run(file, out, executor="ray", quiet=True)
    assert len(asked) == 2, "runs that have failed are left alone"
    study.run(file, out, executor="ray", quiet=True, retry_failed=True)
    assert len(asked) == 4
