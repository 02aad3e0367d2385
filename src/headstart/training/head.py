"""The head of a run, with its first layer from where the settings say, and what it is at step 0 (paper 3.4)."""

from typing import Any

import torch
from torch import Tensor, nn

from headstart import heads
from headstart.autoencoders import Autoencoder, EmbeddingOnly
from headstart.engine.memory import pictures_at_once
from headstart.engine.progress import say
from headstart.engine.randomness import generator
from headstart.evaluate.views import augmenter, draw_pairs
from headstart.training.feed import mixed, of_pairs, parts_of
from headstart.training.open_run import OpenRun
from headstart.training.step import pairs_first, running_statistics_kept, stochastic_layers

HEAD_PAIRS = 128
"""Training pictures whose views show the gradient that reaches h at step 0."""

HEAD_FEATURES = 4096
"""Training pictures whose features the `pca` init, `match_scale` and the head's statistics look at."""


def build(
    run: OpenRun, backbone: nn.Module, embedding: Autoencoder | EmbeddingOnly | None
) -> tuple[nn.Module, dict[str, Any]]:
    """g, and what it does to the untrained backbone's features at step 0."""
    settings, chosen = run.config.head, mixed(run.splits.train, run.config.seed)
    features = torch.from_numpy(run.features(backbone, chosen[:HEAD_FEATURES].numpy(), "train"))
    draws = generator(run.config.seed, "head")
    head = heads.of_kind(features.shape[1], settings, draws)
    heads.start(
        head,
        init=settings.init,
        frozen=settings.frozen,
        autoencoder=embedding,
        features=features,
        generator=draws,
        match_scale=settings.match_scale,
        pretrained=settings.pretrained,
        output_init=settings.output_init,
    )
    if settings.init == "random" and settings.frozen and run.writes:
        say("the first layer is random and frozen: a control, not the paper's mlp (that is --head.no-frozen)")
    views = _first_views(run, backbone, chosen[:HEAD_PAIRS])
    return head, heads.head_statistics(head, features, views, run.config.contrastive.temperature)


def _first_views(run: OpenRun, backbone: nn.Module, chosen: Tensor) -> Tensor:
    """h (2n, num_features) of two augmented views, as SimCLR's first step sees it: batch norm by the batch or chunk."""
    settings, n, device = run.config.contrastive, len(chosen), run.compute.device
    at_once = settings.chunk or n
    if settings.norms == "given":
        at_once = min(at_once, pictures_at_once(run.size, device) // 2)
    augment = augmenter(run.config.augment, run.size, *run.statistics("train"))
    draws = draw_pairs(augment, run.images, chosen, generator(run.config.seed, "head-statistics"))
    backbone.train(settings.norms == "batch")
    parts = []
    with (
        torch.no_grad(),
        running_statistics_kept(backbone),
        run.compute.autocast(),
        stochastic_layers(device, run.config.seed, 0, 0),
    ):
        for rows in parts_of(n, at_once):
            views = augment.apply(run.images.batch(chosen[rows])[0], draws[of_pairs(rows, n)]).to(device)
            parts.append(torch.cat([backbone(part) for part in views.chunk(settings.passes)]))
    return pairs_first(parts).float()
