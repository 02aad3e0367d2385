"""What the processes of a study share in its folder: autoencoders, and what is found of backbones before SimCLR.

STUDY/autoencoders/HASH.safetensors is trained once for its pictures, latent size, seed and settings; its own run folder
stands among the runs. Who works on what is said by claims (records/claim.py).
"""

import contextlib
import os
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headstart.records import files
from headstart.records.errors import InputError
from headstart.records.folder import RunFolder


def link(source: Path, target: Path) -> None:
    """Let `target` be the same file as `source`, or a copy where there are no hard links; never half there."""
    temporary = files.temporary(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def autoencoder_file(out: Path, digest: str) -> Path:
    """Where the store keeps an autoencoder."""
    return out / "autoencoders" / f"{digest}.safetensors"


def hand_over_autoencoder(stored: Path, trained: RunFolder, run: RunFolder) -> None:
    """Begin a run folder with its autoencoder stage done, by the run that trained the shared one."""
    if run.stages.exists() or run.result.exists():
        return
    found = trained.read_result()["autoencoder"]
    link(stored, run.autoencoder)
    files.write_json(run.stages, {"autoencoder": found}, within=run.path)


def read_before(out: Path, key: str) -> dict[str, Any] | None:
    """What another run found of the backbone before SimCLR."""
    path = out / "before" / f"{key}.json"
    try:
        found = files.read_json(path) if path.exists() else {}
    except InputError:
        return None
    return found if {"probes", "geometry"} <= set(found) else None


def write_before(out: Path, key: str, found: Mapping[str, Any]) -> None:
    """Keep what was found of the backbone before SimCLR for the other runs."""
    path = out / "before" / f"{key}.json"
    if found["geometry"] and not path.exists():
        files.write_json(path, dict(found), within=out)


LEFT_BEHIND = re.compile(r"\.(claim(\..+)?|now\..+|.+\.tmp)")
LEFT_FOR_SECONDS = 3600.0


def sweep(out: Path) -> None:
    """Remove claims and half-written files of processes that were killed: those of the living are never so old."""
    for folder in (out, *out.glob("*/"), *out.glob("runs/*/")):
        for path in folder.glob(".*"):
            with contextlib.suppress(OSError):
                if LEFT_BEHIND.fullmatch(path.name) and time.time() - path.stat().st_mtime > LEFT_FOR_SECONDS:
                    path.unlink()
