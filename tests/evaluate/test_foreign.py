"""`headstart evaluate`: runs, networks by name and state-dict files, in one file beside what they must beat."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file

from headstart import backbones
from headstart.backbones import weights
from headstart.cli.commands import main
from headstart.data.splits import Splits
from headstart.evaluate import foreign
from headstart.records.config import (
    AutoencoderConfig,
    BackboneConfig,
    Config,
    ContrastiveConfig,
    DataConfig,
    HeadConfig,
)
from headstart.records.errors import InputError
from headstart.training import run as pretraining


@pytest.fixture(autouse=True)
def no_imagenet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a connection."""

    def refuse(name: str) -> None:
        raise InputError(f"backbone.weights imagenet of {name} cannot be fetched")

    monkeypatch.setattr(weights, "_torchvision_weights", refuse)


def draw_pictures(root: Path, colours: Sequence[str], side: int, train: int, test: int) -> Path:
    """Noise in which one colour is stronger."""
    rng = np.random.default_rng(0)
    for split, n in (("train", train), ("test", test)):
        for c, colour in enumerate(colours):
            folder = root / split / colour
            folder.mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 200, (side, side, 3))
                pixels[..., c] += 55
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pictures(tmp_path_factory.mktemp("photos"), ("blue", "green", "red"), 24, 20, 10)


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = Config(
        data=DataConfig(sources=(str(photos),)),
        backbone=BackboneConfig(name="resnet18"),
        autoencoder=AutoencoderConfig(epochs=1),
        head=HeadConfig(init="random", frozen=False, hidden_dim=16),
        contrastive=ContrastiveConfig(epochs=1, batch_size=16),
        device="cpu",
        precision="float32",
        threads=1,
    )
    return pretraining.run(config, tmp_path_factory.mktemp("runs") / "one", quiet=True)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_a_run_on_its_own_pictures_repeats_its_result(run: Path) -> None:
    before = (run / "result.json").read_bytes()
    path = foreign.evaluate(run, device="cpu", threads=1)
    assert path.parent == run / "evaluations"
    found = read(path)
    assert (run / "result.json").read_bytes() == before
    result = read(run / "result.json")
    assert found["backbones"]["trained"]["probes"] == result["probes"]
    assert found["backbones"]["untrained"]["probes"] == result["untrained"]
    assert list(found["backbones"]) == ["trained", "untrained"]
    assert "not on this machine; --fetch gets them" in found["left_out"]["pretrained"]
    assert found["data"]["fingerprint"] == result["data"]["fingerprint"]
    assert found["config_hash"] == result["config_hash"]


def test_a_run_on_other_pictures(run: Path, tmp_path: Path) -> None:
    others = draw_pictures(tmp_path / "others", ("one", "two"), 16, 12, 12)
    for wrong in ("../self", "a/b", ".", "self!"):
        with pytest.raises(InputError, match="--name is"):
            foreign.evaluate(run, data=[str(others)], name=wrong, device="cpu", threads=1)
    path = foreign.evaluate(run, data=[str(others)], name="self", device="cpu", threads=1)
    assert path == run / "evaluations" / "self.json"
    found = read(path)
    assert found["data"]["name"] == "others", "the pictures that were judged, not the run's"
    assert found["data"]["size"] == 24, "the run's own"
    assert found["data"]["classes"] == ["one", "two"]
    assert {"paper", "linear", "knn"} <= set(found["backbones"]["trained"]["probes"])


def test_a_run_whose_pictures_have_changed(run: Path, photos: Path) -> None:
    extra = photos / "train" / "red" / "new.png"
    Image.new("RGB", (24, 24)).save(extra)
    try:
        with pytest.raises(InputError, match="have changed"):
            foreign.evaluate(run, device="cpu", threads=1)
    finally:
        extra.unlink()


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[foreign.Pictures]:
    """What backbones are judged on; none is."""
    seen: list[foreign.Pictures] = []

    def compare(makers: Any, pictures: foreign.Pictures, config: Config, compute: Any) -> dict[str, Any]:
        seen.append(pictures)
        return {"data": {"name": "photos", "fingerprint": pictures.images.fingerprint}, "backbones": {}}

    monkeypatch.setattr(foreign, "compare", compare)
    return seen


def contents(pictures: foreign.Pictures, *parts: str) -> set[bytes]:
    return {pictures.images.digests[i].tobytes() for part in parts for i in pictures.rows[part]}


def test_labels_that_came_later_leave_the_split_as_it_was(
    run: Path, photos: Path, tmp_path: Path, judged: list[foreign.Pictures]
) -> None:
    """With a split of their own, test pictures were among those that SimCLR was trained on."""
    names = [path.relative_to(photos).as_posix() for path in sorted(photos.rglob("*.png"))]
    lines = [f"{name},{'odd' if i % 3 else 'even'}\n" for i, name in enumerate(names)]
    (tmp_path / "labels.csv").write_text("name,label\n" + "".join(lines))
    shutil.copytree(photos, tmp_path / "moved")
    reading = DataConfig(labels=str(tmp_path / "labels.csv"))
    for data in ([], [str(photos)], [str(tmp_path / "moved")]):
        foreign.evaluate(run, data=data, reading=reading, out=tmp_path / "r.json", device="cpu", threads=1)
        assert judged[-1].images.classes == ["even", "odd"]
        assert judged[-1].splits.same(Splits.load(run / "splits.npz", len(names)))


def test_no_picture_that_a_run_was_trained_on_is_a_test_picture(
    run: Path, photos: Path, tmp_path: Path, judged: list[foreign.Pictures], capsys: pytest.CaptureFixture[str]
) -> None:
    more = draw_pictures(tmp_path / "drawn", ("blue", "green", "red"), 23, 3, 3)
    for number, path in enumerate([*photos.rglob("*.png"), *more.rglob("*.png")]):
        (tmp_path / "flat" / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "flat" / path.parent.name / f"{number}.png")
    for data in (photos, tmp_path / "flat"):
        foreign.evaluate(run, data=[str(data)], out=tmp_path / "r.json", device="cpu", threads=1)
    own, others = judged
    assert not contents(own, "train", "val") & contents(others, "test")
    assert {part: len(rows) for part, rows in others.rows.items()} == {"train": 75, "val": 11, "test": 22}
    assert "the run was trained on 60 of these 108 pictures; none of them is a test picture" in capsys.readouterr().err
    with pytest.raises(InputError, match="trained on 60 of these 60 pictures, and too few others"):
        foreign.evaluate(run, data=[str(photos / "train")], out=tmp_path / "r.json", device="cpu", threads=1)
    foreign.evaluate(run, data=[str(photos / "test")], out=tmp_path / "r.json", device="cpu", threads=1)
    assert "trained on" not in capsys.readouterr().err


def test_a_run_that_does_not_say_what_it_was_trained_on(
    run: Path, photos: Path, tmp_path: Path, judged: list[foreign.Pictures], capsys: pytest.CaptureFixture[str]
) -> None:
    """A study's: its own pictures are known by their fingerprint alone."""
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    splits = Splits.load(run / "splits.npz", 90)
    splits.save(copy / "splits.npz")
    foreign.evaluate(copy, out=tmp_path / "r.json", device="cpu", threads=1)
    assert judged[-1].splits.same(splits)
    reading = DataConfig(labels="none")
    with pytest.raises(InputError, match="or their labels, have changed since its training"):
        foreign.evaluate(copy, reading=reading, out=tmp_path / "r.json", device="cpu", threads=1)
    data = [str(photos)]
    foreign.evaluate(copy, data=data, reading=reading, out=tmp_path / "r.json", device="cpu", threads=1)
    assert "does not say which pictures it was trained on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "match"),
    [
        ("split_seed", 1, r"--data\.split-seed is 1, but the run's own pictures keep the run's split"),
        ("splits", "paper", r"--data\.splits is paper, but the run's own"),
        ("limit", 20, r"--data\.limit is 20, but the run's own"),
        ("statistics", "paper", r"--data\.statistics is paper, but the run has train"),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_what_a_runs_own_pictures_do_not_heed_is_refused_by_name(
    run: Path, photos: Path, tmp_path: Path, option: str, value: Any, match: str, named: bool
) -> None:
    reading, data = DataConfig(**{option: value}), [str(photos)] if named else []
    with pytest.raises(InputError, match=match):
        foreign.evaluate(run, data=data, reading=reading, out=tmp_path / "r.json", device="cpu", threads=1)


def test_a_network_by_name_beside_the_librarys(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    fetched = torchvision.models.resnet18().state_dict()
    monkeypatch.setattr(weights, "_torchvision_weights", lambda name: fetched)
    path = foreign.evaluate(
        "torchvision:resnet18", data=[str(photos)], out=tmp_path / "r.json", fetch=True, device="cpu", threads=1
    )
    found = read(path)
    assert list(found["backbones"]) == ["random", "pretrained"]
    assert found["left_out"] == {}
    for column in found["backbones"].values():
        assert {"paper", "linear", "knn"} <= set(column["probes"])
        assert column["probes"]["linear"]["n_test"] == 30
        assert 0 < column["geometry"]["effective_rank"] <= 30
    random, pretrained = (column["geometry"] for column in found["backbones"].values())
    assert random != pretrained


@pytest.mark.parametrize("kind", ["plain.pt", "wrapped.pt", "cifar.safetensors"])
def test_a_state_dict_file_is_recognised(photos: Path, tmp_path: Path, kind: str) -> None:
    torch.manual_seed(2)
    network = torchvision.models.resnet18()
    if kind.startswith("cifar"):
        network.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
        save_file(network.state_dict(), tmp_path / kind)
    elif kind.startswith("plain"):
        torch.save(network.state_dict(), tmp_path / kind)
    else:
        torch.save({"state_dict": {f"backbone.{k}": v for k, v in network.state_dict().items()}}, tmp_path / kind)
    settings = foreign.recognise(tmp_path / kind)
    assert (settings.name, settings.stem) == ("resnet18", "cifar" if kind.startswith("cifar") else "imagenet")
    if kind == "plain.pt":
        (tmp_path / kind).rename(tmp_path / "random.pt")
        path = foreign.evaluate(
            tmp_path / "random.pt", data=[str(photos)], out=tmp_path / "r.json", device="cpu", threads=1
        )
        found = read(path)["backbones"]
        assert list(found) == ["random.pt", "random"]  # the file is judged, not the reference that its name resembles
        assert found["random.pt"]["geometry"] != found["random"]["geometry"]
    if kind == "wrapped.pt":
        found = read(
            foreign.evaluate(tmp_path / kind, data=[str(photos)], out=tmp_path / "r.json", device="cpu", threads=1)
        )
        assert list(found["backbones"]) == ["wrapped", "random"]
        assert found["backbones"]["wrapped"] != found["backbones"]["random"]


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ([], ("backbone", "backbone")),
        (["--data.statistics", "train"], ("train", "backbone")),
        (["--data.interpolation", "bilinear"], ("backbone", "bilinear")),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_what_is_said_of_the_pictures_holds_and_else_what_weights_expect(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str], read: tuple[str, str], named: bool
) -> None:
    judged: list[Config] = []
    monkeypatch.setattr(foreign, "evaluate_backbone", lambda config, *_: judged.append(config))
    monkeypatch.setattr("headstart.cli.screen.print_evaluation", lambda _: None)
    file = str(tmp_path / "given.pt")
    torch.save(torchvision.models.resnet18().state_dict(), file)
    backbone = ["torchvision:resnet18", "--weights", file] if named else [file]
    with pytest.raises(SystemExit, match="0"):
        main(["evaluate", *backbone, "--data", str(photos), "--out", str(tmp_path / "r.json"), *said])
    assert (judged[0].data.statistics, judged[0].data.interpolation) == read
    assert judged[0].backbone.weights == file


def test_wide_resnets_are_not_taken_for_plain_ones(tmp_path: Path) -> None:
    for name in ("resnet50", "wide_resnet50_2", "resnext50_32x4d"):
        with torch.device("meta"):
            shapes = {k: v.shape for k, v in torchvision.models.get_model(name).state_dict().items()}
        torch.save({k: torch.zeros(shape, dtype=torch.int8) for k, shape in shapes.items()}, tmp_path / "x.pt")
        assert foreign.recognise(tmp_path / "x.pt").name == name


@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:resnet18", "timm:vit_tiny_patch16_224"])
def test_nothing_is_fetched_unasked(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    pytest.importorskip("timm")
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("spoke to a server"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = foreign.evaluate(name, data=[str(photos)], out=tmp_path / "r.json", size=32, device="cpu", threads=1)
    assert "--fetch" in read(path)["left_out"]["pretrained"]


def test_weights_on_this_machine_are_a_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert not backbones.cached("resnet18")
    file = tmp_path / "hub" / "checkpoints" / torchvision.models.ResNet18_Weights.DEFAULT.url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    file.touch()
    assert backbones.cached("resnet18")
    assert not backbones.cached("resnet34")


class TestBadInput:
    def complains(self, match: str, *arguments: Any, **options: Any) -> None:
        with pytest.raises(InputError, match=match):
            foreign.evaluate(*arguments, device="cpu", threads=1, **options)

    def test_without_data(self, tmp_path: Path) -> None:
        self.complains("--data", "torchvision:resnet18", out=tmp_path / "r.json")

    def test_without_out(self, photos: Path) -> None:
        self.complains("--out", "torchvision:resnet18", data=[str(photos)])

    def test_an_unknown_network(self, photos: Path, tmp_path: Path) -> None:
        self.complains("resnet18", "torchvision:resnet81", data=[str(photos)], out=tmp_path / "r.json")

    def test_neither_run_nor_file(self, photos: Path, tmp_path: Path) -> None:
        self.complains("no file or run", tmp_path / "nothing", data=[str(photos)], out=tmp_path / "r.json")

    def test_a_file_of_another_network(self, photos: Path, tmp_path: Path) -> None:
        torch.save({"layer.weight": torch.ones(2)}, tmp_path / "x.pt")
        self.complains(
            "torchvision:NAME or timm:NAME, with --weights",
            tmp_path / "x.pt",
            data=[str(photos)],
            out=tmp_path / "r.json",
        )

    def test_imagenet_weights_that_cannot_be_had(self, photos: Path, tmp_path: Path) -> None:
        self.complains(
            "cannot be fetched", "torchvision:resnet18", data=[str(photos)], out=tmp_path / "r.json", weights="imagenet"
        )

    def test_a_folder_that_is_no_run(self, tmp_path: Path) -> None:
        self.complains("no run", tmp_path)
