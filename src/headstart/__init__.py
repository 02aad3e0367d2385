"""Headstart: SimCLR pretraining whose projection head starts from a pretrained autoencoder embedding::

    run = headstart.pretrain("photos/", out="runs/photos", head=dict(init="autoencoder", frozen=True))
    run = headstart.load("runs/photos")
    h = run.embed("photos/")
    found = headstart.compare(pandas.read_csv("runs.csv"), metric="accuracy", by="method")

Importing the package does not import torch; the first call does.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.records.errors import InputError, speaks_python
from headstart.records.version import __version__

if TYPE_CHECKING:
    import pandas as pd

    from headstart.report.compare import Compared
    from headstart.use.load import Run

__all__ = ["__version__", "compare", "load", "pretrain"]


@speaks_python
def pretrain(
    pictures: str | Path | Iterable[str | Path],
    /,
    out: str | Path,
    *,
    preset: str | None = None,
    overwrite: bool = False,
    extend: bool = False,
    quiet: bool = False,
    **sections: Any,
) -> "Run":
    """Do one run: autoencoder, head, SimCLR, and probes where there are labels.

    Args:
        pictures: DATA: folders of pictures, a list file, or a named set with its root (`cifar10:ROOT`).
        out: the run folder.
        preset: `paper`, the authors' setting, or `adapt`, careful steps from given weights. Unset: `adapt` where
            `backbone.weights` are given, else the defaults.
        overwrite: replace a finished run in `out`.
        extend: go on with a finished run, by its own settings where none are given: for more epochs, or with pictures
            that are new or gone since.
        quiet: no progress bars.
        sections: the config's sections as dicts (`head=dict(init="random", frozen=False)`,
            `contrastive=dict(epochs=100)`) and its plain settings (`seed=1`, `device="cpu"`).

    Returns:
        Run: the finished run.

    Raises:
        headstart.records.errors.InputError: bad input, an unknown setting, or an occupied folder.
    """
    from dataclasses import replace

    from headstart.records import config as configs
    from headstart.records import presets
    from headstart.records.folder import RunFolder
    from headstart.training.run import run
    from headstart.use.load import load

    sources = _data(pictures)
    if not isinstance(out, (str, Path)) or not str(out):
        raise InputError(f"out is {out!r}; give the run folder")
    if extend and preset is None and (own := RunFolder(out).config).exists():
        base = configs.load(own)[0]
    else:
        weights = configs.from_dict(sections, where="headstart.pretrain").backbone.weights
        base = presets.preset(preset, sources, weights)
    config = configs.from_dict(sections, base, where="headstart.pretrain")
    config = replace(config, data=replace(config.data, sources=sources))
    return load(run(config, out, overwrite=overwrite, extend=extend, quiet=quiet))


def _data(pictures: str | Path | Iterable[str | Path]) -> tuple[str, ...]:
    """DATA as several names. Raises InputError for pictures themselves, or what is nothing of the kind."""
    names: Any = (pictures,) if isinstance(pictures, (str, Path)) else pictures
    names = tuple(names) if isinstance(names, Iterator) else names  # a generator, such as Path.glob's
    if not isinstance(names, Sequence) or not all(isinstance(name, (str, Path)) for name in names):
        raise InputError(
            f"the pictures are of type {type(pictures).__name__}; they must be DATA: a path, a named set, or several "
            "(arrays of pictures as an .npy or .npz file)"
        )
    return tuple(map(str, names))


@speaks_python
def load(path: str | Path) -> "Run":
    """Open a finished run: `.backbone` (nn.Module), `.embed(pictures)` ((N, num_features) float32), `.result`.

    Raises headstart.records.errors.InputError when the folder holds no finished run.
    """
    from headstart.use.load import load

    return load(path)


def compare(frame: "pd.DataFrame", *, metric: str | Sequence[str], by: str, **options: Any) -> "Compared":
    """Which difference is real: the levels of a column compared in matched pairs of rows. Imports no torch.

    `options` and what comes back are those of `headstart.report.compare.compare`.
    """
    from headstart.report.compare import compare

    return compare(frame, metric=metric, by=by, **options)
