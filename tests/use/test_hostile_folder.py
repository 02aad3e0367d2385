"""Run folders from strangers: what stands where a file should may be a pipe, a device, a link or of the wrong shape."""

import base64
import json
import os
import pickle
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headstart.cli.commands import main
from headstart.records.config import hash_of, load, to_yaml
from headstart.records.folder import RunFolder
from headstart.use.load import Run
from tests.shapes import photos, run

__all__ = ["photos", "run"]

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")


@pytest.fixture(autouse=True)
def _never_for_ever() -> Iterator[None]:
    """Who waits for a pipe that nobody writes to waits for ever."""
    before = signal.signal(signal.SIGALRM, _hangs)
    signal.alarm(1800)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _hangs(number: int, frame: object) -> None:
    raise TimeoutError("it waits for what never comes")


@pytest.fixture
def folder(run: Run, tmp_path: Path) -> RunFolder:
    """A copy of a finished run."""
    return RunFolder(shutil.copytree(run.folder.path, tmp_path / "run"))


def ended(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    return int(stop.value.code or 0)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("put", [pipe, endless])
@pytest.mark.parametrize("name", ["result", "config", "metrics", "skipped"])
def test_report_names_what_is_no_file(
    name: str, put: Callable[[Path], None], folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    path: Path = getattr(folder, name)
    path.unlink(missing_ok=True)
    put(path)
    assert ended("report", folder.path) == 2
    assert f"{path} cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("put", [pipe, endless])
@pytest.mark.parametrize("name", ["config", "backbone"])
def test_embed_names_what_is_no_file(
    name: str,
    put: Callable[[Path], None],
    folder: RunFolder,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path: Path = getattr(folder, name)
    path.unlink()
    put(path)
    assert ended("embed", folder.path, photos, "--out", tmp_path / "e.npz") == 2
    assert str(path) in capsys.readouterr().err
    assert not (tmp_path / "e.npz").exists()


@pytest.mark.parametrize("put", [pipe, endless])
@pytest.mark.parametrize("name", ["checkpoint", "stages", "splits"])
def test_going_on_names_what_is_no_file(
    name: str, put: Callable[[Path], None], folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    path: Path = getattr(folder, name)
    if name == "stages":
        folder.result.unlink()
    path.unlink(missing_ok=True)
    put(path)
    command = ("evaluate", folder.path) if name == "splits" else ("pretrain", "--config", folder.config, "--out")
    assert ended(*command, *(() if name == "splits" else (folder.path, "--contrastive.epochs", "3", "--extend"))) == 2
    error = capsys.readouterr().err
    assert str(path) in error
    assert "plain file" in error


READS_THE_SPLIT = {
    "evaluate": "evaluate {run}",
    "finetune": "finetune {run} --out {out} --epochs 1",
    "extended": "pretrain --config {run}/config.yaml --out {run} --extend",
    "resumed": "pretrain --config {run}/config.yaml --out {run}",
}


@pytest.mark.parametrize("command", READS_THE_SPLIT)
@pytest.mark.parametrize("kind", ["pickle", "cut", "text", "other"])
def test_junk_in_place_of_the_split_is_said_in_one_sentence(
    command: str, kind: str, folder: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = folder.splits.read_bytes()
    junk = {"pickle": pickle.dumps({"train": [1]}), "cut": whole[: len(whole) // 2], "text": b"train: 1 2 3"}
    words = {"pickle": "Python objects", "cut": "cut short", "text": "no file of arrays", "other": "rising list"}
    if kind == "other":
        with np.load(folder.splits) as found:
            np.savez(folder.splits, **{**found, "test": np.arange(3.0)})
    else:
        folder.splits.write_bytes(junk[kind])
    if command == "resumed":
        folder.result.unlink()
    said = READS_THE_SPLIT[command].format(run=folder.path, out=tmp_path / "out")
    assert ended(*said.split(), "--threads", "1", "--device", "cpu") == 2
    error = capsys.readouterr().err
    assert f"{folder.splits} is damaged" in error
    assert words[kind] in error
    assert "restore it" in error
    assert "allow_pickle" not in error


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "5",
        '{"contrastive": 5}',
        '{"seconds": []}',
        '{"autoencoder": "x", "contrastive": {"epochs": "9"}}',
        '{"head": {"x": 1e999}}',
        '{"contrastive": {"epochs": 2, "train_loss": 1}, "seconds": {"contrastive": "a"}}',
    ],
)
def test_what_finished_stages_found_is_checked(
    content: str, folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.result.unlink()
    folder.stages.write_text(content)
    assert ended("pretrain", "--config", folder.config, "--out", folder.path) == 2
    assert f"{folder.stages} is not what finished stages found" in capsys.readouterr().err
    assert not folder.result.exists()


def test_the_page_holds_pictures_of_the_run_alone(folder: RunFolder, tmp_path: Path) -> None:
    """No pipe, no device, and nothing that a link leads to."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"nobody else's business" * 20)
    pairs = folder.samples / "pairs.png"
    picture = pairs.read_bytes()
    assert ended("report", folder.path) == 0
    assert base64.b64encode(picture).decode() in folder.report.read_text()
    for put in (pipe, endless, lambda path: path.symlink_to(secret), lambda path: path.write_bytes(b"GIF89a")):
        pairs.unlink()
        put(pairs)
        assert ended("report", folder.path) == 0
        page = folder.report.read_text()
        assert "What SimCLR sees" not in page
        assert base64.b64encode(secret.read_bytes()).decode()[:24] not in page


@pytest.mark.parametrize("name", ["tables", "figures"])
def test_a_report_is_not_written_through_a_link(
    name: str, folder: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.rmtree(folder.path / name, ignore_errors=True)
    (folder.path / name).symlink_to(elsewhere)
    assert ended("report", folder.path) == 2
    assert "is a link to another folder" in capsys.readouterr().err
    assert not any(elsewhere.iterdir())


def test_what_report_html_links_to_is_left_alone(folder: RunFolder, tmp_path: Path) -> None:
    victim = tmp_path / "victim.html"
    victim.write_text("mine")
    folder.report.unlink(missing_ok=True)
    folder.report.symlink_to(victim)
    assert ended("report", folder.path) == 0
    assert victim.read_text() == "mine"
    assert not folder.report.is_symlink()


@pytest.mark.parametrize("name", ["resnet34", "timm:resnet10t", "shufflenet_v2_x0_5"])
def test_weights_of_another_network_are_named(
    name: str, folder: RunFolder, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if name.startswith("timm"):
        pytest.importorskip("timm")
    config, about = load(folder.config)
    config = replace(config, backbone=replace(config.backbone, name=name))
    folder.config.write_text(to_yaml(config, about))
    result = {**folder.read_result(), "config_hash": hash_of(config, about["fingerprint"])}
    folder.result.write_text(json.dumps(result))
    assert ended("embed", folder.path, photos, "--out", tmp_path / "e.npz") == 2
    assert f"does not hold the weights of {name}" in capsys.readouterr().err


ALTERED: dict[str, Callable[[str], str]] = {
    "empty": lambda text: "",
    "a comment alone": lambda text: "# settings\n",
    "a list": lambda text: "[]\n",
    "cut short at the end of a line": lambda text: text[: text.index("\nhead:") + 1],
    "without its pictures": lambda text: text.replace("fingerprint:", "fingerprints:"),
    "another seed": lambda text: text.replace("\nseed: 0", "\nseed: 1"),
    "another network": lambda text: text.replace("name: resnet18", "name: resnet34"),
}


@pytest.mark.parametrize("command", ["embed", "evaluate"])
@pytest.mark.parametrize("how", ALTERED)
def test_settings_that_are_not_the_results_are_refused(
    how: str, command: str, folder: RunFolder, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is missing would else be the defaults, in silence."""
    text = folder.config.read_text()
    folder.config.write_text(ALTERED[how](text))
    assert folder.config.read_text() != text
    more = [photos, "--out", tmp_path / "e.npz"] if command == "embed" else ["--out", tmp_path / "e.json"]
    assert ended(command, folder.path, *more) == 2
    said = capsys.readouterr().err
    assert "is not the one under which result.json" in said or "must hold options by section" in said
