"""Pictures like this one.

Comes in: embeddings of a set, and one picture or a folder of them. Goes out: the nearest of the set for each, with
cosine similarities (from -1 to 1; features after a ReLU are all positive, so most pairs lie high), and a contact sheet.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.data.images import Images
from headstart.data.sheets import Section, Tile, check_ending, gallery, picture
from headstart.records import files
from headstart.records.errors import InputError
from headstart.records.files import expanded, missing
from headstart.records.outputs import check_output_file, check_own, no_input
from headstart.use.embeddings import Embeddings, of_images
from headstart.use.index import close

SHOWN = 50
"""Queries on a contact sheet, at most."""


@dataclass(frozen=True)
class Match:
    """A picture of the set, and its cosine similarity to the query."""

    name: str
    similarity: float


@dataclass(frozen=True)
class Neighbours:
    """A query's nearest pictures, the most similar first; equal similarities in the order of names."""

    query: str
    found: list[Match]

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


def search(
    within: Embeddings,
    query: str | Path | Sequence[str | Path],
    *,
    top: int = 10,
    out: str | Path | None = None,
) -> list[Neighbours]:
    """The pictures of a set most like a query.

    Args:
        query: a picture file, or a folder of pictures, or several. One that is itself of the set is left out of its own
            answer.
        top: at most so many.
        out: write a contact sheet here (.png or .jpg), each query first.

    Returns:
        One for each query, in the order of their names.

    Raises InputError: no such picture, nothing to search, `out` inside DATA.
    """
    if top < 1:
        raise InputError(f"--top is {top}; it must be at least 1")
    paths = [expanded(one) for one in ((query,) if isinstance(query, (str, Path)) else query)]
    out = None if out is None else expanded(out)
    format = "PNG" if out is None else check_ending(out)
    if out is not None:
        check_output_file(out)
        no_input(out, [*paths, *within.data.sources], pictures=True)
        check_own(out)
    for path in paths:
        if not path.exists():
            why = missing(path) or f"{path} cannot be reached"
            raise InputError(f"--query: {why}; give the path of a picture, or of a folder of them")
    found = [one for path in paths for one in _answers(within, path, top)]
    if out is not None:
        sections = [
            Section(
                f"{len(answer)} pictures most like {asked.names[row]}",
                [Tile(picture(asked, row), ("query", Path(asked.names[row]).name), framed=True)]
                + [Tile(within.picture(i), (f"{value:.3f}", within.names[i])) for i, value in answer],
            )
            for asked, row, answer in found[:SHOWN]
        ]
        files.write(out, gallery(sections, format=format))
    return [
        Neighbours(asked.names[row], [Match(within.names[i], value) for i, value in answer])
        for asked, row, answer in found
    ]


def _answers(within: Embeddings, path: Path, top: int) -> Iterator[tuple[Images, int, list[tuple[int, float]]]]:
    """Of each query in a path: the pictures it is of, its row among them, and the nearest of the set."""
    own = within.data  # queries become squares as these did
    reading = replace(within.run.reading, labels="none", resize=own.resize, interpolation=own.interpolation)
    asked = within.run.open_images(path, reading)
    queries = of_images(within.run, asked, within.compute)
    indices, values = close(queries.features, within, top + 1)
    known = {name: i for i, name in enumerate(within.names)}
    for row, name in enumerate(asked.names):
        itself = position_in(path / name if path.is_dir() else path, within.data.sources, known)
        if itself is None:
            itself = _of_this_file(within, indices[row], queries, row)
        pairs = zip(indices[row].tolist(), values[row].tolist(), strict=True)
        yield asked, row, [(i, value) for i, value in pairs if i != itself][:top]


def _of_this_file(within: Embeddings, rows: np.ndarray, queries: Embeddings, query: int) -> int | None:
    """Which of these rows is the query's own file, as where a list names it. Where files lie is looked up for a row of
    the same content alone."""
    same = (int(i) for i in rows if np.array_equal(within.digests[i], queries.digests[query]))
    return next((i for i in same if Path(within.path(i)).resolve() == Path(queries.path(query)).resolve()), None)


def position_in(query: str | Path, sources: Sequence[str], known: Mapping[str, int]) -> int | None:
    """Where the query stands in a set that was read from folders; None when it is not of it.

    known: the set's names and their places.
    """
    path = expanded(query).resolve()
    for source in sources:
        root = expanded(source).resolve()
        if path.is_relative_to(root):
            inside = path.relative_to(root).as_posix()
            for name in (inside, f"{root.name}/{inside}"):
                if name in known:
                    return known[name]
    return None
