"""The docs site: `make docs` writes build/docs/index.html."""

import contextlib
import io
import os
import re

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

from headstart import __version__
from headstart.cli.commands import COMMANDS, main

os.environ |= {"COLUMNS": "88", "NO_COLOR": "1"}

project, author, release = "Headstart", "Headstart contributors", __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["figures", "images"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
html_theme = "furo"
html_show_copyright = False
html_title = f"Headstart {__version__}"
autodoc_typehints = "none"
suppress_warnings = ["misc.highlighting_failure"]


class Commands(Directive):  # type: ignore[misc]
    """Every command with its options, as `headstart COMMAND --help` prints them."""

    def run(self) -> list[nodes.Node]:
        """One section a command."""
        return [self._section(words) for words in COMMANDS]

    def _section(self, words: str) -> nodes.section:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            main([*words.split(), "--help"])
        section = nodes.section(ids=[nodes.make_id(words)])
        text = nodes.literal_block(text=re.sub(r"\x1b\[[0-9;]*m", "", said.getvalue()), language="none")
        section += [nodes.title(text=f"headstart {words}"), text]
        return section


def code_spans(app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]) -> None:
    """Docstrings mark code as Markdown does, with one backtick a side; reStructuredText wants two."""
    lines[:] = [re.sub(r"(?<![`:])`([^`]+)`(?!`)", r"``\1``", line) for line in lines]


def setup(app: Sphinx) -> None:
    """What Sphinx calls."""
    app.add_directive("headstart-commands", Commands)
    app.connect("autodoc-process-docstring", code_spans, priority=400)  # before napoleon, which splits at colons
