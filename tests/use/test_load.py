"""A finished run opens again as what it was."""

from pathlib import Path

import numpy as np
import pytest
import torch

import headstart
from headstart.engine.device import choose
from headstart.records.errors import InputError
from headstart.training.run import run as pretrain
from headstart.use.load import Run, load


def test_the_backbone_is_what_was_trained(run: Run):
    from safetensors.torch import load_file

    stored = load_file(run.folder.backbone)
    for name, tensor in run.backbone.state_dict().items():
        assert torch.equal(tensor.cpu(), stored[name])
    assert not run.backbone.training
    untrained = run.untrained_backbone().state_dict()
    assert not torch.equal(untrained["conv1.weight"], stored["conv1.weight"])


def test_embed_takes_folders_files_pictures_and_tensors(run: Run, photos: Path):
    compute = choose("cpu", "float32", threads=1)
    images = run.open_images(photos)
    h = run.embed(photos, compute=compute)
    assert h.shape == (len(images), 512)
    assert h.dtype == np.float32
    np.testing.assert_array_equal(run.embed(images, compute=compute), h)
    first = run.embed(images.squashed([0, 1], run.size), compute=compute)
    np.testing.assert_allclose(first, h[:2], atol=1e-4)
    where = images.names.index("ring/03.png")
    np.testing.assert_allclose(run.embed(photos / "ring" / "03.png", compute=compute)[0], h[where], atol=1e-4)
    files = [photos / "ring" / "04.png", photos / "ring" / "03.png"]
    rows = [images.names.index(f"ring/{file.name}") for file in files]
    np.testing.assert_allclose(run.embed(files, compute=compute), h[rows], atol=1e-4)


def test_embed_refuses_a_named_file_without_a_row(run: Run, photos: Path, tmp_path: Path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"broken\.png cannot be read"):
        run.embed([photos / "ring" / "03.png", tmp_path / "broken.png"])


def test_other_pictures_do_not_need_the_runs_list_of_labels(run: Run, photos: Path, tmp_path: Path):
    labels = tmp_path / "labels.csv"
    labels.write_text("name,label\n" + "".join(f"{name},a\n" for name in run.open_images(photos).names))
    from dataclasses import replace

    listed = Run(run.folder, replace(run.config, data=replace(run.config.data, labels=str(labels))), run.result)
    assert listed.open_images(photos).classes == ["a"]
    assert listed.open_images(photos / "ring").classes == []


def test_what_is_no_finished_run_is_named(run: Run, tmp_path: Path):
    with pytest.raises(InputError, match=r"result\.json"):
        headstart.load(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        headstart.load(tmp_path / "nowhere")


def test_a_run_without_a_backbone_says_what_to_do(tmp_path: Path):
    from tests.runs import small, until

    only = load(pretrain(until(small(), "autoencoder"), tmp_path / "only", quiet=True))
    with pytest.raises(InputError, match="stopped after stage autoencoder"):
        _ = only.backbone
