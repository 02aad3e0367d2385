"""Which folders of a tree are an official split, which are classes, and which only lie around the pictures.

Comes in: the folders that hold pictures, by name. Goes out: the official split and the class of the pictures in each,
and a sentence for everything that was taken for something (docs/data.md lists the conventions).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from headstart.data import words
from headstart.records.errors import InputError
from headstart.records.text import first_few

At = tuple[str, ...]
"""A folder, as the names from the top of DATA down to it."""

JUNK = frozenset(("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"))
"""Folders that operating systems and network disks leave behind, some with previews of the pictures."""
SHOWN = 8
"""So many classes are named in a sentence."""


class Role(NamedTuple):
    """What the pictures directly in a folder are: their official split, their class, and whether they are pictures of
    the set at all (masks beside them are not)."""

    official: str = ""
    label: str | None = None
    kept: bool = True


@dataclass
class Folder:
    """A folder: how many pictures lie directly in it, and the folders in it that hold pictures at any depth."""

    pictures: int = 0
    folders: dict[str, "Folder"] = field(default_factory=dict)

    @classmethod
    def of(cls, places: Iterable[At]) -> "Folder":
        """The tree of the folders in which pictures lie, one place a picture."""
        top = cls()
        for place in sorted(places):
            folder = top
            for name in place:
                folder = folder.folders.setdefault(name, cls())
            folder.pictures += 1
        return top

    def count(self) -> int:
        """Pictures at any depth."""
        return sum(folder.pictures for _, folder in self.below(()))

    def below(self, at: At) -> Iterator[tuple[At, "Folder"]]:
        """This folder and all in it, with their names."""
        waiting = [(at, self)]
        while waiting:
            place, folder = waiting.pop()
            yield place, folder
            waiting += [((*place, name), inner) for name, inner in folder.folders.items()]

    def branches(self) -> bool:
        """Whether the pictures lie in several folders somewhere below."""
        folder = self
        while not folder.pictures and len(folder.folders) == 1:
            folder = next(iter(folder.folders.values()))
        return not folder.pictures and len(folder.folders) > 1


class Layout:
    """What every folder of a tree is.

    Args:
        top: the tree.
        name: of the folder at its top.
        labels: `auto` (first-level folders are classes, unless pictures lie beside them or they are folds or dates),
            `folders` (they are classes whatever they are called), or anything else: they are none.

    Attributes:
        roles: of each folder in which pictures lie.
        notes: what was taken for something, a sentence each.
    """

    def __init__(self, top: Folder, name: str, labels: str) -> None:
        self.labels = labels
        self.roles: dict[At, Role] = {(): Role()}
        self.notes: list[str] = []
        self._classes: dict[str, None] = {}
        self._name = name
        self._set(top, ())
        if self._classes:
            self._say(f"taken for classes: {first_few(sorted(self._classes), SHOWN)}")

    def _set(self, folder: Folder, at: At) -> None:
        """A whole set: with an official split, with several sets in it, with folds, or undivided."""
        folder, at = self._unwrapped(folder, at)
        found = words.splits(folder.folders)
        if found is not None:
            self._split(folder, at, found)
        elif not folder.pictures and self.labels != "folders" and words.no_classes(folder.folders) == "folds":
            self._folds(folder, at)
        elif not folder.pictures and (self._split_inside_classes(folder, at) or self._split_in_names(folder, at)):
            return
        elif any(_official(inner) for inner in folder.folders.values()):
            self._several(folder, at)
        else:
            self._part(folder, at, "")

    def _unwrapped(self, folder: Folder, at: At, branching: bool = True) -> tuple[Folder, At]:
        """The folder that holds the set or part: through folders that lie alone in others, and past annotations.

        branching: whether a folder whose name says nothing is passed through as well, where several lie in it.
        """
        self._leave_annotations_out(folder, at)
        while not folder.pictures and len(folder.folders) == 1:
            ((name, inner),) = folder.folders.items()
            around = at[-1] if at else self._name
            if not (words.is_wrapper(name) or name.lower() == around.lower() or (branching and inner.branches())):
                break
            folder, at = inner, (*at, name)
            self._say(f"passed through: {_path(at)} (alone in its folder)")
            self._leave_annotations_out(folder, at)
        return folder, at

    def _leave_annotations_out(self, folder: Folder, at: At) -> None:
        """Masks and the like that lie beside the pictures they belong to are no pictures of the set."""
        kinds = {name: means.kind for name in folder.folders if (means := words.meaning(name)) is not None}
        if not any(words.holds_pictures(name) or kinds.get(name) == "train" for name in folder.folders):
            return
        for name in [name for name, kind in kinds.items() if kind == "annotation"]:
            inner = folder.folders.pop(name)
            self._all(inner, (*at, name), Role(kept=False))
            self._say(f"left out: {_path((*at, name))} ({inner.count():,} annotations beside the pictures)")

    def _split(self, folder: Folder, at: At, found: words.SplitWords) -> None:
        """Folders that are parts of one set, and whatever lies beside them."""
        parts = {name: kind for name, kind in found.kinds.items() if kind in words.PARTS}
        if found.official:
            in_order = sorted(parts, key=lambda name: (words.PARTS.index(parts[name]), name))
            taken = ", ".join(f"{_path((*at, name))} ({parts[name]})" for name in in_order)
            self._say(f"taken for the official split: {taken}")
        else:
            self._say(f"taken for parts of one set without an official split: {_some(parts, at)}")
        # A folder whose name says nothing is a wrapper where every part has one: in one part alone it may be a class.
        branching = all(len(folder.folders[name].folders) == 1 for name in parts)
        classes = len(self._classes)
        flat = []
        for name, kind in parts.items():
            inner, place = self._unwrapped(folder.folders[name], (*at, name), branching)
            self._part(inner, place, kind if found.official else "")
            flat += [] if inner.folders and not inner.pictures else [name]
        if len(self._classes) > classes and flat:
            self._say(f"without class folders, so unlabelled: {_some(flat, at)}")
        for name, inner in folder.folders.items():
            if name not in parts:
                self._beside(inner, (*at, name), found)

    def _beside(self, folder: Folder, at: At, found: words.SplitWords) -> None:
        """A folder beside the parts of a split that is none of them."""
        if _official(folder):
            self._set(folder, at)
        elif found.kinds.get(at[-1]) == "unlabelled":
            self._say(f"taken for unlabelled pictures to train on: {_path(at)}")
            self._all(folder, at, Role("train" if found.official else ""))
        else:
            self._say(f"beside the split and no part of it, so free for training: {_path(at)}")
            self._all(folder, at, Role())
            for name, inner in folder.folders.items():
                if name in self._classes:
                    self._all(inner, (*at, name), Role(label=name))

    def _split_inside_classes(self, folder: Folder, at: At) -> bool:
        """Whether every folder is a class that holds its own train and test pictures; they are then placed."""
        inside = {name: {n: words.meaning(n) for n in inner.folders} for name, inner in folder.folders.items()}
        kinds = {means.kind if means else "" for parts in inside.values() for means in parts.values()}
        flat = all(
            not inner.pictures and inner.folders and not any(part.folders for part in inner.folders.values())
            for inner in folder.folders.values()
        )
        if not flat or not (kinds <= {"train", "val", "test"} and "train" in kinds and len(kinds) > 1):
            return False
        self._say(f"taken for the official split: {', '.join(sorted(kinds))} inside every class folder")
        for name, parts in inside.items():
            label = name if self.labels in ("auto", "folders") else None
            self._classes |= {name: None} if label else {}
            for part, means in parts.items():
                assert means is not None
                self._all(folder.folders[name].folders[part], (*at, name, part), Role(means.kind, label))
        return True

    def _split_in_names(self, folder: Folder, at: At) -> bool:
        """Whether the name of every folder says a class and a part, each class in training and elsewhere (`cat_train`,
        `cat_test`, `dog_train` ...); they are then placed."""
        found = {name: words.class_and_part(name) for name in folder.folders}
        parts: dict[str, set[str]] = {}
        for both in found.values():
            if both is None or not both[0]:
                return False
            parts.setdefault(both[0], set()).add(both[1])
        if len(parts) < 2 or not all("train" in kinds and len(kinds) > 1 for kinds in parts.values()):
            return False
        self._say(f"taken for classes and the official split: {_some(found, at)}")
        for name, both in found.items():
            assert both is not None
            label = both[0] if self.labels in ("auto", "folders") else None
            self._classes |= {both[0]: None} if label else {}
            self._all(folder.folders[name], (*at, name), Role(both[1], label))
        return True

    def _several(self, folder: Folder, at: At) -> None:
        """Several sets beside each other, each with its own split."""
        sets = [name for name, inner in folder.folders.items() if _official(inner)]
        self._say(f"taken for sets with a split of their own: {_some(sets, at)}")
        for name in sets:
            self._set(folder.folders[name], (*at, name))
        others = [name for name in folder.folders if name not in sets]
        kinds = {name: means.kind for name in others if (means := words.meaning(name)) is not None and not means.rest}
        held_out = [name for name in others if kinds.get(name) in ("val", "test")]
        for name in held_out:
            self._all(folder.folders[name], (*at, name), Role(kinds[name]))
        if held_out:
            self._say(f"beside them, kept from training by its name, without labels: {_some(held_out, at)}")
        if free := [name for name in others if name not in held_out]:
            self._say(f"beside them and no part of a split, so free for training: {_some(free, at)}")

    def _folds(self, folder: Folder, at: At) -> None:
        """The folds of a cross-validation, which together are one undivided set."""
        for name, inner in folder.folders.items():
            if _official(inner):
                raise InputError(
                    f"{_path(at)} holds {len(folder.folders)} folds with train and test in each; give one of them, "
                    f"such as {_path((*at, name))}"
                )
        self._say(f"taken for folds, not for classes, and no official split: {_some(folder.folders, at)}")
        for name, inner in folder.folders.items():
            self._part(*self._unwrapped(inner, (*at, name), branching=False), "")

    def _part(self, folder: Folder, at: At, official: str) -> None:
        """One part of a set: first-level folders are classes, unless pictures lie beside them."""
        self.roles[at] = Role(official)
        other = words.no_classes(folder.folders) if self.labels == "auto" and not folder.pictures else None
        if other:
            self._say(
                f"taken for {other}, not for classes: {_some(folder.folders, at)} "
                "(--data.labels folders makes classes of them)"
            )
        if self.labels == "auto" and folder.pictures:
            self._say_beside_pictures(folder, at)
        classes = self.labels == "folders" or (self.labels == "auto" and not folder.pictures and not other)
        if classes:
            self._say_same_inside(folder, at)
        for name, inner in folder.folders.items():
            means = words.meaning(name)
            unlabelled = means is not None and means.kind == "unlabelled" and not means.rest
            self._all(inner, (*at, name), Role(official, name if classes and not unlabelled else None))
            if classes and unlabelled:
                self._say(f"taken for unlabelled pictures, not for a class: {_path((*at, name))}")
            elif classes:
                self._classes[name] = None
                if means is not None and means.kind in ("train", "val", "test"):
                    self._say(f"looks like a split, but is taken for a class: {_path((*at, name))}")

    def _say_beside_pictures(self, folder: Folder, at: At) -> None:
        full = [name for name, inner in folder.folders.items() if inner.count()]
        if len(full) > 1:
            self._say(
                f"not taken for classes, for pictures lie beside them: {_some(full, at)} (--data.labels folders makes "
                "classes of them)"
            )

    def _say_same_inside(self, folder: Folder, at: At) -> None:
        """That the classes may lie one floor deeper: `raw/cat raw/dog cropped/cat cropped/dog`."""
        inside = {frozenset(inner.folders) for inner in folder.folders.values()}
        if len(folder.folders) > 1 and len(inside) == 1 and len(names := sorted(next(iter(inside)))) > 1:
            self._say(
                f"each of {_some(folder.folders, at)} holds the same folders {', '.join(names[:SHOWN])}; if those are "
                "the classes, name each of the former as DATA of its own"
            )

    def _all(self, folder: Folder, at: At, role: Role) -> None:
        for place, inner in folder.below(at):
            if inner.pictures:
                self.roles[place] = role

    def _say(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def _official(folder: Folder) -> bool:
    """Whether a folder holds an official split, itself or in the folders that lie alone in it."""
    while not folder.pictures and len(folder.folders) == 1:
        folder = next(iter(folder.folders.values()))
    found = words.splits(folder.folders)
    return found is not None and found.official


def _path(at: At) -> str:
    return "/".join(at) + "/" if at else "DATA"


def _some(names: Iterable[str], at: At = ()) -> str:
    return first_few([_path((*at, name)) for name in names], SHOWN)
