"""The augmentation: every operation against torchvision's functional one given the same parameters, the
distributions of the parameters against torchvision's own draws, and the independence of a view from its
neighbours."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms as T
import torchvision.transforms.functional as TF
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from torch import Tensor

from headstart.augment import HUE, Draw, SimCLRAugment, ViewPlan
from headstart.records.errors import InputError

# Everything is computed in float32 on [0, 1], as torchvision's tensor operations do; what differs is the
# order of additions. A few roundings of 6e-8 each are 1e-6. Where an operation divides by a small number they
# grow:
ATOL = {
    "crop": 2e-6,  # weights are quotients of a pixel coordinate (up to 100, rounded to 4e-6) and the step
    "crop of a big picture": 3e-5,  # coordinates up to 500 are rounded to 3e-5 in both implementations
    "brightness": 1e-6,
    "contrast": 1e-6,
    "saturation": 1e-6,
    "hue": 3e-6,  # torchvision goes through h in turns, ours through sixths
    "grey": 1e-6,
    "blur": 1e-6,  # separable sum instead of the product kernel
    "normalise": 1e-5,  # divided by a std of 0.2
    "all": 2e-5,  # roundings of one step seen by the next, hue and contrast enlarging them
}
OFF: dict[str, Any] = {"flip": 0.0, "jitter_p": 0.0, "grey_p": 0.0, "blur_p": 0.0}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_pictures(n: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Smooth shapes with noise and flat spots: grey pixels, black, white, ties between channels all occur."""
    g = generator(seed)
    coarse = torch.rand(n, 3, 5, 5, generator=g)
    x = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    x = (x + 0.1 * torch.randn(x.shape, generator=g)).clamp(0, 1)
    x[:, :, : height // 4] = x[:, :1, : height // 4]
    x[:, 1, -height // 4 :] = x[:, 0, -height // 4 :]
    return (x * 255).round().to(torch.uint8)


def reference(augment: SimCLRAugment, picture: Tensor, params: Draw, i: int) -> Tensor:
    """One view, operation by operation, by torchvision."""
    x = picture.float() / 255
    box = (int(v[i]) for v in (params.top, params.left, params.height, params.width))
    x = TF.resized_crop(x, *box, [augment.size, augment.size], antialias=True)
    if params.flip[i]:
        x = TF.hflip(x)
    if params.jitter[i]:
        adjust = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue)
        for operation in params.order[i].tolist():
            x = adjust[operation](x, float(params.factors[i, operation]))
    if params.grey[i]:
        x = TF.rgb_to_grayscale(x, 3)
    if params.blur[i]:
        x = TF.gaussian_blur(x, augment.blur_kernel, float(params.sigma[i]))
    if augment.mean is not None and augment.std is not None:
        x = TF.normalize(x, augment.mean.tolist(), augment.std.tolist())
    return x


def assert_like_torchvision(augment: SimCLRAugment, pictures: Tensor, params: Draw, atol: float) -> None:
    views = augment.apply(pictures, params)
    expected = torch.stack([reference(augment, pictures[i % len(pictures)], params, i) for i in range(len(params))])
    torch.testing.assert_close(views, expected, rtol=0, atol=atol)


def only(operation: int) -> SimCLRAugment:
    """Jitter with one operation at full strength."""
    strengths = [0.0] * 4
    strengths[operation] = (0.8, 0.8, 0.8, 0.5)[operation]
    a, b, c, d = strengths
    return SimCLRAugment(**{**OFF, "jitter_p": 1.0}, jitter=(a, b, c, d), crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0))


@pytest.mark.parametrize(
    ("size", "height", "width", "name"),
    [
        (32, 32, 32, "crop"),
        (32, 96, 96, "crop"),
        (32, 50, 70, "crop"),
        (96, 64, 40, "crop"),
        (33, 32, 47, "crop"),
        (8, 100, 90, "crop"),
        (1, 9, 9, "crop"),
        (64, 500, 375, "crop of a big picture"),
    ],
)
@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_crop_and_flip(size: int, height: int, width: int, name: str, flip: float) -> None:
    augment = SimCLRAugment(size, **{**OFF, "flip": flip})
    pictures = some_pictures(8, height, width)
    assert_like_torchvision(augment, pictures, augment.draw(16, height, width, generator=generator()), ATOL[name])


@pytest.mark.parametrize(
    ("augment", "name"),
    [
        (only(0), "brightness"),
        (only(1), "contrast"),
        (only(2), "saturation"),
        (only(3), "hue"),
        (SimCLRAugment(**{**OFF, "grey_p": 1.0}), "grey"),
        (SimCLRAugment(**{**OFF, "blur_p": 1.0}), "blur"),
        (SimCLRAugment(**{**OFF, "blur_p": 1.0}, blur_kernel=9), "blur"),
        (SimCLRAugment(7, **{**OFF, "blur_p": 1.0}, blur_kernel=13), "blur"),
        (SimCLRAugment(**OFF, mean=(0.49, 0.48, 0.45), std=(0.2, 0.2, 0.2)), "normalise"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_one_operation(augment: SimCLRAugment, name: str) -> None:
    pictures = some_pictures(16, 32, 32)
    params = augment.draw(32, 32, 32, generator=generator())
    assert_like_torchvision(augment, pictures, params, ATOL["crop"] + ATOL[name])


def test_hue_of_every_colour() -> None:
    """All corners of the colour cube, its greys, and colours with two equal channels, each turned by each of
    many angles."""
    levels = torch.tensor([0, 1, 127, 254, 255], dtype=torch.uint8)
    colours = torch.cartesian_prod(levels, levels, levels).T.reshape(1, 3, 5, 25)
    picture = torch.cat([colours, colours.flip(3)], dim=2)[..., :25].repeat(1, 1, 3, 2)[:, :, :25, :25]
    augment = SimCLRAugment(25, **{**OFF, "jitter_p": 1.0}, jitter=(0, 0, 0, 0.5), crop_scale=(1, 1), crop_ratio=(1, 1))
    params = augment.draw(41, 25, 25, generator=generator())
    params.factors[:, 3] = torch.linspace(-0.5, 0.5, 41)
    assert_like_torchvision(augment, picture, params, 2 * ATOL["hue"])


@pytest.mark.parametrize(("size", "height", "width"), [(32, 32, 32), (24, 40, 56)])
def test_all_operations_together(size: int, height: int, width: int) -> None:
    augment = SimCLRAugment(size, mean=(0.49, 0.48, 0.45), std=(0.25, 0.25, 0.25))
    pictures = some_pictures(64, height, width)
    params = augment.draw(128, height, width, generator=generator())
    assert set(params.order[:, 0].tolist()) == {0, 1, 2, 3}
    assert_like_torchvision(augment, pictures, params, 4 * ATOL["all"])


@given(
    size=st.integers(1, 40),
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    seed=st.integers(0, 2**31),
    low=st.floats(0.01, 1),
)
@settings(deadline=None, max_examples=40)
def test_any_shape(size: int, height: int, width: int, seed: int, low: float) -> None:
    augment = SimCLRAugment(size, crop_scale=(low, 1.0))
    pictures = some_pictures(4, height, width, seed)
    params = augment.draw(8, height, width, generator=generator(seed))
    assert (params.top >= 0).all()
    assert (params.left >= 0).all()
    assert (params.height >= 1).all()
    assert (params.width >= 1).all()
    assert (params.top + params.height <= height).all()
    assert (params.left + params.width <= width).all()
    assert_like_torchvision(augment, pictures, params, ATOL["all"])


@pytest.mark.parametrize(("height", "width"), [(32, 32), (100, 20), (20, 100), (40, 64)])
def test_boxes_follow_torchvisions_distribution(height: int, width: int) -> None:
    """Two-sample Kolmogorov-Smirnov on each coordinate; fixed seeds, so the outcome is fixed too. At 100 x 20
    most attempts fail and the central box is common."""
    n = 3000
    torch.manual_seed(1)
    picture = torch.empty(3, height, width)
    theirs = torch.tensor([T.RandomResizedCrop.get_params(picture, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(n)])
    params = SimCLRAugment().draw(n, height, width, generator=generator(2))
    ours = torch.stack([params.top, params.left, params.height, params.width], dim=1)
    for column in range(4):
        assert stats.ks_2samp(ours[:, column].numpy(), theirs[:, column].numpy()).pvalue > 0.005
    for product in (lambda b: b[:, 2] * b[:, 3], lambda b: b[:, 0] * 1000 + b[:, 2]):
        assert stats.ks_2samp(product(ours).numpy(), product(theirs).numpy()).pvalue > 0.005


def test_central_box_where_nothing_fits() -> None:
    augment = SimCLRAugment(8, crop_scale=(1.0, 1.0), crop_ratio=(3 / 4, 4 / 3))
    for height, width in ((10, 400), (400, 10)):
        torch.manual_seed(0)
        box = T.RandomResizedCrop.get_params(torch.empty(3, height, width), [1.0, 1.0], [3 / 4, 4 / 3])
        params = augment.draw(5, height, width, generator=generator())
        for field, value in zip((params.top, params.left, params.height, params.width), box, strict=True):
            assert field.tolist() == [value] * 5


def test_colour_parameters_follow_torchvisions_distribution() -> None:
    n = 6000
    params = SimCLRAugment(blur_sigma=(0.1, 2.0)).draw(n, 32, 32, generator=generator(3))
    for column, (low, high) in enumerate([(0.2, 1.8), (0.2, 1.8), (0.2, 1.8), (-0.2, 0.2)]):
        values = params.factors[:, column].numpy()
        assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 0.005
    assert stats.kstest(params.sigma.numpy(), stats.uniform(0.1, 1.9).cdf).pvalue > 0.005
    orders = torch.unique(params.order, dim=0, return_counts=True)
    assert len(orders[0]) == math.factorial(4)
    assert stats.chisquare(orders[1].numpy()).pvalue > 0.005
    for drawn, p in ((params.flip, 0.5), (params.jitter, 0.8), (params.grey, 0.2), (params.blur, 0.5)):
        assert stats.binomtest(int(drawn.sum()), n, p).pvalue > 0.005
    strong = SimCLRAugment(jitter=(2.0, 0, 0, 0)).draw(n, 32, 32, generator=generator(4)).factors
    assert 0 <= float(strong[:, 0].min()) < 0.01 < 2.99 < float(strong[:, 0].max()) <= 3
    assert (strong[:, 1:3] == 1).all()
    assert (strong[:, 3] == 0).all()


def test_views_never_share_a_draw() -> None:
    params = SimCLRAugment().draw(2 * 500, 32, 32, generator=generator(5))
    assert len(torch.unique(params.factors, dim=0)) == 1000
    assert len(torch.unique(params.sigma)) > 990
    for column in params.factors.unbind(1):
        assert abs(stats.pearsonr(column[:500].numpy(), column[500:].numpy()).statistic) < 0.13
    picture = some_pictures(1, 32, 32).expand(6, -1, -1, -1)
    views = SimCLRAugment()(picture, views=2, generator=generator(6))
    assert len(torch.unique(views.flatten(1), dim=0)) == 12


def test_a_row_of_a_draw_depends_on_its_position_only() -> None:
    augment = SimCLRAugment()
    whole = augment.draw(50, 32, 40, generator=generator(7))
    part = augment.draw(20, torch.full((20,), 32), torch.full((20,), 40), generator=generator(7))
    for name in vars(whole):
        assert torch.equal(getattr(whole[:20], name), getattr(part, name)), name


@pytest.mark.parametrize(("size", "height", "width"), [(32, 32, 32), (16, 40, 24), (48, 40, 50)])
@pytest.mark.parametrize("piece", [1, 3, 37, 64])
def test_any_slice_gives_the_same_bytes(size: int, height: int, width: int, piece: int) -> None:
    """What a process applies to its share is what one process would have got, bit for bit."""
    augment = SimCLRAugment(size, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
    n = 70
    pictures = some_pictures(n, height, width)
    params = augment.draw(2 * n, height, width, generator=generator(8))
    whole = augment.apply(pictures, params)
    for start in range(0, n, piece):
        index = torch.arange(start, min(start + piece, n))
        rows = torch.cat([index, index + n])
        assert torch.equal(augment.apply(pictures[index], params[rows]), whole[rows])


@pytest.mark.parametrize("jitter", [(0.8, 0.8, 0.8, 0.2), (0.4, 0.0, 0.4, 0.0)])
def test_pieces_of_every_kind_give_the_same_views(
    jitter: tuple[float, float, float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a GPU is given them, all rows or eleven at once; up to rounding, which on a CPU depends on how rows lie."""
    augment = SimCLRAugment(32, jitter=jitter, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
    pictures = some_pictures(40, 40, 36)
    params = augment.draw(80, 40, 36, generator=generator(8))
    by_hue = augment.apply(pictures, params)
    made = ViewPlan.pieces
    for most in (80, 11):
        monkeypatch.setattr(ViewPlan, "pieces", lambda plan, at_most, by_hue, most=most: made(plan, most, by_hue=False))
        assert torch.allclose(augment.apply(pictures, params), by_hue, rtol=0, atol=1e-5)


def test_a_piece_has_every_row_once_and_what_is_due_to_it() -> None:
    """By the draw itself, whatever a piece holds."""
    augment = SimCLRAugment(16)
    params = augment.draw(200, 20, 20, generator=generator(3))
    plan = augment.plan(params)
    for most, by_hue in itertools.product((200, 23), (True, False)):
        seen = []
        for piece in plan.pieces(most, by_hue):
            rows = plan.rows[piece.rows]
            seen += rows.tolist()
            for due, parts in ((params.grey, piece.grey), (params.blur, piece.blur)):
                assert {int(row) for part in parts for row in rows[part]} == set(rows[due[rows]].tolist())
            for step in range(4):
                turned = params.jitter[rows] & (params.order[rows, step] == HUE)
                assert [int(row) for part in piece.turned[step] for row in rows[part]] == rows[turned].tolist()
                blended = {int(row) for part in piece.blended[step] for row in rows[part]}
                least = set(rows[params.jitter[rows] & ~turned].tolist())
                assert least == blended if by_hue else least <= blended <= set(rows[params.jitter[rows]].tolist())
        assert sorted(seen) == list(range(200))


def test_a_plan_made_ahead_gives_the_same_bytes() -> None:
    """Of the whole draw, and of a part of it, as a step in chunks takes it."""
    augment = SimCLRAugment(24, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.3))
    pictures = some_pictures(9, 60, 40)
    params = augment.draw(18, 60, 40, generator=generator())
    assert torch.equal(augment.apply(pictures, augment.plan(params)), augment.apply(pictures, params))
    rows = torch.tensor([3, 4, 12, 13])
    part = augment.apply(pictures[3:5], augment.plan(params[rows]))
    assert torch.equal(part, augment.apply(pictures, params)[rows])


def test_forward_draws_and_applies() -> None:
    augment = SimCLRAugment(16)
    pictures = some_pictures(5, 20, 24)
    for views in (1, 2, 3):
        params = augment.draw(views * 5, 20, 24, generator=generator(9))
        expected = augment.apply(pictures, params)
        actual = augment(pictures, views=views, generator=generator(9))
        assert actual.shape == (views * 5, 3, 16, 16)
        assert actual.dtype == torch.float32
        assert torch.equal(actual, expected)


def test_padding_is_never_seen() -> None:
    """Frames of different sizes: each as if it were alone, whatever lies outside it."""
    augment = SimCLRAugment(24)
    sizes = [(30, 40), (17, 50), (50, 12), (24, 24)]
    alone = [some_pictures(1, *size, seed=i) for i, size in enumerate(sizes)]
    frames = torch.full((4, 3, 50, 50), 255, dtype=torch.uint8)
    for frame, picture in zip(frames, alone, strict=True):
        frame[:, : picture.shape[2], : picture.shape[3]] = picture[0]
    valid = torch.tensor(sizes)
    views = augment(frames, valid=valid, generator=generator(10))
    assert torch.equal(views, augment(frames, valid=valid.numpy(), generator=generator(10)))
    params = augment.draw(8, valid[:, 0].repeat(2), valid[:, 1].repeat(2), generator=generator(10))
    for i in range(8):
        expected = reference(augment, alone[i % 4][0], params, i)
        torch.testing.assert_close(views[i], expected, rtol=0, atol=ATOL["all"])


def test_the_global_generator_serves_where_none_is_given() -> None:
    torch.manual_seed(3)
    pictures = some_pictures(3, 32, 32)
    one = SimCLRAugment()(pictures)
    torch.manual_seed(3)
    assert torch.equal(SimCLRAugment()(pictures), one)
    assert not torch.equal(SimCLRAugment()(pictures), one)


def test_pictures_are_left_alone() -> None:
    pictures = some_pictures(4, 32, 32)
    before = pictures.clone()
    SimCLRAugment()(pictures, generator=generator())
    assert torch.equal(pictures, before)


def test_kernel_is_a_tenth_of_the_side_made_odd() -> None:
    assert [SimCLRAugment(size).blur_kernel for size in (8, 32, 64, 96, 128, 224)] == [1, 3, 7, 9, 13, 23]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 0}, "size"),
        ({"crop_scale": (0.0, 1.0)}, "crop_scale"),
        ({"crop_scale": (0.5, 0.2)}, "crop_scale"),
        ({"crop_ratio": (2.0, 1.0)}, "crop_ratio"),
        ({"flip": 1.5}, "flip"),
        ({"grey_p": -0.1}, "grey_p"),
        ({"jitter": (0.8, 0.8, 0.8, 0.6)}, "jitter"),
        ({"jitter": 0.5}, "jitter is 0.5; it has to be 4 finite numbers"),
        ({"jitter": (0.8, 0.8, 0.8)}, "4 finite numbers"),
        ({"crop_scale": 0.2}, "crop_scale is 0.2; it has to be 2 finite numbers"),
        ({"crop_ratio": 1.0}, "2 finite numbers"),
        ({"blur_sigma": 1.0}, "2 finite numbers"),
        ({"blur_sigma": (0.0, 1.0)}, "blur_sigma"),
        ({"blur_kernel": 4}, "blur_kernel"),
        ({"mean": (0.5, 0.5, 0.5)}, "std"),
        ({"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.0, 0.2)}, "std"),
        ({"mean": (0.5, 0.5), "std": (0.2, 0.2)}, "mean"),
        ({"mean": (123.7, 116.3, 103.5), "std": (58.4, 57.1, 57.4)}, r"mean.* by 255"),
        ({"mean": (0.5, 0.5, 0.5), "std": (58.4, 57.1, 57.4)}, r"std.* by 255"),
        ({"mean": (math.nan,) * 3, "std": (0.2,) * 3}, "mean"),
        ({"size": 32.5}, "size"),
        ({"size": "32"}, "size"),
        ({"size": (32, 32)}, "size"),
        ({"crop_scale": ("a", "b")}, "2 finite numbers"),
        ({"crop_scale": (0.1, 0.2, 0.3)}, "2 finite numbers"),
        ({"jitter": None}, "4 finite numbers"),
        ({"flip": "yes"}, "flip"),
    ],
)
def test_bad_options_are_refused(options: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        SimCLRAugment(**options)


def test_options_may_be_numbers_of_any_library() -> None:
    pictures, plain = some_pictures(3, 8, 8), SimCLRAugment(8, crop_scale=(0.25, 1.0), flip=0.5, jitter_p=0.25)
    size: Any = np.int64(8)
    others: Any = {"crop_scale": np.array([0.25, 1.0]), "flip": np.float32(0.5), "jitter_p": np.float64(0.25)}
    views: Any = np.int64(2)
    given = SimCLRAugment(size, **others)(pictures, views=views, generator=torch.Generator().manual_seed(0))
    assert torch.equal(given, plain(pictures, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(
    "pictures",
    [Image.new("RGB", (8, 8)), [Image.new("RGB", (8, 8))] * 2, np.zeros((2, 8, 8, 3), np.uint8), "photo.png", None],
)
def test_what_is_no_tensor_is_named(pictures: Any) -> None:
    with pytest.raises(InputError, match=f"of type {type(pictures).__name__}; they have to be a tensor, uint8 .*pil_t"):
        SimCLRAugment(8)(pictures)


@pytest.mark.parametrize(
    "pictures", [torch.zeros(2, 3, 8, 8), torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.zeros(3, 8, 8)]
)
def test_bad_pictures_are_refused(pictures: Tensor) -> None:
    with pytest.raises(InputError, match="uint8"):
        SimCLRAugment(8)(pictures)


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (2, 3, 0, 8)])
def test_no_pictures_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="no pictures"):
        SimCLRAugment(8)(torch.zeros(shape, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"views": 0}, "views is 0"),
        ({"views": -1}, "views is -1"),
        ({"views": 1.5}, r"views is 1\.5"),
        ({"valid": torch.tensor([[8, 8]])}, r"valid has the shape \(1, 2\)"),
        ({"valid": torch.tensor([[8, 9], [8, 8]])}, "within its frame of 8 x 8"),
        ({"valid": torch.tensor([[0, 8], [8, 8]])}, "within its frame of 8 x 8"),
    ],
)
def test_views_of_nothing_are_refused(asked: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        SimCLRAugment(8)(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), **asked)


def test_a_draw_that_does_not_fit_is_refused() -> None:
    augment = SimCLRAugment(8)
    with pytest.raises(InputError, match="multiple"):
        augment.apply(some_pictures(3, 8, 8), augment.draw(4, 8, 8))


def test_views_are_the_same_within_autocast() -> None:
    augment = SimCLRAugment(16)
    pictures, draw = some_pictures(4, 20, 20), augment.draw(8, 20, 20, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        views = augment.apply(pictures, draw)
    assert torch.equal(views, augment.apply(pictures, draw))
