"""Split sizes and steps of all 765 rows of the authors' tables, from `--preset paper` alone: arithmetic, no training.

Compared with the CSVs here: the steps an epoch of `model_ckpt` (autoencoder), `simclr_model_ckpt` (SimCLR) and
`logreg_model_ckpt` (probe), which follow from the split sizes. Settings and parameters stand in `test_calls.py`.
"""

import csv
import math
import re
from pathlib import Path

import numpy as np
import pytest

from headstart.data.splits import Splits, make
from headstart.records.config import Config
from headstart.records.names import SETS
from headstart.records.presets import paper
from headstart.training.feed import count_steps

SIZES = {
    "imagenette": (8523, 392, 3925),
    "stl10": (4500, 500, 8000),
    "cifar10": (45_000, 5000, 10_000),
    "fgvc-aircraft": (6001, 666, 3333),
    "cifar100": (45_000, 5000, 10_000),
}
"""Train, val and test."""


class Pictures:
    """As much of `Images` as splitting looks at."""

    def __init__(self, train: int, test: int, held_out: str) -> None:
        self.official = np.repeat(np.array(["train", held_out], dtype="U5"), [train, test])
        self.labels = np.arange(train + test) % 10
        self.order = np.arange(train + test)

    def __len__(self) -> int:
        return len(self.labels)


def planned(name: str) -> tuple[Config, Splits]:
    """The preset for a named set, and its split."""
    known, config = SETS[name], paper((name,))
    assert known.train is not None
    assert known.test is not None
    pictures = Pictures(known.train, known.test, "val" if name == "imagenette" else "test")
    return config, make(pictures, config.data)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", list(SIZES))
def test_split_sizes_and_precision(name: str) -> None:
    config, split = planned(name)
    assert (len(split.train), len(split.val), len(split.test)) == SIZES[name]
    assert (config.precision, config.data.detail) == ("float32", 0)


def test_steps_an_epoch_of_every_stage_are_the_rows(reference: Path) -> None:
    named = {known.shown: name for name, known in SETS.items() if known.paper}
    steps: dict[tuple[str, str], int] = {}
    for label, name in named.items():
        config, split = planned(name)
        assert config.contrastive.batch_size is not None
        steps[label, "model_ckpt"] = math.ceil(len(split.train) / config.autoencoder.batch_size)
        steps[label, "simclr_model_ckpt"] = count_steps(len(split.train), config.contrastive.batch_size)
        steps[label, "logreg_model_ckpt"] = math.ceil(math.floor(0.7 * len(split.test) + 1e-9) / 32)
    seen = dict.fromkeys(("model_ckpt", "simclr_model_ckpt", "logreg_model_ckpt"), 0)
    for path in sorted(reference.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                for column in seen.keys() & row.keys():
                    if "eval" in path.name and column != "logreg_model_ckpt":
                        continue
                    stated = re.search(r"epoch=(\d+)-step=(\d+)", row[column])
                    assert stated, (path.name, row["Run ID"])
                    epochs, taken = int(stated[1]) + 1, int(stated[2])
                    assert taken == epochs * steps[row["dataset_name"], column], (path.name, row["Run ID"], column)
                    seen[column] += 1
    assert seen == {"model_ckpt": 15, "simclr_model_ckpt": 765, "logreg_model_ckpt": 765}


def test_what_the_page_says_of_the_rows_is_in_the_rows(reference: Path) -> None:
    """docs/the-paper.md: counts, hours, Z-scores and the autoencoders' errors."""

    def rows(name: str) -> list[dict[str, str]]:
        with (reference / name).open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def hours(row: dict[str, str]) -> float:
        stated = re.fullmatch(r"([\d.]+)(min|h|s)", row["Duration"])
        assert stated, row["Duration"]
        return float(stated[1]) * {"h": 1, "min": 1 / 60, "s": 1 / 3600}[stated[2]]

    page = (Path(__file__).parents[2] / "docs" / "the-paper.md").read_text(encoding="utf-8").replace("\n", " ")
    autoencoders, main = rows("ae-train.csv"), rows("simclr-train.csv")
    both = [*main, *rows("simclr-train-ae-nonfrozen.csv")]
    assert f"{len(autoencoders)} + {len(main)} + {len(both) - len(main)} rows" in page
    assert {(row["backbone"], row["weights"]) for row in both} == {("resnet34", "DEFAULT")}
    scored = sum(row["standardize"] == "True" for row in both)
    assert f"applied in {scored} of the {len(both)} runs" in page
    assert f"took {sum(map(hours, both)):,.0f} hours on V100s" in page
    cifar = [hours(row) for row in main if row["dataset_name"] == "CIFAR10"]
    assert f"({sum(cifar) / len(cifar):.2f} h for one of the main 720 on CIFAR-10)" in page
    assert f"the autoencoders {sum(map(hours, autoencoders)):.1f}" in page
    errors = {
        int(row["latent_dimensions"]): float(row["test_mse"].replace(",", "."))
        for row in autoencoders
        if row["dataset_name"] == "CIFAR10"
    }
    assert (
        "test MSE of {:.5f}, {:.5f} and {:.5f} at 128, 256".format(*(errors[size] for size in (128, 256, 512))) in page
    )
