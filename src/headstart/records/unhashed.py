"""Settings that have no part in `config_hash`: those that change no result, and younger ones at their default."""

from typing import Any

NOT_HASHED = {
    "device",
    "threads",
    "loggers",
    "stages",
    "checkpoint",
    "contrastive.compile",
    "data.sources",
    "data.download",
    "data.memory_gib",
    "data.cache_dir",
}
"""Where and how a run is computed and stored, not what it computes."""

YOUNGER: dict[str, Any] = {
    "augment.colour": "always",
    "autoencoder.active": 0.1,
    "autoencoder.mask_ratio": 0.75,
    "contrastive.frozen_share": 0.0,
    "contrastive.head_epochs": 0,
    "contrastive.head_lr": None,
    "contrastive.interpolate": [],
    "contrastive.norms": "batch",
    "contrastive.objective": "nt_xent",
    "data.auto_size": None,
    "data.interpolation": "bilinear",
    "data.range": "auto",
    "data.resize": "squash",
    "head.kind": "mlp",
    "head.output_init": None,
    "head.tokens": 8,
    "head.blocks": 1,
    "vicreg.invariance": 25.0,
    "vicreg.variance": 25.0,
    "vicreg.covariance": 1.0,
    "barlow.off_diagonal": 5e-3,
    "sigreg.weight": 0.05,
    "sigreg.directions": 1024,
}
"""Settings that came after the hash, with their defaults: left out while they have them, so older runs keep theirs."""
