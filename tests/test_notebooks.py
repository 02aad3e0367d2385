"""The notebooks under examples/ run from the first cell to the last, and what they show is what was kept.

`jupyter execute --inplace examples/NAME.ipynb`, started in an empty folder's copy, keeps outputs anew.
"""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / "examples").glob("*.ipynb"))


def shown(cell: nbformat.NotebookNode) -> list[str]:
    """What kinds of things a cell shows: printed text, tables, pictures; its numbers are the machine's."""
    kinds = set()
    for output in cell.outputs:
        kinds |= {output.name} if output.output_type == "stream" else set(output.data)
    return sorted(kinds)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_was_kept(path: Path, tmp_path: Path) -> None:
    kept = nbformat.read(path, as_version=4)
    run = nbformat.read(path, as_version=4)
    NotebookClient(run, timeout=None, startup_timeout=1800, resources={"metadata": {"path": str(tmp_path)}}).execute()
    for before, after in zip(kept.cells, run.cells, strict=True):
        if before.cell_type == "code":
            assert shown(after) == shown(before), before.source
            assert "stderr" not in shown(after), after.outputs


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_kept_outputs_are_whole_and_name_no_machine(path: Path) -> None:
    kept = nbformat.read(path, as_version=4)
    cells = [cell for cell in kept.cells if cell.cell_type == "code"]
    assert sum(bool(cell.outputs) for cell in cells) >= len(cells) - 2
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    text = "".join(str(cell.outputs) for cell in cells)
    assert not re.search(r"/(home|root|tmp|work|usr|Users|opt)/|file://|[A-Z]:\\\\", text)
    assert path.stat().st_size < 100_000


def test_there_are_three() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["comparing_heads", "your_own_folder", "your_own_loop"]
