"""The house keeps its order: names mean one thing, and files stay of a size that a person reads."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import headstart

ROOT = Path(__file__).parents[1]
SOURCES = sorted(Path(headstart.__file__).parent.rglob("*.py"))


def _public_classes() -> Iterator[tuple[str, str]]:
    for path in SOURCES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield node.name, path.name


def test_no_two_public_classes_have_one_name() -> None:
    places = defaultdict(list)
    for name, path in _public_classes():
        places[name].append(path)
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


def test_no_module_is_longer_than_450_lines_besides_its_own_docstring() -> None:
    lengths = {path.name: _lines(path.read_text()) for path in SOURCES}
    assert {name: lines for name, lines in lengths.items() if lines > 450} == {}


def _lines(text: str) -> int:
    said = ast.get_docstring(ast.parse(text), clean=False) or ""
    return len(text.splitlines()) - len(said.splitlines())


def test_no_code_is_kept_from_the_formatter() -> None:
    assert [path.name for path in SOURCES if "# fmt:" in path.read_text()] == []


def test_no_function_is_longer_than_60_lines_without_its_docstring() -> None:
    long: dict[str, int] = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                said = ast.get_docstring(node, clean=False) or ""
                lines = node.end_lineno - node.lineno + 1 - len(said.splitlines())  # type: ignore[operator]
                long |= {f"{path.name}: {node.name}": lines} if lines > 60 else {}
    assert long == {}


def test_every_file_that_a_page_names_is_there() -> None:
    named = {
        (page.name, path)
        for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *SOURCES]
        for path in re.findall(r"`((?:benchmarks|docs|examples|results|src|tests)/[\w./-]+)`", page.read_text("utf-8"))
    }
    assert len(named) > 10
    assert {(page, path) for page, path in named if not (ROOT / path).exists()} == set()
