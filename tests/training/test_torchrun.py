"""`torchrun -m headstart pretrain`: two real processes on two real ranks, to the end, and to a rank's death."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headstart.engine import distributed
from headstart.engine.device import choose
from headstart.records.folder import RunFolder, read_metrics
from tests.study.tiny import sprung, traps

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")


def torchrun(out: Path, epochs: int) -> list[str]:
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "headstart",
        "pretrain",
        "digits",
        "--out",
        str(out),
        "--backbone.name",
        "shufflenet_v2_x0_5",
        "--data.limit",
        "64",
        "--data.size",
        "16",
        "--autoencoder.epochs",
        "1",
        "--contrastive.epochs",
        str(epochs),
        "--contrastive.batch-size",
        "16",
        "--head.hidden-dim",
        "16",
        "--head.output-dim",
        "8",
        "--probe.names",
        "knn",
        "--threads",
        "1",
        "--precision",
        "float32",
    ]


def test_a_run_ends_once(tmp_path: Path) -> None:
    """As the README says to start it, in a folder that holds a `uuid.py`."""
    safe = os.environ | {"PYTHONSAFEPATH": "1"}
    command = torchrun(tmp_path / "run", 2)
    where = traps(tmp_path / "run")
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, cwd=where, env=safe)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("accuracy in %") == 1
    folder = RunFolder(tmp_path / "run")
    assert folder.read_result()["stage"] == "probe"
    lines = [(line["stage"], line.get("epoch")) for line in read_metrics(folder.metrics)]
    assert lines == [("data", None), ("autoencoder", 1), ("contrastive", 1), ("contrastive", 2), ("probe", None)]
    assert (done.stdout + done.stderr).count("uses the statistics of its own part") == 1
    assert sprung(tmp_path / "run") == ""


@pytest.mark.parametrize(
    ("ranks", "here", "named", "listens"),
    [("2", "2", None, "lo"), ("4", "2", None, None), ("2", "2", "eth7", "eth7"), ("4", "2", "eth7", "eth7")],
)
def test_ranks_of_one_machine_listen_on_the_loopback_address_alone(
    ranks: str, here: str, named: str | None, listens: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gloo would take the address that the machine's own name stands for."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "")  # so that it is as it was afterwards
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    for name, value in {
        "RANK": "0",
        "WORLD_SIZE": ranks,
        "LOCAL_WORLD_SIZE": here,
        "GLOO_SOCKET_IFNAME": named,
    }.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    found: list[str | None] = []
    monkeypatch.setattr(distributed, "_end_with_parent", lambda: None)
    monkeypatch.setattr(
        "torch.distributed.init_process_group", lambda *_, **__: found.append(os.environ.get("GLOO_SOCKET_IFNAME"))
    )
    monkeypatch.setattr("torch.distributed.destroy_process_group", lambda: None)
    with distributed.process_group(choose("cpu", "float32", threads=1)):
        pass
    assert found == [listens]


def test_a_rank_that_dies_ends_the_others_and_the_run_goes_on(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    process = subprocess.Popen(torchrun(folder.path, 500), stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 1800
    while not any(line["stage"] == "contrastive" for line in read_metrics(folder.metrics)):
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < until
        time.sleep(0.1)
    ranks = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (second,) = [pid for pid in ranks if b"\0RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes()]
    os.kill(int(second), signal.SIGKILL)
    _, said = process.communicate(timeout=600)  # torchrun gives the others 30 s to save
    assert process.returncode == 1
    assert "Signal 9 (SIGKILL) received" in said
    assert not folder.is_complete()
    assert folder.checkpoint.exists()


def test_ranks_whose_torchrun_was_killed_save_and_stop(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with open(tmp_path / "said", "w") as said:  # ranks outlive it, so a pipe would not close
        process = subprocess.Popen(torchrun(folder.path, 500), stderr=said)
    until = time.monotonic() + 1800
    while not any(line["stage"] == "contrastive" for line in read_metrics(folder.metrics)):
        assert process.poll() is None, (tmp_path / "said").read_text()[-3000:]
        assert time.monotonic() < until
        time.sleep(0.1)
    ranks = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.wait()
    while any(_runs(pid) for pid in ranks):
        assert time.monotonic() < until + 180
        time.sleep(0.1)
    assert folder.checkpoint.exists()
    assert not folder.is_complete()
    assert not (folder.path / ".claim").exists()


def _runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
