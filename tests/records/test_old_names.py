"""Modules keep the names that scripts written for 0.1 import, and are the very same modules."""

import importlib

import pytest


@pytest.mark.parametrize(
    ("old", "new"),
    [("config", "records.config"), ("errors", "records.errors"), ("importers", "engine.importers")],
)
def test_the_old_name_is_the_same_module(old: str, new: str) -> None:
    assert importlib.import_module(f"headstart.{old}") is importlib.import_module(f"headstart.{new}")
