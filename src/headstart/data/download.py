"""Fetching the named sets' archives, and unpacking them safely."""

import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

from headstart.records.claim import alone
from headstart.records.errors import InputError
from headstart.records.names import NamedSet


def fetch(known: NamedSet, folder: Path) -> None:
    """Fetch a set's archive through torchvision, which checks its md5, and unpack it into `folder`.

    What is cut short, here or by a kill, is never taken for the archive or the set. Raises InputError where it cannot
    be had, saying what to do by hand.
    """
    from torchvision.datasets.utils import check_integrity, download_url  # noqa: PLC0415 - slow, and rarely needed

    archive = folder / known.archive.rsplit("/", 1)[-1]
    part = folder / f".{archive.name}.part"
    try:
        if not check_integrity(str(archive), known.md5):
            part.unlink(missing_ok=True)
            download_url(known.archive, str(folder), part.name, known.md5)
            part.replace(archive)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{known.name} could not be fetched from {known.archive}: {error}; unpack {archive.name} into {folder} by "
            "hand"
        ) from None
    unpack(archive, folder)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar archive; members that would land outside `folder`, links out of it and devices are refused.

    What is unpacked gets its name when all of it is there. Raises InputError naming the archive.
    """
    beside = folder / f".{archive.name}.unpacking"
    try:
        with alone(folder, f".claim.{archive.name}"):
            shutil.rmtree(beside, ignore_errors=True)  # of a process that was killed
            try:
                _extract(archive, beside)
                for found in beside.iterdir():
                    _move(found, folder / found.name)
            finally:
                shutil.rmtree(beside, ignore_errors=True)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InputError(
            f"{archive} cannot be unpacked into {folder}: {error}; if it is damaged, remove it and it is fetched again"
        ) from None


def _extract(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        if hasattr(tarfile, "data_filter"):
            tar.extractall(folder, filter="data")
        else:
            tar.extractall(folder, _plain(tar, folder.resolve()))


def _move(path: Path, to: Path) -> None:
    """A whole folder at once where none of its name is there, else what is in it."""
    if path.is_dir() and to.is_dir():
        for found in path.iterdir():
            _move(found, to / found.name)
    else:
        path.replace(to)


def _plain(tar: tarfile.TarFile, folder: Path) -> Iterator[tarfile.TarInfo]:
    """Files and folders below `folder`, for Python 3.11 before 3.11.4, which has no filters; all else is refused."""
    for member in tar:
        if not (member.isfile() or member.isdir()) or not (folder / member.name).resolve().is_relative_to(folder):
            raise tarfile.ExtractError(f"{member.name!r} is no plain file or folder inside it")
        member.mode &= 0o777
        yield member
