"""Headstart's head and loss in others' loops: lightly's for real, solo-learn's against the interface it publishes."""

import os
import runpy
import subprocess
import sys
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import nn

from headstart.heads import ProjectionHead
from headstart.ntxent import nt_xent

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    digits = load_digits()
    for i in range(32):
        Image.fromarray((digits.images[i] * 15.9).astype("uint8")).convert("RGB").save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("autoencoder") / "autoencoder.safetensors"
    save_file({f"encoder.embedding.{n}": t for n, t in nn.Linear(512, 64).state_dict().items()}, path)
    return path


def run(script: Path, *arguments: Path) -> str:
    """Run an example as its reader would; returns what it prints."""
    done = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=1800,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_lightly_example_trains(pictures: Path, autoencoder: Path) -> None:
    pytest.importorskip("lightly")
    lines = run(EXAMPLES / "lightly_loop.py", pictures, autoencoder).splitlines()
    losses = [float(line.rpartition(" ")[2]) for line in lines if line.startswith("epoch")]
    assert len(losses) == 2
    assert all(0 < loss < 10 for loss in losses)


def test_swapping_lightlys_head_for_ours_is_one_line(pictures: Path, autoencoder: Path, tmp_path: Path) -> None:
    """The example with lightly's own head in that one line runs as well, so nothing else in it is ours."""
    pytest.importorskip("lightly")
    source = (EXAMPLES / "lightly_loop.py").read_text()
    (ours,) = [line for line in source.splitlines() if line.startswith("head = ")]
    swapped = source.replace(ours, "head = SimCLRProjectionHead(512, 64, 128)").replace(
        "from headstart.heads import ProjectionHead", "from lightly.models.modules import SimCLRProjectionHead"
    )
    assert "headstart" not in swapped.split('"""')[2]
    (tmp_path / "theirs.py").write_text(swapped)
    assert run(tmp_path / "theirs.py", pictures, autoencoder).count("epoch") == 2


@pytest.mark.parametrize("objective", ["vicreg", "barlow", "sigreg"])
def test_another_objective_in_lightlys_loop_is_one_line(
    pictures: Path, autoencoder: Path, tmp_path: Path, objective: str
) -> None:
    pytest.importorskip("lightly")
    page = (EXAMPLES.parent / "docs" / "objectives.md").read_text(encoding="utf-8")
    (ours,) = [line for line in page.splitlines() if line.startswith("criterion = ")]
    source = (EXAMPLES / "lightly_loop.py").read_text()
    swapped = source.replace(
        "NTXentLoss(temperature=0.5)", ours.removeprefix("criterion = ").replace("vicreg", objective)
    )
    swapped = swapped.replace("from lightly.loss import NTXentLoss", f"from headstart.objectives import {objective}")
    (tmp_path / "ours.py").write_text(swapped)
    assert run(tmp_path / "ours.py", pictures, autoencoder).count("epoch") == 2


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("n", [2, 5, 64])
def test_our_loss_and_its_gradient_are_lightlys(temperature: float, n: int) -> None:
    losses = pytest.importorskip("lightly.loss")
    z = torch.randn(2 * n, 24, generator=torch.Generator().manual_seed(n), requires_grad=True)
    ours = nt_xent(z, temperature=temperature)
    theirs = losses.NTXentLoss(temperature=temperature)(*z.chunk(2))
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    one, other = (torch.autograd.grad(loss, z)[0] for loss in (ours, theirs))
    assert torch.allclose(one, other, rtol=1e-3, atol=1e-6)


def solo_learns_loss(z: torch.Tensor, indexes: torch.Tensor, temperature: float) -> torch.Tensor:
    """solo-learn's simclr_loss_func as it computes: masks of equal picture indexes."""
    u = nn.functional.normalize(z, dim=-1)
    similarity = torch.exp(u @ u.T / temperature)
    same = indexes[:, None] == indexes
    positive = (similarity * same.clone().fill_diagonal_(False)).sum(1)
    return -torch.log(positive / (positive + (similarity * ~same).sum(1))).mean()


@pytest.fixture
def solo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins with the interface of solo-learn's BaseMethod and SimCLR; its registry release needs torch 1.9."""

    class BaseMethod(nn.Module):
        projector: nn.Module

        def __init__(self, cfg: SimpleNamespace) -> None:
            super().__init__()
            self.backbone, self.features_dim = nn.Flatten(), 512

        @property
        def learnable_params(self) -> list[dict[str, Any]]:
            return [{"name": "backbone", "params": list(self.backbone.parameters())}]

        def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
            _, views, _ = batch
            return {"loss": torch.tensor(0.25), "z": [self.projector(self.backbone(x)) for x in views]}

    class SimCLR(BaseMethod):
        def __init__(self, cfg: SimpleNamespace) -> None:
            super().__init__(cfg)
            self.temperature = cfg.method_kwargs.temperature
            self.projector = nn.Linear(self.features_dim, cfg.method_kwargs.proj_output_dim)

        def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
            raise AssertionError("solo-learn's own loss")

    modules: dict[str, dict[str, object]] = {
        "": {},
        ".methods": {},
        ".methods.base": {"BaseMethod": BaseMethod},
        ".methods.simclr": {"SimCLR": SimCLR},
    }
    for name, members in modules.items():
        module = types.ModuleType(f"solo{name}")
        module.__dict__.update(members)
        monkeypatch.setitem(sys.modules, f"solo{name}", module)


def test_the_solo_learn_example_takes_the_step_solo_learn_would(solo: None, autoencoder: Path) -> None:
    method = runpy.run_path(str(EXAMPLES / "solo_learn_method.py"))["HeadstartSimCLR"]
    settings = types.SimpleNamespace(temperature=0.2, proj_output_dim=16, autoencoder=str(autoencoder))
    model = method(types.SimpleNamespace(method_kwargs=settings))
    assert isinstance(model.projector, ProjectionHead)
    views = torch.randn(2, 6, 2, 16, 16)
    loss = model.training_step([torch.arange(6), list(views), None], 0)
    z = torch.cat([model.projector(view.flatten(1)) for view in views])
    expected = solo_learns_loss(z, torch.arange(6).repeat(2), 0.2) + 0.25
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    moved = [p for group in model.learnable_params for p in group["params"]]
    assert {id(p) for p in moved} == {id(p) for p in model.projector.output.parameters()}
    assert model.projector.first.weight.grad is None
