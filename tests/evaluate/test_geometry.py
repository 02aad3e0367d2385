"""Geometry against plain formulas and cases with known answers."""

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from headstart.evaluate import geometry


def random(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_alignment_is_the_mean_squared_distance_of_pairs() -> None:
    x = random(20, 5)
    a = F.normalize(x, dim=1)
    expected = np.mean([float((a[i] - a[i + 10]).norm() ** 2) for i in range(10)])
    assert geometry.alignment(x) == pytest.approx(expected, rel=1e-5)
    assert geometry.alignment(torch.cat([x, 3 * x])) == pytest.approx(0, abs=1e-6)


def test_uniformity_is_the_plain_formula() -> None:
    x = random(30, 5)
    a = F.normalize(x, dim=1)
    expected = torch.pdist(a).square().mul(-2).exp().mean().log()
    assert geometry.uniformity(x) == pytest.approx(float(expected), rel=1e-5)
    assert geometry.uniformity(torch.ones(10, 3)) == pytest.approx(0, abs=1e-5)
    assert math.isnan(geometry.uniformity(torch.ones(1, 3)))


def test_uniformity_in_blocks_and_of_thinned_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    x = random(2500, 4)
    expected = torch.pdist(F.normalize(x, dim=1)).square().mul(-2).exp().mean().log()
    assert geometry.uniformity(x) == pytest.approx(float(expected), rel=1e-4)
    monkeypatch.setattr(geometry, "MOST", 1000)
    assert geometry.uniformity(x) == pytest.approx(float(expected), rel=0.05)


def test_spread_is_the_mean_squared_distance_of_different_rows() -> None:
    x = random(30, 5)
    assert geometry.spread(x) == pytest.approx(float(torch.pdist(F.normalize(x, dim=1)).square().mean()), rel=1e-5)
    assert geometry.spread(torch.ones(10, 3)) == pytest.approx(0, abs=1e-12)
    assert geometry.spread(torch.zeros(10, 3)) == 0


def test_effective_rank_is_rankme() -> None:
    x = random(50, 8)
    singular = torch.linalg.svdvals(x.double())
    p = singular / singular.sum() + 1e-7
    assert geometry.effective_rank(x) == pytest.approx(float((-(p * p.log()).sum()).exp()), rel=1e-6)


@pytest.mark.parametrize(("n", "d"), [(40, 6), (6, 40)])
def test_effective_rank_of_known_matrices(n: int, d: int) -> None:
    line = torch.outer(torch.arange(1.0, n + 1), torch.ones(d))
    assert geometry.effective_rank(line) == pytest.approx(1, abs=1e-3)
    assert geometry.effective_rank(torch.linalg.qr(random(max(n, d), min(n, d)))[0]) == pytest.approx(6, rel=1e-3)
    assert geometry.effective_rank(torch.zeros(n, d)) == 0


def test_spectrum_is_the_shares_of_variance() -> None:
    x = random(200, 12) * torch.arange(1, 13) + 7
    variances = np.sort(np.linalg.eigvalsh(np.cov(x.double().numpy().T)))[::-1]
    shares = {int(k): share for k, share in geometry.of_features(x.numpy())["spectrum"]}
    assert list(shares) == [1, 2, 4, 8, 12]
    for position, share in shares.items():
        assert share == pytest.approx(variances[position - 1] / variances.sum(), rel=1e-6)


def test_mean_norm() -> None:
    assert geometry.mean_norm(torch.tensor([[3.0, 4.0], [0.0, 0.0]])) == 2.5


def test_of_features_goes_into_json() -> None:
    h = random(40, 6).relu().numpy()
    h[:, 2] = 0
    found = json.loads(json.dumps(geometry.of_features(h), allow_nan=False))
    assert found["pictures"] == 40
    assert found["dead"] == pytest.approx(1 / 6)
    assert 1 < found["effective_rank"] < 6
    assert found["spectrum"][0][1] > found["spectrum"][-1][1]


@pytest.mark.parametrize("h", [np.zeros((0, 4)), np.ones((1, 4)), np.full((5, 4), np.nan)])
def test_undefined_figures_are_none(h: np.ndarray) -> None:
    found = geometry.of_features(h)
    assert found["pictures"] == len(h)
    assert {v for k, v in found.items() if k != "pictures"} == {None}


def test_collapsed_features() -> None:
    found = json.loads(json.dumps(geometry.of_features(np.ones((20, 4))), allow_nan=False))
    assert found["effective_rank"] == pytest.approx(1, abs=1e-3)
    assert found["uniformity"] == pytest.approx(0, abs=1e-5)
    assert found["dead"] == 1
