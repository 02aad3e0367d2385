"""A study: one file names a base setting, data sets, factors and seeds; every combination is a run (paper 3.3-3.6).

Comes in: a YAML file or a preset. Goes out: STUDY/ with study.yaml and runs/NAME/ (design section 5), filled by the
executors; what is there already is never done again. Planning and `status` import no torch.
"""

import hashlib
import itertools
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from headstart import __version__, runs
from headstart.config import (
    SECTIONS,
    TABLE_1,
    Config,
    differences,
    flatten,
    from_dict,
    hash_of,
    preset,
    read_yaml,
    to_dict,
)
from headstart.errors import InputError
from headstart.runs import RunFolder
from headstart.shape import problem

Options = Mapping[str, Any]
"""Dotted option names and their values."""

NAMED_SETS = (*TABLE_1, "digits")
FILE_KEYS = ("name", "preset", "base", "data", "factors", "seeds", "exclude", "compare", "added", "headstart")
AUTOENCODER = "autoencoder-"
"""How the names of autoencoders' own run folders begin."""
LONGEST_NAME = 200


# --------------------------------------------------------------------------------------------------------------- grid


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
        return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 9]}~{_digest(name)[:8]}"

    def names(self) -> list[str]:
        """Names of all runs."""
        return [self.name(point) for point in self.points()]


_FIELDS = [f"{s}.{f.name}" for s in SECTIONS for f in fields(getattr(Config(), s))] + [f.name for f in fields(Config)]
_LAST = [name.rpartition(".")[2] for name in _FIELDS]


def _short(factor: str) -> str:
    """`head.init` -> `init`; the whole name where another section has a setting of that name."""
    last = factor.rpartition(".")[2]
    return last if _LAST.count(last) == 1 else factor


def label_of(value: Any) -> str:
    """A value as a part of a folder's name, the same on every file system; distinct values keep distinct labels."""
    text = str(value).lower() if isinstance(value, bool) or value is None else str(value)
    safe = re.sub(r"[^A-Za-z0-9.+-]+", "-", text).strip("-.")[:40]
    plain = safe == text or (safe == text.replace("_", "-") and re.fullmatch(r"[a-z0-9_]+", text))
    return text if plain else f"{safe}~{_digest(text)[:4]}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# -------------------------------------------------------------------------------------------------------------- study


@dataclass(frozen=True)
class DataSet:
    """DATA and the options that go with it (a training size, a batch size)."""

    sources: tuple[str, ...]
    options: Options = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study as read and checked.

    Attributes:
        base: what all runs share.
        data: label -> data set.
        factors: factor -> label of a value -> the options it sets.
        written: factors as they stood in the file, for study.yaml.
        compare: what the report compares (`report/answer.py`).
    """

    name: str
    base: Config
    data: Mapping[str, DataSet]
    factors: Mapping[str, Mapping[str, Options]]
    written: Mapping[str, Any]
    seeds: tuple[int, ...]
    exclude: tuple[Mapping[str, Any], ...] = ()
    compare: tuple[Any, ...] = ()
    added: Mapping[str, str] = field(default_factory=dict)

    @property
    def grid(self) -> Grid:
        """What is varied, by label."""
        return Grid(
            data=tuple(self.data),
            factors={factor: tuple(levels) for factor, levels in self.factors.items()},
            seeds=self.seeds,
            exclude=_exclusions(self.exclude),
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
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


@dataclass(frozen=True)
class Planned:
    """One run of a study: its folder's name, what was varied, and its full setting."""

    name: str
    point: Point
    config: Config


def load(
    study: str | Path,
    *,
    data: str | Sequence[str] | None = None,
    data_root: str | Path | None = None,
    overrides: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
) -> Study:
    """Read and check a study.

    Args:
        study: a YAML file, a study folder, or a preset: `paper`, `controls`, `smoke`; `paper:cifar10` is one data set
            of it.
        data: DATA to use in place of the study's own.
        data_root: the folder in which its named sets and relative folders lie.
        overrides: `contrastive.epochs=50` and the like, for every run.
        seeds: in place of the study's own.

    Raises:
        InputError: naming the file and the key: unknown keys, values that no run may have, a factor set twice.
    """
    values, where, only = _read(study)
    unknown = [key for key in values if key not in FILE_KEYS]
    if unknown:
        raise InputError(f"{where} has the unknown key {unknown[0]!r}; a study has {', '.join(FILE_KEYS[:-2])}")
    base = from_dict(values.get("base") or {}, preset(values.get("preset")), where=f"{where}, base")
    sets = _data_sets(values.get("data"), where)
    if only is not None:
        if only not in sets:
            raise InputError(f"{where} has no data set {only!r}; it has {', '.join(sets)}")
        sets = {only: sets[only]}
    if data is not None:
        sources = (data,) if isinstance(data, str) else tuple(data)
        sets = {_data_label(sources): DataSet(sources)}
    if not sets:
        raise InputError(f"{where} names no data; give --data")
    written = _mapping(values.get("factors"), f"{where}, factors")
    set_by_hand = _overrides(overrides)
    factors = _factors(written, base, where)
    varied = {option: factor for factor, levels in factors.items() for o in levels.values() for option in o}
    for option in set_by_hand.keys() & varied.keys():
        raise InputError(f"--set {option} cannot be set for every run: the study varies it (factor {varied[option]})")
    base = _applied(base, set_by_hand, "--set")
    for label, data_set in sets.items():
        options = _checked(data_set.options, base, f"{where}, data {label}")
        if values.get("preset"):
            written_in_base = {name for name, _ in flatten(values.get("base") or {})}
            of_preset = _preset_options(values["preset"], data_set).items()
            options = {name: value for name, value in of_preset if name not in written_in_base} | options
        options |= {name: value for name, value in set_by_hand.items() if name in options}
        sources = tuple(_located(source, data_root) for source in data_set.sources)
        sets[label] = DataSet(sources, options)
    return Study(
        name=str(values.get("name") or Path(str(study)).stem),
        base=base, data=sets, factors=factors, written=written,
        seeds=_seeds(seeds if seeds is not None else values.get("seeds", [base.seed]), where),
        exclude=tuple(_exclude(values.get("exclude") or [], factors, where)),
        compare=_compare(values.get("compare") or (), where),
        added={str(k): str(v) for k, v in (values.get("added") or {}).items()},
    )  # fmt: skip


def expand(study: Study) -> list[Planned]:
    """Every run of the study. Raises InputError for a combination that no run may have, naming it."""
    based = {}
    for label, data_set in study.data.items():
        config = _applied(study.base, data_set.options, f"data {label}")
        based[label] = replace(config, data=replace(config.data, sources=data_set.sources))
    grid, planned = study.grid, []
    for point in grid.points():
        options: dict[str, Any] = {}
        for factor, label in point.levels.items():
            options |= study.factors[factor][label]
        name = grid.name(point)
        planned.append(Planned(name, point, replace(_applied(based[point.data], options, name), seed=point.seed)))
    seen: dict[str, str] = {}
    for run in planned:
        if seen.setdefault(run.name.lower(), run.name) is not run.name:
            raise InputError(f"two runs of the study would be called {run.name}; rename a value or a data set")
    return planned


def _applied(config: Config, options: Options, where: str) -> Config:
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


def presets() -> list[str]:
    """Names of the studies that come with Headstart."""
    return sorted(f.name.removesuffix(".yaml") for f in resources.files("headstart").joinpath("presets").iterdir())


def _read(study: str | Path) -> tuple[dict[str, Any], str, str | None]:
    """The file's content, what to call it in messages, and the one data set asked for."""
    path, only = Path(study), None
    if path.is_dir():
        path = path / "study.yaml"
    elif not path.is_file():
        name, _, rest = str(study).partition(":")
        only = rest or None
        found = resources.files("headstart").joinpath("presets", f"{name}.yaml")
        if not re.fullmatch(r"[a-z]+", name) or not found.is_file():
            raise InputError(f"there is no study file or preset {study}; presets are {', '.join(presets())}")
        path = Path(str(found))
    values = _mapping(read_yaml(path), str(path))
    if wrong := problem(values, {"preset?": (None, str), "added?": (None, {})}):
        raise InputError(f"{path}: {wrong}")
    return values, str(path), only


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InputError(f"{where} must hold names and values, such as `head.init: [random, autoencoder]`")
    return dict(value)


def _data_sets(value: Any, where: str) -> dict[str, DataSet]:
    """`data` as a list of DATA, or label -> {sources, options}."""
    if isinstance(value, Mapping):
        sets = {}
        for label, entry in value.items():
            entry = _mapping(entry, f"{where}, data {label}")
            sources = entry.get("sources", [label])
            sources = (sources,) if isinstance(sources, str) else tuple(map(str, sources))
            if not sources or not set(entry) <= {"sources", "options"}:
                raise InputError(f"{where}, data {label} must hold sources and options, not {', '.join(entry)}")
            options = dict(flatten(_mapping(entry.get("options"), f"{where}, data {label}, options")))
            sets[label_of(label)] = DataSet(sources, options)
        return sets
    entries = [value] if isinstance(value, str) else value or []
    if not isinstance(entries, list):
        raise InputError(f"{where}: data must be a list of folders or named sets")
    sets = {}
    for entry in entries:
        sources = tuple(map(str, entry)) if isinstance(entry, list) else (str(entry),)
        label = _data_label(sources)
        if label in sets:
            raise InputError(
                f"{where}: data has {label} twice; name them, such as `data: {{first: {{sources: [...]}}}}`"
            )
        sets[label] = DataSet(sources)
    return sets


def _data_label(sources: Sequence[str]) -> str:
    head = sources[0].split(":")[0]
    return head if head in NAMED_SETS else label_of(Path(sources[0]).name or "pictures")


def _located(source: str, root: str | Path | None) -> str:
    """A source that means the same from every working folder."""
    head, _, folder = source.partition(":")
    if head in NAMED_SETS:
        folder = folder or ("" if root is None or head == "digits" else str(root))
        return f"{head}:{Path(folder).expanduser().absolute()}" if folder else head
    return str((Path(root or "") / Path(source).expanduser()).absolute())


def _preset_options(name: str, data_set: DataSet) -> dict[str, Any]:
    """What the preset says of this data set alone, such as Table 1's size and batch."""
    general, own = preset(name), preset(name, data_set.sources)
    names = [key for key, _ in flatten(to_dict(own)) if key != "data.sources"]
    return {key: _value(own, key) for key in names if _value(own, key) != _value(general, key)}


def _factors(written: Mapping[str, Any], base: Config, where: str) -> dict[str, dict[str, Options]]:
    """Factors with checked values: a list of values of one option, or label -> options that go together."""
    raw = {factor: _levels(factor, levels, f"{where}, factors, {factor}") for factor, levels in written.items()}
    seen: dict[str, str] = {}
    for factor, levels in raw.items():
        for option in {name for options in levels.values() for name in options}:
            if seen.setdefault(option, factor) != factor:
                raise InputError(f"{where}: {option} is set by two factors, {seen[option]} and {factor}")
    made: dict[str, dict[str, Options]] = {factor: {} for factor in raw}
    # The parser takes 20 ms a call: the first values of all factors go through it together, then the second ones.
    for together in itertools.zip_longest(*[[(f, *level) for level in levels.items()] for f, levels in raw.items()]):
        levels_here = [level for level in together if level is not None]
        try:
            values = _checked({k: v for *_, options in levels_here for k, v in options.items()}, base, where)
        except InputError:  # one is wrong, or they exclude each other
            values = {}
            for factor, _, options in levels_here:
                values |= _checked(options, base, f"{where}, factors, {factor}")
        for factor, label, options in levels_here:
            made[factor][label] = {name: values[name] for name in options}
    return made


def _levels(factor: str, levels: Any, where: str) -> dict[str, Options]:
    """A factor's values by label, as written."""
    if isinstance(levels, Mapping):
        if "." in factor or factor in ("data", "seed"):
            raise InputError(f"{where}: values with several options need a name of their own, such as `head`")
        made: dict[str, Options] = {
            label_of(label): dict(flatten(_mapping(options, where))) for label, options in levels.items()
        }
    elif isinstance(levels, list):
        made = {label_of(value): {factor: value} for value in levels}
    else:
        raise InputError(f"{where} is {levels!r}; it must be a list of values")
    if not levels or len(made) != len(levels):
        raise InputError(f"{where} has {'a value twice' if levels else 'no values'}")
    return made


def _checked(options: Options, base: Config, where: str) -> dict[str, Any]:
    """Options with their values parsed to the right types by the parser of the command line."""
    nested: dict[str, Any] = {}
    for name, value in options.items():
        section, _, last = name.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[last] = value
    for name in ("seed", "data.sources"):
        if name in options:
            raise InputError(f"{where}: {name} is set by `{'seeds' if name == 'seed' else 'data'}`")
    if not options:
        return {}
    parsed = from_dict(nested, base, where)
    return {name: _value(parsed, name) for name in options}


def _value(config: Config, name: str) -> Any:
    section, _, last = name.rpartition(".")
    return getattr(getattr(config, section) if section else config, last)


def _overrides(overrides: Sequence[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for text in overrides:
        name, sign, value = text.partition("=")
        if not sign:
            raise InputError(f"--set {text} must be OPTION=VALUE, such as contrastive.epochs=50")
        try:
            options[name.strip().replace("-", "_")] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise InputError(f"--set {text}: {value!r} is not a value; lists are written [1, 2]") from None
    return _checked(options, Config(), "--set")


def _seeds(seeds: Any, where: str) -> tuple[int, ...]:
    listed = isinstance(seeds, Sequence) and not isinstance(seeds, str) and len(seeds) > 0
    if not listed or any(type(seed) is not int or seed < 0 for seed in seeds):
        raise InputError(f"{where}: seeds is {seeds!r}; it must be a list of whole numbers of 0 or more")
    return tuple(dict.fromkeys(seeds))


def _compare(entries: Any, where: str) -> tuple[Any, ...]:
    """What the report reads at the end has the right form at the beginning."""
    for entry in entries if isinstance(entries, (list, tuple)) else [entries]:
        if not isinstance(entry, str) and not (isinstance(entry, list) and len(entry) == 2):
            raise InputError(f"{where}: compare holds {entry!r}; it must hold pairs of heads, or a factor's name")
    return tuple(entries) if isinstance(entries, (list, tuple)) else (entries,)


def _exclude(rules: Any, factors: Mapping[str, Mapping[str, Options]], where: str) -> Iterator[dict[str, Any]]:
    known = {factor: set(levels) for factor, levels in factors.items()}
    for rule in rules if isinstance(rules, list) else [rules]:
        rule = _mapping(rule, f"{where}, exclude")
        for factor, labels in _exclusions([rule])[0].items():
            if factor not in known and factor not in ("data", "seed"):
                raise InputError(f"{where}, exclude names {factor!r}; factors are {', '.join(known)}, data and seed")
            if factor in known and not set(labels) <= known[factor]:
                wrong = sorted(set(labels) - known[factor])[0]
                raise InputError(f"{where}, exclude: {factor} has no value {wrong}; it has {', '.join(known[factor])}")
        yield rule


def _exclusions(rules: Sequence[Mapping[str, Any]]) -> tuple[dict[str, tuple[str, ...]], ...]:
    """Rules by label; a value alone is a list of one."""
    return tuple(
        {factor: tuple(map(label_of, those if isinstance(those, list) else [those])) for factor, those in rule.items()}
        for rule in rules
    )


# ------------------------------------------------------------------------------------------------- the study's folder


def prepare(study: Study, out: str | Path) -> Study:
    """Join a study with what STUDY/study.yaml holds, and write that file.

    Values, seeds, data sets and factors may be added. Raises InputError with the differences when the base setting,
    or what a value means, has changed.
    """
    out = Path(out)
    path = out / "study.yaml"
    RunFolder(out).open()
    if path.exists():
        if not is_grid(read_yaml(path)):
            raise InputError(f"{path} was not written by `headstart study run`; give another --out")
        study = extended(load(path), study, path)
    elif (out / "result.json").exists():
        raise InputError(f"{out} holds a run, not a study; give another --out")
    expand(study)
    text = study.to_yaml()
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        runs.write(path, text)
    return study


def is_grid(settings: Any) -> bool:
    """Whether a study.yaml says which runs there should be; imported records do not."""
    return isinstance(settings, Mapping) and isinstance(settings.get("data"), Mapping) and "base" in settings


def extended(old: Study, new: Study, path: Path) -> Study:
    """The old study and what the new one adds."""
    changed = differences(old.base, new.base)
    for label in old.data.keys() & new.data.keys():
        before, after = old.data[label].options, new.data[label].options
        for name in sorted(before.keys() | after.keys()):
            if before.get(name) != after.get(name):
                changed.append(f"data {label}, {name}: {before.get(name)} -> {after.get(name)}")
    for factor, levels in old.factors.items():
        if factor not in new.factors:
            changed.append(f"factor {factor}: {', '.join(levels)} -> none")
            continue
        for label in levels.keys() & new.factors[factor].keys():
            if levels[label] != new.factors[factor][label]:
                changed.append(f"{factor} {label}: {levels[label]} -> {new.factors[factor][label]}")
    if changed:
        raise InputError(
            f"{path} was begun with another base ({'; '.join(changed)}); repeat that, or give another --out. Data "
            "sets, seeds, factors and their values may be added"
        )
    added = dict(old.added)
    brought = [factor for factor in new.factors if factor not in old.factors]
    for factor in brought:
        same = [label for label, options in new.factors[factor].items() if _applied(old.base, options, "") == old.base]
        if not same:
            raise InputError(
                f"{path}: the new factor {factor} lacks the value that the runs already there have; add that value too"
            )
        added[factor] = same[0]
    return replace(
        new,
        data={**old.data, **new.data},
        factors={f: {**old.factors.get(f, {}), **new.factors[f]} for f in [*old.factors, *brought]},
        written={f: _joined(old.written.get(f), new.written[f]) for f in [*old.written, *brought]},
        seeds=tuple(dict.fromkeys([*old.seeds, *new.seeds])),
        added=added,
    )


def _joined(old: Any, new: Any) -> Any:
    if isinstance(new, dict):
        return {**(old or {}), **new}
    known = {label_of(value) for value in old or []}
    return [*(old or []), *(value for value in new if label_of(value) not in known)]


def autoencoder_config(config: Config) -> Config:
    """The run that trains the autoencoder of `config`: what it depends on is kept, all else is the house's default, so
    that runs which differ elsewhere share it."""
    on_features = config.autoencoder.on == "features"
    house = Config()
    data = replace(config.data, detail=house.data.detail)
    if not on_features:
        data = replace(data, normalize=house.data.normalize)
        data = data if config.autoencoder.normalize else replace(data, statistics=house.data.statistics)
    return replace(
        config,
        stages="autoencoder",
        data=data,
        backbone=config.backbone if on_features else replace(config.backbone, weights=house.backbone.weights),
        head=replace(house.head, hidden_dim=config.head.hidden_dim),
        contrastive=house.contrastive,
        augment=house.augment,
        probe=house.probe,
    )


def trains_autoencoder(config: Config) -> bool:
    """Whether the run needs an autoencoder that is not there yet as a file."""
    wanted = config.head.needs_autoencoder or config.stages == "autoencoder"
    return wanted and config.autoencoder.weights is None


def autoencoder_hash(config: Config, fingerprint: str) -> str:
    """Names the autoencoder of `config` by content: pictures, latent size, seed and every setting it depends on."""
    return hash_of(autoencoder_config(config), fingerprint)


def untrained_hash(config: Config, fingerprint: str) -> str:
    """Names the probes of the backbone before SimCLR in the same way; no head has a part in them."""
    house = Config()
    neutral = replace(
        config, head=house.head, autoencoder=house.autoencoder, contrastive=house.contrastive, augment=house.augment
    )
    return hash_of(neutral, fingerprint)


def autoencoder_name(config: Config, label: str, digest: str) -> str:
    """The folder of the autoencoder's own run."""
    return f"{AUTOENCODER}{label}-h{config.head.hidden_dim}-seed{config.seed}-{digest[:8]}"


def autoencoders_of(planned: Sequence[Planned]) -> dict[str, Planned]:
    """One run for every autoencoder that the study needs; the pictures are known by their label here."""
    needed: dict[str, Planned] = {}
    for run in planned:
        if trains_autoencoder(run.config):
            needed.setdefault(autoencoder_hash(run.config, run.point.data), run)
    return needed


# ---------------------------------------------------------------------------------------------------- plan, run, status


@dataclass(frozen=True)
class Plan:
    """What a study would do.

    Attributes:
        runs: all of them.
        autoencoders: how many it trains.
        done: runs that are finished in the study folder.
        seconds: estimate for the rest, one run after another; None where nothing was measured.
        measured: what the estimate rests on.
    """

    study: Study
    runs: list[Planned]
    autoencoders: int
    done: int = 0
    seconds: float | None = None
    measured: str = ""


def plan(
    study: str | Path,
    *,
    out: str | Path | None = None,
    data: str | Sequence[str] | None = None,
    data_root: str | Path | None = None,
    overrides: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    calibrate: bool = True,
) -> Plan:
    """What `run` would do; starts no run and writes nothing.

    Args:
        out: the study folder, whose finished runs do not count again.
        calibrate: time a few training steps on random pictures, for the estimate; otherwise it rests on the finished
            runs alone.
        Others as for `load`.
    """
    loaded = load(study, data=data, data_root=data_root, overrides=overrides, seeds=seeds)
    if out is not None and (Path(out) / "study.yaml").exists():
        loaded = extended(load(Path(out)), loaded, Path(out) / "study.yaml")
    planned = expand(loaded)
    needed = autoencoders_of(planned)
    done = {run.name for run in planned if out is not None and (Path(out) / "runs" / run.name / "result.json").exists()}
    rest = [run for run in planned if run.name not in done]
    if out is not None and done:
        mean = _seconds_by_set(Path(out) / "runs", sorted(done))
        estimate = sum(_of_set(mean, run.name) for run in rest)
        return Plan(loaded, planned, len(needed), len(done), estimate, f"{len(done)} finished runs")
    if not calibrate:
        return Plan(loaded, planned, len(needed), len(done))
    from headstart.executors import calibrated_seconds

    seconds, measured = calibrated_seconds(rest, list(autoencoders_of(rest).values()))
    return Plan(loaded, planned, len(needed), len(done), seconds, measured)


@dataclass(frozen=True)
class RayOptions:
    """How runs go to a Ray cluster."""

    address: str | None = None
    """Of an existing cluster (`auto`, `HOST:PORT`, `ray://HOST:PORT`). Unset: one is started on this machine."""
    cpus: float | None = None
    """CPUs that Ray sets aside for a run. Unset: its threads."""
    gpus: float | None = None
    """GPUs, or a share of one, for a run: 0.25 lets four runs share a GPU. Unset: 1 where the cluster has any."""


@dataclass(frozen=True)
class Summary:
    """How a call of `run` ended.

    Attributes:
        done, failed, elsewhere: runs finished; failed; being done by other processes.
    """

    total: int
    done: int
    failed: int
    elsewhere: int

    @property
    def exit_code(self) -> int:
        """1 where a run failed."""
        return 1 if self.failed else 0


def run(
    study: str | Path,
    out: str | Path,
    *,
    data: str | Sequence[str] | None = None,
    data_root: str | Path | None = None,
    overrides: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    executor: Literal["local", "ray"] = "local",
    workers: int = 1,
    threads: int | None = None,
    device: str | None = None,
    retry_failed: bool = False,
    max_seconds: float | None = None,
    keep: Literal["all", "records"] = "all",
    ray: RayOptions = RayOptions(),
    quiet: bool = False,
) -> Summary:
    """Do what the study has not done yet.

    Args:
        study, data, data_root, overrides, seeds: as for `load`.
        out: the study folder; it may lie on a shared file system, and several calls may work on it at once.
        executor: `local`, or `ray`: a local or existing Ray cluster.
        workers: processes on this machine; 0: in this one. With several GPUs they take turns; with fewer GPUs than
            workers, runs share them.
        threads: CPU threads of a run. Unset: the study's, or this machine's cores shared among the workers.
        device: overrides the study's.
        retry_failed: do failed runs once more.
        max_seconds: save, stop and raise `Interrupted` after this time.
        keep: `records` removes a run's weights and checkpoints once it is finished.

    Returns:
        Summary: its `exit_code` is 1 where a run has failed.

    Raises:
        InputError: as for `load` and `prepare`, or the data are not there.
        Interrupted: stopped; the same call goes on.
    """
    from headstart import executors

    out = Path(out).absolute()
    loaded = load(study, data=data, data_root=data_root, overrides=overrides, seeds=seeds)
    changed = {"threads": threads, "device": device}
    base = replace(loaded.base, **{name: value for name, value in changed.items() if value is not None})  # type: ignore[arg-type]
    joined = prepare(replace(loaded, base=base), out)
    planned = expand(joined)
    if retry_failed:
        for failed in (out / "runs").glob("*/failed.json"):
            failed.unlink()
    work = executors.Work(
        out=str(out), threads=base.threads, device=base.device, keep=keep, quiet=quiet,
        deadline=None if max_seconds is None else time.time() + max_seconds,
    )  # fmt: skip
    todo = [run for run in planned if not (out / "runs" / run.name / "result.json").exists()]
    executors.check_data(todo)
    if executor == "ray":
        executors.on_ray(work, planned, ray)
    else:
        executors.on_this_machine(work, planned, workers)
    return _summary(out, planned, keep)


def _summary(out: Path, planned: Sequence[Planned], keep: str) -> Summary:
    folders = [RunFolder(out / "runs" / run.name) for run in planned]
    done = sum(folder.is_complete() for folder in folders)
    failed = sum(folder.failed.exists() and not folder.is_complete() for folder in folders)
    if keep == "records" and done == len(folders):
        for weights in (out / "autoencoders").glob("*.safetensors"):
            weights.unlink()
    return Summary(total=len(folders), done=done, failed=failed, elsewhere=len(folders) - done - failed)


@dataclass(frozen=True)
class Running:
    """A run in progress: stage and share done (None before its first checkpoint), and where."""

    name: str
    stage: str | None
    progress: float | None
    host: str


@dataclass(frozen=True)
class Status:
    """How far a study is.

    Attributes:
        total: runs of the study, with those that are there but no longer in its plan.
        failed: (name, reason).
        autoencoders: finished ones.
        seconds_left: at the pace and with as many at once as now; None where nothing is finished.
    """

    name: str
    total: int
    done: int
    running: list[Running]
    failed: list[tuple[str, str]]
    todo: int
    autoencoders: int
    seconds_left: float | None


def status(out: str | Path) -> Status:
    """How far the study in a folder is; imported records count as done. Reads few files: one look a run.

    Raises InputError when the folder holds no study.
    """
    from headstart.study_store import Claim

    out = Path(out)
    path = out / "study.yaml"
    if not path.exists():
        raise InputError(f"{out} is not a study folder: it has no study.yaml")
    settings = read_yaml(path)
    if wrong := problem(settings, _GRID if is_grid(settings) else {}):
        raise InputError(f"{path} is not a study's: {wrong}; restore it from a copy")
    there = sorted(f.name for f in (out / "runs").iterdir() if f.is_dir()) if (out / "runs").is_dir() else []
    autoencoders = [name for name in there if name.startswith(AUTOENCODER)]
    planned = _grid_of(settings).names() if is_grid(settings) else [n for n in there if n not in autoencoders]
    known = set(planned)
    known, present = set(planned), set(there)
    done, running, failed, todo, trained = [], [], [], 0, 0
    for name in [*planned, *(name for name in there if name not in known)]:
        if name not in present:
            todo += 1
            continue
        if os.path.exists(f"{out}/runs/{name}/result.json"):  # all that is asked of a finished run: there may be many
            if name in known or not name.startswith(AUTOENCODER):
                done.append(name)
            else:
                trained += 1
            continue
        folder = RunFolder(out / "runs" / name)
        if folder.failed.exists():
            failed.append((name, runs.read_json(folder.failed, runs.FAILED).get("reason", "")))
        elif (holder := Claim(folder.path).holder()) is not None:
            running.append(_running(folder, holder))
        else:
            todo += name in known
    extra = sum(name.startswith(AUTOENCODER) for name in [*(r.name for r in running), *(name for name, _ in failed)])
    total = len(done) + len(running) + len(failed) + todo - extra
    left: float | None = 0.0
    if total > len(done):
        left = _time_left(out / "runs", done, todo, running) if done else None
    return Status(
        name=str(settings.get("name", out.name)), total=total, done=len(done), running=running, failed=failed,
        todo=todo, autoencoders=trained, seconds_left=left,
    )  # fmt: skip


_LEVEL: Any = (None, str, bool, float, {}, [(None, str, bool, float)])
_GRID: dict[str, Any] = {
    "data": {}, "factors?": (None, {"*": ([_LEVEL], {})}), "seeds": [int], "exclude?": (None, [{}]),
    "added?": (None, {}),
}  # fmt: skip
"""What names the runs in a study.yaml."""


def _grid_of(settings: Mapping[str, Any]) -> Grid:
    """The grid of a study.yaml, without checking its settings, which takes longer than naming 10,000 runs."""
    return Grid(
        data=tuple(settings["data"]),
        factors={
            f: tuple(label_of(value) for value in levels) for f, levels in (settings.get("factors") or {}).items()
        },
        seeds=tuple(settings["seeds"]),
        exclude=_exclusions(settings.get("exclude") or []),
        added=settings.get("added") or {},
    )


def _running(folder: RunFolder, holder: Mapping[str, Any]) -> Running:
    lines = runs.read_metrics(folder.metrics)
    epochs = holder.get("epochs") or {}
    stage = lines[-1].get("stage") if lines else None
    total = epochs.get(stage)
    progress = min(1.0, lines[-1].get("epoch", 0) / total) if total else None
    return Running(folder.path.name, stage, progress, str(holder.get("host", "")))


SAMPLE = 100
"""Finished runs of a data set whose times are read for the estimate."""


_TIMED = {"seconds?": (None, {"*": float})}


def _seconds_by_set(folder: Path, names: Sequence[str]) -> dict[str, float]:
    """Mean seconds of a finished run by data set, from a sample."""
    by_set: dict[str, list[str]] = {}
    for name in names:
        by_set.setdefault(name.split(",")[0], []).append(name)
    means = {}
    for label, members in by_set.items():
        chosen = members[:: max(1, len(members) // SAMPLE)]
        results = [runs.read_json(folder / n / "result.json", _TIMED, "a run's result") for n in chosen]
        seconds = [sum((result.get("seconds") or {}).values()) for result in results]
        means[label] = sum(seconds) / len(seconds)
    return means


def _of_set(means: Mapping[str, float], name: str) -> float:
    return means.get(name.split(",")[0], sum(means.values()) / len(means))


def _time_left(folder: Path, done: Sequence[str], todo: int, running: Sequence[Running]) -> float:
    means = _seconds_by_set(folder, done)
    at_work = [run for run in running if not run.name.startswith(AUTOENCODER)]
    left = todo + sum(1 - (run.progress or 0.0) for run in at_work)
    return left * sum(means.values()) / len(means) / max(1, len(at_work))


# ----------------------------------------------------------------------------------------------------------- the screen


def print_plan(plan: Plan) -> None:
    """Show what would run."""
    console, table = _console(), _table("what varies", "values")
    study = plan.study
    table.add_row("data", ", ".join(study.data))
    for factor, levels in study.factors.items():
        table.add_row(factor, ", ".join(levels))
    table.add_row("seeds", ", ".join(map(str, study.seeds)))
    told = f"[bold]{len(plan.runs)} runs[/] and {plan.autoencoders} autoencoders; {plan.done} runs are finished"
    console.print(told, markup=True)
    console.print(table)
    if study.exclude:
        console.print(f"without the combinations of {len(study.exclude)} exclusions")
    if plan.seconds is None:
        console.print("no estimate of time: nothing was measured")
    else:
        console.print(f"about {duration(plan.seconds)} one run after another (from {plan.measured})", markup=False)


def print_status(status: Status) -> None:
    """Show how far the study is."""
    console = _console()
    console.print(
        f"{runs.printable(status.name)}: {status.done} of {status.total} runs done, {len(status.running)} running, "
        f"{len(status.failed)} failed, {status.todo} to do; {status.autoencoders} autoencoders", markup=False,
    )  # fmt: skip
    if status.running:
        table = _table("running", "stage", "done", "where")
        for run in status.running:
            told = run.name, run.stage or "starting", "" if run.progress is None else f"{run.progress:.0%}", run.host
            table.add_row(*map(runs.printable, told))
        console.print(table)
    if status.failed:
        table = _table("failed", "reason")
        for name, reason in status.failed:
            table.add_row(runs.printable(name), runs.printable(reason))
        console.print(table)
        console.print("`headstart study run ... --retry-failed` does them once more")
    if status.seconds_left:
        console.print(f"about {duration(status.seconds_left)} left at this pace")


def print_summary(summary: Summary) -> None:
    """Show how a call ended."""
    text = f"{summary.done} of {summary.total} runs done"
    text += f", {summary.failed} failed (`headstart study status` says why)" if summary.failed else ""
    text += f", {summary.elsewhere} being done by other processes" if summary.elsewhere else ""
    _console().print(text, markup=False)


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _console() -> Any:
    from rich.console import Console

    return Console(highlight=False, markup=False)  # names are data, and may hold brackets


def _table(*columns: str) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


__all__ = ["Plan", "RayOptions", "Status", "Study", "Summary", "expand", "load", "plan", "run", "status"]
