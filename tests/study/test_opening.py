"""What is refused before anything is trained, and pictures that are not what a label stands for."""

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from headstart import backbones, study
from headstart.data import open_images
from headstart.records.config import load, to_yaml
from headstart.records.errors import InputError
from headstart.study import calls, opening
from tests.study.tiny import TINY, written


def pictures(folder: Path, seed: int) -> Path:
    """Twelve pictures of two classes."""
    draw = np.random.default_rng(seed)
    for number in range(12):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A study on tmp/A/photos whose first run has begun."""
    pictures(tmp_path / "A" / "photos", 0)
    base = {**TINY["base"], "contrastive": {"epochs": 3, "batch_size": 4}}
    file = written(tmp_path, base=base, data=[str(tmp_path / "A" / "photos")], seeds=[0])
    run = study.expand(calls.prepare(study.load(file), tmp_path / "out"))[0]
    config = tmp_path / "out" / "runs" / run.name / "config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(to_yaml(run.config, {"fingerprint": open_images(run.config.data).fingerprint}))
    return file


def other_folder(root: Path) -> Path:
    return pictures(root / "B" / "photos", 1)


def more_pictures(root: Path) -> Path:
    shutil.copy(root / "A" / "photos" / "a" / "0.png", root / "A" / "photos" / "a" / "new.png")
    return root / "A" / "photos"


def other_classes(root: Path) -> Path:
    (root / "A" / "photos" / "a").rename(root / "A" / "photos" / "c")
    return root / "A" / "photos"


@pytest.mark.parametrize("changed", [other_folder, more_pictures, other_classes])
def test_other_pictures_under_the_same_label_are_refused(begun: Path, tmp_path: Path, changed: Any) -> None:
    out = tmp_path / "out"
    before = (out / "study.yaml").read_bytes()
    with pytest.raises(InputError, match=r"other pictures called photos \(.*A/photos\)"):
        study.run(begun, out, data=str(changed(tmp_path)), seeds=[1], workers=0, quiet=True)
    assert (out / "study.yaml").read_bytes() == before
    assert len(list((out / "runs").iterdir())) == 1


def test_the_same_pictures_in_another_place_are_the_same(begun: Path, tmp_path: Path) -> None:
    (tmp_path / "A").rename(tmp_path / "moved")
    loaded = study.load(begun, data=str(tmp_path / "moved" / "photos"), seeds=[1])
    joined = calls.prepare(loaded, tmp_path / "out", lambda planned: opening.check(planned, tmp_path / "out"))
    assert joined.seeds == (0, 1)
    assert joined.data["photos"].sources == (str(tmp_path / "moved" / "photos"),)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (["backbone.weights=no/such/file.pt"], "no/such/file.pt"),
        (["backbone.name=resnet19"], "resnet19"),
        (["backbone.name=resnet18", "backbone.stem=cifar", "backbone.weights=imagenet"], "7x7"),
        (["contrastive.batch_size=4096"], "contrastive.batch-size is 4096"),
        (["data.size=3"], "3"),
        (["head.pretrained=all", "head.init=random"], "pretrained all"),
        (["head.pretrained=all", "head.output_init=orthogonal"], "output_init orthogonal"),
        (["autoencoder.mask_ratio=1"], "autoencoder.mask-ratio is 1"),
        (["autoencoder.active=0"], "autoencoder.active is 0"),
        (["autoencoder.kind=masked", "autoencoder.on=features", "head.init=autoencoder"], "masked, which reads"),
    ],
)
def test_what_no_run_can_have_is_refused_before_any_is_begun(
    tmp_path: Path, settings: list[str], complaint: str
) -> None:
    file = written(tmp_path, factors={"contrastive.temperature": [0.1, 0.5]})
    with pytest.raises(InputError, match=complaint):
        study.run(file, tmp_path / "out", overrides=settings, workers=0, quiet=True)
    assert not (tmp_path / "out" / "study.yaml").exists()
    assert not (tmp_path / "out" / "runs").exists()


def test_weights_that_cannot_be_fetched_are_refused_before_an_autoencoder_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no network here")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    with pytest.raises(InputError, match=r"backbone\.weights none"):
        study.run(written(tmp_path), tmp_path / "out", overrides=["backbone.weights=imagenet"], workers=0, quiet=True)
    assert not (tmp_path / "out" / "runs").exists()


def test_heads_are_compared_from_given_weights(tmp_path: Path) -> None:
    """With their autoencoders, whose pictures are read as the weights expect them."""
    network = "shufflenet_v2_x0_5"
    weights = tmp_path / "given.pth"
    torch.save(backbones.build(network).state_dict(), weights)
    short = {"epochs": 1, "batch_size": 16, "head_epochs": 1}
    given = {"backbone": {"name": network, "weights": str(weights)}, "autoencoder": {"epochs": 1, "normalize": True}}
    base = {**TINY["base"], **given, "contrastive": short}
    file = written(tmp_path, base=base, factors={"head.init": ["random", "autoencoder", "pca"]}, seeds=[0])
    assert study.run(file, tmp_path / "out", workers=0, quiet=True).exit_code == 0
    read = [load(path)[0].data for path in (tmp_path / "out" / "runs").glob("*/config.yaml")]
    assert [data.statistics for data in read] == 4 * ["backbone"]  # the recipe for given weights


def test_one_run_of_many_that_cannot_be_is_named(tmp_path: Path) -> None:
    file = written(tmp_path, factors={"contrastive.batch_size": [8, 64]}, base=without_batch())
    with pytest.raises(InputError, match=r"batch_size=64,seed=0: contrastive\.batch-size is 64"):
        study.run(file, tmp_path / "out", workers=0, quiet=True)


def without_batch() -> dict[str, Any]:
    return {**TINY["base"], "contrastive": {"epochs": 3}}


def test_a_logger_that_cannot_be_had_is_said_once_before_any_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, base={**TINY["base"], "loggers": ["mlflow"]}, seeds=[0])
    with pytest.raises(InputError, match=r"mlflow takes the \? in .*really\?"):
        study.run(file, tmp_path / "really?", workers=0, quiet=True)
    assert not (tmp_path / "really?" / "runs").exists()
    monkeypatch.setitem(sys.modules, "wandb", None)
    file = written(tmp_path, base={**TINY["base"], "loggers": ["wandb"]}, seeds=[0])
    with pytest.raises(InputError, match=r"headstart\[wandb\]"):
        study.run(file, tmp_path / "out", workers=0, quiet=True)
    assert not (tmp_path / "out" / "runs").exists()
