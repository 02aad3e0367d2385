"""Fetching the named sets' archives, and unpacking them safely."""

import tarfile
from collections.abc import Iterator
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

    Raises InputError naming the archive.
    """
    try:
        with tarfile.open(archive) as tar:
            if hasattr(tarfile, "data_filter"):
                tar.extractall(folder, filter="data")
            else:
                tar.extractall(folder, _plain(tar, folder.resolve()))
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InputError(f"{archive} cannot be unpacked into {folder}: {error}") from None


def _plain(tar: tarfile.TarFile, folder: Path) -> Iterator[tarfile.TarInfo]:
    """Files and folders below `folder`, for Python 3.11 before 3.11.4, which has no filters; all else is refused."""
    for member in tar:
        if not (member.isfile() or member.isdir()) or not (folder / member.name).resolve().is_relative_to(folder):
            raise tarfile.ExtractError(f"{member.name!r} is no plain file or folder inside it")
        member.mode &= 0o777
        yield member
