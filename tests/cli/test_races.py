"""Two real processes on one --out at once: the second is told, or both end well and the files are all of one."""

import contextlib
import csv
import json
import os
import re
import shlex
import shutil
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.cli import demo
from headstart.cli.commands import main
from headstart.engine.device import choose
from headstart.records.config import hash_of, load
from headstart.records.errors import InputError
from headstart.training import resolving
from headstart.training import run as training
from headstart.use import finetune as finetuning
from headstart.use import labelled
from headstart.use.load import Run
from headstart.use.load import load as load_run
from tests.processes import prepared
from tests.runs import small
from tests.shapes import photos, run
from tests.study.tiny import written

__all__ = ["photos", "run"]

COMPUTE = ["--device", "cpu", "--threads", "1"]
QUICK = shlex.split(
    "--data.size 16 --backbone.name shufflenet_v2_x0_5 --head.init random --head.no-frozen --contrastive.epochs 1 "
    "--contrastive.batch-size 16 --probe.names knn"
)
TOLD = r"is in use: process (\d+) on \S+ has been at work in it since 20|holds a finished (run|classifier)"


def command(start: Barrier, arguments: list[str], said: str) -> None:
    """A command line in a process of its own, begun when the other one is there; what it said goes into a file."""
    with open(said, "w", encoding="utf-8") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
        demo.config = small
        start.wait(600)
        main(arguments)


def race(place: Path, *commands: list[str]) -> list[tuple[int, str]]:
    """Exit code and words of commands that begin together."""
    context = prepared()
    start = context.Barrier(len(commands))
    place.mkdir(exist_ok=True)
    said = [place / f"said-{number}.txt" for number in range(len(commands))]
    processes: list[ForkServerProcess] = [
        context.Process(target=command, args=(start, arguments, str(file)))
        for arguments, file in zip(commands, said, strict=True)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    words = [" ".join(file.read_text(encoding="utf-8").split()) for file in said]
    return [(int(process.exitcode or 0), text) for process, text in zip(processes, words, strict=True)]


def the_second_was_told(ended: list[tuple[int, str]]) -> int:
    """Which of two ended well; the other was told who works there, or that it is finished by now."""
    assert sorted(code for code, _ in ended) == [0, 2], ended
    codes = [code for code, _ in ended]
    refused = ended[codes.index(2)][1]
    assert re.search(TOLD, refused), refused
    return codes.index(0)


def test_pretrain(photos: Path, tmp_path: Path) -> None:
    call = ["pretrain", str(photos), "--out", str(tmp_path / "r"), *QUICK, *COMPUTE]
    first = the_second_was_told(race(tmp_path / "said", [*call, "--seed", "0"], [*call, "--seed", "1"]))
    config, about = load(tmp_path / "r" / "config.yaml")
    assert config.seed == first
    found = load_run(tmp_path / "r")
    assert found.result["config_hash"] == hash_of(config, str(about["fingerprint"]))
    assert found.backbone is not None  # its bytes are those that result.json speaks of
    assert not list((tmp_path / "r").glob(".claim*"))


def test_finetune(run: Run, photos: Path, tmp_path: Path) -> None:
    call = ["finetune", str(run.folder.path), str(photos), "--out", str(tmp_path / "c"), *COMPUTE, "--epochs"]
    first = the_second_was_told(race(tmp_path / "said", [*call, "1"], [*call, "2"]))
    record = json.loads((tmp_path / "c" / "finetune.json").read_text())
    assert record["settings"]["epochs"] == first + 1
    lines = [json.loads(line) for line in (tmp_path / "c" / "metrics.jsonl").read_text().splitlines()]
    assert max(line["epoch"] for line in lines) <= first + 1


def test_demo(tmp_path: Path) -> None:
    call = ["demo", "--out", str(tmp_path / "d"), *COMPUTE]
    the_second_was_told_or_showed(race(tmp_path / "said", call, call))
    seen = {path.name: load(path / "config.yaml")[0].head.init for path in (tmp_path / "d" / "runs").iterdir()}
    assert seen == {"autoencoder-frozen": "autoencoder", "random-trainable": "random"}
    for name in seen:
        load_run(tmp_path / "d" / "runs" / name)


def the_second_was_told_or_showed(ended: list[tuple[int, str]]) -> None:
    """A demo that begins when the other has ended shows what is there."""
    for code, text in ended:
        assert code in (0, 2), text
        assert code == 0 or re.search(TOLD, text), text
    assert 0 in {code for code, _ in ended}


def test_embed_into_one_file(run: Run, photos: Path, tmp_path: Path) -> None:
    """Both end well, and the file is whole and of one of them."""
    other = tmp_path / "other"
    shutil.copytree(photos / "ring", other / "ring")
    (other / "ring" / "05.png").unlink()
    call = ["embed", str(run.folder.path)]
    end = ["--out", str(tmp_path / "e.npz"), *COMPUTE]
    ended = race(tmp_path / "said", [*call, str(photos), *end], [*call, str(other), *end])
    assert [code for code, _ in ended] == [0, 0], ended
    images = {count: run.open_images(source) for count, source in ((60, photos), (19, other))}
    with np.load(tmp_path / "e.npz") as file:
        whole = images[len(file["names"])]
        assert file["names"].tolist() == whole.names
        np.testing.assert_array_equal(file["digests"], whole.digests)
        assert len(file["embeddings"]) == len(whole)
    assert {path.name for path in tmp_path.iterdir()} == {"said", "other", "e.npz"}


def test_evaluate_one_run(run: Run, photos: Path, tmp_path: Path) -> None:
    """Of the same pictures and of others."""
    other = Path(shutil.copytree(photos, tmp_path / "other"))
    (other / "ring" / "05.png").unlink()
    folder = Path(shutil.copytree(run.folder.path, tmp_path / "r"))
    before = (folder / "result.json").read_bytes()
    call = ["evaluate", str(folder), *COMPUTE]
    ended = race(tmp_path / "said", call, [*call, "--data", str(other)])
    assert [code for code, _ in ended] == [0, 0], ended
    found = [json.loads(path.read_text()) for path in (folder / "evaluations").iterdir()]
    assert sorted(one["data"]["train"] + one["data"]["val"] + one["data"]["test"] for one in found) == [59, 60]
    assert (folder / "result.json").read_bytes() == before


def test_select_into_one_folder(run: Run, photos: Path, tmp_path: Path) -> None:
    call = ["select", str(run.folder.path), str(photos), "--out", str(tmp_path / "s"), *COMPUTE, "-n"]
    ended = race(tmp_path / "said", [*call, "3"], [*call, "5"])
    assert [code for code, _ in ended] == [0, 0], ended
    lists = {}
    for name in ("outliers", "label-next"):
        with (tmp_path / "s" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            lists[name] = len([*csv.DictReader(file)])
    assert lists["outliers"] == lists["label-next"]
    assert lists["outliers"] in (3, 5)


@pytest.mark.parametrize("other", [False, True])
def test_a_study(other: bool, tmp_path: Path) -> None:
    """The same study is done by both; another one of another base is refused, and harms nothing."""
    file = written(tmp_path)
    call = ["study", "run", str(file), "--out", str(tmp_path / "out"), "--workers", "0"]
    ended = race(tmp_path / "said", call, [*call, *(["--set", "contrastive.epochs=2"] if other else [])])
    codes = [code for code, _ in ended]
    assert sorted(codes) == ([0, 2] if other else [0, 0]), ended
    if other:
        assert "was begun with another base (contrastive.epochs" in ended[codes.index(2)][1]
    epochs = 2 if other and codes == [2, 0] else 3
    runs = [path for path in (tmp_path / "out" / "runs").iterdir() if "seed=" in path.name]
    assert len(runs) == 4
    for path in runs:
        found = load_run(path)
        assert found.config.contrastive.epochs == found.result["contrastive"]["epochs"] == epochs
        lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        assert [line["epoch"] for line in lines if line["stage"] == "contrastive" and "val_loss" in line] == [
            *range(1, epochs + 1)
        ]
    with contextlib.suppress(FileNotFoundError):
        assert not list((tmp_path / "out").rglob(".claim*"))


def test_what_another_finishes_while_the_pictures_are_read_stays(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No claim is in the way any more, and the folder was free when it was first looked at."""
    out, classifier = tmp_path / "r", tmp_path / "c"
    real_prepare, real_split = resolving.prepare, labelled.split

    def prepare_and_finish(*arguments: Any, **named: Any) -> Any:
        shutil.copytree(run.folder.path, out)
        return real_prepare(*arguments, **named)

    def split_and_finish(*arguments: Any, **named: Any) -> Any:
        classifier.mkdir()
        (classifier / "finetune.json").write_text("{}")
        return real_split(*arguments, **named)

    monkeypatch.setattr(training, "prepare", prepare_and_finish)
    monkeypatch.setattr(finetuning, "split", split_and_finish)
    with pytest.raises(InputError, match=r"r holds a finished run \(stage probe\)"):
        training.run(run.config, out, quiet=True)
    with pytest.raises(InputError, match="c holds a finished classifier"):
        finetuning.finetune(run, photos, classifier, compute=choose("cpu", threads=1), quiet=True)
    assert {path.name for path in classifier.iterdir()} == {"finetune.json"}
    assert (out / "backbone.safetensors").read_bytes() == run.folder.backbone.read_bytes()


def test_a_classifier_is_not_put_into_a_run_that_was_begun(run: Run, photos: Path, tmp_path: Path) -> None:
    shutil.copy(run.folder.config, tmp_path)
    with pytest.raises(InputError, match="holds a run, not a classifier"):
        finetuning.finetune(run, photos, tmp_path, compute=choose("cpu", threads=1), quiet=True)
