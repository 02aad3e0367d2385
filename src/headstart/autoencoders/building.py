"""Autoencoders by the name of their kind, a user's own among them.

Comes in: a kind, sizes, a random generator. Goes out: an untrained `Autoencoder`.
"""

from collections.abc import Callable

import torch

from headstart.autoencoders.networks import Autoencoder
from headstart.engine.randomness import seeded
from headstart.records.config import AutoencoderConfig
from headstart.records.errors import InputError
from headstart.records.names import AUTOENCODER_KINDS, own


def build(
    config: AutoencoderConfig, in_features: int, hidden_features: int, latent_dim: int, generator: torch.Generator
) -> Autoencoder:
    """An untrained autoencoder of the config's kind; sizes as for `Autoencoder`.

    Raises InputError for one of pictures on features, which have no rows and columns.
    """
    model = of_kind(config.kind, in_features, hidden_features, latent_dim, config.on, generator)
    for name in model.options:
        setattr(model, name, getattr(config, name))
    return model


def of_kind(
    kind: str,
    in_features: int,
    hidden_features: int,
    latent_dim: int,
    on: str = "pixels",
    generator: torch.Generator | None = None,
) -> Autoencoder:
    """An untrained autoencoder of a registered kind; the rest as for `Autoencoder`."""
    make = AUTOENCODER_KINDS.known(kind).made()
    model: Autoencoder = make(in_features, hidden_features, latent_dim, on, generator)
    model.kind = kind
    return model


def register(name: str, build: Callable[[int, int, int, str], Autoencoder], help: str = "") -> None:
    """Let `autoencoder.kind` be `name`, here and in every study, from now on.

    Args:
        build: (in_features, hidden_features, latent_dim, on) -> an `Autoencoder`, such as a class derived from it;
            what it draws from torch's global generator follows from the run's seed.
        help: one line for `headstart list autoencoders`.

    Raises InputError for a name that is taken; a run raises it where `build` makes something else.
    """

    def make(D: int, H: int, d: int, on: str, generator: torch.Generator | None = None) -> Autoencoder:
        model = seeded(generator, lambda: build(D, H, d, on))
        layer = getattr(getattr(model, "encoder", None), "embedding", None)
        width = D if on == "features" else H
        if not isinstance(model, Autoencoder) or getattr(layer, "weight", torch.empty(0)).shape != (d, width):
            raise InputError(
                f"autoencoder.kind {name}: its build must give a headstart.autoencoders.Autoencoder whose "
                f"encoder.embedding is a Linear layer of {width} features into {d}"
            )
        return model

    AUTOENCODER_KINDS.register(own(name, help, build, make))
