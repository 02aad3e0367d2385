"""Pictures in folders as people have them.

Comes in: a folder. Goes out: its picture files with the class and official split that the folders' names say.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from headstart.data.decode import SUFFIXES
from headstart.data.source import Entry, as_text
from headstart.records.errors import InputError

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def in_folder(root: Path, labels: str) -> list[Entry]:
    """The pictures below a folder; first-level folders are classes unless pictures lie at the top."""
    found = list(walk(root))
    tops = {parts[0] for parts, _ in found if len(parts) > 1}
    is_split = "train" in {SPLITS.get(top.lower()) for top in tops} and len(tops) > 1
    is_split = is_split and all(top.lower() in SPLITS for top in tops)
    inside = [(parts[1:] if is_split and len(parts) > 1 else parts) for parts, _ in found]
    # Stray pictures beside train/ and test/ say nothing about the folders below those.
    at_top = any(
        len(rest) == 1 for rest, (parts, _) in zip(inside, found, strict=True) if not (is_split and len(parts) == 1)
    )
    classes = labels == "folders" or (labels == "auto" and not at_top)
    return [
        Entry(
            name="/".join(parts),
            path=path,
            label=rest[0] if classes and len(rest) > 1 else None,
            official=SPLITS[parts[0].lower()] if is_split and len(parts) > 1 else "",
        )
        for rest, (parts, path) in zip(inside, found, strict=True)
    ]


def walk(root: Path, suffixes: Iterable[str] = SUFFIXES) -> Iterator[tuple[tuple[str, ...], str]]:
    """(name parts, path) of every file below `root` with one of these endings, but for hidden ones.

    Links to folders are followed, after everything real, each folder once: loops end, and the names do not depend on
    the order in which the file system lists them.
    """
    suffixes = tuple(suffixes)
    seen: set[tuple[int, int]] = set()
    waiting: list[tuple[tuple[str, ...], str]] = [((), str(root))]
    links: list[tuple[tuple[str, ...], str]] = []
    while waiting or links:
        parts, folder = waiting.pop() if waiting else links.pop(0)
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            entries = sorted(os.scandir(folder), key=lambda e: e.name)
        except OSError as error:
            if not parts:
                raise InputError(f"{folder} cannot be read: {error.strerror}") from None
            continue
        for entry in entries:
            name = entry.name
            if name.startswith(".") or name == "__MACOSX":
                continue
            inner = (*parts, as_text(name))
            if name.lower().endswith(suffixes) and not entry.is_dir():
                yield inner, entry.path
            elif entry.is_dir(follow_symlinks=False):
                waiting.append((inner, entry.path))
            elif entry.is_symlink() and entry.is_dir():
                links.append((inner, entry.path))
