"""Fetching the named sets' archives, and unpacking them safely."""

import tarfile
from dataclasses import dataclass
from pathlib import Path

from headstart.records.errors import InputError


@dataclass(frozen=True)
class Archive:
    """A published archive: its address, and its md5 where one was published."""

    url: str
    md5: str | None = None

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.url.rsplit("/", 1)[-1]


def fetch(head: str, archive: Archive, folder: Path) -> None:
    """Fetch the archive of the set `head` through torchvision, which checks its md5, and unpack it into `folder`.

    Raises InputError where it cannot be had, saying what to do by hand.
    """
    from torchvision.datasets.utils import download_url

    try:
        download_url(archive.url, str(folder), archive.name, archive.md5)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{head} could not be fetched from {archive.url}: {error}; unpack {archive.name} into {folder} by hand"
        ) from None
    unpack(folder / archive.name, folder)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar archive; members that would land outside `folder`, links out of it and devices are refused.

    Raises InputError naming the archive, also where this Python cannot refuse them (3.11 before 3.11.4).
    """
    if not hasattr(tarfile, "data_filter"):
        raise InputError(
            f"{archive} is not unpacked: this needs Python 3.11.4 or newer; unpack it into {folder} by hand"
        )
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InputError(f"{archive} cannot be unpacked into {folder}: {error}") from None
