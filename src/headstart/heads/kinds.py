"""Heads of any kind, a user's own among them: built, checked, registered (paper section 6; docs/heads.md).

Comes in: `HeadConfig` and the width of h. Goes out: a module (N, in_features) -> (N, output_dim).
"""

from collections.abc import Callable

import torch
from torch import Generator, nn

from headstart.engine.randomness import seeded
from headstart.heads.mlp import ProjectionHead
from headstart.heads.starts import check_pretrained, layer
from headstart.records.config import HeadConfig
from headstart.records.errors import InputError
from headstart.records.names import HEAD_KINDS, own


def of_kind(in_features: int, settings: HeadConfig, generator: Generator | None = None) -> nn.Module:
    """An untrained head of `settings.kind`, (N, in_features) -> (N, output_dim), its first layer as it is drawn.

    Raises InputError where such a head cannot be.
    """
    _check_settings(settings)
    head: nn.Module = HEAD_KINDS.known(settings.kind).made()(in_features, settings, generator)
    return head


def check_kind(in_features: int, settings: HeadConfig) -> None:
    """Raise InputError for a head that cannot be built, cannot start as it should, or gives another shape."""
    _check_settings(settings)
    check_pretrained(settings.pretrained, settings.init, settings.depth, settings.output_init)
    head = of_kind(in_features, settings, Generator()).to("meta")
    if settings.init != "random" or settings.frozen:
        layer(head, "first")
    if settings.pretrained == "all" or settings.output_init is not None:
        layer(head, "output")
    try:
        shape = tuple(head(torch.empty(2, in_features, device="meta")).shape)
    except RuntimeError as error:
        raise InputError(f"head.kind {settings.kind} cannot take h of width {in_features}: {error}") from None
    if shape != (2, settings.output_dim):
        raise InputError(
            f"head.kind {settings.kind} turns h (2, {in_features}) into {shape}; with head.output-dim "
            f"{settings.output_dim} it must give (2, {settings.output_dim})"
        )


def _check_settings(settings: object) -> None:
    if not isinstance(settings, HeadConfig):
        raise InputError(f"head: settings are of type {type(settings).__name__}; they have to be a HeadConfig")


def register(name: str, build: Callable[[int, HeadConfig], nn.Module], help: str = "") -> None:
    """Let `head.kind` be `name`, here and in every study, from now on.

    Args:
        build: (in_features, settings) -> a module (N, in_features) -> (N, settings.output_dim). With an nn.Linear
            called `first`, from in_features to settings.hidden_dim, every `head.init` and `head.frozen` apply to it.
            What it draws from torch's global generator follows from the run's seed.
        help: one line for `headstart list head-kinds`.

    Raises InputError for a name that is taken or none, and for a `build` that cannot be called.
    """
    if not callable(build):
        raise InputError(f"head.kind {name!r}: build is of type {type(build).__name__}; it has to be a function")

    def make(in_features: int, settings: HeadConfig, generator: Generator | None = None) -> nn.Module:
        return seeded(generator, lambda: build(in_features, settings))

    HEAD_KINDS.register(own(name, help, build, make))


def mlp(in_features: int, settings: HeadConfig, generator: Generator | None = None) -> ProjectionHead:
    """The paper's kind."""
    return ProjectionHead(
        in_features,
        settings.hidden_dim,
        settings.output_dim,
        settings.activation,
        depth=settings.depth,
        batch_norm=settings.batch_norm,
        generator=generator,
    )
