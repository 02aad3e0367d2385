"""Look through a set with the backbone's eyes: near-duplicates, outliers, what to label next, labels that look wrong,
groups of alike pictures.

Comes in: embeddings of a set, and a number. Goes out: lists of names with cosine similarities, and contact sheets.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from headstart.data.sheets import Section, Tile, gallery
from headstart.engine.progress import say
from headstart.engine.randomness import numpy_generator
from headstart.evaluate.neighbours import blocks, nearest, normalized
from headstart.records import files, text
from headstart.records.errors import InputError
from headstart.records.outputs import check_own, check_results_folder, no_input
from headstart.records.together import Content, write_together
from headstart.use.clusters import clusters
from headstart.use.copies import Suggested, suggested
from headstart.use.embeddings import Embeddings
from headstart.use.index import every
from headstart.use.suspects import suspicion

NEIGHBOURS = 10
"""An outlier is judged by its mean similarity to so many nearest pictures."""

DUPLICATE = 0.995
"""Default similarity above which two pictures count as near-duplicates."""

MANY = 50_000
"""Pictures above which it is said that all pairs of them are compared."""

COVERED = 50_000
"""Labelled pictures, drawn at random, that stand for all in what to label next: time grows with the set, not with its
square."""
BLOCK = 2**14

COLUMNS = {
    "duplicates": ("name", "earlier", "similarity"),
    "outliers": ("name", "similarity"),
    "label-next": ("name",),
    "label-errors": ("name", "label", "suggested", "label_probability", "suggested_probability"),
    "clusters": ("name", "cluster"),
}
"""Of each list."""
SHOWN_GROUPS, SHOWN_OF_GROUP = 12, 6
"""Groups on the contact sheet, the largest, and pictures of each."""

Rows = tuple[str, Sequence[tuple[Any, ...]]]
"""A section of a contact sheet: its title, and positions of pictures, each with the lines above its name."""


@dataclass(frozen=True)
class LabelError:
    """A label that is probably wrong: what the picture is called, what it looks like, and how likely each is."""

    name: str
    label: str
    suggested: str
    label_probability: float
    suggested_probability: float


@dataclass(frozen=True)
class Selection:
    """What a look through a set found.

    Attributes:
        duplicates: (name, earlier name, similarity): a picture and the most similar one before it, where that is at
            least the asked similarity; the most similar first. Removing every first name leaves one of each group.
        outliers: (name, similarity): pictures far from all others, by mean similarity to their 10 nearest, the
            loneliest first.
        label_next: names of pictures that cover the set, in the order in which to label them.
        distance: of the picture that is farthest from all of these and from those with labels, to the nearest of them,
            between vectors of length 1 (0 to 2). No other choice of so many leaves less than half (Gonzalez 1985).
        label_errors: labels for which another class is likelier, the most suspicious first.
        clusters: (name, group) of every picture, groups numbered by size from 1; 0 lies in none.
        suggested: a similarity for near-duplicates, told by copies of the set's own pictures; None where they are gone.
    """

    duplicates: list[tuple[str, str, float]]
    outliers: list[tuple[str, float]]
    label_next: list[str]
    distance: float
    label_errors: list[LabelError]
    clusters: list[tuple[str, int]]
    suggested: Suggested | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


def select(
    within: Embeddings,
    n: int,
    *,
    similarity: float | Literal["auto"] = DUPLICATE,
    out: str | Path | None = None,
) -> Selection:
    """Near-duplicates, outliers, a spread-out set to label next, labels that look wrong, and groups of alike pictures.

    Args:
        n: how many outliers, and how many pictures to label.
        similarity: from which two pictures are near-duplicates; `auto`: the suggested one.
        out: a folder that gets each list as .csv and as contact sheet .png (at most `n` rows of it): `duplicates`,
            `outliers`, `label-next`, `label-errors` where there are labels enough, `clusters`; those of an
            earlier call that this one has not go. A sheet whose pictures are gone is left out, which is said. Pictures
            with labels already count as labelled where others have none.

    Raises InputError: `n` out of range, fewer than two pictures, `out` inside DATA.
    """
    covered = _covered(within, n, similarity)
    out = None if out is None else files.expanded(out)
    if out is not None:
        check_place(out)
        no_input(out, within.data.sources, pictures=True)
    advice = suggested(within)
    if similarity == "auto":
        if advice is None:
            raise InputError("--similarity auto needs the pictures themselves; give a number")
        similarity = advice.similarity
    if len(covered) > COVERED:
        say(f"{COVERED:,} of {len(covered):,} labelled pictures, drawn at random, stand for all in what to label next")
    near = every(within, NEIGHBOURS + 1)
    if near is None and len(within) > MANY:
        say(f"each of {len(within):,} pictures is compared with every other: twice as many take four times as long")
    features = normalized(within.features)
    pairs, loneliness = compare(features, similarity) if near is None else of_nearest(*near, similarity)
    outliers = np.argsort(loneliness, kind="stable")[:n].tolist()
    chosen, least = farthest(features, n, covered)
    errors, groups = _label_errors(within), clusters(within.features)
    names = within.names
    found = Selection(
        duplicates=[(names[i], names[j], value) for i, j, value in pairs],
        outliers=[(names[i], float(loneliness[i])) for i in outliers],
        label_next=[names[i] for i in chosen],
        distance=max(0, 2 - 2 * least) ** 0.5,
        label_errors=[error for _, error in errors],
        clusters=[(name, int(group) + 1) for name, group in zip(names, groups, strict=True)],
        suggested=advice,
    )
    if out is not None:
        sections = _sections(found, pairs[:n], outliers, chosen, [i for i, _ in errors[:n]])
        sections["clusters"] = _of_groups(features, groups)
        earlier = [f"{name}{ending}" for name in COLUMNS for ending in (".csv", ".png")]
        write_together(out, "select", _tables(found) | _sheets(within, sections), earlier)
    return found


def _covered(within: Embeddings, n: int, similarity: float | Literal["auto"]) -> np.ndarray:
    """The pictures that have labels, where others have none. Raises InputError for what cannot be asked."""
    if len(within) < 2:
        raise InputError(f"DATA holds {len(within)} picture; at least 2 are needed to compare")
    if similarity != "auto" and not -1 <= similarity <= 1:
        raise InputError(f"--similarity is {similarity}; it must be from -1 to 1")
    labelled = np.flatnonzero(within.labels >= 0)
    labelled = labelled if len(labelled) < len(within) else labelled[:0]  # all have labels: choose as if none had
    most = len(within) - len(labelled)
    if not 1 <= n <= most:
        which = "the pictures without a label" if len(labelled) else "all pictures"
        raise InputError(f"-n is {n}; it must be from 1 to {most}, {which}")
    return labelled


def _label_errors(within: Embeddings) -> list[tuple[int, LabelError]]:
    """Positions and what is said of them, the most suspicious first; none where there are too few labels."""
    rows = np.flatnonzero(within.labels >= 0)
    features = within.features if len(rows) == len(within) else within.features[rows]  # a million need no second copy
    found = suspicion(features, within.labels[rows], len(within.classes)) if len(rows) else None
    if found is None:
        return []
    return [
        (
            int(rows[i]),
            LabelError(
                name=within.names[rows[i]],
                label=within.classes[within.labels[rows[i]]],
                suggested=within.classes[found.suggested[i]],
                label_probability=float(found.given[i]),
                suggested_probability=float(found.likeliest[i]),
            ),
        )
        for i in found.doubtful
    ]


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


def of_nearest(
    indices: np.ndarray, values: np.ndarray, similarity: float
) -> tuple[list[tuple[int, int, float]], np.ndarray]:
    """As `compare`, from the rows (N, 11) nearest to each, itself among them, and their similarities.

    A pair that either of both names counts, so a picture of more than ten twins still has one before it.
    """
    own = np.arange(len(indices))[:, None]
    others = np.sort(np.where(indices == own, -np.inf, values), axis=1)[:, ::-1][:, : indices.shape[1] - 1]
    row, at = np.nonzero((values >= similarity) & (indices != own))
    later, earlier = np.maximum(row, indices[row, at]), np.minimum(row, indices[row, at])
    value = values[row, at]
    order = np.lexsort((earlier, -value, later))
    first = order[np.unique(later[order], return_index=True)[1]]
    pairs = zip(later[first].tolist(), earlier[first].tolist(), value[first].tolist(), strict=True)
    return sorted(pairs, key=lambda pair: (-pair[2], pair[0])), others.mean(axis=1)


def farthest(features: np.ndarray, n: int, covered: np.ndarray) -> tuple[list[int], float]:
    """Greedy k-centre of unit rows (Sener and Savarese 2018): each choice is the row farthest from all chosen before.

    `covered` are rows that count as chosen already, COVERED of them where they are more; without any, the first choice
    is the row nearest to the mean, the most ordinary one. Deterministic; equal distances go to the lower index.
    Returns the choices, and the lowest similarity that a row has to its nearest one.
    """
    chosen: list[int] = []
    taken = np.isin(np.arange(len(features)), covered)
    if len(covered):
        bank = features[np.sort(numpy_generator(0, "select/covered").permutation(covered)[:COVERED])]
        closest, others = np.ones(len(features), np.float32), np.flatnonzero(~taken)
        for rows in np.split(others, range(BLOCK, len(others), BLOCK)):
            closest[rows] = nearest(features[rows], bank, 1)[1][:, 0]
    else:
        chosen.append(int((features @ features.mean(axis=0)).argmax()))
        closest = features @ features[chosen[0]]
    taken[chosen] = True
    while len(chosen) < n:
        pick = int(np.where(taken, np.inf, closest).argmin())
        chosen.append(pick)
        taken[pick] = True
        closest = np.maximum(closest, features @ features[pick])
    closest[chosen] = 1
    return chosen, float(closest.min())


def _tables(found: Selection) -> dict[str, Content]:
    """The lists as CSV."""
    rows: dict[str, Sequence[Sequence[object]]] = {
        "duplicates": found.duplicates,
        "outliers": found.outliers,
        "label-next": [(name,) for name in found.label_next],
        "clusters": found.clusters,
    }
    if found.label_errors:
        rows["label-errors"] = [
            [getattr(error, name) for name in COLUMNS["label-errors"]] for error in found.label_errors
        ]
    return {f"{name}.csv": text.table(COLUMNS[name], own) for name, own in rows.items()}


def check_place(out: Path) -> None:
    """Raise InputError for a folder in use for something else, and where an earlier list has got a column since:
    labels that somebody wrote beside the names."""
    check_results_folder(out)
    for name, columns in COLUMNS.items():
        check_own(out / f"{name}.csv", columns)


def _sheets(within: Embeddings, sections: dict[str, list[Rows]]) -> dict[str, Content]:
    """The contact sheets; those whose pictures are gone are left out, which is said."""
    sheets: dict[str, Content] = {}
    left_out: dict[str, InputError] = {}
    for name, parts in sections.items():
        try:
            drawn = [
                Section(title, [Tile(within.picture(i), (*captions, within.names[i])) for i, *captions in rows])
                for title, rows in parts
            ]
        except InputError as error:
            left_out[name] = error
            continue
        if drawn:
            sheets[f"{name}.png"] = gallery(drawn)
    if left_out:
        say(f"no contact sheet of {', '.join(left_out)}: {next(iter(left_out.values()))}")
    return sheets


def _sections(
    found: Selection,
    pairs: Sequence[tuple[int, int, float]],
    outliers: Sequence[int],
    chosen: Sequence[int],
    errors: Sequence[int],
) -> dict[str, list[Rows]]:
    """What the contact sheets of the lists show."""
    two_by_two = [
        (i, text) for first, second, value in pairs for i, text in ((first, f"{value:.4f}"), (second, "its twin"))
    ]
    count = len(found.duplicates)
    shown = f", the {len(pairs)} closest" if len(pairs) < count else ""
    lonely = [(i, f"{value:.3f}") for i, (_, value) in zip(outliers, found.outliers, strict=True)]
    next_ones = [(i, f"{rank}") for rank, i in enumerate(chosen, 1)]
    wrong = [
        (i, f"{error.label}: {100 * error.label_probability:.0f} %", f"rather {error.suggested}")
        for i, error in zip(errors, found.label_errors, strict=False)
    ]
    sheets: dict[str, list[Rows]] = {
        "duplicates": [(f"{count} near-duplicate{'s' * (count != 1)}{shown}", two_by_two)],
        "outliers": [("Outliers: far from everything else", lonely)],
        "label-next": [("What to label next: pictures that cover the set", next_ones)],
    }
    if wrong:
        sheets["label-errors"] = [("Labels for which another class is likelier", wrong)]
    return sheets


def _of_groups(unit: np.ndarray, groups: np.ndarray) -> list[Rows]:
    """The largest groups, each by the pictures nearest to its middle."""
    sections: list[Rows] = []
    for group in range(min(SHOWN_GROUPS, int(groups.max(initial=-1)) + 1)):
        rows = np.flatnonzero(groups == group)
        middle = np.argsort(-(unit[rows] @ unit[rows].mean(axis=0)), kind="stable")[:SHOWN_OF_GROUP]
        sections.append((f"Cluster {group + 1}: {len(rows)} pictures", [(int(i),) for i in rows[middle]]))
    return sections
