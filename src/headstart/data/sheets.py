"""Contact sheets: pictures on one PNG, for samples/, search and select.

Comes in: pictures as arrays, with captions that may hold any file name. Goes out: PNG bytes.
"""

import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from headstart.data.images import Images
from headstart.records.errors import InputError
from headstart.records.text import printable

GAP = 4
CAPTION = 14
TITLE = 22
MARGIN = 10
FONT_SIZE = 11
TITLE_SIZE = 14


def sheet(rows: Sequence[Sequence[np.ndarray]], scale: int = 1) -> bytes:
    """A PNG of rows of equally large pictures on white.

    Args:
        rows: pictures (S, S, 3) uint8; rows may differ in length.
        scale: each pixel becomes scale x scale.
    """
    side = rows[0][0].shape[0] * scale
    cell, columns = side + GAP, max(len(row) for row in rows)
    canvas = Image.new("RGB", (columns * cell + GAP, len(rows) * cell + GAP), "white")
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            image = Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST)
            canvas.paste(image, (GAP + c * cell, GAP + r * cell))
    return png(canvas)


@dataclass(frozen=True)
class Tile:
    """A picture (H, W, 3) uint8 of any shape, the lines of text under it, and whether it is framed."""

    picture: np.ndarray
    caption: tuple[str, ...] = ()
    framed: bool = False


@dataclass(frozen=True)
class Section:
    """A heading and its tiles."""

    title: str
    tiles: Sequence[Tile]


def gallery(sections: Sequence[Section], *, columns: int = 6, side: int = 128, format: str = "PNG") -> bytes:
    """A PNG (or JPEG) of titled sections of pictures, each fitted into a square of `side` pixels, proportions kept."""
    lines = max((len(tile.caption) for section in sections for tile in section.tiles), default=0)
    cell_width, cell_height = side + 2 * GAP, side + 2 * GAP + lines * CAPTION
    heights = [TITLE + -(-len(section.tiles) // columns) * cell_height + MARGIN for section in sections]
    canvas = Image.new("RGB", (columns * cell_width + 2 * MARGIN, sum(heights) + MARGIN), "white")
    draw = ImageDraw.Draw(canvas)
    top = MARGIN
    for section, height in zip(sections, heights, strict=True):
        draw.text((MARGIN + GAP, top), printable(section.title), fill="black", font=font(TITLE_SIZE))
        for position, tile in enumerate(section.tiles):
            row, column = divmod(position, columns)
            _tile(canvas, draw, tile, MARGIN + column * cell_width, top + TITLE + row * cell_height, side)
        top += height
    return png(canvas, format)


def _tile(canvas: Image.Image, draw: ImageDraw.ImageDraw, tile: Tile, left: int, top: int, side: int) -> None:
    picture = fitted(tile.picture, side)
    x, y = left + GAP + (side - picture.width) // 2, top + GAP + (side - picture.height) // 2
    if tile.framed:
        draw.rectangle((x - 3, y - 3, x + picture.width + 2, y + picture.height + 2), fill=(214, 39, 40))
    canvas.paste(picture, (x, y))
    for line, text in enumerate(tile.caption):
        place = (left + GAP, top + side + 2 * GAP + line * CAPTION)
        draw.text(place, _shortened(text, side), fill="black", font=font(FONT_SIZE))


def fitted(picture: np.ndarray, side: int) -> Image.Image:
    """A picture (H, W, 3) uint8, its longer side `side` pixels; small ones are enlarged without smoothing."""
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    method = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.LANCZOS
    return Image.fromarray(np.ascontiguousarray(picture)).resize(size, method)


FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


def check_ending(path: str | Path) -> str:
    """The format that a sheet's name asks for, PNG or JPEG. Raises InputError for another ending."""
    ending = Path(path).suffix.lower()
    if ending not in FORMATS:
        raise InputError(f"--out {path} must end in {', '.join(FORMATS)}")
    return FORMATS[ending]


MADE_BY = "Headstart"
"""What a sheet says in its metadata, by which it is told from a photograph: `records/outputs.py` replaces no other."""


def png(canvas: Image.Image, format: str = "PNG") -> bytes:
    """The bytes of a PNG (or JPEG) file."""
    buffer = io.BytesIO()
    if format == "JPEG":
        canvas.save(buffer, "JPEG", quality=90, comment=MADE_BY)
        return buffer.getvalue()
    said = PngInfo()
    said.add_text("Software", MADE_BY)
    canvas.save(buffer, "PNG", optimize=True, pnginfo=said)
    return buffer.getvalue()


@functools.lru_cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """DejaVu Sans, in pixels: its Latin, Greek, Cyrillic, Armenian, Hebrew, Arabic and Georgian letters.

    Pillow's own typeface has Latin-1 alone. The file is DejaVu's, with the other alphabets left out.
    """
    return ImageFont.truetype(Path(__file__).parent / "fonts" / "DejaVuSans.ttf", size)


def _shortened(text: str, width: int) -> str:
    """Text without control characters that fits `width` pixels; the end of a name tells more than its beginning."""
    text, typeface = printable(text), font(FONT_SIZE)
    if typeface.getlength(text) <= width:
        return text
    while text and typeface.getlength("…" + text) > width:
        text = text[1:]
    return "…" + text


def picture(images: Images, index: int) -> np.ndarray:
    """One picture (H, W, 3) uint8 at the size it is kept in."""
    frames, valid = images.batch([index])
    height, width = valid[0].tolist()
    return frames[0, :, :height, :width].permute(1, 2, 0).numpy()
