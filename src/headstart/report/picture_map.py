"""The map of a set as a part of a page, and as a page of its own.

Comes in: `MapOfPictures` of records/schema.py, of a run from its samples/map.json. Goes out: a `PageSection`, or HTML.
"""

from collections.abc import Sequence
from pathlib import Path

from headstart.records.errors import InputError
from headstart.records.files import read_json
from headstart.records.schema import MAP, MapOfPictures
from headstart.records.text import visible
from headstart.records.version import __version__
from headstart.report.html import Page, PageSection, PictureMap, may_enter, render

LARGEST = 4_000_000
"""Bytes of a file that is still put into a page: its 1,000 pictures are half of that."""


def read(path: Path) -> MapOfPictures | None:
    """The map in a file; none where there is no file, or one too large or a link that leads anywhere.

    Raises InputError naming the file where it is not what a run writes.
    """
    if not may_enter(path, LARGEST):
        return None
    held: MapOfPictures = read_json(path, MAP, "a run's map")
    columns = [held["x"], held["y"], held["thumbnails"], *(by["values"] for by in held["colours"].values())]
    if not held["colours"] or {len(held["names"])} != {len(column) for column in columns}:
        raise InputError(f"{path} is not a run's map: columns differ in length; delete it or restore it from a copy")
    return held


def section(held: MapOfPictures, lead: str = "") -> PageSection:
    """The map with what is to be known of it; `lead` says what else."""
    count, of = len(held["names"]), held["of"]
    said = (
        f"{count:,}{f' of {of:,}' if of > count else ''} pictures; those with similar representations lie close "
        "together. Only closeness means something here: not the axes, nor how far apart two groups lie. Drag to move; "
        "click or tap the map, then wheel or pinch to zoom; point at a dot to see its picture."
    )
    return PageSection("map", "Map", " ".join([said, lead]).strip(), [PictureMap(held)])


def page(held: MapOfPictures, title: str, counts: Sequence[str]) -> str:
    """The map as one file that needs nothing else."""
    footer = f"Made by Headstart {__version__}. This page is one file and loads nothing."
    return visible(render(Page(title, counts, "", [], [], [section(held)], footer)))
