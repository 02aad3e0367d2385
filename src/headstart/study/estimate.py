"""How long a study takes, from a few real training steps, passes and probes on random pictures."""

import math
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from headstart import backbones
from headstart.autoencoders import build as build_autoencoder
from headstart.data import catalog
from headstart.data.named import set_of
from headstart.data.prepare import AUTO_SIZE, FEW, squares, training_size
from headstart.data.source import part
from headstart.engine import live_taps
from headstart.engine.device import choose
from headstart.evaluate import probes
from headstart.evaluate.map import LANDMARKS, positions
from headstart.evaluate.unlabelled import PAIRS, VIEWED
from headstart.evaluate.views import augmenter
from headstart.heads import of_kind
from headstart.records.config import Config, DataConfig
from headstart.records.located import is_own_folder
from headstart.records.names import SETS
from headstart.records.text import number
from headstart.study.file import Planned
from headstart.training.autoencoder import Autoencoding
from headstart.training.contrastive import WATCHED
from headstart.training.feed import Batch, plans_of
from headstart.training.head import HEAD_FEATURES
from headstart.training.step import SimCLR, Stepper

CALIBRATION_SECONDS = 2.0
CALIBRATION_PAIRS = 32
"""Pairs of a timed step on a CPU, where time grows with their number; a GPU gets the whole batch."""
PROBED = 350
CLASSES = 10
"""Training pictures and classes of the timed probes, whose time grows with the pictures."""
PHOTOGRAPH = 1024
"""Taken for the side of the pictures of a named set that have no one size."""
WRITING_SECONDS = 1.0
"""Checkpoints, files and the report of a run: CPU time of a small one, on one Zen-4 core."""


def calibrated_seconds(planned: Sequence[Planned], autoencoders: Sequence[Planned]) -> tuple[float, str]:
    """Seconds that runs and autoencoders take one after another, and what was measured: a few real steps of both
    trainings, passes through the network and probes, on random pictures. The reading of pictures comes on top."""
    sets: dict[str, _Set] = {}
    measured: dict[Hashable, float] = {}

    def seconds(run: Planned, times: Mapping[Callable[[Config, int], float], float]) -> float:
        """`times`: how often each thing that is timed is done."""
        total, side = 0.0, _side(run, sets)
        for timed, count in times.items():
            kind = _kind(run.config, side, timed)
            if count and kind not in measured:
                measured[kind] = timed(run.config, side)
            total += count * measured.get(kind, 0.0)
        return total

    total = 0.0
    for run in planned:
        if run.config.stages == "autoencoder":  # which is one of `autoencoders`, or a file that is there
            continue
        train = _train(run, sets)
        probed = train if run.config.stages == "probe" else 0
        times = {seconds_of_pair: run.config.contrastive.epochs * train, seconds_of_view: _views(run.config, train)}
        placed = min(round(probed * 2 / 7), LANDMARKS)
        total += WRITING_SECONDS + seconds(run, {**times, seconds_of_probe: probed, seconds_of_place: placed})
    for run in autoencoders:
        total += seconds(run, {seconds_of_picture: run.config.autoencoder.epochs * _train(run, sets)})
    compiled = "; compiling comes on top, and what it saves goes off" if any(map(_compiles, planned)) else ""
    return total, f"{number(len(measured), 'kind')} of work, timed here on random pictures{compiled}"


def _compiles(run: Planned) -> bool:
    """Whether a run puts its network through torch.compile, whose time nothing short of doing it tells."""
    config = run.config
    asked = config.contrastive.compile and config.stages != "autoencoder"
    return asked and choose(config.device, config.precision, config.threads).device.type == "cuda"


def _kind(config: Config, side: int, timed: Callable[[Config, int], float]) -> Hashable:
    """What the time of a step, of a pass or of the probes depends on."""
    settings = config.contrastive
    own: Hashable = config.probe.names if timed is seconds_of_probe else (settings.batch_size, settings.passes)
    own = config.autoencoder.kind if timed is seconds_of_picture else own
    return timed, own, side, config.backbone, config.precision, config.threads, config.device


@dataclass(frozen=True)
class _Set:
    """What the time of a run depends on in its pictures.

    pictures: how many there are to train and validate on; share: how many of these to train on.
    native: height and width of some of them, (n, 2).
    """

    pictures: int
    share: float
    native: np.ndarray


def _train(run: Planned, sets: dict[str, _Set]) -> int:
    there = _set(run, sets)
    return round(min(run.config.data.limit or there.pictures, there.pictures) * there.share)


def _side(run: Planned, sets: dict[str, _Set]) -> int:
    data = run.config.data
    return training_size(_set(run, sets).native, data.size, data.auto_size)


def _set(run: Planned, sets: dict[str, _Set]) -> _Set:
    if run.point.data not in sets:
        sets[run.point.data] = _looked_at(run.config.data)
    return sets[run.point.data]


def _looked_at(data: DataConfig) -> _Set:
    """Of a named set also before it is there."""
    name = set_of(data.sources[0])
    named = None if name is None or is_own_folder(data.sources[0]) else SETS[name]
    if named is not None and named.train is not None:
        side = named.side if named.side < AUTO_SIZE else PHOTOGRAPH
        return _set_of(named.train, bool(named.test), np.full((1, 2), side))
    source = catalog.find(data)
    official = int((source.official == "train").sum())
    some = part(source, slice(None, None, math.ceil(len(source.names) / FEW)))
    return _set_of(official or len(source.names), official > 0, squares(some, data).native)


def _set_of(pictures: int, official: bool, native: np.ndarray) -> _Set:
    """With an official split nine of ten are trained on; else seven of ten, and two are kept for the test."""
    return _Set(pictures, 0.9, native) if official else _Set(round(0.8 * pictures), 7 / 8, native)


def _views(config: Config, train: int) -> int:
    """Views that pass through the network without training it: validation and what is watched after each epoch, the
    head's statistics, and every split and the views of test pictures, before SimCLR (where no other run has it) and
    after."""
    val = train // 9
    ended = round(train / 0.7) + 2 * PAIRS * min(round(train * 2 / 7), VIEWED)
    probed = 2 * ended if config.stages == "probe" else 0
    return config.contrastive.epochs * 2 * (val + min(val, WATCHED)) + min(train, HEAD_FEATURES) + probed


def seconds_of_pair(config: Config, side: int) -> float:
    """Seconds of a step of SimCLR for each pair of its batch."""
    compute = choose(config.device, config.precision, config.threads)
    whole = config.contrastive.batch_size or 256
    pairs = min(whole, CALIBRATION_PAIRS) if compute.device.type == "cpu" else whole
    settings = replace(config.contrastive, batch_size=pairs, lr=1e-3, compile=False)  # compiling would be timed with it
    config = replace(config, data=replace(config.data, size=side), contrastive=settings)
    backbone = backbones.build(config.backbone.name, stem=config.backbone.stem, size=side)
    live_taps.apply(backbone, side)
    head = of_kind(backbone.num_features, config.head)  # type: ignore[arg-type]
    model = SimCLR(backbone, head, config.contrastive.passes)
    model = model.to(compute.device).to(memory_format=torch.channels_last).train()
    augment = augmenter(config.augment, side, None, None).to(compute.device)
    generator = torch.Generator().manual_seed(0)
    draws = augment.draw(2 * pairs, side, side, generator=generator)
    frames = torch.randint(0, 256, (pairs, 3, side, side), dtype=torch.uint8, generator=generator).to(compute.device)
    stepper = Stepper(model, augment, config, compute)
    batch = Batch(torch.arange(pairs), frames, plans_of(augment, draws, pairs, config.contrastive.chunk))
    return _timed(lambda: stepper(batch, 1e-3, (0, 0)), compute.device) / pairs


def seconds_of_view(config: Config, side: int) -> float:
    """Seconds of a view that passes through the network without training it."""
    compute = choose(config.device, config.precision, config.threads)
    backbone = backbones.build(config.backbone.name, stem=config.backbone.stem, size=side)
    live_taps.apply(backbone, side)
    backbone = backbone.to(compute.device).to(memory_format=torch.channels_last).eval()
    views = torch.rand(2 * CALIBRATION_PAIRS, 3, side, side, device=compute.device)
    views = views.contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def forward() -> None:
        with compute.autocast():
            backbone(views)

    return _timed(forward, compute.device) / len(views)


def seconds_of_probe(config: Config, side: int) -> float:
    """Seconds of all probes for each training picture, of the network before and after SimCLR."""
    device = choose(config.device, config.precision, config.threads).device
    draw, width = np.random.default_rng(0), backbones.num_features(config.backbone.name)
    counts = {"train": PROBED, "val": PROBED // 7, "test": 2 * PROBED // 7}
    features = {split: draw.normal(size=(n, width)).astype(np.float32) for split, n in counts.items()}
    labels = {split: np.arange(n) % CLASSES for split, n in counts.items()}
    names = {split: [f"{split}{i}" for i in range(n)] for split, n in counts.items()}
    classes = [str(number) for number in range(CLASSES)]
    began = time.perf_counter()
    probes.run(features, labels, names, classes, which=config.probe.names, device=device, say=lambda _: None)
    return 2 * (time.perf_counter() - began) / PROBED


def seconds_of_place(config: Config, side: int) -> float:
    """Seconds of the map of the test pictures for each of them."""
    n = 2 * PROBED // 7
    features = np.random.default_rng(0).normal(size=(n, backbones.num_features(config.backbone.name)))
    return _timed(lambda: positions(features.astype(np.float32)), torch.device("cpu")) / n


def seconds_of_picture(config: Config, side: int) -> float:
    """Seconds of a step of the autoencoder for each picture of its batch."""
    compute = choose(config.device, config.precision, config.threads)
    settings, width = config.autoencoder, backbones.num_features(config.backbone.name)
    n, generator = settings.batch_size, torch.Generator().manual_seed(0)
    if settings.on == "features":
        data = torch.rand(n, width, generator=generator)
    else:
        data = torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=generator)
    model = build_autoencoder(settings, data[0].numel(), width, config.head.hidden_dim, generator).to(compute.device)
    training = Autoencoding(model, settings, data, data, 0, compute)
    (batch,) = training.batches(0, 0)
    return _timed(lambda: training.step(batch, 0, 0), compute.device) / n


def _timed(step: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, after one that does not count."""
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    step()
    synchronize()
    started, count = time.perf_counter(), 0
    while count < 1 or (time.perf_counter() - started < CALIBRATION_SECONDS and count < 10):
        step()
        synchronize()
        count += 1
    return (time.perf_counter() - started) / count
