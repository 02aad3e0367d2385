"""A study's runs.csv says through `compare` what its report says: the same sentences, the same numbers."""

from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import headstart
from headstart.records.errors import InputError
from headstart.report import answer, frame, tables, write_report
from headstart.report.anybodys import read_tables
from headstart.report.compare import Compared, compare
from headstart.report.comparisons import Comparison
from headstart.statistics import holm
from tests.report.test_settings import CHANGES, single_setting

NAMED = {
    "head": "head",
    "data.normalize": "normalized",
    "backbone.name": "backbone.name",
    "contrastive.temperature": "contrastive.temperature",
    "contrastive.objective": "contrastive.objective",
}
"""What the study below compares, and the column that a report has for it."""


def _which(c: Comparison) -> tuple[str, str, str, str | None]:
    return c.pairing.a, c.pairing.b, c.pairing.within, c.pairing.dataset


def _agree(found: Compared, reported: list[Comparison], factor: str) -> None:
    said = {_which(c): c for c in reported if c.pairing.factor == factor}
    mine = {_which(c): c for c in found.comparisons}
    assert mine.keys() == said.keys()
    assert mine
    for which, c in mine.items():
        same = said[which]
        assert c.sentence == same.sentence
        assert repr(c.decision) == repr(same.decision), "to the last bit, and nan where that is nan"
        assert (c.wins, c.losses, c.mean, c.wilcoxon) == (same.wins, same.losses, same.mean, same.wilcoxon)


def _exported(study: Path) -> frame.Records:
    """A study with the runs.csv that its report writes, without the page."""
    records = frame.read(study)
    (study / "runs.csv").write_text(tables.as_csv(records.runs))
    return records


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, study_run: Callable[..., Path]) -> Path:
    """Two sets, two seeds, two heads, and every combination of four settings that are no head's, but for some runs
    that failed, and on one of the sets two of the settings alone; study.yaml is written by the test."""
    path, rng = tmp_path_factory.mktemp("crossed") / "study", np.random.default_rng(1)
    heads = (("autoencoder", True), ("random", False))
    varied = product(heads, (0.1, 0.5), (True, False), ("resnet18", "resnet50"), ("nt_xent", "vicreg"), (0, 1), (0, 1))
    for i, ((init, frozen), temperature, normal, backbone, objective, seed, place) in enumerate(varied):
        if i % 7 == 3 or (place and (backbone == "resnet50" or objective == "vicreg")):
            continue
        study_run(
            path / "runs" / str(i),
            init=init,
            frozen=frozen,
            seed=seed,
            set_name=("digits", "other")[place],
            accuracy=0.6 + 0.03 * normal + 0.02 * (objective == "vicreg") + 0.02 * rng.normal(),
            contrastive__temperature=temperature,
            contrastive__objective=objective,
            data__normalize=normal,
            backbone__name=backbone,
        )
    return path


@pytest.mark.parametrize("named", [[], [*NAMED], ["data.normalize", "backbone.name", ["ae", "mlp"]]])
def test_every_setting_of_a_crossed_study(study: Path, named: list[str]) -> None:
    (study / "study.yaml").write_text(yaml.safe_dump({"compare": named} if named else {}))
    reported = answer.answer(_exported(study)).comparisons
    seen = 0
    for asked, factor in NAMED.items():
        if not any(c.pairing.factor == factor for c in reported):
            continue
        seen += 1
        table = read_tables([study / "runs.csv"]) if seen % 2 else pd.read_csv(study / "runs.csv")
        _agree(headstart.compare(table, metric="accuracy", by=asked), reported, factor)
    _agree(compare(read_tables([study]), metric="accuracy", by="data.normalize"), reported, "normalized")
    assert seen == 5
    one = [c for c in reported if c.pairing.family == "named" and c.pairing.dataset is None]
    assert {c.decision.family_size for c in one} == {len(one)}
    assert [c.decision.adjusted for c in one] == pytest.approx(holm([c.decision.test.p for c in one]))


@pytest.mark.parametrize("setting", CHANGES)
def test_every_setting_by_itself(make_run: Callable[..., Path], tmp_path: Path, setting: str) -> None:
    single_setting(make_run, tmp_path, setting)
    found = answer.answer(_exported(tmp_path))
    mine = compare(read_tables([tmp_path / "runs.csv"]), metric="accuracy", by=setting)
    assert mine.headline == found.headline
    assert mine.sentences == found.sentences
    assert mine.levels["rows"].tolist() == [6, 6]


def test_what_a_report_writes(make_run: Callable[..., Path], tmp_path: Path) -> None:
    """runs.csv, and the comparisons with their corrected p-values; other numbers of the runs can be compared too."""
    single_setting(make_run, tmp_path, "backbone.name", seeds=5)
    write_report(tmp_path)
    written = (tmp_path / "runs.csv").read_text()
    reported = answer.answer(_exported(tmp_path)).comparisons
    assert (tmp_path / "runs.csv").read_text() == written
    table = pd.read_csv(tmp_path / "comparisons.csv")
    assert table["p_holm"].to_numpy() == pytest.approx([c.decision.adjusted for c in reported])
    found = compare(read_tables([tmp_path / "runs.csv"]), metric=["accuracy", "seconds"], by="backbone.name")
    assert {c.measure.name: c.decision.family_size for c in found.comparisons} == {"accuracy": 2, "seconds": 2}


def test_what_is_left_out_of_a_study_is_said(make_run: Callable[..., Path], tmp_path: Path) -> None:
    single_setting(make_run, tmp_path, "backbone.name", seeds=5)
    runs = _exported(tmp_path).runs
    first, *_ = runs.index
    lost = runs.astype({"accuracy": float}).assign(accuracy=runs["accuracy"].mask(runs.index == first))
    said = headstart.compare(lost, metric="accuracy", by="backbone.name").caveats
    n = len(runs)
    assert f"1 of {n} rows is without accuracy: run {runs['run'][first]}." in said
    assert any(one.startswith(f"1 of {n - 1} rows with accuracy is matched by no other: run ") for one in said)


def test_a_seed_column_of_a_study_is_heeded(make_run: Callable[..., Path], tmp_path: Path) -> None:
    single_setting(make_run, tmp_path, "backbone.name", seeds=5)
    runs = _exported(tmp_path).runs.assign(batch_order=lambda t: t["seed"] // 2)
    own = headstart.compare(runs, metric="accuracy", by="backbone.name", seed="seed")
    assert own.comparisons[0].clusters.startswith("5 ")
    other = headstart.compare(runs, metric="accuracy", by="backbone.name", seed="batch_order")
    assert "seeds in batch_order" in other.columns
    with pytest.raises(InputError, match="there is no column 'none'"):
        headstart.compare(runs, metric="accuracy", by="backbone.name", seed="none")


BROKEN = {
    "hidden_dim": ("sixty-four", "hidden_dim is 'sixty-four'; it must be a number"),
    "seed": ("", "seed is missing; it must be a number"),
    "accuracy": ("high", "accuracy is 'high'; it must be a number"),
    "init": ("random2", "init is 'random2'; it must be one of"),
    "head": ("mlp", "head is 'mlp'; it must be an init with -frozen or -trainable"),
    "frozen": ("yes", "frozen is 'yes'; it must be True or False"),
    "compare": ("[ae", "compare is '[ae'; it must be a list as JSON"),
}


@pytest.mark.parametrize("column", BROKEN)
def test_a_damaged_runs_csv_is_named(make_run: Callable[..., Path], tmp_path: Path, column: str) -> None:
    single_setting(make_run, tmp_path, "backbone.name", seeds=2)
    _exported(tmp_path)
    table = pd.read_csv(tmp_path / "runs.csv", dtype=str)
    value, words = BROKEN[column]
    table.loc[2, column] = value
    table.to_csv(tmp_path / "runs.csv", index=False)
    with pytest.raises(InputError) as refused:
        compare(read_tables([tmp_path / "runs.csv"]), metric="accuracy", by="backbone.name")
    assert words in str(refused.value)
    assert "runs.csv, row 4" in str(refused.value) or column == "compare"
