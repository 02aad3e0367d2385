"""Two augmented views of pictures that are only looked at: what is measured on them, and where there is no label.

Comes in: pictures, the family T (paper 3.1) and a backbone. Goes out: draws for pairs of views, and h of both views.
"""

import torch
from torch import Tensor, nn

from headstart.augment import Draw, SimCLRAugment
from headstart.data.images import Images
from headstart.engine.device import Compute, sent, tuned
from headstart.engine.memory import pictures_at_once
from headstart.records.config import AugmentConfig


def augmenter(config: AugmentConfig, size: int, mean: Tensor | None, std: Tensor | None) -> SimCLRAugment:
    """The family T at the training size; its last step is the Z-score where mean and std are given."""
    return SimCLRAugment(
        size=size,
        crop_scale=config.crop_scale,
        crop_ratio=config.crop_ratio,
        flip=config.flip,
        jitter=config.jitter,
        jitter_p=config.jitter_p,
        grey_p=config.grey_p,
        blur_p=config.blur_p,
        blur_sigma=config.blur_sigma,
        blur_kernel=config.blur_kernel,
        mean=mean,
        std=std,
    )


def draw_pairs(augment: SimCLRAugment, images: Images, chosen: Tensor, draws: torch.Generator) -> Draw:
    """Draws for two views of each chosen picture: 2n rows, rows i and i + n a pair."""
    heights, widths = torch.from_numpy(images.sizes[chosen.numpy()]).repeat(2, 1).unbind(1)
    return augment.draw(2 * len(chosen), heights, widths, generator=draws)


@torch.no_grad()
def pair_features(
    backbone: nn.Module,
    images: Images,
    chosen: Tensor,
    augment: SimCLRAugment,
    compute: Compute,
    draws: torch.Generator,
) -> Tensor:
    """h (2n, num_features) float32 of two augmented views of the chosen pictures, f in evaluation mode."""
    backbone.eval()
    params = draw_pairs(augment, images, chosen, draws)
    views = augment.apply(sent(images.batch(chosen)[0], compute.device), params)
    parts, h = views.split(pictures_at_once(augment.size, compute.device)), []
    for part in parts:
        with compute.autocast(), tuned(len(part) == len(parts[0])):
            h.append(backbone(part.contiguous(memory_format=torch.channels_last)))
    return torch.cat(h).float()
