"""The transformation family T (paper 3.1): SimCLR's augmentation of a whole batch at a time, on any device.

Comes in: uint8 pictures (N, 3, H, W). Goes out: float views (2N, 3, size, size), rows i and i + N two views of
picture i. The order of operations and the distributions of their parameters are torchvision's SimCLR: random resized
crop, flip, colour jitter in random order, greyscale, Gaussian blur, then (optionally) the Z-score.

Drawing and applying are apart. `draw` makes every random decision for the whole batch, on the CPU, from one generator;
`apply` is a function of a picture and its own row of the draw, so any slice of a batch, in any process, gives the same
bytes as the whole.

Each operation equals torchvision's on float tensors up to float32's rounding. tests/test_augment.py holds each to a
tolerance of its own (2e-6 for a crop, 1e-6 for most others, of values in [0, 1]) and says where it comes from. On a GPU
that is allowed TF32, crop and blur round their factors to 11 bits: at most 1e-3, a quarter of a grey level.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial

import torch
from torch import Tensor, nn

from headstart.engine import resampling
from headstart.engine.arguments import check_pictures, check_sizes, draws, is_number, several, sides, three, whole
from headstart.engine.device import sent
from headstart.records.errors import InputError

GREY = (0.2989, 0.587, 0.114)  # torchvision's luma weights
CPU_PIECE, GPU_PIECE = 2**18, 2**27  # numbers of the views made together; on a CPU, what stays in a core's cache
ATTEMPTS = 10  # RandomResizedCrop tries so many boxes before it takes the central one
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
ORDERS = torch.tensor(list(itertools.permutations(range(4))))  # (24, 4)
COLUMNS = 2 * ATTEMPTS + 12  # uniform numbers a row of a draw needs


@dataclass(frozen=True)
class Draw:
    """Every random decision for n views: tensors of n rows. `draw[index]` selects rows (slice, mask or indices)."""

    top: Tensor  # (n,) int64, pixels: the crop's box within the picture
    left: Tensor
    height: Tensor
    width: Tensor
    flip: Tensor  # (n,) bool, mirrored left to right
    jitter: Tensor  # (n,) bool, whether the colours are jittered
    order: Tensor  # (n, 4) int64, the jitter in order: 0 brightness, 1 contrast, 2 saturation, 3 hue
    factors: Tensor  # (n, 4) float32, the factors of those four, by number
    grey: Tensor  # (n,) bool
    blur: Tensor  # (n,) bool
    sigma: Tensor  # (n,) float32, pixels of the view

    def __len__(self) -> int:
        return len(self.top)

    def __getitem__(self, index: slice | Tensor) -> Draw:
        return Draw(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def check_within(self, height: int, width: int) -> None:
        """Raise InputError where a crop leaves frames of so many pixels: the draw is of other pictures."""
        if bool(((self.top + self.height > height) | (self.left + self.width > width)).any()):
            raise InputError(
                f"SimCLRAugment: the draw's crops leave pictures of {height} x {width} pixels; draw for these."
            )


class SimCLRAugment(nn.Module):
    """SimCLR's augmentation with torchvision's meaning of every parameter.

    Args:
        size: side of the square views, pixels.
        crop_scale, crop_ratio: share of the picture's area; width / height of the box.
        flip, jitter_p, grey_p, blur_p: probabilities; 0 switches the operation off.
        jitter: strengths of brightness, contrast, saturation (factor from max(0, 1 - s) to 1 + s) and hue (shift from
            -s to s, at most 0.5).
        blur_sigma: pixels.
        blur_kernel: odd number of taps; None is 10 % of the side made odd, as in the authors' code.
        mean, std: three numbers each, in [0, 1] units, for the Z-score as the last step; None: views stay in [0, 1].

    >>> augment = SimCLRAugment(size=32)
    >>> pictures = torch.zeros(4, 3, 60, 80, dtype=torch.uint8)
    >>> augment(pictures, generator=torch.Generator().manual_seed(0)).shape
    torch.Size([8, 3, 32, 32])
    """

    def __init__(
        self,
        size: int = 32,
        crop_scale: tuple[float, float] = (0.08, 1.0),
        crop_ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
        jitter: tuple[float, float, float, float] = (0.8, 0.8, 0.8, 0.2),
        jitter_p: float = 0.8,
        grey_p: float = 0.2,
        blur_p: float = 0.5,
        blur_sigma: tuple[float, float] = (0.1, 2.0),
        blur_kernel: int | None = None,
        mean: tuple[float, float, float] | Tensor | None = None,
        std: tuple[float, float, float] | Tensor | None = None,
    ) -> None:
        super().__init__()
        whole("SimCLRAugment", "size", size, " pixel")
        self.size, self.flip, self.jitter_p, self.grey_p, self.blur_p = size, flip, jitter_p, grey_p, blur_p
        self.crop_scale = several("crop_scale", crop_scale, 2)
        self.crop_ratio = several("crop_ratio", crop_ratio, 2)
        self.jitter = several("jitter", jitter, 4)
        self.blur_sigma = several("blur_sigma", blur_sigma, 2)
        self.blur_kernel = int(0.1 * size) | 1 if blur_kernel is None else blur_kernel
        self.mean: Tensor | None
        self.std: Tensor | None
        self.register_buffer("mean", three("mean", mean), persistent=False)
        self.register_buffer("std", three("std", std), persistent=False)
        self._check()
        # What is added to a view and what it is multiplied with.
        self.scale: Tensor | None
        self.shift: Tensor | None
        scale = None if self.std is None else (1 / self.std).view(3, 1, 1, 1)
        shift = None if self.mean is None or scale is None else -self.mean.view(3, 1, 1, 1) * scale
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)

    def _check(self) -> None:
        def must(right: bool, name: str, value: object, rule: str) -> None:
            if not right:
                raise InputError(f"SimCLRAugment: {name} is {value}; it has to be {rule}.")

        low, high = self.crop_scale
        must(0 < low <= high <= 1, "crop_scale", self.crop_scale, "two numbers in (0, 1], the smaller first")
        low, high = self.crop_ratio
        must(0 < low <= high, "crop_ratio", self.crop_ratio, "two positive numbers, the smaller first")
        for name in ("flip", "jitter_p", "grey_p", "blur_p"):
            share = getattr(self, name)
            right = is_number(share) and 0 <= float(share) <= 1
            must(right, name, share, "a probability in [0, 1]")
        must(
            min(self.jitter) >= 0 and self.jitter[HUE] <= 0.5,
            "jitter",
            self.jitter,
            "four strengths >= 0 (brightness, contrast, saturation, hue), the hue's at most 0.5",
        )
        low, high = self.blur_sigma
        must(0 < low <= high, "blur_sigma", self.blur_sigma, "two positive numbers, the smaller first")
        whole("SimCLRAugment", "blur_kernel", self.blur_kernel)
        must(
            self.blur_kernel % 2 == 1 and 0 < self.blur_kernel < 2 * self.size,
            "blur_kernel",
            self.blur_kernel,
            "odd, positive and less than twice the side (the edge is mirrored)",
        )
        must(
            (self.mean is None) == (self.std is None),
            "mean without std or std",
            None,
            "given together with the other",
        )
        must(self.std is None or bool((self.std > 0).all()), "std", self.std, "positive")

    def forward(
        self,
        pictures: Tensor,
        views: int = 2,
        valid: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """uint8 (N, 3, H, W) -> float32 (views * N, 3, size, size); rows i, i + N, ... are views of picture i.

        Args:
            valid: (N, 2) heights and widths for frames padded at the right and bottom; None: the whole frame.
            generator: a CPU generator; None: torch's default one.
        """
        check_pictures(pictures)
        sizes = check_sizes(views, valid, pictures)
        if sizes is None:
            height: int | Tensor = pictures.shape[-2]
            width: int | Tensor = pictures.shape[-1]
        else:
            height, width = sizes.repeat(views, 1).unbind(1)
        return self.apply(pictures, self.draw(views * len(pictures), height, width, generator=generator))

    def draw(self, n: int, height: int | Tensor, width: int | Tensor, generator: torch.Generator | None = None) -> Draw:
        """Parameters for n views, on the CPU, of pictures of that height and width (numbers, or (n,) integers).

        Row i follows from the generator's state and i alone, not from n. Distributions: torchvision's
        RandomResizedCrop.get_params, ColorJitter.get_params, RandomGrayscale and GaussianBlur.get_params.
        """
        if n != 0:
            whole("SimCLRAugment", "n", n)
        draws("SimCLRAugment", generator)
        uniform = torch.rand(n, COLUMNS, generator=generator, dtype=torch.float64)
        attempts, rest = uniform[:, : 2 * ATTEMPTS], iter(uniform[:, 2 * ATTEMPTS :].unbind(1))
        top, left, box_height, box_width = _draw_boxes(
            attempts,
            next(rest),
            next(rest),
            sides("height", height, n),
            sides("width", width, n),
            self.crop_scale,
            self.crop_ratio,
        )
        strength = torch.tensor(self.jitter, dtype=torch.float64)
        low, high = 1 - strength, 1 + strength
        low.clamp_(min=0)
        low[HUE], high[HUE] = -strength[HUE], strength[HUE]
        flip, jitter, grey, blur = (next(rest) < p for p in (self.flip, self.jitter_p, self.grey_p, self.blur_p))
        order = ORDERS[(next(rest) * len(ORDERS)).long()]
        sigma = self.blur_sigma[0] + next(rest) * (self.blur_sigma[1] - self.blur_sigma[0])
        factors = low + torch.stack(list(rest), dim=1) * (high - low)
        return Draw(top, left, box_height, box_width, flip, jitter, order, factors.float(), grey, blur, sigma.float())

    def plan(self, params: Draw) -> ViewPlan:
        """All of a draw that can be settled without a pixel; `apply` takes it in the draw's place, from any device."""
        if not isinstance(params, Draw):
            raise InputError(
                f"SimCLRAugment: params are of type {type(params).__name__}; they have to be what draw gave."
            )
        return _plan(params, self.blur_kernel)

    def apply(self, pictures: Tensor, params: Draw | ViewPlan) -> Tensor:  # type: ignore[override]
        """uint8 (N, 3, H, W), a draw of k N rows -> float32 (k N, 3, size, size): row j is of picture j modulo N.

        The views are made where the pictures are; the draw stays on the CPU, so the device is never waited for.
        """
        check_pictures(pictures)
        if not isinstance(params, Draw | ViewPlan):
            raise InputError(
                f"SimCLRAugment: params are of type {type(params).__name__}; they have to be what draw or plan gave."
            )
        if isinstance(params, Draw):
            params.check_within(*pictures.shape[-2:])
        if len(params) % len(pictures):
            raise InputError(
                f"SimCLRAugment: a draw of {len(params)} rows does not fit {len(pictures)} pictures; "
                "it needs a multiple of them."
            )
        with torch.autocast(pictures.device.type, enabled=False):  # a view is float32 wherever it is made
            return self._views(pictures, params if isinstance(params, ViewPlan) else self.plan(params))

    def _views(self, pictures: Tensor, plan: ViewPlan) -> Tensor:
        device = pictures.device
        scale, shift = (None if part is None else part.to(device) for part in (self.scale, self.shift))
        numbers, rows = sent(plan.numbers, device), sent(plan.rows, device)
        source = rows % len(pictures)
        views = torch.empty(len(rows), 3, self.size, self.size, device=device)
        on_host = device.type == "cpu"
        together = CPU_PIECE * torch.get_num_threads() if on_host else GPU_PIECE
        at_most = max(1, together // (3 * max(pictures[0, 0].numel(), self.size**2)))
        for piece in plan.pieces(at_most, by_hue=on_host):
            here = numbers[piece.rows]
            x = _crop(pictures.index_select(0, source[piece.rows]), here, self.size)
            for step in range(4):
                for part in piece.blended[step]:
                    _blend(x[:, part], *here[part, BLENDS][:, step::4].unbind(1))
                for part in piece.turned[step] if self.jitter[HUE] else ():
                    _hue(x[:, part], here[part, HUE_OFFSETS])
            for part in piece.grey:
                _grey(x[:, part])
            for part in piece.blur if self.blur_kernel > 1 else ():
                _blur(x[:, part], here[part, TAPS])
            if scale is not None and shift is not None:
                torch.addcmul(shift, x, scale, out=x)
            views.index_copy_(0, rows[piece.rows], x.transpose(0, 1))
        return views


def _draw_boxes(
    attempts: Tensor,
    down: Tensor,
    across: Tensor,
    height: Tensor,
    width: Tensor,
    scale: tuple[float, ...],
    ratio: tuple[float, ...],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """torchvision's RandomResizedCrop.get_params for n rows at once: the first of ten boxes that fits, else
    the largest central box of an allowed ratio. attempts: (n, 20) uniform numbers; down, across: (n,).
    Returns top, left, height, width (n,) int64."""
    height, width = height.to(torch.float64), width.to(torch.float64)
    area = (scale[0] + attempts[:, :ATTEMPTS] * (scale[1] - scale[0])) * (height * width)[..., None]
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(low + attempts[:, ATTEMPTS:] * (high - low))
    widths, heights = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (widths > 0) & (widths <= width[..., None]) & (heights > 0) & (heights <= height[..., None])
    first = fits.int().argmax(dim=1, keepdim=True)
    found = fits.any(dim=1)
    whole = width / height
    central_width = torch.where(whole > ratio[1], (height * ratio[1]).round(), width)
    central_height = torch.where(whole < ratio[0], (width / ratio[0]).round(), height)
    box_width = torch.where(found, widths.gather(1, first)[:, 0], central_width)
    box_height = torch.where(found, heights.gather(1, first)[:, 0], central_height)
    top = torch.where(found, (down * (height - box_height + 1)).floor(), ((height - box_height) / 2).floor())
    left = torch.where(found, (across * (width - box_width + 1)).floor(), ((width - box_width) / 2).floor())
    return top.long(), left.long(), box_height.long(), box_width.long()


# The columns of a plan's table of numbers: the crop's box and flip; scale, share of the grey picture and share of the
# mean grey of the blend at each of the jitter's four steps; the hue's offsets; and the right half of the blur's taps.
TOP, LEFT, HEIGHT, WIDTH, FLIP = range(5)
BLENDS = slice(5, 17)
HUE_OFFSETS = slice(17, 20)
TAPS = slice(20, None)


@dataclass(frozen=True)
class _Piece:
    """Rows of the plan, and of these the neighbours to which something is due, counted from the first."""

    rows: slice
    blended: list[list[slice]]  # at each of the jitter's four steps
    turned: list[list[slice]]
    grey: list[slice]
    blur: list[slice]


@dataclass(frozen=True)
class ViewPlan:
    """A draw sorted so that rows to which the same operation is due are neighbours: no gathering between operations."""

    rows: Tensor  # (n,) int64: row of the draw
    numbers: Tensor  # (n, 20 + taps) float32
    kinds: list[list[int]]  # 5 steps of the hue (4: none) x rows that are neither grey nor blurred, grey, both, blurred

    def __len__(self) -> int:
        return len(self.rows)

    def pieces(self, at_most: int, by_hue: bool) -> Iterator[_Piece]:
        """Its rows, at most so many at once.

        by_hue: to all rows of a piece the hue comes at the same step, so nothing is computed in vain. Else a piece has
        rows of every kind, for a device on which few launches count for more: where the hue comes, their blend leaves
        them as they are.
        """
        ends = list(itertools.accumulate(map(sum, self.kinds), initial=0))
        hues = list(itertools.pairwise(ends))
        grey, blur = [], []
        for (start, stop), (plain, only_grey, both, _) in zip(hues, self.kinds, strict=True):
            grey.append((start + plain, start + plain + only_grey + both))
            blur.append((start + plain + only_grey, stop))
        for start, stop in hues if by_hue else [(0, len(self))]:
            for first in range(start, stop, at_most):
                last = min(first + at_most, stop)
                within = partial(_within, first, last)
                turned = [within(hues[step : step + 1]) for step in range(4)]
                whole, jittered = within([(start, stop)]), within([(0, ends[4])])
                blended = [[] if turned[step] == whole else jittered for step in range(4)]
                yield _Piece(slice(first, last), blended, turned, within(grey), within(blur))


def _within(first: int, last: int, spans: Sequence[tuple[int, int]]) -> list[slice]:
    """What of each span lies from row `first` up to `last`, counted from there; those that do not are left out."""
    clipped = [(max(start, first) - first, min(stop, last) - first) for start, stop in spans]
    return [slice(start, stop) for start, stop in clipped if start < stop]


def _plan(params: Draw, kernel: int) -> ViewPlan:
    """Everything about a draw that can be settled before a pixel is touched."""
    hue_step = torch.where(params.jitter, (params.order == HUE).int().argmax(dim=1), 4)
    kind = 4 * hue_step + 2 * params.blur + (params.grey ^ params.blur)
    rows = kind.argsort(stable=True)
    kinds = torch.bincount(kind, minlength=20).view(5, 4).tolist()
    factor = params.factors.gather(1, params.order).where(params.order != HUE, 1.0)
    grey_share = torch.where(params.order == SATURATION, 1 - factor, 0.0)
    mean_share = torch.where(params.order == CONTRAST, 1 - factor, 0.0)
    turn = 6 * params.factors[:, HUE]
    # Red, green and blue stand at 0, 2 and -2 sixths of the hexagon; of the two ways round, the one within 7 sixths.
    offsets = (turn, turn + torch.where(turn >= 0, -2.0, 4.0), turn + torch.where(turn <= 0, 2.0, -4.0))
    box = (params.top, params.left, params.height, params.width, params.flip)
    # In float64, so that the rounded taps do not depend on where in a vector register a row happened to lie.
    taps = torch.exp(-0.5 * (torch.arange(kernel // 2 + 1) / params.sigma.double()[:, None]) ** 2)
    taps /= 2 * taps.sum(dim=1, keepdim=True) - 1
    numbers = torch.cat(
        [torch.stack(box, dim=1).float(), factor, grey_share, mean_share, torch.stack(offsets, dim=1), taps.float()],
        dim=1,
    )
    return ViewPlan(rows, numbers[rows], kinds)


# From here on x is (3, n, size, size): each channel in one piece of memory. All operations work in place.


def _crop(pictures: Tensor, numbers: Tensor, size: int) -> Tensor:
    """uint8 (n, 3, H, W) -> float32 (3, n, size, size) in [0, 1]: box cut out, resized, mirrored.

    Resizing is linear and separable, so it is one small matrix for the rows and one for the columns of each picture.
    """
    n, _, height, width = pictures.shape
    down = resampling.matrices(numbers[:, TOP], numbers[:, HEIGHT], None, size, height)
    across = resampling.matrices(numbers[:, LEFT], numbers[:, WIDTH], numbers[:, FLIP], size, width)
    pixels = torch.empty(3, n, height, width, device=pictures.device).copy_(pictures.transpose(0, 1))
    x = torch.empty(3, n, size, size, device=pictures.device)
    for channel in range(3):
        torch.bmm(down, torch.bmm(pixels[channel], across), out=x[channel])
    return x


def _luma(x: Tensor) -> Tensor:
    """(3, n, S, S) -> (n, S, S)."""
    return (x[0] * GREY[0]).add_(x[1], alpha=GREY[1]).add_(x[2], alpha=GREY[2])


def _blend(x: Tensor, scale: Tensor, grey_share: Tensor, mean_share: Tensor) -> None:
    """Brightness, contrast or saturation, whichever is each row's turn: they mix the picture with black, with the mean
    of its grey picture, or with its grey picture."""
    scale, grey_share, mean_share = (share[:, None, None] for share in (scale, grey_share, mean_share))
    target = _luma(x)
    # Two sums: a picture alone would otherwise be cut among threads, and its mean rounded differently.
    mean = target.sum(dim=1, keepdim=True).sum(dim=2, keepdim=True) / target[0].numel()
    target.mul_(grey_share).add_(mean.mul_(mean_share))
    torch.addcmul(target, x, scale, out=x).clamp_(0, 1)


def _hue(x: Tensor, offsets: Tensor) -> None:
    """Turns the hue. offsets: (n, 3), sixths of the circle from red, green and blue to where the hue 0 goes.

    With the largest and smallest channel, high and low, and chroma = high - low, a channel that stands `distance`
    sixths from a pixel's hue is high up to 1, low from 2 on, and linear between. The distance is kept multiplied by
    the chroma, which spares every division of the HSV tables and the special case of grey pixels. Inexact by rounding
    only.
    """
    red, green, blue = x.unbind(0)
    more, less = torch.maximum(green, blue), torch.minimum(green, blue)
    high, low = torch.maximum(more, red), torch.minimum(less, red)
    chroma = high - low
    # Distance from red: more - less if red is the largest; + (more - red) if it is not; + 2 (less - red) if it is the
    # smallest.
    hue = (less - red).clamp_(min=0).mul_(2).add_((more - red).clamp_(min=0)).add_(more).sub_(less)
    hue.copysign_(green - blue)
    # A distance d goes once round as 3 - |d - 3|, so high + chroma - that is (high - 2 chroma) + |d - 3 chroma|.
    distance = torch.mul(chroma, offsets.T[:, :, None, None], out=x).add_(hue).abs_()
    distance.sub_(3 * chroma).abs_().add_(high.sub(chroma, alpha=2))
    torch.clamp(distance, low, high, out=x)


def _grey(x: Tensor) -> None:
    x.copy_(_luma(x).expand_as(x))


def _blur(x: Tensor, taps: Tensor) -> None:
    """Gaussian blur with mirrored edges, rows then columns. taps: (n, k // 2 + 1), the middle one first."""
    n, side = len(taps), x.shape[-1]
    across = (taps @ resampling.shifts(side, taps.shape[1], x.device)).view(n, side, side)
    down = across.mT.contiguous()
    for channel in x:
        torch.bmm(down, torch.bmm(channel, across), out=channel)
