"""Studies as plans: reading, naming, extending, the paper's 765 runs, status. Nothing is trained here."""

import csv
import json
import re
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from headstart import backbones, study
from headstart.autoencoders import Autoencoder
from headstart.cli.commands import main
from headstart.heads import ProjectionHead
from headstart.records.claim import Claim
from headstart.records.config import Config, DataConfig, to_dict
from headstart.records.errors import InputError
from headstart.records.files import as_yaml, parse_yaml
from headstart.records.names import OBJECTIVES
from headstart.study import calls, shared
from headstart.study.file import expand
from headstart.study.named import presets
from headstart.training.optimizers import peak_learning_rate

SETS = {
    "Imagenette": "imagenette",
    "STL10": "stl10",
    "CIFAR10": "cifar10",
    "FGVCAircraft": "fgvc-aircraft",
    "CIFAR100": "cifar100",
}


def write(folder: Path, **content: object) -> Path:
    path = folder / "study.yml"
    path.write_text(as_yaml(content))
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A study file of two heads and two seeds."""
    return write(
        tmp_path,
        data=["digits"],
        factors={"head.init": ["random", "orthogonal"]},
        seeds=[0, 1],
        base={"contrastive": {"epochs": 3}},
    )


# ----------------------------------------------------------------------------------------------------------- the paper


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def number(text: str) -> float:
    return float(text.replace(",", "."))


Columns = dict[str, tuple[Callable[[str], Any], Callable[[Any], Any]]]  # what a cell says, what a config says
SIMCLR_COLUMNS: Columns = {
    # column of the CSV -> (what the row says, what the run's config says); every setting that the CSV states
    "backbone": (str, lambda c: c.backbone.name),
    "weights": (lambda t: {"DEFAULT": "imagenet"}[t], lambda c: c.backbone.weights),
    "dataset_name": (SETS.get, lambda c: c.data.sources[0]),
    "img_size": (int, lambda c: c.data.size),
    "standardize": (lambda t: t == "True", lambda c: c.data.normalize),
    "batch_size": (int, lambda c: c.contrastive.batch_size),
    "epochs": (int, lambda c: c.contrastive.epochs),
    "learning_rate": (number, lambda c: peak_learning_rate(c.contrastive, c.contrastive.batch_size)),
    "optimizer": (str.lower, lambda c: c.contrastive.optimizer),
    "momentum": (number, lambda c: c.contrastive.momentum),
    "weight_decay": (number, lambda c: c.contrastive.weight_decay),
    "lr_scheduler": (str, lambda c: {"epoch": "CosineAnnealingLR"}[c.contrastive.schedule]),
    "temperature": (number, lambda c: c.contrastive.temperature),
    "save_top_k": (int, lambda c: {"best": 1}[c.contrastive.keep]),
    "projection_head": (lambda t: {"ae": "autoencoder", "mlp": "random"}[t], lambda c: c.head.init),
    "freeze_projection_head": (lambda t: t == "True", lambda c: c.head.frozen),
    "projection_head_activation": (str.lower, lambda c: c.head.activation),
    "projection_head_embedding_dim": (int, lambda c: c.head.hidden_dim),
    "latent_dimensions": (int, lambda c: c.head.output_dim),
}

AUTOENCODER_COLUMNS: Columns = {
    "dataset_name": (SETS.get, lambda c: c.data.sources[0]),
    "img_size": (int, lambda c: c.data.size),
    "latent_dimensions": (int, lambda c: c.head.hidden_dim),
    "batch_size": (int, lambda c: c.autoencoder.batch_size),
    "epochs": (int, lambda c: c.autoencoder.epochs),
    "learning_rate": (number, lambda c: c.autoencoder.lr),
    "standardize": (lambda t: t == "True", lambda c: c.autoencoder.normalize),
}


def key(config: Config) -> tuple[object, ...]:
    return (
        config.data.sources[0],
        config.head.init,
        config.head.frozen,
        config.head.activation,
        config.head.hidden_dim,
        config.head.output_dim,
        config.data.normalize,
    )


IDENTIFYING = (
    "dataset_name",
    "projection_head",
    "freeze_projection_head",
    "projection_head_activation",
    "projection_head_embedding_dim",
    "latent_dimensions",
    "standardize",
)


@pytest.fixture(scope="module")
def paper() -> list[study.Planned]:
    return study.expand(study.load("paper"))


def test_paper_plans_15_autoencoders_and_765_runs(paper: list[study.Planned]) -> None:
    plan = study.plan("paper", calibrate=False)
    assert (len(plan.runs), plan.autoencoders) == (765, 15)
    assert len({run.name for run in plan.runs}) == 765
    one = study.plan("paper:cifar10", calibrate=False)
    assert (len(one.runs), one.autoencoders) == (153, 3)


def test_each_run_of_paper_is_its_row_of_the_csv(paper: list[study.Planned], reference: Path) -> None:
    stated = rows(reference / "simclr-train.csv") + rows(reference / "simclr-train-ae-nonfrozen.csv")
    assert len(stated) == 765
    by_key = {key(run.config): run.config for run in paper}
    assert len(by_key) == 765
    seen = set()
    for row in stated:
        wanted = tuple(SIMCLR_COLUMNS[column][0](row[column]) for column in IDENTIFYING)
        config = by_key[wanted]
        seen.add(wanted)
        for column, (says, has) in SIMCLR_COLUMNS.items():
            assert has(config) == pytest.approx(says(row[column])), (column, row["Run ID"])
    assert len(seen) == 765


def test_each_autoencoder_of_paper_is_its_row_and_starts_the_heads_that_the_rows_say(
    paper: list[study.Planned], reference: Path
) -> None:
    stated = {row["model_ckpt"]: row for row in rows(reference / "ae-train.csv")}
    needed = {digest: run.config for digest, run in shared.autoencoders_of(paper).items()}
    assert len(stated) == len(needed) == 15
    by_row = {}
    for checkpoint, row in stated.items():
        wanted = (SETS[row["dataset_name"]], int(row["latent_dimensions"]))
        digest, config = next((d, c) for d, c in needed.items() if (c.data.sources[0], c.head.hidden_dim) == wanted)
        by_row[checkpoint] = digest
        for column, (says, has) in AUTOENCODER_COLUMNS.items():
            assert has(shared.autoencoder_config(config)) == pytest.approx(says(row[column])), (column, checkpoint)
    by_key = {key(run.config): run for run in paper}
    heads = 0
    for row in rows(reference / "simclr-train.csv") + rows(reference / "simclr-train-ae-nonfrozen.csv"):
        run = by_key[tuple(SIMCLR_COLUMNS[column][0](row[column]) for column in IDENTIFYING)]
        weights = row["projection_head_weights"].removeprefix("../ae/")
        assert shared.trains_autoencoder(run.config) == bool(weights)
        if weights:
            heads += 1
            assert shared.autoencoder_hash(run.config, run.point.data) == by_row[weights]
    assert heads == 360 + 45


def test_models_of_paper_have_the_parameters_of_the_rows(paper: list[study.Planned], reference: Path) -> None:
    backbone: Any = backbones.build("resnet34", size=32)
    in_backbone = sum(p.numel() for p in backbone.parameters())
    sources = {d: Autoencoder(3 * 8 * 8, backbone.num_features, d) for d in (128, 256, 512)}
    built: dict[Any, Any] = {}
    by_key = {key(run.config): run.config for run in paper}
    for row in rows(reference / "simclr-train.csv") + rows(reference / "simclr-train-ae-nonfrozen.csv"):
        settings = by_key[tuple(SIMCLR_COLUMNS[column][0](row[column]) for column in IDENTIFYING)].head
        if settings not in built:
            head = ProjectionHead.from_init(
                backbone.num_features,
                init=settings.init,
                hidden_dim=settings.hidden_dim,
                output_dim=settings.output_dim,
                activation=settings.activation,
                frozen=settings.frozen,
                autoencoder=sources[settings.hidden_dim],
            )
            trained = sum(p.numel() for p in head.parameters() if p.requires_grad)
            built[settings] = (in_backbone + trained, sum(p.numel() for p in head.parameters()) - trained)
        stated = (int(row["simclr_trainable_params"]), int(row["simclr_non_trainable_params"]))
        assert built[settings] == stated, row["Run ID"]


def test_controls_is_every_start_frozen_and_trainable() -> None:
    runs = study.expand(study.load("controls", seeds=[0, 1]))
    assert len({(r.config.head.init, r.config.head.frozen) for r in runs}) == 12
    assert len(runs) == 24
    assert len(shared.autoencoders_of(runs)) == 2  # one a seed, shared by autoencoder, spectrum and shuffled


# ------------------------------------------------------------------------------------------------------------- reading


def test_names_say_what_varies_and_are_safe(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        data=[str(tmp_path / "my photos")],
        factors={
            "head.init": ["random"],
            "contrastive.lr": [0.1, 1e-4],
            "head.frozen": [False],
            "augment.crop_scale": [[0.3, 1.0]],
            "autoencoder.weights": ["a/b/c.safetensors", "a/b c.safetensors"],
        },
    )
    names = [run.name for run in study.expand(study.load(path))]
    assert len(set(names)) == len(names) == 4
    for name in names:
        assert re.fullmatch(r"data=my-photos~.*init=random.*frozen=false.*seed=0", name)
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789=,._+~-")
        assert len(name) <= 200


@pytest.mark.parametrize("name", ["stl10", "cifar10", "imagenette"])
def test_ones_own_folder_with_the_name_of_a_set_is_the_folder(
    name: str, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    (run, *_) = study.expand(study.load(small, data=name))
    assert run.config.data.sources == (str(tmp_path / name),)
    (run, *_) = study.expand(study.load(f"paper:{name}", data_root=tmp_path))
    assert run.config.data.sources == (f"{name}:{tmp_path}",)


def test_a_set_on_a_hub_is_meant_from_everywhere(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "root" / "kept").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "root")
    kept = f"hf:{tmp_path / 'root' / 'kept'}"
    for given, root, meant in (
        ("hf:owner/name", None, "hf:owner/name"),
        ("hf:owner/name:config", tmp_path, "hf:owner/name:config"),
        ("hf:kept", None, kept),
        (kept, None, kept),
        ("hf:root/kept", tmp_path, kept),
    ):
        (run, *_) = study.expand(study.load(small, data=given, data_root=root))
        assert run.config.data.sources == (meant,), given


def test_data_can_be_given_by_hand(small: Path, tmp_path: Path) -> None:
    (config,) = {run.config for run in study.expand(study.load("paper:cifar10", data_root=tmp_path, seeds=[3]))[:1]}
    assert config.data.sources == (f"cifar10:{tmp_path}",)
    assert (config.data.size, config.contrastive.batch_size, config.seed) == (32, 1280, 3)
    (run, *_) = study.expand(study.load(small, data=[str(tmp_path)]))
    assert run.config.data.sources == (str(tmp_path),)
    (run, *_) = study.expand(study.load("paper", data=f"stl10:{tmp_path}"))
    assert (run.config.data.size, run.config.contrastive.batch_size) == (96, 500)


def test_what_decides_is_kept_with_the_study(tmp_path: Path) -> None:
    loaded = study.load(write(tmp_path, data=["digits"], decides="knn"))
    assert loaded.decides == "knn"
    (tmp_path / "again.yaml").write_text(loaded.to_yaml())
    assert study.load(tmp_path / "again.yaml").decides == "knn"
    asked_by_all = write(
        tmp_path,
        data=["digits"],
        decides="knn",
        base={"probe": {"names": ["paper"]}},
        factors={"probe.names": [["knn", "linear"], ["knn"]]},
    )
    assert study.load(asked_by_all).decides == "knn"
    assert study.load(asked_by_all, overrides=["stages=autoencoder"]).decides == "knn"


def test_a_study_goes_on_with_the_probe_that_it_named(small: Path, tmp_path: Path) -> None:
    named, plain = (study.load(write(tmp_path, data=["digits"], **more)) for more in ({"decides": "knn"}, {}))
    path = tmp_path / "study.yaml"
    assert study.calls.extended(named, plain, path).decides == "knn"
    assert study.calls.extended(plain, named, path).decides == "knn"
    other = study.load(write(tmp_path, data=["digits"], decides="linear"))
    with pytest.raises(InputError, match="decides: knn -> linear"):
        study.calls.extended(named, other, path)


def test_overrides_reach_every_run(small: Path) -> None:
    loaded = study.load(small, overrides=["contrastive.epochs=7", "contrastive.weight-decay=1e-4", "augment.flip=0"])
    assert {(r.config.contrastive.epochs, r.config.contrastive.weight_decay) for r in study.expand(loaded)} == {
        (7, 1e-4)
    }
    sized = study.load("paper:cifar10", overrides=["contrastive.batch_size=64"])
    assert {r.config.contrastive.batch_size for r in study.expand(sized)} == {64}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"factor": {}}, "unknown key 'factor'"),
        ({"factors": {"head.inti": ["random"]}}, "head.inti"),
        ({"factors": {"head.init": ["randm"]}}, "randm"),
        ({"factors": {"head.hidden_dim": ["abc"]}}, "abc"),
        ({"factors": {"head.init": []}}, "no values"),
        ({"factors": {"head.init": ["random", "random"]}}, "twice"),
        ({"factors": {"contrastive.lr": [0.01, "1e-2"]}}, "contrastive.lr has a value twice: 0.01 and 1e-2"),
        ({"factors": {"head.unfreeze_at": [1, 1.0]}}, "twice: 1 and 1.0"),
        ({"factors": {"head": {"a": {"head.depth": 1}, "b": {"head.depth": 1}}}}, "head has a value twice: a and b"),
        ({"factors": {"head": {"a": {"head.init": "random"}}, "head.init": ["pca"]}}, "two factors"),
        *(
            (
                {"factors": {name: {"a": {"head.depth": 1}}}},
                f"{name}' cannot stand in a folder's name; call it {better}",
            )
            for name, better in {
                "my/head": "my-head",
                "a,b": "a-b",
                "a=b": "a-b",
                "my head": "my-head",
                "": "head",
            }.items()
        ),
        ({"base": {"contrastive": {"epochs": 0}}}, "contrastive.epochs"),
        ({"seeds": ["a"]}, "seeds"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [2**53]}, "whole numbers from 0 to 9007199254740991"),
        ({"base": {"seed": 2**53}}, "seed is 9007199254740992; it must be at most 9007199254740991"),
        ({"base": {"data": {"split_seed": 2**53}}}, "data.split-seed is 9007199254740992; it must be at most"),
        ({"exclude": [{"head.inits": "random"}]}, "head.inits"),
        ({"factors": {"head.init": ["random"]}, "exclude": [{"head.init": "pca"}]}, "no value pca"),
        (
            {"data": ["digits", "cifar10"], "exclude": [{"data": "cifar-10"}]},
            "data has no value cifar-10; it has digits",
        ),
        ({"seeds": [0, 1], "exclude": [{"seed": [1, 2]}]}, "seed has no value 2; it has 0, 1"),
        ({"exclude": [{}]}, "exclude has an empty rule"),
        ({"exclude": [{"data": "digits"}]}, "exclude leaves no run of the study study"),
        ({"data": []}, "no data"),
        ({"data": [[]]}, "data has an empty list"),
        ({"data": {"digits": {"sources": []}}}, "data digits has an empty list"),
        ({"data": [202401]}, "data holds 202401, which YAML does not read as text; put it in quotes"),
        ({"data": [[False]]}, "data holds False, which YAML"),
        ({"data": {7: {}}}, "data 7 holds 7, which YAML"),
        ({"data": ["digits", "digits"]}, "twice"),
        ({"preset": "papre"}, "papre"),
        ({"compare": [["autoencoder-frozen"]]}, "pairs of heads"),
        ({"compare": [["autoencoder-frozen", "autoencodr-frozen"]]}, "pairs of heads"),
        ({"factors": {"seed": [1, 2]}}, "seeds"),
        ({"factors": {"device": ["cpu", "auto"]}}, "device is set by `--device`"),
        ({"data": {"digits": {"options": {"threads": 2}}}}, "data digits: threads is set by `--threads`"),
        ({"decides": "knnn"}, "decides is 'knnn'; it must be one that every run is judged by: paper, linear, knn"),
        ({"decides": ["knn"]}, "decides is"),
        ({"decides": "knn", "base": {"probe": {"names": ["linear"]}}}, "every run is judged by: linear"),
        ({"decides": "knn", "factors": {"probe.names": [["knn"], ["linear"]]}}, "judged by: there is none"),
        ({"decides": "knn", "data": {"digits": {"options": {"probe.names": ["linear"]}}}}, "judged by: linear"),
    ],
)
def test_a_wrong_file_is_refused_in_one_sentence(tmp_path: Path, content: dict[str, Any], complaint: str) -> None:
    path = write(tmp_path, **{"data": ["digits"], **content})
    with pytest.raises(InputError, match=complaint) as refused:
        study.expand(study.load(path))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [(["contrastive.epochs"], "OPTION=VALUE"), (["contrastive.epoch=3"], "epoch"), (["head.init=random"], "varies it")],
)
def test_a_wrong_override_is_refused(small: Path, overrides: list[str], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        study.load(small, overrides=overrides)


def test_an_unknown_study_names_the_presets() -> None:
    with pytest.raises(InputError, match="controls, paper, smoke, controls:vicreg"):
        study.load("papers")
    with pytest.raises(InputError, match="no data set 'cifar11'"):
        study.load("paper:cifar11")


def test_every_file_of_a_preset_is_a_preset_with_a_line_of_help() -> None:
    files = Path(study.__file__).with_name("presets").glob("*.yaml")
    assert {name for name in presets() if ":" not in name} == {path.stem for path in files}
    for name, preset in presets().items():
        assert yaml.safe_load(preset.path.read_text())["name"] == name.partition(":")[0]
        assert len(preset.help) > 20


@pytest.mark.parametrize("objective", [name for name in OBJECTIVES if name != "nt_xent"])
def test_the_controls_are_a_preset_under_each_objective(objective: str, capsys: pytest.CaptureFixture[str]) -> None:
    plain, under = study.load("controls"), study.load(f"controls:{objective}")
    assert under.name == f"controls:{objective}"
    assert (under.factors, under.seeds, under.compare) == (plain.factors, plain.seeds, plain.compare)
    assert under.base == replace(
        plain.base, contrastive=replace(plain.base.contrastive, objective=objective, optimizer="adamw")
    )
    assert len({(p.config.head.init, p.config.head.frozen) for p in expand(under)}) == 12
    with pytest.raises(SystemExit) as ended:
        main(["list", "presets"])
    assert ended.value.code == 0
    assert f"controls:{objective}" in capsys.readouterr().out


def test_a_file_alone_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "imported"
    (tmp_path / "its_plugin.py").write_text(f"open({str(marker)!r}, 'w').close()")
    monkeypatch.syspath_prepend(tmp_path)
    for named in (["its_plugin"], "its_plugin", ["os", "its_plugin"]):
        path = write(tmp_path, data=["digits"], plugins=named)
        with pytest.raises(InputError, match=r"needs the plugin its_plugin.* add --plugin its_plugin"):
            study.load(path, plugin=("os",))
    assert not marker.exists()
    out = tmp_path / "out"
    calls.prepare(study.load(path, plugin=("os", "its_plugin")), out)
    assert marker.exists()
    for again in (lambda: study.load(out), lambda: calls.prepare(study.load(write(tmp_path, data=["digits"])), out)):
        with pytest.raises(InputError, match="--plugin os"):
            again()
    with pytest.raises(InputError, match="--plugin nowhere_to_be_found cannot be imported"):
        study.load(path, plugin=("os", "its_plugin", "nowhere_to_be_found"))


def test_exclusions_leave_combinations_out(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        data=["digits"],
        seeds=[0, 1],
        factors={"head.init": ["random", "pca"], "head.frozen": [True, False]},
        exclude=[{"head.init": "random", "head.frozen": True}, {"seed": 1, "head.init": ["pca"]}],
    )
    found = {(r.config.head.init, r.config.head.frozen, r.config.seed) for r in study.expand(study.load(path))}
    assert found == {("random", False, 0), ("random", False, 1), ("pca", True, 0), ("pca", False, 0)}


def test_exclusions_hold_where_fewer_or_other_sets_and_seeds_are_asked_for(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        data=["digits", "cifar10"],
        seeds=[0, 1],
        factors={"head.init": ["random", "pca"]},
        exclude=[{"data": "cifar10", "head.init": "pca"}, {"seed": 1, "head.init": "random"}],
    )

    def planned(where: Path, **asked: Any) -> set[tuple[str, int]]:
        found = study.expand(study.load(where, **asked))
        return {(run.config.head.init, run.config.seed) for run in found}

    assert planned(path, data="digits") == {("random", 0), ("pca", 0), ("pca", 1)}
    assert planned(path, data="cifar10") == {("random", 0)}
    assert planned(path, data=str(tmp_path), seeds=[0]) == {("random", 0), ("pca", 0)}
    calls.prepare(study.load(path, data="digits", seeds=[0]), tmp_path / "out")
    assert planned(tmp_path / "out") == {("random", 0), ("pca", 0)}
    calls.prepare(study.load(path), tmp_path / "out")  # what it left out is left out still
    assert study.expand(study.load(tmp_path / "out")) == study.expand(study.load(path))
    others = yaml.safe_load(path.read_text()) | {"exclude": [{"data": "stl10", "head.init": "pca"}, {"seed": 2}]}
    path.write_text(yaml.safe_dump({**others, "data": []}))  # a file that leaves its pictures to the call
    assert planned(path, data="stl10", seeds=[0, 2]) == {("random", 0)}


# ----------------------------------------------------------------------------------------------------------- extending


def test_study_yaml_reads_back_as_the_same_study(small: Path, tmp_path: Path) -> None:
    for name in (small, "paper", "controls", "smoke"):
        loaded = study.load(name)
        (tmp_path / "study.yaml").write_text(loaded.to_yaml())
        assert study.expand(study.load(tmp_path)) == study.expand(loaded)


def test_text_that_looks_like_a_number_is_text_when_it_is_read_back(tmp_path: Path) -> None:
    """Workers read the study's own file, and must find the runs that the caller counts."""
    (tmp_path / "1e5").mkdir()
    path = write(tmp_path, data=[], factors={"contrastive.lr": ["1e-3", 0.5]})
    loaded = study.load(path, data="1e5", data_root=tmp_path)
    calls.prepare(loaded, tmp_path / "out")
    names = [run.name for run in study.expand(loaded)]
    assert names == ["data=1e5,contrastive.lr=1e-3,seed=0", "data=1e5,contrastive.lr=0.5,seed=0"]
    assert [run.name for run in study.expand(study.load(tmp_path / "out"))] == names
    for value in ("1e-3", "1E5", "12e4567", ".5e1", "no", "007", 1e-5, 1e22, 0.001):
        assert parse_yaml(as_yaml([value])) == [value]
    ordinary = to_dict(Config())
    assert as_yaml(ordinary) == yaml.safe_dump(ordinary, sort_keys=False, allow_unicode=True)


def test_a_value_that_is_there_in_other_digits_is_not_added(tmp_path: Path) -> None:
    for values in ([0.001], [0.001, 0.01]):
        calls.prepare(
            study.load(write(tmp_path, data=["digits"], factors={"autoencoder.lr": values})), tmp_path / "out"
        )
    path = write(tmp_path, data=["digits"], factors={"autoencoder.lr": [0.01, "0.0010"]})
    with pytest.raises(InputError, match=r"autoencoder\.lr: 0\.001 -> 0\.0010, which is the same value"):
        calls.prepare(study.load(path), tmp_path / "out")


def test_a_folder_whose_name_needs_another_one_keeps_it_in_study_yaml(small: Path, tmp_path: Path) -> None:
    """Its workers read the study's own file, and must find the runs that the caller counts."""
    for given in (str(tmp_path / "my photos"), str(tmp_path / "日本")):
        loaded = study.load(small, data=given)
        (tmp_path / "study.yaml").write_text(loaded.to_yaml())
        again = study.load(tmp_path)
        assert study.expand(again) == study.expand(loaded)
        assert calls.extended(again, loaded, tmp_path / "study.yaml").data == loaded.data


def test_a_study_grows_by_values_seeds_data_and_factors_and_keeps_its_names(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    before = {run.name: run.config for run in study.expand(calls.prepare(study.load(small), out))}
    content = yaml.safe_load(small.read_text())
    content["factors"]["head.init"].append("pca")
    content["factors"]["contrastive.temperature"] = [0.1, 0.5]  # 0.5 is what the earlier runs had
    content["seeds"] = [2]
    content["data"] = ["digits", str(tmp_path)]
    small.write_text(yaml.safe_dump(content))
    after = {run.name: run.config for run in study.expand(calls.prepare(study.load(small), out))}
    assert len(after) == 2 * 3 * 2 * 3
    assert {name: after[name] for name in before} == before
    assert any("temperature=0.1" in name for name in after)
    again = study.expand(calls.prepare(study.load(small), out))
    assert {run.name: run.config for run in again} == after


def test_a_changed_base_is_refused_with_the_difference(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    calls.prepare(study.load(small), out)
    before = (out / "study.yaml").read_bytes()
    with pytest.raises(InputError, match=r"contrastive\.epochs: 3 -> 4"):
        calls.prepare(study.load(small, overrides=["contrastive.epochs=4"]), out)
    content = yaml.safe_load(small.read_text())
    for factors in ({"contrastive.temperature": [0.1]}, {**content["factors"], "contrastive.temperature": [0.1]}):
        small.write_text(yaml.safe_dump({**content, "factors": factors}))
        with pytest.raises(InputError, match=r"head.init|lacks the value"):
            calls.prepare(study.load(small), out)
    assert (out / "study.yaml").read_bytes() == before
    small.write_text(yaml.safe_dump(content))
    calls.prepare(study.load(small, overrides=["threads=1", "device=cpu"]), out)  # where it runs may change


def test_what_a_study_leaves_out_and_compares_holds_for_later_files(small: Path, tmp_path: Path) -> None:
    out, content = tmp_path / "out", yaml.safe_load(small.read_text())
    rule, pair = {"head.init": "orthogonal", "seed": 1}, ["random-frozen", "orthogonal-frozen"]
    calls.prepare(study.load(write(tmp_path, **content, exclude=[rule], compare=[pair])), out)
    later = content | {"seeds": [2]}
    joined = calls.prepare(study.load(write(tmp_path, **later)), out)
    left = {(run.config.head.init, run.config.seed) for run in study.expand(joined)}
    assert left == {("random", 0), ("orthogonal", 0), ("random", 1), ("random", 2), ("orthogonal", 2)}
    assert (joined.exclude, joined.compare) == ((rule,), (pair,))
    more = {"seeds": [1, 2], "exclude": [{"seed": [1], "head.init": ["orthogonal"]}, {"seed": 2}]}
    joined = calls.prepare(study.load(write(tmp_path, **content | more, compare=["activation", pair[::-1]])), out)
    assert (joined.exclude, joined.compare) == ((rule, {"seed": 2}), (pair, "activation"))
    assert {run.config.seed for run in study.expand(study.load(out))} == {0, 1}


def test_foreign_folders_are_left_alone(small: Path, tmp_path: Path) -> None:
    (tmp_path / "imported").mkdir()
    (tmp_path / "imported" / "study.yaml").write_text("imported: [a.csv]\nseeds: [0]\n")
    with pytest.raises(InputError, match="not written by"):
        calls.prepare(study.load(small), tmp_path / "imported")
    with pytest.raises(InputError, match="not written by"):
        study.plan(small, out=tmp_path / "imported", calibrate=False)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "result.json").write_text("{}")
    with pytest.raises(InputError, match="holds a run"):
        calls.prepare(study.load(small), tmp_path / "run")


@pytest.mark.parametrize("missing", ["cifar10", "nothing-here"])
def test_data_that_are_not_there_leave_the_study_as_it_was(small: Path, tmp_path: Path, missing: str) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match=missing):
        study.run(small, out=out, data=missing)
    assert not (out / "study.yaml").exists()
    calls.prepare(study.load(small), out)
    before = (out / "study.yaml").read_bytes()
    with pytest.raises(InputError, match=missing):
        study.run(small, out=out, data=missing)
    assert (out / "study.yaml").read_bytes() == before


def test_autoencoders_are_shared_by_what_they_depend_on(tmp_path: Path) -> None:
    """Head, SimCLR and Z-score of the pictures do not matter; latent size, seed and autoencoder settings do."""
    path = write(
        tmp_path,
        data=["digits"],
        seeds=[0, 1],
        factors={
            "head.activation": ["relu", "tanh"],
            "data.normalize": [True, False],
            "contrastive.temperature": [0.1, 0.5],
            "augment.crop_scale": [[0.3, 1.0], [0.08, 1.0]],
            "head.hidden_dim": [32, 64],
            "autoencoder.epochs": [1, 2],
        },
    )
    runs = study.expand(study.load(path))
    assert (len(runs), len(shared.autoencoders_of(runs))) == (128, 8)


# -------------------------------------------------------------------------------------------------------------- status


def finish(folder: Path, seconds: float) -> None:
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps({"stage": "probe", "seconds": {"contrastive": seconds}}))


def test_status_counts_and_estimates(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first, second, third, fourth = study.expand(calls.prepare(study.load(small), out))
    assert study.status(out).seconds_left is None
    finish(out / "runs" / first.name, 100.0)
    (out / "runs" / second.name).mkdir()
    (out / "runs" / second.name / "failed.json").write_text(json.dumps({"reason": "no luck"}))
    finish(out / "runs" / "autoencoder-digits-h64-seed0-0123abcd", 5.0)
    status = study.status(out)
    assert (status.total, status.done, status.todo, status.autoencoders) == (4, 1, 2, 1)
    assert status.failed == [(second.name, "no luck")]
    assert status.seconds_left == pytest.approx(200.0)
    finish(out / "runs" / fourth.name, 100.0)
    (out / "runs" / fourth.name / "stages.json").write_text("{}")  # its page is still to be made, by the same command
    assert (study.status(out).done, study.status(out).todo) == (1, 2)
    assert study.plan(out, out=out, calibrate=False).done == 1
    (out / "runs" / fourth.name / "failed.json").write_text(json.dumps({"reason": "no page"}))
    status = study.status(out)
    assert (status.total, status.done, len(status.failed), status.todo) == (4, 1, 2, 1)
    summary = calls._summary(out, study.expand(study.load(out)), "all")
    assert (summary.done, summary.failed, summary.elsewhere, summary.exit_code) == (1, 2, 1, 1)
    (out / "runs" / third.name).mkdir()
    (out / "runs" / third.name / "metrics.jsonl").write_text('{"stage": "contrastive", "epoch": 1}\n')
    with Claim(out / "runs" / third.name).held(epochs={"contrastive": 4}) as mine:
        assert mine
        (running,) = study.status(out).running
        assert (running.name, running.stage, running.progress) == (third.name, "contrastive", 0.25)
    assert study.status(out).running == []


def test_the_next_command_names_the_plugins_of_the_study(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    calls.prepare(study.load(small, plugin=("json", "html")), out)
    assert study.status(out).plugins == ("json", "html")
    with pytest.raises(SystemExit, match="0"):
        main(["study", "status", str(out)])
    assert "--plugin json --plugin html" in " ".join(capsys.readouterr().out.split())


def test_status_of_imported_records(reference: Path, tmp_path: Path) -> None:
    from headstart.study.imports import import_csv

    import_csv([reference / f"{name}.csv" for name in ("ae-train", "simclr-train-ae-nonfrozen")], tmp_path)
    status = study.status(tmp_path)
    assert (status.done, status.total, status.autoencoders, status.todo, status.failed) == (45, 45, 15, 0, [])


def test_status_of_a_study_that_leaves_out_what_it_does_not_vary_is_refused(small: Path, tmp_path: Path) -> None:
    calls.prepare(study.load(small), tmp_path / "out")
    path = tmp_path / "out" / "study.yaml"
    path.write_text(path.read_text().replace("exclude: []", "exclude: [{head: pca}]"))
    with pytest.raises(InputError, match="exclude names 'head', which it does not vary"):
        study.status(tmp_path / "out")


def test_status_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no study\.yaml"):
        study.status(tmp_path)


def test_status_of_10000_finished_runs_takes_little_more_than_reading_them_and_no_torch(
    small: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    planned = study.expand(calls.prepare(study.load(small, seeds=range(5000)), out))
    assert len(planned) == 10_000
    for run in planned:
        finish(out / "runs" / run.name, 60.0)
    code = (
        "import json, sys, time\nfrom pathlib import Path\n"
        "from headstart import study\nfrom headstart.cli import study_screen\n"
        "began = time.process_time()\n"
        f"for run in Path({str(out / 'runs')!r}).iterdir(): json.loads((run / 'result.json').read_bytes())\n"
        "read = time.process_time()\n"
        f"status = study.status({str(out)!r}); study_screen.print_status(status, Path())\n"
        "print(status.done, 'torch' in sys.modules, (time.process_time() - read) / (read - began))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    figures = done.stdout.splitlines()[-1].split()
    assert figures[:2] == ["10000", "False"]
    assert float(figures[2]) < 5  # 1.3 where it was written


def test_planning_writes_nothing_and_imports_no_torch(small: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom headstart import study\nfrom headstart.cli import study_screen\n"
        f"plan = study.plan({str(small)!r}, out={str(tmp_path / 'out')!r}, calibrate=False)\n"
        "study_screen.print_plan(plan, str())\n"
        "print(len(plan.runs), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "4 False"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("kind", "said"), [("cuda", True), ("cpu", False)])
def test_the_estimate_says_that_compiling_is_not_in_it(
    small: Path, kind: str, said: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.study import estimate

    for name in ("pair", "picture", "view", "probe", "place"):
        monkeypatch.setattr(estimate, f"seconds_of_{name}", lambda *_: 0.5)
    monkeypatch.setattr(estimate, "choose", lambda *_: types.SimpleNamespace(device=torch.device(kind)))
    plain = study.plan(small)
    compiled = study.plan(small, overrides=["contrastive.compile=true"])
    assert compiled.seconds == plain.seconds  # no number is invented
    assert "compiling" not in plain.measured
    assert ("compiling comes on top" in compiled.measured) == said


def test_the_estimate_counts_epochs_pictures_and_runs(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from headstart.study import estimate

    monkeypatch.setattr(estimate, "seconds_of_pair", lambda *_: 0.5)
    monkeypatch.setattr(estimate, "seconds_of_picture", lambda *_: 0.25)
    monkeypatch.setattr(estimate, "seconds_of_view", lambda *_: 0.0)
    monkeypatch.setattr(estimate, "seconds_of_probe", lambda *_: 0.0)
    monkeypatch.setattr(estimate, "seconds_of_place", lambda *_: 0.0)
    monkeypatch.setattr(estimate, "WRITING_SECONDS", 0.0)
    overrides = ["contrastive.epochs=10", "autoencoder.epochs=4", "data.limit=100"]
    train = 88  # seven of the eight parts that are not for the test
    assert study.plan(small, overrides=overrides).seconds == 4 * 10 * train * 0.5
    with_autoencoder = study.plan("smoke", overrides=overrides, seeds=[0])
    assert with_autoencoder.seconds == 8 * 10 * train * 0.5 + 2 * 4 * train * 0.25
    autoencoders = study.plan("smoke", overrides=[*overrides, "stages=autoencoder"], seeds=[0])
    assert autoencoders.seconds == 2 * 4 * train * 0.25


def test_the_estimate_is_of_the_pictures_that_are_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder's own size, not that of photographs; training pictures alone; both as a run has them."""
    from headstart.data import open_images, splits
    from headstart.study import estimate

    asked: list[int] = []

    def seconds_of_pair(config: Config, side: int) -> float:
        asked.append(side)
        return 0.5

    monkeypatch.setattr(estimate, "seconds_of_pair", seconds_of_pair)
    for timed in ("picture", "view", "probe", "place"):
        monkeypatch.setattr(estimate, f"seconds_of_{timed}", lambda *_: 0.0)
    monkeypatch.setattr(estimate, "WRITING_SECONDS", 0.0)
    draw = np.random.default_rng(0)
    sizes = {"small": [(48, 48)], "photographs": [(300, 200), (400, 500)], "wide": [(96, 200)]}
    for name, shapes in sizes.items():
        for i in range(40):
            path = tmp_path / name / "ab"[i % 2] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(0, 255, (*shapes[i % len(shapes)], 3), dtype=np.uint8)).save(path)
    for name, auto_size in product(sizes, (None, 224)):
        base = {"data": {"auto_size": auto_size, "limit": 20}, "contrastive": {"epochs": 3}}
        path = write(tmp_path, data={name: {"sources": [str(tmp_path / name)]}}, factors={}, seeds=[0], base=base)
        (run,) = study.expand(study.load(path))
        images = open_images(run.config.data)
        train = len(splits.make(images, run.config.data).train)
        asked.clear()
        assert study.plan(path).seconds == 3 * train * 0.5
        assert asked == [images.training_size("auto", auto_size)]


def test_the_estimate_is_of_a_named_set_also_before_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.study import estimate

    (tmp_path / "stl10").mkdir()
    monkeypatch.chdir(tmp_path)
    for source in ("cifar10", f"cifar10:{tmp_path / 'data'}"):
        assert estimate._looked_at(DataConfig(sources=(source,))).pictures == 50_000
    with pytest.raises(InputError, match="holds no pictures"):  # one's own folder is not the set
        estimate._looked_at(DataConfig(sources=("stl10",)))


def test_the_estimate_is_of_real_steps() -> None:
    overrides = ["threads=1", "precision=float32", "backbone.name=shufflenet_v2_x0_5", "contrastive.batch_size=8"]
    plan = study.plan("smoke", overrides=overrides, seeds=[0])
    assert plan.seconds is not None
    assert 0.1 < plan.seconds < 10_000


def test_calls_that_add_to_a_study_at_once_lose_nothing(small: Path, tmp_path: Path) -> None:
    file, out = small, tmp_path / "out"
    calls.prepare(study.load(file), out)
    slow, quick = study.load(file, seeds=[2]), study.load(file, seeds=[3])

    def meanwhile(planned: list[study.Planned]) -> None:  # while it looks at the data
        calls.prepare(quick, out)

    calls.prepare(slow, out, meanwhile)
    assert study.load(out).seeds == (0, 1, 3, 2)
    assert not list(out.glob(".claim*"))


def test_threads_and_device_of_a_plan_reach_its_runs(small: Path) -> None:
    planned = study.plan(small, calibrate=False, threads=3, device="cpu")
    assert {(run.config.threads, run.config.device) for run in planned.runs} == {(3, "cpu")}


@pytest.mark.parametrize("torn", ["", "name: small\nbase:\n  data:\n", "- a\n", "hello\n"])
def test_a_torn_study_file_is_refused_and_kept(small: Path, tmp_path: Path, torn: str) -> None:
    out = tmp_path / "study"
    calls.prepare(study.load(small), out)
    (out / "study.yaml").write_text(torn)
    with pytest.raises(InputError, match=r"study\.yaml was not written .* or is cut short; restore it from a copy"):
        calls.prepare(study.load(small), out)
    assert (out / "study.yaml").read_text() == torn
