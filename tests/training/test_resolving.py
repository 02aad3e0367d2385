"""What a run is to do is settled, and refused where it cannot be, before its folder is touched and anything trains."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from headstart import autoencoders, data
from headstart.data import splits as splitting
from headstart.engine.device import choose
from headstart.records.config import Config
from headstart.records.errors import InputError, RunError
from headstart.records.folder import RunFolder
from headstart.training import resolving
from headstart.training import run as pretraining
from headstart.training.resolving import prepare
from tests.runs import small, until


def pictures(root: Path, change: Any, count: int = 40) -> Path:
    """Noise in two classes, each picture after `change`."""
    for i in range(count):
        path = root / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).integers(0, 255, (16, 16, 3), np.uint8)
        Image.fromarray(change(noise)).save(path)
    return root


def of(root: Path, **sections: Any) -> Config:
    own = {"sources": [str(root)], "limit": None, "cache_dir": str(root.parent / "cache")}
    return small(data=own, contrastive={"batch_size": 8, "epochs": 1}, **sections)


@pytest.mark.parametrize(
    ("n_train", "batch_size"),
    [(3, 2), (10, 8), (100, 16), (127, 16), (255, 16), (256, 32), (421, 32), (2047, 128), (2048, 256), (50_000, 256)],
)
def test_an_unset_batch_leaves_eight_steps_an_epoch(n_train: int, batch_size: int) -> None:
    assert resolving._batch_size(small(contrastive={"batch_size": None}).contrastive, n_train, 10) == batch_size
    if n_train >= 128:
        assert n_train // batch_size >= 8


@pytest.mark.parametrize(
    ("n_train", "batch_size", "epochs", "words"),
    [
        (421, 256, 100, "1 step an epoch for 421 training pictures, and 165 pictures sit out of each: are 100 steps"),
        (256, 256, 10, "1 step an epoch for 256 training pictures: are 10 steps"),
        (64, 40, 50, "24 pictures sit out of each: are 50 steps"),
        (421, 256, 9, None),
        (512, 256, 100, None),
    ],
)
def test_many_epochs_of_one_step_are_questioned(n_train: int, batch_size: int, epochs: int, words: str | None) -> None:
    said = resolving._few_steps(small(contrastive={"epochs": epochs}), batch_size, n_train)
    assert len(said) == (words is not None)
    assert words is None or words in said[0]


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"backbone": {"weights": "typo.pth"}}, "typo.pth"),
        ({"backbone": {"name": "resnet99"}}, "resnet99"),
        ({"device": "cuda:99"}, "cuda:99"),
        ({"autoencoder": {"weights": "nowhere.safetensors"}}, "nowhere.safetensors"),
        ({"autoencoder": {"weights": "other.safetensors"}}, "turns 64 features into 8"),
        ({"autoencoder": {"kind": "conv", "on": "features"}}, "conv"),
        ({"head": {"init": "pca", "hidden_dim": 512}}, "512 directions"),
        ({"head": {"depth": 1}}, "depth 1"),
        ({"augment": {"blur_kernel": 101}}, "blur_kernel"),
        ({"contrastive": {"batch_size": 4096}}, "4096"),
        ({"contrastive": {"passes": 2, "chunk": 2}}, "chunk is 2, .* give at least 3"),
    ],
)
def test_what_any_stage_would_refuse_is_refused_first(
    sections: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    autoencoders.save(autoencoders.Autoencoder(12, 64, 8), "other.safetensors")
    with pytest.raises(InputError, match=words):
        pretraining.run(small(**sections), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"head": {"tokens": 4}}, "head.tokens is for --head.kind attention"),
        ({"contrastive": {"interpolate": [0.5]}}, "contrastive.interpolate is for --contrastive.keep best-probe"),
        ({"contrastive": {"interpolate": [0.5], "keep": "best-probe"}}, None),
        ({"head": {"kind": "attention", "tokens": 4}}, None),
        ({}, None),
    ],
)
def test_settings_that_decide_nothing_are_said(sections: dict[str, Any], words: str | None) -> None:
    splits = splitting.Splits(*(np.arange(n) for n in (40, 5, 5)))
    notes = resolving._without_a_part(small(**sections), splits)
    assert len(notes) == (words is not None)
    assert words is None or words in notes[0]


def test_the_lowest_loss_of_one_validation_picture_is_none() -> None:
    splits = splitting.Splits(*(np.arange(n) for n in (8, 1, 1)))
    (note,) = resolving._without_a_part(small(contrastive={"keep": "best"}), splits)
    assert "two validation pictures" in note


def test_pictures_of_a_few_pixels_are_refused_with_the_way_out(tmp_path: Path) -> None:
    root = pictures(tmp_path / "p", lambda noise: noise[:5, :5])
    config = of(root)
    config = replace(config, data=replace(config.data, size="auto"))
    with pytest.raises(InputError, match=r"all pictures are 5 x 5 pixels, .* --data\.size 8 or more"):
        prepare(config, None, None, choose("cpu"))


def test_weights_that_do_not_fit_are_refused_and_the_corrected_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(torchvision.models.resnet34().state_dict(), "resnet34.pth")
    with pytest.raises(InputError, match=r"resnet34\.pth"):
        pretraining.run(small(backbone={"weights": "resnet34.pth"}), tmp_path / "run", quiet=True)
    path = pretraining.run(until(small(autoencoder={"epochs": 1}), "autoencoder"), tmp_path / "run", quiet=True)
    assert RunFolder(path).is_complete()


def test_settings_of_a_command_that_computed_nothing_bind_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RunError("no memory")

    one_epoch = until(small(autoencoder={"epochs": 1}), "autoencoder")
    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "pretrain_embedding", fails)
        with pytest.raises(RunError):
            pretraining.run(until(small(head={"hidden_dim": 8}), "autoencoder"), tmp_path / "run", quiet=True)
    assert RunFolder(tmp_path / "run").config.exists()
    pretraining.run(one_epoch, tmp_path / "run", quiet=True)
    with pytest.raises(InputError, match=r"head\.hidden_dim: 32 -> 8"):
        pretraining.run(small(head={"hidden_dim": 8}, autoencoder={"epochs": 1}), tmp_path / "run", quiet=True)


@pytest.mark.parametrize("values", [[1, 1, 0], [0, 1, 1], [0, 0, 1], [0, 0, 0]])
def test_a_constant_channel_has_a_z_score_of_0(values: list[int], tmp_path: Path) -> None:
    config = of(pictures(tmp_path / "d", lambda x: x * np.array(values, np.uint8) + np.uint8(7)))
    found = prepare(config, None, None, choose("cpu", "float32", 1))
    mean, std = splitting.statistics(found.images, found.splits, config.data)["train"]
    assert [spread == 1 for spread in std] == [value == 0 for value in values]
    assert np.allclose(mean[np.array(values) == 0], 7 / 255)


def test_a_run_on_pictures_without_blue_ends(tmp_path: Path) -> None:
    root = pictures(tmp_path / "d", lambda x: x * np.array([1, 1, 0], np.uint8))
    result = RunFolder(pretraining.run(of(root), tmp_path / "run", quiet=True)).read_result()
    assert np.isfinite(result["contrastive"]["train_loss"])
    assert 0 <= result["probes"]["knn"]["accuracy"] <= 1


def test_digits_are_never_mirrored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(resolving, "say", said.append)
    compute = choose("cpu", "float32", 1)
    mirrored = small(augment={"flip": 0.5})
    assert prepare(mirrored, None, None, compute).config.augment.flip == 0
    assert said == ["digits is never mirrored: augment.flip 0.5 becomes 0"]
    assert prepare(small(), None, None, compute).config.augment.flip == 0
    photos = of(pictures(tmp_path / "digits-like", lambda x: x), augment={"flip": 0.5})
    assert prepare(photos, None, None, compute).config.augment.flip == 0.5
    assert len(said) == 1
    assert data.open_images(mirrored.data).names
