"""A study as it is written: the grid that is varied, the file that says it, and the runs that follow.

Comes in: a YAML file, a study folder or a preset. Goes out: a checked `Study`, and from it every run's name and config.
Imports no torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from headstart.records import plugins
from headstart.records.config import Config, Device, flatten, from_dict, to_dict
from headstart.records.errors import InputError
from headstart.records.files import as_yaml, expanded, nearby, read_yaml
from headstart.records.grid import Grid, Point, exclusions
from headstart.records.located import absolute
from headstart.records.names import PROBES
from headstart.records.presets import preset
from headstart.records.schema import STUDY
from headstart.records.validation import Count, Seed, Several, Text, nearest, problem, settings
from headstart.records.version import __version__
from headstart.study import keys
from headstart.study.keys import DataSet, Options
from headstart.study.named import presets

FILE_KEYS = (
    "name",
    "preset",
    "base",
    "data",
    "factors",
    "seeds",
    "exclude",
    "decides",
    "compare",
    "plugins",
    "added",
    "headstart",
)

# -------------------------------------------------------------------------------------------------------------- study


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study as read and checked.

    Attributes:
        base: what all runs share.
        data: label -> data set.
        factors: factor -> label of a value -> the options it sets.
        written: factors as they stood in the file, for study.yaml.
        plugins: modules that were imported because the caller named them.
        decides: the probe whose accuracy the report compares, named before there is any; '' for the report's choice.
        compare: what the report compares (`report/answer.py`).
    """

    name: str
    base: Config
    data: Mapping[str, DataSet]
    factors: Mapping[str, Mapping[str, Options]]
    written: Mapping[str, Any]
    seeds: tuple[int, ...]
    exclude: tuple[Mapping[str, Any], ...] = ()
    decides: str = ""
    compare: tuple[Any, ...] = ()
    plugins: tuple[str, ...] = ()
    added: Mapping[str, str] = field(default_factory=dict)

    @property
    def grid(self) -> Grid:
        """What is varied, by label."""
        return Grid(
            data=tuple(self.data),
            factors={factor: tuple(levels) for factor, levels in self.factors.items()},
            seeds=self.seeds,
            exclude=exclusions(self.exclude),
            added=self.added,
        )

    def to_yaml(self) -> str:
        """study.yaml: everything resolved, and readable again by `load`."""
        content = {
            "name": self.name,
            "headstart": __version__,
            "base": to_dict(self.base),
            "data": {label: {"sources": list(s.sources), "options": dict(s.options)} for label, s in self.data.items()},
            "factors": dict(self.written),
            "seeds": list(self.seeds),
            "exclude": [dict(rule) for rule in self.exclude],
            "compare": list(self.compare),
            "added": dict(self.added),
        }
        content |= {"decides": self.decides} if self.decides else {}
        content |= {"plugins": list(self.plugins)} if self.plugins else {}
        return as_yaml(content)


@dataclass(frozen=True)
class Planned:
    """One run of a study: its folder's name, what was varied, and its full setting."""

    name: str
    point: Point
    config: Config


@settings("")
class StudyOptions:
    """Which of a study's runs are meant, and on which pictures."""

    data: Annotated[tuple[Text, ...], Several] | None = None
    """DATA in place of the study's own."""
    data_root: Path | None = None
    """The folder in which its named sets and relative folders lie."""
    seeds: tuple[Seed, ...] | None = None
    """In place of the study's own."""
    plugin: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A module of yours to import, which registers heads, activations, probes ...; a study that names plugins needs
    each of them here too."""
    threads: Count | None = None
    """CPU threads of a run. Unset: the study's, or this machine's cores shared among the workers."""
    device: Device | None = None
    """auto, cpu, cuda, cuda:N or mps, for every run. Unset: the study's."""


def load(study: str | Path, *, overrides: Sequence[str] = (), **selection: Any) -> Study:
    """Read and check a study.

    Args:
        study: a YAML file, a study folder, or a preset: `paper`, `controls`, `controls:vicreg`, `smoke`;
            `paper:cifar10` is one data set of it.
        overrides: `contrastive.epochs=50` and the like, for every run.
        selection: as in `StudyOptions`.

    Raises:
        InputError: naming the file and the key: unknown keys, values that no run may have, a factor set twice.
    """
    selected = StudyOptions(**selection)
    values, where, only = _read(study)
    unknown = [key for key in values if key not in FILE_KEYS]
    if unknown:
        raise InputError(f"{where} has the unknown key {unknown[0]!r}; a study has {', '.join(FILE_KEYS[:-2])}")
    _use_plugins(values.get("plugins") or [], selected.plugin, where)
    set_by_hand = keys.overrides_of(overrides)
    given = values.get("base") or {}
    weights = set_by_hand.get("backbone.weights") or from_dict(given, where=f"{where}, base").backbone.weights
    base = from_dict(given, preset(values.get("preset"), weights=str(weights)), where=f"{where}, base")
    base = replace(base, threads=selected.threads or base.threads, device=selected.device or base.device)
    sets = known = keys.data_sets(values.get("data"), where)
    if only is not None:
        if only not in sets:
            raise InputError(f"{where} has no data set {only!r}; it has {', '.join(sets)}")
        sets = {only: sets[only]}
    if selected.data is not None:
        sources = (selected.data,) if isinstance(selected.data, (str, Path)) else selected.data
        sets = keys.data_sets([list(map(str, sources))], where)
    if not sets:
        raise InputError(f"{where} names no data; give --data")
    written = keys.mapping(values.get("factors"), f"{where}, factors")
    factors = keys.factors_of(written, base, where, begun="headstart" in values)
    varied = {option: factor for factor, levels in factors.items() for o in levels.values() for option in o}
    for option in set_by_hand.keys() & varied.keys():
        raise InputError(f"--set {option} cannot be set for every run: the study varies it (factor {varied[option]})")
    base = applied(base, set_by_hand, "--set")
    for label, data_set in sets.items():
        options = keys.checked(data_set.options, base, f"{where}, data {label}")
        if values.get("preset"):
            written_in_base = {name for name, _ in flatten(values.get("base") or {})}
            of_preset = keys.preset_options(values["preset"], data_set).items()
            options = {name: value for name, value in of_preset if name not in written_in_base} | options
        options |= {name: value for name, value in set_by_hand.items() if name in options}
        sources = tuple(absolute(source, root=selected.data_root) for source in data_set.sources)
        sets[label] = DataSet(sources, options)
    may_be_left_out = keys.excludable(values, factors, [*known, *sets], selected.seeds or ())
    made = Study(
        name=str(values.get("name") or Path(str(study)).stem),
        base=base,
        data=sets,
        factors=factors,
        written=written,
        seeds=keys.seeds_of(values.get("seeds", [base.seed]) if selected.seeds is None else selected.seeds, where),
        exclude=tuple(keys.rules_of(values.get("exclude") or [], may_be_left_out, where)),
        decides=str(values.get("decides") or ""),
        compare=keys.comparisons(values.get("compare") or (), where),
        plugins=tuple(selected.plugin),
        added={str(k): str(v) for k, v in (values.get("added") or {}).items()},
    )
    _check_decides(made, where)
    return made


def expand(study: Study) -> list[Planned]:
    """Every run of the study. Raises InputError naming a combination that no run may have, or where none is left."""
    based = {}
    for label, data_set in study.data.items():
        config = applied(study.base, data_set.options, f"data {label}")
        based[label] = replace(config, data=replace(config.data, sources=data_set.sources))
    grid, planned = study.grid, []
    for point in grid.points():
        options: dict[str, Any] = {}
        for factor, label in point.levels.items():
            options |= study.factors[factor][label]
        name = grid.name(point)
        planned.append(Planned(name, point, replace(applied(based[point.data], options, name), seed=point.seed)))
    if not planned:
        raise InputError(f"exclude leaves no run of the study {study.name}")
    seen: dict[str, str] = {}
    for run in planned:
        if seen.setdefault(run.name.lower(), run.name) is not run.name:
            raise InputError(f"two runs of the study would be called {run.name}; rename a value or a data set")
    return planned


def applied(config: Config, options: Options, where: str) -> Config:
    """A config with checked options set; cheap, because a study does it for every run."""
    sections: dict[str, dict[str, Any]] = {}
    plain: dict[str, Any] = {}
    for name, value in options.items():
        section, _, last = name.rpartition(".")
        if section:
            sections.setdefault(section, {})[last] = value
        else:
            plain[last] = value
    try:
        made = {section: replace(getattr(config, section), **values) for section, values in sections.items()}
        return replace(config, **made, **plain)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


# --------------------------------------------------------------------------------------------------- reading the file


def _read(study: str | Path) -> tuple[dict[str, Any], str, str | None]:
    """The file's content, what to call it in messages, and the one data set asked for."""
    path, only, contrastive = expanded(study), None, None
    if path.is_dir():
        path = path / "study.yaml"
    elif not path.is_file():
        name, _, rest = str(study).partition(":")
        if str(study) in presets():
            name, rest = str(study), ""
        only = rest or None
        if name not in presets():
            meant = nearest(name, presets()) or nearby(study)
            raise InputError(f"there is no study file or preset {study}{meant}; presets are {', '.join(presets())}")
        path, contrastive = presets()[name].path, presets()[name].contrastive
    values = keys.mapping(read_yaml(path), str(path))
    if wrong := problem(values, STUDY):
        raise InputError(f"{path}: {wrong}")
    if contrastive:
        base = values["base"]
        values |= {"name": name, "base": base | {"contrastive": base["contrastive"] | contrastive}}
    return values, str(path), only


def _use_plugins(named: Any, allowed: Sequence[str], where: str) -> None:
    """Import what the caller allowed, and nothing else that the file names."""
    for name in named if isinstance(named, list) else [named]:
        if name not in allowed:
            raise InputError(
                f"{where} needs the plugin {name}, which is a program; if you trust it, add --plugin {name}"
            )
    plugins.use(allowed)


def _check_decides(study: Study, where: str) -> None:
    """Refuse a probe that decides and does not judge every run that is judged at all."""
    if not study.decides:
        return
    asked = [run.config.probe.names for run in expand(study) if run.config.stages == "probe"]
    common = [name for name in PROBES if all(name in names for names in asked)]
    if study.decides not in common:
        right = f"one that every run is judged by: {', '.join(common) or 'there is none'}"
        raise InputError(f"{where}: decides is {study.decides!r}; it must be {right}")
