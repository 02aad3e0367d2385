"""The config: every value checked and named, YAML and back, and what the hash counts."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.records import config as configs
from headstart.records import presets, schema
from headstart.records.config import Config, DataConfig, HeadConfig, differences, from_dict, hash_of, to_dict, to_yaml
from headstart.records.errors import InputError
from headstart.records.files import read_yaml
from headstart.records.presets import paper
from headstart.records.validation import problem


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "seed": st.integers(0, 2**31),
            "precision": st.sampled_from(["auto", "float32", "bfloat16"]),
            "head": st.fixed_dictionaries(
                {},
                optional={
                    "init": st.sampled_from(["random", "autoencoder", "orthogonal", "spectrum", "shuffled", "pca"]),
                    "frozen": st.booleans(),
                    "hidden_dim": st.integers(1, 4096),
                },
            ),
            "contrastive": st.fixed_dictionaries(
                {},
                optional={
                    "lr": st.none() | st.floats(1e-8, 10),
                    "temperature": st.floats(1e-3, 1),
                    "batch_size": st.none() | st.integers(2, 10_000),
                    "passes": st.sampled_from([1, 2]),
                },
            ),
            "augment": st.fixed_dictionaries({"crop_scale": st.tuples(st.floats(0.01, 0.5), st.floats(0.5, 1))}),
        },
    )
)
def test_yaml_and_back_is_the_same(tmp_path_factory: pytest.TempPathFactory, values: dict[str, object]) -> None:
    config = from_dict(values)
    path = tmp_path_factory.mktemp("yaml") / "config.yaml"
    path.write_text(to_yaml(config, {"headstart": "0"}), encoding="utf-8")
    assert configs.load(path) == (config, {"headstart": "0"})
    assert from_dict(to_dict(config)) == config


def test_small_numbers_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("contrastive: {lr: 1e-4}")
    assert configs.load(tmp_path / "x.yaml")[0].contrastive.lr == 1e-4


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"head": {"hiden_dim": 3}}, r"unknown key 'head.hiden_dim' \(perhaps you meant 'head.hidden_dim'\)"),
        ({"head": {"hidden_dim": "abc"}}, "hidden-dim"),
        ({"head": {"depth": 7}}, "head.depth is 7; it must be 1, 2, 3 or 4"),
        ({"contrastive": {"temperature": 0}}, "contrastive.temperature is 0; it must be greater than 0"),
        ({"augment": {"crop_scale": [0.9, 0.1]}}, "augment.crop-scale"),
        ({"device": "gpu"}, "device is 'gpu'"),
        ({"data": {"size": 2}}, "data.size is 2"),
    ],
)
def test_wrong_values_are_named_with_what_would_be_right(values: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        from_dict(values)


@pytest.mark.parametrize(
    "text",
    ["!!python/object/apply:os.system ['true']", "a: [1, 2", "- 1\n- 2", "head: 3", "\x00", "&a [*a]", "[" * 5000],
)
def test_hostile_yaml_is_refused_with_the_files_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"x\.yaml"):
        configs.load(path)


def test_sources_of_a_file_are_a_name_or_names(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text("data: {sources: photos/}\n")
    assert configs.load(path)[0].data.sources == ("photos/",)
    for text in ("data: {sources: }", "data: {sources: [1]}", "about: 3"):
        path.write_text(text)
        with pytest.raises(InputError, match=r"some\.yaml"):
            configs.load(path)


def test_hash_counts_what_is_computed_and_not_where() -> None:
    base = Config()
    same = replace(
        base,
        device="cpu",
        threads=3,
        stages="autoencoder",
        loggers=("tensorboard",),
        data=replace(base.data, sources=("elsewhere",), download=True),
    )
    assert hash_of(base, "f") == hash_of(same, "f")
    assert hash_of(base, "f") != hash_of(base, "g")
    other = replace(base, seed=1)
    assert hash_of(base, "f") != hash_of(other, "f")
    assert differences(base, other) == {"seed": "0 -> 1"}
    assert differences(base, same) == {}


def test_paper_preset_is_the_authors_setting() -> None:
    config = paper(("cifar10:ROOT",))
    assert (config.data.size, config.contrastive.batch_size) == (32, 1280)
    assert (config.backbone.name, config.backbone.weights) == ("resnet34", "imagenet")
    assert (config.contrastive.epochs, config.contrastive.temperature, config.contrastive.passes) == (150, 0.5, 2)
    assert config.contrastive.final_lr_fraction == pytest.approx(1 / 50)
    assert (config.autoencoder.epochs, config.autoencoder.batch_size, config.autoencoder.lr) == (100, 100, 1e-4)
    assert not config.data.normalize
    assert (config.precision, config.data.detail) == ("float32", 0.0)
    assert from_dict({"precision": "bfloat16"}, config).precision == "bfloat16"
    assert paper(("photos/",)).contrastive.batch_size is None
    with pytest.raises(InputError, match="one of paper"):
        presets.preset("papers")


def test_house_defaults_are_the_contracts() -> None:
    config = Config(data=DataConfig(sources=("x",)))
    assert (config.backbone.name, config.backbone.stem, config.backbone.weights) == ("resnet34", "imagenet", "none")
    assert (config.autoencoder.epochs, config.contrastive.epochs) == (100, 100)
    head = config.head
    assert (head.init, head.frozen, head.activation) == ("autoencoder", True, "relu")
    assert (head.hidden_dim, head.output_dim) == (256, 128)


def test_yaml_reads_no_file_it_cannot(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        read_yaml(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"head": {"hidden_dim": True}}, "head.hidden-dim is True; it must be a number"),
        ({"contrastive": {"lr": float("nan")}}, "contrastive.lr is nan; it must be a finite number"),
        ({"augment": {"jitter": [1, 1, 1]}}, r"augment.jitter is \[1, 1, 1\]; it must be a list of at least 4"),
        ({"augment": {"blur_kernel": 4}}, "augment.blur-kernel is 4; it must be an odd number of pixels"),
        ({"probe": {"names": ["knn", "nn"]}}, r"probe.names\[1\] is 'nn'; it must be one of paper, linear"),
        ({"head": {"init": "fancy"}}, "head.init is 'fancy'; it must be one of random, autoencoder"),
        ({"head": {"frozen": False, "unfreeze_at": 0.5}}, "head.unfreeze-at is 0.5; it must be unset"),
        ({"head": None}, "head is None; it must be names and values"),
        ({"hed": {}}, r"unknown key 'hed' \(perhaps you meant 'head'\)"),
        ({"autoencoder": {"weights": 3}}, "autoencoder.weights is 3; it must be text"),
    ],
)
def test_every_kind_of_wrong_value_has_its_sentence(values: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=f"^config.*{said}"):
        from_dict(values)


def test_a_section_made_in_python_is_checked_alike() -> None:
    with pytest.raises(InputError, match=r"^head.depth is 7; it must be 1, 2, 3 or 4"):
        HeadConfig(depth=7)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"unknown key 'head.dept' \(perhaps you meant 'head.depth'\)"):
        HeadConfig(dept=3)  # type: ignore[call-arg]
    with pytest.raises(InputError, match=r"^seed is -1; it must be at least 0"):
        replace(Config(), seed=-1)


def test_paths_numbers_of_numpy_and_single_names_are_taken() -> None:
    config = from_dict({"autoencoder": {"weights": Path("a.pt")}, "seed": np.int64(3), "probe.names": "knn"})
    assert (config.autoencoder.weights, config.seed, config.probe.names) == ("a.pt", 3, ("knn",))


def test_hashes_of_runs_that_exist_stay() -> None:
    """What these settings hashed to when config.yaml was first written; finished runs are found by it."""
    assert hash_of(Config(), "f") == "88ee719d48895e80"
    assert hash_of(paper(("cifar10:x",)), "f") == "956dff38d0f1a435"  # in float32, from original pixels
    some = from_dict({"contrastive": {"lr": 1, "warmup_epochs": 0}, "head": {"init": "pca"}})
    assert hash_of(some, "f") == hash_of(from_dict(to_dict(some)), "f") == "82fbad29f6a1dd18"


def test_a_preset_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets.PRESETS, "_choices", dict(presets.PRESETS._choices))
    del presets.PRESETS._choices["adapt"]
    presets.PRESETS.register(
        presets.Preset(
            name="given",
            help="for weights that are given",
            make=lambda sources: Config(data=DataConfig(sources=sources), seed=5),
            suits=lambda weights: weights != "none",
        )
    )
    assert presets.preset(None, ("x",), "FILE").seed == presets.preset("given").seed == 5
    assert presets.preset(None, ("x",)) == Config(data=DataConfig(sources=("x",)))
    assert presets.preset("paper", (), "FILE") == paper()


def test_a_result_has_a_json_schema() -> None:
    written = schema.result_schema()
    assert {"stage", "config_hash", "data", "head", "probes", "untrained"} <= set(written["required"])
    assert written["properties"]["stage"]["enum"] == ["autoencoder", "contrastive", "probe"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"stage": "pro"}, "stage is 'pro'; it must be autoencoder, contrastive or probe"),
        ({"head": []}, r"head is \[\]; it must be names and values"),
        ({"autoencoder": {"test_mse": "x"}}, "autoencoder.test_mse is 'x'; it must be a number"),
        ({"probes": {"\x1b[2J": {"accuracy": True}}}, r"probes.\\x1b\[2J.accuracy is True; it must be a number"),
        ({"seconds": {"probe": 1e300}}, "seconds.probe is 1e\\+300; it must be below 1e\\+100"),
        ({"geometry": {"head": [[1, 2, 3]]}}, "geometry.head"),
    ],
)
def test_what_is_wrong_with_a_record_is_said(change: dict[str, object], said: str) -> None:
    record: dict[str, Any] = {
        "stage": "probe",
        "data": {},
        "backbone": {"name": "resnet18"},
        "head": {"init": "pca", "frozen": True, "activation": "relu", "hidden_dim": 4, "output_dim": 2},
        "autoencoder": None,
        "contrastive": {"epochs": 3, "train_loss": 1},
        "probes": {"knn": {"accuracy": 1, "ci95": [0, 1]}},
        "untrained": {},
        "geometry": {"head": {"rank": [1, 2.5], "name": "x", "pairs": [[1, 2]]}},
        "seconds": {"probe": 1},
        "of another version": [],
    }
    assert problem(record, schema.RECORD) is None
    assert re.match(said, problem(record | change, schema.RECORD) or "")
