"""The split on which a finished run is judged: no picture that it was trained on is a test picture.

Comes in: the run's folder and pictures, its own or others. Goes out: their split, or one sentence.
"""

from headstart.data import growing
from headstart.data import splits as splitting
from headstart.data.growing import Remembered
from headstart.data.images import Images
from headstart.data.splits import Splits
from headstart.engine.progress import say
from headstart.records.config import DataConfig
from headstart.records.errors import InputError
from headstart.records.folder import RunFolder


class TooFewError(InputError):
    """Too few of the pictures are ones that the run was not trained on."""


def split_to_judge(
    folder: RunFolder, images: Images, given: DataConfig, own: DataConfig, fingerprint: str, others: bool
) -> tuple[Splits, bool]:
    """The run's split where these are its pictures, whatever labels they have by now, else one of their own; and
    whether they are its pictures.

    Args:
        given, own: how they are to be split, and how the run's were.
        fingerprint: of the run's pictures with the labels that they had.
        others: whether they may be others.

    Raises InputError: others where they may not be, options that would split the run's own pictures anew, too few
    pictures that it was not trained on (TooFewError), or a damaged splits.npz.
    """
    known = growing.recall(folder.splits) if folder.splits.exists() else None
    if images.fingerprint == fingerprint:
        splits: Splits | None = Splits.load(folder.splits, len(images))
    else:
        splits = known.split_of_the_same(images) if known else None
    if splits is not None:
        _check_same(given, own)
        return splits, True
    if not others:
        raise InputError(
            f"the pictures of {folder.path}{'' if known else ', or their labels,'} have changed since its training; "
            "give those to judge it on with --data"
        )
    return _of_others(images, given, known), False


def _check_same(given: DataConfig, own: DataConfig) -> None:
    """Raise InputError for options that would split a run's own pictures anew."""
    for name in ("split_seed", "splits", "limit"):
        value = getattr(given, name)
        if value not in (None, getattr(own, name)):
            option = f"--data.{name.replace('_', '-')}"
            raise InputError(f"{option} is {value}, but the run's own pictures keep the run's split; leave it out")


def _of_others(images: Images, given: DataConfig, known: Remembered | None) -> Splits:
    """Pictures that the run was trained on, or whose loss chose its epoch, are not tested on."""
    if known is None:
        say("the run does not say which pictures it was trained on; where test pictures were, it looks too good")
        return splitting.make(images, given)
    learned = known.learned(images)
    n, m = len(learned.every), len(images)
    if not n:
        return splitting.make(images, given)
    try:
        splits = splitting.make(images, given, learned)
    except InputError:
        raise TooFewError(
            f"the run was trained on {n} of these {m} pictures, and too few others are left to judge it on; give more"
        ) from None
    say(f"the run was trained on {n} of these {m} pictures; none of them is a test picture")
    return splits
