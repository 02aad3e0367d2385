"""Weights from elsewhere: autoencoders of pythae, of the authors' Lightning code, or of anybody (paper 3.2-3.4).

Comes in: a file or folder. Goes out: tensors under Headstart's own names, above all `encoder.embedding.*`, the layer
that starts a projection head. Files are read as data: safetensors, or torch's weights-only unpickler, which builds
tensors and plain containers and runs no code. Whatever needs more than that is refused.
"""

import argparse
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from headstart.records.errors import InputError
from headstart.records.files import expanded, missing, unreadable
from headstart.records.seal import check_seal

AutoencoderSource = str | Path | nn.Module | Mapping[str, Tensor]
"""A file, a folder (a run, a pythae model), a module that holds an embedding layer, or a state dict."""

FOLDER_FILES = ("autoencoder.safetensors", "model.safetensors", "model.pt")
"""What is read from a folder: a Headstart run's autoencoder, or a saved pythae model."""

DEEPEST = 16
"""Mappings within mappings in which state dicts are looked for; VISSL's lie five deep."""

NOT_WEIGHTS = {
    b"version https://git-lfs": "a pointer of Git LFS, not the weights themselves; `git lfs pull` fetches them",
    b"<": "a web page (HTML) or XML, not weights; download the file itself",
    b"\x89HDF": "an HDF5 file (Keras); a PyTorch state dict is needed",
    b"headstart-checkpoint": "a run's checkpoint, for resuming alone; give the run, or its backbone.safetensors",
    b"GGUF": "a GGUF file; a PyTorch state dict is needed",
    b"\x93NUMPY": "a NumPy array; a PyTorch state dict is needed",
    **dict.fromkeys((b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF"), "a picture, not weights"),
    **dict.fromkeys((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!"), "compressed; unpack it first"),
}
"""How files begin that are often taken for weights, and what they are."""

READABLE = {
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64, torch.complex128),
}
"""Kinds of numbers that torch can convert; packed ones of fewer bits it cannot."""

EMBEDDING = "encoder.embedding.weight"

PYTHAE_NAMES = {
    "encoder.layers.0.0": "encoder.hidden",
    "encoder.embedding": "encoder.embedding",
    "decoder.layers.0.0": "decoder.hidden",
    "decoder.layers.1.0": "decoder.output",
}
"""pythae's names of the paper's 4-layer MLP, and ours. The authors' Lightning checkpoints put `model.` in front."""


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Every tensor of a weights file by name, on the CPU: safetensors, or any file of `torch.save`, by its content.

    A state dict inside of others (`{"state_dict": ...}`, `{"model": ...}`, `{"teacher": ..., "student": ...}`) is
    unwrapped; where there are several, what they are called stands before their names.

    Raises:
        InputError: the file is missing, damaged or altered, holds no tensors, or could only be read by running pickled
            code.
    """
    path = expanded(path)
    if not path.is_file():
        raise InputError(
            f"{missing(path) or f'{path} is not a file'}; a weights file (.safetensors, .pt, .pth, .ckpt) is needed"
        )
    with path.open("rb") as file:
        start = file.read(512)
    _refuse_other_kinds(path, start)
    # DINO's, MAE's and many scripts' checkpoints hold their options: a Namespace has attributes, and no code to run.
    with torch.serialization.safe_globals([argparse.Namespace]):
        found = _unwrapped(read_safetensors(path)[0] if start[8:9] == b"{" else _read_pickle_as_data(path))
    if not found:
        raise InputError(f"{path} holds no tensors; a state dict (parameter names and tensors) is needed")
    for name, tensor in found.items():
        # A few bytes can claim any shape through strides of zero; copying such a tensor would fill the memory.
        dense = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
        if not dense or tensor.is_nested or tensor.nbytes > tensor.untyped_storage().nbytes():
            raise InputError(f"{path}: {name} is not a dense tensor whose values are all in the file")
        if tensor.dtype not in READABLE:
            raise InputError(f"{path}: {name} holds {_kind(tensor)}, which cannot be widened to float32")
    return found


def _refuse_other_kinds(path: Path, start: bytes) -> None:
    """What does not begin as safetensors and files of torch.save do is named by what it is, where that can be told."""
    if reason := next((reason for sign, reason in NOT_WEIGHTS.items() if start.lstrip().startswith(sign)), None):
        raise InputError(f"{path} is {reason}")
    if start[8:9] == b"{" or start.startswith((b"PK", b"\x80")):
        return
    if not start:
        raise InputError(f"{path} is empty")
    if start[257:262] == b"ustar":
        raise InputError(f"{path} is a tar archive, not weights; unpack it first")
    if start.isascii() and b"\0" not in start:
        raise InputError(f"{path} is text, not weights (.safetensors, .pt, .pth, .ckpt)")
    raise InputError(
        f"{path} is no weights file (.safetensors, .pt, .pth, .ckpt), or a damaged one: it begins with the bytes "
        f"{start[:8].hex(' ')}"
    )


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors and the metadata of a safetensors file; nothing in it can run."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except OSError as error:
        raise InputError(unreadable(path, error)) from None
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} is not a whole safetensors file ({error}); copy it again or make it again") from None
    check_seal(path)
    return found


def read_metadata(path: str | Path) -> dict[str, str]:
    """What a safetensors file says of itself; nothing where the file is another kind, or cannot be read."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError):
        return {}


def _unwrapped(loaded: object) -> dict[str, Tensor]:
    """The tensors of nested mappings; keys of outer ones are part of the name where more than one holds tensors."""
    groups: dict[str, dict[str, Tensor]] = {}
    nested = [("", loaded)]
    seen = {id(loaded)}  # a few references can stand for more nested mappings than fit in any memory
    for prefix, values in nested:
        named = {name: v for name, v in values.items() if isinstance(name, str)} if isinstance(values, Mapping) else {}
        if tensors := {name: value.detach() for name, value in named.items() if isinstance(value, Tensor)}:
            groups[prefix] = tensors
        for name, value in named.items():
            if isinstance(value, Mapping) and id(value) not in seen and prefix.count(".") < DEEPEST:
                seen.add(id(value))
                nested.append((f"{prefix}{name}.", value))
    if len(groups) == 1:
        return next(iter(groups.values()))
    return {f"{prefix}{name}": tensor for prefix, group in groups.items() for name, tensor in group.items()}


def autoencoder_state(source: AutoencoderSource) -> dict[str, Tensor]:
    """An autoencoder's float32 tensors under Headstart's names.

    Always `encoder.embedding.weight` (hidden_dim, in_features) and `encoder.embedding.bias` (hidden_dim,), zero where
    the source has no bias; further layers keep their names, those of the paper's MLP as pythae names them become
    `encoder.hidden.*`, `decoder.hidden.*`, `decoder.output.*`.

    Args:
        source: a safetensors or `torch.save` file (ours, a Lightning checkpoint with the authors' names, a plain
            state dict, a lone Linear's `weight` and `bias`), the folder of a run or of a saved pythae model, a module
            (an autoencoder, or the Linear itself), or a state dict.

    Raises:
        InputError: it cannot be read as data, or holds no (or more than one) embedding layer.
    """
    if isinstance(source, nn.Module):
        where, tensors = type(source).__name__, dict(source.state_dict())
    elif isinstance(source, Mapping):
        where, tensors = "the state dict", dict(source)
        if wrong := next((name for name, value in tensors.items() if not isinstance(value, Tensor)), None):
            raise InputError(f"the state dict's {wrong} is of type {type(tensors[wrong]).__name__}, not a tensor")
    elif not isinstance(source, (str, Path)):
        raise InputError(
            f"the autoencoder is of type {type(source).__name__}; it has to be a file, a folder, a module or a state "
            "dict"
        )
    else:
        path = _file_in(expanded(source))
        where, tensors = str(path), read_tensors(path)
    prefix = _prefix(tensors, where)
    state = {
        _our_name(name.removeprefix(prefix)): _float32(tensor)
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    if EMBEDDING not in state:  # a lone Linear layer
        state = {f"encoder.embedding.{name}": state[name] for name in ("weight", "bias") if name in state}
    weight = state[EMBEDDING]
    rows = len(weight) if weight.numel() else 0  # a shape such as (2^40, 0) takes no bytes; a bias for it would
    bias = state.setdefault("encoder.embedding.bias", torch.zeros(rows))
    if not (weight.is_floating_point() and bias.is_floating_point()):
        raise InputError(
            f"{where}: the embedding layer holds {_kind(weight)} and {_kind(bias)}; real numbers are needed"
        )
    if weight.ndim != 2 or bias.shape != weight.shape[:1] or 0 in weight.shape:
        raise InputError(
            f"{where}: the embedding layer has weight {tuple(weight.shape)} and bias {tuple(bias.shape)}; "
            "a Linear layer's (hidden_dim, in_features) and (hidden_dim,) are needed"
        )
    if not (weight.isfinite().all() and bias.isfinite().all()):
        raise InputError(f"{where}: the embedding layer holds values that are not finite numbers")
    return state


def _read_pickle_as_data(path: Path) -> object:
    try:
        _refuse_other_archives(path)
        with warnings.catch_warnings(), path.open("rb") as file:  # from a path, torch would go by the ending
            warnings.simplefilter("ignore")  # advice to torch's developers about the pickles of others
            return torch.load(file, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} is refused: reading it would mean running pickled code{_unsafe_names(path, error)}; "
            "save its state_dict() alone, or a .safetensors file"
        ) from None
    # A damaged archive can end in nearly any exception; every one of them means the same to the reader.
    except Exception as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise InputError(f"{path} is not a readable weights file: {reason}") from None


def _refuse_other_archives(path: Path) -> None:
    """What is no archive of torch.save; and, since torch compresses no tensors, one that may unpack to a thousand times
    its size."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
            names = [member.filename for member in archive.infolist()]
        if not any(name.rpartition("/")[2] in ("data.pkl", "version") for name in names):
            some = f"{', '.join(names[:3])}{' ...' if len(names) > 3 else ''}" if names else "nothing"
            raise InputError(f"{path} is a zip archive of {some}, not of torch.save; unpack it, or give the weights")
        if size > 2 * path.stat().st_size + 10_000_000:
            raise InputError(f"{path} is refused: it would unpack to {size:,} bytes, and torch.save compresses nothing")


def _unsafe_names(path: Path, error: pickle.UnpicklingError) -> str:
    """Which classes or functions the file asks for, where the file is whole enough to say."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # the legacy format cannot be listed
        return ""
    return f" ({', '.join(sorted(names)[:5])})" if names else ""


def _file_in(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in FOLDER_FILES:
        if (path / name).is_file():
            return path / name
    raise InputError(
        f"{path} holds no autoencoder; a run with autoencoder.safetensors, or a saved pythae model with model.pt "
        "(pythae's `final_model` folder), is needed"
    )


def _prefix(tensors: Mapping[str, Tensor], where: str) -> str:
    """What stands in front of the autoencoder's own names; '' for a lone Linear layer."""
    prefixes = [n.removesuffix(EMBEDDING) for n in tensors if n == EMBEDDING or n.endswith(f".{EMBEDDING}")]
    if len(prefixes) > 1:
        raise InputError(f"{where} holds {len(prefixes)} embedding layers ({', '.join(prefixes)}); one is needed")
    if not prefixes and "weight" not in tensors:
        names = ", ".join(list(tensors)[:6])
        raise InputError(f"{where} has no tensor {EMBEDDING!r}; it holds {names}{' ...' if len(tensors) > 6 else ''}")
    return prefixes[0] if prefixes else ""


def _our_name(name: str) -> str:
    layer, _, kind = name.rpartition(".")
    return f"{PYTHAE_NAMES.get(layer, layer)}.{kind}" if layer else name


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _float32(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32) if tensor.is_floating_point() else tensor.detach().cpu()
