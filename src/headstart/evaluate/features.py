"""Representations h of un-augmented pictures, batch by batch (paper 3.6).

Comes in: a backbone and pictures. Goes out: float32 (N, num_features). Pictures are made squares, scaled to
[0, 1] and Z-scored as in training; the next batch is read while the device works on this one.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from headstart.data.images import Images
from headstart.engine.device import Compute, sent, tuned
from headstart.engine.memory import pictures_at_once
from headstart.engine.prefetch import Prefetch


def extract(
    backbone: nn.Module,
    images: Images,
    indices: np.ndarray,
    *,
    size: int,
    mean: Tensor | None,
    std: Tensor | None,
    compute: Compute,
    batch_size: int = 512,
    progress: Callable[[int], object] | None = None,
) -> np.ndarray:
    """h of the pictures `indices`, in that order.

    Args:
        backbone: (N, 3, size, size) -> (N, num_features); it is moved to `compute.device` and otherwise left as it
            was, each of its layers in training or evaluation mode.
        size: side of the square in pixels.
        mean, std: (3,) of the Z-score in [0, 1] units, or None for none.
        batch_size: of larger pictures, as many as `memory.pictures_at_once` allows.
        progress: called with the number of pictures after each batch.

    Returns:
        float32 (len(indices), num_features).
    """
    batch_size = min(batch_size, pictures_at_once(size, compute.device))
    starts = range(0, len(indices), batch_size)
    batches = Prefetch(images.squashed(indices[start : start + batch_size], size) for start in starts)
    return _forward(backbone, batches, len(indices), mean, std, compute, progress)


def of_pictures(
    backbone: nn.Module,
    pictures: Tensor,
    *,
    mean: Tensor | None,
    std: Tensor | None,
    compute: Compute,
    batch_size: int = 512,
) -> np.ndarray:
    """As `extract`, of pictures (N, 3, S, S) that are already squashed to the square: uint8, or floats in [0, 1]."""
    batch_size = min(batch_size, pictures_at_once(pictures.shape[-1], compute.device))
    return _forward(backbone, pictures.split(batch_size), len(pictures), mean, std, compute, None)


def _forward(
    backbone: nn.Module,
    batches: Iterable[Tensor],
    n: int,
    mean: Tensor | None,
    std: Tensor | None,
    compute: Compute,
    progress: Callable[[int], object] | None,
) -> np.ndarray:
    backbone.to(compute.device).to(memory_format=torch.channels_last)
    mean, std = (None if part is None else sent(part, compute.device)[:, None, None] for part in (mean, std))
    h: np.ndarray | None = None
    done = full = 0
    with _evaluating(backbone), torch.inference_mode(), compute.autocast():
        for pictures in batches:
            if len(pictures) == 0:
                continue
            white = 1 if pictures.is_floating_point() else 255
            x = (
                sent(pictures, compute.device)
                .contiguous(memory_format=torch.channels_last)
                .to(torch.float32, copy=True)
            )
            if mean is None or std is None:
                x.div_(white)
            else:
                x.sub_(white * mean).div_(white * std)
            full = max(full, len(x))
            with tuned(len(x) == full):
                part = backbone(x).float().cpu().numpy()
            if h is None:
                h = np.empty((n, part.shape[1]), np.float32)
            h[done : done + len(part)] = part
            done += len(part)
            if progress is not None:
                progress(len(part))
    return np.empty((0, int(backbone.num_features)), np.float32) if h is None else h  # type: ignore[arg-type]


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode within; afterwards each layer is in the mode it was in."""
    training = {layer: layer.training for layer in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for layer, mode in training.items():
            layer.training = mode
