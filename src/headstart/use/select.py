"""Look through a set with the backbone's eyes: near-duplicates, outliers, what to label next.

Comes in: embeddings of a set, and a number. Goes out: lists of names with cosine similarities, and contact sheets.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.data.sheets import Section, Tile, gallery
from headstart.evaluate.neighbours import blocks, normalized
from headstart.records import folder as runs
from headstart.records.errors import InputError
from headstart.use.embeddings import Embeddings

NEIGHBOURS = 10
"""An outlier is judged by its mean similarity to so many nearest pictures."""

DUPLICATE = 0.995
"""Default similarity above which two pictures count as near-duplicates."""


@dataclass(frozen=True)
class Selection:
    """What a look through a set found.

    Attributes:
        duplicates: (name, earlier name, similarity): a picture and the most similar one before it, where that is at
            least the asked similarity; the most similar first. Removing every first name leaves one of each group.
        outliers: (name, similarity): pictures far from all others, by mean similarity to their 10 nearest, the
            loneliest first.
        label_next: names of pictures that cover the set, in the order in which to label them.
    """

    duplicates: list[tuple[str, str, float]]
    outliers: list[tuple[str, float]]
    label_next: list[str]

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


def select(
    within: Embeddings,
    n: int,
    *,
    similarity: float = DUPLICATE,
    out: str | Path | None = None,
) -> Selection:
    """Near-duplicates, outliers, and a spread-out set to label next.

    Args:
        n: how many outliers, and how many pictures to label.
        similarity: from which two pictures are near-duplicates.
        out: a folder that gets `duplicates`, `outliers` and `label-next`, each as .csv and as contact sheet .png
            (at most `n` rows of it). Pictures with labels already count as labelled where others have none.

    Raises InputError: `n` out of range, fewer than two pictures.
    """
    if len(within) < 2:
        raise InputError(f"DATA holds {len(within)} picture; at least 2 are needed to compare")
    if not -1 <= similarity <= 1:
        raise InputError(f"--similarity is {similarity}; it must be from -1 to 1")
    labelled = np.flatnonzero(within.labels >= 0)
    labelled = labelled if len(labelled) < len(within) else labelled[:0]  # all have labels: choose as if none had
    if not 1 <= n <= len(within) - len(labelled):
        raise InputError(f"-n is {n}; it must be from 1 to {len(within) - len(labelled)}, the pictures without a label")
    features = normalized(within.features)
    pairs, loneliness = compare(features, similarity)
    outliers = np.argsort(loneliness, kind="stable")[:n]
    chosen = farthest(features, n, labelled)
    found = Selection(
        duplicates=[(within.names[i], within.names[j], value) for i, j, value in pairs],
        outliers=[(within.names[i], float(loneliness[i])) for i in outliers],
        label_next=[within.names[i] for i in chosen],
    )
    if out is not None:
        _write(Path(out), found, within, pairs[:n], outliers, chosen)
    return found


def compare(features: np.ndarray, similarity: float) -> tuple[list[tuple[int, int, float]], np.ndarray]:
    """One pass over all pairs of unit rows (N, D).

    Returns (i, j, value) with j < i the most similar earlier row where value >= `similarity`, the highest first; and
    each row's mean similarity (N,) to its nearest others, 10 of them or all there are.
    """
    n = len(features)
    neighbours = min(NEIGHBOURS, n - 1)
    pairs: list[tuple[int, int, float]] = []
    loneliness = np.empty(n, np.float32)
    for rows, block in blocks(features, features):
        own = np.arange(rows.start, rows.start + len(block))
        block[np.arange(len(block)), own] = -np.inf
        closest = torch.from_numpy(block).topk(neighbours, dim=1).values.numpy()
        loneliness[rows] = closest.mean(axis=1)
        block[np.arange(n)[None] > own[:, None]] = -np.inf
        best = block.argmax(axis=1)
        values = block[np.arange(len(block)), best]
        pairs += [(int(own[r]), int(best[r]), float(values[r])) for r in np.flatnonzero(values >= similarity)]
    return sorted(pairs, key=lambda pair: (-pair[2], pair[0])), loneliness


def farthest(features: np.ndarray, n: int, covered: np.ndarray) -> list[int]:
    """Greedy k-centre of unit rows (Sener and Savarese 2018): each choice is the row farthest from all chosen before.

    `covered` are rows that count as chosen already; without any, the first choice is the row nearest to the mean, the
    most ordinary one. Deterministic; equal distances go to the lower index.
    """
    chosen: list[int] = []
    if len(covered):
        closest = np.max(np.stack([block.max(axis=0) for _, block in blocks(features[covered], features)]), axis=0)
    else:
        chosen.append(int((features @ features.mean(axis=0)).argmax()))
        closest = features @ features[chosen[0]]
    taken = np.isin(np.arange(len(features)), [*covered, *chosen])
    while len(chosen) < n:
        pick = int(np.where(taken, np.inf, closest).argmin())
        chosen.append(pick)
        taken[pick] = True
        closest = np.maximum(closest, features @ features[pick])
    return chosen


def _write(
    folder: Path,
    found: Selection,
    within: Embeddings,
    pairs: Sequence[tuple[int, int, float]],
    outliers: np.ndarray,
    chosen: Sequence[int],
) -> None:
    rows: dict[str, tuple[Sequence[str], Sequence[Sequence[object]]]] = {
        "duplicates": (("name", "earlier", "similarity"), found.duplicates),
        "outliers": (("name", "similarity"), found.outliers),
        "label-next": (("name",), [(name,) for name in found.label_next]),
    }
    for name, (header, values) in rows.items():
        runs.write(folder / f"{name}.csv", runs.table(header, values))
    names = within.names
    two_by_two = [
        Tile(within.picture(i), (text, names[i]))
        for first, second, value in pairs
        for i, text in ((first, f"{value:.4f}"), (second, "its earlier twin"))
    ]
    lonely = [
        Tile(within.picture(int(i)), (f"{value:.3f}", name))
        for i, (name, value) in zip(outliers, found.outliers, strict=True)
    ]
    next_ones = [Tile(within.picture(i), (f"{rank}", names[i])) for rank, i in enumerate(chosen, 1)]
    count = len(found.duplicates)
    shown = f", the {len(pairs)} closest" if len(pairs) < count else ""
    sheets = {
        "duplicates": Section(f"{count} near-duplicate{'s' * (count != 1)}{shown}", two_by_two),
        "outliers": Section("Outliers: far from everything else", lonely),
        "label-next": Section("What to label next: pictures that cover the set", next_ones),
    }
    for name, section in sheets.items():
        runs.write(folder / f"{name}.png", gallery([section]))
