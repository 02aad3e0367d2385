"""Classes of new pictures, by a classifier that `finetune` made.

Comes in: a classifier's folder and DATA. Goes out: a CSV with a row a picture, streamed.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from headstart.data import Images, open_images
from headstart.data.reopen import check_reading, check_whole
from headstart.engine import progress
from headstart.engine.device import Compute, choose
from headstart.evaluate.neighbours import nearest
from headstart.records import files, text
from headstart.records.config import DataConfig
from headstart.records.errors import InputError
from headstart.records.outputs import check_output_file, check_own, no_input
from headstart.use.classifier import load_classifier, outputs, read_seen, reading_of

COLUMNS = ("name", "label", "probability", "distance", "unlike")


@dataclass(frozen=True)
class Predicted:
    """How many pictures were classified, how many of them are unlike everything trained on, how many fell into each
    class, the most frequent first."""

    pictures: int
    unlike: int
    classes: dict[str, int]


def predict(
    folder: str | Path,
    pictures: str | Path | Sequence[str | Path] | Images,
    out: str | Path,
    *,
    data: DataConfig | None = None,
    batch_size: int = 256,
    compute: Compute | None = None,
    quiet: bool = False,
) -> Predicted:
    """Classify pictures: a CSV with the most probable class of each.

    Its columns: `name,label,probability`, then `distance` (1 - cosine to the nearest training picture, as the
    classifier's backbone sees them) and `unlike` (`yes` where that is more than one in a hundred labelled pictures had
    that were not trained on; of such a picture neither label nor probability means much).

    Args:
        folder: what `finetune` made.
        pictures: DATA; labels it may have are not looked at.
        data: how DATA is read. Unset: as the pictures that the classifier was trained on.

    Raises:
        InputError: no classifier there, a wrong ending, bad DATA.
    """
    out, folder = files.expanded(out), files.expanded(folder)
    if out.suffix != ".csv":
        raise InputError(f"--out {out} must end in .csv")
    check_output_file(out)
    check_own(out, COLUMNS)
    model, about = load_classifier(folder)
    seen, limit = read_seen(folder, int(model.backbone.num_features))  # type: ignore[arg-type]
    own = reading_of(about)
    check_reading(data or own, own, about["size"])
    check_whole(data or own, own)
    images = pictures if isinstance(pictures, Images) else _open(pictures, data or own, about["size"])
    no_input(out, images.data.sources)
    mean, std = (None if about[name] is None else torch.tensor(about[name]) for name in ("mean", "std"))
    compute = compute or choose()
    batches = outputs(model, images, np.arange(len(images)), about["size"], (mean, std), compute, batch_size)
    counts: Counter[str] = Counter()
    unlike: Counter[bool] = Counter()

    def write(file: BinaryIO) -> None:
        file.write(text.csv_line(COLUMNS).encode())
        with progress.stage("predicting", len(images), quiet=quiet) as bar:
            for name, (label, probability, distance) in zip(images.names, _rows(batches, seen, bar), strict=True):
                found, far = about["classes"][label], distance > limit
                counts[found] += 1
                unlike[far] += 1
                file.write(text.csv_line((name, found, probability, distance, "yes" if far else "")).encode())

    files.write(out, write)
    return Predicted(len(images), unlike[True], dict(counts.most_common()))


def _rows(
    batches: Iterable[tuple[Tensor, Tensor]], seen: np.ndarray, bar: progress.Bar
) -> Iterator[tuple[int, float, float]]:
    """Of each picture the most probable class, its probability, and the distance to the nearest of `seen` (M, F).

    batches: of probabilities (n, classes) and h (n, F); `bar` moves by one of them at a time.
    """
    for p, h in batches:
        values, labels = p.max(1)
        distances = 1 - nearest(h.numpy(), seen, 1)[1][:, 0]
        yield from zip(labels.tolist(), values.tolist(), distances.tolist(), strict=True)
        bar.advance(len(p))


def _open(pictures: str | Path | Sequence[str | Path], data: DataConfig, size: int) -> Images:
    sources = (pictures,) if isinstance(pictures, (str, Path)) else pictures
    return open_images(replace(data, sources=tuple(map(str, sources)), size=size, labels="none"))
