"""A finished run's pictures once more, and other pictures read as its own were.

Comes in: a run's settings and result, DATA and its options. Goes out: `Images`. Whether pictures are the run's own is
decided by where they lie or by their content, never by how a path is written.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from headstart.data.images import Images, open_images
from headstart.data.levels import check_same
from headstart.engine.progress import say
from headstart.records.config import Config, DataConfig
from headstart.records.errors import InputError
from headstart.records.located import places, reading
from headstart.records.validation import option


def check_reading(given: DataConfig, own: DataConfig, *sizes: int | None) -> None:
    """Raise InputError for options that would feed a backbone other pictures than it was trained on.

    sizes: which it takes, the first being the trained one.
    """
    if given.size not in ("auto", own.size, *sizes):
        raise InputError(f"--data.size is {given.size}, but the run's backbone takes {sizes[0]} pixels; leave it out")
    for name in ("auto_size", "normalize", "statistics"):
        ours, theirs = getattr(given, name), getattr(own, name)
        if ours != theirs:
            raise InputError(f"{option(f'data.{name}')} is {ours}, but the run has {theirs}; leave it out")
    check_same(given.range, own.range)


def check_whole(given: DataConfig, own: DataConfig | None = None) -> None:
    """Raise InputError for a limit where every picture of DATA is read; a run's own is only carried along."""
    if given.limit not in (None, own.limit if own else None):
        raise InputError(f"--data.limit is {given.limit}, but every picture of DATA is read here; leave it out")


def reopen(
    config: Config,
    result: Mapping[str, Any],
    sources: tuple[str, ...] = (),
    data: DataConfig | None = None,
    *,
    size: int | None = None,
) -> Images:
    """The pictures of `sources`, or the run's own, read at its size.

    Args:
        config: with its paths `located`.
        data: DATA options; `labels` as in `reading`.
        size: another size, where the backbone is to be judged at it.

    Raises InputError: no pictures, or options that would feed the backbone other pictures than it was trained on.
    """
    given, as_own = read_as(config, result, sources, data, size=size)
    crop = config.augment.crop_scale[0], config.augment.crop_ratio[0]
    own = config.data
    if as_own is None or places(given.sources) == places(own.sources):
        return open_images(as_own or given, *crop)
    try:  # the same pictures in another place are the run's own as well
        images = open_images(as_own, *crop)
    except InputError:  # labels of pictures that are not here
        images = None
    if images is not None and images.fingerprint == result["data"]["fingerprint"]:
        return images
    if own.labels != "none":
        say(f"these are not the run's pictures, so its --data.labels {own.labels} do not hold: labels are by folders")
    return open_images(given, *crop)


def read_as(
    config: Config,
    result: Mapping[str, Any],
    sources: tuple[str, ...] = (),
    data: DataConfig | None = None,
    *,
    size: int | None = None,
) -> tuple[DataConfig, DataConfig | None]:
    """The options under which `reopen` reads DATA: as they are given, and with the run's own labels, which hold where
    the pictures are the run's; None where that makes no difference."""
    trained, own = int(result["data"]["size"]), config.data
    given = replace(data or reading(config), sources=tuple(sources) or own.sources)
    check_reading(given, own, trained, size)
    given = replace(given, size=size or trained)
    return given, None if given.labels != "auto" or own.labels == "auto" else replace(given, labels=own.labels)
