"""One self-contained page from sections given as data.

Comes in: a `Page` of `PageSection`s, each a list of blocks (figures, tables, pictures, a map, facts, words). Goes out:
HTML that loads nothing from anywhere. A new section is a new `PageSection`; nothing here knows what a study is. Every
text is escaped by the templates, so a file name cannot become markup.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from headstart.report.figures import Figure
from headstart.report.svg import TEMPLATES, stylesheet
from headstart.report.tables import TableLayout

LARGEST_PICTURE = 600_000
"""Bytes of a picture that is still put into the page."""

PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class FigureGrid:
    """Drawings side by side, each linked to its SVG and CSV."""

    figures: Sequence[Figure]
    kind: str = field(default="figures", init=False)


@dataclass(frozen=True)
class PaperTables:
    """Tables in the paper's arrangement, each linked to its files."""

    tables: Sequence[TableLayout]
    kind: str = field(default="tables", init=False)


@dataclass(frozen=True)
class Column:
    """A column of a `SortableTable`: numbers sort as numbers; `filter` offers its values as a choice."""

    name: str
    numeric: bool = False
    filter: bool = False


@dataclass(frozen=True)
class Link:
    """A cell that leads to a file beside the report."""

    text: str
    href: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class SortableTable:
    """A table that sorts and filters in the page. Cells are shown as given."""

    id: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str | Link]]
    kind: str = field(default="grid", init=False)

    def choices(self, index: int) -> list[str]:
        """The values of a column, for its filter."""
        return list(dict.fromkeys(str(row[index]) for row in self.rows))


@dataclass(frozen=True)
class Picture:
    """A picture inside the page."""

    title: str
    alt: str
    uri: str


@dataclass(frozen=True)
class PictureList:
    """Pictures one below the other."""

    pictures: Sequence[Picture]
    kind: str = field(default="pictures", init=False)


@dataclass(frozen=True)
class PictureMap:
    """Pictures as dots that one can walk through, colour, and choose from with a lasso; one a page.

    data: as records/schema.py's `MapOfPictures`.
    """

    data: Mapping[str, Any]
    kind: str = field(default="map", init=False)


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    facts: Sequence[tuple[str, str]]
    title: str = ""
    kind: str = field(default="facts", init=False)


@dataclass(frozen=True)
class Words:
    """Sentences, as a list."""

    sentences: Sequence[str]
    kind: str = field(default="words", init=False)


Block = FigureGrid | PaperTables | SortableTable | PictureList | PictureMap | Facts | Words


@dataclass(frozen=True)
class PageSection:
    """A part of the page. `lead` says in a sentence or two what is to be seen."""

    id: str
    title: str
    lead: str
    blocks: Sequence[Block]

    @property
    def narrow(self) -> bool:
        """One figure and nothing else: two such sections in a row share a wide screen."""
        figures = [len(block.figures) if isinstance(block, FigureGrid) else 2 for block in self.blocks]
        return sum(figures) == 1


@dataclass(frozen=True)
class Page:
    """A report: the answer on top, then the evidence. A page without a headline is no report: it has no answer."""

    title: str
    counts: Sequence[str]
    headline: str
    support: Sequence[str]
    caveats: Sequence[str]
    sections: Sequence[PageSection]
    footer: str

    @property
    def figures(self) -> list[Figure]:
        """Every figure in the page."""
        blocks = [block for section in self.sections for block in section.blocks if isinstance(block, FigureGrid)]
        return [figure for block in blocks for figure in block.figures]


def may_enter(path: Path, largest: int) -> bool:
    """Whether a file of up to `largest` bytes is there to go into the page: a folder from elsewhere may hold a pipe, or
    a link to a file that is nobody's business."""
    return not path.is_symlink() and path.is_file() and path.stat().st_size <= largest


def embed(path: Path, title: str, alt: str) -> Picture | None:
    """A PNG file as a picture of the page; None where it is missing, too large, or anything else."""
    if not may_enter(path, LARGEST_PICTURE):
        return None
    content = path.read_bytes()
    if not content.startswith(PNG):
        return None
    return Picture(title, alt, "data:image/png;base64," + base64.b64encode(content).decode())


def render(page: Page) -> str:
    """The page as HTML."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["own"] = _own
    environment.globals["data"] = _data
    environment.globals["drawing"] = lambda figure: Markup(figure.drawing.inline())
    return environment.get_template("page.html.j2").render(page=page)


def _own(name: str) -> Markup:
    """A file of the package, put into the page as it is."""
    text = stylesheet() if name == "figure.css" else (TEMPLATES / name).read_text(encoding="utf-8")
    return Markup(text)


def _data(value: Any) -> Markup:
    """JSON inside a script element, which nothing in a name can end."""
    return Markup(json.dumps(value).replace("<", "\\u003c"))
