"""A seal: the digest of what is in a weights file, in the file's own metadata, so that altered bytes are seen.

Nothing here imports torch.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from headstart.records.errors import InputError
from headstart.records.files import opened, unreadable

SEAL = "blake2b"
"""Its name in the metadata of a safetensors file, which is text without spaces between its entries."""
BLOCK = 1 << 20


def header_of(text: bytes) -> tuple[dict[str, Any], str | None]:
    """A safetensors header without its seal, and the seal where there is one. Raises ValueError."""
    header = json.loads(text)
    about = header.get("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(about, dict):
        raise ValueError("no header of a safetensors file")
    return header, about.pop(SEAL, None)


def as_bytes(header: dict[str, Any]) -> bytes:
    """A header as it is written."""
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return text + b" " * (-len(text) % 8)  # the tensors begin at a multiple of eight


def seal(header: dict[str, Any], tensors: Iterable[bytes | memoryview]) -> str:
    """The digest of a header without a seal, and of the tensors' bytes."""
    digest = hashlib.blake2b(as_bytes(header), digest_size=16)
    for part in tensors:
        digest.update(part)
    return digest.hexdigest()


def seal_of(path: str | Path) -> str | None:
    """The seal that a file carries; None where it has none, is another kind of file, or cannot be read."""
    try:
        with opened(path) as file:
            return header_of(_text(file))[1]
    except (OSError, ValueError, RecursionError):
        return None


def check_seal(path: str | Path) -> None:
    """Raise InputError where a file's bytes are no longer those that were sealed; one without a seal passes, as files
    of other programs and of older versions are."""
    try:
        with opened(path) as file:
            header, sealed = header_of(_text(file))
            whole = sealed is None or seal(header, iter(lambda: file.read(BLOCK), b"")) == sealed
    except OSError as error:
        raise InputError(unreadable(path, error)) from None
    except (ValueError, RecursionError):  # no safetensors file: its reader says so
        return
    if not whole:
        raise InputError(
            f"{path} is damaged or altered: its bytes are not those that its own digest was taken of; restore it from "
            "a copy, or make it anew (`headstart pretrain` or `finetune` with --overwrite)"
        )


def check_recorded(path: Path, record: Mapping[str, Any], name: str) -> None:
    """Raise InputError where a file is another than the record `name` beside it speaks of; older ones speak of none."""
    sealed = record.get("seals", {}).get(path.stem)
    if sealed and seal_of(path) != sealed:
        raise InputError(
            f"{path} is not the one that {name} beside it speaks of: altered, or another's; restore both from a copy, "
            "or train again with --overwrite"
        )


def _text(file: Any) -> bytes:
    """The header of an open safetensors file. Raises ValueError for another."""
    length, size = int.from_bytes(file.read(8), "little"), os.fstat(file.fileno()).st_size
    if length > size - 8:
        raise ValueError("no safetensors file")
    return bytes(file.read(length))
