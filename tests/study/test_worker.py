"""One process of a study: what runs share, failing, stopping, and being killed at any point."""

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from headstart import study
from headstart.records import files
from headstart.records.claim import Claim, identity
from headstart.records.config import Config
from headstart.records.errors import InputError, Interrupted, RunError
from headstart.records.files import read_json
from headstart.records.folder import RunFolder
from headstart.study import calls, worker
from headstart.study.file import load
from headstart.study.shared import Work
from headstart.study.worker import Worker
from tests.study.tiny import TINY, assert_same, results, written

ROOT = Path(__file__).parents[2]


def test_a_run_of_a_study_tells_its_autoencoders_error(uninterrupted: dict[str, Any]) -> None:
    for name, (result, _, _) in uninterrupted.items():
        assert (result["autoencoder"] is not None) == ("autoencoder" in name)


def test_records_keep_no_weights_and_grow_again(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
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


@pytest.mark.parametrize("stop", [Interrupted("stopped"), KeyboardInterrupt()])
def test_a_stop_that_a_library_took_for_its_own_failure_fails_no_run(
    stop: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wraps(*_: object) -> None:
        raise RuntimeError("Error calling __set_name__ on 'Field' instance") from stop

    file, out = written(tmp_path, seeds=[0], factors={"head.init": ["random", "orthogonal"]}), tmp_path / "out"
    with monkeypatch.context() as during:
        during.setattr(Worker, "_run", wraps)
        with pytest.raises(Interrupted):
            study.run(file, out, workers=0, quiet=True)
    assert not list(out.glob("runs/*/failed.json"))
    assert study.run(file, out, workers=0, quiet=True).done == 2


def test_a_full_disk_stops_the_study_and_fails_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        if Path(target).name == "head.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device")
        os.replace(source, target)

    file, out = written(tmp_path, seeds=[0], factors={"head.init": ["random", "orthogonal"]}), tmp_path / "out"
    with monkeypatch.context() as disk:
        disk.setattr(files, "os", SimpleNamespace(**{name: getattr(os, name) for name in dir(os)} | {"replace": full}))
        with pytest.raises(RunError, match="No space left"):
            study.run(file, out, workers=0, quiet=True)
    assert not list(out.glob("runs/*/failed.json"))
    assert study.run(file, out, workers=0, quiet=True).done == 2  # room was made


def test_a_worker_that_cannot_claim_a_run_says_so_and_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    calls.prepare(load(written(tmp_path, seeds=[0])), out)
    work = Work(
        out=str(out), folder=str(out), plugins=(), threads=1, device="cpu", keep="all", deadline=None, quiet=True
    )

    def full(claim: Claim, about: object) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device", str(claim.path))

    monkeypatch.setattr(Claim, "_take", full)
    assert worker.main(json.dumps(asdict(work))) == worker.GIVE_UP
    assert "No space left on device" in capsys.readouterr().err
    assert not list(out.glob("runs/*/failed.json"))


def test_a_failing_autoencoder_fails_its_runs_alone(tmp_path: Path) -> None:
    base = {**TINY["base"], "autoencoder": {"epochs": 2, "lr": 1e30}}
    out = tmp_path / "out"
    summary = study.run(written(tmp_path, base=base, seeds=[0]), out, workers=0, quiet=True)
    assert (summary.done, summary.failed) == (1, 1)
    reasons = dict(study.status(out).failed)
    assert any(name.startswith("autoencoder-") for name in reasons)
    assert any("its autoencoder failed" in reason for reason in reasons.values())


def test_an_unexpected_error_is_a_failure_with_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from headstart.training import run as pretraining

    real = pretraining.run

    def broken(config: Config, out: Path, **more: Any) -> object:
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


def test_a_device_that_is_not_there_fails_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cuda:99"):
        study.run(written(tmp_path), out=tmp_path / "out", device="cuda:99")
    assert not (tmp_path / "out").exists()


def test_max_seconds_stops_resumably(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
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


POINTS = (
    "before:study.yaml",
    "after:.claim",
    "after:config.yaml",
    "after:checkpoint.pt",
    "before:result.json",
    "after:result.json",
    "before:autoencoder.safetensors",
    "after:stages.json",
    "before:*.safetensors",
    "after:*.safetensors",
    "before:head.safetensors",
    "after:backbone.safetensors",
    "before:report.html",
)


def test_killed_at_any_point_it_ends_as_if_it_had_not_been(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    """One after another in one folder, each restarted by the next."""
    file = written(tmp_path, seeds=[0])
    command = [sys.executable, "-P", "-m", "tests.study.killed", str(file), str(tmp_path / "out"), *POINTS]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.stdout.splitlines() == [*(f"{point} -9" for point in POINTS), "left alone 0"], done.stderr[-2000:]
    found = results(tmp_path / "out")
    for name, (_, lines, _) in found.items():
        seen = [(line["stage"], line["epoch"]) for line in lines if "epoch" in line]
        assert len(seen) == len(set(seen)), name
    assert_same(found, {name: what for name, what in uninterrupted.items() if "seed=0" in name or "seed0" in name})
    for result in (tmp_path / "out" / "runs").glob("*/result.json"):
        assert result.with_name("report.html").exists(), result.parent.name
        assert not result.with_name("stages.json").exists()
    left = list((tmp_path / "out").rglob(".*"))
    assert left
    for path in left:
        os.utime(path, (0, 0))
    assert study.run(file, tmp_path / "out", workers=0, quiet=True).done == 2
    assert list((tmp_path / "out").rglob(".*")) == [], "what killed processes left behind is cleared away"


@pytest.fixture
def one_run_held_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The claim on the only run of a study, held by a process of another machine."""
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
    work = Work(
        out=str(tmp_path),
        folder=str(tmp_path),
        plugins=(),
        threads=1,
        device="cpu",
        keep="all",
        quiet=True,
        deadline=None,
    )
    (tmp_path / "one.yml").write_text(yaml.safe_dump(small))
    return Worker(work, study.expand(study.load(tmp_path / "one.yml")))


def while_it_waits(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], None]) -> None:
    """What happens while a worker waits, in no time."""
    monkeypatch.setattr("headstart.study.worker.time", SimpleNamespace(**vars(time) | {"sleep": lambda _: happens()}))


def test_a_run_whose_holder_lost_its_power_a_moment_ago_is_done(
    one_run_held_elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    while_it_waits(monkeypatch, lambda: monkeypatch.setattr("headstart.records.claim.STALE_SECONDS", -1.0))
    worker_on(tmp_path).do_all()
    assert one_run_held_elsewhere.with_name("result.json").exists()


def test_a_run_whose_holder_is_seen_to_live_is_left_to_it(
    one_run_held_elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.utime(one_run_held_elsewhere, (time.time() - 15, time.time() - 15))
    while_it_waits(monkeypatch, lambda: os.utime(one_run_held_elsewhere))
    worker_on(tmp_path).do_all()
    assert not one_run_held_elsewhere.with_name("result.json").exists()
