"""What a DATA name means: folders as people have them, lists of paths, and the named sets in their published files.

Comes in: `config.data`. Goes out: one `Source`, the list of its pictures with names, labels and official split, in an
order that depends on the names alone. No picture is decoded here (docs/data.md).
"""

import itertools
import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from headstart.data import words
from headstart.data.contents import contents
from headstart.data.decode import SUFFIXES
from headstart.data.folders import in_folder, in_folder_packed, some
from headstart.data.hub import on_hub
from headstart.data.layout import SHOWN
from headstart.data.lists import LISTS, in_list, labelled_by
from headstart.data.named import named_set, set_of
from headstart.data.packed import PACKED
from headstart.data.source import Entry, Found, Source, as_text, make, relabel
from headstart.records.config import DataConfig
from headstart.records.errors import InputError
from headstart.records.files import expanded, last_name, nearby
from headstart.records.located import is_own_folder
from headstart.records.names import HUB, SETS
from headstart.records.outputs import kind_of


def shown(source: str) -> str:
    """A source as a report shows it: the named set, or the last part of the path."""
    name, _, root = source.partition(":")
    if root and name in SETS and not Path(source).exists():
        return name
    return as_text(last_name(Path(source)))


def find(data: DataConfig) -> Source:
    """What `data.sources` name.

    Raises InputError when there is nothing there, saying what was looked for, where, and how to get it.
    """
    if not data.sources:
        raise InputError(
            "no DATA given; name a folder of pictures, a list of paths, or a set such as digits or cifar10:ROOT"
        )
    named = [name for name in data.sources if _on_hub(name) or (set_of(name) and not is_own_folder(name))]
    if named and len(data.sources) > 1:
        raise InputError(f"{named[0]} must be the only DATA; unpack it into folders to combine it with others")
    source = _of_a_set(named[0], data) if named else _from_files(data.sources, data)
    source = replace(source, notes=(*source.notes, *map(_which_of_two, filter(_is_a_folder, data.sources))))
    if data.labels == "none":
        return relabel(source, [None] * len(source.names))
    if data.labels not in ("auto", "folders"):
        return labelled_by(expanded(data.labels), source)
    return source


def _on_hub(name: str) -> bool:
    return name.startswith(f"{HUB}:")


def _of_a_set(name: str, data: DataConfig) -> Source:
    return on_hub(name) if _on_hub(name) else named_set(name, data)


def _is_a_folder(name: str) -> bool:
    """Whether a named set's name is that of a folder here as well."""
    return name in SETS and Path(name).is_dir()


def _which_of_two(name: str) -> str:
    if is_own_folder(name):
        return f"{name} is taken for the folder of that name; the named set is {name}:ROOT"
    return f"{name} is taken for the named set; the folder of that name is ./{name}"


def _from_files(names: Sequence[str], data: DataConfig) -> Source:
    parts: list[tuple[str, Found]] = []
    lone: list[Path] = []
    notes: list[str] = []
    if twice := [name for name, times in Counter(map(os.path.realpath, map(expanded, names))).items() if times > 1]:
        raise InputError(f"{twice[0]} is given twice; name it once, or its pictures would count twice")
    _refuse_inside(names)
    for name in names:
        path = expanded(name)
        if name and path.is_dir():
            found = in_folder(path, data.labels)
            packed, said = ([], []) if found.entries else in_folder_packed(path)
            notes += said
            if not (found.entries or packed) and (kind := kind_of(path)):
                raise InputError(f"{name} holds a {kind}, not pictures; give the pictures themselves")
            around = [path.resolve().name] if len(names) > 1 else []
            parts += [("/".join([*around, *at]), contents(one, data)) for at, one in packed] or [
                (path.resolve().name, found)
            ]
        elif path.is_file() and path.suffix.lower() in PACKED:
            parts.append((path.stem, contents(path, data)))
        elif path.is_file() and path.suffix.lower() in LISTS:
            parts.append((path.stem, in_list(path)))
        elif path.is_file() and path.suffix.lower() in SUFFIXES:
            lone.append(path)
        else:
            raise _neither(name, path)
    if lone:
        short = _distinct([path.name for path in lone], "{number}/{name}")
        found = Found([Entry(as_text(name), str(path)) for name, path in zip(short, lone, strict=True)])
        parts.append(("", found))
    found = parts[0][1] if len(parts) == 1 else _together(parts)
    if not found.entries:
        raise InputError(
            f"{', '.join(names)} holds no pictures; looked at any depth for files ending in "
            + " ".join(sorted(SUFFIXES))
            + "".join(f"; {note}" for note in found.notes)
            + _instead(found)
        )
    where = "\n".join(as_text(os.path.abspath(expanded(name))) for name in names)
    return make(
        where,
        found.entries,
        as_given=len(lone) == len(names),
        skipped=found.skipped,
        notes=(*found.notes, *notes),
        others=dict(found.others),
        files=tuple(found.files),
    )


def _refuse_inside(names: Sequence[str]) -> None:
    """Refuse a DATA that lies inside another: its pictures would count twice."""
    places = {Path(os.path.realpath(expanded(name))): name for name in names}
    for place, name in places.items():
        outer = next((places[above] for above in place.parents if above in places), None)
        if outer is not None and place.suffix.lower() not in (*LISTS, *PACKED):
            raise InputError(f"{name} lies inside {outer}; name the outer one alone, or its pictures would count twice")


def _neither(name: str, path: Path) -> InputError:
    if not name.strip():
        return InputError("DATA is empty; name a folder of pictures, a list of paths or a named set")
    if path.is_file():
        kinds = f"a list ({', '.join(LISTS)}), a file of pictures ({', '.join(PACKED)}) or a picture"
        return InputError(f"{name} is neither a folder nor {kinds}; unpack it first")
    if path.exists():
        return InputError(f"{name} is no plain file and no folder; DATA is one of these")
    if re.match(r"[a-z][a-z0-9+.-]*://", name):
        return InputError(f"{name} is an address, and DATA is on this machine; download it first")
    return InputError(f"there is no folder, list or named set {name}{nearby(name)}; named sets are {', '.join(SETS)}")


COMPRESSED = (".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
"""Endings of files in which no picture has a place of its own."""


def _instead(found: Found) -> str:
    """What lies there instead of pictures."""
    common = found.others.most_common(5)
    kinds = ", ".join(f"{n:,} {ending or 'without ending'}" for ending, n in common)
    unpack = "; unpack what is compressed first" if any(ending in COMPRESSED for ending, _ in common) else ""
    arrow = f"; what `datasets` has saved is read as {HUB}:FOLDER" if ".arrow" in found.others else ""
    return f"; it holds {kinds}{unpack}{arrow}" if kinds else ""


def _together(parts: Sequence[tuple[str, Found]]) -> Found:
    """Several DATA as one; those called train and test are the official split, as folders inside one folder are."""
    prefixes = _distinct([prefix for prefix, _ in parts])
    split = words.splits(prefixes)
    kinds = split.kinds if split is not None and split.official else {}
    whole, said = Found([]), defaultdict[str, list[str]](list)
    for prefix, (_, part) in zip(prefixes, parts, strict=True):
        official = kinds.get(prefix, "")
        official = official if official in ("train", "val", "test") else ""
        whole.entries += [
            Entry(f"{prefix}/{e.name}" if prefix else e.name, e.path, e.label, e.official or official)
            for e in part.entries
        ]
        whole.skipped += part.skipped
        for note in part.notes:
            said[note].append(prefix)
        whole.others += part.others
        whole.files += part.files
    whole.notes += [f"{some(of)}: {note}" if any(of) else note for note, of in said.items()]
    if kinds:
        named = [f"{name} ({kind})" for name, kind in kinds.items()]
        counted = [f"{n:,} of {kind}" for kind, n in Counter(kinds.values()).items()]
        whole.notes.append(f"taken for the official split: {', '.join(named if len(named) <= SHOWN else counted)}")
    return whole


def _distinct(names: list[str], again: str = "{name}-{number}") -> list[str]:
    """The names, numbered from the second of each kind on; a number whose name somebody has is passed over."""
    taken, result = set(names), []
    seen: set[str] = set()
    for name in names:
        own = name
        if name in seen:
            numbered = (again.format(name=name, number=number) for number in itertools.count(2))
            own = next(other for other in numbered if other not in taken)
            taken.add(own)
        seen.add(name)
        result.append(own)
    return result
