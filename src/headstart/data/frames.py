"""Frames of pictures on the device that makes views of them.

Comes in: pictures, and numbers of some of them. Goes out: their frames there, padded like `Images.batch`'s, and what
else a step needs there, in one copy. A GPU with room for it keeps all pictures, whatever their sizes, so that no step
waits for the bus; and it pads itself, so that no host takes one picture after the other.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from headstart.data.images import BLOCK, Images
from headstart.engine import memory
from headstart.engine.device import Compute, sent, sent_together

PIXELS_AT_ONCE = 2**23
"""Pixels whose places are worked out at once, of 16 bytes each."""


class Frames:
    """The pictures of `images` as `compute.device` is given them."""

    def __init__(self, images: Images, compute: Compute) -> None:
        self.images, self.device = images, compute.device
        self.of_one_size = bool((images.sizes == images.sizes[:1]).all())
        self.starts = np.concatenate([[0], (3 * images.sizes.prod(axis=1)).cumsum()])
        self.kept: Tensor | None = None
        total = int(self.starts[-1])
        if self.device.type == "cuda" and memory.holds(self.device, total, compute.sharers):
            self.kept = torch.empty(total, dtype=torch.uint8, device=self.device)
            for rows in torch.arange(len(images)).split(BLOCK):
                first, last = self.starts[int(rows[0])], self.starts[int(rows[-1]) + 1]
                self.kept[first:last] = images.flat(rows)

    def of(self, chosen: Tensor, beside: Sequence[Tensor] = ()) -> tuple[Tensor, list[Tensor]]:
        """Frames (n, 3, H, W) uint8 of the pictures `chosen` (n,), and the tensors `beside` on the device too."""
        if self.device.type == "cuda" and not self.of_one_size:
            return self._padded(chosen, beside)
        if self.kept is None:
            return sent(self.images.batch(chosen)[0], self.device), sent_together(beside, self.device)
        rows, *there = sent_together([chosen, *beside], self.device)
        return self.kept.view(-1, 3, *self.images.sizes[0].tolist())[rows], there

    def _padded(self, chosen: Tensor, beside: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        rows = chosen.numpy()
        sizes = self.images.sizes[rows]
        if self.kept is not None:
            pixels, starts = self.kept, self.starts[rows]
        else:
            lengths = 3 * sizes.prod(axis=1)
            pixels, starts = sent(self.images.flat(chosen), self.device), lengths.cumsum() - lengths
        places, *there = sent_together([torch.from_numpy(np.column_stack([starts, sizes])), *beside], self.device)
        return padded(pixels, places, *sizes.max(axis=0).tolist()), there


def padded(pixels: Tensor, places: Tensor, height: int, width: int) -> Tensor:
    """Pictures that stand one after the other in `pixels`, each with zeros at its right and bottom.

    Args:
        pixels: uint8 (bytes,), each picture (3, h, w).
        places: int64 (n, 3): where each picture begins, its h and its w.

    Returns:
        uint8 (n, 3, height, width).
    """
    frames = torch.empty(len(places), 3, height, width, dtype=torch.uint8, device=pixels.device)
    down = torch.arange(height, device=pixels.device)[:, None]
    across = torch.arange(width, device=pixels.device)
    together = max(1, PIXELS_AT_ONCE // (height * width))
    for part, some in zip(frames.split(together), places.split(together), strict=True):
        start, h, w = (column[:, None, None] for column in some.unbind(1))
        inside = (down < h) & (across < w)
        place = (start + down * w + across).where(inside, start)
        for channel in range(3):
            torch.mul(pixels[place + channel * h * w], inside, out=part[:, channel])
    return frames
