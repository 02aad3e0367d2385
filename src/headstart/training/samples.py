"""samples/: what a person looks at before trusting a training: pairs of views, and reconstructions."""

import numpy as np
from torch import Tensor

from headstart import autoencoders
from headstart.autoencoders import Autoencoder, EmbeddingOnly
from headstart.data.sheets import sheet
from headstart.engine.randomness import generator
from headstart.evaluate.views import augmenter, draw_pairs
from headstart.records import files
from headstart.training.feed import mixed
from headstart.training.open_run import OpenRun

SAMPLES = 8
"""Pictures in samples/pairs.png and samples/reconstructions.png."""


def write_reconstructions(run: OpenRun, embedding: Autoencoder | EmbeddingOnly) -> None:
    """samples/reconstructions.png: pictures the autoencoder did not train on, above what it makes of them."""
    if not isinstance(embedding, Autoencoder) or embedding.on != "pixels":
        return
    pictures = run.images.squashed(mixed(run.splits.test, run.config.seed)[:SAMPLES], run.size)
    if pictures[0].numel() != embedding.in_features:
        return
    rows = [_channels_last(pictures), _channels_last(autoencoders.reconstruct(embedding, pictures))]
    _write(run, "reconstructions.png", rows)


def write_pairs(run: OpenRun) -> None:
    """samples/pairs.png: pictures with two of their views, as SimCLR sees them (before the Z-score)."""
    chosen = mixed(run.splits.train, run.config.seed)[:SAMPLES]
    augment = augmenter(run.config.augment, run.size, None, None)
    draws = draw_pairs(augment, run.images, chosen, generator(run.config.seed, "samples"))
    views = augment.apply(run.images.batch(chosen)[0], draws)
    first, second = (_channels_last((part * 255).round().clamp(0, 255).byte()) for part in views.chunk(2))
    rows = [_channels_last(run.images.squashed(chosen.numpy(), run.size)), first, second]
    _write(run, "pairs.png", rows)


def _write(run: OpenRun, name: str, rows: list[list[np.ndarray]]) -> None:
    files.write(run.folder.samples / name, sheet(rows, scale=_scale(run.size)), within=run.folder.path)


def _channels_last(pictures: Tensor) -> list[np.ndarray]:
    return list(pictures.permute(0, 2, 3, 1).cpu().numpy())


def _scale(size: int) -> int:
    """Enlarge small pictures so that a person can see them."""
    return max(1, 96 // size)
