"""The paper on a page trains both heads and judges them, in no more lines than a page has."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.shapes import photos

__all__ = ["photos"]

PAGE = Path(__file__).parent.parent / "examples" / "paper_in_a_page.py"


def test_the_page_goes_from_pictures_to_both_heads_probes(photos: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(PAGE), str(photos), "1", "resnet18", "16"],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    accuracies = re.findall(r"^(untrained|mlp|ae): (\d+\.\d) % \((\d+\.\d) to (\d+\.\d)\)$", done.stdout, re.MULTILINE)
    assert [name for name, *_ in accuracies] == ["untrained", "mlp", "ae"]
    assert all(float(low) <= float(found) <= float(high) for _, found, low, high in accuracies)
    losses = [float(loss) for loss in re.findall(r"NT-Xent (\d+\.\d+)", done.stdout)]
    assert len(losses) == 2
    assert all(0 < loss < 10 for loss in losses)


def test_it_is_a_page_in_the_order_of_the_papers_sections() -> None:
    text = PAGE.read_text()
    assert len(text.splitlines()) <= 120
    assert re.findall(r"^# (3\.\d)", text, re.MULTILINE) == ["3.1", "3.2", "3.3", "3.4", "3.5", "3.6"]
