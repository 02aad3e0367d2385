"""Whether a run left its user with a better backbone than before: the first line of its summary and of its report.

Comes in: result.json. Goes out: one sentence, beside the weights that the backbone was given. Imports no torch.
"""

import math
from collections.abc import Mapping
from typing import Any

DECIDING = ("linear", "knn", "few_shot_5")
"""The probes that are asked, together."""
CLEAR = 1.96
"""Standard errors beyond which a difference is no chance."""


def verdict(result: Mapping[str, Any]) -> str | None:
    """Better, worse or no clear difference, and by how much; None for a run without probes that kept what SimCLR made.

    What the run itself kept by cross-validation, where the same pictures judge both, counts most. Otherwise it is the
    mean difference of the three probes on the test split; their errors are taken as those of independent samples that
    all go together, which is cautious.
    """
    before, after = result.get("untrained") or {}, result.get("probes") or {}
    names = [name for name in DECIDING if "accuracy" in before.get(name, {}) and "accuracy" in after.get(name, {})]
    kept = (result.get("contrastive") or {}).get("kept") or {}
    if kept_given(result):
        return f"No change: {kept_sentence(kept)}."
    if not names:
        return f"K{kept_sentence(kept)[1:]}." if kept else None
    given = before_simclr(result)
    gains = [after[name]["accuracy"] - before[name]["accuracy"] for name in names]
    gain = sum(gains) / len(gains)
    error = sum(math.hypot(_error(before[name]), _error(after[name])) for name in names) / len(names)
    listed = ", ".join(
        f"{name} {100 * before[name]['accuracy']:.1f} to {100 * after[name]['accuracy']:.1f} %" for name in names
    )
    found = f"{listed} on the test pictures, {100 * gain:+.1f} points on average"
    if kept.get("by") == "labels":
        chosen = next(version for version in kept["versions"] if version["share"] == kept["share"])
        return (
            f"Better than {given}: by {100 * chosen['ahead']:.1f} points (standard error {100 * chosen['error']:.1f}) "
            f"cross-validated on {kept['pictures']} labelled pictures; {found}."
        )
    if abs(gain) <= CLEAR * error:
        return f"No clear difference from {given}: {found}, where {100 * CLEAR * error:.1f} may be chance."
    return f"{'Better' if gain > 0 else 'Worse'} than {given}: {found}."


def kept_given(result: Mapping[str, Any]) -> bool:
    """Whether the run kept the weights it was given: what stands before and after SimCLR is then one network."""
    return ((result.get("contrastive") or {}).get("kept") or {}).get("share") == 0


KEPT_GIVEN = "given weights, kept"
"""What the one network of such a run is called, as a column has room for."""


def no_better(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The probes, in the order of `after`, by which a backbone is no better than one before or beside it."""
    return [
        probe
        for probe, found in after.items()
        if "accuracy" in (before.get(probe) or {}) and found.get("accuracy", 1) <= before[probe]["accuracy"]
    ]


def before_simclr(result: Mapping[str, Any]) -> str:
    """What the backbone was before SimCLR, in words."""
    weights = str((result.get("backbone") or {}).get("weights", "none"))
    return "the untrained backbone" if weights == "none" else "the given weights"


def first_run(results: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """The first of a study's results that is no autoencoder's, whose weights of the backbone say nothing; else {}."""
    return next((result for result in results.values() if result.get("stage") != "autoencoder"), {})


def as_it_was(result: Mapping[str, Any]) -> str:
    """The same in a word, as a column or a mark has room for."""
    return "untrained" if before_simclr(result) == "the untrained backbone" else "as given"


def not_known(result: Mapping[str, Any]) -> str:
    """What is said where no probe judged it."""
    which = "untrained backbone was" if as_it_was(result) == "untrained" else "given weights were"
    return f"The {which} not probed: how much SimCLR itself added is not known."


def _error(probe: Mapping[str, Any]) -> float:
    """Standard error of an accuracy, from its 95 % interval."""
    low, high = probe.get("ci95") or (math.nan, math.nan)
    return float(high - low) / (2 * CLEAR)


def kept_sentence(kept: Mapping[str, Any]) -> str:
    """Which weights a run kept and why (`contrastive.keep best-probe`)."""
    share = kept["share"]
    what = {0.0: "the given weights", 1.0: "the adapted weights"}.get(
        share, f"a mixture, {share:.0%} of the way from the given to the adapted weights"
    )
    if kept["by"] == "nothing":
        judged = "too few labels and held-out pictures to tell whether SimCLR made them better"
        more = "; a few dozen labels would tell, and --contrastive.keep last keeps the adapted ones unjudged"
        return f"kept {what}: {judged}{more if share == 0 else ''}"
    first, last = kept["versions"][0], kept["versions"][-1]
    chosen = next(version for version in kept["versions"] if version["share"] == share)
    if kept["by"] == "pictures":
        return _without_labels(what, first, last if share == 0 else chosen, kept["pictures"])
    if share == 0:
        judge = min(DECIDING, key=lambda name: last[name] - first[name])
        return (
            f"kept {what}: SimCLR took cross-validated {judge} from {100 * first[judge]:.1f} to "
            f"{100 * last[judge]:.1f} on {kept['pictures']} labelled pictures, and no version is clearly better"
        )
    judges = ", ".join(f"{name} {100 * first[name]:.1f} to {100 * chosen[name]:.1f}" for name in DECIDING)
    return (
        f"kept {what}: better than the given weights by {100 * chosen['ahead']:.1f} points on average (standard error "
        f"{100 * chosen['error']:.1f}) on {kept['pictures']} labelled pictures, cross-validated: {judges}"
    )


def _without_labels(what: str, first: Mapping[str, Any], other: Mapping[str, Any], pictures: int) -> str:
    return (
        f"kept {what}: without labels {pictures} held-out pictures judge it; one view of them finds the other in "
        f"{100 * first['retrieval']:.1f} % as given and {100 * other['retrieval']:.1f} % after SimCLR, and the "
        f"effective rank of the centred features went from {first['rankme']:.0f} to {other['rankme']:.0f}. A few "
        "labels judge better"
    )
