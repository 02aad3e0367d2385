"""State dicts as people have them: which of a file's tensors are a network's, and under which names.

Comes in: named tensors, as `importers.read_tensors` gives them, and a network's own state dict. Goes out: the tensors
under the network's names. A file may hold wrappers (`module.`, `backbone.`, `encoder_q.`, ...), heads, several
networks, the numbers of an nn.Sequential, or another implementation's names for the same layers in the same order.
"""

import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from headstart.records.errors import InputError

Tensors = Mapping[str, Tensor]

COUNTER = "num_batches_tracked"
"""Ends the names of tensors that batch norm counts in; old files and other implementations have none."""

HEADS = re.compile(
    r"_?(fc\d?|linear\d?|classif\w*|cls|proj\w*|pred\w*|prototypes\w*|decoder\w*|mlp\w*|heads?(\d|_dist)?|(?!conv_|norm_)\w*_heads?"
    r"|online_\w*|probe\w*|queue\w*|mask_token|center|last_linear|\w*loss\w*)(\..*)?"
)
"""What trainings put beside or on top of a backbone. No feature passes through it."""

NUMBERED = re.compile(r"((?:[^.]*[^.\d][^.]*\.)*)(\d+)\.(.+)")
"""What stands before the first number in a name, the number, and the rest."""

EFFICIENTNET = "_conv_stem.weight"
"""The first name in lukemelas' EfficientNet-PyTorch, whose layers come in timm's order."""

BEATS = (("q", "k"), ("teacher", "student"), ("online", "target"), ("ema", ""), ("", "momentum"))
"""Words in the names of two networks of one file, the first being the one that such files are made for: MoCo's
`encoder_q` (main_lincls.py), DINO's and iBOT's `teacher` (eval_linear.py), BYOL's online network, timm's
`state_dict_ema` (load_state_dict), the backbone beside its momentum twin (MoCo v3, solo-learn, lightly). '' is a name
without the other word."""


@dataclass(frozen=True)
class Reading:
    """A file's tensors under a network's names.

    Attributes:
        tensors: by the network's own names; further ones under the same wrapper keep theirs.
        prefix: what stood in front of the names.
        others: prefixes of further networks in the file, which are not read.
        fitting: how many of the network's tensors are there in their shape, counters apart.
        total: how many it has.
    """

    tensors: dict[str, Tensor]
    prefix: str
    others: tuple[str, ...]
    fitting: int
    total: int


def read(tensors: Tensors, own: Tensors, where: str) -> Reading:
    """Find the network `own` (its state dict; on the meta device will do) among `tensors`.

    Raises InputError when nothing fits, or when several networks fit alike and none is known to be the one in use.
    """
    best: tuple[tuple[int, int], Tensors, list[str]] = ((0, 0), {}, [])
    for named in _translations(tensors, own):
        fits = _fits(named, own)
        most = max(fits.values(), default=(0, 0))
        if most > best[0]:
            best = most, named, sorted(prefix for prefix, fit in fits.items() if fit == most)
    (fitting, _), named, prefixes = best
    total = len(_without_counters(own))
    if not prefixes:
        raise InputError(f"{where} fits 0 of {total} tensors: {_near_misses(tensors, own)}")
    prefix = _in_use(prefixes, named, own, where)
    others = tuple(other for other in prefixes if other != prefix)
    kept = {
        name.removeprefix(prefix): tensor
        for name, tensor in named.items()
        if name.startswith(prefix) and not name.startswith(tuple(o for o in others if len(o) > len(prefix)))
    }
    return Reading(kept, prefix, others, fitting, total)


def check_names(given: Tensors, own: Tensors, where: str) -> None:
    """Raise InputError unless `given` has all names of `own` (counters apart) and no others, in its shapes."""
    problems = {
        "missing": [name for name in own if name not in given and not name.endswith(COUNTER)],
        "unknown": [name for name in given if name not in own],
        "of another shape": [
            f"{name} {tuple(given[name].shape)} instead of {tuple(own[name].shape)}"
            for name in own
            if name in given and given[name].shape != own[name].shape
        ],
    }
    if any(problems.values()):
        listed = "; ".join(f"{len(names)} {kind}: {_some(names)}" for kind, names in problems.items() if names)
        wanted = _without_counters(own)
        fitting = sum(name in given and given[name].shape == own[name].shape for name in wanted)
        raise InputError(f"{where} does not fit the backbone: {fitting} of {len(wanted)} tensors fit ({listed})")


def check_values(given: Tensors, own: Tensors, where: str) -> None:
    """Raise InputError where numbers of the network would not be numbers, or say nothing at all."""
    for name, tensor in given.items():
        if not own[name].is_floating_point():
            continue
        if not tensor.is_floating_point():
            raise InputError(f"{where}: {name} holds {str(tensor.dtype).removeprefix('torch.')}, not real numbers")
        if not torch.isfinite(tensor.float()).all():
            raise InputError(f"{where}: {name} holds values that are not finite numbers; a training that diverged?")
        if name.endswith("running_var") and (tensor < 0).any():
            raise InputError(f"{where}: {name} holds negative variances")
    if not any(tensor.ndim > 1 and tensor.any() for tensor in given.values()):
        raise InputError(f"{where}: every weight is zero; a file that was made and never filled?")


def describe(reading: Reading, heads: Collection[str]) -> str:
    """What was read, in one phrase: how many tensors, from under which name, and what was left out."""
    parts = [f"{reading.fitting} of {reading.total} tensors"]
    if reading.prefix:
        parts.append(f"from {reading.prefix.rstrip('.')}")
    if reading.others:
        parts.append(f"not from {' or '.join(_shown(other) for other in reading.others)}")
    if heads:
        parts.append(f"without {_some(list(heads))}")
    return ", ".join(parts)


# --------------------------------------------------------------------------------------------------- other names


def _translations(tensors: Tensors, own: Tensors) -> list[Tensors]:
    """The tensors under the names that they have, and under those that other conventions mean."""
    found: list[Tensors] = [tensors]
    if any(".shortcut." in name for name in tensors):  # CIFAR's ResNets (kuangliu, lightly)
        found.append({name.replace(".shortcut.", ".downsample."): tensor for name, tensor in tensors.items()})
    found += [_from_sequential(each, own) for each in found]
    if efficientnet := _from_efficientnet(tensors, own):
        found.append(efficientnet)
    return found


def _from_sequential(tensors: Tensors, own: Tensors) -> Tensors:
    """`nn.Sequential(*list(network.children()))` calls children by number; those that hold tensors keep their order."""
    children = list(dict.fromkeys(name.split(".")[0] for name in own))
    split = {name: match.groups() for name in tensors if (match := NUMBERED.fullmatch(name))}
    numbers: dict[str, set[int]] = defaultdict(set)
    for prefix, number, _ in split.values():
        numbers[prefix].add(int(number))
    named = {
        (prefix, number): children[at] if at < len(children) else f"head.{number}"
        for prefix, found in numbers.items()
        for at, number in enumerate(sorted(found))
    }
    return {
        f"{split[name][0]}{named[split[name][0], int(split[name][1])]}.{split[name][2]}" if name in split else name: t
        for name, t in tensors.items()
    }


def _from_efficientnet(tensors: Tensors, own: Tensors) -> Tensors | None:
    """lukemelas' names for timm's: the same tensors in the same order; None where the file or network is another's."""
    prefix = next((name.removesuffix(EFFICIENTNET) for name in tensors if name.endswith(EFFICIENTNET)), None)
    if prefix is None or "conv_stem.weight" not in own:
        return None
    given = [name for name in _without_counters(tensors) if name.startswith(prefix)]
    given = [name for name in given if not name.removeprefix(prefix).startswith("_fc.")]
    wanted = _without_counters(own)
    same = [tensors[name].shape for name in given] == [own[name].shape for name in wanted]
    return {name: tensors[other] for name, other in zip(wanted, given, strict=True)} if same else None


def _fits(tensors: Tensors, own: Tensors) -> dict[str, tuple[int, int]]:
    """Prefix -> how many of the network's names follow it, with the network's shape and at all."""
    shapes: Counter[str] = Counter()
    names: Counter[str] = Counter()
    for name, tensor in tensors.items():
        if name.endswith(COUNTER):
            continue
        parts = name.split(".")
        for start in range(len(parts)):
            suffix = ".".join(parts[start:])
            if suffix in own:
                prefix = name.removesuffix(suffix)
                names[prefix] += 1
                shapes[prefix] += tensor.shape == own[suffix].shape
    return {prefix: (shapes[prefix], count) for prefix, count in names.items()}


# ------------------------------------------------------------------------------------------------- several networks


def _in_use(prefixes: Sequence[str], tensors: Tensors, own: Tensors, where: str) -> str:
    """The network that such files are made for; those that hold the very same tensors are one."""
    left = [one for one in prefixes if not any(_beats(other, one) for other in prefixes)]
    distinct: list[str] = []
    for prefix in left:
        if not any(_same(prefix, other, tensors, own) for other in distinct):
            distinct.append(prefix)
    if len(distinct) != 1:
        listed = " and ".join(map(_shown, distinct or prefixes))
        raise InputError(
            f"{where} holds {len(distinct or prefixes)} networks that fit alike ({listed}); save the one that is meant"
        )
    return distinct[0]


def _beats(one: str, other: str) -> bool:
    words = [set(re.split(r"[._]", prefix)) for prefix in (one, other)]
    mine, its = words[0] - words[1], words[1] - words[0]
    return any(
        (win in mine if win else lose not in mine) and (lose in its if lose else win not in its) for win, lose in BEATS
    )


def _same(one: str, other: str, tensors: Tensors, own: Tensors) -> bool:
    pairs = [(tensors.get(one + name), tensors.get(other + name)) for name in own if not name.endswith(COUNTER)]
    return all(a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)


# ------------------------------------------------------------------------------------------------------- sentences


def _near_misses(tensors: Tensors, own: Tensors) -> str:
    """What the file holds instead: nearest names, or names alone."""
    wanted, given = _without_counters(own), _without_counters(tensors)
    close = [(name, difflib.get_close_matches(name, given, n=1, cutoff=0.75)) for name in wanted[:40]]
    if near := [f"{found[0]} instead of {name}" for name, found in close if found]:
        return f"near misses are {_some(near)}"
    return f"it holds {_some(given or list(tensors))}, the network's are {_some(wanted)}"


def _without_counters(names: Collection[str]) -> list[str]:
    return [name for name in names if not name.endswith(COUNTER)]


def _shown(prefix: str) -> str:
    return prefix.rstrip(".") or "the unnamed one"


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
