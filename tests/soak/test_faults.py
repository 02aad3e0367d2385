"""Kills and full disks at every moment of a run; `make soak` tries all of them, `make test` a sample."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from headstart.records.config import Config
from headstart.records.folder import RunFolder
from tests.runs import small
from tests.soak.faults import count_writes, faulty, fork, go, intact, same, wait

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def tiny() -> Config:
    """All stages in about a second, saving after every step."""
    config = small(
        data={"limit": 64},
        autoencoder={"epochs": 2, "batch_size": 32},
        contrastive={"epochs": 2, "batch_size": 16},
        checkpoint={"minutes": 0.0},
    )
    return replace(config, backbone=replace(config.backbone, name="mobilenet_v3_small"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, float, int]:
    """The reference run, the seconds it took, and how many system calls wrote it."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    calls = count_writes(tiny(), out)
    again = out.with_name("timed")
    began = time.monotonic()
    assert wait(fork(go(tiny(), again))) == 0
    return RunFolder(out), time.monotonic() - began, calls


def kill_at_random(reference: RunFolder, seconds: float, tmp_path: Path, times: int) -> None:
    """Kill a run `times` times, each time at another moment of what is left to do, then let it finish."""
    dice = random.Random(0)
    kills, run = 0, 0
    while kills < times:
        out = tmp_path / f"run{run}"
        run += 1
        while not RunFolder(out).is_complete():
            child = fork(go(tiny(), out))
            if kills < times:
                time.sleep(dice.random() * seconds)
                if not os.waitpid(child, os.WNOHANG)[0]:
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
                    kills += 1
                    intact(RunFolder(out))
            else:
                assert wait(child) == 0
        same(RunFolder(out), reference)
    print(f"\nkill and resume: {kills} kills in {run} runs, {run} of {run} byte-identical")


def test_kill_and_resume(undisturbed: tuple[RunFolder, float, int], tmp_path: Path) -> None:
    reference, seconds, _ = undisturbed
    kill_at_random(reference, seconds, tmp_path, 4)


@pytest.mark.soak
def test_kill_and_resume_fifty_times(undisturbed: tuple[RunFolder, float, int], tmp_path: Path) -> None:
    reference, seconds, _ = undisturbed
    kill_at_random(reference, seconds, tmp_path, 50)


def one_fault(reference: RunFolder, out: Path, fault: int, kind: str) -> None:
    """Let one system call misbehave, look at what is left, and go on."""
    code = wait(fork(faulty(tiny(), out, fault, kind)))
    assert code == (-signal.SIGKILL if kind == "kill" else 1), f"system call {fault}, {kind}: exit {code}"
    intact(RunFolder(out))
    if not RunFolder(out).is_complete():
        assert wait(fork(go(tiny(), out))) == 0, f"no restart after system call {fault}, {kind}"
    same(RunFolder(out), reference)


@pytest.mark.parametrize("kind", ["kill", "full"])
def test_some_writes(undisturbed: tuple[RunFolder, float, int], tmp_path: Path, kind: str) -> None:
    reference, _, calls = undisturbed
    for fault in random.Random(kind).sample(range(1, calls + 1), 3):
        one_fault(reference, tmp_path / f"{kind}{fault}", fault, kind)


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["kill", "full"])
def test_every_single_write(undisturbed: tuple[RunFolder, float, int], tmp_path: Path, kind: str) -> None:
    reference, _, calls = undisturbed
    for fault in range(1, calls + 1):
        one_fault(reference, tmp_path / f"{kind}{fault}", fault, kind)
    print(f"\n{kind} at each of {calls} system calls that write: {calls} of {calls} restarts byte-identical")


@pytest.mark.soak
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_another_number_of_processes_goes_on(tmp_path: Path, before: int, after: int) -> None:
    """Killed with one number of ranks, resumed with another: it goes on from the step it had reached."""
    options = [
        "pretrain",
        "digits",
        "--out",
        str(tmp_path / "run"),
        "--backbone.name",
        "resnet18",
        "--data.limit",
        "128",
        "--data.size",
        "16",
        "--autoencoder.epochs",
        "1",
        "--contrastive.epochs",
        "40",
        "--probe.names",
        "knn",
        "--contrastive.batch-size",
        "32",
        "--head.hidden-dim",
        "16",
        "--head.output-dim",
        "16",
        "--threads",
        "1",
        "--precision",
        "float32",
        "--checkpoint.minutes",
        "0",
    ]

    def command(ranks: int) -> list[str]:
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
        return [sys.executable, *launch, "-m", "headstart", *options]

    folder = RunFolder(tmp_path / "run")
    process = subprocess.Popen(command(before), start_new_session=True, stderr=subprocess.PIPE)
    until = time.monotonic() + 300
    while '"contrastive"' not in (folder.metrics.read_text() if folder.metrics.exists() else ""):
        assert process.poll() is None, process.communicate()[1].decode()[-3000:]
        assert time.monotonic() < until
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    reached = folder.metrics.read_text().count('"contrastive"')
    assert not folder.is_complete()
    done = subprocess.run(command(after), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    epochs = [line["epoch"] for line in timeless_contrastive(folder)]
    assert epochs == list(range(1, 41))
    assert reached <= 40
    print(f"\n{before} ranks killed after {reached} epochs, {after} went on to {len(epochs)}")


def timeless_contrastive(folder: RunFolder) -> list[dict[str, object]]:
    from tests.soak.faults import timeless

    return [line for line in timeless(folder) if line["stage"] == "contrastive"]
