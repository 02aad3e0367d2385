"""The map in a run's page: what its file must be, and what it may not be."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headstart.records.errors import InputError
from headstart.report import picture_map, write_report

MAP: dict[str, Any] = {
    "of": 12,
    "names": ["</script><b>.png", "b.png"],
    "x": [0, 0.5],
    "y": [1, 0.25],
    "colours": {
        "class": {"values": [0, -1], "names": ["<i>"]},
        "similarity to the nearest": {"values": [0.5, None], "low": 0, "high": 1},
    },
    "thumbnails": ["", ""],
}


@pytest.fixture
def run(make_run: Callable[..., Path], tmp_path: Path) -> Path:
    run = make_run(tmp_path / "run")
    (run / "samples").mkdir(exist_ok=True)
    return run


def put(run: Path, **changes: Any) -> Path:
    path = run / "samples" / "map.json"
    path.write_text(json.dumps(MAP | changes))
    return path


def test_it_is_in_the_page_and_no_name_becomes_markup(run: Path) -> None:
    put(run)
    page = write_report(run).read_text()
    assert "2 of 12 pictures; those with similar representations" in page
    assert "</script><b>" not in page
    assert "<i>" not in page
    held = page.split('type="application/json">')[1].split("</script>")[0]
    assert json.loads(held) == MAP


def test_a_run_without_one_has_no_such_section(run: Path) -> None:
    page = write_report(run).read_text()
    assert 'id="map"' not in page
    assert "walkable" not in page


@pytest.mark.parametrize(
    "changes",
    [
        {"x": [0]},
        {"thumbnails": ["", "", ""]},
        {"colours": {"class": {"values": [0], "names": ["a"]}}},
        {"colours": {}},
        {"colours": {"class": {"values": ["0", "1"], "names": ["a"]}}},
        {"y": ["0", "1"]},
        {"names": [1, 2]},
        {"of": None},
    ],
)
def test_what_no_run_writes_is_named(run: Path, changes: dict[str, Any]) -> None:
    path = put(run, **changes)
    with pytest.raises(InputError, match=r"map\.json is not a run's map: .*; delete it or restore it from a copy"):
        write_report(run)
    path.write_text("{")
    with pytest.raises(InputError, match=r"map\.json is not valid JSON"):
        write_report(run)
    path.unlink()
    write_report(run)


def test_a_link_a_pipe_and_a_flood_are_left_out(run: Path, tmp_path: Path) -> None:
    path = put(run)
    path.rename(tmp_path / "elsewhere.json")
    path.symlink_to(tmp_path / "elsewhere.json")
    assert picture_map.read(path) is None
    path.unlink()
    os.mkfifo(path)
    assert picture_map.read(path) is None
    path.unlink()
    put(run, thumbnails=["A" * picture_map.LARGEST, ""])
    assert picture_map.read(path) is None
