"""`headstart evaluate`: every probe of a run, or of anybody's backbone, beside the networks it must beat.

Comes in: a run folder, `torchvision:NAME`, `timm:NAME` or a state-dict file, and pictures. Goes out: one JSON file
with a column for each backbone, all judged on the same pictures, splits and label draws: the given one, the same
network with random weights, and the same network with the library's where these are at hand or asked for.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from headstart import backbones, data
from headstart.data import catalog
from headstart.data import splits as splitting
from headstart.data.images import Images
from headstart.data.reopen import reopen
from headstart.data.seen import split_to_judge
from headstart.data.splits import Splits
from headstart.engine import live_taps
from headstart.engine.device import Compute, choose
from headstart.engine.importers import read_tensors
from headstart.engine.progress import say, stage
from headstart.engine.randomness import generator
from headstart.evaluate import features, probes, unlabelled
from headstart.evaluate.views import augmenter
from headstart.records import files, schema
from headstart.records.config import BackboneConfig, Config, DataConfig, ProbeConfig
from headstart.records.errors import InputError
from headstart.records.folder import RunFolder
from headstart.records.located import located
from headstart.records.located import reading as reading_of
from headstart.records.names import BACKBONES
from headstart.records.outputs import check_output_file, check_output_folder, check_own, no_input
from headstart.records.version import __version__
from headstart.report.verdict import kept_given

LIBRARY = "pretrained"
"""The reference with the weights that torchvision or timm has for the network."""

AS_EXPECTED = DataConfig(statistics="backbone", interpolation="backbone")
"""How pictures are read for given weights where nothing else is said."""

Moments = dict[str, tuple[Tensor | None, Tensor | None]]
"""Split -> mean and std (3,) of the Z-score, None for none."""


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What every backbone of one evaluation is judged on."""

    images: Images
    splits: Splits
    size: int
    moments: Moments

    @property
    def rows(self) -> dict[str, np.ndarray]:
        """Split -> indices of its pictures."""
        return {"train": self.splits.train, "val": self.splits.val, "test": self.splits.test}


def evaluate(
    backbone: str | Path,
    *,
    data: Sequence[str] = (),
    reading: DataConfig | None = None,
    out: str | Path | None = None,
    name: str | None = None,
    weights: str = "none",
    size: int | None = None,
    fetch: bool = False,
    device: str = "auto",
    threads: int | None = None,
) -> Path:
    """Judge a run, a network by name, or a state-dict file; returns the JSON file that was written.

    Args:
        backbone: a run folder; `torchvision:NAME` or `timm:NAME`; or a state-dict file of a network of torchvision's.
        data: DATA. Unset for a run: its own pictures and splits.
        reading: how DATA is read: its options, such as labels. Unset: as a run's own pictures, as given weights expect
            them, or the defaults.
        out: the file. Unset for a run: RUN/evaluations/NAME.json.
        name: NAME for a run. Unset: the data's name and fingerprint.
        weights: of a network by name: `none`, `pretrained`, `imagenet`, a state-dict FILE or a RUN.
        size: side of the square pictures in pixels. Unset: the run's, or as `data.size` auto.
        fetch: fetch the library's weights as a reference where they are not on this machine.

    Raises:
        InputError: no such backbone, weights that do not fit, no pictures, no `out` for a foreign backbone, or an
            `out` that is what is judged; a name that is none of a file.
    """
    _check_name(name)
    if str(backbone).startswith("~"):
        backbone = files.expanded(backbone)
    out = None if out is None else files.expanded(out)
    if out is not None:
        check_output_file(out)
        no_input(out, [backbone, weights, *data, *vars(RunFolder(backbone)).values()])
        check_own(out, ("backbones", "data"))
    if RunFolder(backbone).path.is_dir():
        if weights != "none":
            raise InputError(f"--weights is for a network by name; {backbone} is a run and has its own")
        return evaluate_run(
            backbone, data, reading, out=out, name=name, size=size, fetch=fetch, device=device, threads=threads
        )
    network = str(backbone) in BACKBONES or str(backbone).startswith(("torchvision:", backbones.TIMM))
    if not network:
        _check_there(backbone)
    if not data:
        raise InputError(f"{backbone} is no run folder, so evaluate needs --data: the pictures to judge it on")
    if out is None:
        raise InputError(f"{backbone} is no run folder, so evaluate needs --out FILE for its result")
    if network:
        settings = BackboneConfig(name=str(backbone).removeprefix("torchvision:"), weights=weights)
    else:
        settings = recognise(backbone)
    given = reading or (DataConfig() if settings.weights == "none" else AS_EXPECTED)
    given = replace(given, sources=tuple(data), size=size or given.size)
    return evaluate_backbone(Config(data=given, backbone=settings, device=device, threads=threads), out, fetch)


def _check_name(name: object) -> None:
    """Raise InputError for a name that no file of an evaluation can have."""
    if name is not None and not (isinstance(name, str) and re.fullmatch(r"\w[\w .-]*", name)):
        raise InputError(f"--name is {name!r}; it must be a file name of letters, digits, blanks, dots and dashes")


def evaluate_backbone(config: Config, out: str | Path, fetch: bool = False) -> Path:
    """Judge `config.backbone` with its `weights` on `config.data`; writes and returns `out`."""
    out = files.expanded(out)
    compute = choose(config.device, config.precision, config.threads)
    settings, weights = config.backbone, config.backbone.weights
    if read := backbones.check(settings.name, stem=settings.stem, weights=weights):
        say(f"{weights}: {read}")
    pictures = _open(config)
    references = _references(config, pictures.size, fetch)
    given = files.last_name(Path(weights))
    first = "random" if weights == "none" else weights if weights in backbones.FETCHED else Path(given).stem
    if first in references and weights not in ("none", *backbones.FETCHED):
        first = given  # a file called pretrained.pth is not the reference
    makers = {first: _maker(config, weights, pictures.size, fetch=True)}
    if weights in backbones.FETCHED:
        references.pop(LIBRARY)
    found = compare(makers | references, pictures, config, compute)
    files.write_json(out, found)
    return out


def evaluate_run(
    run: str | Path,
    data: Sequence[str] = (),
    reading: DataConfig | None = None,
    *,
    out: str | Path | None = None,
    name: str | None = None,
    size: int | None = None,
    fetch: bool = False,
    device: str = "auto",
    threads: int | None = None,
) -> Path:
    """Judge a finished run on its own pictures and splits, or on `data`; writes RUN/evaluations/NAME.json.

    Its own result.json is never touched. Other pictures are Z-scored as the run's training pictures were. Whether
    they are others is decided by their content: its own keep their split whatever labels they have by now, and of
    others none that it was trained on is in the test split.
    Raises InputError when the run has no backbone, its pictures are no longer what it was trained on, an option would
    change what it keeps, or the name is none of a file.
    """
    _check_name(name)
    folder, out = RunFolder(run), None if out is None else files.expanded(out)
    result = folder.read_result()
    if out is None:
        check_output_folder(folder.evaluations, option="", instead="--out FILE")
    folder.check_backbone(result)
    config, about = folder.read_settings(result)
    config = replace(located(config, about.get("folder")), device=device, threads=threads, probe=ProbeConfig())
    compute = choose(config.device, config.precision, config.threads)
    given, size = reading or reading_of(config), size or result["data"]["size"]
    if given.statistics != config.data.statistics:
        raise InputError(
            f"--data.statistics is {given.statistics}, but the run has {config.data.statistics}; leave it out"
        )
    images = reopen(config, result, tuple(data), given, size=size)
    fingerprint, moments = result["data"]["fingerprint"], _moments_of(result, config)
    splits, is_own = split_to_judge(folder, images, given, config.data, fingerprint, others=bool(data))
    if is_own and config.data.normalize and config.data.statistics == "train":  # pictures may have come since, and gone
        moments = dict.fromkeys(("train", "val", "test"), backbones.trained_with(folder.backbone))
    elif is_own and config.data.statistics == "paper":
        moments = _moments(images, splits, config)
    pictures = Pictures(images=images, splits=splits, size=size, moments=moments)
    config = replace(config, data=replace(given, sources=tuple(data) or config.data.sources))
    makers = {
        "trained": _checked(
            partial(folder.check_backbone, result), _maker(config, str(folder.backbone), pictures.size)
        ),
        "untrained": _checked(
            partial(_check_before, result, config, about),
            _maker(config, config.backbone.weights, pictures.size, fetch),
        ),
    } | _references(config, pictures.size, fetch)
    if config.backbone.weights in ("none", *backbones.FETCHED):
        makers.pop("random" if config.backbone.weights == "none" else LIBRARY)  # is the untrained
    found = compare(makers, pictures, config, compute)
    own = None if out is not None else folder.path
    out = out or folder.evaluations / f"{_file_name(name, found['data'])}.json"
    files.write_json(
        out, found | {"run": files.last_name(folder.path), "config_hash": result["config_hash"]}, within=own
    )
    return Path(out)


def compare(
    makers: dict[str, Callable[[], nn.Module]], pictures: Pictures, config: Config, compute: Compute
) -> dict[str, Any]:
    """Probes and geometry of each backbone on the same pictures.

    Args:
        makers: name -> function that builds the backbone; one that raises InputError is left out, with its reason,
            unless it is the first.

    Returns:
        `data` (name, fingerprint, size, classes, numbers of pictures), `backbone` (name, stem), `backbones` (name ->
        `probes`, `geometry`) and `left_out` (name -> reason).
    """
    images = pictures.images
    labels = {split: images.labels[rows] for split, rows in pictures.rows.items()}
    names = {split: [images.names[i] for i in rows] for split, rows in pictures.rows.items()}
    augment = augmenter(config.augment, pictures.size, *pictures.moments["test"])
    found: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for name, make in makers.items():
        try:
            backbone = live_taps.apply(make(), pictures.size)
        except InputError as error:
            if not found:
                raise
            left_out[name] = str(error)
            say(f"{name} left out: {error}")
            continue
        h = _features(backbone, pictures, compute, name)
        found[name] = {
            "probes": probes.run(
                h,
                labels,
                names,
                images.classes,
                which=config.probe.names,
                seed=config.seed,
                split_seed=config.data.split_seed,
                device=compute.device,
                confusion_up_to=1000,
                say=say if not found else _nothing,
            ),
            "geometry": unlabelled.figures(backbone, h["test"], images, pictures.splits.test, augment, compute),
        }
    return {
        "schema": schema.SCHEMA,
        "headstart": __version__,
        "data": {
            "name": ", ".join(catalog.shown(source) for source in config.data.sources),
            "fingerprint": images.fingerprint,
            "size": pictures.size,
            "classes": images.classes,
            **{split: len(rows) for split, rows in pictures.rows.items()},
        },
        "backbone": {"name": config.backbone.name, "stem": config.backbone.stem},
        "backbones": found,
        "left_out": left_out,
    }


def recognise(path: str | Path) -> BackboneConfig:
    """The torchvision network that a state-dict file fits, by the names and shapes of its tensors.

    Raises InputError when it fits none: another network has to be named.
    """
    _check_there(path)
    found = backbones.recognise(read_tensors(path))
    if found is None:
        raise InputError(
            f"{path} is not the state dict of a network of torchvision's; name its network: "
            f"torchvision:NAME or timm:NAME, with --weights {path}"
        )
    name, stem = found
    return BackboneConfig(name=name, stem=stem, weights=str(path))


def _check_there(path: str | Path) -> None:
    """Raise InputError where there is no such file or run."""
    if absent := files.missing(path, "file or run"):
        known = str(path) in torchvision.models.list_models(module=torchvision.models)
        what = (
            f"the network of that name is torchvision:{path}" if known else "a network is torchvision:NAME or timm:NAME"
        )
        raise InputError(f"{absent}; {what}")


# ------------------------------------------------------------------------------------------------------- the parts


def _open(config: Config) -> Pictures:
    """Read and split the pictures; Z-scored by their own train split, or as the weights expect."""
    config = backbones.settled(config)
    images = data.open_images(config.data, config.augment.crop_scale[0], config.augment.crop_ratio[0])
    splits = splitting.make(images, config.data)
    size, moments = images.training_size(config.data.size, config.data.auto_size), _moments(images, splits, config)
    if expected := backbones.described(config, size):
        say(expected)
    return Pictures(images=images, splits=splits, size=size, moments=moments)


def _moments(images: Images, splits: Splits, config: Config) -> Moments:
    """The Z-score of each split."""
    if not config.data.normalize:
        return dict.fromkeys(("train", "val", "test"), (None, None))
    return {**backbones.zscores(images, splits, config)}


def _moments_of(result: dict[str, Any], config: Config) -> Moments:
    mean, std = (torch.tensor(result["data"][name]) if config.data.normalize else None for name in ("mean", "std"))
    return dict.fromkeys(("train", "val", "test"), (mean, std))


def _maker(config: Config, weights: str, size: int, fetch: bool = False) -> Callable[[], nn.Module]:
    """What builds the backbone; the library's weights only where they are on this machine, or may be fetched."""
    settings = config.backbone

    def make() -> nn.Module:
        if weights in backbones.FETCHED and not fetch and not backbones.cached(settings.name):
            raise InputError(f"the library's weights of {settings.name} are not on this machine; --fetch gets them")
        return backbones.build(
            settings.name, stem=settings.stem, weights=weights, size=size, generator=generator(config.seed, "backbone")
        )

    return make


def _check_before(result: Mapping[str, Any], config: Config, about: Mapping[str, Any]) -> None:
    if kept_given(result):
        raise InputError("the run kept the given weights: `trained` is this very network")
    backbones.check_given(config.backbone.weights, about)


def _checked(check: Callable[[], None], make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """The same of weights that must still be those the run tells of: `check` raises InputError where they are not."""

    def made() -> nn.Module:
        check()
        return make()

    return made


def _references(config: Config, size: int, fetch: bool) -> dict[str, Callable[[], nn.Module]]:
    """What any backbone must beat: the same network with random and with the library's weights."""
    random = {"random": _maker(config, "none", size)}
    return random if config.backbone.name in BACKBONES else random | {LIBRARY: _maker(config, LIBRARY, size, fetch)}


def _features(backbone: nn.Module, pictures: Pictures, compute: Compute, name: str) -> dict[str, np.ndarray]:
    total = sum(len(rows) for rows in pictures.rows.values())
    with stage(name, total) as bar:
        return {
            split: features.extract(
                backbone,
                pictures.images,
                rows,
                size=pictures.size,
                mean=pictures.moments[split][0],
                std=pictures.moments[split][1],
                compute=compute,
                progress=bar.advance,
            )
            for split, rows in pictures.rows.items()
        }


def _file_name(name: str | None, data: dict[str, Any]) -> str:
    """NAME as it was given, or the name of the pictures with their fingerprint, because many are called `photos`."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", data["name"]).strip("-.") or "data"
    return name or f"{plain}-{data['fingerprint'][:8]}"


def _nothing(_: str) -> None:
    """The reasons of the first backbone hold for all."""
