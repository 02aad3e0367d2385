"""A map of a set as the backbone sees it: similar pictures lie close together.

Comes in: representations of pictures, and the pictures. Goes out: `map.csv`, `map.png` (thumbnails on a grid, so that
50 pictures and 50,000 are equally readable) and, where there are labels, `map-labels.png` (a dot a picture). Drawn by
t-SNE (van der Maaten and Hinton 2008) of up to 1,000 of them; the others are placed among their nearest.
"""

import colorsys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from sklearn.manifold import TSNE

from headstart.data.images import Images
from headstart.data.sheets import fitted, font, picture, png
from headstart.engine.randomness import numpy_generator
from headstart.evaluate.neighbours import nearest, normalized
from headstart.records import files, text

WIDTH, HEIGHT, MARGIN = 960, 720, 8
SMALLEST, LARGEST = 44, 88
"""Side of a thumbnail in pixels, for many and for few pictures."""
LANDMARKS = 1000
NEIGHBOURS = 5
UNLABELLED = (150, 150, 150)


def write_map(folder: str | Path, features: np.ndarray, images: Images, indices: np.ndarray) -> None:
    """Write the map of `images[indices]` into `folder` (RUN/samples), which it makes in a run that is there.

    features: (n, num_features), a row for each of `indices`.
    """
    folder, places, labels = Path(folder), positions(features), images.labels[indices]
    names = [images.classes[label] if label >= 0 else "" for label in labels]
    rows = [(images.names[i], name, float(x), float(y)) for i, name, (x, y) in zip(indices, names, places, strict=True)]
    files.write(folder / "map.csv", text.table(("name", "label", "x", "y"), rows), within=folder.parent)
    colours = class_colours(len(images.classes))
    files.write(folder / "map.png", thumbnails(places, images, indices, colours), within=folder.parent)
    if (labels >= 0).any():
        files.write(folder / "map-labels.png", dots(places, labels, images.classes, colours), within=folder.parent)
    else:  # of a run that was extended by pictures without labels
        (folder / "map-labels.png").unlink(missing_ok=True)


def positions(features: np.ndarray) -> np.ndarray:
    """Where each row lies: float64 (n, 2) in [0, 1], x to the right and y downwards. Deterministic."""
    n = len(features)
    chosen = np.sort(numpy_generator(0, "map").permutation(n)[:LANDMARKS])
    landmarks = normalized(features[chosen])
    anchors = _landmarks(landmarks.astype(np.float64))
    if len(chosen) == n:
        places = anchors
    else:
        close, similarity = nearest(features, landmarks, NEIGHBOURS)
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


def thumbnails(places: np.ndarray, images: Images, indices: np.ndarray, colours: np.ndarray) -> bytes:
    """PNG: in every cell of a grid, the picture that lies nearest to its middle, framed in its class's colour."""
    cell = int(np.clip(0.8 * np.sqrt(WIDTH * HEIGHT / max(1, len(places))), SMALLEST, LARGEST))
    columns, rows = (WIDTH - 2 * MARGIN) // cell, (HEIGHT - 2 * MARGIN) // cell
    grid = places * np.array([columns, rows]) * (1 - 1e-9)
    inside = grid.astype(int)
    away = np.square(grid - inside - 0.5).sum(axis=1)
    canvas = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(canvas)
    taken: set[tuple[int, int]] = set()
    for i in np.argsort(away, kind="stable"):
        at = (int(inside[i, 0]), int(inside[i, 1]))
        if at in taken:
            continue
        taken.add(at)
        thumbnail = fitted(picture(images, int(indices[i])), cell - 6)
        left = MARGIN + at[0] * cell + (cell - thumbnail.width) // 2
        top = MARGIN + at[1] * cell + (cell - thumbnail.height) // 2
        box = (left - 2, top - 2, left + thumbnail.width + 1, top + thumbnail.height + 1)
        draw.rectangle(box, fill=_colour(images.labels[indices[i]], colours))
        canvas.paste(thumbnail, (left, top))
    return png(canvas.quantize(256, dither=Image.Dither.NONE))  # a third of the bytes, and the report holds it whole


def dots(places: np.ndarray, labels: np.ndarray, classes: list[str], colours: np.ndarray) -> bytes:
    """PNG: a dot a picture in its class's colour, and class names where their pictures lie, as many as find room."""
    canvas = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(canvas)
    points = MARGIN + places * np.array([WIDTH - 2 * MARGIN - 1, HEIGHT - 2 * MARGIN - 1])
    radius = float(np.clip(120 / np.sqrt(len(places)), 1.2, 5))
    for (x, y), label in zip(points, labels, strict=True):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_colour(label, colours))
    written: list[tuple[float, float, float, float]] = []
    for label in np.argsort(-np.bincount(labels[labels >= 0], minlength=len(classes)), kind="stable"):
        members = points[labels == label]
        if len(members):
            name, typeface = text.printable(classes[label])[:24], font(16)
            x, y = members[np.square(members - np.median(members, axis=0)).sum(axis=1).argmin()]
            half = typeface.getlength(name) / 2
            x = float(np.clip(x, half + MARGIN, WIDTH - half - MARGIN))
            box = (x - half - 4, y - 13, x + half + 4, y + 13)
            if not any(_overlap(box, other) for other in written):
                written.append(box)
                dark = tuple(int(0.6 * c) for c in _colour(label, colours))
                draw.text((x, y), name, fill=dark, font=typeface, anchor="mm", stroke_width=3, stroke_fill="white")
    return png(canvas.quantize(256, dither=Image.Dither.NONE))


def class_colours(n: int) -> np.ndarray:
    """n colours, uint8 (n, 3): hues a golden angle apart, so that neighbours in the list are far apart in hue."""
    hues = (0.6 + np.arange(n) * 0.618033988749895) % 1
    return np.array(
        [
            [round(255 * c) for c in colorsys.hsv_to_rgb(h, (0.85, 0.6)[i % 2], (0.8, 0.9)[i % 2])]
            for i, h in enumerate(hues)
        ],
        dtype=np.uint8,
    ).reshape(n, 3)


def _colour(label: int, colours: np.ndarray) -> tuple[int, int, int]:
    if label < 0:
        return UNLABELLED
    red, green, blue = colours[label].tolist()
    return red, green, blue


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
