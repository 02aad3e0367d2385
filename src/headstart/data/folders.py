"""Pictures in folders as people have them.

Comes in: a folder. Goes out: its picture files with the class and official split that the folders' names say, and a
sentence for everything that was taken for something or left out.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from headstart.data.decode import SUFFIXES
from headstart.data.layout import JUNK, Folder, Layout, Role
from headstart.data.packed import PACKED, written_here
from headstart.data.source import Entry, Found, as_text
from headstart.data.words import the_words
from headstart.records.errors import InputError
from headstart.records.text import first_few

OTHER_PICTURES = the_words(
    ".arw .cr2 .cr3 .czi .dcm .dng .eps .exr .fits .hdr .ico .j2k .jp2 .jpx .jxl .lsm .mrc .nd2 .nef .nii "
    ".nrrd .orf .pbm .pgm .pnm .ppm .psd .raf .raw .rw2 .svg .svs .tga .xcf"
)
"""Endings of pictures that are not read; files of these are counted on the screen."""


def in_folder(root: Path, labels: str) -> Found:
    """The pictures below a folder; first-level folders are classes unless pictures lie at the top."""
    walked = Walk(root)
    found = list(walked)
    layout = Layout(Folder.of(parts[:-1] for parts, _ in found), root.resolve().name, labels)
    entries = []
    for parts, path in found:
        role = layout.roles.get(parts[:-1], Role())
        if role.kept:
            entries.append(Entry("/".join(parts), path, role.label, role.official))
    notes = layout.notes + walked.notes()
    if bare := _bare_classes(walked, layout):
        notes.append(f"no picture in: {some(bare)}, beside folders that are classes")
    if walked.tables and labels == "auto" and not any(entry.label for entry in entries):
        notes.append(
            f"not read: {some(walked.tables)}; --data.labels {root / walked.tables[0]} takes labels from there"
        )
    return Found(entries, notes=notes, others=walked.others)


def in_folder_packed(root: Path) -> tuple[list[tuple[list[str], Path]], list[str]]:
    """Files of pictures below a folder, each with its place in it (without its ending), and what was left out."""
    walked = Walk(root, PACKED)
    found = sorted((list(parts), Path(path)) for parts, path in walked)
    own = ["/".join(parts) for parts, path in found if written_here(path)]
    notes = walked.notes() + ([f"left out: {some(own)}, which Headstart wrote"] if own else [])
    left = [([*parts[:-1], path.stem], path) for parts, path in found if "/".join(parts) not in own]
    return left, notes


@dataclass
class Walk:
    """(name parts, path) of every file below `root` with one of these endings, but for hidden ones.

    Links to folders are followed, after everything real, each folder once: loops end, and the names do not depend on
    the order in which the file system lists them. The folders of runs and studies are left out: sheets and figures
    are no pictures of the set.

    Attributes:
        others: how many other files there are of each ending; known when all have been passed.
        unreadable: folders that cannot be listed, with the reason; runs: folders of runs and studies.
        again: links to folders that were read already; tables: files that may hold labels.
        listed: every folder that was read, but for the top and those of runs and studies.
    """

    root: Path
    suffixes: Iterable[str] = SUFFIXES
    others: Counter[str] = field(default_factory=Counter)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    listed: list[tuple[str, ...]] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Walk."""
        suffixes = tuple(self.suffixes)
        seen: set[tuple[int, int]] = set()
        waiting: list[tuple[tuple[str, ...], str]] = [((), str(self.root))]
        links: list[tuple[tuple[str, ...], str]] = []
        while waiting or links:
            parts, folder = waiting.pop() if waiting else links.pop(0)
            for entry in self._entries(parts, folder, seen):
                inner = (*parts, as_text(entry.name))
                is_folder = _is_folder(entry)
                if is_folder:
                    (links if entry.is_symlink() else waiting).append((inner, entry.path))
                elif entry.name.lower().endswith(suffixes):
                    yield inner, entry.path
                else:
                    self.tables += ["/".join(inner)] * entry.name.lower().endswith((".csv", ".tsv"))
                    self.others[os.path.splitext(entry.name)[1].lower()] += 1

    def _entries(self, parts: tuple[str, ...], folder: str, seen: set[tuple[int, int]]) -> list["os.DirEntry[str]"]:
        """What lies in a folder that was not there before, by name; nothing where it cannot be read."""
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                self.again.append("/".join(parts))
                return []
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as listed:
                entries = sorted(listed, key=lambda e: e.name)
        except OSError as error:
            if not parts:
                raise InputError(f"{folder} cannot be read: {error.strerror}") from None
            self.unreadable.append(("/".join(parts), error.strerror or str(error)))
            return []
        names = {entry.name for entry in entries}
        if {"study.yaml", "finetune.json"} & names or {"config.yaml", "metrics.jsonl"} <= names:
            self.runs.append("/".join(parts))
            # A run may have been put into the very folder of its pictures.
            entries = [] if parts else [entry for entry in entries if entry.name not in OF_RUNS]
        elif parts:
            self.listed.append(parts)
        return [entry for entry in entries if not entry.name.startswith(".") and entry.name not in JUNK]

    def notes(self) -> list[str]:
        """What was left out, a sentence each."""
        notes = []
        if self.runs:
            notes.append(f"left out: the pictures of runs and studies in {some(self.runs)}")
        if self.unreadable:
            notes.append(
                f"left out: {some([f'{name}/ ({why})' for name, why in self.unreadable])}, which cannot be read"
            )
        if self.again:
            notes.append(f"left out: {some([f'{name}/' for name in self.again])}, linked to what is read already")
        packed = [f"{n:,} {ending}" for ending in PACKED if (n := self.others[ending])]
        if packed:
            notes.append(f"left out: {', '.join(packed)} beside the pictures; give such a file as DATA of its own")
        pictures = {ending: n for ending, n in self.others.items() if ending in OTHER_PICTURES}
        if pictures:
            counted = ", ".join(f"{n:,} {ending}" for ending, n in sorted(pictures.items()))
            notes.append(f"left out: {counted} (pictures of kinds that are not read; convert them)")
        return notes


OF_RUNS = frozenset(("samples", "evaluations", "figures", "tables", "runs", "autoencoders", "splits.npz", "seen.npz"))
"""What of a run, a study or a classifier would be taken for pictures."""


def _bare_classes(walked: Walk, layout: Layout) -> list[str]:
    """Folders that lie where classes do, and hold no picture at any depth."""
    full = {place[:depth] for place in layout.roles for depth in range(1, len(place) + 1)}
    around = {at[: at.index(role.label)] for at, role in layout.roles.items() if role.label in at}
    return sorted(f"{'/'.join(place)}/" for place in walked.listed if place not in full and place[:-1] in around)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def some(names: Sequence[str]) -> str:
    """Folders or files of DATA in a sentence."""
    return first_few([name or "DATA itself" for name in names])
