"""Figures without labels, each held against its paper's formula written out plainly in float64."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headstart import data
from headstart.augment import SimCLRAugment
from headstart.data.images import Images
from headstart.engine.device import Compute
from headstart.evaluate import geometry, spectra, unlabelled
from headstart.records.config import DataConfig

CPU = Compute(torch.device("cpu"), torch.float32)


def images_of(n: int) -> Images:
    return data.open_images(DataConfig(sources=("digits",), limit=n, size=16))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def features(n: int, d: int, decay: float = 1.0) -> Tensor:
    """n rows whose spectrum falls, and whose mean is not zero."""
    return random(n, d) * torch.arange(1, d + 1) ** -decay + 0.3


def lidar_of_its_paper(x: np.ndarray) -> float:
    """Equations 1 to 4 of Thilak et al. 2023, with loops and a square root of the matrix."""
    n, q, d = x.shape
    mean = x.reshape(-1, d).mean(axis=0)
    between, within = np.zeros((d, d)), 1e-4 * np.eye(d)
    for i in range(n):
        centre = x[i].mean(axis=0)
        between += np.outer(centre - mean, centre - mean) / n
        for j in range(q):
            within += np.outer(x[i, j] - centre, x[i, j] - centre) / (n * q)
    values, vectors = np.linalg.eigh(within)
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    found = np.clip(np.linalg.eigvalsh(root @ between @ root), 0, None)
    shares = found / found.sum() + 1e-7
    return float(np.exp(-sum(p * np.log(p) for p in shares)))


def alpha_of_its_code(x: np.ndarray) -> float:
    """Agrawal et al. 2022: log eigenvalues of the covariance on log rank, ranks 4 to 100, weighted by 1/rank."""
    values = np.sort(np.linalg.eigvalsh(np.cov(x.T)))[::-1]
    rank = np.arange(4, min(100, len(values)) + 1)
    slope, _ = np.polyfit(np.log(rank), np.log(values[rank - 1]), 1, w=np.sqrt(1 / rank))
    return -float(slope)


@pytest.mark.parametrize(("n", "q", "d"), [(12, 8, 5), (12, 8, 40), (9, 2, 30)])
def test_lidar_is_the_formula_of_its_paper(n: int, q: int, d: int) -> None:
    views = features(n, d)[:, None] + 0.2 * random(n, q, d, seed=1)
    assert spectra.lidar(views) == pytest.approx(lidar_of_its_paper(views.numpy()), rel=1e-8)
    assert spectra.lidar(torch.ones(n, q, d)) == 0


def test_lidar_counts_the_directions_that_tell_pictures_apart() -> None:
    centres = torch.cat([torch.eye(6), -torch.eye(6)]).double()
    padded = torch.cat([centres, torch.zeros(12, 10)], dim=1)
    assert spectra.lidar(padded[:, None] + 1e-3 * random(12, 8, 16)) == pytest.approx(6, rel=0.05)


@pytest.mark.parametrize(("n", "d"), [(400, 30), (400, 150), (60, 200)])
def test_alpha_req_is_the_fit_of_its_code(n: int, d: int) -> None:
    x = features(n, d)
    variances = geometry.of_features(x.float().numpy())["alpha_req"]
    covariance = np.linalg.svd(x.float().double().numpy() - x.float().double().numpy().mean(axis=0))[1] ** 2
    if n > d:
        assert variances == pytest.approx(alpha_of_its_code(x.float().double().numpy()), rel=1e-8)
    rank = np.arange(4, min(100, min(n - 1, d)) + 1)
    slope, _ = np.polyfit(np.log(rank), np.log(covariance[rank - 1]), 1, w=np.sqrt(1 / rank))
    assert variances == pytest.approx(-float(slope), rel=1e-8)


def test_alpha_req_of_a_power_law_is_its_exponent() -> None:
    for exponent in (0.5, 1.0, 2.0):
        assert spectra.alpha_req(torch.arange(1, 61).double() ** -exponent) == pytest.approx(exponent, rel=1e-9)
    assert spectra.alpha_req(torch.ones(12)) is None
    assert spectra.alpha_req(torch.zeros(50)) is None


@pytest.mark.parametrize(("n", "d"), [(300, 40), (30, 80)])
def test_rankme_is_the_formula_of_its_paper(n: int, d: int) -> None:
    """Equation 1 of Garrido et al. 2023."""
    x = features(n, d).float()
    singular = np.linalg.svd(x.double().numpy(), compute_uv=False)
    shares = singular / singular.sum() + 1e-7
    plain = float(np.exp(-np.sum(shares * np.log(shares))))
    assert geometry.of_features(x.numpy())["effective_rank"] == pytest.approx(plain, rel=1e-6)


class Means(nn.Module):
    """Mean colour of each quarter of a picture."""

    num_features = 12

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)


def test_figures_of_a_backbone_are_those_of_its_features_and_views() -> None:
    images = images_of(40)
    test = np.arange(40)
    h = np.random.default_rng(0).normal(size=(40, 12)).astype(np.float32)
    same = SimCLRAugment(size=16, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0, jitter_p=0, grey_p=0, blur_p=0)
    still = unlabelled.figures(Means(), h, images, test, same, CPU)
    assert {name: still[name] for name in geometry.of_features(h)} == geometry.of_features(h)
    assert (still["viewed"], still["views"]) == (40, 6)
    assert still["alignment"] == pytest.approx(0, abs=1e-9)
    assert still["retrieval"] == 1
    harsh = unlabelled.figures(Means(), h, images, test, SimCLRAugment(size=16), CPU)
    assert harsh["alignment"] > 1e-3
    assert harsh["lidar"] < still["lidar"]
    assert harsh == unlabelled.figures(Means(), h, images, test, SimCLRAugment(size=16), CPU)


def test_what_cannot_be_said_is_none() -> None:
    images, augment = images_of(4), SimCLRAugment(size=16)
    broken = np.full((4, 12), math.nan, np.float32)
    found = unlabelled.figures(Means(), broken, images, np.arange(4), augment, CPU)
    assert {found[name] for name in ("lidar", "retrieval", "alignment", "alpha_req", "effective_rank")} == {None}
    one = unlabelled.figures(Means(), broken[:1] * 0, images, np.arange(1), augment, CPU)
    assert one["lidar"] is None
