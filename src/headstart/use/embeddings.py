"""Embeddings that stay: what `embed` wrote, checked and read back, or made now.

Comes in: a file of `embed`, or a run and DATA. Goes out: `Embeddings`: a row a picture, with the names, labels and
contents of the pictures, and all it takes to embed one more exactly as these were.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.data import catalog
from headstart.data.decode import UnreadableError, read_picture
from headstart.data.images import Images
from headstart.data.prepare import how
from headstart.data.sheets import picture
from headstart.data.source import Source
from headstart.engine.device import Compute, choose
from headstart.records import config as configs
from headstart.records import files
from headstart.records.config import DataConfig
from headstart.records.errors import InputError
from headstart.records.folder import EMBEDDINGS, check_embeddings
from headstart.records.located import portable
from headstart.records.seal import check_seal
from headstart.records.text import printable
from headstart.use.embeddings_file import about_of, check_rows, rows_of
from headstart.use.load import Run, load


@dataclass(frozen=True)
class Embeddings:
    """A row of `features` for each picture, kept or computed when they are first asked for.

    Attributes:
        run: what embedded them, and embeds a query.
        names, labels, classes: as of `Images`.
        digests: (n, 16) uint8, the content of each picture.
        data: the DATA options with which the pictures are found again.
        compute: how one more is embedded.
        images: the pictures, where they are open.
        kept: the features, where there is a file of them, as they lie there: `features` are checked.
        file: what they were read from; said: what it says about itself.
    """

    run: Run
    names: list[str]
    labels: np.ndarray
    classes: list[str]
    digests: np.ndarray
    data: DataConfig
    compute: Compute
    images: Images | None = None
    kept: np.ndarray | None = None
    file: Path | None = None
    said: Mapping[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def identity(self) -> str:
        """A name of these very rows: of what made them, and of the pictures."""
        made = made_by(self.said or about(self.run, self.data, self.compute))
        digest = hashlib.blake2b(json.dumps(made, sort_keys=True).encode(), digest_size=8)
        digest.update(self.digests.tobytes())
        return digest.hexdigest()

    @cached_property
    def features(self) -> np.ndarray:
        """(n, num_features) float32. Raises InputError where those of a file are not what was written into it."""
        if self.kept is not None:
            if self.file is not None:
                check_rows(self.file)
            return self.kept
        assert self.images is not None
        return self.run.embed(self.images, compute=self.compute)

    def picture(self, index: int) -> np.ndarray:
        """One picture (H, W, 3) uint8. Raises InputError when it is gone or no longer what was embedded."""
        if self.images is not None:
            return picture(self.images, index)
        name, again = self.names[index], "`headstart embed` on the same file brings it up to date"
        source, places = self._source
        if name not in places:
            raise InputError(f"{printable(name)} is no longer there; {again}")
        found = source.pictures[places[name]]
        try:
            pixels, content = (
                (found, found.tobytes()) if isinstance(found, np.ndarray) else read_picture(found, self.data.range)
            )
        except UnreadableError as error:
            raise InputError(f"{printable(name)} cannot be read any more ({error}); {again}") from None
        if hashlib.blake2b(content, digest_size=16).digest() != self.digests[index].tobytes():
            raise InputError(f"{printable(name)} is no longer the picture that was embedded; {again}")
        return pixels

    def path(self, index: int) -> str:
        """The absolute path of a picture that is a file of its own; its name where it lies inside another."""
        return paths_of([self.names[index]], *self._source)[0]

    def paths(self) -> list[str]:
        """As `path`, of all."""
        return paths_of(self.names, *self._source)

    @cached_property
    def _source(self) -> tuple[Source, dict[str, int]]:
        source = catalog.find(self.data)
        return source, {name: i for i, name in enumerate(source.names)}


def paths_of(names: Sequence[str], source: Source, places: Mapping[str, int] | None = None) -> list[str]:
    """The absolute path of each picture that is a file of its own; its name where it lies inside another, or is gone.

    places: the position of each name in `source`, where that is known already.
    """
    places = {name: i for i, name in enumerate(source.names)} if places is None else places
    found = [source.pictures[places[name]] if name in places else None for name in names]
    return [
        str(Path(picture).expanduser().absolute()) if isinstance(picture, str) else name
        for name, picture in zip(names, found, strict=True)
    ]


def is_file(path: Path) -> bool:
    """Whether this is a file of `embed`, not a run folder."""
    return path.suffix in EMBEDDINGS and path.is_file()


def opened(
    path: str | Path, sources: Sequence[str] = (), reading: DataConfig | None = None, compute: Compute | None = None
) -> Embeddings:
    """The embeddings that `path` stands for: a file of `embed`, or those of DATA by the run in that folder."""
    path = files.expanded(path)
    if is_file(path):
        if sources or (reading is not None and reading != run_of(path)[2]):
            raise InputError(
                f"{path} holds embeddings already; leave DATA and its options out, or give the run in place of the file"
            )
        return read(path, compute)
    run = load(path)
    return of_images(run, run.open_images(sources, reading), compute)


def of_images(run: Run, images: Images, compute: Compute | None = None) -> Embeddings:
    """Those of pictures, by a run."""
    return Embeddings(
        run, images.names, images.labels, images.classes, images.digests, images.data, compute or choose(), images
    )


def run_of(path: str | Path) -> tuple[Path, tuple[str, ...], DataConfig | None]:
    """The run, sources and DATA options that a file of `embed` stands for; of another path, itself and none."""
    path = files.expanded(path)
    if is_file(path):
        said = about_of(rows_of(path, only_about=True), path)
        data = _data_of(said, path)
        return Path(said["run"]), data.sources, replace(data, sources=())
    check_embeddings(path)
    return path, (), None


# --------------------------------------------------------------------------------------------------------- identity


def about(run: Run, data: DataConfig, compute: Compute) -> dict[str, Any]:
    """What a file says about itself: which weights embedded which pictures, and how these were fed."""
    return {
        "run": str(run.folder.path.resolve()),
        "config_hash": run.result["config_hash"],
        "weights": weights_of(run),
        "size": run.size,
        "mean": None if run.mean is None else run.mean.tolist(),
        "std": None if run.std is None else run.std.tolist(),
        "precision": compute.precision,
        "data": portable(data),
    }


def made_by(said: Mapping[str, Any]) -> dict[str, Any]:
    """Of what a file says about itself, what has to be equal for rows of two of them to be comparable."""
    same = {name: said[name] for name in ("weights", "size", "mean", "std", "precision")}
    return {**same, "resize": list(how(configs.from_dict({"data": said["data"]}).data))}


def weights_of(run: Run) -> str:
    """A name of the backbone's very weights. Raises InputError when the run has none."""
    run.check_finished()
    return files.digest(run.folder.backbone)


def read(path: str | Path, compute: Compute | None = None) -> Embeddings:
    """A file of `embed`, with the run that made it, which must still have the same weights.

    compute: on which device a query is embedded; its precision is that of the rows.
    Raises InputError when the file is damaged or of before it carried its identity, or the run is gone or another.
    """
    path = files.expanded(path)
    kept = rows_of(path)
    said = about_of(kept, path)
    try:
        run = load(said["run"])
        if (found := weights_of(run)) != said["weights"]:
            check_seal(run.folder.backbone)
    except InputError as error:
        raise InputError(f"{path} was made by the run {said['run']}, which embeds the query too: {error}") from None
    if found != said["weights"]:
        raise InputError(
            f"the run {said['run']} has other weights than when it made {path}; embed the pictures again with it"
        )
    return Embeddings(
        run=run,
        names=kept["names"].tolist(),
        labels=kept["labels"],
        classes=kept["classes"].tolist(),
        digests=kept["digests"],
        data=_data_of(said, path),
        compute=choose(str(compute.device) if compute else "auto", said["precision"], torch.get_num_threads()),
        kept=kept["embeddings"],
        file=path,
        said=said,
    )


def _data_of(said: Mapping[str, Any], path: Path) -> DataConfig:
    return configs.from_dict({"data": said["data"]}, where=str(path)).data
