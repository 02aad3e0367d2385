"""From which similarity two pictures of a set are taken for near-duplicates, told by the set itself.

Comes in: embeddings of a set, and its pictures. Goes out: the similarity that nearly all of some pictures reach with a
copy of their own as copies come about: a little cut off, fewer pixels, saved as JPEG once more. It is kept beside a
file of embeddings for as long as that holds the same rows.
"""

import io
import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from headstart.engine.progress import say
from headstart.engine.randomness import numpy_generator
from headstart.evaluate.neighbours import nearest, normalized
from headstart.records import files
from headstart.records.errors import InputError, RunError
from headstart.use.embeddings import Embeddings

COPIED = 200
"""Pictures that are copied, drawn at random."""
REACHED = 0.95
"""Share of the copies that lie above what is suggested."""
CUT, SMALLER, QUALITY = 0.02, 0.75, 75
"""Of a copy: the share cut off at each edge, its sides beside what is left, the quality of its JPEG."""


@dataclass(frozen=True)
class Suggested:
    """A similarity, and what was seen at it.

    Attributes:
        similarity: REACHED of the copies are at least so like their picture.
        copies: how many there were.
        others: share of their pictures that another picture of the set is as like; most of these are no copies where
            it is large.
    """

    similarity: float
    copies: int
    others: float


def suggested(within: Embeddings) -> Suggested | None:
    """The similarity for a set; None, which is said, where its pictures are no longer what was embedded."""
    beside = within.file and within.file.with_name(f"{within.file.name}.copies.json")
    known = {"of": within.identity, "how": [COPIED, REACHED, CUT, SMALLER, QUALITY]}
    if beside and (kept := _kept(beside, known)):
        return kept
    found = _measured(within)
    if beside and found:
        with suppress(RunError):  # a folder that cannot be written: it is measured again next time
            files.write(beside, json.dumps(known | {"suggested": asdict(found)}))
    return found


def _kept(beside: Path, known: Mapping[str, Any]) -> Suggested | None:
    """What was suggested for these very rows; None where nothing was."""
    try:
        said = json.loads(beside.read_text())
        return Suggested(**said["suggested"]) if known.items() <= said.items() else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # none yet, or damaged
        return None


def _measured(within: Embeddings) -> Suggested | None:
    rows = np.sort(numpy_generator(0, "copies").permutation(len(within))[:COPIED])
    try:
        copies = [copy(within.picture(int(row))) for row in rows]
    except InputError as error:
        say(f"no similarity is suggested: {error}")
        return None
    own = normalized(within.features[rows])
    reached = (own * normalized(within.run.embed(copies, compute=within.compute))).sum(axis=1)
    value = math.floor(1e4 * float(np.quantile(reached, 1 - REACHED, method="lower"))) / 1e4
    indices, values = nearest(own, within.features, 2)
    others = np.where(indices == rows[:, None], -np.inf, values).max(axis=1)
    return Suggested(value, len(rows), float((others >= value).mean()))


def copy(pixels: np.ndarray) -> Image.Image:
    """A copy of a picture (H, W, 3) uint8, as it comes about."""
    height, width = pixels.shape[:2]
    picture = Image.fromarray(pixels).crop(
        (round(CUT * width), round(CUT * height), width - round(CUT * width), height - round(CUT * height))
    )
    smaller = picture.resize((max(1, round(SMALLER * picture.width)), max(1, round(SMALLER * picture.height))))
    buffer = io.BytesIO()
    smaller.save(buffer, "JPEG", quality=QUALITY)
    return Image.open(buffer, formats=["JPEG"])
