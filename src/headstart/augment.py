"""The transformation family T (paper 3.1): SimCLR's augmentation of a whole batch at a time, on any device.

Comes in: uint8 pictures (N, 3, H, W). Goes out: float views (2N, 3, size, size), rows i and i + N two views
of picture i. The order of operations and the distributions of their parameters are torchvision's SimCLR:
random resized crop, flip, colour jitter in random order, greyscale, Gaussian blur, then (optionally) the
Z-score.

Drawing and applying are apart. `draw` makes every random decision for the whole batch, on the CPU, from one
generator; `apply` is a function of a picture and its own row of the draw, so any slice, on any device or
process, gives the same views.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from headstart.errors import InputError

GREY = (0.2989, 0.587, 0.114)  # torchvision's luma weights
ATTEMPTS = 10  # RandomResizedCrop tries so many boxes before it takes the central one
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
ORDERS = torch.tensor(list(itertools.permutations(range(4))))  # (24, 4)
COLUMNS = 2 * ATTEMPTS + 12  # uniform numbers a row of a draw needs


@dataclass(frozen=True)
class Draw:
    """Every random decision for n views: tensors of n rows. `draw[index]` selects rows by slice, mask or
    index tensor."""

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

    def to(self, device: torch.device) -> Draw:
        return Draw(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})


class SimCLRAugment(nn.Module):
    """SimCLR's augmentation with torchvision's meaning of every parameter.

    size: side of the square views, pixels. crop_scale: share of the picture's area, crop_ratio: width /
    height of the box. flip, jitter_p, grey_p, blur_p: probabilities; 0 switches the operation off. jitter:
    strengths of brightness, contrast, saturation (factor from max(0, 1 - s) to 1 + s) and hue (shift from -s
    to s, at most 0.5). blur_sigma: pixels.
    blur_kernel: odd number of taps; None is 10 % of the side made odd, as in the authors' code. mean, std:
    three numbers each, in [0, 1] units, for the Z-score as the last step; None leaves the views in [0, 1].

    Example:
        augment = SimCLRAugment(size=32)
        views = augment(pictures, generator=torch.Generator().manual_seed(0))
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
        self.size, self.crop_scale, self.crop_ratio = size, tuple(crop_scale), tuple(crop_ratio)
        self.flip, self.jitter, self.jitter_p, self.grey_p = flip, tuple(jitter), jitter_p, grey_p
        self.blur_p, self.blur_sigma = blur_p, tuple(blur_sigma)
        self.blur_kernel = int(0.1 * size) | 1 if blur_kernel is None else blur_kernel
        self.mean: Tensor | None
        self.std: Tensor | None
        self.register_buffer("mean", _three("mean", mean), persistent=False)
        self.register_buffer("std", _three("std", std), persistent=False)
        self._check()

    def _check(self) -> None:
        def must(right: bool, name: str, value: object, rule: str) -> None:
            if not right:
                raise InputError(f"SimCLRAugment: {name} is {value}; it has to be {rule}.")

        must(self.size >= 1, "size", self.size, "at least 1 pixel")
        low, high = self.crop_scale
        must(0 < low <= high <= 1, "crop_scale", self.crop_scale, "two numbers in (0, 1], the smaller first")
        low, high = self.crop_ratio
        must(0 < low <= high, "crop_ratio", self.crop_ratio, "two positive numbers, the smaller first")
        for name in ("flip", "jitter_p", "grey_p", "blur_p"):
            must(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a probability in [0, 1]")
        must(
            len(self.jitter) == 4 and min(self.jitter) >= 0 and self.jitter[HUE] <= 0.5,
            "jitter",
            self.jitter,
            "four strengths >= 0 (brightness, contrast, saturation, hue), the hue's at most 0.5",
        )
        low, high = self.blur_sigma
        must(0 < low <= high, "blur_sigma", self.blur_sigma, "two positive numbers, the smaller first")
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
        """uint8 (N, 3, H, W) -> float32 (views * N, 3, size, size); rows i, i + N, ... are views of picture
        i.

        valid: (N, 2) heights and widths for frames padded at the right and bottom; None: the whole frame.
        generator: a CPU generator; None: torch's default one.
        """
        if valid is None:
            height: int | Tensor = pictures.shape[-2]
            width: int | Tensor = pictures.shape[-1]
        else:
            height, width = torch.as_tensor(valid).cpu().repeat(views, 1).unbind(1)
        return self.apply(pictures, self.draw(views * len(pictures), height, width, generator=generator))

    def draw(self, n: int, height: int | Tensor, width: int | Tensor, generator: torch.Generator | None = None) -> Draw:
        """Parameters for n views of pictures of that height and width (numbers, or (n,) integer tensors), on
        the CPU.

        Row i follows from the generator's state and i alone, not from n. Distributions: torchvision's
        RandomResizedCrop.get_params, ColorJitter.get_params, RandomGrayscale and GaussianBlur.get_params.
        """
        uniform = torch.rand(n, COLUMNS, generator=generator, dtype=torch.float64)
        attempts, rest = uniform[:, : 2 * ATTEMPTS], iter(uniform[:, 2 * ATTEMPTS :].unbind(1))
        top, left, box_height, box_width = _draw_boxes(
            attempts,
            next(rest),
            next(rest),
            torch.as_tensor(height),
            torch.as_tensor(width),
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
        return Draw(
            top, left, box_height, box_width, flip, jitter, order, factors.float(), grey, blur, sigma.float()
        )  # fmt: skip

    def apply(self, pictures: Tensor, params: Draw) -> Tensor:  # type: ignore[override]
        """uint8 (N, 3, H, W) and a draw of k N rows -> float32 (k N, 3, size, size): row j is made from
        picture j modulo N."""
        if pictures.ndim != 4 or pictures.shape[1] != 3 or pictures.dtype != torch.uint8:
            raise InputError(
                f"SimCLRAugment: pictures are {pictures.dtype} of shape {tuple(pictures.shape)}; they have"
                " to be uint8 (N, 3, H, W)."
            )
        if len(pictures) == 0 or len(params) % len(pictures):
            raise InputError(
                f"SimCLRAugment: a draw of {len(params)} rows does not fit {len(pictures)} pictures; it"
                " needs a multiple of them."
            )
        source = torch.arange(len(params)) % len(pictures)
        views = pictures.new_empty(len(params), 3, self.size, self.size, dtype=torch.float32)
        chunk = len(params) if pictures.is_cuda else 32
        for start in range(0, len(params), chunk):
            rows = slice(start, start + chunk)
            views[rows] = self._views(pictures[source[rows]], params[rows])
        return views

    def _views(self, pictures: Tensor, params: Draw) -> Tensor:
        x = _crop(pictures, params, self.size)
        for step in range(4):
            for operation, function in enumerate((_brightness, _contrast, _saturation, _hue)):
                rows = (params.jitter & (params.order[:, step] == operation)).nonzero().squeeze(1)
                if len(rows) and self.jitter[operation]:
                    x[rows] = function(x[rows], params.factors[rows, operation, None, None, None])
        rows = params.grey.nonzero().squeeze(1)
        x[rows] = _grey(x[rows]).expand(-1, 3, -1, -1)
        rows = params.blur.nonzero().squeeze(1)
        if len(rows) and self.blur_kernel > 1:
            x[rows] = _blur(x[rows], params.sigma[rows], self.blur_kernel)
        if self.mean is not None and self.std is not None:
            x = (x - self.mean.to(x.device)[:, None, None]) / self.std.to(x.device)[:, None, None]
        return x


def _three(name: str, values: tuple[float, float, float] | Tensor | None) -> Tensor | None:
    if values is None:
        return None
    tensor = torch.as_tensor(values, dtype=torch.float32).flatten()
    if len(tensor) != 3:
        raise InputError(f"SimCLRAugment: {name} has {len(tensor)} numbers; it has to have three, one a colour.")
    return tensor


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


def _crop(pictures: Tensor, params: Draw, size: int) -> Tensor:
    """uint8 (n, 3, H, W) -> float32 (n, 3, size, size) in [0, 1]: box cut out, resized (bilinear,
    antialiased), mirrored.

    Resizing is linear and separable, so it is one small matrix for the rows and one for the columns of each
    picture.
    """
    down = _resampling(params.top, params.height, size, pictures.shape[2])
    across = _resampling(params.left, params.width, size, pictures.shape[3])
    across = torch.where(params.flip[:, None, None], across.flip(1), across)
    return (down[:, None] / 255) @ pictures.float() @ across.mT[:, None]


def _resampling(start: Tensor, length: Tensor, size: int, extent: int) -> Tensor:
    """(n, size, extent): weights of a line's pixels in each output pixel, a triangle as wide as the step
    between outputs (at least one pixel), cut at the box and normalised: what torch's antialiased bilinear
    interpolation computes."""
    step = (length / size)[:, None, None]
    centre = (torch.arange(size) + 0.5)[:, None] * step
    pixel = torch.arange(extent) - start[:, None, None] + 0.5
    weight = (1 - (pixel - centre).abs() / step.clamp(min=1)).clamp(min=0)
    weight *= (pixel > 0) & (pixel < length[:, None, None])
    return weight / weight.sum(dim=2, keepdim=True)


def _grey(x: Tensor) -> Tensor:
    red, green, blue = x.unbind(1)
    return (GREY[0] * red + GREY[1] * green + GREY[2] * blue)[:, None]


def _brightness(x: Tensor, factor: Tensor) -> Tensor:
    return (x * factor).clamp(0, 1)


def _contrast(x: Tensor, factor: Tensor) -> Tensor:
    return (x * factor + (1 - factor) * _grey(x).mean(dim=(2, 3), keepdim=True)).clamp(0, 1)


def _saturation(x: Tensor, factor: Tensor) -> Tensor:
    return (x * factor + (1 - factor) * _grey(x)).clamp(0, 1)


def _hue(x: Tensor, shift: Tensor) -> Tensor:
    """Turns the hue by `shift` of a full circle. The hue of a pixel is where it stands on the colour hexagon;
    with `high`, `low` its largest and smallest channel, channel c at hue h (sixths) is high - (high - low)
    clamp(min(k, 4 - k), 0, 1), where
    k = (n_c + h) mod 6 and n = 5, 3, 1 for red, green, blue: the closed form of the HSV tables."""
    red, green, blue = x.unbind(1)
    high, low = x.amax(dim=1), x.amin(dim=1)
    chroma = high - low
    divisor = torch.where(chroma == 0, 1.0, chroma)
    hue = torch.where(
        high == red,
        (green - blue) / divisor,
        torch.where(high == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    k = (hue[:, None] + 6 * shift + torch.tensor([5.0, 3.0, 1.0]).view(3, 1, 1)).remainder(6)
    return high[:, None] - chroma[:, None] * torch.minimum(k, 4 - k).clamp(0, 1)


def _blur(x: Tensor, sigma: Tensor, kernel: int) -> Tensor:
    """Gaussian blur with mirrored edges: rows, then columns, each picture with its own taps."""
    half = kernel // 2
    taps = torch.exp(-0.5 * (torch.arange(-half, half + 1) / sigma[:, None]) ** 2)
    taps = (taps / taps.sum(dim=1, keepdim=True))[:, :, None, None, None]
    side = x.shape[-1]
    x = nn.functional.pad(x, (half, half, half, half), mode="reflect")
    x = sum(taps[:, i] * x[:, :, i : i + side] for i in range(kernel))  # type: ignore[assignment]
    return sum(taps[:, i] * x[..., i : i + side] for i in range(kernel))  # type: ignore[return-value]
