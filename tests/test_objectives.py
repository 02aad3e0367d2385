"""VICReg, Barlow Twins and SIGReg against their papers' formulas, lightly's classes, and across processes."""

import math
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import lightly.loss
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from headstart.barlow import barlow
from headstart.records.errors import InputError
from headstart.sigreg import _quadrature, sigreg
from headstart.vicreg import vicreg
from tests.processes import start_ranks


def random_z(rows: int, width: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def unit_columns(width: int, count: int, seed: int = 0) -> Tensor:
    return torch.nn.functional.normalize(random_z(width, count, seed + 100), dim=0)


def total(parts: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(parts)).sum(0)


def written_vicreg(z: Tensor, invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0) -> Tensor:
    """Equations 1 to 6 of VICReg, index by index, with the constants of its authors' code."""
    views = z.chunk(2)
    n, d = views[0].shape
    s = total(((views[0][i] - views[1][i]) ** 2).sum() for i in range(n)) / n
    v, c = [], []
    for view in views:
        mean = total(view[i] for i in range(n)) / n
        cov = total(torch.outer(view[i] - mean, view[i] - mean) for i in range(n)) / (n - 1)
        zero = z.new_zeros(())
        v.append(total(torch.maximum(zero, 1 - torch.sqrt(cov[j, j] + 1e-4)) for j in range(d)) / d)
        c.append(sum((cov[i, j] ** 2 for i in range(d) for j in range(d) if i != j), zero) / d)
    return invariance / d * s + variance / 2 * (v[0] + v[1]) + covariance * (c[0] + c[1])


def written_barlow(z: Tensor, off_diagonal: float = 5e-3) -> Tensor:
    """Equations 1 and 2 of Barlow Twins, index by index; projections centred along the batch, as they say."""
    one, two = (view - view.mean(dim=0) for view in z.chunk(2))
    n, d = one.shape
    loss = z.new_zeros(())
    for i in range(d):
        for j in range(d):
            product = total(one[b, i] * two[b, j] for b in range(n))
            c = product / torch.sqrt(total(one[b, i] ** 2 for b in range(n)))
            c = c / torch.sqrt(total(two[b, j] ** 2 for b in range(n)))
            loss = loss + ((1 - c) ** 2 if i == j else off_diagonal * c**2)
    return loss


def written_sigreg(z: Tensor, directions: Tensor, weight: float = 0.05) -> Tensor:
    """LeJEPA's two terms, direction by direction and knot by knot."""
    views = z.chunk(2)
    n, d = views[0].shape
    mean = (views[0] + views[1]) / 2
    prediction = sum(((view - mean) ** 2).sum() for view in views) / (2 * n * d)
    statistics = []
    for view in views:
        for direction in directions.T:
            x, integral = view @ direction, z.new_zeros(())
            for k in range(17):
                t = 3 * k / 16
                phi = math.exp(-(t**2) / 2)
                error = (torch.cos(t * x).mean() - phi) ** 2 + torch.sin(t * x).mean() ** 2
                integral = integral + error * phi * (3 / 16) * (1 if k in (0, 16) else 2)
            statistics.append(n * integral)
    return (1 - weight) * prediction + weight * torch.stack(statistics).mean()


OURS: dict[str, Callable[[Tensor], Tensor]] = {
    "vicreg": lambda z: vicreg(z),
    "barlow": lambda z: barlow(z, epsilon=0.0),
    "sigreg": lambda z: sigreg(z, directions=unit_columns(z.shape[1], 5)),
}
WRITTEN: dict[str, Callable[[Tensor], Tensor]] = {
    "vicreg": written_vicreg,
    "barlow": written_barlow,
    "sigreg": lambda z: written_sigreg(z, unit_columns(z.shape[1], 5)),
}


def value_and_gradient(function: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    z = z.clone().requires_grad_()
    loss = function(z)
    (gradient,) = torch.autograd.grad(loss, z)
    return loss.detach(), gradient


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize(("n", "width", "scale"), [(2, 1, 1.0), (3, 4, 0.3), (13, 6, 1.0), (8, 5, 4.0)])
def test_equals_its_papers_formula(name: str, n: int, width: int, scale: float) -> None:
    z = scale * random_z(2 * n, width, seed=n)
    for ours, written in zip(value_and_gradient(OURS[name], z), value_and_gradient(WRITTEN[name], z), strict=True):
        torch.testing.assert_close(ours, written, rtol=1e-10, atol=1e-10)


def _lightly_sigreg(z: Tensor, directions: Tensor) -> Tensor:
    loss = lightly.loss.LeJEPALoss()
    loss.sigreg._generate_unit_vectors = lambda *_, **__: directions
    one, two = z.chunk(2)
    loss.sigreg.t, loss.sigreg.phi, loss.sigreg.weights = (
        buffer.double() for buffer in (loss.sigreg.t, loss.sigreg.phi, loss.sigreg.weights)
    )
    # Two global views; lightly asks for a local one too, and the second global view stands in for it.
    statistic = loss.sigreg(torch.stack([one, two]))
    prediction = lightly.loss.lejepa_loss.lejepa_invariance_loss(
        all_proj=torch.stack([one, two]), global_proj=torch.stack([one, two])
    )
    return 0.05 * statistic + 0.95 * prediction


LIGHTLY = {
    "vicreg": (lambda z: vicreg(z), lambda z: lightly.loss.VICRegLoss()(*z.chunk(2))),
    "barlow": (lambda z: barlow(z), lambda z: lightly.loss.BarlowTwinsLoss()(*z.chunk(2))),
    "sigreg": (OURS["sigreg"], lambda z: _lightly_sigreg(z, unit_columns(z.shape[1], 5))),
}


@pytest.mark.parametrize("name", LIGHTLY)
def test_equals_lightlys_class(name: str) -> None:
    if name == "sigreg" and not hasattr(lightly.loss, "LeJEPALoss"):
        pytest.skip("this lightly has no LeJEPALoss")
    z = random_z(64, 12, seed=3)
    ours, theirs = (value_and_gradient(function, z) for function in LIGHTLY[name])
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", OURS)
@given(n=st.integers(2, 12), width=st.integers(2, 8), seed=st.integers(0, 10**6))
def test_order_of_pictures_and_names_of_views_do_not_matter(name: str, n: int, width: int, seed: int) -> None:
    one, two = random_z(2 * n, width, seed).chunk(2)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    expected = OURS[name](torch.cat([one, two]))
    torch.testing.assert_close(OURS[name](torch.cat([one[order], two[order]])), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(OURS[name](torch.cat([two, one])), expected, rtol=1e-9, atol=1e-9)


@given(n=st.integers(3, 12), width=st.integers(1, 8), seed=st.integers(0, 10**6))
def test_barlow_looks_at_neither_scale_nor_offset_of_a_feature(n: int, width: int, seed: int) -> None:
    z = random_z(2 * n, width, seed)
    scale, offset = random_z(2, width, seed + 1).exp(), random_z(2, width, seed + 2)
    moved = torch.cat([view * scale[i] + offset[i] for i, view in enumerate(z.chunk(2))])
    torch.testing.assert_close(barlow(moved, epsilon=0.0), barlow(z, epsilon=0.0), rtol=1e-7, atol=1e-7)


@given(n=st.integers(2, 12), width=st.integers(1, 8), seed=st.integers(0, 10**6))
def test_vicreg_looks_at_no_common_offset(n: int, width: int, seed: int) -> None:
    z = random_z(2 * n, width, seed)
    torch.testing.assert_close(vicreg(z + random_z(1, width, seed + 1)), vicreg(z), rtol=1e-7, atol=1e-7)


@given(n=st.integers(2, 12), width=st.integers(2, 8), seed=st.integers(0, 10**6))
def test_sigreg_prefers_no_axis(n: int, width: int, seed: int) -> None:
    """Turning projections and directions alike changes nothing."""
    z, directions = random_z(2 * n, width, seed), unit_columns(width, 4, seed)
    turn = torch.linalg.qr(random_z(width, width, seed + 1)).Q
    torch.testing.assert_close(
        sigreg(z @ turn, directions=turn.T @ directions), sigreg(z, directions=directions), rtol=1e-9, atol=1e-9
    )


def test_sigreg_knows_a_gaussian() -> None:
    z = random_z(8192, 16)
    gaussian = sigreg(z, weight=1.0, directions=64, generator=torch.Generator().manual_seed(0))
    assert gaussian < 1.5
    for other in (0.3 * z, z.abs(), z * torch.tensor([3.0] + [0.0] * 15), torch.zeros_like(z)):
        assert sigreg(other, weight=1.0, directions=64, generator=torch.Generator().manual_seed(0)) > 10 * gaussian


@pytest.mark.parametrize("name", OURS)
def test_computes_in_float32_under_autocast_and_for_bfloat16(name: str) -> None:
    z = random_z(24, 16, dtype=torch.float32).requires_grad_()
    expected, gradient = value_and_gradient(OURS[name], z.detach())
    with torch.autocast("cpu", torch.bfloat16):
        loss = OURS[name](z)
        loss.backward()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.detach(), expected, rtol=0, atol=0)
    torch.testing.assert_close(z.grad, gradient, rtol=0, atol=0)
    low = z.detach().bfloat16()
    torch.testing.assert_close(OURS[name](low), OURS[name](low.float()), rtol=0, atol=0)


@pytest.mark.parametrize("function", [vicreg, barlow, sigreg])
@pytest.mark.parametrize(
    ("z", "words"),
    [
        (torch.randn(2, 4), "at least 2"),
        (torch.randn(5, 4), r"\(2N, d\)"),
        (torch.randn(4), r"torch\.cat"),
        (torch.zeros(4, 4, dtype=torch.int64), "floating point"),
        ([[1.0, 2.0]] * 4, "z is of type list"),
    ],
)
def test_bad_input_is_refused(function: Callable[[Tensor], Tensor], z: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        function(z)


def test_sigreg_trains_after_a_call_in_inference_mode() -> None:
    _quadrature.cache_clear()
    z = torch.randn(16, 4, requires_grad=True)
    with torch.inference_mode():
        sigreg(z)
    sigreg(z).backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_collapsed_features_give_finite_gradients() -> None:
    z = torch.zeros(8, 3, dtype=torch.float64)
    for function in (vicreg, barlow, OURS["sigreg"]):
        loss, gradient = value_and_gradient(function, z)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()


def _one_rank(rank: int, ranks: int, path: Path) -> None:
    """What DistributedDataParallel does: each rank the loss of its share, the gradients averaged."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1"}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{path}/store{ranks}", rank=rank, world_size=ranks)
    pictures, weight = torch.load(f"{path}/input.pt")
    share = pictures.chunk(2)
    n = len(share[0]) // ranks
    own = torch.cat([view[rank * n : (rank + 1) * n] for view in share])
    found = {}
    for name, function in OURS.items():
        leaf = weight.clone().requires_grad_()
        loss = function(own @ leaf)
        loss.backward()
        found[name] = (loss.detach(), leaf.grad)
        for tensor in found[name]:
            dist.all_reduce(tensor)
            tensor /= ranks
    if rank == 0:
        torch.save(found, f"{path}/output{ranks}.pt")
    dist.destroy_process_group()


def _of_weight(function: Callable[[Tensor], Tensor], pictures: Tensor, weight: Tensor) -> Tensor:
    return function(pictures @ weight)


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_equal_one_process(tmp_path: Path, ranks: int) -> None:
    pictures, weight = random_z(24, 6), random_z(6, 5, seed=1)
    torch.save((pictures, weight), tmp_path / "input.pt")
    start_ranks(_one_rank, (ranks, str(tmp_path)), ranks)
    found = torch.load(tmp_path / f"output{ranks}.pt")
    for name, function in OURS.items():
        expected = value_and_gradient(partial(_of_weight, function, pictures), weight)
        for a, b in zip(found[name], expected, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-9)
