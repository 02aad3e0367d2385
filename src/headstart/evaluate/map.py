"""A map of a set as the backbone sees it: similar pictures lie close together.

Comes in: representations of pictures, and the pictures. Goes out: places on a plane, and what a page shows there
(`MapOfPictures` of records/schema.py); of a run `map.csv` and `map.json`, which its report draws. Placed by t-SNE (van
der Maaten and Hinton 2008) of up to 1,000 of them; the others lie among their nearest.
"""

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from sklearn.manifold import TSNE

from headstart.data.images import Images
from headstart.data.sheets import fitted, picture
from headstart.engine.randomness import numpy_generator
from headstart.evaluate.neighbours import nearest, normalized
from headstart.records import files, text
from headstart.records.schema import Choices, MapOfPictures, Range

LANDMARKS = 1000
AMONG = 5
"""Landmarks among which another picture is placed."""
NEIGHBOURS = 10
"""By which a picture is judged to lie alone, or among another class."""
SIDE = 48
"""Pixels of the longer side of a thumbnail, at most."""


def write_map(
    folder: str | Path, features: Mapping[str, np.ndarray], images: Images, parts: Mapping[str, np.ndarray]
) -> None:
    """Write the map of up to LANDMARKS pictures of a run into `folder` (RUN/samples), which it makes in a run that is
    there.

    features: of each part of the split (n, num_features), a row for each of `parts`, positions in `images`.
    """
    folder, names, counts = Path(folder), list(parts), [len(indices) for indices in parts.values()]
    part, row = np.repeat(np.arange(len(names)), counts), np.concatenate([np.arange(count) for count in counts])
    index = np.concatenate([*parts.values()])
    chosen = drawn(images.labels[index] >= 0)
    part, row, index = part[chosen], row[chosen], index[chosen]
    shown = np.stack([features[names[p]][r] for p, r in zip(part.tolist(), row.tolist(), strict=True)])
    near, values = _among(shown, part, row, [features[name] for name in names], [parts[name] for name in names])
    places, labels = positions(shown), images.labels[index]
    others = np.where(near >= 0, images.labels[near], -1)
    known = by_class(labels, others, images.classes) if (images.labels >= 0).any() else {}
    split: Choices = {"values": part.tolist(), "names": names}
    colours = {**known, "split": split, "similarity to the nearest": by_number(to_nearest(values))}
    named = [images.names[i] for i in index]
    held = of_pictures(named, places, colours, lambda i: picture(images, int(index[i])), sum(counts))
    classes = [images.classes[label] if label >= 0 else "" for label in labels]
    columns = named, classes, [names[p] for p in part], *places.T.tolist()
    table = text.table(("name", "label", "split", "x", "y"), zip(*columns, strict=True))
    files.write(folder / "map.csv", table, within=folder.parent)
    files.write(folder / "map.json", json.dumps(held), within=folder.parent)


def drawn(labelled: np.ndarray) -> np.ndarray:
    """Positions, in order, of up to LANDMARKS pictures drawn at random, of which half are labelled where so many are:
    of a few labels among many pictures some are to be seen."""
    order = numpy_generator(0, "map/pictures").permutation(len(labelled))
    known, unknown = order[labelled[order]], order[~labelled[order]]
    share = round(LANDMARKS * len(known) / max(1, len(order)))
    count = max(share, LANDMARKS // 2, LANDMARKS - len(unknown))
    return np.sort(np.concatenate([known[:count], unknown])[:LANDMARKS])


def _among(
    shown: np.ndarray, part: np.ndarray, row: np.ndarray, banks: Sequence[np.ndarray], indices: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Of each of `shown`, row `row` of the bank `part`, the NEIGHBOURS nearest among all banks, without itself.

    Returns their positions in the pictures, -1 where there are fewer, and cosine similarities, both (n, NEIGHBOURS).
    """
    near, values = np.full((2, len(shown), NEIGHBOURS), -1.0)
    for number, (bank, own) in enumerate(zip(banks, indices, strict=True)):
        found, similarity = nearest(shown, bank, NEIGHBOURS + 1)
        itself = (part == number)[:, None] & (found == row[:, None])
        positions_of = np.concatenate([near, np.where(itself, -1, own[found])], axis=1)
        similarity = np.concatenate([values, np.where(itself, -1, similarity)], axis=1)
        best = np.argsort(-similarity, axis=1, kind="stable")[:, :NEIGHBOURS]
        near, values = np.take_along_axis(positions_of, best, axis=1), np.take_along_axis(similarity, best, axis=1)
    return near.astype(np.int64), np.where(near >= 0, values, np.nan)


# ------------------------------------------------------------------------------------------------ what a page shows


def by_class(labels: np.ndarray, others: np.ndarray, classes: Sequence[str]) -> dict[str, Choices | Range]:
    """Colours by class, and by the share of neighbours of another class.

    labels: (n,), -1 for none. others: (n, k) labels of the neighbours, -1 for those that do not count.
    """
    known = (others >= 0) & (labels >= 0)[:, None]
    share = (known & (others != labels[:, None])).sum(axis=1) / np.maximum(1, known.sum(axis=1))
    return {
        "class": {"values": labels.tolist(), "names": [text.printable(name) for name in classes]},
        "neighbours of another class": by_number(np.where(known.any(axis=1), share, np.nan)),
    }


def to_nearest(similarity: np.ndarray) -> np.ndarray:
    """The mean (n,) of similarities (n, k), where NaN does not count: low for a picture that lies alone, 1 for the only
    one."""
    there = ~np.isnan(similarity)
    return np.where(there.any(axis=1), np.where(there, similarity, 0).sum(axis=1) / np.maximum(1, there.sum(axis=1)), 1)


def by_number(values: np.ndarray) -> Range:
    """Colours by numbers; NaN is none."""
    rounded = [None if np.isnan(value) else round(float(value), 4) for value in values]
    there = [value for value in rounded if value is not None]
    return {"values": rounded, "low": min(there, default=0), "high": max(there, default=1)}


def of_pictures(
    names: Sequence[str],
    places: np.ndarray,
    colours: Mapping[str, Choices | Range],
    pixels: Callable[[int], np.ndarray],
    of: int,
) -> MapOfPictures:
    """What a page shows, of a set of `of` pictures: the name, place and colours of those named, and of LANDMARKS drawn
    at random a thumbnail."""
    order = numpy_generator(0, "map/thumbnails").permutation(len(names))
    shown = set(order[:LANDMARKS].tolist())
    return {
        "of": of,
        "names": [text.printable(name) for name in names],
        "x": [round(x, 4) for x in places[:, 0].tolist()],
        "y": [round(y, 4) for y in places[:, 1].tolist()],
        "colours": dict(colours),
        "thumbnails": [
            base64.b64encode(thumbnail(pixels(i), "WEBP")).decode() if i in shown else "" for i in range(len(names))
        ],
    }


def thumbnail(pixels: np.ndarray, format: str) -> bytes:
    """A JPEG or WEBP whose longer side has SIDE pixels, or fewer where the picture (H, W, 3) uint8 has."""
    buffer = io.BytesIO()
    fitted(pixels, min(SIDE, max(pixels.shape[:2]))).save(buffer, format, quality=70)
    return buffer.getvalue()


# ------------------------------------------------------------------------------------------------------------ places


def positions(features: np.ndarray) -> np.ndarray:
    """Where each row lies: float64 (n, 2) in [0, 1], x to the right and y downwards. Deterministic."""
    n = len(features)
    chosen = np.sort(numpy_generator(0, "map").permutation(n)[:LANDMARKS])
    landmarks = normalized(features[chosen])
    anchors = _landmarks(landmarks.astype(np.float64))
    if len(chosen) == n:
        places = anchors
    else:
        close, similarity = nearest(features, landmarks, AMONG)
        weight = np.exp((similarity - similarity[:, :1]) / 0.05)[:, :, None]
        places = (anchors[close] * weight).sum(axis=1) / weight.sum(axis=1)
        places[chosen] = anchors
    low, extent = places.min(axis=0), np.ptp(places, axis=0)
    return np.where(extent > 0, (places - low) / np.where(extent > 0, extent, 1), 0.5)


def _landmarks(unit: np.ndarray) -> np.ndarray:
    """t-SNE of unit rows; of too few or identical ones, the two principal directions."""
    centred = unit - unit.mean(axis=0)
    if len(unit) < 8 or np.allclose(centred, 0, atol=1e-7):
        u, s, _ = np.linalg.svd(centred, full_matrices=False)
        flat = (u * s)[:, :2]
        return np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))
    # Distances of centred rows: features after a ReLU share a large common part that says nothing about any of them.
    layout = TSNE(perplexity=min(30, (len(unit) - 1) / 3), init="pca", max_iter=500, random_state=0)
    return layout.fit_transform(normalized(centred))
