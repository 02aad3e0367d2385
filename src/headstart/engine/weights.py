"""Weights on disk: safetensors whose bytes follow from the tensors and the metadata alone, sealed against others."""

import json
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from torch import Tensor

from headstart.engine.device import hosted
from headstart.records.files import write
from headstart.records.seal import SEAL, as_bytes, seal


def to_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, object]) -> bytes:
    """A safetensors file; every metadata value becomes text, and the digest of all of it joins them (records/seal.py).

    The library writes metadata in the order of a hash table, which differs from process to process; here it is sorted,
    so that equal runs give equal files.
    """
    plain = {name: tensor.detach().contiguous() for name, tensor in hosted(dict(tensors)).items()}
    data = safetensors.torch.save(plain, {name: str(value) for name, value in metadata.items()})
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    about = header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
    tensors_as_bytes = memoryview(data)[8 + length :]
    about[SEAL] = seal(header, [tensors_as_bytes])
    text = as_bytes(header)
    return b"".join((len(text).to_bytes(8, "little"), text, tensors_as_bytes))


def save(path: str | Path, tensors: Mapping[str, Tensor], **metadata: object) -> None:
    """Write a safetensors file into a folder that is there, whole or not at all."""
    write(path, to_bytes(tensors, metadata), within=Path(path).parent)
