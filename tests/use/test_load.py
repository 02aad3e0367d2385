"""A finished run opens again as what it was."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import headstart
from headstart.data import open_images
from headstart.engine.device import choose
from headstart.records.errors import InputError
from headstart.records.located import located
from headstart.training.run import run as pretrain
from headstart.use.load import Run, load


def test_the_backbone_is_what_was_trained(run: Run) -> None:
    from safetensors.torch import load_file

    stored = load_file(run.folder.backbone)
    for name, tensor in run.backbone.state_dict().items():
        assert torch.equal(tensor.cpu(), stored[name])
    assert not run.backbone.training
    untrained = run.untrained_backbone().state_dict()
    assert not torch.equal(untrained["conv1.weight"], stored["conv1.weight"])


def test_embed_takes_folders_files_pictures_and_tensors(run: Run, photos: Path) -> None:
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


def test_embed_refuses_a_named_file_without_a_row(run: Run, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"broken\.png cannot be read"):
        run.embed([photos / "ring" / "03.png", tmp_path / "broken.png"])


def test_other_pictures_do_not_need_the_runs_list_of_labels(run: Run, photos: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("name,label\n" + "".join(f"{name},a\n" for name in run.open_images(photos).names))

    listed = Run(run.folder, replace(run.config, data=replace(run.config.data, labels=str(labels))), run.result)
    assert listed.open_images(photos).classes == ["a"]
    assert listed.open_images(photos / "ring").classes == []


def test_what_is_no_finished_run_is_named(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"result\.json"):
        headstart.load(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        headstart.load(tmp_path / "nowhere")


def test_a_run_without_a_backbone_says_what_to_do(tmp_path: Path) -> None:
    from tests.runs import small, until

    only = load(pretrain(until(small(), "autoencoder"), tmp_path / "only", quiet=True))
    with pytest.raises(InputError, match="stopped after stage autoencoder"):
        _ = only.backbone


def test_pictures_in_memory_are_those_on_disk(run: Run, photos: Path) -> None:
    compute = choose("cpu", "float32", threads=1)
    images = run.open_images(photos)
    rows = [images.names.index(f"ring/{name}") for name in ("03.png", "04.png")]
    squares = images.squashed(rows, run.size)
    wanted = run.embed(squares, compute=compute)
    pictures = [Image.open(photos / images.names[row]) for row in rows]
    forms: dict[str, Any] = {
        "PIL": pictures,
        "floats": squares.float() / 255,
        "double": squares.double() / 255,
        "array": squares.permute(0, 2, 3, 1).numpy(),
        "array of floats, channels first": squares.numpy() / 255,
        "list of arrays": list(squares.permute(0, 2, 3, 1).numpy()),
    }
    for name, form in forms.items():
        np.testing.assert_allclose(run.embed(form, compute=compute), wanted, atol=1e-4, err_msg=name)
        with torch.no_grad():
            h = run.backbone(run.preprocess(form)).numpy()
        np.testing.assert_allclose(h, wanted, atol=1e-4, err_msg=name)
    half = run.embed(squares.half() / 255, compute=compute)
    assert np.abs(half - wanted).max() < 0.02 * np.abs(wanted).max()
    np.testing.assert_allclose(run.embed(pictures[0], compute=compute), wanted[:1], atol=1e-4)
    np.testing.assert_allclose(run.embed(squares[1], compute=compute), wanted[1:], atol=1e-4)


@pytest.mark.parametrize(
    ("pictures", "words"),
    [
        (torch.full((2, 3, 32, 32), 200.0), "floats from 200 to 200.*divide by 255"),
        (torch.full((2, 3, 32, 32), -1.5), "from -1.5 .*run.backbone"),
        (torch.full((2, 3, 32, 32), float("nan")), "NaN or infinite"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.int64), "int64.*uint8"),
        (torch.zeros(2, 3, 48, 32, dtype=torch.uint8), "48 x 32 pixels.*32 x 32"),
        (torch.zeros(2, 1, 32, 32, dtype=torch.uint8), r"\(2, 1, 32, 32\).*RGB"),
        (torch.zeros(32, 32), r"\(32, 32\)"),
        (np.zeros((2, 64, 64, 3), np.uint8), "64 x 64 pixels"),
        (np.zeros((2, 32, 32, 4), np.uint8), r"\(2, 32, 32, 4\)"),
        (np.array(["a"]), "array of <U1"),
        ([Image.new("RGB", (9, 9)), np.zeros((32, 32, 3), np.uint8)], "all of one kind"),
    ],
)
def test_pictures_that_could_be_mistaken_are_refused(run: Run, pictures: Any, words: str) -> None:
    uses: tuple[Callable[..., object], ...] = (run.embed, run.preprocess)
    for use in uses:
        with pytest.raises(InputError, match=words):
            use(pictures)


def test_labels_hold_for_the_pictures_however_their_path_is_written(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By where they lie, through a link, from another working folder, and by content in a copy."""
    flat = tmp_path / "flat"
    flat.mkdir()
    for i, name in enumerate(("ring/03.png", "ring/04.png", "=disc/05.png", "=disc/06.png", "=disc/07.png")):
        (flat / f"{i}.png").write_bytes((photos / name).read_bytes())
    (tmp_path / "labels.csv").write_text("name,label\n" + "".join(f"{i}.png,{'ab'[i % 2]}\n" for i in range(5)))
    monkeypatch.chdir(tmp_path)
    data = replace(run.config.data, sources=("flat",), labels="labels.csv")
    typed = replace(run.config, data=data)
    about = run.result["data"] | {"fingerprint": open_images(replace(data, size=32)).fingerprint}
    meant = Run(run.folder, located(typed, str(tmp_path)), run.result | {"data": about})
    (tmp_path / "link").symlink_to(flat)
    shutil.copytree(flat, tmp_path / "elsewhere" / "copy")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "0.png").write_bytes((photos / "ring" / "08.png").read_bytes())
    monkeypatch.chdir(tmp_path / "elsewhere")
    for source in ((), "../flat/", flat, "../link", "copy"):
        assert meant.open_images(source).labels.tolist() == [0, 1, 0, 1, 0], source
    assert meant.open_images("../other").classes == []
    labels = replace(meant.reading, labels="none")
    assert meant.open_images("../flat", labels).classes == []
    with pytest.raises(InputError, match=r"--data\.size is 64.*32 pixels"):
        meant.open_images("../flat", replace(meant.reading, size=64))
