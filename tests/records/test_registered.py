"""What is registered in one place is found everywhere: in help, in a run, in a figure, in a table and in a sentence."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import headstart
from headstart.cli.commands import main
from headstart.data.source import Source
from headstart.records import names
from headstart.records.errors import InputError
from headstart.records.names import HeadInit, NamedSet, Probe
from headstart.report import write_report


def _squares(root: Path, data: object) -> Source:
    rng = np.random.default_rng(0)
    labels = np.arange(80, dtype=np.int64) % 2
    pictures = (
        rng.integers(0, 120, (80, 16, 16, 3), dtype=np.uint8) + (labels * 100).astype(np.uint8)[:, None, None, None]
    )
    return Source(
        where="squares",
        names=[f"squares/{i:02d}.png" for i in range(80)],
        pictures=pictures,
        labels=labels,
        classes=["dark", "light"],
        official=np.full(80, "", dtype="U5"),
    )


def _coin(task: object) -> dict[str, Any]:
    return {"accuracy": 0.5, "n_test": 16, "ci95": [0.25, 0.75], "correct": 8}


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """An init, a probe and a named set, each registered by one call."""
    for registry in (names.HEAD_INITS, names.PROBES, names.SETS):
        monkeypatch.setattr(registry, "_choices", dict(registry))
    names.HEAD_INITS.register(
        HeadInit(
            name="doubled",
            label="doubled start",
            help="twice the default draw",
            make=lambda start: (2 * start.weight, start.bias),
            colour=("#123456", "#654321"),
        )
    )
    names.PROBES.register(Probe(name="coin", label="a tossed coin", help="knows nothing", make=_coin))
    names.SETS.register(NamedSet(name="squares", label="Squares", help="dark and light", make=_squares))


def _said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_a_made_up_init_probe_and_set_are_found_everywhere(
    made_up: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = _said(capsys, "pretrain", "--help")
    assert ",doubled}" in options.replace("\n", "").replace(" ", "").replace("│", "")
    assert "coin" in options
    assert "squares" in _said(capsys, "list", "data")
    assert "twice the default draw" in _said(capsys, "list", "heads")

    for init in ("doubled", "random"):
        headstart.pretrain(
            "squares",
            out=tmp_path / "study" / "runs" / init,
            backbone={"name": "resnet18"},
            data={"size": 16},
            head={"init": init, "frozen": False, "hidden_dim": 8, "output_dim": 4},
            contrastive={"epochs": 1, "batch_size": 16},
            probe={"names": ["linear", "coin"]},
            device="cpu",
            threads=1,
            quiet=True,
        )
    run = headstart.load(tmp_path / "study" / "runs" / "doubled")
    assert run.result["head"]["init"] == "doubled"
    assert run.result["probes"]["coin"]["accuracy"] == 0.5

    page = write_report(tmp_path / "study", "coin").read_text()
    assert "Trainable doubled start and trainable random reach the same accuracy" in page  # a sentence
    assert "a tossed coin" in page
    assert "Squares" in page
    figure = (tmp_path / "study" / "figures" / "accuracy-squares.svg").read_text()
    assert "Trainable doubled start" in figure
    assert "--doubled:#123456" in figure
    table = pd.read_csv(tmp_path / "study" / "tables" / "table4.csv")
    assert set(table["projector"]) == {"doubled-trainable", "mlp"}
    assert set(table["dataset"]) == {"Squares"}


@pytest.mark.parametrize("name", ["random", "Not A Name", "", "../up"])
def test_a_name_that_is_taken_or_cannot_be_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"head\.init"):
        names.HEAD_INITS.register(HeadInit(name=name, help="", make=lambda start: start))


def test_everything_that_is_registered_has_help_and_what_implements_it() -> None:
    for registry in (names.HEAD_INITS, names.ACTIVATIONS, names.PROBES, names.SETS, names.OPTIMIZERS):
        for choice in registry.values():
            assert choice.help
            assert callable(choice.made())
