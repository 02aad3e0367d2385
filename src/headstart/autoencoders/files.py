"""Autoencoders as files: safetensors whose metadata tell kind and sizes, and what others wrote.

Nothing in a file can run.
"""

from pathlib import Path
from typing import cast, get_args

import torch
from torch import Tensor

from headstart.autoencoders.building import of_kind
from headstart.autoencoders.networks import Autoencoder, EmbeddingOnly
from headstart.engine.importers import autoencoder_state, read_safetensors
from headstart.engine.weights import save as write_weights
from headstart.records.config import AutoencoderConfig
from headstart.records.errors import InputError
from headstart.records.files import expanded
from headstart.records.folder import RunFolder
from headstart.records.names import AUTOENCODER_KINDS

SOURCES = get_args(AutoencoderConfig.__annotations__["on"])


def save(model: Autoencoder | EmbeddingOnly, path: str | Path, **metadata: object) -> None:
    """Write an autoencoder as safetensors; its kind and sizes stand in the metadata, and what else is given."""
    sizes = ("on", "in_features", "hidden_features", "latent_dim") if isinstance(model, Autoencoder) else ()
    options = model.options if isinstance(model, Autoencoder) else ()
    known = {name: str(getattr(model, name)) for name in ("kind", *sizes, *options)}
    if isinstance(model, Autoencoder) and model.normalized:
        known |= {name: " ".join(map(str, getattr(model, name).tolist())) for name in ("mean", "std")}
    write_weights(path, model.state_dict(), **{**metadata, **known})


def load(path: str | Path) -> Autoencoder | EmbeddingOnly:
    """Read what `save` wrote, or any safetensors file with `encoder.embedding.weight` and `.bias`.

    Without a kind in the metadata, the paper's eight keys make an `mlp`; otherwise only the embedding layer is kept.
    Raises InputError naming the file when it cannot be read, is damaged, or its tensors are not what it says.
    """
    return assemble(path, *read_safetensors(path))


def find(source: str) -> Autoencoder | EmbeddingOnly:
    """A finished autoencoder: our file or run, or what `importers` reads (whole where it is the paper's MLP)."""
    path = expanded(source)
    path = RunFolder(path).autoencoder if RunFolder(path).autoencoder.exists() else path
    weights, metadata = read_safetensors(path) if path.suffix == ".safetensors" else ({}, {})
    return assemble(path, weights if "kind" in metadata else autoencoder_state(path), metadata)


def assemble(path: str | Path, weights: dict[str, Tensor], metadata: dict[str, str]) -> Autoencoder | EmbeddingOnly:
    """The autoencoder that a file's tensors, under Headstart's names, and its metadata describe; `load` says how."""
    weight, bias = (weights.get(f"encoder.embedding.{name}") for name in ("weight", "bias"))
    if weight is None or bias is None or weight.dim() != 2 or bias.shape != weight.shape[:1] or not weight.numel():
        raise InputError(
            f"{path} holds no embedding layer: it needs encoder.embedding.weight (d, H) and encoder.embedding.bias (d)"
        )
    model: Autoencoder | EmbeddingOnly
    kind = metadata.get("kind", "mlp" if set(weights) == _MLP_KEYS else "embedding")
    if kind == "embedding":
        model = EmbeddingOnly(weight.shape[1], weight.shape[0])
        weights = {name: value for name, value in weights.items() if name in model.state_dict()}
    else:
        model = _shaped_as_said(path, kind, weights, metadata)
    for name, value in weights.items():
        if not value.is_floating_point() or not value.isfinite().all():
            raise InputError(f"{path} is damaged: {name} holds values that are not finite numbers; train it again")
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if expected != found:
        name = min(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        raise InputError(
            f"{path} is not the {kind} autoencoder it says it is: {name} has shape {found.get(name, 'none')}, "
            f"expected {expected.get(name, 'none')}"
        )
    if any(buffer.is_meta for buffer in model.buffers()):  # a constant of a kind of one's own, which no file holds
        model = _really(cast(Autoencoder, model))
    model.load_state_dict({name: value.float() for name, value in weights.items()}, assign=True)
    return model.eval()


def _really(outline: Autoencoder) -> Autoencoder:
    """An autoencoder with memory in place of one without."""
    made = of_kind(outline.kind, outline.in_features, outline.hidden_features, outline.latent_dim, outline.on)
    for name in outline.options:
        setattr(made, name, getattr(outline, name))
    if outline.normalized:
        made.normalize_with(outline.mean, outline.std)
    return made


def _option(path: str | Path, name: str, metadata: dict[str, str]) -> float:
    """A number of a kind's own that its file holds, checked as the setting is."""
    try:
        value: float = getattr(AutoencoderConfig(**{name: float(metadata[name])}), name)  # type: ignore[arg-type]
    except (KeyError, ValueError, InputError) as error:
        raise InputError(f"{path} is damaged: its metadata's {name} is not what it can be ({error})") from None
    return value


_MLP_KEYS = {
    f"{part}.{name}"
    for part in ("encoder.hidden", "encoder.embedding", "decoder.hidden", "decoder.output")
    for name in ("weight", "bias")
}
_LARGEST = 2**24


def _shaped_as_said(path: str | Path, kind: str, weights: dict[str, Tensor], metadata: dict[str, str]) -> Autoencoder:
    """The empty autoencoder of the file's kind and sizes, without memory for weights yet."""
    if kind not in AUTOENCODER_KINDS:
        raise InputError(f"{path} is of kind {kind!r}; known kinds are {', '.join(AUTOENCODER_KINDS)}")
    if "kind" not in metadata:
        hidden, D = weights["encoder.hidden.weight"].shape
        metadata = metadata | {"on": "pixels", "in_features": f"{D}", "hidden_features": f"{hidden}"}
        metadata["latent_dim"] = str(len(weights["encoder.embedding.bias"]))
    on = metadata.get("on")
    sizes = [metadata.get(name, "") for name in ("in_features", "hidden_features", "latent_dim")]
    if (
        on is None
        or on not in SOURCES
        or not all(len(s) < 9 and s.isdecimal() and 0 < int(s) < _LARGEST for s in sizes)
    ):
        raise InputError(f"{path} does not say its sizes: its metadata has on {on!r} and sizes {sizes}")
    D, H, d = map(int, sizes)
    try:
        with torch.device("meta"):
            model = of_kind(kind, D, H, d, on)
    except InputError:
        raise InputError(f"{path} is damaged: a {kind} autoencoder cannot be one of {on}") from None
    for name in model.options:
        setattr(model, name, _option(path, name, metadata))
    if "mean" in metadata or "std" in metadata:
        try:
            mean, std = ([float(v) for v in metadata[name].split()] for name in ("mean", "std"))
            model.normalize_with(torch.tensor(mean).reshape(3), torch.tensor(std).reshape(3))
        except (KeyError, ValueError, RuntimeError):
            raise InputError(f"{path} is damaged: its metadata's mean and std must be three numbers each") from None
    return model
