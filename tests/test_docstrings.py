"""The reference has every public name, and the examples in its docstrings give what they say."""

import ast
import doctest
import importlib
import re
from pathlib import Path

import pytest

import headstart

PAGE = (Path(__file__).parent.parent / "docs" / "python.md").read_text()
MODULES = re.findall(r"automodule:: (\S+)", PAGE)
PUBLIC = {
    *(f"headstart.{name}" for name in ("heads", "ntxent", "objectives", "augment", "autoencoders", "backbones")),
    *(f"headstart.{name}" for name in ("statistics", "study", "sklearn", "report.compare", "engine.observer")),
    "headstart",
}
"""Where the names lie that other people's programs rely on."""


def test_the_reference_has_every_public_module() -> None:
    assert set(MODULES) >= PUBLIC


@pytest.mark.parametrize("module", sorted(PUBLIC))
def test_what_is_public_says_what_it_is(module: str) -> None:
    found = importlib.import_module(module)
    for name in getattr(found, "__all__", ()):
        value = getattr(found, name)
        assert not callable(value) or (value.__doc__ or "").strip(), f"{module}.{name}"


def _with_examples() -> list[str]:
    """Every module of the package in which a docstring holds an example."""
    package = Path(headstart.__file__).parent
    found = []
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            holder = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            if holder and ">>>" in (ast.get_docstring(node) or ""):  # type: ignore[arg-type]
                parts = path.relative_to(package.parent).with_suffix("").parts
                found.append(".".join(part for part in parts if part != "__init__"))
                break
    return found


EXAMPLES = _with_examples()


def test_the_parts_for_other_peoples_loops_have_examples() -> None:
    parts = {"ntxent", "vicreg", "barlow", "sigreg", "augment", "heads.mlp", "heads.starts", "statistics"}
    assert {f"headstart.{part}" for part in parts} <= set(EXAMPLES)


@pytest.mark.parametrize("module", EXAMPLES)
def test_examples_in_docstrings_give_what_they_say(module: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(module))
    assert tried
    assert not failed
