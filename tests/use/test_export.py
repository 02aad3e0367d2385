"""Exports load into code that has never heard of Headstart."""

import json
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from headstart import backbones
from headstart.backbones import check_exportable, exportable
from headstart.engine.device import choose
from headstart.records.errors import InputError, RunError
from headstart.use import export as exporting
from headstart.use.card import model_card
from headstart.use.classifier import load_classifier
from headstart.use.export import export
from headstart.use.finetune import finetune
from headstart.use.load import Run
from headstart.use.settings import FinetuneSettings

PLAIN = """
import json, sys
import numpy as np, torch
pictures = torch.from_numpy(np.load("pictures.npy"))
for name, lines in json.load(open("lines.json")).items():
    here = {}
    exec(lines, here)
    with torch.no_grad():
        np.save(name, here["backbone"].eval()(pictures).numpy())
assert not any(name.startswith("headstart") for name in sys.modules)
"""


@pytest.fixture(scope="module")
def pictures(run: Run) -> torch.Tensor:
    return torch.randn(7, 3, run.size, run.size, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def wanted(run: Run, pictures: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return run.backbone(pictures).numpy()


def loading_lines(file: Path) -> str:
    """What the file says about how to load it."""
    if file.suffix == ".pt":
        return json.loads(file.with_name(f"{file.name}.json").read_text())["loading"]
    with safe_open(file, "pt") as opened:
        return opened.metadata()["loading"]


def test_load_into_plain_code_with_the_same_features(
    run: Run, pictures: Tensor, wanted: Tensor, tmp_path: Path
) -> None:
    pytest.importorskip("timm")
    files = [
        export(run, library, tmp_path / f"{library}{suffix}")
        for library in ("torchvision", "timm")
        for suffix in (".safetensors", ".pt")
    ]
    np.save(tmp_path / "pictures.npy", pictures.numpy())
    (tmp_path / "lines.json").write_text(json.dumps({f"{file.name}.npy": loading_lines(file) for file in files}))
    subprocess.run([sys.executable, "-c", PLAIN], cwd=tmp_path, check=True)
    for file in files:
        np.testing.assert_allclose(np.load(tmp_path / f"{file.name}.npy"), wanted, atol=1e-5)


def test_a_torchvision_state_dict_misses_only_the_classifier(run: Run, tmp_path: Path) -> None:
    import torchvision
    from safetensors.torch import load_file

    file = export(run, "torchvision", tmp_path / "plain.safetensors")
    result = torchvision.models.resnet18().load_state_dict(load_file(file), strict=False)
    assert result.missing_keys == ["fc.weight", "fc.bias"]
    assert result.unexpected_keys == []


def test_onnx_gives_the_same_features_at_any_batch(run: Run, pictures: Tensor, wanted: Tensor, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    file = export(run, "onnx", tmp_path / "plain.onnx")
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for n in (1, 2, 7):
        (features,) = session.run(["features"], {"pictures": pictures[:n].numpy()})
        np.testing.assert_allclose(features, wanted[:n], atol=1e-4)
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["size"]) == run.size
    assert run.mean is not None
    assert run.std is not None
    np.testing.assert_allclose(json.loads(about["mean"]), run.mean, atol=1e-6)
    np.testing.assert_allclose(json.loads(about["std"]), run.std, atol=1e-6)
    assert list(tmp_path.iterdir()) == [file]  # weights inside, nothing beside it


def test_what_gives_other_features_is_not_kept(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = exporting._state_dict_file

    def damaged(tensors: dict[str, Tensor], suffix: str, about: Any) -> Any:
        return real({**tensors, "conv1.weight": tensors["conv1.weight"] * 1.01}, suffix, about)

    monkeypatch.setattr(exporting, "_state_dict_file", damaged)
    with pytest.raises(RunError, match="other features"):
        export(run, "torchvision", tmp_path / "plain.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "format", "word"),
    [
        ("vit_b_16", "timm", "no timm network"),
        ("timm:vit_tiny_patch16_224", "torchvision", "no counterpart in torchvision"),
        ("resnet18", "coreml", "one of torchvision, timm, onnx, hub"),
    ],
)
def test_a_network_without_a_counterpart_is_refused_in_one_sentence(name: str, format: str, word: str) -> None:
    with pytest.raises(InputError, match=word) as refusal:
        check_exportable(name, format)
    assert "\n" not in str(refusal.value)


def test_a_wrong_ending_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.onnx"):
        export(run, "onnx", tmp_path / "plain.pt")


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "densenet121"])
def test_twins_share_parameters_and_arithmetic(name: str) -> None:
    pytest.importorskip("timm")
    assert "timm" in exportable(name)
    assert "torchvision" in exportable(f"timm:{name}")
    ours = backbones.build(name, generator=torch.Generator().manual_seed(0)).eval()
    theirs = backbones.build(f"timm:{name}").eval()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = ours(x)
        assert (theirs(x) - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_the_card_says_what_it_is_how_it_does_and_how_to_load_it(run: Run, tmp_path: Path) -> None:
    export(run, "torchvision", tmp_path / "plain.safetensors")
    card = run.folder.card.read_text()
    for word in (
        "load_file('plain.safetensors')",
        "`knn`",
        "untrained",
        "## Limits",
        run.result["data"]["fingerprint"],
    ):
        assert word in card
    row = next(line for line in card.splitlines() if line.startswith("| classes"))
    assert r"bar\|\*\_x" in row  # a class name can neither break the table nor set type
    accuracy = run.result["probes"]["knn"]["accuracy"]
    assert f"{accuracy:.3f}" in card
    given = Run(run.folder, run.config, run.result | {"backbone": run.result["backbone"] | {"weights": "pretrained"}})
    card = model_card(given, ["torchvision"], "plain.safetensors", "lines")
    assert "| as given |" in card
    assert "no better than those of the given weights" in card
    assert "untrained" not in card


def test_a_classifier_loads_into_plain_code_with_the_same_scores(run: Run, photos: Path, tmp_path: Path) -> None:
    from_labels = tmp_path / "classifier"
    settings = FinetuneSettings(epochs=1, lr=1e-3, layer_decay=1, compare=False)
    finetune(run, photos, from_labels, settings, compute=choose("cpu", "float32", threads=1), quiet=True)
    pictures = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model, about = load_classifier(from_labels)
    with torch.no_grad():
        wanted = model(pictures).numpy()
    libraries = ["torchvision", *(["timm"] if find_spec("timm") else [])]
    files = [export(from_labels, library, tmp_path / f"{library}.safetensors") for library in libraries]
    np.save(tmp_path / "pictures.npy", pictures.numpy())
    lines = {f"{file.name}.npy": loading_lines(file).replace("network", "backbone") for file in files}
    (tmp_path / "lines.json").write_text(json.dumps(lines))
    subprocess.run([sys.executable, "-c", PLAIN], cwd=tmp_path, check=True)
    for file in files:
        np.testing.assert_allclose(np.load(tmp_path / f"{file.name}.npy"), wanted, atol=1e-4)
        with safe_open(file, "pt") as opened:
            assert json.loads(opened.metadata()["classes"]) == about["classes"]
    if find_spec("onnxruntime") and find_spec("onnxscript"):
        import onnxruntime

        session = onnxruntime.InferenceSession(export(from_labels, "onnx", tmp_path / "c.onnx"))
        (scores,) = session.run(["scores"], {"pictures": pictures.numpy()})
        np.testing.assert_allclose(scores, wanted, atol=1e-4)
    assert not (from_labels / "MODEL_CARD.md").exists()


HUB = """
import json, sys
import numpy as np, timm, torch
network = timm.create_model("local-dir:hub", pretrained=True).eval()
with torch.no_grad():
    np.save("features.npy", network(torch.from_numpy(np.load("pictures.npy"))).numpy())
bare = timm.create_model("local-dir:hub", pretrained=True, num_classes=0)
assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), bare.state_dict().values(), strict=True))
settings = timm.data.resolve_model_data_config(network)
keys = ("input_size", "mean", "std", "interpolation", "crop_mode", "crop_pct")
print(json.dumps({key: settings[key] for key in keys}))
assert not any(name.startswith("headstart") for name in sys.modules)
"""


def test_timm_builds_a_hub_folder_with_the_same_features(
    run: Run, pictures: Tensor, wanted: Tensor, tmp_path: Path
) -> None:
    pytest.importorskip("timm")
    folder = export(run, "hub", tmp_path / "hub", license="cc-by-4.0")
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "config.json", "README.md"}
    np.save(tmp_path / "pictures.npy", pictures.numpy())
    done = subprocess.run(
        [sys.executable, "-c", HUB], cwd=tmp_path, capture_output=True, text=True, env={"HF_HUB_OFFLINE": "1"}
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "features.npy"), wanted, atol=1e-5)
    fed = json.loads(done.stdout)
    assert (fed["input_size"], fed["crop_pct"]) == ([3, run.size, run.size], 1.0)
    assert (fed["crop_mode"], fed["interpolation"]) == ("squash", "bilinear")
    assert run.mean is not None
    np.testing.assert_allclose(fed["mean"], run.mean, atol=1e-6)


def test_timms_own_transform_feeds_pictures_as_the_run_was_fed(run: Run, photos: Path, tmp_path: Path) -> None:
    """What a user of timm does with the folder: `create_transform` on a photograph that is no square."""
    timm = pytest.importorskip("timm")
    from PIL import Image

    network = timm.create_model(f"local-dir:{export(run, 'hub', tmp_path / 'hub', license='mit')}", pretrained=True)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))
    picture = Image.open(next(path for path in sorted(photos.rglob("*.png")))).convert("RGB")
    difference = (transform(picture) - run.preprocess([picture])[0]).abs()
    assert difference.max() < 0.05  # one grey value of 255, by rounding, is 0.004 over the standard deviation


def test_a_hub_folders_card_begins_with_what_the_hub_reads(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    import yaml

    text = (export(run, "hub", tmp_path / "hub", license="cc-by-4.0") / "README.md").read_text()
    _, front, card = text.split("---\n", 2)
    said = yaml.safe_load(front)
    assert (said["library_name"], said["pipeline_tag"]) == ("timm", "image-feature-extraction")
    assert said["license"] == "cc-by-4.0"
    assert "base_model" not in said  # random weights
    (metric,) = said["model-index"][0]["results"][0]["metrics"]
    probe = run.result["probes"]["knn"]
    assert metric["value"] == pytest.approx(probe["accuracy"], abs=1e-4)
    assert f"95 % interval {probe['ci95'][0]:.4f} to {probe['ci95'][1]:.4f}" in metric["name"]
    assert "## Limits" in card
    assert str(tmp_path) not in text


@pytest.mark.parametrize(("stands", "out"), [("hub", "."), ("hub", "./"), ("hub/inner", "..")])
def test_a_folder_without_a_name_is_the_one_it_stands_for(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stands: str, out: str
) -> None:
    pytest.importorskip("timm")
    (tmp_path / stands).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / stands)
    monkeypatch.setattr("headstart.use.hub.FILES", ("model.safetensors", "config.json", "README.md", "inner"))
    written: list[Path] = []

    def elsewhere(folder: Path, turn: str, contents: dict[str, bytes]) -> None:
        written.extend((folder / name).resolve() for name in contents)
        assert b"'local-dir:hub'" in b"".join(contents.values())

    monkeypatch.setattr("headstart.use.export.write_together", elsewhere)
    export(run, "hub", out, license="mit")
    assert {path.parent for path in written} == {tmp_path / "hub"}


def test_what_cannot_be_a_folder_of_the_hub_is_refused_in_one_sentence(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    backbone = run.config.backbone
    stem = replace(run, config=replace(run.config, backbone=replace(backbone, stem="cifar")))
    vit = replace(run, config=replace(run.config, backbone=replace(backbone, name="vit_b_16")))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    for source, out, license, word in (
        (stem, "hub", "mit", "no network of timm's"),
        (vit, "hub", "mit", "no timm network with the same parameters"),
        (run, "hub", None, "needs --license"),
        (run, "full", "mit", "must be a new folder"),
    ):
        with pytest.raises(InputError, match=word) as refusal:
            export(source, "hub", tmp_path / out, license=license)
        assert "\n" not in str(refusal.value)
    assert not (tmp_path / "hub").exists()
    with pytest.raises(InputError, match="--license goes with --format hub"):
        export(run, "timm", tmp_path / "plain.safetensors", license="mit")
