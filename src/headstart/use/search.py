"""Look through a set with the backbone's eyes: pictures like this one, near-duplicates, outliers, what to label next.

Comes in: a run, DATA, a query or a number. Goes out: lists of names with similarities, and contact sheets. Similarity
is the cosine of two representations h, from -1 to 1; features after a ReLU are all positive, so most pairs lie high.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from headstart.data.images import Images
from headstart.data.sheets import Section, Tile, check_ending, gallery, picture
from headstart.engine.device import Compute
from headstart.evaluate.neighbours import blocks, nearest, normalized
from headstart.records import folder as runs
from headstart.records.errors import InputError
from headstart.use.load import Run

NEIGHBOURS = 10
"""An outlier is judged by its mean similarity to so many nearest pictures."""

DUPLICATE = 0.995
"""Default similarity above which two pictures count as near-duplicates."""

# ------------------------------------------------------------------------------------------------------------ search


def search(
    run: Run,
    data: str | Path | Sequence[str | Path] | Images,
    query: str | Path,
    *,
    top: int = 10,
    out: str | Path | None = None,
    compute: Compute | None = None,
) -> list[tuple[str, float]]:
    """The pictures of DATA most like a query.

    Args:
        query: a picture file. When it is itself one of DATA it is left out of the answer.
        top: at most so many.
        out: write a contact sheet here (.png or .jpg), the query first.

    Returns:
        (name, similarity), the most similar first; equal similarities in the order of names.

    Raises InputError: no such picture, nothing to search.
    """
    if top < 1:
        raise InputError(f"--top is {top}; it must be at least 1")
    format = "PNG" if out is None else check_ending(out)
    if not Path(query).is_file():
        raise InputError(f"--query {query} is not a file; give the path of one picture")
    asked = run.open_images(query, replace(run.reading, labels="none"))
    images = data if isinstance(data, Images) else run.open_images(data)
    asking, known = run.embed(asked, compute=compute), run.embed(images, compute=compute)
    similarities = nearest(asking, known, top + 1)  # one more, for the query itself
    itself = position_in(query, images.data.sources, images.names)
    order, values = similarities[0][0], similarities[1][0]
    found = [(int(i), float(v)) for i, v in zip(order, values, strict=True) if i != itself][:top]
    if out is not None:
        title = f"{len(found)} pictures most like {asked.names[0]}"
        tiles = [Tile(picture(asked, 0), ("query", Path(query).name), framed=True)]
        tiles += [Tile(picture(images, i), (f"{value:.3f}", images.names[i])) for i, value in found]
        runs.write(out, gallery([Section(title, tiles)], format=format))
    return [(images.names[i], value) for i, value in found]


def position_in(query: str | Path, sources: Sequence[str], names: Sequence[str]) -> int | None:
    """Where the query stands in a set that was read from folders; None when it is not of it."""
    path = Path(query).resolve()
    known = {name: i for i, name in enumerate(names)}
    for source in sources:
        root = Path(source).expanduser().resolve()
        if path.is_relative_to(root):
            inside = path.relative_to(root).as_posix()
            for name in (inside, f"{root.name}/{inside}"):
                if name in known:
                    return known[name]
    return None


# ------------------------------------------------------------------------------------------------------------ select


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


def select(
    run: Run,
    data: str | Path | Sequence[str | Path] | Images,
    n: int,
    *,
    similarity: float = DUPLICATE,
    out: str | Path | None = None,
    compute: Compute | None = None,
) -> Selection:
    """Near-duplicates, outliers, and a spread-out set to label next.

    Args:
        n: how many outliers, and how many pictures to label.
        similarity: from which two pictures are near-duplicates.
        out: a folder that gets `duplicates`, `outliers` and `label-next`, each as .csv and as contact sheet .png
            (at most `n` rows of it). Pictures with labels already count as labelled where others have none.

    Raises InputError: `n` out of range, fewer than two pictures.
    """
    images = data if isinstance(data, Images) else run.open_images(data)
    if len(images) < 2:
        raise InputError(f"DATA holds {len(images)} picture; at least 2 are needed to compare")
    if not -1 <= similarity <= 1:
        raise InputError(f"--similarity is {similarity}; it must be from -1 to 1")
    labelled = np.flatnonzero(images.labels >= 0)
    labelled = labelled if len(labelled) < len(images) else labelled[:0]  # all have labels: choose as if none had
    if not 1 <= n <= len(images) - len(labelled):
        raise InputError(f"-n is {n}; it must be from 1 to {len(images) - len(labelled)}, the pictures without a label")
    features = normalized(run.embed(images, compute=compute))
    pairs, loneliness = compare(features, similarity)
    outliers = np.argsort(loneliness, kind="stable")[:n]
    chosen = farthest(features, n, labelled)
    found = Selection(
        duplicates=[(images.names[i], images.names[j], value) for i, j, value in pairs],
        outliers=[(images.names[i], float(loneliness[i])) for i in outliers],
        label_next=[images.names[i] for i in chosen],
    )
    if out is not None:
        _write(Path(out), found, images, pairs[:n], outliers, chosen)
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
        closest = np.partition(block, n - neighbours, axis=1)[:, n - neighbours :]
        loneliness[rows] = np.sort(closest, axis=1).mean(axis=1)
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
    images: Images,
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
    names = images.names
    two_by_two = [
        Tile(picture(images, i), (text, names[i]))
        for first, second, value in pairs
        for i, text in ((first, f"{value:.4f}"), (second, "its earlier twin"))
    ]
    lonely = [
        Tile(picture(images, int(i)), (f"{value:.3f}", name))
        for i, (name, value) in zip(outliers, found.outliers, strict=True)
    ]
    next_ones = [Tile(picture(images, i), (f"{rank}", names[i])) for rank, i in enumerate(chosen, 1)]
    count = len(found.duplicates)
    shown = f", the {len(pairs)} closest" if len(pairs) < count else ""
    sheets = {
        "duplicates": Section(f"{count} near-duplicate{'s' * (count != 1)}{shown}", two_by_two),
        "outliers": Section("Outliers: far from everything else", lonely),
        "label-next": Section("What to label next: pictures that cover the set", next_ones),
    }
    for name, section in sheets.items():
        runs.write(folder / f"{name}.png", gallery([section]))
