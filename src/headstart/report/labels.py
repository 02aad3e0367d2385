"""What heads and probes are called, and what a study may compare. Light: studies check theirs before anything runs."""

from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from headstart.records.config import Config, decides, flatten, to_dict
from headstart.records.errors import InputError
from headstart.records.names import HEAD_INITS, PROBES

PROJECTORS = {"autoencoder-frozen": "ae", "random-trainable": "mlp"}
"""Heads that the paper names."""
RELEASED = "released at"

FACTORS = ("head", "activation", "hidden_dim", "output_dim")

_ALIASES = {alias: head for head, alias in PROJECTORS.items()}


def head_label(init: str, frozen: bool, variant: Sequence[str] = ()) -> str:
    """`INIT-frozen` or `INIT-trainable`; with a variant `INIT (features, matched scale)-frozen`."""
    named = f"{init} ({', '.join(variant)})" if variant else init
    return f"{named}-{'frozen' if frozen else 'trainable'}"


def head_parts(label: str) -> tuple[str, str, bool]:
    """Init, variant (empty where there is none) and whether it starts frozen, of a `head_label`."""
    named, _, state = label.rpartition("-")
    init, _, variant = named.partition(" (")
    return init, variant.removesuffix(")"), state == "frozen"


def stays_frozen(label: str) -> bool:
    """Whether a head's first layer is frozen to the end."""
    _, variant, frozen = head_parts(label)
    return frozen and RELEASED not in variant


def name_of_head(label: str) -> str:
    """`autoencoder-frozen` -> frozen autoencoder."""
    init, variant, _ = head_parts(label)
    named = f"{HEAD_INITS.shown(init)} ({variant})" if variant else HEAD_INITS.shown(init)
    return f"{label.rpartition('-')[2]} {named}"


def named_comparisons(compare: Sequence[Any], inits: Container[str] | None = None) -> dict[Any, int]:
    """What study.yaml's `compare` names, with its place: a factor, a setting, or two heads (a frozenset).

    inits: what heads may start from; None: anything, as in the study.yaml of what was done with a plugin.
    Raises InputError for anything else than pairs of heads and names of factors and settings.
    """
    named: dict[Any, int] = {}
    for entry in compare or ():
        if isinstance(entry, str) and entry.removeprefix("head.") in FACTORS:
            named[entry.removeprefix("head.")] = len(named)
        elif isinstance(entry, str) and is_setting(entry):
            named["normalized" if entry == "data.normalize" else entry] = len(named)
        elif isinstance(entry, (list, tuple)) and len(entry) == 2 and all(_is_head(e, inits) for e in entry):
            named[frozenset(_ALIASES.get(e, e) for e in entry)] = len(named)
        else:
            raise InputError(
                f"study.yaml: compare holds {entry!r}; it must hold pairs of heads such as "
                "[autoencoder-frozen, random-trainable], one of head, activation, hidden_dim, output_dim, or a setting "
                "that is no head's, such as data.normalize or backbone.name"
            )
    return named


def is_setting(name: str) -> bool:
    """Whether a setting can be compared in matched pairs: it is one of a run's, counts, and belongs to no head."""
    known = dict(flatten(to_dict(Config())))
    return name in known and decides(name, None) and not name.startswith(OF_HEADS) and name != "seed"


OF_HEADS = ("head.", "autoencoder.")
"""Settings that make another head of another autoencoder; a head's name tells them."""


def _is_head(name: object, inits: Container[str] | None) -> bool:
    known = inits is None or head_parts(str(name))[0] in inits
    return name in _ALIASES or (known and str(name).endswith(("-frozen", "-trainable")))


def same_labels(results: Iterable[Mapping[str, Mapping[str, Any]]]) -> dict[str, str]:
    """Probe -> the earlier one that took the very same labels in all runs: a share of few labels is one label a class.

    Args:
        results: `probes` of each run.
    """
    runs = list(results)
    names = sorted({probe for probes in runs for probe in probes}, key=PROBES.place)
    same: dict[str, str] = {}
    for one, two in combinations(names, 2):
        if two not in same and all(_drew_the_same(probes, one, two) for probes in runs):
            same[two] = same.get(one, one)
    return same


def _drew_the_same(probes: Mapping[str, Any], one: str, two: str) -> bool:
    first, second = (probes.get(name) or {} for name in (one, two))
    return bool(first.get("draws")) and all(first.get(key) == second.get(key) for key in ("draws", "n_train"))
