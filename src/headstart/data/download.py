"""Fetching the named sets' archives, and unpacking them safely."""

import tarfile
from pathlib import Path

from headstart.records.errors import InputError
from headstart.records.names import NamedSet


def fetch(known: NamedSet, folder: Path) -> None:
    """Fetch a set's archive through torchvision, which checks its md5, and unpack it into `folder`.

    Raises InputError where it cannot be had, saying what to do by hand.
    """
    from torchvision.datasets.utils import download_url  # noqa: PLC0415 - slow, and rarely needed

    archive = known.archive.rsplit("/", 1)[-1]
    try:
        download_url(known.archive, str(folder), archive, known.md5)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{known.name} could not be fetched from {known.archive}: {error}; unpack {archive} into {folder} by hand"
        ) from None
    unpack(folder / archive, folder)


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
