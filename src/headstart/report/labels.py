"""What heads are called, and which comparisons a study may name. Imports nothing heavy: studies check theirs early."""

from collections.abc import Sequence
from typing import Any, Literal

from headstart.records.errors import InputError
from headstart.records.names import HEAD_INITS

PROJECTORS = {"autoencoder-frozen": "ae", "random-trainable": "mlp"}
"""Heads that the paper names."""
RELEASED = "released at"

Factor = Literal["head", "activation", "hidden_dim", "output_dim"]
FACTORS: tuple[Factor, ...] = ("head", "activation", "hidden_dim", "output_dim")

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


def needs_autoencoder(init: str) -> bool:
    """Whether a head of this init is made from an autoencoder's embedding layer."""
    return init in HEAD_INITS and HEAD_INITS[init].from_embedding


def named_comparisons(compare: Sequence[Any]) -> dict[Any, int]:
    """What study.yaml's `compare` names, with its place in the list: a factor, or a frozenset of two heads.

    Raises InputError for anything else than pairs of heads and names of factors.
    """
    named: dict[Any, int] = {}
    for entry in compare or ():
        if isinstance(entry, str) and entry.removeprefix("head.") in FACTORS:
            named[entry.removeprefix("head.")] = len(named)
        elif isinstance(entry, (list, tuple)) and len(entry) == 2 and all(_is_head(e) for e in entry):
            named[frozenset(_ALIASES.get(e, e) for e in entry)] = len(named)
        else:
            raise InputError(
                f"study.yaml: compare holds {entry!r}; it must hold pairs of heads such as "
                "[autoencoder-frozen, random-trainable], or one of head, activation, hidden_dim, output_dim"
            )
    return named


def _is_head(name: object) -> bool:
    return name in _ALIASES or (
        head_parts(str(name))[0] in HEAD_INITS and str(name).endswith(("-frozen", "-trainable"))
    )
