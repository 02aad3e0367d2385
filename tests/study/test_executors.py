"""Studies as processes: real runs on tiny digits, killed for real, by both executors."""

import contextlib
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from headstart import study
from headstart.records.claim import STALE_SECONDS, Claim, identity
from headstart.records.errors import InputError, Interrupted
from headstart.records.files import read_json
from headstart.records.folder import RunFolder, read_metrics
from headstart.study import calls
from headstart.study.worker import Work, Worker

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": ["digits"],
    "base": {
        "data": {"limit": 64, "size": 16},
        "backbone": {"name": "shufflenet_v2_x0_5"},
        "autoencoder": {"epochs": 2, "lr": 0.001},
        "head": {"hidden_dim": 16, "output_dim": 8},
        "contrastive": {"epochs": 3, "batch_size": 16},
        "probe": {"names": ["knn"]},
        "checkpoint": {"minutes": 0},
        "precision": "float32",
        "device": "cpu",
        "threads": 1,
    },
    "factors": {"head.init": ["random", "autoencoder"]},
    "seeds": [0, 1],
}

NEEDS_RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra ray")

CALL = """
import json, sys
from headstart import study
from headstart.records.errors import HeadstartError
options = json.loads(sys.argv[3])
if "ray" in options:
    options["ray"] = study.RayOptions(**options["ray"])
try:
    sys.exit(study.run(sys.argv[1], sys.argv[2], **options).exit_code)
except HeadstartError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "tiny.yml"
    path.write_text(yaml.safe_dump({**TINY, **changes}, sort_keys=False))
    return path


def start(file: Path | str, out: Path, **options: Any) -> subprocess.Popen:
    """A study in a process group of its own, like a command typed into a shell."""
    return subprocess.Popen(
        [sys.executable, "-c", CALL, str(file), str(out), json.dumps(options)], start_new_session=True
    )


def results(out: Path) -> dict[str, Any]:
    """What every run found, without times; and the bytes of its weights."""
    found = {}
    for path in sorted((out / "runs").glob("*/result.json")):
        result = read_json(path)
        lines = [
            {k: v for k, v in line.items() if k not in ("pairs_per_s", "pictures_per_s", "data_wait")}
            for line in read_metrics(path.with_name("metrics.jsonl"))
        ]
        weights = {p.name: p.read_bytes() for p in sorted(path.parent.glob("*.safetensors"))}
        found[path.parent.name] = ({k: v for k, v in result.items() if k != "seconds"}, lines, weights)
    return found


def assert_same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for name in wanted:
        for part, (a, b) in enumerate(zip(found[name], wanted[name], strict=True)):
            assert a == b, (name, ("result", "metrics", "weights")[part])


def wait_for(what: Callable[[], Any], seconds: float = 600.0) -> Any:
    """Wait until `what` returns something true, and return that."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen")


def processes_of(out: Path) -> set[int]:
    """Process ids that hold a claim in the study."""
    found = set()
    for path in (out / "runs").glob("*/.claim"):
        with contextlib.suppress(OSError, ValueError):
            found.add(json.loads(path.read_text())["pid"])
    return found


def half_done(out: Path) -> list[Path]:
    """Runs that have finished an epoch of SimCLR and saved it, and have no result yet."""
    return [
        p
        for p in (out / "runs").glob("data=*/checkpoint.pt")
        if not (p.parent / "result.json").exists() and epochs_done(p.parent)
    ]


def epochs_done(run: Path) -> list[int]:
    """Epochs of SimCLR in a run's metrics."""
    lines = read_metrics(run / "metrics.jsonl")
    return [line["epoch"] for line in lines if line["stage"] == "contrastive" and "epoch" in line]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The tiny study, done at one go in this process."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    summary = study.run(written(folder), folder / "out", workers=0, quiet=True)
    assert (summary.done, summary.failed, summary.exit_code) == (4, 0, 0)
    found = results(folder / "out")
    assert len(found) == 6  # with two autoencoders, one a seed
    return found


# ------------------------------------------------------------------------------------------------------ shared once


def test_two_workers_do_the_same_and_train_each_autoencoder_once(tmp_path: Path, uninterrupted) -> None:
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
    assert len(list((tmp_path / "out" / "untrained").iterdir())) == 2


def test_a_run_of_a_study_tells_its_autoencoders_error(uninterrupted) -> None:
    for name, (result, _, _) in uninterrupted.items():
        assert (result["autoencoder"] is not None) == ("autoencoder" in name)


def test_records_keep_no_weights_and_grow_again(tmp_path: Path, uninterrupted) -> None:
    out = tmp_path / "out"
    summary = study.run(written(tmp_path, seeds=[0]), out, workers=0, keep="records", quiet=True)
    assert summary.done == 2
    assert not list(out.rglob("*.safetensors")) + list(out.rglob("*.pt"))
    for name, (result, lines, _) in results(out).items():
        assert (result, lines) == uninterrupted[name][:2]
        assert (out / "runs" / name / "splits.npz").exists()
    grown = written(tmp_path, seeds=[0], factors={"head.init": ["random", "autoencoder", "spectrum"]})
    assert study.run(grown, out, workers=0, keep="records", quiet=True).done == 3
    assert not list(out.rglob("*.safetensors")) + list(out.rglob("*.pt"))


# ---------------------------------------------------------------------------------------------------------- failing


def test_a_failing_run_keeps_its_reason_and_stops_no_other(tmp_path: Path) -> None:
    out = tmp_path / "out"
    file = written(tmp_path, factors={"contrastive.lr": [1e30, 0.1], "head.init": ["random"]}, seeds=[0])
    summary = study.run(file, out, workers=0, quiet=True)
    assert (summary.done, summary.failed, summary.exit_code) == (1, 1, 1)
    ((name, reason),) = study.status(out).failed
    assert "1e+30" in name
    assert "not finite" in reason
    failed = out / "runs" / name / "failed.json"
    before = failed.stat().st_mtime_ns
    assert study.run(file, out, workers=0, quiet=True).exit_code == 1
    assert failed.stat().st_mtime_ns == before  # left alone
    assert study.run(file, out, workers=0, quiet=True, retry_failed=True).exit_code == 1
    assert failed.stat().st_mtime_ns > before


def test_a_failing_autoencoder_fails_its_runs_alone(tmp_path: Path) -> None:
    base = {**TINY["base"], "autoencoder": {"epochs": 2, "lr": 1e30}}
    out = tmp_path / "out"
    summary = study.run(written(tmp_path, base=base, seeds=[0]), out, workers=0, quiet=True)
    assert (summary.done, summary.failed) == (1, 1)
    reasons = dict(study.status(out).failed)
    assert any(name.startswith("autoencoder-") for name in reasons)
    assert any("its autoencoder failed" in reason for reason in reasons.values())


def test_an_unexpected_error_is_a_failure_with_its_traceback(tmp_path: Path, monkeypatch) -> None:
    from headstart.training import run as pretraining

    real = pretraining.run

    def broken(config, out, **more):
        if config.head.init == "random":
            raise ZeroDivisionError("in the middle")
        return real(config, out, **more)

    monkeypatch.setattr(pretraining, "run", broken)
    out = tmp_path / "out"
    summary = study.run(written(tmp_path, seeds=[0]), out, workers=0, quiet=True)
    assert (summary.done, summary.failed) == (1, 1)
    (failed,) = out.glob("runs/*/failed.json")
    assert read_json(failed)["reason"] == "ZeroDivisionError: in the middle"
    assert "Traceback" in read_json(failed)["traceback"]


def test_missing_data_are_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        study.run(written(tmp_path), tmp_path / "out", data=str(tmp_path / "nowhere"), workers=0)
    assert not (tmp_path / "out" / "runs").exists()


# ---------------------------------------------------------------------------------------------- stopping and resuming


def test_max_seconds_stops_resumably(tmp_path: Path, uninterrupted) -> None:
    file, out = written(tmp_path), tmp_path / "out"
    with pytest.raises(Interrupted):
        study.run(file, out, workers=0, quiet=True, max_seconds=0.0)
    calls = 0
    while True:
        calls += 1
        try:
            study.run(file, out, workers=0, quiet=True, max_seconds=2.0 * calls)
            break
        except Interrupted:
            assert calls < 50
    assert_same(results(out), uninterrupted)


def test_a_signal_stops_resumably(tmp_path: Path, uninterrupted) -> None:
    file, out = written(tmp_path), tmp_path / "out"
    process = start(file, out, workers=1, quiet=True)
    wait_for(lambda: half_done(out))
    process.send_signal(signal.SIGTERM)
    assert process.wait(600) == Interrupted.exit_code
    assert wait_for(lambda: not processes_of(out))
    assert start(file, out, workers=1, quiet=True).wait(3600) == 0
    assert_same(results(out), uninterrupted)


def killed_and_restarted(file: Path, out: Path, kills: int, seed: int, **options: Any) -> list[str]:
    """SIGKILL the study's process group at random moments, then let it end; returns how each kill found it."""
    draw = random.Random(seed)
    finished: dict[str, tuple[bytes, int, bytes]] = {}
    found = []
    for _ in range(kills):
        process = start(file, out, **options)
        # A moment counts from when the study's processes work; before that nothing could be lost.
        with contextlib.suppress(AssertionError):
            wait_for(lambda process=process: processes_of(out) or process.poll() is not None)
        time.sleep(draw.uniform(0.0, 4.0))
        ended = process.poll() is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        found.append("ended" if ended else f"{len(half_done(out))} half done")
        for result in (out / "runs").glob("*/result.json"):
            metrics = result.with_name("metrics.jsonl")
            now = (metrics.read_bytes(), metrics.stat().st_mtime_ns, result.read_bytes())
            assert finished.setdefault(result.parent.name, now) == now, "a finished run was run again"
    assert start(file, out, **options).wait(3600) == 0
    for name, before in finished.items():
        metrics = out / "runs" / name / "metrics.jsonl"
        assert (metrics.read_bytes(), metrics.stat().st_mtime_ns) == before[:2], "a finished run was run again"
    for name, (_, lines, _) in results(out).items():
        seen = [(line["stage"], line["epoch"]) for line in lines if "epoch" in line]
        assert len(seen) == len(set(seen)), name
    return found


def test_killed_it_ends_as_if_it_had_not_been(tmp_path: Path, uninterrupted) -> None:
    killed_and_restarted(written(tmp_path), tmp_path / "out", 1, seed=1, workers=1, quiet=True)
    assert_same(results(tmp_path / "out"), uninterrupted)


@pytest.mark.soak
def test_killed_ten_times_it_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "overrides": ["checkpoint.minutes=0.02", "precision=float32", "device=cpu"],
        "threads": 1,
        "quiet": True,
    }
    assert start("smoke", tmp_path / "whole", workers=0, **options).wait(3600) == 0
    found = killed_and_restarted("smoke", tmp_path / "killed", 10, seed=0, workers=2, **options)
    print(found)
    assert len(results(tmp_path / "whole")) == 14
    assert_same(results(tmp_path / "killed"), results(tmp_path / "whole"))


@pytest.mark.soak
def test_a_killed_worker_is_replaced(tmp_path: Path, uninterrupted) -> None:
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


@pytest.mark.soak
def test_workers_do_not_outlive_a_killed_command(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(written(tmp_path), out, workers=1, quiet=True)
    (worker,) = wait_for(lambda: processes_of(out))
    process.kill()
    process.wait()
    wait_for(lambda: not Path(f"/proc/{worker}").exists(), 600)


# -------------------------------------------------------------------------------------------------------------- Ray


@NEEDS_RAY
def test_ray_does_the_same_survives_a_killed_worker_and_tells_failures(tmp_path: Path, uninterrupted) -> None:
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


@NEEDS_RAY
@pytest.mark.soak
def test_smoke_is_identical_run_by_run_with_both_executors(tmp_path: Path) -> None:
    options = {"threads": 1, "quiet": True}
    assert start("smoke", tmp_path / "local", workers=2, **options).wait(3600) == 0
    assert start("smoke", tmp_path / "ray", executor="ray", **options).wait(3600) == 0
    assert sum(name.startswith("data=") for name in results(tmp_path / "local")) == 12
    assert_same(results(tmp_path / "ray"), results(tmp_path / "local"))


# ----------------------------------------------------------------------------------------------------------- claims


def test_one_of_many_takes_a_claim(tmp_path: Path) -> None:
    barrier, tried, taken = threading.Barrier(16), threading.Barrier(16), []

    def take() -> None:
        barrier.wait()
        with Claim(tmp_path).held() as mine:
            if mine:
                taken.append(1)
            tried.wait(60)  # nobody lets go before all have tried

    threads = [threading.Thread(target=take) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 1
    assert not list(tmp_path.iterdir())


def test_one_of_many_takes_over_from_a_dead_process(tmp_path: Path) -> None:
    for _ in range(20):
        dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
        holder = {**identity(), "token": "dead", "pid": int(dead.stdout), "started": "0"}
        (tmp_path / ".claim").write_text(json.dumps(holder))
        assert Claim(tmp_path).holder() is None
        barrier, tried, taken = threading.Barrier(8), threading.Barrier(8), []

        def take(barrier=barrier, tried=tried, taken=taken) -> None:
            barrier.wait()
            with Claim(tmp_path).held() as mine:
                if mine:
                    taken.append(1)
                tried.wait(60)  # nobody lets go before all have tried

        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(taken) == 1
        assert not list(tmp_path.iterdir())


def test_a_claim_from_another_machine_lasts_as_long_as_it_is_renewed(tmp_path: Path) -> None:
    holder = {**identity(), "host": "elsewhere", "token": "theirs"}
    (tmp_path / ".claim").write_text(json.dumps(holder))
    with Claim(tmp_path).held() as mine:
        assert not mine
    assert Claim(tmp_path).holder() == holder
    then = time.time() - STALE_SECONDS - 5
    os.utime(tmp_path / ".claim", (then, then))
    assert Claim(tmp_path).holder() is None
    with Claim(tmp_path).held() as mine:
        assert mine
    assert not list(tmp_path.iterdir())


@pytest.fixture
def one_run_held_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The claim on the only run of a study, held by a process of another machine."""
    monkeypatch.setattr("headstart.records.claim.STALE_SECONDS", 3.0)
    monkeypatch.setattr("headstart.study.worker.POLL_SECONDS", 0.05)
    monkeypatch.setattr(Worker, "_attempt", lambda self, folder, do: done(folder))

    def done(folder: RunFolder) -> str:
        folder.result.write_text("{}")
        return "done"

    claim = tmp_path / "runs" / "data=digits,init=random,seed=0" / ".claim"
    claim.parent.mkdir(parents=True)
    claim.write_text(json.dumps({**identity(), "host": "elsewhere", "token": "theirs"}))
    return claim


def worker_on(tmp_path: Path) -> Worker:
    small = {**TINY, "factors": {"head.init": ["random"]}, "seeds": [0]}
    work = Work(out=str(tmp_path), threads=1, device="cpu", keep="all", quiet=True, deadline=None)
    (tmp_path / "one.yml").write_text(yaml.safe_dump(small))
    return Worker(work, study.expand(study.load(tmp_path / "one.yml")))


def test_a_run_whose_holder_lost_its_power_a_moment_ago_is_done(one_run_held_elsewhere: Path, tmp_path: Path) -> None:
    worker_on(tmp_path).do_all()
    assert one_run_held_elsewhere.with_name("result.json").exists()


def test_a_run_whose_holder_is_seen_to_live_is_left_to_it(one_run_held_elsewhere: Path, tmp_path: Path) -> None:
    timer = threading.Timer(0.5, lambda: os.utime(one_run_held_elsewhere))
    timer.start()
    worker_on(tmp_path).do_all()
    timer.join()
    assert not one_run_held_elsewhere.with_name("result.json").exists()


def test_a_device_that_is_not_there_fails_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cuda:99"):
        study.run(written(tmp_path), out=tmp_path / "out", device="cuda:99")
    assert not (tmp_path / "out").exists()


def test_calls_that_add_to_a_study_at_once_lose_nothing(tmp_path: Path) -> None:
    file, out = written(tmp_path), tmp_path / "out"
    calls.prepare(study.load(file), out)
    slow, quick = study.load(file, seeds=[2]), study.load(file, seeds=[3])
    calls.prepare(slow, out, lambda planned: calls.prepare(quick, out) and None)  # while it looks at the data
    assert study.load(out).seeds == (0, 1, 3, 2)
    assert not list(out.glob(".claim*"))


def test_a_half_written_claim_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".claim").write_text('{"host": "x"')
    with Claim(tmp_path).held() as mine:
        assert mine
