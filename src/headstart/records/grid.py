"""What a study varies, by label only: enough to name every run, without checking a setting or importing torch."""

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from headstart.records.config import SECTIONS, Config
from headstart.records.errors import InputError
from headstart.records.schema import GRID, NAMES
from headstart.records.text import first_few
from headstart.records.validation import problem

_FIELDS = [f"{s}.{f.name}" for s in SECTIONS for f in fields(getattr(Config(), s))] + [f.name for f in fields(Config)]
_LAST = [name.rpartition(".")[2] for name in _FIELDS]


@dataclass(frozen=True)
class Point:
    """One combination: labels of the data set and of each factor's value, and the seed."""

    data: str
    levels: Mapping[str, str]
    seed: int


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What is varied, by label only: enough to name every run.

    Attributes:
        data: labels of the data sets.
        factors: factor -> labels of its values.
        exclude: combinations left out: factor (or `data`, `seed`) -> labels.
        added: factors that came to a study already begun -> the label whose runs keep their old names.
    """

    data: tuple[str, ...]
    factors: Mapping[str, tuple[str, ...]]
    seeds: tuple[int, ...]
    exclude: tuple[Mapping[str, tuple[str, ...]], ...] = ()
    added: Mapping[str, str] = field(default_factory=dict)

    def points(self) -> Iterator[Point]:
        """Every combination that is not excluded; seeds vary slowest, so that a study cut short is balanced."""
        for seed, data in itertools.product(self.seeds, self.data):
            for labels in itertools.product(*self.factors.values()):
                levels = dict(zip(self.factors, labels, strict=True))
                everything = {**levels, "data": data, "seed": str(seed)}
                if not any(all(everything[f] in those for f, those in rule.items()) for rule in self.exclude):
                    yield Point(data, levels, seed)

    def name(self, point: Point) -> str:
        """The run's folder: factor=value pairs that stay the same when values, seeds or factors are added."""
        parts = [f"data={point.data}"]
        parts += [
            f"{_short(factor)}={label}" for factor, label in point.levels.items() if self.added.get(factor) != label
        ]
        name = ",".join([*parts, f"seed={point.seed}"])
        return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 9]}~{digest(name)[:8]}"

    def names(self) -> list[str]:
        """Names of all runs."""
        return [self.name(point) for point in self.points()]


def _short(factor: str) -> str:
    """`head.init` -> `init`; the whole name where another section has a setting of that name."""
    last = factor.rpartition(".")[2]
    return last if _LAST.count(last) == 1 else factor


def label_of(value: Any) -> str:
    """A value as a part of a folder's name, the same on every file system; distinct values keep distinct labels.

    A label's own label is itself: study.yaml holds data sets by label.
    """
    text = str(value).lower() if isinstance(value, bool) or value is None else str(value)
    if _LABEL.fullmatch(text):
        return text
    safe = re.sub(r"[^A-Za-z0-9.+-]+", "-", text).strip("-.")[:40]
    plain = safe == text or (safe == text.replace("_", "-") and re.fullmatch(r"[a-z0-9_]+", text))
    return text if plain else f"{safe}~{digest(text)[:4]}"


_LABEL = re.compile(r"[A-Za-z0-9.+-]{0,40}~[0-9a-f]{4}")


def digest(text: str) -> str:
    """A name of a text that another text does not have."""
    return hashlib.sha256(text.encode()).hexdigest()


def exclusions(rules: Sequence[Mapping[str, Any]]) -> tuple[dict[str, tuple[str, ...]], ...]:
    """Rules by label; a value alone is a list of one."""
    return tuple(
        {factor: tuple(map(label_of, those if isinstance(those, list) else [those])) for factor, those in rule.items()}
        for rule in rules
    )


def is_grid(settings: Any) -> bool:
    """Whether a study.yaml says which runs there should be; imported records do not."""
    return isinstance(settings, Mapping) and isinstance(settings.get("data"), Mapping) and "base" in settings


def unplanned(planned: Iterable[str], there: Iterable[str]) -> str:
    """What is said where runs, named as a study names them, are none that its study.yaml plans; else nothing.

    A study.yaml that is cut short between two lines is a smaller study's, or that of imported records.
    """
    known = set(planned)
    if not (others := [name for name in there if name.startswith("data=") and name not in known]):
        return ""
    return (
        f"study.yaml does not plan what lies in runs/ ({first_few(others, 1)}): it is cut short or altered, unless "
        "these were left out since; restore it from a copy"
    )


LONGEST_NAME = 200


def grid_of(settings: Any, path: Path) -> Grid | None:
    """The grid of a study.yaml, without checking its settings, which takes longer than naming 10,000 runs.

    None for imported records, which have none. Raises InputError naming `path` when it is no study's.
    """
    if wrong := problem(settings, GRID if is_grid(settings) else NAMES):
        raise InputError(f"{path} is not a study's: {wrong}; restore it from a copy")
    if not is_grid(settings):
        return None
    factors = settings.get("factors") or {}
    rules = settings.get("exclude") or []
    if unknown := [name for rule in rules for name in rule if name not in ("data", "seed", *factors)]:
        wrong = f"exclude names {str(unknown[0])!r}, which it does not vary"
        raise InputError(f"{path} is not a study's: {wrong}; restore it from a copy")
    return Grid(
        data=tuple(settings["data"]),
        factors={factor: tuple(map(label_of, levels)) for factor, levels in factors.items()},
        seeds=tuple(settings["seeds"]),
        exclude=exclusions(rules),
        added=settings.get("added") or {},
    )
