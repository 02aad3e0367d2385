"""Weights and embeddings whose bytes are no longer those that were written are refused by all that read them."""

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from headstart import autoencoders
from headstart.autoencoders import EmbeddingOnly
from headstart.backbones.weights import weights_file
from headstart.engine.device import Compute, choose
from headstart.engine.importers import read_metadata, read_tensors
from headstart.evaluate import foreign
from headstart.records.errors import InputError
from headstart.use import index
from headstart.use.classifier import CLASSIFIER, load_classifier
from headstart.use.embed import embed
from headstart.use.embeddings import opened, read
from headstart.use.export import export
from headstart.use.finetune import finetune
from headstart.use.load import Run, load
from headstart.use.mapped import write_map
from headstart.use.search import search
from headstart.use.select import select
from headstart.use.settings import FinetuneSettings

DAMAGED = "is damaged or altered.*restore it from a copy"
OTHER = "is not the one that result.json beside it speaks of"


@pytest.fixture(scope="module")
def compute() -> Compute:
    return choose("cpu", "float32", threads=1)


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Path:
    """A copy of the run, to be damaged."""
    return Path(shutil.copytree(run.folder.path, tmp_path / "copy"))


def flip(path: Path, at: int) -> None:
    """One bit of one byte, as a disk or a copy may."""
    with path.open("r+b") as file:
        file.seek(at, 0 if at >= 0 else 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("at", [-1, -1_000_003, 200_000])
def test_a_flipped_bit_in_a_backbone_is_seen_by_every_reader(
    at: int, copy: Path, photos: Path, compute: Compute, tmp_path: Path
) -> None:
    flip(copy / "backbone.safetensors", at)
    one = load(copy)
    readers: dict[str, Callable[[], object]] = {
        "load": lambda: load(copy).backbone,
        "embed": lambda: embed(one, photos, tmp_path / "all.npz", compute=compute, quiet=True),
        "finetune": lambda: finetune(one, photos, tmp_path / "c", FinetuneSettings(epochs=1), compute=compute),
        "evaluate": lambda: foreign.evaluate_run(copy, device="cpu", threads=1),
        "export": lambda: export(one, "torchvision", tmp_path / "net.pt"),
        "weights": lambda: foreign.recognise(copy / "backbone.safetensors"),
    }
    for name, read_it in readers.items():
        with pytest.raises(InputError, match=DAMAGED) as refusal:
            read_it()
        assert "backbone.safetensors" in str(refusal.value), name
    assert not {"all.npz", "net.pt"} & {path.name for path in tmp_path.iterdir()}


def test_so_is_one_in_what_it_says_of_itself(copy: Path) -> None:
    path = copy / "backbone.safetensors"
    flip(path, path.read_bytes().index(b'"size":"32"') + 8)
    assert read_metadata(path)["size"] != "32"
    with pytest.raises(InputError, match=DAMAGED):
        _ = load(copy).backbone


def test_weights_of_another_run_are_not_taken_for_a_run_s_own(copy: Path, run: Run) -> None:
    """Written by whatever program: the file is whole, and result.json speaks of another."""
    path = copy / "backbone.safetensors"
    tensors = load_file(path)
    path.unlink()
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, path)
    for read_it in (lambda: load(copy).backbone, lambda: foreign.evaluate_run(copy), lambda: weights_file(copy)):
        with pytest.raises(InputError, match=OTHER):
            read_it()
    assert weights_file(run.folder.path) == run.folder.backbone


def test_runs_and_files_of_before_are_read(copy: Path, photos: Path, compute: Compute) -> None:
    path, record = copy / "backbone.safetensors", json.loads((copy / "result.json").read_text())
    wanted = load(copy).embed(photos, compute=compute)
    assert record.pop("seals").keys() == {"head", "backbone"}
    (copy / "result.json").write_text(json.dumps(record))
    tensors, about = load_file(path), read_metadata(path)
    path.unlink()
    assert about.pop("blake2b")
    save_file(tensors, path, about)
    np.testing.assert_array_equal(load(copy).embed(photos, compute=compute), wanted)


def test_autoencoders_and_classifiers_alike(run: Run, photos: Path, compute: Compute, tmp_path: Path) -> None:
    file = tmp_path / "autoencoder.safetensors"
    model = EmbeddingOnly(8, 4)
    for weight in model.parameters():  # they are to be loaded, and whatever the memory held
        torch.nn.init.ones_(weight)
    autoencoders.save(model, file)
    autoencoders.load(file)
    flip(file, -1)
    for read_it in (autoencoders.load, autoencoders.find, read_tensors):
        with pytest.raises(InputError, match=DAMAGED):
            read_it(str(file))
    folder = finetune(run, photos, tmp_path / "c", FinetuneSettings(epochs=1), compute=compute, quiet=True).folder
    load_classifier(folder)
    before = (folder / CLASSIFIER).read_bytes()
    flip(folder / CLASSIFIER, -1)
    with pytest.raises(InputError, match=DAMAGED):
        load_classifier(folder)
    (folder / CLASSIFIER).write_bytes(before)
    tensors = load_file(folder / CLASSIFIER)
    (folder / CLASSIFIER).unlink()
    save_file({name: torch.zeros_like(tensor) for name, tensor in tensors.items()}, folder / CLASSIFIER)
    with pytest.raises(InputError, match=r"is not the one that finetune\.json beside it speaks of"):
        load_classifier(folder)


@pytest.mark.parametrize(
    "ending",
    [".npz", pytest.param(".parquet", marks=pytest.mark.skipif(find_spec("pyarrow") is None, reason="needs pyarrow"))],
)
def test_a_flipped_bit_in_embeddings_is_seen_wherever_all_are_used(
    ending: str, run: Run, photos: Path, compute: Compute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / f"all{ending}"
    embed(run, photos, file, compute=compute, quiet=True)
    row = np.ascontiguousarray(read(file, compute).features[7]).tobytes()
    content = file.read_bytes()
    at = content.find(row)
    flip(file, at + 2 if at >= 0 else len(content) // 2)  # parquet compresses rows; they are most of the file
    uses: dict[str, Callable[[], object]] = {
        "select": lambda: select(opened(file), 3, out=tmp_path / "selection"),
        "search": lambda: search(opened(file), photos / "ring" / "01.png"),
        "map": lambda: write_map(opened(file), tmp_path / "map"),
        "embed": lambda: embed(run, photos, file, compute=compute, quiet=True),  # would pass the damage on
    }
    damaged = file.read_bytes()
    for name, use in uses.items():
        with pytest.raises(InputError, match="damaged") as refusal:
            use()
        assert file.name in str(refusal.value), name
        assert "embed the pictures again" in str(refusal.value)
    assert file.read_bytes() == damaged
    assert not (tmp_path / "selection").exists()
    if ending == ".npz" and find_spec("usearch"):  # a query of an index reads the rows in question alone
        monkeypatch.setattr(index, "APPROXIMATE_FROM", 10)
        with pytest.raises(InputError, match="damaged"):  # which is built of all
            search(opened(file), photos / "ring" / "01.png")


def test_embeddings_of_a_run_that_was_damaged_since_say_so(
    copy: Path, photos: Path, compute: Compute, tmp_path: Path
) -> None:
    embed(load(copy), photos, tmp_path / "all.npz", compute=compute, quiet=True)
    flip(copy / "backbone.safetensors", -5)
    with pytest.raises(InputError, match=f"all.npz was made by .*{DAMAGED}"):
        opened(tmp_path / "all.npz")
