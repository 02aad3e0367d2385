"""The tiny study, done once for all tests that compare with it."""

from typing import Any

import pytest

from headstart import study
from tests.study.tiny import results, written


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The tiny study, done at one go in this process."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    summary = study.run(written(folder), folder / "out", workers=0, quiet=True)
    assert (summary.done, summary.failed, summary.exit_code) == (4, 0, 0)
    found = results(folder / "out")
    assert len(found) == 6  # with two autoencoders, one a seed
    return found
