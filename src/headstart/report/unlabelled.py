"""What a run says of its backbone where no picture has a label: collapsed or not, and its figures before and after.

Comes in: `geometry` of result.json, with `before` in it. Goes out: the figures as people read them, and a sentence. How
far each figure agrees with probes is told in docs/adapting.md: none does reliably. Imports no torch.
"""

from collections.abc import Mapping
from typing import Any

from headstart.report.verdict import before_simclr, kept_given

SHAPE = {
    "effective_rank": ("effective rank (RankMe)", ".1f"),
    "centred_rank": ("effective rank, mean taken away", ".1f"),
    "alpha_req": ("decay of the spectrum (alpha-ReQ)", ".2f"),
    "lidar": ("rank by discriminants (LiDAR)", ".1f"),
    "retrieval": ("one view finds the other", ".1%"),
    "alignment": ("alignment (0: views are equal)", ".3f"),
    "uniformity": ("uniformity (0: one direction)", ".2f"),
    "spread": ("spread (0: one direction, 2: even)", ".3f"),
    "mean_norm": ("mean norm", ".3g"),
    "dead": ("features that never change", ".1%"),
    "pictures": ("pictures looked at", ".0f"),
    "viewed": ("pictures augmented", ".0f"),
    "views": ("views of each", ".0f"),
}
"""Figures of the test pictures' representations, and how they are shown."""

NARROW = 0.01
"""Spread of h below which its directions count as one."""
FALLEN = 0.1
"""Share of the rank before SimCLR (of h less its mean) below which h has collapsed."""


def shown(shape: Mapping[str, Any], key: str) -> str:
    """A figure as people read it; a dash where there is none."""
    value = _number(shape, key)
    return "-" if value is None else format(value, SHAPE[key][1])


def _number(shape: Mapping[str, Any], key: str) -> float | None:
    """A figure, unless it is not there or, in a file from elsewhere, no number."""
    value = shape.get(key)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def collapse(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    """How h collapsed, in words; None where it did not."""
    spread, wide = _number(after, "spread"), _number(before, "spread") or 0.0
    now, was = _number(after, "centred_rank"), _number(before, "centred_rank") or 0.0
    if spread is None or now is None:
        return "its representations are not finite numbers"
    if spread < min(NARROW, wide):
        return f"all pictures lie in one direction of h (spread {spread:.3f} of 2)"
    if now < FALLEN * was:
        return f"h varies in {now:.1f} directions where it varied in {was:.1f}, less than a tenth"
    return None


def unlabelled_verdict(result: Mapping[str, Any]) -> str | None:
    """Collapsed or not, beside the backbone before SimCLR; None where probes judge it or nothing is known of it."""
    after = result.get("geometry") or {}
    before = after.get("before")
    if result.get("probes") or not isinstance(before, Mapping) or _number(before, "centred_rank") is None:
        return None
    one = kept_given(result)
    pairs = {key: shown(after, key) if one else f"{shown(after, key)} ({shown(before, key)})" for key in SHAPE}
    found = collapse(before, after)
    first = f"Collapsed: {found}" if found else f"Not collapsed: h varies in {pairs['centred_rank']} directions"
    seen = [name for name in (result.get("contrastive") or {}).get("warnings", []) if name != "stopped learning"]
    if seen:
        first += f"; SimCLR was {' and '.join(seen)} by its own figures"
    whose = "Of the given weights" if one else f"Beside {before_simclr(result)}, whose figures are in brackets"
    figures = (
        f"{whose}: one view finds the other in {pairs['retrieval']} of {shown(after, 'viewed')} test pictures, RankMe "
        f"{pairs['effective_rank']}, LiDAR {pairs['lidar']}, alpha-ReQ {pairs['alpha_req']}."
    )
    doubt = "" if one else " None of these tells reliably whether it is better; a few labels do."
    return f"{first}. No labels judge it. {figures}{doubt}"
