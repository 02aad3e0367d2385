"""What a DATA name means: folders as people have them, lists of paths, and the named sets in their published files.

Comes in: `config.data`. Goes out: one `Source`, the list of its pictures with names, labels and official split, in an
order that depends on the names alone. No picture is decoded here (docs/data.md).
"""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from headstart.data.decode import SUFFIXES
from headstart.data.folders import in_folder
from headstart.data.lists import LISTS, in_list, labels_of_file
from headstart.data.named import named_set, set_of
from headstart.data.source import Entry, Source, as_text, make, relabel
from headstart.records.config import DataConfig
from headstart.records.errors import InputError
from headstart.records.names import SETS


def shown(source: str) -> str:
    """A source as a report shows it: the named set, or the last part of the path."""
    name, _, root = source.partition(":")
    return name if root and "/" not in name else Path(source).name


def find(data: DataConfig) -> Source:
    """What `data.sources` name.

    Raises InputError when there is nothing there, saying what was looked for, where, and how to get it.
    """
    if not data.sources:
        raise InputError(
            "no DATA given; name a folder of pictures, a list of paths, or a set such as digits or cifar10:ROOT"
        )
    named = [name for name in data.sources if set_of(name)]
    if named and len(data.sources) > 1:
        raise InputError(f"{named[0]} must be the only DATA; unpack it into folders to combine it with others")
    source = named_set(named[0], data) if named else _from_files(data.sources, data.labels)
    if data.labels == "none":
        return relabel(source, [None] * len(source.names))
    if data.labels not in ("auto", "folders"):
        return relabel(source, labels_of_file(Path(data.labels), source.names))
    return source


def _from_files(names: Sequence[str], labels: str) -> Source:
    parts: list[tuple[str, list[Entry], list[tuple[str, str]]]] = []
    lone: list[Path] = []
    for name in names:
        path = Path(name).expanduser()
        if path.is_dir():
            parts.append((path.resolve().name, in_folder(path, labels), []))
        elif path.is_file() and path.suffix.lower() in LISTS:
            parts.append((path.stem, *in_list(path)))
        elif path.is_file() and path.suffix.lower() in SUFFIXES:
            lone.append(path)
        elif path.is_file():
            raise InputError(
                f"{name} is neither a folder nor a list ({', '.join(LISTS)}) nor a picture; unpack archives first"
            )
        else:
            raise InputError(f"there is no folder, list or named set {name}; named sets are {', '.join(SETS)}")
    if lone:
        short = _distinct([path.name for path in lone], "{number}/{name}")
        parts.append(("", [Entry(as_text(name), str(path)) for name, path in zip(short, lone, strict=True)], []))
    where = "\n".join(as_text(os.path.abspath(Path(name).expanduser())) for name in names)
    if len(parts) == 1:
        _, entries, skipped = parts[0]
    else:
        prefixes = _distinct([prefix for prefix, _, _ in parts])
        entries = [
            Entry(f"{prefix}/{e.name}" if prefix else e.name, e.path, e.label, e.official)
            for prefix, (_, part, _) in zip(prefixes, parts, strict=True)
            for e in part
        ]
        skipped = [s for _, _, some in parts for s in some]
    if not entries:
        raise InputError(
            f"{', '.join(names)} holds no pictures; looked at any depth for files ending in "
            + " ".join(sorted(SUFFIXES))
        )
    return make(where, entries, as_given=len(lone) == len(names), skipped=skipped)


def _distinct(names: list[str], again: str = "{name}-{number}") -> list[str]:
    """The names, numbered from the second of each kind on."""
    seen: Counter[str] = Counter()
    result = []
    for name in names:
        seen[name] += 1
        result.append(name if seen[name] == 1 else again.format(name=name, number=seen[name]))
    return result
