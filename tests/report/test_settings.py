"""Settings that are no head's are compared in matched pairs, and never averaged over unsaid; which probe decides."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from headstart.records.errors import InputError
from headstart.report import answer, frame, tables, write_report
from headstart.report.labels import same_labels

CHANGES = {
    "data.normalize": ("data__normalize", (True, False), "Z-scored", "not Z-scored"),
    "backbone.name": ("backbone__name", ("resnet50", "resnet18"), "resnet50", "resnet18"),
    "backbone.weights": ("backbone__weights", ("imagenet", "none"), "imagenet weights", "from scratch"),
    "contrastive.temperature": ("contrastive__temperature", (0.1, 0.5), "temperature 0.1", "temperature 0.5"),
    "contrastive.objective": ("contrastive__objective", ("vicreg", "nt_xent"), "VICReg", "NT-Xent"),
    "contrastive.batch_size": ("contrastive__batch_size", (512, 256), "batch size 512", "batch size 256"),
    "augment.blur_p": ("augment__blur_p", (0.0, 0.5), "blur p 0.0", "blur p 0.5"),
    "precision": ("precision", ("float32", "bfloat16"), "float32", "bfloat16"),
}


def single_setting(make_run: Callable[..., Path], path: Path, setting: str, seeds: int = 6) -> None:
    """A study of one setting at two values, which its study.yaml compares."""
    name, values, *_ = CHANGES[setting]
    for better, value in zip((True, False), values, strict=True):
        for seed in range(seeds):
            accuracy = 0.6 + 0.1 * better + 0.01 * seed + 0.005 * better * (seed % 2)
            make_run(path / "runs" / f"{better}{seed}", seed=seed, accuracy=accuracy, **{name: value})
    (path / "study.yaml").write_text(yaml.safe_dump({"compare": [setting]}))


@pytest.mark.parametrize("setting", CHANGES)
def test_every_setting_is_compared_in_matched_pairs(
    make_run: Callable[..., Path], tmp_path: Path, setting: str
) -> None:
    single_setting(make_run, tmp_path, setting)
    *_, better, worse = CHANGES[setting]
    found = answer.answer(frame.read(tmp_path))
    assert found.headline == (
        f"{better[0].upper()}{better[1:]} beats {worse} in the frozen autoencoder head by 10.2 points (10.0 to 10.5 "
        "over 6 seeds; 6 of 6 pairs)."
    )


@pytest.mark.parametrize("setting", [name for name in CHANGES if name != "data.normalize"])
def test_nothing_is_averaged_over_what_is_no_head(make_run: Callable[..., Path], tmp_path: Path, setting: str) -> None:
    single_setting(make_run, tmp_path, setting, seeds=2)
    *_, one, other = CHANGES[setting]
    study = frame.read(tmp_path)
    assert set(study.sets) == {f"digits, {one}", f"digits, {other}"}
    widths = tables.tidy(study.runs)[4]
    means = widths[widths["row"] == "hidden_dim=64"].set_index("dataset")["value"]
    assert means[f"digits, {one}"] == pytest.approx(70.75, abs=0.5)
    assert means[f"digits, {other}"] == pytest.approx(60.5, abs=0.5)
    said = " ".join(answer.answer(study).caveats)
    assert f"Runs differ in {setting}: each value stands as a data set of its own" in said


def test_means_over_normalization_are_said(make_run: Callable[..., Path], tmp_path: Path) -> None:
    single_setting(make_run, tmp_path, "data.normalize", seeds=2)
    assert any("with and without Z-score" in said for said in answer.answer(frame.read(tmp_path)).caveats)


@pytest.mark.parametrize("entry", ["seed", "head.depth", "autoencoder.kind", "no.such", "data.sources", "threads"])
def test_what_cannot_be_compared_is_refused(make_run: Callable[..., Path], tmp_path: Path, entry: str) -> None:
    make_run(tmp_path / "runs" / "a")
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({"compare": [entry]}))
    with pytest.raises(InputError, match=r"compare holds .* it must hold pairs of heads"):
        answer.answer(frame.read(tmp_path))


@pytest.mark.parametrize(
    ("splits", "set_name", "decides"),
    [
        ("house", "digits", "linear"),
        ("paper", "cifar10", "paper"),
        ("paper", "digits", "linear"),
        ("house", "cifar10", "linear"),
        ("paper", "photos", "linear"),
        ("paper", "fgvc-aircraft", "paper"),
        ("paper", "imagenette", "paper"),
    ],
)
def test_linear_decides_unless_the_study_is_the_papers(
    make_run: Callable[..., Path], tmp_path: Path, splits: str, set_name: str, decides: str
) -> None:
    make_run(tmp_path / "runs" / "a", set_name=set_name)
    config = tmp_path / "runs" / "a" / "config.yaml"
    config.write_text(config.read_text().replace("splits: house", f"splits: {splits}"))
    assert frame.read(tmp_path).probe == decides


@pytest.mark.parametrize(
    ("set_name", "there"),
    [("cifar10", True), ("imagenette", True), ("digits", False), ("photos", False), ("grocery43", False)],
)
def test_the_papers_tables_are_on_the_page_of_its_sets_alone(
    make_run: Callable[..., Path], tmp_path: Path, set_name: str, there: bool
) -> None:
    for seed in range(5):
        make_run(tmp_path / "runs" / f"r{seed}", seed=seed, set_name=set_name)
    page = write_report(tmp_path).read_text()
    assert ("The paper&#39;s tables" in page) == there
    assert (tmp_path / "tables" / "table3.csv").exists()


def test_probes_that_took_the_same_labels_are_one_row(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", probes=("linear", "linear_1pct", "linear_10pct", "few_shot_1"))
    result = json.loads((run / "result.json").read_text())
    for key in ("probes", "untrained"):
        for name in ("linear_1pct", "linear_10pct"):
            result[key][name] |= {"draws": [0.5, 0.6], "n_train": 10}
        result[key]["few_shot_1"] |= {"draws": [0.5, 0.6], "n_train": 20}
    (run / "result.json").write_text(json.dumps(result))
    page = write_report(run).read_text()
    assert "linear probe, 1 % of the labels (and linear_10pct: the same)" in page
    assert "linear probe, 10 % of the labels" not in page
    result["probes"]["linear_10pct"]["draws"] = [0.5, 0.7]
    assert same_labels([result["probes"]]) == {}
