"""Exports load into code that has never heard of Headstart."""

import json
import subprocess
import sys
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
        ("resnet18", "coreml", "one of torchvision, timm, onnx"),
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
