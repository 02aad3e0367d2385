"""NT-Xent against Equation 2 written as two loops, in every form it may take, and across processes."""

import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from headstart import ntxent, objectives
from headstart.ntxent import nt_xent
from headstart.records.errors import InputError
from tests.processes import start_ranks


def two_loops(z: Tensor, temperature: float) -> Tensor:
    """Equation 2, letter by letter."""
    n = len(z) // 2
    similarity = lambda a, b: a @ b / (a.norm() * b.norm())  # noqa: E731
    losses = []
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        others = sum(torch.exp(similarity(z[i], z[k]) / temperature) for k in range(2 * n) if k != i)
        losses.append(-torch.log(torch.exp(similarity(z[i], z[j]) / temperature) / others))
    return torch.stack(losses).mean()


def matrix_form(z: Tensor, temperature: float) -> Tensor:
    """The same as one matrix: fast enough to be the reference for many rows."""
    u = torch.nn.functional.normalize(z, dim=1)
    logits = (u @ u.T / temperature).fill_diagonal_(-math.inf)
    n = len(z) // 2
    return torch.nn.functional.cross_entropy(logits, torch.arange(2 * n).roll(n))


def value_and_gradient(function: Callable[..., Tensor], z: Tensor, *args: object) -> tuple[Tensor, Tensor]:
    z = z.clone().requires_grad_()
    loss = function(z, *args)
    (gradient,) = torch.autograd.grad(loss, z)
    return loss.detach(), gradient


def random_z(rows: int, width: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture(params=["one block", "triangle", "rows"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Makes every call take one form, with blocks small enough that a few rows need several, some of them
    partial."""
    if request.param != "one block":
        monkeypatch.setattr(ntxent, "CPU_TILE", (5, 7))
    if request.param == "rows":
        monkeypatch.setattr(ntxent, "SAFE_EXPONENT", 0.0)
    return request.param


@pytest.mark.parametrize(("n", "width"), [(2, 1), (2, 3), (3, 8), (8, 4), (13, 32)])
@pytest.mark.parametrize("temperature", [0.07, 0.5, 2.0])
def test_equals_equation_2(form: str, n: int, width: int, temperature: float) -> None:
    z = random_z(2 * n, width, seed=n)
    loss, gradient = value_and_gradient(nt_xent, z, temperature)
    expected, expected_gradient = value_and_gradient(two_loops, z, temperature)
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-10)


@given(n=st.integers(2, 20), width=st.integers(1, 16), seed=st.integers(0, 10**6), temperature=st.floats(0.05, 5))
@settings(deadline=None, max_examples=25)
def test_forms_agree(n: int, width: int, seed: int, temperature: float) -> None:
    z = random_z(2 * n, width, seed)
    expected = value_and_gradient(matrix_form, z, temperature)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ntxent, "CPU_TILE", (3, 4))
        for exponent in (60.0, 0.0):
            patch.setattr(ntxent, "SAFE_EXPONENT", exponent)
            actual = value_and_gradient(nt_xent, z, temperature)
            torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("exponent", [60.0, 0.0])
def test_many_rows_with_the_real_block_sizes(exponent: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A number of rows that none of the blocks divides; float64 to 1e-10, float32 to its own rounding."""
    monkeypatch.setattr(ntxent, "SAFE_EXPONENT", exponent)
    z = random_z(2 * 1500, 32)
    expected, expected_gradient = value_and_gradient(matrix_form, z, 0.5)
    loss, gradient = value_and_gradient(nt_xent, z, 0.5)
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-12)
    loss, gradient = value_and_gradient(nt_xent, z.float(), 0.5)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        gradient.double(), expected_gradient, rtol=0, atol=1e-6 * float(expected_gradient.abs().max())
    )


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads Linux's count of a process's memory")
def test_memory_grows_with_rows_not_with_pairs_of_rows() -> None:
    """4,096 pairs in a process of its own: one matrix of all products would take 268 MB, the loss gets by with 100."""
    code = """
import re, torch
from headstart.ntxent import nt_xent
megabytes = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1000
nt_xent(torch.randn(1024, 128, requires_grad=True)).backward()
z = torch.randn(8192, 128, requires_grad=True)
before = megabytes()
nt_xent(z).backward()
print(megabytes() - before)
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    extra = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert 5 < float(extra.stdout) < 100  # less than 5 would mean that nothing was measured


def test_very_low_temperature_stays_finite(form: str) -> None:
    """exp(1 / 0.005) is no float32; the maximum has to be subtracted."""
    z = random_z(12, 4)
    loss, gradient = value_and_gradient(nt_xent, z.float(), 0.005)
    expected, expected_gradient = value_and_gradient(matrix_form, z, 0.005)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("factor", [1e-30, 1e-3, 7.0, 1e30])
def test_only_directions_count(form: str, factor: float) -> None:
    """In float32, where the squares of these numbers overflow or vanish."""
    z = random_z(12, 5, dtype=torch.float32)
    rows = torch.ones(12, 1)
    rows[3] = factor
    torch.testing.assert_close(nt_xent(z * factor), nt_xent(z), rtol=1e-6, atol=0)
    torch.testing.assert_close(nt_xent(z * rows), nt_xent(z), rtol=1e-6, atol=0)


def test_computes_in_float32_under_autocast_and_for_bfloat16(form: str) -> None:
    z = random_z(12, 16, dtype=torch.float32).requires_grad_()
    expected = nt_xent(z)
    (gradient,) = torch.autograd.grad(expected, z)
    with torch.autocast("cpu", torch.bfloat16):
        loss = nt_xent(z)
        loss.backward()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=0, atol=0)
    torch.testing.assert_close(z.grad, gradient, rtol=0, atol=0)
    z = z.detach()
    low = z.bfloat16().requires_grad_()
    loss = nt_xent(low)
    loss.backward()
    assert low.grad is not None
    assert low.grad.dtype == torch.bfloat16
    torch.testing.assert_close(loss, nt_xent(low.detach().float()), rtol=0, atol=0)


def test_a_row_of_zeros_gives_finite_numbers(form: str) -> None:
    z = random_z(8, 3)
    z[2] = 0
    loss, gradient = value_and_gradient(nt_xent, z)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("z", "words"),
    [
        (torch.randn(2, 4), "at least 2"),
        (torch.randn(5, 4), r"\(2N, d\)"),
        (torch.randn(4), r"\(2N, d\)"),
        (torch.zeros(4, 4, dtype=torch.int64), "floating point"),
        (torch.tensor([[1.0, 2], [3, math.nan], [1, 2], [3, 4]]), "not finite"),
        (torch.tensor([[1.0, 2], [3, math.inf], [1, 2], [3, 4]]), "not finite"),
    ],
)
def test_bad_input_is_refused(z: Tensor, words: str) -> None:
    with pytest.raises(InputError, match=words):
        nt_xent(z)


@pytest.mark.parametrize("loss", ["nt_xent", "vicreg", "barlow", "sigreg"])
@pytest.mark.parametrize("call", [lambda f, z: f(z, z), lambda f, z: f([z, z]), lambda f, z: f(z.numpy())])
def test_two_tensors_of_views_are_to_be_joined(loss: str, call: Callable[[Any, Tensor], Tensor]) -> None:
    """As other libraries' losses take them; a second one is no temperature and no weight."""
    with pytest.raises(InputError, match=rf"^{loss}: .*joined with torch\.cat\(\[z0, z1\]\)"):
        call(getattr(objectives, loss), torch.randn(4, 8))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf, "0.5", None])
def test_bad_temperature_is_refused(temperature: Any) -> None:
    with pytest.raises(InputError, match="temperature"):
        nt_xent(torch.randn(4, 4), temperature)


def _one_rank(rank: int, ranks: int, path: Path) -> None:
    """What DistributedDataParallel does: each rank the loss of its share, the gradients averaged."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1"}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{path}/store{ranks}", rank=rank, world_size=ranks)
    pictures, weight = torch.load(f"{path}/input.pt")
    share = pictures.chunk(2)
    n = len(share[0]) // ranks
    own = torch.cat([view[rank * n : (rank + 1) * n] for view in share])
    weight.requires_grad_()
    loss = nt_xent(own @ weight, 0.2)
    loss.backward()
    for tensor in (loss.detach(), weight.grad):
        dist.all_reduce(tensor)
        tensor /= ranks
    if rank == 0:
        torch.save((loss.detach(), weight.grad), f"{path}/output{ranks}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_equal_one_process(tmp_path: Path, ranks: int) -> None:
    pictures, weight = random_z(24, 6), random_z(6, 5, seed=1)
    torch.save((pictures, weight), tmp_path / "input.pt")
    start_ranks(_one_rank, (ranks, str(tmp_path)), ranks)
    loss, gradient = torch.load(tmp_path / f"output{ranks}.pt")
    expected, expected_gradient = value_and_gradient(lambda w: matrix_form(pictures @ w, 0.2), weight)
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-9)
