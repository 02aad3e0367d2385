"""SimCLR in solo-learn with Headstart's head and loss, as a method of solo-learn's own (`cfg` is solo-learn's).

Register it with `solo.methods.METHODS["headstart"] = HeadstartSimCLR` and name the file in `method_kwargs.autoencoder`.
"""

from typing import Any

import torch
from solo.methods.base import BaseMethod
from solo.methods.simclr import SimCLR

from headstart.heads import ProjectionHead
from headstart.ntxent import nt_xent


class HeadstartSimCLR(SimCLR):  # type: ignore[misc]
    """solo-learn's SimCLR with a head and loss of Headstart's."""

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)
        settings = cfg.method_kwargs
        self.projector = ProjectionHead.from_autoencoder(settings.autoencoder, output_dim=settings.proj_output_dim)

    @property
    def learnable_params(self) -> list[dict[str, Any]]:
        """What the optimiser moves: a frozen first layer is not in it."""
        moved = [p for p in self.projector.parameters() if p.requires_grad]
        return [*BaseMethod.learnable_params.fget(self), {"name": "projector", "params": moved}]

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """solo-learn's own step with NT-Xent in place of its loss."""
        out = BaseMethod.training_step(self, batch, batch_idx)
        return nt_xent(torch.cat(out["z"]), temperature=self.temperature) + out["loss"]
