"""The map of a set as a page that one can walk through, and as tables for other viewers.

Comes in: embeddings. Goes out: `map.html` (one file, offline), `map.csv`, and `map.parquet` (extra `parquet`) with a
thumbnail, the path and the nearest pictures of each, which embedding-atlas opens, and `fiftyone/`, which FiftyOne does.
"""

import base64
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from headstart.data.sheets import fitted
from headstart.data.source import as_text
from headstart.data.splits import Splits, reading
from headstart.engine.randomness import numpy_generator
from headstart.evaluate.map import positions
from headstart.evaluate.neighbours import nearest
from headstart.records import files
from headstart.records.errors import InputError
from headstart.records.folder import MARK, check_output_folder, no_input
from headstart.records.text import printable, table
from headstart.records.together import Content, write_together
from headstart.use.clusters import clusters
from headstart.use.embeddings import Embeddings
from headstart.use.index import every

NEIGHBOURS = 10
DRAWN = 20_000
"""On the page, at most, drawn at random from larger sets: what a browser moves without halting. The tables hold all."""
BATCH = 10_000
"""Rows of the parquet file whose thumbnails are in memory at once."""
THUMBNAILS = 1000
"""In the page, at most: 1,000 of SIDE pixels are under 2 MB."""
SIDE = 48
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
    check_output_folder(out)
    no_input(out, within.data.sources)
    places, groups = positions(within.features), clusters(within.features)
    found = every(within, NEIGHBOURS + 1)
    indices, values = found or nearest(within.features, within.features, NEIGHBOURS + 1)
    others = indices != np.arange(len(within))[:, None]
    loneliness = np.array([row[kept].mean() if kept.any() else 1 for row, kept in zip(values, others, strict=True)])
    labels = [within.classes[label] if label >= 0 else "" for label in within.labels]
    header = ("name", "label", "x", "y", "cluster", "similarity")
    numbers = (places[:, 0].tolist(), places[:, 1].tolist(), (groups + 1).tolist(), loneliness.tolist())
    colours = _colours(within, groups, loneliness, indices, others)
    contents: dict[str, Content] = {
        "map.csv": table(header, zip(within.names, labels, *numbers, strict=True)),
        "map.html": page(within, places, colours),
    }
    if find_spec("pyarrow"):
        columns = dict(zip(header, (within.names, labels, *numbers), strict=True))
        near = [row[kept] for row, kept in zip(indices, others, strict=True)]
        contents[PARQUET] = _as_parquet(within, columns, near)
    contents |= _for_fiftyone(within, dict(zip(header[2:], numbers, strict=True)))
    written = write_together(out, "map", contents, (PARQUET, *FIFTYONE))
    return Mapped(written, len(within), int(groups.max(initial=-1)) + 1)


def _colours(
    within: Embeddings, groups: np.ndarray, loneliness: np.ndarray, indices: np.ndarray, others: np.ndarray
) -> dict[str, dict[str, Any]]:
    """By what the page colours: name -> values, with names where these are choices, with a range where numbers."""
    colours: dict[str, dict[str, Any]] = {}
    if (within.labels >= 0).any():
        known = others & (within.labels[indices] >= 0) & (within.labels >= 0)[:, None]
        other = known & (within.labels[indices] != within.labels[:, None])
        share = other.sum(axis=1) / np.maximum(1, known.sum(axis=1))
        colours["class"] = {"values": within.labels.tolist(), "names": within.classes}
        colours["neighbours of another class"] = _range(np.where(known.any(axis=1), share, np.nan))
    if (parts := _parts(within)) is not None:
        colours["split"] = {"values": parts.tolist(), "names": list(PARTS)}
    count = int(groups.max(initial=-1)) + 1
    colours["cluster"] = {"values": groups.tolist(), "names": [f"cluster {i + 1}" for i in range(count)]}
    colours["similarity to the nearest"] = _range(loneliness)
    return colours


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


def _range(values: np.ndarray) -> dict[str, Any]:
    """Numbers and their range; null where there is none."""
    rounded = [None if np.isnan(value) else round(float(value), 4) for value in values]
    there = [value for value in rounded if value is not None]
    return {"values": rounded, "low": min(there, default=0), "high": max(there, default=1)}


def page(within: Embeddings, places: np.ndarray, colours: dict[str, dict[str, Any]]) -> str:
    """The page: one file that needs nothing else."""
    draw = numpy_generator(0, "map/thumbnails").permutation(len(within))
    shown, drawn = set(draw[:THUMBNAILS].tolist()), sorted(draw[:DRAWN].tolist())
    data = {
        "of": len(within),
        "names": [printable(within.names[i]) for i in drawn],
        "x": [round(float(places[i, 0]), 4) for i in drawn],
        "y": [round(float(places[i, 1]), 4) for i in drawn],
        "colours": {name: by | {"values": [by["values"][i] for i in drawn]} for name, by in colours.items()},
        "thumbnails": [base64.b64encode(thumbnail(within, i)).decode() if i in shown else "" for i in drawn],
    }
    text = json.dumps(data).replace("<", "\\u003c")  # nothing in a name can end the script element
    template = resources.files("headstart.use").joinpath("templates/map.html").read_text(encoding="utf-8")
    return template.replace("__DATA__", text)


def thumbnail(within: Embeddings, index: int) -> bytes:
    """A JPEG whose longer side has SIDE pixels."""
    buffer = io.BytesIO()
    fitted(within.picture(index), SIDE).save(buffer, "JPEG", quality=70)
    return buffer.getvalue()


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
        for number, (i, value) in enumerate(zip(paths, values, strict=True)):
            file.write(f'{"," if number else ""}\n"{i:07d}": {json.dumps(value)}'.encode())
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
                batch["thumbnail"] = [thumbnail(within, i) for i in rows]
                writer.write_table(pyarrow.table(batch, schema=schema))

    return write
