"""Pictures as given weights expect them, the same in training, embed, export and evaluate."""

import json
import urllib.error
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from headstart import backbones
from headstart.data import open_images
from headstart.evaluate import foreign
from headstart.records.config import BackboneConfig, Config, DataConfig, hash_of
from headstart.records.errors import InputError
from headstart.training import run as pretraining
from headstart.use.export import export
from headstart.use.load import Run, load
from tests.runs import small

pytest.importorskip("timm")


@pytest.mark.parametrize(
    ("name", "weights", "size", "mean", "interpolation", "of"),
    [
        ("resnet18", "pretrained", 224, (0.485, 0.456, 0.406), "bilinear", "ResNet18_Weights.IMAGENET1K_V1"),
        ("swin_t", "imagenet", 224, (0.485, 0.456, 0.406), "bicubic", "Swin_T_Weights"),
        (
            "timm:tf_efficientnet_lite0",
            "pretrained",
            224,
            (0.5, 0.5, 0.5),
            "bicubic",
            "timm:tf_efficientnet_lite0.in1k",
        ),
        ("timm:vit_small_patch14_dinov2", "pretrained", 518, (0.485, 0.456, 0.406), "bicubic", "lvd142m"),
        ("timm:resnet18.tv_in1k", "pretrained", 224, (0.485, 0.456, 0.406), "bilinear", "timm:resnet18.tv_in1k"),
    ],
)
def test_the_library_says_what_its_weights_expect(
    name: str, weights: str, size: int, mean: tuple[float, float, float], interpolation: str, of: str
) -> None:
    found = backbones.expected(name, weights)
    assert found is not None
    assert (found.size, found.mean, found.interpolation) == (size, mean, interpolation)
    assert found.of.endswith(of) or of in found.of


def test_auto_stops_where_time_would_run_away() -> None:
    """DINOv2 was made at 518 px; a user who wants that says so."""
    dino = BackboneConfig(name="timm:vit_small_patch14_dinov2", weights="pretrained")
    for data, auto_size in ((DataConfig(statistics="backbone"), 224), (DataConfig(), None)):
        assert backbones.settled(Config(data=data, backbone=dino)).data.auto_size == auto_size
    given = DataConfig(statistics="backbone", auto_size=518)
    assert backbones.settled(Config(data=given, backbone=dino)).data.auto_size == 518


def test_random_weights_expect_nothing() -> None:
    assert backbones.expected("resnet18", "none") is None
    config = Config(data=DataConfig(statistics="backbone"))
    with pytest.raises(InputError, match=r"interpolation is backbone, but backbone\.weights is none"):
        backbones.settled(config)


def test_a_file_that_does_not_say_is_taken_for_the_librarys(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "weights.pth")
    found = backbones.expected("resnet18", tmp_path / "weights.pth")
    assert found is not None
    assert found.mean == (0.485, 0.456, 0.406)
    assert "as weights.pth does not say" in found.of


@pytest.mark.parametrize(
    "about",
    [
        {"size": "32", "mean": "[0.1, 0.2]", "std": "[1.0, 1.0]"},
        {"size": "32", "mean": "[0.1, 0.2, NaN]", "std": "[1.0, 1.0, 1.0]"},
        {"size": "32", "mean": "[0.1, 0.2, 0.3]", "std": "[1.0, 0.0, 1.0]"},
        {"size": "99999999", "mean": "[]", "std": "[]"},
        {"size": "32", "mean": "__import__('os')", "std": "[]"},
    ],
)
def test_metadata_that_make_no_sense_are_refused(tmp_path: Path, about: dict[str, str]) -> None:
    save_file({"w": torch.ones(1)}, tmp_path / "w.safetensors", about)
    with pytest.raises(InputError, match="metadata hold no size, mean and std"):
        backbones.expected("resnet18", tmp_path / "w.safetensors")


# ------------------------------------------------------------------------------------------------------------- size


def photos(folder: Path, sides: Sequence[int]) -> DataConfig:
    folder.mkdir()
    for i, side in enumerate(sides):
        Image.fromarray(np.full((side, side + 10, 3), i * 9, np.uint8)).save(folder / f"{i}.png")
    return DataConfig(sources=(str(folder),), cache_dir=str(folder.with_name("cache")))


@pytest.mark.parametrize(
    ("sides", "auto_size", "size"),
    [
        ((300, 240, 230), 224, 224),
        ((300, 110, 100), 224, 96),
        ((300, 40, 20), 224, 32),
        ((300, 110, 100), None, 128),
        ((70, 30, 20), None, 128),
    ],
)
def test_auto_takes_the_weights_size_where_the_pictures_have_it(
    tmp_path: Path, sides: tuple[int, int, int], auto_size: int | None, size: int
) -> None:
    data = replace(photos(tmp_path / "photos", sides), auto_size=auto_size)
    images = open_images(data)
    assert images.training_size("auto", auto_size) == size
    again = open_images(replace(data, size=size))
    rows = np.arange(len(sides))
    assert torch.equal(images.squashed(rows, size), again.squashed(rows, size)), "as embed will read them"


def test_a_new_setting_leaves_the_hash_of_older_runs_alone() -> None:
    config = Config()
    assert hash_of(config, "f") == hash_of(replace(config, data=replace(config.data, auto_size=None)), "f")
    assert hash_of(config, "f") != hash_of(replace(config, data=replace(config.data, auto_size=96)), "f")


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
def test_pictures_are_interpolated_as_the_weights_expect(tmp_path: Path, resize: Any) -> None:
    data = replace(photos(tmp_path / "photos", [70] * 20), size=32, resize=resize, interpolation="backbone")
    lite = BackboneConfig(name="timm:tf_efficientnet_lite0", weights="pretrained")
    data = backbones.settled(Config(data=data, backbone=lite)).data
    assert data.interpolation == "bicubic"
    rng = np.random.default_rng(0)
    for i in range(20):
        Image.fromarray(rng.integers(0, 255, (70, 80, 3), dtype=np.uint8)).save(tmp_path / "photos" / f"{i}.png")
    found = open_images(data).squashed(np.arange(20), 32)
    plain = open_images(replace(data, interpolation="bilinear")).squashed(np.arange(20), 32)
    assert not torch.equal(found, plain)
    if resize == "squash":
        picture = Image.open(tmp_path / "photos" / "0.png").resize((32, 32), Image.Resampling.BICUBIC)
        assert np.array_equal(found[0].permute(1, 2, 0).numpy(), np.asarray(picture))


# ------------------------------------------------------------------------------------------------- one Z-score a run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from scratch, one from its weights with its Z-score, and one with the pictures' own."""
    folder = tmp_path_factory.mktemp("runs")
    few = dict(autoencoder={"epochs": 1}, contrastive={"epochs": 1}, head={"init": "random", "frozen": False})
    pretraining.run(small(**few, data={"limit": 64}), folder / "first", quiet=True)
    for name, statistics in (("given", "backbone"), ("own", "train")):
        pretraining.run(
            small(
                **few,
                data={"limit": 80, "size": "auto", "statistics": statistics},
                backbone={"name": "resnet18", "weights": str(folder / "first")},
            ),
            folder / name,
            quiet=True,
        )
    return folder


def zscore(run: Run) -> tuple[list[float], list[float]]:
    assert run.mean is not None
    assert run.std is not None
    return run.mean.tolist(), run.std.tolist()


def test_a_run_from_given_weights_has_their_z_score_everywhere(runs: Path, tmp_path: Path) -> None:
    first, given, own = (load(runs / name) for name in ("first", "given", "own"))
    assert np.allclose(zscore(given), zscore(first), atol=1e-6)
    assert not np.allclose(zscore(own)[0], zscore(first)[0], atol=1e-6)
    for run in (first, given, own):
        mean, std = zscore(run)
        with safe_open(run.folder.backbone, "pt") as file:
            about = file.metadata()
        assert np.allclose(json.loads(about["mean"]), mean, atol=1e-6)
        assert np.allclose(json.loads(about["std"]), std, atol=1e-6)
        export(run, "torchvision", tmp_path / "out.safetensors")
        with safe_open(tmp_path / "out.safetensors", "pt") as file:
            assert np.allclose(json.loads(file.metadata()["mean"]), mean, atol=1e-6)
        assert ", ".join(f"{v:.6g}" for v in mean) in run.folder.card.read_text()


@pytest.mark.parametrize("name", ["resnet18", "timm:resnet18"])
def test_weights_that_cannot_be_had_are_refused_before_anything_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    import huggingface_hub.constants

    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"cannot be fetched \(.+none\|FILE"):
        pretraining.run(small(backbone={"name": name, "weights": "pretrained"}), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_evaluate_repeats_what_the_run_found(runs: Path) -> None:
    path = foreign.evaluate(runs / "given", device="cpu", threads=1)
    found = json.loads(path.read_text())["backbones"]
    assert found["trained"]["probes"]["knn"] == load(runs / "given").result["probes"]["knn"]


def test_evaluate_feeds_given_weights_as_they_expect(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "photos"
    rng = np.random.default_rng(0)
    for i in range(24):
        place = folder / ("train" if i < 16 else "test") / ("a" if i % 2 else "b")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(place / f"{i}.png")
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "w.pth")
    foreign.evaluate(tmp_path / "w.pth", data=[str(folder)], out=tmp_path / "r.json", device="cpu", threads=1)
    said = " ".join(capfd.readouterr().err.split())
    assert "pictures as the weights expect them: 40 px, mean 0.485 0.456 0.406, std 0.229 0.224 0.225, bilinear" in said
    assert "made at 224 px, these pictures are used at less" in said


def test_one_line_says_how_pictures_are_made() -> None:
    config = Config(
        data=DataConfig(statistics="backbone"), backbone=BackboneConfig(name="timm:tf_efficientnet_lite0", weights="x")
    )
    line = backbones.described(replace(config, backbone=replace(config.backbone, weights="pretrained")), 224)
    assert line.startswith("pictures as the weights expect them: 224 px (--data.size 112 takes a quarter of the time)")
    assert backbones.described(Config(), 128) == ""
