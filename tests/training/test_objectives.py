"""A run with each objective: its terms in metrics.jsonl, its draws a function of the position, its name in the hash."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from headstart.records.config import Config, from_dict, hash_of
from headstart.records.errors import InputError
from headstart.records.folder import RunFolder, read_metrics
from headstart.records.names import OBJECTIVES
from headstart.training.contrastive import Contrastive
from headstart.training.run import run
from headstart.vicreg import vicreg
from tests.device import stages

TERMS = {
    "nt_xent": set(),
    "vicreg": {"invariance", "variance", "covariance"},
    "barlow": {"invariance", "redundancy"},
    "sigreg": {"prediction", "statistic"},
}


def config(objective: str, **contrastive: object) -> Config:
    return from_dict(
        {
            "data": {"sources": ["digits"], "size": 16, "limit": 100},
            "backbone": {"name": "resnet18"},
            "head": {"init": "random", "frozen": False, "hidden_dim": 16, "output_dim": 8},
            "contrastive": {"objective": objective, "epochs": 2, "batch_size": 32, "optimizer": "adamw", **contrastive},
            "stages": "contrastive",
            "precision": "float32",
            "device": "cpu",
            "threads": 1,
        }
    )


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_run_says_what_its_objective_is_made_of(objective: str, tmp_path: Path) -> None:
    out = run(config(objective), tmp_path / "run", quiet=True)
    lines = [line for line in read_metrics(RunFolder(out).metrics) if line["stage"] == "contrastive"]
    assert len(lines) == 2
    assert all({name for name in line if name in set().union(*TERMS.values())} == TERMS[objective] for line in lines)


def test_sigreg_draws_the_same_directions_in_chunks_and_again(tmp_path: Path) -> None:
    """The loss of the first step sees the same z and the same directions, however the batch is passed."""
    whole = run(config("sigreg", epochs=1, norms="given"), tmp_path / "whole", quiet=True)
    again = run(config("sigreg", epochs=1, norms="given"), tmp_path / "again", quiet=True)
    chunks = run(config("sigreg", epochs=1, norms="given", chunk=8), tmp_path / "chunks", quiet=True)
    losses = [RunFolder(out).read_result()["contrastive"]["train_loss"] for out in (whole, again, chunks)]
    assert losses[0] == losses[1]
    assert losses[2] == pytest.approx(losses[0], rel=1e-3)


def test_sgds_unset_rate_is_nt_xents_alone(tmp_path: Path) -> None:
    for objective in ("vicreg", "barlow", "sigreg"):
        with pytest.raises(InputError, match=f"{objective} give --contrastive.lr, or --contrastive.optimizer adamw"):
            run(config(objective, optimizer="sgd"), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_only_another_objective_is_another_run() -> None:
    house = Config()
    other = replace(house, contrastive=replace(house.contrastive, objective="vicreg"))
    assert hash_of(other, "x") != hash_of(house, "x")
    stronger = replace(other, vicreg=replace(other.vicreg, covariance=2.0))
    assert hash_of(stronger, "x") != hash_of(other, "x")
    with pytest.raises(InputError, match="nt_xent, vicreg, barlow"):
        config("byol")


def test_the_gradient_of_an_epoch_is_the_objective_s_on_the_watched_views() -> None:
    """Rows' mean norm times their number, of g as it is judged; g is left in training mode."""
    training = stages.simclr(torch.device("cpu"), objective="vicreg").training
    assert isinstance(training, Contrastive)
    model, watch = training.model, training.watch
    h, _ = watch.look(model)
    found = watch.gradient(model, h)
    assert model.head.training
    asked = h.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(vicreg(model.head.eval()(asked)), asked)
    assert found == pytest.approx(len(h) * wanted.norm(dim=1).mean().item(), rel=1e-4)
    broken = h.clone()
    broken[0, 0] = math.nan
    assert watch.gradient(model, broken) is None
