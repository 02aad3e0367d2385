"""bfloat16 against float32 over a short training: the same loss and the same kNN, within what seeds do anyway."""

import numpy as np
import pytest

from headstart.engine.device import choose
from headstart.records.folder import RunFolder
from headstart.training import run as pretraining
from tests.runs import small, until

pytestmark = pytest.mark.soak  # six trainings; a machine's own roundings decide how close to the bound they end

SEEDS = range(3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Rows of (loss of the last epoch, kNN accuracy), by precision, one a seed."""
    if choose("cpu", threads=1).precision != "bfloat16":
        pytest.skip("bfloat16 is emulated on this processor")
    out = tmp_path_factory.mktemp("precision")
    rows: dict[str, list[tuple[float, float]]] = {"float32": [], "bfloat16": []}
    for precision in rows:
        for seed in SEEDS:
            config = small(
                data={"limit": 400, "size": 32},
                head={"init": "random", "frozen": False},
                probe={"names": ["knn"]},
                contrastive={"epochs": 6, "batch_size": 64},
                precision=precision,
                seed=seed,
            )
            path = pretraining.run(until(config, "probe"), out / f"{precision}{seed}", quiet=True)
            result = RunFolder(path).read_result()
            rows[precision].append((result["contrastive"]["train_loss"], result["probes"]["knn"]["accuracy"]))
    return {precision: np.array(found) for precision, found in rows.items()}


def test_the_loss_agrees_within_a_percent(trained: dict[str, np.ndarray]) -> None:
    full, low = trained["float32"][:, 0], trained["bfloat16"][:, 0]
    assert not np.array_equal(full, low), "the precisions differ"
    assert abs(low.mean() / full.mean() - 1) < 0.01


def test_the_accuracy_agrees_within_a_point_or_the_seeds_spread(trained: dict[str, np.ndarray]) -> None:
    full, low = trained["float32"][:, 1], trained["bfloat16"][:, 1]
    assert abs(low.mean() - full.mean()) <= max(0.01, np.ptp(full), np.ptp(low))
