"""bfloat16 against float32 over a short training: the same loss and the same kNN, within what rounding and seeds do.

A training is chaotic: weights that differ in the last bit of float32 end in another loss. How far apart is measured
beside it, for it is the least that any other arithmetic may do, other kernels and another machine among them.
"""

import math

import numpy as np
import pytest
import torch
from torch import nn

from headstart.engine.device import choose
from headstart.engine.randomness import generator
from headstart.records.folder import RunFolder
from headstart.training import run as pretraining
from headstart.training.open_run import OpenRun
from tests.runs import small, until

pytestmark = pytest.mark.soak  # nine trainings

SEEDS = range(3)
BATCH = 64


def backbone_but_for_the_last_bit(run: OpenRun) -> nn.Module:
    """The run's backbone, each weight larger or smaller by at most the least that float32 can tell."""
    f = untouched(run)
    draws = generator(0, "last bit")
    with torch.no_grad():
        for weights in f.parameters():
            weights.mul_(1 + torch.randint(-1, 2, weights.shape, generator=draws) * torch.finfo(torch.float32).eps)
    return f


untouched = OpenRun.backbone


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Rows of (loss of the last epoch, kNN accuracy), one a seed: in float32, from weights nudged, and in bfloat16."""
    if choose("cpu", threads=1).precision != "bfloat16":
        pytest.skip("bfloat16 is emulated on this processor")
    out = tmp_path_factory.mktemp("precision")
    rows: dict[str, list[tuple[float, float]]] = {"float32": [], "nudged": [], "bfloat16": []}
    for kind in rows:
        for seed in SEEDS:
            config = small(
                data={"limit": 400, "size": 16},
                head={"init": "random", "frozen": False},
                probe={"names": ["knn"]},
                contrastive={"epochs": 20, "batch_size": BATCH},
                precision="bfloat16" if kind == "bfloat16" else "float32",
                seed=seed,
            )
            with pytest.MonkeyPatch.context() as patch:
                if kind == "nudged":
                    patch.setattr(OpenRun, "backbone", backbone_but_for_the_last_bit)
                path = pretraining.run(until(config, "probe"), out / f"{kind}{seed}", quiet=True)
            result = RunFolder(path).read_result()
            rows[kind].append((result["contrastive"]["train_loss"], result["probes"]["knn"]["accuracy"]))
        print(f"\n{kind}: loss and kNN of {len(SEEDS)} seeds {rows[kind]}")
    return {kind: np.array(found) for kind, found in rows.items()}


def test_the_loss_agrees_within_a_percent_or_twice_what_the_last_bit_does(trained: dict[str, np.ndarray]) -> None:
    full, nudged, low = (trained[kind][:, 0] for kind in ("float32", "nudged", "bfloat16"))
    assert not np.array_equal(full, low), "the precisions differ"
    assert full.max() < 0.95 * math.log(2 * BATCH - 1), "it has learned"
    last_bit = np.abs(nudged / full - 1).max()
    assert np.abs(low / full - 1).mean() < max(0.01, 2 * last_bit)


def test_the_accuracy_agrees_within_a_point_or_the_seeds_spread(trained: dict[str, np.ndarray]) -> None:
    full, low = trained["float32"][:, 1], trained["bfloat16"][:, 1]
    assert abs(low.mean() - full.mean()) <= max(0.01, np.ptp(full), np.ptp(low))
