"""What the keys of a study's file may hold: data sets, factors, seeds, exclusions, comparisons.

Comes in: plain values of YAML and the words of `--set`. Goes out: checked values, or one sentence that names file and
key. Imports no torch.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from headstart.records.config import Config, flatten, from_dict, to_dict
from headstart.records.errors import InputError
from headstart.records.files import last_name, parse_yaml
from headstart.records.grid import exclusions, label_of
from headstart.records.names import HEAD_INITS, SETS
from headstart.records.presets import preset
from headstart.records.validation import MOST_SEED
from headstart.report.labels import named_comparisons

Options = Mapping[str, Any]
"""Dotted option names and their values."""

SET_BY = {"seed": "seeds", "data.sources": "data", "device": "--device", "threads": "--threads"}
"""Settings that no factor and no data set may set, and what sets them."""


@dataclass(frozen=True)
class DataSet:
    """DATA and the options that go with it (a training size, a batch size)."""

    sources: tuple[str, ...]
    options: Options = field(default_factory=dict)


def mapping(value: Any, where: str) -> dict[str, Any]:
    """Names and values; none where nothing is given."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InputError(f"{where} must hold names and values, such as `head.init: [random, autoencoder]`")
    return dict(value)


def data_sets(value: Any, where: str) -> dict[str, DataSet]:
    """`data` as a list of DATA, or label -> {sources, options}."""
    if isinstance(value, Mapping):
        sets = {}
        for label, entry in value.items():
            entry = mapping(entry, f"{where}, data {label}")
            sources = _sources(entry.get("sources", label), f"{where}, data {label}")
            if not set(entry) <= {"sources", "options"}:
                raise InputError(f"{where}, data {label} must hold sources and options, not {', '.join(entry)}")
            options = dict(flatten(mapping(entry.get("options"), f"{where}, data {label}, options")))
            sets[label_of(label)] = DataSet(sources, options)
        return sets
    sets = {}
    for entry in value if isinstance(value, list) else [] if value is None else [value]:
        sources = _sources(entry, f"{where}, data")
        label = _data_label(sources)
        if label in sets:
            raise InputError(
                f"{where}: data has {label} twice; name them, such as `data: {{first: {{sources: [...]}}}}`"
            )
        sets[label] = DataSet(sources)
    return sets


def _sources(value: Any, where: str) -> tuple[str, ...]:
    """DATA of one set."""
    sources = value if isinstance(value, list) else [value]
    if not sources:
        raise InputError(f"{where} has an empty list; it must be folders or named sets")
    for source in sources:
        if not isinstance(source, str):
            raise InputError(f"{where} holds {source}, which YAML does not read as text; put it in quotes")
    return tuple(sources)


def _data_label(sources: Sequence[str]) -> str:
    head = sources[0].split(":")[0]
    return head if head in SETS else label_of(last_name(Path(sources[0])) or "pictures")


def preset_options(name: str, data_set: DataSet) -> dict[str, Any]:
    """What the preset says of this data set alone, such as Table 1's size and batch."""
    general, own = preset(name), preset(name, data_set.sources)
    names = [key for key, _ in flatten(to_dict(own)) if key != "data.sources"]
    return {key: _value(own, key) for key in names if _value(own, key) != _value(general, key)}


def factors_of(written: Mapping[str, Any], base: Config, where: str, begun: bool) -> dict[str, dict[str, Options]]:
    """Factors with checked values: a list of values of one option, or label -> options that go together.

    begun: whether they stand in a folder's study.yaml, whose runs have their names already.
    """
    raw = {factor: _levels(factor, levels, f"{where}, factors, {factor}", begun) for factor, levels in written.items()}
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
            values = checked({k: v for *_, options in levels_here for k, v in options.items()}, base, where)
        except InputError:  # one is wrong, or they exclude each other
            values = {}
            for factor, _, options in levels_here:
                values |= checked(options, base, f"{where}, factors, {factor}")
        for factor, label, options in levels_here:
            found = {name: values[name] for name in options}
            if same := next((known for known, others in made[factor].items() if others == found), None):
                raise InputError(f"{where}, factors, {factor} has a value twice: {same} and {label} are the same")
            made[factor][label] = found
    return made


def _levels(factor: str, levels: Any, where: str, begun: bool) -> dict[str, Options]:
    """A factor's values by label, as written."""
    if isinstance(levels, Mapping):
        if "." in factor or factor in ("data", "seed"):
            raise InputError(f"{where}: values with several options need a name of their own, such as `head`")
        if not begun and label_of(factor or "/") != factor:
            better = label_of(factor).partition("~")[0] or "head"
            raise InputError(f"{where}: {factor!r} cannot stand in a folder's name; call it {better}")
        made: dict[str, Options] = {
            label_of(label): dict(flatten(mapping(options, where))) for label, options in levels.items()
        }
    elif isinstance(levels, list):
        made = {label_of(value): {factor: value} for value in levels}
    else:
        raise InputError(f"{where} is {levels!r}; it must be a list of values")
    if not levels or len(made) != len(levels):
        raise InputError(f"{where} has {'a value twice' if levels else 'no values'}")
    return made


def checked(options: Options, base: Config, where: str) -> dict[str, Any]:
    """Options with their values parsed to the right types by the parser of the command line."""
    nested: dict[str, Any] = {}
    for name, value in options.items():
        section, _, last = name.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[last] = value
    for name, by in SET_BY.items():
        if name in options and not (where == "--set" and by == f"--{name}"):
            raise InputError(f"{where}: {name} is set by `{by}`")
    if not options:
        return {}
    parsed = from_dict(nested, base, where)
    return {name: _value(parsed, name) for name in options}


def _value(config: Config, name: str) -> Any:
    section, _, last = name.rpartition(".")
    return getattr(getattr(config, section) if section else config, last)


def overrides_of(overrides: Sequence[str]) -> dict[str, Any]:
    """`--set OPTION=VALUE` as checked options."""
    options: dict[str, Any] = {}
    for text in overrides:
        name, sign, value = text.partition("=")
        if not sign:
            raise InputError(f"--set {text} must be OPTION=VALUE, such as contrastive.epochs=50")
        try:
            options[name.strip().replace("-", "_")] = parse_yaml(value)
        except (yaml.YAMLError, ValueError, RecursionError):
            raise InputError(f"--set {text}: {value!r} is not a value; lists are written [1, 2]") from None
    return checked(options, Config(), "--set")


def seeds_of(seeds: Any, where: str) -> tuple[int, ...]:
    """`seeds`, each of them once."""
    listed = isinstance(seeds, Sequence) and not isinstance(seeds, str) and len(seeds) > 0
    if not listed or any(type(seed) is not int or not 0 <= seed <= MOST_SEED for seed in seeds):
        raise InputError(f"{where}: seeds is {seeds!r}; it must be a list of whole numbers from 0 to {MOST_SEED}")
    return tuple(dict.fromkeys(seeds))


def comparisons(entries: Any, where: str) -> tuple[Any, ...]:
    """What the report reads at the end has the right form at the beginning."""
    listed = tuple(entries) if isinstance(entries, (list, tuple)) else (entries,)
    try:
        named_comparisons(listed, HEAD_INITS)
    except InputError as error:
        raise InputError(f"{where}: {str(error).removeprefix('study.yaml: ')}") from None
    return listed


def excludable(
    values: Mapping[str, Any], factors: Mapping[str, Mapping[str, Options]], sets: Iterable[str], seeds: Iterable[int]
) -> dict[str, list[str]]:
    """What `exclude` may name, by factor, of the file and of what was given by hand; anything where there is none."""
    known = {factor: list(levels) for factor, levels in factors.items()}
    if "headstart" in values:  # a call wrote it, perhaps with fewer sets and seeds than the file that it was given
        return known | {"data": [], "seed": []}
    own = values.get("seeds")
    return known | {
        "data": list(dict.fromkeys(sets)) if values.get("data") else [],
        "seed": [str(seed) for seed in dict.fromkeys([*own, *seeds])] if isinstance(own, list) else [],
    }


def rules_of(rules: Any, known: Mapping[str, list[str]], where: str) -> Iterator[dict[str, Any]]:
    """The rules of `exclude`, which name what the study has (`excludable`)."""
    for rule in rules if isinstance(rules, list) else [rules]:
        if not (rule := mapping(rule, f"{where}, exclude")):
            raise InputError(f"{where}: exclude has an empty rule, which would leave out every run")
        for factor, labels in exclusions([rule])[0].items():
            if factor not in known:
                *others, last = known
                raise InputError(f"{where}, exclude names {factor!r}; factors are {', '.join(others)} and {last}")
            if known[factor] and (wrong := sorted(set(labels) - set(known[factor]))):
                raise InputError(
                    f"{where}, exclude: {factor} has no value {wrong[0]}; it has {', '.join(known[factor])}"
                )
        yield rule
