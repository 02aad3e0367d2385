"""A folder that grows: `--extend` with new and removed pictures keeps every old picture's split."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from headstart.data import open_images
from headstart.data import splits as splitting
from headstart.data.splits import Splits
from headstart.engine.loggers import TensorBoard
from headstart.evaluate.foreign import evaluate_run
from headstart.records import files
from headstart.records.config import DataConfig, from_dict
from headstart.records.errors import InputError, Interrupted
from headstart.records.files import read_json
from headstart.records.folder import RunFolder, read_metrics
from headstart.training import contrastive
from headstart.training import run as pretraining
from headstart.training.step import SimCLR

PARTS = ("train", "val", "test")


def add(root: Path, numbers: range, kinds: str = "ab") -> None:
    for kind in kinds:
        (root / kind).mkdir(parents=True, exist_ok=True)
        for number in numbers:
            noise = np.random.default_rng([ord(kind), number]).integers(0, 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(noise).save(root / kind / f"{number:03}.png")


def change(root: Path) -> None:
    """50 new pictures, a class of theirs among them, 10 gone, one renamed."""
    add(root, range(100, 120))
    add(root, range(10), "c")
    for number in range(5):
        (root / "a" / f"{number:03}.png").unlink()
        (root / "b" / f"{number:03}.png").unlink()
    (root / "a" / "050.png").rename(root / "b" / "renamed.png")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `photos` of 120 pictures and a finished `run` of it."""
    root = tmp_path_factory.mktemp("growing")
    add(root / "photos", range(60))
    extend(root)
    return root


@pytest.fixture
def root(first: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(first, tmp_path / "root"))


def extend(root: Path, epochs: int = 1, **more: object) -> RunFolder:
    values = {
        "backbone": {"name": "resnet18", "stem": "cifar"},
        "autoencoder": {"epochs": 1},
        "head": {"hidden_dim": 8, "output_dim": 8},
        "contrastive": {"epochs": epochs},
        "probe": {"names": ["knn"]},
        "checkpoint": {"minutes": 0},
        "precision": "float32",
        "threads": 1,
        **more,
    }
    values["data"] = {"sources": [str(root / "photos")], **values.get("data", {})}  # type: ignore[dict-item]
    return RunFolder(pretraining.run(from_dict(values), root / "run", extend=True, quiet=True))


def parts(root: Path) -> dict[str, str]:
    """Each picture's content, and the part it is in."""
    images = open_images(DataConfig(sources=(str(root / "photos"),)))
    splits = Splits.load(root / "run" / "splits.npz", len(images))
    return {images.digests[i].tobytes().hex(): part for part in PARTS for i in getattr(splits, part)}


@pytest.mark.parametrize("epochs", [1, 2])
def test_old_pictures_keep_their_split_and_new_ones_fill_the_shares(root: Path, epochs: int) -> None:
    before = parts(root)
    weights = load_file(root / "run" / "backbone.safetensors")
    change(root / "photos")
    folder = extend(root, epochs)
    after, result = parts(root), folder.read_result()
    stayed = before.keys() & after.keys()
    assert len(stayed) == 110
    assert all(after[name] == before[name] for name in stayed)
    assert len(after) == 160
    assert {part: list(after.values()).count(part) for part in PARTS} == {"train": 112, "val": 16, "test": 32}
    assert result["data"]["train"] == 112
    assert result["data"]["classes"] == ["a", "b", "c"]
    assert result["probes"]["knn"]["n_test"] == 32
    (grown,) = yaml.safe_load(folder.config.read_text())["about"]["grown"]
    assert sum(grown["new"].values()) == 50
    assert sorted(grown["removed"]) == [f"{kind}/{number:03}.png" for kind in "ab" for number in range(5)]
    assert result["contrastive"]["epochs"] == epochs
    same = all(torch.equal(tensor, weights[name]) for name, tensor in load_file(folder.backbone).items())
    assert same == (epochs == 1)  # without more epochs the backbone stays, and is judged on what there is now


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_best_epoch_is_one_of_the_pictures_that_are_there(first: Path, tmp_path: Path, keep: str) -> None:
    """A loss of fewer validation pictures is a lower one: all that was trained since gave way to the weights of
    before."""
    root = Path(shutil.copytree(first, tmp_path / "root"))
    shutil.rmtree(root / "run")
    settings: dict[str, Any] = {"keep": keep, "lr": 0.01}
    before = extend(root, contrastive={"epochs": 1, **settings}, probe={"names": []})
    weights, loss = load_file(before.backbone), before.read_result()["contrastive"]["val_loss"]
    change(root / "photos")
    after = extend(root, contrastive={"epochs": 2, **settings}, probe={"names": []})
    found = after.read_result()["contrastive"]
    assert found["best_epoch"] == 2
    assert found["val_loss"] > loss
    assert not torch.equal(load_file(after.backbone)["conv1.weight"], weights["conv1.weight"])


def test_a_backbone_that_is_not_trained_on_keeps_its_z_score(root: Path) -> None:
    before = RunFolder(root / "run").read_result()["data"]
    for number in range(100, 110):
        Image.new("RGB", (16, 16), (250, 5, 5)).save(root / "photos" / "a" / f"{number}.png")
    assert extend(root).read_result()["data"]["mean"] == before["mean"]
    assert extend(root, epochs=2).read_result()["data"]["mean"] != before["mean"]


def test_a_set_that_was_sorted_into_classes_since_is_trained_on(tmp_path: Path) -> None:
    """It is watched by a classifier from then on, and validates where one picture was too few to."""
    photos = tmp_path / "photos"
    add(tmp_path / "drawn", range(10), "ab")
    photos.mkdir()
    for kind in "ab":
        for number in range(6):
            shutil.copy(tmp_path / "drawn" / kind / f"{number:03}.png", photos / f"{kind}{number}.png")
    before = extend(tmp_path, probe={"names": []})
    assert read_metrics(before.metrics)[-1].get("accuracy") is None
    assert before.read_result()["contrastive"]["val_loss"] is None
    shutil.rmtree(photos)
    shutil.copytree(tmp_path / "drawn", photos)
    after = extend(tmp_path, 2, probe={"names": []}).read_result()
    assert (after["contrastive"]["epochs"], after["data"]["classes"]) == (2, ["a", "b"])
    assert after["contrastive"]["val_loss"] > 0
    last = [line for line in read_metrics(before.metrics) if line["stage"] == "contrastive"][-1]
    assert (last["epoch"], last["val_loss"]) == (2, after["contrastive"]["val_loss"])
    assert "accuracy" in last


def test_nothing_new_is_said_and_nothing_done(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = (root / "run" / "result.json").stat().st_mtime_ns
    extend(root)
    assert (root / "run" / "result.json").stat().st_mtime_ns == result


@pytest.mark.parametrize("epochs", [1, 2])
def test_labels_that_came_later_are_judged_by(root: Path, epochs: int) -> None:
    """The same pictures in the same split; the backbone stays unless more epochs are asked for."""
    shutil.rmtree(root / "run")
    names = [f"{kind}/{number:03}.png" for kind in "ab" for number in range(60)]

    def labelled(few: int, epochs: int) -> RunFolder:
        lines = [f"{name},{name[0]}\n" for name in names[::few]]
        (root / "labels.csv").write_text("name,label\n" + "".join(lines))
        return extend(root, epochs, data={"labels": str(root / "labels.csv")})

    before = labelled(3, 1).read_result()
    split, weights = (root / "run" / "splits.npz").read_bytes(), load_file(root / "run" / "backbone.safetensors")
    folder = labelled(1, epochs)
    result = folder.read_result()
    assert (before["data"]["labelled"], result["data"]["labelled"]) == (40, 120)
    assert result["probes"]["knn"]["n_test"] == 24 > before["probes"]["knn"]["n_test"]
    assert result["contrastive"]["epochs"] == epochs
    same = torch.equal(load_file(folder.backbone)["conv1.weight"], weights["conv1.weight"])
    assert same == (epochs == 1)
    assert folder.splits.read_bytes() == split
    (grown,) = yaml.safe_load(folder.config.read_text())["about"]["grown"]
    assert grown == {"new": dict.fromkeys(PARTS, 0), "removed": []}
    done = folder.result.stat().st_mtime_ns
    labelled(1, epochs)
    assert folder.result.stat().st_mtime_ns == done


def test_a_run_begun_without_labels_takes_those_of_a_file(root: Path) -> None:
    """Its backbone and split stay, and its settings name the file."""
    shutil.rmtree(root / "run")
    begun = extend(root, data={"labels": "none"})
    assert begun.read_result()["data"]["labelled"] == 0
    kept = [path.read_bytes() for path in (begun.backbone, begun.splits)]
    names = [f"{kind}/{number:03}.png" for kind in "ab" for number in range(60)]
    (root / "labels.csv").write_text("name,label\n" + "".join(f"{name},{name[0]}\n" for name in names))
    later = {"labels": str(root / "labels.csv")}
    result = extend(root, data=later).read_result()
    assert (result["data"]["labelled"], result["probes"]["knn"]["n_test"]) == (120, 24)
    assert [path.read_bytes() for path in (begun.backbone, begun.splits)] == kept
    assert yaml.safe_load(begun.config.read_text())["data"]["labels"] == later["labels"]


def test_a_killed_extension_goes_on_to_the_byte(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change(root / "photos")
    whole = tmp_path / "whole"
    shutil.copytree(root, whole)
    extend(whole, epochs=3)
    real = contrastive.Watch.validation_loss

    def stop(self: contrastive.Watch, model: SimCLR) -> float | None:
        os.kill(os.getpid(), signal.SIGTERM)
        return real(self, model)

    with monkeypatch.context() as patch:
        patch.setattr(contrastive.Watch, "validation_loss", stop)
        with pytest.raises(Interrupted):
            extend(root, epochs=3)
    with pytest.raises(InputError, match="--extend has carried the old split over"):
        pretraining.run(from_dict(_settings(root)), root / "run", quiet=True)
    extend(root, epochs=3)
    for name in ("backbone.safetensors", "head.safetensors", "splits.npz"):
        assert (root / "run" / name).read_bytes() == (whole / "run" / name).read_bytes()


@pytest.mark.parametrize(
    ("when", "name", "epochs"),
    [
        ("before", "config.yaml", 1),
        ("before", "splits.npz", 1),
        ("after", "splits.npz", 1),
        ("after", "stages.json", 1),
        ("after", "result.json", 1),
        ("after", "stages.json", 2),
        ("after", "result.json", 2),
    ],
)
def test_an_extension_killed_at_any_file_ends_as_if_it_had_not_been(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, name: str, epochs: int
) -> None:
    """Its page and its records too: between result.json and report.html the page told of the pictures of before."""
    change(root / "photos")
    (root / "run" / "MODEL_CARD.md").write_text("of the weights of before")
    whole = Path(shutil.copytree(root, tmp_path / "whole"))
    extend(whole, epochs)
    write = files.write

    def killed(path: str | Path, *more: Any, **options: Any) -> None:
        if Path(path).name == name and when == "before":
            raise KeyboardInterrupt
        write(path, *more, **options)
        if Path(path).name == name:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files, "write", killed)
        patch.setattr(splitting, "write_file", killed)
        with pytest.raises(KeyboardInterrupt):
            extend(root, epochs)
    extend(root, epochs)
    told = ("figures/probes.csv", "figures/confusion.csv", "samples/map.csv", "splits.npz", "backbone.safetensors")
    for file in told:
        assert (root / "run" / file).read_bytes() == (whole / "run" / file).read_bytes(), file
    logged = [[_untimed(line) for line in read_metrics(one / "run" / "metrics.jsonl")] for one in (root, whole)]
    assert logged[0] == logged[1]
    assert [line["pictures"] for line in logged[0] if line["stage"] == "data"] == [120, 160]
    assert not (root / "run" / "MODEL_CARD.md").exists()
    grown = [yaml.safe_load((folder / "run" / "config.yaml").read_text())["about"]["grown"] for folder in (root, whole)]
    assert grown[0] == grown[1]
    assert not (root / "run" / "stages.json").exists()


def _untimed(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name not in ("pairs_per_s", "pictures_per_s", "data_wait")}


def test_what_an_extension_does_not_make_anew_does_not_stay(root: Path) -> None:
    """Its map is of other weights, and of pictures that are gone."""
    assert list((root / "run" / "samples").glob("map*"))
    extend(root, epochs=2, stages="contrastive")
    assert not list((root / "run" / "samples").glob("map*"))


def test_it_is_evaluated_with_the_z_score_that_it_was_trained_with(root: Path) -> None:
    """Pictures that came since are no reason to feed a backbone otherwise than result.json did."""
    for number in range(100, 110):
        Image.new("RGB", (16, 16), (250, 5, 5)).save(root / "photos" / "a" / f"{number}.png")
    result = extend(root).read_result()
    found = read_json(evaluate_run(root / "run", threads=1))["backbones"]["trained"]
    assert found["probes"]["knn"]["accuracy"] == result["probes"]["knn"]["accuracy"]
    assert found["geometry"]["effective_rank"] == pytest.approx(result["geometry"]["effective_rank"], rel=1e-6)


def test_loggers_miss_no_epoch_of_an_extension(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of probes are forgotten when SimCLR goes on; so many epochs were then taken for sent."""
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(TensorBoard, "__init__", lambda *_: None)
    monkeypatch.setattr(TensorBoard, "send", lambda _, lines: sent.extend(lines))
    monkeypatch.setattr(TensorBoard, "close", lambda *_: None)
    change(root / "photos")
    extend(root, epochs=4, loggers=["tensorboard"])
    assert [line["epoch"] for line in sent if line["stage"] == "contrastive"] == [2, 3, 4]


def test_an_overwriting_run_that_was_stopped_before_its_page_goes_on(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(path: Path) -> None:
        raise Interrupted("stopped")

    def again() -> None:
        pretraining.run(from_dict(_settings(root)), root / "run", overwrite=True, quiet=True)

    with monkeypatch.context() as patch:
        patch.setattr("headstart.training.result.report.write_report", stopped)
        with pytest.raises(Interrupted):
            again()
    trained = (root / "run" / "backbone.safetensors").stat().st_mtime_ns
    again()
    assert (root / "run" / "backbone.safetensors").stat().st_mtime_ns == trained
    assert (root / "run" / "report.html").exists()


def _settings(root: Path) -> dict[str, object]:
    values = yaml.safe_load((root / "run" / "config.yaml").read_text())
    values.pop("about")
    values["data"]["sources"] = [str(root / "photos")]
    return dict(values)


def test_a_set_that_is_limited_does_not_grow(first: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(first, tmp_path / "root"))
    shutil.rmtree(root / "run")
    extend(root, data={"limit": 60})
    change(root / "photos")
    with pytest.raises(InputError, match=r"--data\.limit has a fixed set"):
        extend(root, data={"limit": 60})
    assert (root / "run" / "result.json").exists()


def test_a_pipe_in_place_of_the_split_is_not_waited_for(root: Path) -> None:
    (root / "run" / "splits.npz").unlink()
    os.mkfifo(root / "run" / "splits.npz")
    with pytest.raises(InputError, match=r"splits\.npz is damaged .*not a plain file"):
        extend(root)


def test_digests_that_are_not_of_these_pictures_are_damage(root: Path) -> None:
    with np.load(root / "run" / "splits.npz") as found:
        np.savez(root / "run" / "splits.npz", **{**found, "digests": found["digests"][:-1]})
    with pytest.raises(InputError, match=r"splits\.npz is damaged .*digests is uint8"):
        extend(root)


def test_without_extend_changed_pictures_are_refused_and_the_option_named(root: Path) -> None:
    settings = _settings(root)
    settings["contrastive"]["epochs"] = 1  # type: ignore[index]
    change(root / "photos")
    (root / "run" / "result.json").unlink()
    with pytest.raises(InputError, match="--extend allows new pictures"):
        pretraining.run(from_dict(settings), root / "run", quiet=True)
