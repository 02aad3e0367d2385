"""Shared by all tests: the real pictures and records where HEADSTART_DATA names them, and one thread a process."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    import torch

# Machines that run these tests are shared: nothing is judged by its time, and the examples are the same every time.
settings.register_profile(
    "headstart", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=50, derandomize=True
)
settings.load_profile("headstart")

os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that starts this in the background has SIGINT ignored, and every process started from here would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

NEEDS_DATA = "needs HEADSTART_DATA (the folder that holds data/ and reference/)"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--device`: where the tests marked gpu compute."""
    parser.addoption("--device", default="cuda", help="the GPU of the tests marked gpu (default cuda)")


@pytest.fixture
def gpu(request: pytest.FixtureRequest) -> "torch.device":
    """The device of `--device`; skips where there is no GPU."""
    import torch

    from headstart.engine.device import named

    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    device = named(request.config.getoption("--device"))
    torch.cuda.set_device(device)
    return device


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded pictures of tests never land in the person's own cache; bf16 and threads are the tests' own choice.

    Where a test leaves the number of threads open it is one: two processes test side by side, and two threads of each
    would wait for one another's cores.
    """
    import torch

    from headstart.engine import device

    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(device, "available_cores", lambda: 1)
        yield


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder that holds data/ and reference/; skips without it."""
    root = os.environ.get("HEADSTART_DATA")
    if not root or not Path(root, "data").is_dir() or not Path(root, "reference").is_dir():
        pytest.skip(NEEDS_DATA)
    return Path(root)


@pytest.fixture(scope="session")
def reference(data_root: Path) -> Path:
    """The authors' five CSV exports."""
    return data_root / "reference"


def _unpacked(archive: Path, folder: Path) -> Path:
    from headstart.data.download import unpack

    unpack(archive, folder)
    return folder


@pytest.fixture(scope="session")
def cifar10(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CIFAR-10 as 60,000 JPEG files in class folders under train/ and test/."""
    return _unpacked(data_root / "data" / "cifar10.tar.gz", tmp_path_factory.mktemp("cifar10"))


@pytest.fixture(scope="session")
def grocery(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """989 photographs of 43 classes, 348x348 to 348x464, under train/ and test/."""
    return _unpacked(data_root / "data" / "grocery43.tar", tmp_path_factory.mktemp("grocery"))


def pytest_terminal_summary(terminalreporter: "pytest.TerminalReporter") -> None:
    """Say how many tests could not run for want of the data."""
    skipped = terminalreporter.stats.get("skipped", [])
    missing = sum("HEADSTART_DATA" in str(report.longrepr) for report in skipped)
    terminalreporter.write_line(f"{missing} tests skipped for want of HEADSTART_DATA")
