"""Studies that come with Headstart, by name: `controls`, `controls:vicreg`, `paper`, `smoke`. Imports no torch."""

import functools
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headstart.records.names import OBJECTIVES, Choice


@dataclass(frozen=True, kw_only=True)
class StudyPreset(Choice):
    """A study that comes with Headstart: its name, its file, what the comment at its head says of it.

    Attributes:
        contrastive: what it sets in that section beside its file.
    """

    path: Path
    contrastive: Mapping[str, Any] = field(default_factory=dict)


@functools.cache
def presets() -> Mapping[str, StudyPreset]:
    """The studies that come with Headstart: the files in study/presets, and the controls under each other objective."""
    found = {path.stem: path for path in sorted(Path(__file__).with_name("presets").glob("*.yaml"))}
    helps = {name: _head(path.read_text(encoding="utf-8")) for name, path in found.items()}
    named = [StudyPreset(name=name, help=helps[name], path=path) for name, path in found.items()]
    named += [
        StudyPreset(
            name=f"controls:{objective}",
            help=f"The heads of controls, trained with {OBJECTIVES[objective].shown}.",
            path=found["controls"],
            contrastive={"objective": objective, "optimizer": "adamw"},  # SGD's unset rate is NT-Xent's
        )
        for objective in OBJECTIVES
        if objective != "nt_xent"
    ]
    return {preset.name: preset for preset in named}


def _head(text: str) -> str:
    """The comment that a file begins with, as one paragraph."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    return " ".join(line.removeprefix("#").strip() for line in lines)
