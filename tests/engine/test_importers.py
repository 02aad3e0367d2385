"""Importing autoencoders: pythae, the authors' Lightning checkpoints, plain state dicts; hostile files refused."""

import argparse
import collections
import fractions
import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from headstart.engine.importers import autoencoder_state, read_tensors
from headstart.heads import ProjectionHead
from headstart.records.errors import InputError

LATENT = 24


def authors_state(prefix: str = "model.") -> dict[str, torch.Tensor]:
    """The published code's key names: AEModule.model is an AE whose encoder and decoder are pythae's MLPs."""
    g = torch.Generator().manual_seed(1)
    shapes = {
        "encoder.layers.0.0": (512, 48),
        "encoder.embedding": (LATENT, 512),
        "decoder.layers.0.0": (512, LATENT),
        "decoder.layers.1.0": (48, 512),
    }
    state = collections.OrderedDict()
    for name, shape in shapes.items():
        state[f"{prefix}{name}.weight"] = torch.randn(shape, generator=g)
        state[f"{prefix}{name}.bias"] = torch.randn(shape[0], generator=g)
    return state


OURS = {"encoder.hidden", "encoder.embedding", "decoder.hidden", "decoder.output"}


# --------------------------------------------------------------------------------------------------------------- pythae


PYTHAE = Path(__file__).with_name("pythae")
"""The `final_model` folders of an AE and a VAE of 2x2 pictures, trained and saved by pythae 0.1.2."""


def pythae_state(kind: str) -> dict[str, torch.Tensor]:
    """What pythae itself would load."""
    return torch.load(PYTHAE / kind / "model.pt", weights_only=True)["model_state_dict"]


@pytest.mark.parametrize("kind", ["AE", "VAE"])
def test_a_pythae_models_embedding_layer_starts_a_head(kind: str) -> None:
    state = pythae_state(kind)
    head = ProjectionHead.from_autoencoder(PYTHAE / kind, output_dim=8, activation="tanh")
    h = torch.randn(7, 512)
    expected = torch.nn.functional.linear(h, state["encoder.embedding.weight"], state["encoder.embedding.bias"])
    assert torch.equal(head.first(h), expected)
    assert head.frozen
    assert head.first.weight.shape == (6, 512)


def test_a_pythae_models_layers_get_our_names() -> None:
    state, theirs = autoencoder_state(PYTHAE / "AE"), pythae_state("AE")
    assert {name.rpartition(".")[0] for name in state} == OURS
    assert torch.equal(state["decoder.hidden.weight"], theirs["decoder.layers.0.0.weight"])
    assert torch.equal(state["decoder.output.weight"], theirs["decoder.layers.1.0.weight"])
    head = ProjectionHead.from_autoencoder(PYTHAE / "AE", output_dim=4, pretrained="all")
    assert head.output.weight.shape == (4, 6)


def test_a_pickled_encoder_beside_the_weights_is_never_opened(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes((PYTHAE / "AE" / "model.pt").read_bytes())
    (tmp_path / "encoder.pkl").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    assert "encoder.embedding.weight" in autoencoder_state(tmp_path)
    assert not (tmp_path / "ran").exists()


# ------------------------------------------------------------------------------------------------------------ Lightning


def test_a_real_lightning_checkpoint_with_the_authors_names(tmp_path: Path) -> None:
    lightning = pytest.importorskip("pytorch_lightning")

    class AEModule(lightning.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self, model: Any, epochs: int = 100, learning_rate: float = 1e-4) -> None:
            super().__init__()
            self.save_hyperparameters(ignore=["model"], logger=False)
            self.model = model

        def training_step(self, batch: Tensor, index: int) -> Tensor:
            return (self.model["encoder"]["embedding"](batch) ** 2).mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=1e-4)

    model: Any = nn.ModuleDict(
        {
            "encoder": nn.ModuleDict({"layers": mlp(48, 512), "embedding": nn.Linear(512, LATENT)}),
            "decoder": nn.ModuleDict({"layers": nn.ModuleList([*mlp(LATENT, 512), *mlp(512, 48)])}),
        }
    )
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path
    )
    pictures: Any = torch.randn(4, 512)
    trainer.fit(AEModule(model), torch.utils.data.DataLoader(pictures, batch_size=2))
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    state = autoencoder_state(checkpoint)
    assert {name.rpartition(".")[0] for name in state} == OURS
    embedding = model["encoder"]["embedding"]
    head = ProjectionHead.from_autoencoder(checkpoint, output_dim=8)
    h = torch.randn(5, 512)
    assert torch.equal(head.first(h), embedding(h))


def mlp(inputs: int, outputs: int) -> nn.ModuleList:
    return nn.ModuleList([nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU())])


def test_options_that_are_plain_attributes_are_read_past(tmp_path: Path) -> None:
    torch.save({"state_dict": authors_state(), "args": argparse.Namespace(lr=1)}, tmp_path / "epoch=98.ckpt")
    assert autoencoder_state(tmp_path / "epoch=98.ckpt").keys() >= {"encoder.embedding.weight"}


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ({"lr": fractions.Fraction(1, 3)}, "fractions.Fraction"),
        ({"root": Path("photos")}, "pathlib"),
        ({"args": argparse.Namespace(root=Path("photos"))}, "pathlib"),
    ],
)
def test_hyperparameters_that_need_code_are_named(tmp_path: Path, extra: dict[str, object], named: str) -> None:
    torch.save({"state_dict": authors_state(), "hyper_parameters": extra}, tmp_path / "epoch=98.ckpt")
    with pytest.raises(InputError, match=rf"refused: reading it would mean running pickled code \(.*{named}"):
        autoencoder_state(tmp_path / "epoch=98.ckpt")


# ------------------------------------------------------------------------------------------------- files of other makes


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "model.", "net.autoencoder."])
def test_wrapped_and_prefixed_state_dicts(tmp_path: Path, wrapper: str | None, prefix: str) -> None:
    state = authors_state(prefix) | {"another.model.weight": torch.ones(3)}
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "weights.pt")
    found = autoencoder_state(tmp_path / "weights.pt")
    assert torch.equal(found["encoder.embedding.weight"], authors_state("")["encoder.embedding.weight"])
    if prefix:
        assert not any("another" in name for name in found)


def test_a_run_folder_and_its_file_give_the_same(tmp_path: Path) -> None:
    state = {name.replace("layers.0.0", "hidden"): tensor for name, tensor in authors_state("").items()}
    save_file(state, tmp_path / "autoencoder.safetensors", metadata={"kind": "mlp"})
    one, two = autoencoder_state(tmp_path), autoencoder_state(tmp_path / "autoencoder.safetensors")
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert torch.equal(one["encoder.hidden.weight"], state["encoder.hidden.weight"])


def test_a_lone_linear_layer(tmp_path: Path) -> None:
    layer = nn.Linear(512, LATENT)
    torch.save(layer.state_dict(), tmp_path / "layer.pt")
    h = torch.randn(3, 512)
    for source in (layer, layer.state_dict(), tmp_path / "layer.pt", str(tmp_path / "layer.pt")):
        assert torch.equal(ProjectionHead.from_autoencoder(source, output_dim=8).first(h), layer(h))


def test_a_layer_without_bias_gets_zeros() -> None:
    layer = nn.Linear(20, 6, bias=False)
    h = torch.randn(3, 20)
    assert torch.equal(ProjectionHead.from_autoencoder(layer, output_dim=4).first(h), layer(h))


def test_half_precision_is_widened_exactly(tmp_path: Path) -> None:
    state = {name: tensor.bfloat16() for name, tensor in authors_state().items()}
    save_file(state, tmp_path / "weights.safetensors")
    found = autoencoder_state(tmp_path / "weights.safetensors")["encoder.embedding.weight"]
    assert found.dtype == torch.float32
    assert torch.equal(found, state["model.encoder.embedding.weight"].float())


# -------------------------------------------------------------------------------------------------------- hostile files


class Bomb:
    """Creates a file when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (Path(self.target),)


@pytest.mark.parametrize("legacy", [True, False], ids=["legacy", "zip"])
def test_a_file_that_runs_code_is_refused_and_does_not_run_it(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "model.pt"
    contents = {"state_dict": authors_state(), "callbacks": Bomb(tmp_path / "ran")}
    torch.save(contents, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(InputError, match="refused"):
        autoencoder_state(tmp_path)
    assert not (tmp_path / "ran").exists()
    torch.load(path, weights_only=False)  # the bomb is live
    assert (tmp_path / "ran").exists()


def test_a_bare_pickle_is_refused_and_does_not_run(tmp_path: Path) -> None:
    (tmp_path / "weights.ckpt").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    with pytest.raises(InputError):
        autoencoder_state(tmp_path / "weights.ckpt")
    assert not (tmp_path / "ran").exists()


def test_a_torchscript_archive_is_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(3, 2), torch.ones(1, 3)), tmp_path / "script.pt")
    with pytest.raises(InputError, match="TorchScript"):
        read_tensors(tmp_path / "script.pt")


def test_a_small_file_that_claims_a_huge_tensor_is_refused(tmp_path: Path) -> None:
    state = authors_state()
    state["model.encoder.embedding.weight"] = torch.ones(1).expand(10**6, 10**6)
    torch.save(state, tmp_path / "weights.pt")
    assert (tmp_path / "weights.pt").stat().st_size < 10**6
    with pytest.raises(InputError, match="not a dense tensor"):
        autoencoder_state(tmp_path / "weights.pt")


def test_sparse_tensors_are_refused(tmp_path: Path) -> None:
    torch.save({"encoder.embedding.weight": torch.eye(3).to_sparse()}, tmp_path / "weights.pt")
    with pytest.raises(InputError):
        autoencoder_state(tmp_path / "weights.pt")


def damaged_files() -> dict[str, bytes]:
    buffer = io.BytesIO()
    torch.save(authors_state(), buffer)
    whole = buffer.getvalue()
    empty_zip = io.BytesIO()
    with zipfile.ZipFile(empty_zip, "w") as archive:
        archive.writestr("readme.txt", "no weights")
    return {
        "empty.pt": b"",
        "text.pt": b"these are not weights",
        "cut.pt": whole[: len(whole) // 2],
        "flipped.pt": whole[:100] + bytes(b ^ 255 for b in whole[100:400]) + whole[400:],
        "other.zip.pt": empty_zip.getvalue(),
        "empty.safetensors": b"",
        "long-header.safetensors": (2**62).to_bytes(8, "little") + b"{}",
        "packed.safetensors": (lambda h: len(h).to_bytes(8, "little") + h + bytes(4))(
            b'{"encoder.embedding.weight":{"dtype":"F4","shape":[1,8],"data_offsets":[0,4]}}'
        ),
        "lfs.pt": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 46830571\n",
        "page.pth": b"<!DOCTYPE html><html>404</html>",
        "picture.pt": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "checkpoint.pt": b"headstart-checkpoint-1\n" + bytes(100),
        "squeezed.pt": b"\x1f\x8b" + bytes(100),
        "config.yaml": b"head:\n  init: pca\n",
        "empty.pth": b"",
        "zeros.pt": bytes(4096),
        "noise.safetensors": bytes(range(200, 256)) * 50,
        "numbers.bin": struct.pack("<8f", *range(8)),
        "archive.tar": b"weights.pt".ljust(257, b"\0") + b"ustar\x0000" + bytes(10_000),
        "keras.pt": b"\x89HDF\r\n\x1a\n" + bytes(100),
        "out-of-bounds.safetensors": (lambda h: len(h).to_bytes(8, "little") + h + b"\0" * 8)(
            b'{"weight":{"dtype":"F32","shape":[1000,1000],"data_offsets":[0,4000000]}}'
        ),
    }


@pytest.mark.parametrize("name", list(damaged_files()))
def test_damaged_files_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(damaged_files()[name])
    with pytest.raises(InputError, match=name) as caught:
        autoencoder_state(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("picture.pt", "a picture, not weights"),
        ("checkpoint.pt", r"a run's checkpoint, for resuming alone; give the run, or its backbone\.safetensors"),
        ("squeezed.pt", "compressed; unpack it first"),
        ("config.yaml", "text, not weights"),
        ("empty.pth", "is empty"),
        ("zeros.pt", "no weights file .*, or a damaged one: it begins with the bytes 00 00 00 00"),
        ("noise.safetensors", "no weights file .*, or a damaged one: it begins with the bytes c8 c9"),
        ("numbers.bin", "no weights file .*, or a damaged one"),
        ("archive.tar", "a tar archive, not weights; unpack it"),
    ],
)
def test_what_is_no_weights_file_is_told(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / name).write_bytes(damaged_files()[name])
    with pytest.raises(InputError, match=words):
        read_tensors(tmp_path / name)


def test_an_archive_of_something_else_is_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", names=np.arange(3), labels=np.arange(3))
    with pytest.raises(InputError, match=r"a zip archive of names\.npy, labels\.npy, not of torch\.save"):
        read_tensors(tmp_path / "e.npz")


def test_a_file_is_what_it_holds_not_what_it_is_called(tmp_path: Path) -> None:
    state = authors_state()
    torch.save(state, tmp_path / "model.safetensors")
    save_file(state, tmp_path / "model.bin")
    save_file(state, tmp_path / "pytorch_model.pt")
    for name in ("model.safetensors", "model.bin", "pytorch_model.pt"):
        assert torch.equal(read_tensors(tmp_path / name)[next(iter(state))], next(iter(state.values())))


def test_references_to_references_are_read_once(tmp_path: Path) -> None:
    nested: dict[str, Any] = {"weight": torch.ones(2, 3)}
    for _ in range(60):
        nested = {"a": nested, "b": nested}
    torch.save(nested, tmp_path / "weights.pt")
    with pytest.raises(InputError, match="holds no tensors"):
        read_tensors(tmp_path / "weights.pt")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.empty(3, 2, device="meta"),
        torch.quantize_per_tensor(torch.randn(3, 2), 0.1, 0, torch.quint8),
        torch.nested.nested_tensor([torch.randn(2, 3), torch.randn(4, 3)]),
    ],
    ids=["meta", "quantised", "nested"],
)
def test_tensors_without_plain_values_are_refused(tmp_path: Path, tensor: Tensor) -> None:
    torch.save({"encoder.embedding.weight": tensor}, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=r"weights\.pt"):
        autoencoder_state(tmp_path / "weights.pt")


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"conv1.weight": torch.ones(2, 2)}, "no tensor 'encoder.embedding.weight'; it holds conv1.weight"),
        (authors_state("a.") | authors_state("b."), "2 embedding layers"),
        ({"encoder.embedding.weight": torch.ones(3)}, "Linear layer's"),
        ({"encoder.embedding.weight": torch.ones(3, 2), "encoder.embedding.bias": torch.ones(2)}, r"bias \(2,\)"),
        ({"encoder.embedding.weight": torch.ones(3, 0)}, r"\(3, 0\)"),
        ({"encoder.embedding.weight": torch.full((3, 2), torch.inf)}, "not finite"),
        ({"encoder.embedding.weight": torch.ones(2**40, 0)}, r"\(1099511627776, 0\)"),
        ({"encoder.embedding.weight": torch.ones(3, 2, dtype=torch.complex64)}, "complex64 and float32"),
        ({"encoder.embedding.weight": torch.ones(3, 2, dtype=torch.int64)}, "int64 and float32"),
    ],
)
def test_unfitting_tensors_are_one_sentence(tensors: dict[str, Tensor], message: str) -> None:
    with pytest.raises(InputError, match=message):
        autoencoder_state(tensors)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        autoencoder_state(tmp_path / "gone.pt")
    with pytest.raises(InputError, match="holds no autoencoder"):
        autoencoder_state(tmp_path)
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(InputError, match="holds no tensors"):
        autoencoder_state(tmp_path / "empty.pt")
