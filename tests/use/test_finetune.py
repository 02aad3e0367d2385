"""A classifier is exact per seed, resumes to the same weights, and works in plain torchvision."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from headstart import statistics
from headstart.engine.checkpoint import Checkpoints, _read_one
from headstart.engine.device import choose
from headstart.records.errors import InputError, Interrupted
from headstart.use import finetune as finetuning
from headstart.use.finetune import block_of, draw_labels, finetune, load_classifier, predict
from headstart.use.load import Run

SMALL = {"epochs": 2, "batch_size": 16, "quiet": True}


@pytest.fixture(scope="module")
def compute():
    return choose("cpu", "float32", threads=1)


@pytest.fixture(scope="module")
def classifier(run: Run, photos: Path, compute, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    finetune(run, photos, folder, compute=compute, **SMALL)
    return folder


def assert_same_weights(one: Path, other: Path) -> None:
    """Bit for bit; the order of a safetensors file's metadata is not fixed, so its bytes may differ."""
    a, b = load_file(one / "classifier.safetensors"), load_file(other / "classifier.safetensors")
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_both_starts_are_compared_with_intervals(classifier: Path, run: Run, photos: Path):
    record = json.loads((classifier / "finetune.json").read_text())
    assert [row["start"] for row in record["rows"]] == ["pretrained", "untrained"]
    for row in record["rows"]:
        assert row["accuracy"] == row["correct"] / row["n_test"]
        assert row["ci95"] == pytest.approx(statistics.wilson(row["correct"], row["n_test"]))
        assert 1 <= row["best_epoch"] <= 2
    assert record["n_labels"] == run.result["data"]["train"]
    assert record["classes"] == run.open_images(photos).classes
    assert not (classifier / "checkpoint.pt").exists()


def test_the_reported_accuracy_is_that_of_the_saved_classifier(classifier: Path, run: Run, photos: Path, compute):
    from headstart.data import splits as splitting

    images = run.open_images(photos)
    test = splitting.make(images, run.config.data).test
    model, about = load_classifier(classifier)
    p = torch.cat(list(finetuning.probabilities(model, images, test, run.size, (run.mean, run.std), compute)))
    assert int((p.argmax(1).numpy() == images.labels[test]).sum()) == about["rows"][0]["correct"]


def test_the_same_seed_gives_the_same_weights(classifier: Path, run: Run, photos: Path, compute, tmp_path: Path):
    finetune(run, photos, tmp_path, compute=compute, compare=False, **SMALL)
    assert_same_weights(tmp_path, classifier)


def test_a_stopped_training_goes_on_to_the_same_weights(
    classifier: Path, run: Run, photos: Path, compute, tmp_path: Path, monkeypatch
):
    stops = {3, 11}  # in the middle of the first start's first epoch, and within the second start
    seen = 0

    def stop(self: Checkpoints) -> bool:
        nonlocal seen
        seen += 1
        return seen in stops

    monkeypatch.setattr(Checkpoints, "stop_requested", stop)
    for _ in stops:
        with pytest.raises(Interrupted):
            finetune(run, photos, tmp_path, compute=compute, **SMALL)
        assert not (tmp_path / "finetune.json").exists()
    finetune(run, photos, tmp_path, compute=compute, **SMALL)
    assert_same_weights(tmp_path, classifier)
    assert (tmp_path / "finetune.json").read_text() == (classifier / "finetune.json").read_text()


def test_other_settings_do_not_continue_a_begun_training(run: Run, photos: Path, compute, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(Checkpoints, "stop_requested", lambda self: True)
    with pytest.raises(Interrupted):
        finetune(run, photos, tmp_path, compute=compute, **SMALL)
    with pytest.raises(InputError, match="other settings"):
        finetune(run, photos, tmp_path, compute=compute, **SMALL, seed=1)


def test_overwrite_goes_on_with_what_it_has_begun(run: Run, photos: Path, compute, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(Checkpoints, "stop_requested", lambda self: True)
    steps = []
    for seed in (0, 0, 1):
        with pytest.raises(Interrupted):
            finetune(run, photos, tmp_path, compute=compute, **SMALL, seed=seed, overwrite=True)
        steps.append(_read_one(tmp_path / "checkpoint.pt")["state"]["state"]["step"])
    assert steps == [1, 2, 1]


def test_a_finished_folder_is_refused_with_both_ways_out(classifier: Path, run: Run, photos: Path):
    with pytest.raises(InputError, match=r"--overwrite.*--out"):
        finetune(run, photos, classifier)


def test_unlabelled_pictures_are_refused(run: Run, photos: Path, tmp_path: Path):
    with pytest.raises(InputError, match="label"):
        finetune(run, photos / "ring", tmp_path)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("labels", 0), ("labels", 1.5), ("lr", -1), ("layer_decay", 0), ("epochs", 0), ("patience", 0)],
)
def test_settings_out_of_range_are_named(run: Run, photos: Path, tmp_path: Path, setting: str, value: float):
    with pytest.raises(InputError, match=f"--{setting.replace('_', '-')} is {value}"):
        finetune(run, photos, tmp_path, **{setting: value})


def test_few_labels_are_balanced_and_reach_every_class():
    labels = np.repeat(np.arange(5), 40)
    train = np.arange(0, 200, 2)
    assert np.bincount(labels[draw_labels(train, labels, 0.01, 0)]).tolist() == [1] * 5
    some = draw_labels(train, labels, 0.1, 0)
    assert np.bincount(labels[some]).tolist() == [2] * 5
    assert np.isin(some, train).all()
    np.testing.assert_array_equal(draw_labels(train, labels, 1, 0), train)


def test_rates_fall_block_by_block_towards_the_input(run: Run):
    model = finetuning.Classifier(run.backbone, 3)
    groups = finetuning.groups(model, finetuning.Settings(), 0.5)
    rates = {name: group["rate"] for (name, _), group in zip(model.named_parameters(), groups, strict=True)}
    assert rates["classifier.weight"] == 1
    assert rates["backbone.layer4.1.conv2.weight"] == rates["backbone.layer4.0.conv1.weight"] == 0.5
    assert rates["backbone.layer1.0.conv1.weight"] == 0.5**4
    assert rates["backbone.conv1.weight"] < rates["backbone.layer1.0.conv1.weight"]
    decayed = {name for (name, _), group in zip(model.named_parameters(), groups, strict=True) if group["weight_decay"]}
    assert "backbone.bn1.weight" not in decayed
    assert "backbone.conv1.weight" in decayed


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("backbone.conv1.weight", "backbone.conv1"),
        ("backbone.layer3.1.bn2.bias", "backbone.layer3"),
        ("backbone.features.7.2.weight", "backbone.features.7"),
        ("backbone.encoder.layers.encoder_layer_2.ln_1.weight", "backbone.encoder.layers.encoder_layer_2"),
        ("backbone.conv_proj.weight", "backbone.conv_proj"),
        ("backbone.class_token", "backbone"),
        ("classifier.bias", "classifier"),
    ],
)
def test_blocks_by_name(name: str, block: str):
    assert block_of(name) == block


def test_predictions_are_safe_rows_of_the_most_probable_class(
    classifier: Path, run: Run, photos: Path, compute, tmp_path: Path
):
    n = predict(classifier, photos, tmp_path / "p.csv", compute=compute, batch_size=7, quiet=True)
    rows = list(csv.DictReader((tmp_path / "p.csv").open(newline="")))
    images = run.open_images(photos)
    assert len(rows) == n == len(images)
    assert list(rows[0]) == ["name", "label", "probability"]
    model, about = load_classifier(classifier)
    p = torch.cat(list(finetuning.probabilities(model, images, np.arange(n), run.size, (run.mean, run.std), compute)))
    names = [about["classes"][i] for i in p.argmax(1)]
    assert [row["label"].removeprefix("'") for row in rows] == names
    assert [row["name"].removeprefix("'") for row in rows] == images.names
    np.testing.assert_allclose([float(row["probability"]) for row in rows], p.max(1).values, atol=1e-5)
    assert not any(row["label"].startswith("=") for row in rows)


def test_a_folder_without_a_classifier_is_named(run: Run, photos: Path, tmp_path: Path):
    with pytest.raises(InputError, match=r"finetune\.json"):
        predict(run.folder.path, photos, tmp_path / "p.csv")


PLAIN = """
import sys
import numpy as np
{lines}
with torch.no_grad():
    np.save("scores.npy", network.eval()(torch.from_numpy(np.load("x.npy"))).numpy())
assert not any(name.startswith("headstart") for name in sys.modules)
"""


def test_the_classifier_is_a_plain_torchvision_network(classifier: Path, tmp_path: Path):
    with safe_open(classifier / "classifier.safetensors", "pt") as file:
        about = file.metadata()
    assert "fc.weight" in load_file(classifier / "classifier.safetensors")
    assert json.loads(about["classes"]) == json.loads((classifier / "finetune.json").read_text())["classes"]
    (tmp_path / "classifier.safetensors").write_bytes((classifier / "classifier.safetensors").read_bytes())
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "x.npy", x.numpy())
    subprocess.run([sys.executable, "-c", PLAIN.format(lines=about["loading"])], cwd=tmp_path, check=True)
    with torch.no_grad():
        wanted = load_classifier(classifier)[0](x).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "scores.npy"), wanted, atol=1e-4)
