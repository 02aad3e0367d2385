"""A classifier is exact per seed, resumes to the same weights, and works in plain torchvision."""

import csv
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from headstart import statistics
from headstart.backbones.blocks import block_of
from headstart.data.splits import Splits
from headstart.engine.checkpoint import Checkpoints, _read_one
from headstart.engine.device import Compute, choose
from headstart.records.claim import identity
from headstart.records.errors import InputError, Interrupted
from headstart.use.classifier import Classifier, load_classifier, outputs
from headstart.use.finetune import LABELS, finetune, starts_of
from headstart.use.fitting import Fit, Fitter, groups
from headstart.use.labelled import draw_labels, fold_of, split
from headstart.use.load import Run
from headstart.use.predict import predict
from headstart.use.settings import FinetuneSettings

SMALL = FinetuneSettings(epochs=2, batch_size=16, lr=1e-3, layer_decay=0.75)


@pytest.fixture(scope="module")
def compute() -> Compute:
    return choose("cpu", "float32", threads=1)


@pytest.fixture(scope="module")
def classifier(run: Run, photos: Path, compute: Compute, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    finetune(run, photos, folder, SMALL, compute=compute, quiet=True)
    return folder


def assert_same_weights(one: Path, other: Path) -> None:
    """Bit for bit; the order of a safetensors file's metadata is not fixed, so its bytes may differ."""
    a, b = load_file(one / "classifier.safetensors"), load_file(other / "classifier.safetensors")
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_both_starts_are_compared_with_intervals(classifier: Path, run: Run, photos: Path) -> None:
    record = json.loads((classifier / "finetune.json").read_text())
    test = Splits.load(run.folder.splits, len(run.open_images(photos))).test
    assert [row["start"] for row in record["rows"]] == ["adapted", "scratch"]
    for row in record["rows"]:
        assert row["accuracy"] == row["correct"] / row["n_test"]
        assert row["ci95"] == pytest.approx(statistics.wilson(row["correct"], row["n_test"]))
        assert 1 <= row["best_epoch"] <= 2
        assert row["majority"] == max(np.bincount(run.open_images(photos).labels[test])) / len(test)
        assert row["macro"]["recall"] == pytest.approx(np.mean(list(row["per_class"].values())))
    assert record["n_labels"] == run.result["data"]["train"]
    assert record["classes"] == run.open_images(photos).classes
    assert not (classifier / "checkpoint.pt").exists()


def test_later_labels_are_not_judged_by_pictures_that_the_run_saw(
    run: Run, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its pictures keep its split, whatever labels they have; of others those that it saw are trained on. Where that
    leaves too few, how many it saw is said; and so is which class nothing is judged by."""
    images, settings = run.open_images(photos), FinetuneSettings()
    mine = Splits.load(run.folder.splits, len(images))
    images.labels, images.fingerprint = np.where(images.labels == 0, 0, 1), "another"
    assert split(run, images, settings, True).same(mine)
    images.labels[np.union1d(mine.val, mine.test)] = -1
    images.labels[mine.train[:2]] = [0, 1]
    parts = split(run, images, settings, False)
    said = " ".join(capsys.readouterr().err.split())
    judged = len(parts.test)
    assert np.isin(parts.test, mine.train).all()
    assert f"SimCLR has seen {judged} of the {judged} pictures that judge it here, without labels" in said
    other = run.open_images(photos, replace(run.reading, labels="folders", split_seed=7))
    with pytest.raises(InputError, match="split-seed is 7, but the run's own pictures keep the run's split"):
        split(run, other, settings, True)
    images = run.open_images(photos)
    rare = images.labels[mine.train][0]
    images.labels[np.setdiff1d(np.flatnonzero(images.labels == rare), mine.train)] = -1
    images.fingerprint = "another"
    split(run, images, settings, False)
    said = " ".join(capsys.readouterr().err.split())
    assert f"no picture of {images.classes[rare]} is in the test split; --final judges by all labelled pictures" in said


def test_copies_are_left_out_of_the_same_fold(
    run: Run, photos: Path, compute: Compute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = run.open_images(photos)
    images.digests = images.digests[np.arange(len(images)) // 2 * 2]
    fits: list[Fit] = []
    real = Fitter.fit

    def seen(self: Fitter, fit: Fit, keep: Any) -> Any:
        fits.append(fit)
        return real(self, fit, keep)

    monkeypatch.setattr(Fitter, "fit", seen)
    settings = replace(SMALL, epochs=1, final=True, compare=False)
    finetune(run, images, tmp_path / "clf", settings, compute=compute, quiet=True)
    for fit in fits[:-1]:
        left_out = np.setdiff1d(np.arange(len(images)), np.union1d(fit.train, fit.val))
        assert len(left_out)
        assert np.array_equal(left_out[::2] + 1, left_out[1::2])


def test_the_reported_accuracy_is_that_of_the_saved_classifier(
    classifier: Path, run: Run, photos: Path, compute: Compute
) -> None:
    from headstart.data import splits as splitting

    images = run.open_images(photos)
    test = splitting.make(images, run.config.data).test
    model, about = load_classifier(classifier)
    p = torch.cat([p for p, _ in outputs(model, images, test, run.size, (run.mean, run.std), compute)])
    assert int((p.argmax(1).numpy() == images.labels[test]).sum()) == about["rows"][0]["correct"]


def test_the_same_seed_gives_the_same_weights(
    classifier: Path, run: Run, photos: Path, compute: Compute, tmp_path: Path
) -> None:
    finetune(run, photos, tmp_path, replace(SMALL, compare=False), compute=compute, quiet=True)
    assert_same_weights(tmp_path, classifier)


def test_a_stopped_training_goes_on_to_the_same_weights(
    classifier: Path, run: Run, photos: Path, compute: Compute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops = {3, 11}  # in the middle of the first start's first epoch, and within the second start
    seen = 0

    def stop(self: Checkpoints) -> bool:
        nonlocal seen
        seen += 1
        return seen in stops

    monkeypatch.setattr(Checkpoints, "stop_requested", stop)
    for _ in stops:
        with pytest.raises(Interrupted):
            finetune(run, photos, tmp_path, SMALL, compute=compute, quiet=True)
        assert not (tmp_path / "finetune.json").exists()
    finetune(run, photos, tmp_path, SMALL, compute=compute, quiet=True)
    assert_same_weights(tmp_path, classifier)
    assert (tmp_path / "finetune.json").read_text() == (classifier / "finetune.json").read_text()


def test_a_training_that_was_taken_over_stops(
    run: Run, photos: Path, compute: Compute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process stood still, and finds another's claim on the folder when it wakes up."""
    monkeypatch.setattr("headstart.records.claim.BEAT_SECONDS", 0.01)
    claim = tmp_path / ".claim"
    theirs = json.dumps({**identity(), "host": "machine-b", "token": "theirs"})
    first = Fitter.fit

    def overtaken(self: Fitter, fit: Any, keep: Any) -> Any:
        (tmp_path / "theirs").write_text(theirs)
        (tmp_path / "theirs").replace(claim)
        return first(self, fit, keep)

    monkeypatch.setattr(Fitter, "fit", overtaken)
    with pytest.raises(Interrupted):
        finetune(run, photos, tmp_path, replace(SMALL, epochs=100_000), compute=compute, quiet=True)
    assert claim.read_text() == theirs
    assert not (tmp_path / "finetune.json").exists()


def test_other_settings_do_not_continue_a_begun_training(
    run: Run, photos: Path, compute: Compute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Checkpoints, "stop_requested", lambda self: True)
    with pytest.raises(Interrupted):
        finetune(run, photos, tmp_path, SMALL, compute=compute, quiet=True)
    with pytest.raises(InputError, match="other settings"):
        finetune(run, photos, tmp_path, replace(SMALL, seed=1), compute=compute, quiet=True)


def test_overwrite_goes_on_with_what_it_has_begun(
    run: Run, photos: Path, compute: Compute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Checkpoints, "stop_requested", lambda self: True)
    steps = []
    for seed in (0, 0, 1):
        with pytest.raises(Interrupted):
            finetune(run, photos, tmp_path, replace(SMALL, seed=seed), compute=compute, overwrite=True, quiet=True)
        saved = _read_one(tmp_path / "checkpoint.pt")
        assert saved is not None
        steps.append(saved["state"]["state"]["step"])
    assert steps == [1, 2, 1]


def _stem(backbone: Any) -> torch.Tensor:
    return backbone.conv1.weight


def test_all_starts_are_treated_alike(
    run: Run, photos: Path, compute: Compute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every start tries the same rates and decays on the same pictures; names say which weights it began with."""
    weights = replace(run.config.backbone, weights=str(run.folder.backbone))
    given = replace(run, config=replace(run.config, backbone=weights))
    fits: dict[str, list[Fit]] = {}
    real = Fitter.fit

    def fit(self: Fitter, fit: Any, keep: Any) -> Any:
        fits.setdefault(fit.start, []).append(fit)
        return real(self, fit, keep)

    monkeypatch.setattr(Fitter, "fit", fit)
    settings = replace(SMALL, epochs=1, layer_decay=None, scratch=True)
    found = finetune(given, photos, tmp_path, settings, compute=compute, quiet=True)
    assert [row.start for row in found.rows] == ["adapted", "given", "scratch"]
    assert [row.label for row in found.rows] == ["after SimCLR", "before SimCLR, weights as given", "from scratch"]
    tried = [[(f.lr, f.layer_decay, f.epochs, f.train.tolist()) for f in fits[row.start][:-1]] for row in found.rows]
    assert tried[0] == tried[1] == tried[2]
    assert [decay for _, decay, *_ in tried[0]] == [0.75, 1.0]
    for row in found.rows:
        assert fits[row.start][-1].layer_decay == row.layer_decay
    assert torch.equal(_stem(given.untrained_backbone()), _stem(run.backbone))
    assert torch.equal(_stem(given.random_backbone()), _stem(run.untrained_backbone()))


@pytest.mark.parametrize(
    ("weights", "labels"),
    [
        ("none", ["after SimCLR", "from scratch"]),
        ("imagenet", ["after SimCLR", "before SimCLR, weights as given", "from scratch"]),
        ("pretrained", ["after SimCLR", "before SimCLR, weights as given", "from scratch"]),
        ("runs/other", ["after SimCLR", "before SimCLR, weights as given", "from scratch"]),
    ],
)
def test_no_given_weights_are_called_from_scratch(run: Run, weights: str, labels: list[str]) -> None:
    began = replace(run, config=replace(run.config, backbone=replace(run.config.backbone, weights=weights)))
    assert [LABELS[start] for start in starts_of(began, replace(SMALL, scratch=True))] == labels
    assert [LABELS[start] for start in starts_of(began, SMALL)] == labels[:2]


def test_few_labels_are_cross_validated_and_then_all_trained_on(
    run: Run, photos: Path, compute: Compute, tmp_path: Path
) -> None:
    settings = replace(SMALL, epochs=1, final=True, compare=False)
    found = finetune(run, photos, tmp_path, settings, compute=compute, quiet=True)
    (row,) = found.rows
    assert (found.n_labels, row.n_test, found.folds) == (60, 60, 5)
    assert row.ci95 == pytest.approx(statistics.wilson(row.correct, 60))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["start"] == "on all labels"]
    assert len(last) == row.best_epoch
    assert "val_accuracy" not in last[0]
    with np.load(tmp_path / "seen.npz") as seen:
        assert seen["embeddings"].shape == (60, 512)
    assert predict(tmp_path, photos, tmp_path / "p.csv", compute=compute, quiet=True).pictures == 60


def test_folds_are_equally_large_and_spread_every_class() -> None:
    labels = np.repeat([0, 1, 2], [7, 11, 4])
    folds = fold_of(labels, 0)
    assert sorted(np.bincount(folds).tolist()) == [4, 4, 4, 5, 5]
    for label in range(3):
        counts = np.bincount(folds[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1


def test_pictures_unlike_all_training_pictures_are_marked(
    classifier: Path, photos: Path, compute: Compute, tmp_path: Path
) -> None:
    odd = tmp_path / "odd"
    odd.mkdir()
    Image.effect_noise((40, 40), 200).convert("RGB").save(odd / "noise.png")
    (odd / "seen.png").write_bytes((photos / "ring" / "03.png").read_bytes())
    with np.load(classifier / "seen.npz") as seen:
        rows, limit = seen["embeddings"], float(seen["limit"])
    assert 0 < limit < 1
    found = predict(classifier, odd, tmp_path / "p.csv", compute=compute, quiet=True)
    by_name = {row["name"]: row for row in csv.DictReader((tmp_path / "p.csv").open(newline=""))}
    noise, ring = float(by_name["noise.png"]["distance"]), float(by_name["seen.png"]["distance"])
    assert noise > ring
    for row in by_name.values():
        assert (row["unlike"] == "yes") == (float(row["distance"]) > limit)
    assert found.unlike == sum(row["unlike"] == "yes" for row in by_name.values())
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    (classifier / "seen.npz").rename(tmp_path / "seen.npz")
    try:
        with pytest.raises(InputError, match=r"seen\.npz is missing"):
            predict(classifier, odd, tmp_path / "p.csv", compute=compute, quiet=True)
    finally:
        (tmp_path / "seen.npz").rename(classifier / "seen.npz")


def test_a_finished_folder_is_refused_with_both_ways_out(classifier: Path, run: Run, photos: Path) -> None:
    with pytest.raises(InputError, match=r"--overwrite.*--out"):
        finetune(run, photos, classifier)


def test_unlabelled_pictures_are_refused(run: Run, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="label"):
        finetune(run, photos / "ring", tmp_path)


def test_two_labels_of_each_of_two_classes_can_be_judged(
    run: Run, photos: Path, compute: Compute, tmp_path: Path
) -> None:
    images = run.open_images(photos)
    some = [np.flatnonzero(images.labels == label)[:2] for label in (0, 1)]
    labels = np.full(len(images), -1)
    labels[np.concatenate(some)] = [0, 0, 1, 1]
    images.labels, images.fingerprint = labels, "another"
    settings = replace(SMALL, epochs=1, final=True, compare=False)
    found = finetune(run, images, tmp_path / "clf", settings, compute=compute, quiet=True)
    assert (found.n_labels, found.folds, found.rows[0].n_test) == (4, 4, 4)


@pytest.mark.parametrize(
    ("given", "settings", "said"),
    [
        ({}, {"final": True}, "no picture has a label"),
        ({"ring": 3}, {"final": True}, "3 labelled pictures are of one class, ring; a classifier needs at least two"),
        ({"ring": 1, "=disc": 1}, {"final": True}, "of 2 labels in 2 classes, 0 classes have two"),
        ({"ring": 9, "=disc": 1}, {"final": True}, "of 10 labels in 2 classes, 1 class has two"),
        ({"ring": 9, "=disc": 9}, {"final": True, "per_class": 1}, "of 2 labels in 2 classes, 0 classes have two"),
        ({"ring": 20}, {}, "labelled pictures of the training split are of one class, ring"),
        ({}, {}, "no picture of the train split has a label"),
        ({}, {"per_class": 2}, "no picture of the train split has a label"),
    ],
)
def test_too_few_labels_are_told_as_they_are(
    given: dict[str, int], settings: dict[str, Any], said: str, run: Run, photos: Path, tmp_path: Path
) -> None:
    """Before anything is trained, and in words that are true of these labels."""
    images = run.open_images(photos)
    labels = np.full(len(images), -1)
    for name, n in given.items():
        label = images.classes.index(name)
        labels[np.flatnonzero(images.labels == label)[:n]] = label
    images.labels, images.fingerprint = labels, "another"
    with pytest.raises(InputError, match=re.escape(said)):
        finetune(run, images, tmp_path / "clf", replace(SMALL, **settings), quiet=True)
    assert not (tmp_path / "clf").exists()


@pytest.mark.parametrize(
    ("setting", "value"),
    [("labels", 0), ("labels", 1.5), ("lr", -1), ("layer_decay", 0), ("epochs", 0), ("patience", 0), ("per_class", 0)],
)
def test_settings_out_of_range_are_named(setting: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"{setting.replace('_', '-')} is {value}"):
        FinetuneSettings(**{setting: value})


def test_few_labels_are_balanced_and_reach_every_class() -> None:
    labels = np.repeat(np.arange(5), 40)
    train = np.arange(0, 200, 2)
    assert np.bincount(labels[draw_labels(train, labels, FinetuneSettings(labels=0.01))]).tolist() == [1] * 5
    some = draw_labels(train, labels, FinetuneSettings(labels=0.1))
    assert np.bincount(labels[some]).tolist() == [2] * 5
    assert np.isin(some, train).all()
    np.testing.assert_array_equal(draw_labels(train, labels, FinetuneSettings()), train)
    assert np.bincount(labels[draw_labels(train, labels, FinetuneSettings(per_class=3))]).tolist() == [3] * 5


def test_rates_fall_block_by_block_towards_the_input(run: Run) -> None:
    model = Classifier(run.backbone, 3)
    grouped = groups(model, 0.01, 0.5)
    of = {id(p): group for group in grouped for p in group["params"]}
    assert sum(len(group["params"]) for group in grouped) == len(of) == len(list(model.parameters()))
    rates = {name: of[id(p)]["rate"] for name, p in model.named_parameters()}
    assert rates["classifier.weight"] == 1
    assert rates["backbone.layer4.1.conv2.weight"] == rates["backbone.layer4.0.conv1.weight"] == 0.5
    assert rates["backbone.layer1.0.conv1.weight"] == 0.5**4
    assert rates["backbone.conv1.weight"] < rates["backbone.layer1.0.conv1.weight"]
    decayed = {name for name, p in model.named_parameters() if of[id(p)]["weight_decay"]}
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
def test_blocks_by_name(name: str, block: str) -> None:
    assert block_of(name) == block


def test_predictions_are_safe_rows_of_the_most_probable_class(
    classifier: Path, run: Run, photos: Path, compute: Compute, tmp_path: Path
) -> None:
    found = predict(classifier, photos, tmp_path / "p.csv", compute=compute, batch_size=7, quiet=True)
    rows = list(csv.DictReader((tmp_path / "p.csv").open(newline="")))
    images = run.open_images(photos)
    assert len(rows) == found.pictures == len(images)
    assert list(rows[0]) == ["name", "label", "probability", "distance", "unlike"]
    model, about = load_classifier(classifier)
    p = torch.cat([p for p, _ in outputs(model, images, np.arange(len(rows)), run.size, (run.mean, run.std), compute)])
    names = [about["classes"][i] for i in p.argmax(1)]
    assert [row["label"].removeprefix("'") for row in rows] == names
    assert [row["name"].removeprefix("'") for row in rows] == images.names
    np.testing.assert_allclose([float(row["probability"]) for row in rows], p.max(1).values, atol=1e-5)
    assert not any(row["label"].startswith("=") for row in rows)


def test_a_folder_without_a_classifier_is_named(run: Run, photos: Path, tmp_path: Path) -> None:
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


def test_the_classifier_is_a_plain_torchvision_network(classifier: Path, tmp_path: Path) -> None:
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
