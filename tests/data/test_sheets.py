"""Contact sheets: every picture where it belongs, and names that cannot steer anything."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.data import sheets
from headstart.data.sheets import Section, Tile, fitted, gallery, sheet


def flat(colour: tuple[int, int, int], height: int = 8, width: int = 8) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def colours(content: bytes) -> set[Any]:
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    return {colour for _, colour in picture.getcolors(10**6) or []}


def test_a_sheet_shows_every_picture_at_its_scale() -> None:
    content = sheet([[flat((255, 0, 0)), flat((0, 255, 0))], [flat((0, 0, 255))]], scale=3)
    assert {(255, 0, 0), (0, 255, 0), (0, 0, 255)} <= colours(content)
    assert Image.open(io.BytesIO(content)).size == (2 * (8 * 3 + 4) + 4, 2 * (8 * 3 + 4) + 4)


def test_a_gallery_wraps_rows_and_frames_the_query() -> None:
    tiles = [Tile(flat((10 * i, 200, 0)), ("name",), framed=i == 0) for i in range(7)]
    content = gallery([Section("title", tiles)], columns=3, side=40)
    assert {(10 * i, 200, 0) for i in range(7)} <= colours(content)
    assert (214, 39, 40) in colours(content)
    one_row = Image.open(io.BytesIO(gallery([Section("title", tiles[:3])], columns=3, side=40)))
    assert Image.open(io.BytesIO(content)).height > 2 * one_row.height


def test_names_of_any_kind_can_be_captions() -> None:
    names = ("", "x" * 500, "\x1b[31m", "\u202egnp.exe", "köln 写真.png", "\udcff")
    assert gallery([Section(name, [Tile(flat((0, 0, 0)), (name,))]) for name in names])


def test_proportions_are_kept() -> None:
    assert fitted(flat((0, 0, 0), height=20, width=10), 100).size == (50, 100)
    assert fitted(flat((0, 0, 0), height=300, width=600), 100).size == (100, 50)
    assert fitted(flat((0, 0, 0), height=1, width=1000), 100).size == (100, 1)


@pytest.mark.parametrize("letters", ["ñéßøž", "αβγδω", "джиёя", "אבגדה", "ابتثج", "աբգդե", "აბგდე", "…−×→€"])
def test_letters_of_names_are_drawn_and_not_boxes(letters: str) -> None:
    typeface = sheets.font(14)
    box = bytes(typeface.getmask("\ufdd0"))  # no letter at all
    drawn = [bytes(typeface.getmask(letter)) for letter in letters]
    assert box not in drawn
    assert len(set(drawn)) == len(letters)
