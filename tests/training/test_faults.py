"""What goes wrong around a run: each fault is one clear sentence and the right exit code, and nothing finished is hurt.

Kills and full disks at every single write of a run are in tests/soak/.
"""

import contextlib
import errno
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from headstart.cli.commands import main
from headstart.data import splits
from headstart.engine import checkpoint, weights
from headstart.engine.checkpoint import MAGIC
from headstart.records import files
from headstart.records import folder as folders
from headstart.records.folder import RunFolder
from headstart.training import autoencoder, contrastive
from headstart.training.step import SimCLR

SMALL = [
    "--backbone.name",
    "mobilenet_v3_small",
    "--data.size",
    "16",
    "--autoencoder.epochs",
    "1",
    "--contrastive.batch-size",
    "16",
    "--head.hidden-dim",
    "16",
    "--head.output-dim",
    "8",
    "--precision",
    "float32",
    "--threads",
    "1",
    "--device",
    "cpu",
    "--probe.names",
    "knn",
]
WEIGHTS = ("autoencoder.safetensors", "head.safetensors", "backbone.safetensors")


def command(*arguments: object) -> tuple[int, str]:
    """Exit code and the sentence a command ended with; an exception that is not ours fails the test."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    complaints = [line for line in out.getvalue().splitlines() if line.startswith("headstart:")]
    assert len(complaints) == bool(ended.value.code), out.getvalue()
    return int(ended.value.code or 0), complaints[0] if complaints else out.getvalue()


def pretrain(data: object, out: Path, *options: object, epochs: int = 2) -> tuple[int, str]:
    return command("pretrain", data, "--out", out, *SMALL, "--contrastive.epochs", epochs, *options)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 pictures of two classes."""
    root = tmp_path_factory.mktemp("faults") / "photos"
    for kind in ("a", "b"):
        (root / kind).mkdir(parents=True)
        for number in range(24):
            noise = np.random.default_rng([ord(kind), number]).integers(0, 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(noise).save(root / kind / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "run"
    code, said = pretrain(photos, out)
    assert code == 0, said
    return out


@pytest.fixture(scope="module")
def stopped_once(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the same settings, stopped after SimCLR's first epoch, saved after every step."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    real, seen = contrastive.Watch.validation_loss, []

    def stop(self: contrastive.Watch, model: SimCLR) -> float | None:
        seen.append(1)
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contrastive.Watch, "validation_loss", stop)
        code, said = pretrain(photos, out, "--checkpoint.minutes", 0)
    assert code == 75, said
    assert "the same command goes on" in said
    return out


@pytest.fixture
def stopped(stopped_once: Path, tmp_path: Path) -> Path:
    """A copy of it, to go on with."""
    return Path(shutil.copytree(stopped_once, tmp_path / "run"))


def test_a_loss_that_is_not_a_number_stops_naming_step_and_rate(photos: Path, tmp_path: Path) -> None:
    options = ("--contrastive.lr", "1e30", "--contrastive.warmup-epochs", 0, "--checkpoint.minutes", 0)
    code, said = pretrain(photos, tmp_path / "run", *options)
    assert code == 1
    assert re.search(r"epoch 1, step \d, learning rate \d\.\d+e\+\d\d", said)
    saved = torch.load(
        io.BytesIO((tmp_path / "run" / "checkpoint.pt").read_bytes()[len(MAGIC) + 32 :]), weights_only=True
    )
    model = saved["state"]["model"] if saved["stage"] == "contrastive" else {}
    assert all(tensor.isfinite().all() for tensor in model.values())


def test_features_that_are_no_numbers_still_end_a_run(tmp_path: Path) -> None:
    """Of seven pictures one validates, and one has no loss that would stop the training before."""
    for i in range(7):
        noise = np.random.default_rng(i).integers(0, 255, (16, 16, 3), np.uint8)
        (tmp_path / "p").mkdir(exist_ok=True)
        Image.fromarray(noise).save(tmp_path / "p" / f"{i}.png")
    diverging = ["--contrastive.lr", "1e30", "--contrastive.warmup-epochs", "0", "--contrastive.epochs", "1"]
    options = ["--head.init", "random", "--head.no-frozen", "--contrastive.batch-size", "4", "--data.labels", "none"]
    code, said = command("pretrain", tmp_path / "p", "--out", tmp_path / "run", *SMALL, *options, *diverging)
    assert code == 0, said
    assert "no map: the features hold values that are not finite" in said
    assert RunFolder(tmp_path / "run").is_complete()


@pytest.mark.parametrize(
    ("training", "setting"),
    [
        (contrastive.Contrastive, "contrastive.chunk"),
        (autoencoder.Autoencoding, "autoencoder.batch-size"),
    ],
)
def test_out_of_memory_suggests_a_setting(
    training: type, setting: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def allocate(*_: object, **__: object) -> None:
        torch.empty(2**60, dtype=torch.uint8)  # what a CPU really says

    monkeypatch.setattr(training, "step", allocate)
    code, said = pretrain(photos, tmp_path / "run")
    assert code == 1
    assert "out of memory" in said
    assert f"--{setting}" in said


def test_a_vanished_source_is_named_and_costs_nothing(photos: Path, stopped: Path, tmp_path: Path) -> None:
    away = photos.with_name("away")
    photos.rename(away)
    try:
        code, said = pretrain(photos, stopped)
        assert code == 2
        assert str(photos) in said
        assert (stopped / "checkpoint.pt").exists()
    finally:
        away.rename(photos)
    assert pretrain(photos, stopped)[0] == 0


@pytest.mark.parametrize("files", [["checkpoint.pt"], ["checkpoint.pt", "checkpoint.previous.pt"]])
def test_flipped_bytes_in_a_checkpoint_are_named_and_change_nothing(
    files: list[str], photos: Path, stopped: Path, finished: Path
) -> None:
    for name in files:
        data = bytearray((stopped / name).read_bytes())
        data[len(data) // 2] ^= 1
        (stopped / name).write_bytes(data)
    code, said = pretrain(photos, stopped)
    assert code == 0
    assert all(f"{name} is damaged" in said for name in files)
    for name in WEIGHTS:
        assert (stopped / name).read_bytes() == (finished / name).read_bytes()


def test_a_checkpoint_of_another_network_is_named(photos: Path, stopped: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    pretrain(photos, other, "--backbone.name", "resnet18", epochs=1)
    shutil.copy(other / "checkpoint.pt", stopped / "checkpoint.pt")
    code, said = pretrain(photos, stopped)
    assert code == 2
    assert "checkpoint.pt does not fit this run" in said


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def read_only(path: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
    """`open`, of a disk that can only be read."""
    if set(mode) & set("wax+"):
        raise OSError(errno.EROFS, "Read-only file system")
    return open(path, mode, *rest, **named)


@pytest.mark.parametrize("fault", [full, read_only])
@pytest.mark.parametrize("job", ["report", "embed", "export", "select", "cache"])
def test_a_disk_that_takes_nothing_keeps_what_was_there(
    job: str, fault: Callable[..., None], photos: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = {
        "report": ("report", finished),
        "embed": ("embed", finished, photos, "--out", tmp_path / "file.npz", "--threads", 1),
        "export": ("export", finished, "--format", "torchvision", "--out", tmp_path / "file.safetensors"),
        "select": ("select", finished, photos, "-n", 3, "--out", tmp_path / "folder"),
        "cache": ("pretrain", photos, "--out", tmp_path / "run", *SMALL),
    }
    (tmp_path / "file.safetensors").write_bytes(b"old, of headstart")
    page = (finished / "report.html").read_bytes()
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    if job != "cache":
        command("embed", finished, photos / "a", "--out", tmp_path / "file.npz", "--threads", 1)  # fewer pictures
    old = {path: path.read_bytes() for path in tmp_path.glob("file.*")}
    with monkeypatch.context() as patch:
        if fault is full:
            patch.setattr(os, "fsync", full)
        else:  # root may write everywhere, so no folder's permissions would do
            patch.setattr(files, "open", read_only, raising=False)
        code, said = command(*jobs[job])
    assert code == 1
    assert ("No space left on device" if fault is full else "Read-only file system") in said
    assert (finished / "report.html").read_bytes() == page
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    assert {path: path.read_bytes() for path in tmp_path.glob("file.*")} == old
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.fixture
def vanishing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, str], None]:
    """Have a folder removed just before a file of that name is written below it: after everything that looks for it."""
    real = files.make_folder

    def prepare(folder: Path, name: str) -> None:
        write = files.write

        def written(path: str | Path, *more: Any, **options: Any) -> None:
            if Path(path).name == name:
                monkeypatch.setattr(files, "make_folder", gone)
            write(path, *more, **options)

        def gone(*arguments: Any) -> None:
            shutil.rmtree(folder)
            monkeypatch.setattr(files, "make_folder", real)
            real(*arguments)

        for module in (files, folders, weights, checkpoint, splits):
            for call in ("write", "write_file"):
                if hasattr(module, call):
                    monkeypatch.setattr(module, call, written)

    return prepare


@pytest.mark.parametrize(
    "name",
    [
        "config.yaml",
        "splits.npz",
        "autoencoder.safetensors",
        "pairs.png",
        "checkpoint.pt",
        "backbone.safetensors",
        "map.csv",
        "stages.json",
        "result.json",
        "report.html",
    ],
)
def test_a_folder_that_goes_between_the_look_and_the_write_leaves_no_stub(
    name: str, vanishing: Callable[[Path, str], None], photos: Path, tmp_path: Path
) -> None:
    vanishing(tmp_path / "run", name)
    code, said = pretrain(photos, tmp_path / "run", epochs=1)
    assert code == 1
    assert f"{name} could not be written: No such file or directory; its folder was removed or unmounted" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["map.json", "result.json", "report.html"])
def test_a_folder_that_is_removed_file_by_file_holds_no_result(
    name: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`rm -r` that began just before a file was written into the folder cannot remove it any more."""
    write, run = files.write, tmp_path / "run"

    def written(path: str | Path, *more: Any, **options: Any) -> None:
        if Path(path).name == name:
            for file in [path for path in run.rglob("*") if path.is_file()]:
                file.unlink()
        write(path, *more, **options)

    monkeypatch.setattr(files, "write", written)
    code, said = pretrain(photos, run, epochs=1)
    assert code == 1
    assert "config.yaml is gone: it was removed while the training ran" in said
    assert not (run / "result.json").exists()


@pytest.mark.parametrize("again", [[], ["--overwrite"]])
def test_a_checkpoint_without_its_settings_is_not_gone_on_with(
    again: list[str], photos: Path, stopped: Path, finished: Path
) -> None:
    """Settings that are gone may have been any."""
    (stopped / "config.yaml").unlink()
    code, said = pretrain(photos, stopped, "--seed", 1, *again)
    assert code == (0 if again else 2), said
    assert again or "holds a checkpoint, but no config.yaml that says of which settings" in said
    same = (stopped / WEIGHTS[0]).read_bytes() == (finished / WEIGHTS[0]).read_bytes()
    assert same == (not again)


@pytest.mark.parametrize("job", ["evaluate", "finetune", "report", "export"])
def test_nor_does_it_in_what_is_done_with_a_run(
    job: str, vanishing: Callable[[Path, str], None], photos: Path, finished: Path, tmp_path: Path
) -> None:
    run, out, small = tmp_path / "run", tmp_path / "out", ("--threads", 1, "--device", "cpu")
    shutil.copytree(finished, run)
    said: tuple[object, ...]
    gone, name, said = {
        "evaluate": (run, "own.json", ("evaluate", run, "--name", "own", *small)),
        "finetune": (out, "finetune.json", ("finetune", run, "--out", out, "--epochs", 1, "--no-compare", *small)),
        "report": (run, "report.html", ("report", run)),
        "export": (run, "MODEL_CARD.md", ("export", run, "--format", "torchvision", "--out", tmp_path / "b.pt")),
    }[job]
    vanishing(gone, name)
    code, words = command(*said)
    assert code == 1
    assert f"{name} could not be written" in words
    assert not gone.exists()


def test_changed_settings_are_refused_with_the_difference(photos: Path, stopped: Path, finished: Path) -> None:
    code, said = pretrain(photos, stopped, "--contrastive.temperature", 0.2)
    assert code == 2
    assert "contrastive.temperature: 0.5 -> 0.2" in said
    code, said = pretrain(photos, stopped, epochs=3)
    assert code == 2
    assert "contrastive.epochs: 2 -> 3" in said
    assert "--extend" in said
    assert pretrain(photos, stopped)[0] == 0
    for name in WEIGHTS:
        assert (stopped / name).read_bytes() == (finished / name).read_bytes()


def test_extend_says_what_the_schedule_does(photos: Path, finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    code, said = pretrain(photos, run, "--extend", epochs=3)
    assert code == 0
    assert "extending from 2 to 3 epochs: the learning rate" in said
    assert RunFolder(run).read_result()["contrastive"]["epochs"] == 3


def test_a_second_interrupt_stops_at_once(photos: Path, tmp_path: Path) -> None:
    """The first waits for the step and saves; here the step never ends."""
    program = (
        "import sys, time\n"
        "from headstart.engine.stopping import stop_requested\n"
        "from headstart.training import step\n"
        "from headstart.cli.commands import main\n"
        "def one(*arguments):\n"
        "    open(sys.argv[1], 'w').close()\n"
        "    while not stop_requested(): time.sleep(0.01)\n"
        "    open(sys.argv[2], 'w').close()\n"
        "    time.sleep(600)\n"
        "step.Stepper.__call__ = one\n"
        "main(sys.argv[3:])\n"
    )
    stepping, heard = tmp_path / "stepping", tmp_path / "heard"
    arguments = ["pretrain", str(photos), "--out", str(tmp_path / "run"), *SMALL, "--contrastive.epochs", "2"]
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(stepping), str(heard), *arguments], stderr=subprocess.PIPE, text=True
    )
    for sign in (stepping, heard):
        until = time.monotonic() + 1800
        while not sign.exists():
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=600)[1]
    assert process.returncode == 75
    assert "headstart: stopped; what was saved before is kept" in said
    assert (tmp_path / "run" / "autoencoder.safetensors").exists()
