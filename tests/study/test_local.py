"""A study in several processes of this machine: the same results, signals, dead workers, a dead command."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from headstart import study
from headstart.records.claim import Claim
from headstart.records.errors import InputError, Interrupted
from headstart.study import local
from headstart.study.file import Planned
from headstart.study.shared import Work
from tests.study.tiny import TINY, assert_same, half_done, processes_of, results, sprung, start, wait_for, written

QUICK = {**TINY["base"], "head": {"init": "random"}, "contrastive": {"epochs": 1, "batch_size": 16}}


def test_two_workers_do_the_same_and_train_each_autoencoder_once(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    summary = study.run(written(tmp_path), tmp_path / "out", workers=2, quiet=True)
    assert summary.exit_code == 0
    assert_same(results(tmp_path / "out"), uninterrupted)
    stored = list((tmp_path / "out" / "autoencoders").iterdir())
    assert len(stored) == 2
    for name, (_, lines, weights) in results(tmp_path / "out").items():
        epochs = [line["epoch"] for line in lines if line["stage"] == "autoencoder"]
        assert epochs == ([1, 2] if name.startswith("autoencoder-") else [])
        if "init=autoencoder" in name:
            assert weights["autoencoder.safetensors"] in {path.read_bytes() for path in stored}
    assert not list((tmp_path / "out").rglob(".claim*"))
    assert len(list((tmp_path / "out" / "before").iterdir())) == 2


def test_a_signal_stops_resumably(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    file, out = written(tmp_path), tmp_path / "out"
    process = start(file, out, workers=1, quiet=True)
    wait_for(lambda: half_done(out))
    process.send_signal(signal.SIGTERM)
    assert process.wait(600) == Interrupted.exit_code
    assert wait_for(lambda: not processes_of(out))
    assert start(file, out, workers=1, quiet=True).wait(3600) == 0
    assert_same(results(out), uninterrupted)
    assert sprung(out) == "", "a worker imports from the folder in which the command was given"


@pytest.mark.soak
def test_a_killed_worker_is_replaced(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    file, out = written(tmp_path), tmp_path / "out"
    process = start(file, out, workers=1, quiet=True)
    wait_for(lambda: half_done(out))
    (worker,) = wait_for(lambda: processes_of(out))
    assert worker != process.pid
    os.kill(worker, signal.SIGKILL)
    assert process.wait(3600) == 0
    assert_same(results(out), uninterrupted)


@pytest.mark.soak
def test_a_run_that_its_process_dies_of_fails_and_the_others_go_on(tmp_path: Path) -> None:
    file, out = written(tmp_path, seeds=[0], factors={"head.init": ["random", "orthogonal"]}), tmp_path / "out"
    name = "data=digits,init=random,seed=0"
    stop = threading.Event()

    def kill() -> None:
        while not stop.is_set():
            holder = Claim(out / "runs" / name).holder()
            if holder:
                os.kill(holder["pid"], signal.SIGKILL)
            time.sleep(0.05)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        summary = study.run(file, out, workers=1, quiet=True)
    finally:
        stop.set()
        killer.join()
    assert (summary.done, summary.failed, summary.exit_code) == (1, 1, 1)
    assert study.status(out).failed == [
        (name, "its process was ended 2 times, at last by SIGKILL; is there enough memory?")
    ]


def epochs_saved(out: Path) -> int:
    """Epochs that stand in the metrics of all runs."""
    return sum(len(path.read_bytes().splitlines()) for path in (out / "runs").glob("*/metrics.jsonl"))


def _moved(out: Path, before: int, process: subprocess.Popen[bytes]) -> bool:
    """Something new was saved since, or the process has ended."""
    return epochs_saved(out) > before or process.poll() is not None


@pytest.mark.soak
def test_killed_ten_times_it_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    """The process group dies whenever something new was saved, and is started again."""
    options = {"overrides": ["checkpoint.minutes=0", "precision=float32", "device=cpu"], "threads": 1, "quiet": True}
    assert start("smoke", tmp_path / "whole", workers=0, **options).wait(3600) == 0
    out = tmp_path / "killed"
    finished: dict[str, bytes] = {}
    for _ in range(10):
        before, process = epochs_saved(out), start("smoke", out, workers=2, **options)
        wait_for(partial(_moved, out, before, process))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for result in (out / "runs").glob("*/result.json"):
            assert finished.setdefault(result.parent.name, result.read_bytes()) == result.read_bytes(), "run again"
    assert start("smoke", out, workers=2, **options).wait(3600) == 0
    assert len(results(tmp_path / "whole")) == 20
    assert_same(results(out), results(tmp_path / "whole"))


def workers_that(monkeypatch: pytest.MonkeyPatch, *do: str) -> None:
    """In place of real workers, processes that do this, in order."""
    left = iter(do)

    def start(pool: local.Pool, slot: int) -> None:
        process = subprocess.Popen([sys.executable, "-c", f"import time; {next(left)}"], stdin=subprocess.PIPE)
        pool.alive[process] = slot

    monkeypatch.setattr(local.Pool, "start", start)


def work_in(out: Path) -> Work:
    return Work(
        out=str(out), folder=str(out), plugins=(), threads=1, device="cpu", keep="all", deadline=None, quiet=True
    )


def test_a_stop_reaches_the_others_after_one_worker_was_stopped_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers_that(monkeypatch, "raise SystemExit(75)", "time.sleep(600)")
    pool = local.Pool(work_in(tmp_path))
    monkeypatch.setattr(local, "stop_requested", lambda: pool.stopped)
    began = time.monotonic()
    local._supervise(pool, 2)
    assert pool.asked
    assert time.monotonic() - began < 300


def test_where_the_others_did_what_a_stopped_worker_left_the_study_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = [cast(Planned, SimpleNamespace(name=name)) for name in ("one", "two")]
    for name in ("one", "two"):
        workers_that(monkeypatch, "raise SystemExit(75)", "raise SystemExit(0)")
        with pytest.raises(Interrupted):
            local.on_this_machine(work_in(tmp_path), planned, 2)
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "failed.json").write_text("{}")
    workers_that(monkeypatch, "raise SystemExit(75)", "raise SystemExit(0)")
    local.on_this_machine(work_in(tmp_path), planned, 2)


def test_threads_are_shared_among_the_workers_that_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "available_cores", lambda: 16)
    seen: list[int | None] = []
    monkeypatch.setattr(local, "_supervise", lambda pool, workers: seen.append(pool.work.threads))
    planned = [cast(Planned, SimpleNamespace(name=name)) for name in ("one", "two")]
    local.on_this_machine(replace(work_in(tmp_path), threads=None), planned, 8)
    assert seen == [8]


OWN = """
from headstart.records.names import ACTIVATIONS, Choice
ACTIVATIONS.register(Choice(name="softsign", help="x / (1 + |x|)", make="torch.nn:Softsign"))
"""


def test_a_part_of_ones_own_is_known_to_every_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_parts.py").write_text(OWN)
    before = [path for path in (os.environ.get("PYTHONPATH"),) if path]  # an empty entry would be the current folder
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *before]))
    file = written(tmp_path, plugins=["own_parts"], factors={"head.activation": ["softsign"]}, seeds=[0], base=QUICK)
    assert start(file, tmp_path / "out", quiet=True).wait() == InputError.exit_code
    assert start(file, tmp_path / "out", quiet=True, plugin=["own_parts"]).wait() == 0
    (found,) = (result for name, (result, *_) in results(tmp_path / "out").items() if name.startswith("data="))
    assert found["head"]["activation"] == "softsign"


ORPHAN = """
import os, signal, sys
from headstart.study import calls, local, worker
from headstart.study.file import load
from headstart.study.shared import Work
out = sys.argv[2]
calls.prepare(load(sys.argv[1]), out)
pool = local.Pool(Work(out=out, folder=out, plugins=(), threads=1, device="cpu", keep="all", deadline=None, quiet=True))
pool.start(0)
(process,) = pool.alive
print(process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_worker_whose_command_is_killed_before_it_can_look_ends(tmp_path: Path) -> None:
    """At the earliest point: the worker's process exists, and has not yet begun to import anything."""
    base = {"contrastive": {"epochs": 100_000}}
    command = [sys.executable, "-P", "-c", ORPHAN, str(written(tmp_path, base=base)), str(tmp_path / "out")]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    assert done.returncode == -signal.SIGKILL
    wait_for(lambda: has_ended(int(done.stdout)))


def test_a_worker_whose_command_is_gone_does_not_wait_for_its_own_imports(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("import threading\nthreading.Event().wait()\n")  # an import that never ends
    before = [path for path in (os.environ.get("PYTHONPATH"),) if path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *before])}
    command = [sys.executable, "-P", "-m", "headstart.study.process", "{}"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, env=environment, timeout=600)
    assert done.returncode == -signal.SIGTERM


@pytest.mark.soak
def test_workers_do_not_outlive_a_killed_command(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(written(tmp_path, base={"contrastive": {"epochs": 100_000}}), out, workers=1, quiet=True)
    (worker,) = wait_for(lambda: processes_of(out))
    process.kill()
    process.wait()
    wait_for(lambda: has_ended(worker))


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or nobody has asked yet how it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize(("gpus", "workers", "sharers"), [(1, 3, 3), (2, 3, 2), (4, 3, 1), (1, 9, 5)])
def test_workers_are_told_how_many_share_a_device(
    gpus: int, workers: int, sharers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of nine workers for five runs there are five."""
    told: list[Work] = []
    monkeypatch.setattr(local, "_supervise", lambda pool, _: told.append(pool.work))
    monkeypatch.setattr(local, "_devices", lambda _: [f"cuda:{number}" for number in range(gpus)])
    local.on_this_machine(
        Work(out=".", folder=".", plugins=(), threads=1, device="cuda", keep="all", deadline=None, quiet=True),
        cast(Any, range(5)),
        workers,
    )
    assert [work.sharers for work in told] == [sharers]
