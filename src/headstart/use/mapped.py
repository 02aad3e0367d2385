"""The map of a set as a page that one can walk through, and as tables for other viewers.

Comes in: embeddings. Goes out: `map.html` (one file, offline), `map.csv`, and `map.parquet` (extra `parquet`) with a
thumbnail, the path and the nearest pictures of each, which embedding-atlas opens, and `fiftyone/`, which FiftyOne does.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from headstart.data import catalog
from headstart.data.source import as_text
from headstart.data.splits import Splits, reading
from headstart.engine.randomness import numpy_generator
from headstart.evaluate.map import NEIGHBOURS, by_class, by_number, of_pictures, positions, thumbnail, to_nearest
from headstart.evaluate.neighbours import nearest
from headstart.records import files
from headstart.records.errors import InputError
from headstart.records.folder import MARK
from headstart.records.outputs import check_own, check_results_folder, no_input
from headstart.records.schema import Choices, MapOfPictures, Range
from headstart.records.text import printable, table
from headstart.records.together import Content, write_together
from headstart.report import picture_map
from headstart.use.clusters import clusters
from headstart.use.embeddings import Embeddings
from headstart.use.index import every

DRAWN = 20_000
"""On the page, at most, drawn at random from larger sets: what a browser moves without halting. The tables hold all."""
BATCH = 10_000
"""Rows of the parquet file whose thumbnails are in memory at once."""
COLUMNS = ("name", "label", "x", "y", "cluster", "similarity")
PARTS = ("train", "val", "test")
PARQUET, FIFTYONE = "map.parquet", ("fiftyone/data.json", "fiftyone/labels.json")


@dataclass(frozen=True)
class Mapped:
    """A map: its files, and how many pictures and clusters are on it."""

    files: list[Path]
    pictures: int
    clusters: int


def write_map(within: Embeddings, out: str | Path) -> Mapped:
    """Write the map of a set into the folder `out`.

    Raises InputError where a picture is gone or changed since it was embedded, or `out` is DATA.
    """
    out = files.expanded(out)
    check_place(out)
    no_input(out, within.data.sources)
    places, groups = positions(within.features), clusters(within.features)
    found = every(within, NEIGHBOURS + 1)
    indices, values = found or nearest(within.features, within.features, NEIGHBOURS + 1)
    others = indices != np.arange(len(within))[:, None]
    similarity = to_nearest(np.where(others, values, np.nan))
    labels = [within.classes[label] if label >= 0 else "" for label in within.labels]
    numbers = (*places.T.tolist(), (groups + 1).tolist(), similarity.tolist())
    named = ", ".join(map(catalog.shown, within.data.sources))
    shown = _shown(within, places, groups, similarity, np.where(others, within.labels[indices], -1))
    contents: dict[str, Content] = {
        "map.csv": table(COLUMNS, zip(within.names, labels, *numbers, strict=True)),
        "map.html": picture_map.page(shown, named, [f"as the run {within.run.folder.path.resolve().name} sees it"]),
    }
    if find_spec("pyarrow"):
        columns = dict(zip(COLUMNS, (within.names, labels, *numbers), strict=True))
        near = [row[kept] for row, kept in zip(indices, others, strict=True)]
        contents[PARQUET] = _as_parquet(within, columns, near)
    contents |= _for_fiftyone(within, dict(zip(COLUMNS[2:], numbers, strict=True)))
    written = write_together(out, "map", contents, (PARQUET, *FIFTYONE))
    return Mapped(written, len(within), int(groups.max(initial=-1)) + 1)


def check_place(out: Path) -> None:
    """Raise InputError for a folder that is in use for something else: before anything is embedded for it."""
    check_results_folder(out)
    check_own(out / "map.html")
    check_own(out / "map.csv", COLUMNS)


def _shown(
    within: Embeddings, places: np.ndarray, groups: np.ndarray, similarity: np.ndarray, others: np.ndarray
) -> MapOfPictures:
    """What the page shows, of up to DRAWN pictures. others: (n, k) labels of the neighbours, -1 for those without."""
    chosen = np.sort(numpy_generator(0, "map/pictures").permutation(len(within))[:DRAWN])
    colours: dict[str, Choices | Range] = {}
    if (within.labels >= 0).any():
        colours = by_class(within.labels[chosen], others[chosen], within.classes)
    if (parts := _parts(within)) is not None:
        colours["split"] = {"values": parts[chosen].tolist(), "names": list(PARTS)}
    clustered = [f"cluster {i + 1}" for i in range(int(groups.max(initial=-1)) + 1)]
    colours["cluster"] = {"values": groups[chosen].tolist(), "names": clustered}
    colours["similarity to the nearest"] = by_number(similarity[chosen])
    names = [within.names[i] for i in chosen]
    return of_pictures(names, places[chosen], colours, lambda i: within.picture(int(chosen[i])), len(within))


def _parts(within: Embeddings) -> np.ndarray | None:
    """The part of the run's split that each picture is in, a number of PARTS, -1 for none; None where no picture is."""
    try:
        with reading(within.run.folder.splits) as file:
            own = Splits.of(file, len(file["digests"]))
            digests = [digest.tobytes() for digest in file["digests"]]
    except (InputError, KeyError, ValueError):  # gone, damaged, or of before it held what the pictures are
        return None
    known = {digests[i]: number for number, name in enumerate(PARTS) for i in getattr(own, name).tolist()}
    found = np.array([known.get(digest.tobytes(), -1) for digest in within.digests])
    return found if (found >= 0).any() else None


def _for_fiftyone(within: Embeddings, numbers: dict[str, Sequence[float]]) -> dict[str, Content]:
    """A FiftyOneImageClassificationDataset: where each picture lies (`data.json`), its label and what the map says of
    it (`labels.json`). Pictures inside other files, which FiftyOne cannot open, are left out."""
    paths = {i: path for i, path in enumerate(within.paths()) if Path(path).is_absolute()}
    if not paths:
        return {}

    def target(i: int) -> dict[str, Any] | None:
        label = within.labels[i]
        more = {"name": printable(within.names[i])} | {name: values[i] for name, values in numbers.items()}
        return {"label": within.classes[label], "attributes": more} if label >= 0 else None

    def write(file: BinaryIO, head: str, values: Iterable[Any], end: str) -> None:
        file.write(head.encode())
        for row, (i, value) in enumerate(zip(paths, values, strict=True)):
            file.write(f'{"," if row else ""}\n"{i:07d}": {json.dumps(value)}'.encode())
        file.write(end.encode())

    data, labels = FIFTYONE
    return {
        data: lambda file: write(file, "{", paths.values(), "}"),
        labels: lambda file: write(file, '{"classes": null, "labels": {', map(target, paths), "}}"),
    }


def _as_parquet(within: Embeddings, columns: dict[str, Sequence[Any]], near: Sequence[np.ndarray]) -> Content:
    """The columns, and of each picture the names of its nearest, where it lies, and a thumbnail; a batch at a time."""
    import pyarrow  # noqa: PLC0415 - an extra
    from pyarrow import parquet  # noqa: PLC0415

    text = pyarrow.string()
    kinds = {name: pyarrow.array(values[:1]).type for name, values in columns.items()}
    kinds |= {"neighbours": pyarrow.list_(text), "path": text, "thumbnail": pyarrow.binary()}
    schema = pyarrow.schema(list(kinds.items()), {MARK: "map"})

    def write(file: BinaryIO) -> None:
        with parquet.ParquetWriter(file, schema) as writer:
            for start in range(0, len(within), BATCH):
                rows = range(start, min(start + BATCH, len(within)))
                batch = {name: values[rows.start : rows.stop] for name, values in columns.items()}
                batch["neighbours"] = [[within.names[other] for other in near[i]] for i in rows]
                batch["path"] = [as_text(within.path(i)) for i in rows]
                batch["thumbnail"] = [thumbnail(within.picture(i), "JPEG") for i in rows]
                writer.write_table(pyarrow.table(batch, schema=schema))

    return write
