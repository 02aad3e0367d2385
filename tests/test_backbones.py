"""Backbones: every torchvision network and timm by name, its stem, its weights, and how others load it."""

import importlib
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from headstart import backbones
from headstart.records.errors import InputError

FAMILIES = (
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "shufflenet_v2_x1_0",
    "squeezenet1_0",
    "squeezenet1_1",
    "swin_t",
    "swin_v2_t",
    "vgg11",
    "vgg16_bn",
    "vit_b_16",
    "vit_b_32",
    "wide_resnet50_2",
)
"""One of each kind; RegNets, which cannot be sketched without memory, are built for real below."""

timm = pytest.importorskip("timm")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_torchvision_network_lacks_its_last_linear_alone(name: str) -> None:
    side = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    with torch.device("meta"):
        plain = torchvision.models.get_model(name, **side)
        backbone: Any = backbones.build(name)
    missing, unexpected = plain.load_state_dict(backbone.state_dict(), strict=False, assign=True)
    last = backbones.last_linear_name(name)
    assert set(missing) <= {f"{last}.weight", f"{last}.bias"}
    assert f"{last}.weight" in missing
    assert not unexpected
    size = 224 if plain.__class__.__name__ != "Inception3" else 299
    with torch.device("meta"):
        h = backbone.eval()(torch.empty(2, 3, size, size))
    assert h.shape == (2, backbone.num_features) == (2, backbones.num_features(name))


@pytest.mark.parametrize(
    ("name", "num_features"),
    [("resnet18", 512), ("resnet34", 512), ("resnet50", 2048), ("vit_b_16", 768), ("convnext_tiny", 768)],
)
def test_num_features_of_the_common_ones(name: str, num_features: int) -> None:
    assert backbones.num_features(name) == num_features


def same_tensors(one: nn.Module, two: nn.Module) -> bool:
    a, b = one.state_dict(), two.state_dict()
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", ["resnet18", "timm:resnet10t", "regnet_y_400mf"])
def test_initial_weights_follow_from_the_generator_alone(name: str) -> None:
    before = torch.get_rng_state()
    one = backbones.build(name, generator=seeded(1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    assert same_tensors(one, backbones.build(name, generator=seeded(1)))
    assert not same_tensors(one, backbones.build(name, generator=seeded(2)))


def test_without_a_generator_it_is_torchs_own_network() -> None:
    torch.manual_seed(3)
    plain = torchvision.models.resnet18()
    torch.manual_seed(3)
    backbone = backbones.build("resnet18")
    plain.fc = nn.Identity()
    assert same_tensors(plain, backbone)


@pytest.mark.parametrize("name", ["resnet18", "timm:resnet18"])
def test_cifar_stem_keeps_the_picture_size(name: str) -> None:
    backbone: Any = backbones.build(name, stem="cifar", size=32)
    seen = []
    backbone.layer1.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    assert backbone.eval()(torch.rand(2, 3, 32, 32)).shape == (2, 512)
    assert seen == [(2, 64, 32, 32)]


@pytest.mark.parametrize(
    ("name", "stem", "size"),
    [
        ("resnet18", "imagenet", 32),
        ("resnet18", "cifar", 32),
        ("squeezenet1_1", "imagenet", 64),
        ("mobilenet_v3_small", "imagenet", 32),
        ("shufflenet_v2_x0_5", "imagenet", 32),
        ("googlenet", "imagenet", 32),
        ("vit_b_16", "imagenet", 32),
        ("timm:resnet10t", "imagenet", 32),
        ("timm:vit_tiny_patch16_224", "imagenet", 32),
        ("timm:mobilenetv3_small_050", "imagenet", 32),
    ],
)
def test_loading_lines_load_the_file_in_plain_libraries(
    name: str, stem: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = backbones.build(name, stem=stem, size=size, generator=seeded())
    monkeypatch.chdir(tmp_path)
    save_file(backbone.state_dict(), "backbone.safetensors")
    lines = backbones.loading_lines(name, stem=stem, size=size)
    assert "headstart" not in lines
    scope: dict[str, Any] = {}
    exec(lines, scope)
    pictures = torch.rand(2, 3, size, size)
    expected = backbone.eval()(pictures)
    assert expected.shape == (2, backbone.num_features)
    assert torch.equal(scope["backbone"].eval()(pictures), expected)


def test_resnets_load_with_the_one_line_of_the_contract(tmp_path: Path) -> None:
    backbone = backbones.build("resnet34", generator=seeded())
    missing, unexpected = torchvision.models.resnet34().load_state_dict(backbone.state_dict(), strict=False)
    assert set(missing) == {"fc.weight", "fc.bias"}
    assert not unexpected


# -------------------------------------------------------------------------------------------------------------- weights


@pytest.fixture(scope="module")
def classifier() -> nn.Module:
    torch.manual_seed(5)
    return torchvision.models.resnet18(num_classes=7)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": {f"module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {"state_dict": {f"backbone.{n}": t for n, t in state.items()} | {"head.0.weight": torch.ones(2)}},
        lambda state: {name: tensor for name, tensor in state.items() if not name.startswith("fc.")},
        lambda state: {name: tensor for name, tensor in state.items() if "num_batches_tracked" not in name},
    ],
    ids=["plain", "lightning", "ddp", "other ssl", "no classifier", "old"],
)
def test_weights_files_of_many_makes_load(
    classifier: nn.Module, tmp_path: Path, wrap: Callable[[dict[str, Tensor]], dict[str, Any]]
) -> None:
    torch.save(wrap(classifier.state_dict()), tmp_path / "weights.pth")
    backbone = backbones.build("resnet18", weights=tmp_path / "weights.pth", generator=seeded())
    expected = {name: t for name, t in classifier.state_dict().items() if not name.startswith("fc.")}
    assert all(torch.equal(tensor, expected[name]) for name, tensor in backbone.state_dict().items())


def test_safetensors_and_timm_classifiers_load(tmp_path: Path) -> None:
    plain = timm.create_model("resnet10t", num_classes=5)
    save_file(plain.state_dict(), tmp_path / "weights.safetensors")
    backbone = backbones.build("timm:resnet10t", weights=tmp_path / "weights.safetensors")
    assert all(torch.equal(tensor, plain.state_dict()[name]) for name, tensor in backbone.state_dict().items())


def test_side_classifiers_are_left_out(tmp_path: Path) -> None:
    plain: Any = torchvision.models.googlenet(aux_logits=True, init_weights=False)
    save_file(plain.state_dict(), tmp_path / "weights.safetensors")
    backbone: Any = backbones.build("googlenet", weights=tmp_path / "weights.safetensors")
    assert torch.equal(backbone.conv1.conv.weight, plain.conv1.conv.weight)
    assert not any("aux" in name for name in backbone.state_dict())


def test_a_vision_transformers_weights_are_interpolated_to_the_picture_size(tmp_path: Path) -> None:
    plain: Any = torchvision.models.vit_b_32(image_size=96)
    nn.init.constant_(plain.encoder.pos_embedding, 0.25)
    save_file(plain.state_dict(), tmp_path / "weights.safetensors")
    backbone: Any = backbones.build("vit_b_32", size=64, weights=tmp_path / "weights.safetensors")
    position = backbone.encoder.pos_embedding
    assert position.shape == (1, 5, 768)
    assert torch.allclose(position, torch.tensor(0.25))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.pop("layer4.0.conv1.weight"), "1 missing: layer4.0.conv1.weight"),
        (lambda s: s.update({"layer9.weight": torch.ones(2)}), "1 unknown: layer9.weight"),
        (lambda s: s.update({"conv1.weight": torch.ones(64, 3, 3, 3)}), r"shape: conv1.weight \(64, 3, 3, 3\) instead"),
    ],
)
def test_weights_that_do_not_fit_are_listed(
    classifier: nn.Module, tmp_path: Path, edit: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    state = dict(classifier.state_dict())
    edit(state)
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=message):
        backbones.build("resnet18", weights=tmp_path / "weights.pt")


def test_deeper_networks_weights_are_refused(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet34().state_dict(), tmp_path / "weights.pt")
    with pytest.raises(InputError, match=r"unknown: layer1\.2"):
        backbones.build("resnet18", weights=tmp_path / "weights.pt")


def test_imagenet_weights_come_from_torchvisions_cache(
    classifier: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.manual_seed(8)
    plain = torchvision.models.resnet18()
    file = tmp_path / "hub" / "checkpoints" / Path(torchvision.models.ResNet18_Weights.DEFAULT.url).name
    file.parent.mkdir(parents=True)
    torch.save(plain.state_dict(), file)
    backbone = backbones.build("resnet18", weights="imagenet", generator=seeded())
    assert all(torch.equal(tensor, plain.state_dict()[name]) for name, tensor in backbone.state_dict().items())


@pytest.mark.parametrize("error", [urllib.error.URLError("no route to host"), RuntimeError("invalid hash value")])
def test_imagenet_weights_that_cannot_be_fetched_name_the_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(InputError, match=r"cannot be fetched \(.+none\|FILE"):
        backbones.build("resnet18", weights="imagenet")


def test_timm_weights_that_cannot_be_fetched_name_the_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"cannot be fetched \(.+none\|FILE"):
        backbones.build("timm:resnet18", weights="imagenet")


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet43"}, r"'resnet43' \(perhaps you meant resnet34"),
        ({"name": "timm:resnet43"}, r"timm has no .*'resnet43' \(perhaps"),
        ({"name": "hub:resnet18"}, "torchvision has no"),
        ({"name": "vit_b_16", "size": 40}, "vit_b_16 cannot be built for 40 px"),
        ({"name": "alexnet", "size": 32}, "alexnet cannot take 32 px"),
        ({"name": "maxvit_t", "size": 32}, "maxvit_t cannot be built for 32 px"),
        ({"name": "densenet121", "stem": "cifar"}, "stem cifar is for ResNets"),
        ({"name": "resnet18", "stem": "cifar", "weights": "imagenet"}, "7x7"),
        ({"name": "resnet18", "weights": "no-such-file.pt"}, "there is no file no-such-file.pt"),
    ],
)
def test_bad_input_is_one_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        backbones.build(**options)
    assert "\n" not in str(caught.value)


def test_without_timm_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(InputError, match=r"headstart\[timm\]"):
        backbones.build("timm:resnet18")
