"""The map of a set as a page that one can walk through, and as tables for other viewers.

Comes in: embeddings. Goes out: `map.html` (one file, offline), `map.csv`, and `map.parquet` (extra `parquet`) with a
thumbnail, the path and the nearest pictures of each, which embedding-atlas and FiftyOne open.
"""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from headstart.data.sheets import fitted
from headstart.engine.randomness import numpy_generator
from headstart.evaluate.map import positions
from headstart.evaluate.neighbours import nearest
from headstart.records import files
from headstart.records.folder import check_output_folder, no_input
from headstart.records.text import printable, table
from headstart.use.clusters import clusters
from headstart.use.embeddings import Embeddings

NEIGHBOURS = 10
THUMBNAILS = 1000
"""In the page, at most: 1,000 of SIDE pixels are under 2 MB."""
SIDE = 48


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
    out = Path(out)
    check_output_folder(out)
    no_input(out, within.data.sources)
    places, groups = positions(within.features), clusters(within.features)
    indices, values = nearest(within.features, within.features, NEIGHBOURS + 1)
    others = indices != np.arange(len(within))[:, None]
    loneliness = np.array([row[kept].mean() if kept.any() else 1 for row, kept in zip(values, others, strict=True)])
    labels = [within.classes[label] if label >= 0 else "" for label in within.labels]
    header = ("name", "label", "x", "y", "cluster", "similarity")
    numbers = (places[:, 0].tolist(), places[:, 1].tolist(), (groups + 1).tolist(), loneliness.tolist())
    written = [out / "map.csv", out / "map.html"]
    files.write(written[0], table(header, zip(within.names, labels, *numbers, strict=True)))
    colours = _colours(within, groups, loneliness, indices, others)
    files.write(written[1], page(within, places, colours))
    if find_spec("pyarrow"):
        written.append(out / "map.parquet")
        columns = dict(zip(header, (within.names, labels, *numbers), strict=True))
        near = [[within.names[i] for i in row[kept]] for row, kept in zip(indices, others, strict=True)]
        _write_parquet(written[2], within, columns | {"neighbours": near})
    return Mapped(written, len(within), int(groups.max(initial=-1)) + 1)


def _colours(
    within: Embeddings, groups: np.ndarray, loneliness: np.ndarray, indices: np.ndarray, others: np.ndarray
) -> dict[str, dict[str, Any]]:
    """By what the page colours: name -> values, with names where these are choices, with a range where numbers."""
    colours: dict[str, dict[str, Any]] = {}
    if (within.labels >= 0).any():
        same = (within.labels[indices] == within.labels[:, None]) & others
        disagree = 1 - same.sum(axis=1) / np.maximum(1, others.sum(axis=1))
        colours["class"] = {"values": within.labels.tolist(), "names": within.classes}
        colours["neighbours of another class"] = _range(np.where(within.labels >= 0, disagree, 0))
    count = int(groups.max(initial=-1)) + 1
    colours["cluster"] = {"values": groups.tolist(), "names": [f"cluster {i + 1}" for i in range(count)]}
    colours["similarity to the nearest"] = _range(loneliness)
    return colours


def _range(values: np.ndarray) -> dict[str, Any]:
    rounded = [round(float(value), 4) for value in values]
    return {"values": rounded, "low": min(rounded, default=0), "high": max(rounded, default=1)}


def page(within: Embeddings, places: np.ndarray, colours: dict[str, dict[str, Any]]) -> str:
    """The page: one file that needs nothing else."""
    shown = set(numpy_generator(0, "map/thumbnails").permutation(len(within))[:THUMBNAILS].tolist())
    data = {
        "names": [printable(name) for name in within.names],
        "x": [round(float(x), 4) for x in places[:, 0]],
        "y": [round(float(y), 4) for y in places[:, 1]],
        "colours": colours,
        "thumbnails": [
            base64.b64encode(thumbnail(within, i)).decode() if i in shown else "" for i in range(len(within))
        ],
    }
    text = json.dumps(data).replace("<", "\\u003c")  # nothing in a name can end the script element
    template = resources.files("headstart.use").joinpath("templates/map.html").read_text(encoding="utf-8")
    return template.replace("__DATA__", text)


def thumbnail(within: Embeddings, index: int) -> bytes:
    """A JPEG whose longer side has SIDE pixels."""
    buffer = io.BytesIO()
    fitted(within.picture(index), SIDE).save(buffer, "JPEG", quality=70)
    return buffer.getvalue()


def _write_parquet(path: Path, within: Embeddings, columns: dict[str, Sequence[Any]]) -> None:
    import pyarrow  # noqa: PLC0415 - an extra
    from pyarrow import parquet  # noqa: PLC0415

    columns = columns | {
        "path": [within.path(i) for i in range(len(within))],
        "thumbnail": [thumbnail(within, i) for i in range(len(within))],
    }
    whole = pyarrow.table({name: pyarrow.array(values) for name, values in columns.items()})
    files.write(path, lambda file: parquet.write_table(whole, file))
