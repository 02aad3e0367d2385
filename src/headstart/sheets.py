"""Contact sheets: grids of pictures as PNG, for samples/, search and select."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from headstart.runs import printable

GAP = 4
CAPTION = 14


def sheet(rows: Sequence[Sequence[np.ndarray]], captions: Sequence[Sequence[str]] | None = None, scale: int = 1) -> bytes:
    """A PNG of rows of equally large pictures on white.

    Args:
        rows: pictures (S, S, 3) uint8; rows may differ in length.
        captions: a short text under each picture.
        scale: each pixel becomes scale x scale.
    """
    side = rows[0][0].shape[0] * scale
    cell_width, cell_height = side + GAP, side + GAP + (CAPTION if captions else 0)
    columns = max(len(row) for row in rows)
    canvas = Image.new("RGB", (columns * cell_width + GAP, len(rows) * cell_height + GAP), "white")
    draw = ImageDraw.Draw(canvas)
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            left, top = GAP + c * cell_width, GAP + r * cell_height
            image = Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST)
            canvas.paste(image, (left, top))
            if captions:
                text = printable(captions[r][c])[: side // 6]
                draw.text((left, top + side + 1), text, fill="black")
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    return buffer.getvalue()
