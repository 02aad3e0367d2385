"""Files that belong together: written in turn with other calls, so that what lies in a folder is all of one.

Nothing here imports torch.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

from headstart.records import files
from headstart.records.claim import alone

Content = bytes | str | Callable[[BinaryIO], object]


def write_together(
    folder: Path,
    turn: str,
    contents: Mapping[str, Content],
    earlier: Iterable[str] = (),
    *,
    make: bool = True,
) -> list[Path]:
    """Write files into a folder, and remove what an earlier call wrote there and this one did not.

    Args:
        turn: calls of one name wait for one another; two at once leave the files of one, never some of each.
        contents: by their path below the folder, in this order.
        earlier: paths below the folder that such calls may have written; where `contents` has none, they go.
        make: make the folder where it is not there.

    Returns the files. Raises as `files.write` does, and OSError where the folder is gone and not to be made.
    """
    with alone(folder, f".claim.{turn}", make=make):
        for name, content in contents.items():
            files.write(folder / name, content, within=None if make else folder)
        for name in set(earlier) - contents.keys():
            (folder / name).unlink(missing_ok=True)
    return [folder / name for name in contents]
