"""How long a study takes, from a few real training steps on random pictures. Probes and reading come on top."""

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

import torch

from headstart import backbones
from headstart.autoencoders import build as build_autoencoder
from headstart.data import catalog
from headstart.engine import live_taps
from headstart.engine.device import choose
from headstart.heads import ProjectionHead
from headstart.records.config import Config
from headstart.records.names import SETS
from headstart.study.file import Planned
from headstart.training.step import SimCLR, Stepper
from headstart.training.views import Batch, augmenter

CALIBRATION_SECONDS = 2.0
CALIBRATION_PAIRS = 32
"""Pairs of a timed step on a CPU, where time grows with their number; a GPU gets the whole batch."""


def calibrated_seconds(planned: Sequence[Planned], autoencoders: Sequence[Planned]) -> tuple[float, str]:
    """Seconds that SimCLR and autoencoders take one after another, from a few real steps on random pictures at each
    size, and what was measured. Probes and the reading of pictures come on top."""
    pictures: dict[str, int] = {}
    measured: dict[Hashable, float] = {}
    total = 0.0
    for run, timed in [*((run, seconds_of_pair) for run in planned), *((r, seconds_of_picture) for r in autoencoders)]:
        config, label = run.config, run.point.data
        if label not in pictures:
            pictures[label] = _training_pictures(config)
        side = _side(config)
        kind = _kind(config, side, timed)
        if kind not in measured:
            measured[kind] = timed(config, side)
        epochs = config.contrastive.epochs if timed is seconds_of_pair else config.autoencoder.epochs
        total += epochs * min(config.data.limit or pictures[label], pictures[label]) * measured[kind]
    return total, f"{len(measured)} kinds of step, timed here; probes come on top"


def _kind(config: Config, side: int, timed: Callable[[Config, int], float]) -> Hashable:
    """What the time of a step depends on."""
    settings = config.contrastive
    own = (settings.batch_size, settings.passes) if timed is seconds_of_pair else config.autoencoder.kind
    return timed, own, side, config.backbone, config.precision, config.threads, config.device


def _training_pictures(config: Config) -> int:
    """How many there are; of a named set also before it is there."""
    named = SETS.get(config.data.sources[0])
    if named is not None and named.train is not None:
        return round(named.train * (0.9 if named.test else 0.7))
    source = catalog.find(config.data)
    official = int((source.official == "train").sum())
    return round(official * 0.9) if official else round(len(source.names) * 0.7)


def _side(config: Config) -> int:
    if isinstance(config.data.size, int):
        return config.data.size
    name = config.data.sources[0].partition(":")[0]
    return SETS[name].side if name in SETS else 128


def seconds_of_pair(config: Config, side: int) -> float:
    """Seconds of a step of SimCLR for each pair of its batch."""
    compute = choose(config.device, config.precision, config.threads)
    whole = config.contrastive.batch_size or 256
    pairs = min(whole, CALIBRATION_PAIRS) if compute.device.type == "cpu" else whole
    config = replace(
        config, data=replace(config.data, size=side), contrastive=replace(config.contrastive, batch_size=pairs, lr=1e-3)
    )
    backbone = backbones.build(config.backbone.name, stem=config.backbone.stem, size=side)
    live_taps.apply(backbone, side)
    head = ProjectionHead(backbone.num_features, config.head.hidden_dim, config.head.output_dim)  # type: ignore[arg-type]
    model = SimCLR(backbone, head, config.contrastive.passes)
    model = model.to(compute.device).to(memory_format=torch.channels_last).train()
    augment = augmenter(config.augment, side, None, None).to(compute.device)
    generator = torch.Generator().manual_seed(0)
    draws = augment.draw(2 * pairs, side, side, generator=generator)
    frames = torch.randint(0, 256, (pairs, 3, side, side), dtype=torch.uint8, generator=generator).to(compute.device)
    stepper = Stepper(model, augment, config, compute)
    batch = Batch(torch.arange(pairs), frames, draws)
    return _timed(lambda: stepper(batch, 1e-3, (0, 0)), compute.device) / pairs


def seconds_of_picture(config: Config, side: int) -> float:
    """Seconds of a step of the autoencoder for each picture of its batch."""
    compute = choose(config.device, config.precision, config.threads)
    settings, width = config.autoencoder, backbones.num_features(config.backbone.name)
    values = width if settings.on == "features" else 3 * side * side
    generator = torch.Generator().manual_seed(0)
    model = build_autoencoder(settings, values, width, config.head.hidden_dim, generator).to(compute.device)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    x = torch.rand(settings.batch_size, values, device=compute.device)

    def step() -> None:
        optimizer.zero_grad()
        with compute.autocast():
            loss = model.loss(x, torch.Generator().manual_seed(0))
        loss.backward()
        optimizer.step()

    return _timed(step, compute.device) / settings.batch_size


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
