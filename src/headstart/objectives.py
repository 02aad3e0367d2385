"""The objectives that a head can be trained with: each of z (2N, d) alone, rows i and i + N the views of picture i::

    from headstart.objectives import vicreg
    loss = vicreg(head(backbone(views)))

Each stands in a file of its own, is exact over several processes, and computes in float32 within anybody's autocast.
The functions below are the same with a run's settings, as `contrastive.objective` names them.
"""

import torch
import torch.distributed as dist
from torch import Tensor

from headstart.barlow import barlow
from headstart.barlow import terms as barlow_terms
from headstart.engine.device import fetched
from headstart.ntxent import nt_xent
from headstart.records.config import Config
from headstart.sigreg import sigreg
from headstart.sigreg import terms as sigreg_terms
from headstart.vicreg import terms as vicreg_terms
from headstart.vicreg import vicreg

__all__ = ["barlow", "nt_xent", "sigreg", "vicreg"]


def of_nt_xent(z: Tensor, config: Config, group: dist.ProcessGroup | None, draws: torch.Generator) -> Tensor:
    """NT-Xent at `contrastive.temperature`."""
    return nt_xent(z, config.contrastive.temperature, group=group)


def of_vicreg(z: Tensor, config: Config, group: dist.ProcessGroup | None, draws: torch.Generator) -> Tensor:
    """VICReg with the coefficients of section `vicreg`."""
    settings = config.vicreg
    return vicreg(z, settings.invariance, settings.variance, settings.covariance, group)


def of_barlow(z: Tensor, config: Config, group: dist.ProcessGroup | None, draws: torch.Generator) -> Tensor:
    """Barlow Twins with the coefficient of section `barlow`."""
    return barlow(z, config.barlow.off_diagonal, group=group)


def of_sigreg(z: Tensor, config: Config, group: dist.ProcessGroup | None, draws: torch.Generator) -> Tensor:
    """SIGReg with the settings of section `sigreg`; its directions follow from `draws`."""
    return sigreg(z, config.sigreg.weight, config.sigreg.directions, group, draws)


@torch.no_grad()
def terms(z: Tensor, config: Config, group: dist.ProcessGroup | None, draws: torch.Generator) -> dict[str, float]:
    """What the run's objective is made of, unweighted, for metrics.jsonl; nothing for NT-Xent, which has one term."""
    match config.contrastive.objective:
        case "vicreg":
            found = vicreg_terms(z, group)
        case "barlow":
            found = barlow_terms(z, group=group)
        case "sigreg":
            found = sigreg_terms(z, config.sigreg.directions, group, draws)
        case _:
            found = {}
    return {name: float(value) for name, value in fetched(found).items()}
