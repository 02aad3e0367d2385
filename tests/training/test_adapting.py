"""Adapting given weights: what stays as it was given, what trains first, and which weights a run keeps."""

import io
import re
import shutil
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file

from headstart import backbones
from headstart.backbones import given_as
from headstart.backbones.blocks import freeze
from headstart.cli.screen import print_run
from headstart.engine.checkpoint import Checkpoints
from headstart.evaluate.foreign import evaluate_run
from headstart.records.config import Config, from_dict
from headstart.records.errors import InputError, Interrupted
from headstart.records.files import read_json
from headstart.records.folder import RunFolder, read_metrics
from headstart.records.presets import preset
from headstart.report import written
from headstart.report.unlabelled import unlabelled_verdict
from headstart.report.verdict import kept_sentence
from headstart.study.shared import before_hash
from headstart.training import keeping
from headstart.training.contrastive import Contrastive
from headstart.training.head_alone import HeadAlone
from headstart.training.run import run
from headstart.use.card import model_card
from headstart.use.finetune import finetune, starts_of
from headstart.use.load import load
from headstart.use.settings import FinetuneSettings


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ResNet-18 with statistics that are not a fresh network's."""
    network = backbones.build("resnet18", generator=torch.Generator().manual_seed(5)).train()
    with torch.no_grad():
        for _ in range(20):
            network(torch.rand(16, 3, 32, 32))
    path = tmp_path_factory.mktemp("weights") / "given.safetensors"
    save_file(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes of grey pictures that differ in their stripes."""
    root, draws = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for kind in range(4):
        (root / str(kind)).mkdir()
        for i in range(20):
            stripes = 100 + 80 * np.sin(np.arange(24) * (0.3 + 0.4 * kind))[None] + draws.normal(0, 30, (24, 24))
            Image.fromarray(stripes.clip(0, 255).astype(np.uint8)).save(root / str(kind) / f"{i}.png")
    return root


def config(photos: Path, weights: Path, **contrastive: object) -> Config:
    base = preset(None, (str(photos),), str(weights))
    sections = {
        "data": {"size": 16},
        "backbone": {"name": "resnet18", "weights": str(weights)},
        "head": {"init": "random", "frozen": False, "hidden_dim": 16, "output_dim": 8},
        "contrastive": {"epochs": 2, "head_epochs": 3, "batch_size": 16, **contrastive},
        "probe": {"names": ["knn"]},
        "precision": "float32",
        "device": "cpu",
        "threads": 1,
    }
    return from_dict(sections, base)


def test_the_recipe_is_the_default_where_weights_are_given(weights: Path) -> None:
    assert preset(None, (), str(weights)) == preset("adapt")
    assert preset(None, (), "none") == Config()
    assert preset("paper", (), "imagenet").contrastive.norms == "batch"


def test_what_is_given_stays_where_it_should(
    photos: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    banks: list[weakref.ref[torch.Tensor]] = []
    kept: list[bool] = []
    init, begin_epoch = HeadAlone.__init__, Contrastive.begin_epoch

    def remembered(self: HeadAlone, head: torch.nn.Module, bank: torch.Tensor, *rest: Any) -> None:
        banks.append(weakref.ref(bank))
        init(self, head, bank, *rest)

    def begun(self: Contrastive, epoch: int) -> None:
        kept.append(banks[0]() is not None)
        begin_epoch(self, epoch)

    monkeypatch.setattr(HeadAlone, "__init__", remembered)
    monkeypatch.setattr(Contrastive, "begin_epoch", begun)
    out = run(config(photos, weights, keep="last"), tmp_path / "run", quiet=True)
    before, after = load_file(weights), load_file(out / "backbone.safetensors")
    statistics = [name for name in before if "running" in name or "num_batches" in name]
    frozen = [name for name in before if name.startswith(("conv1.", "bn1."))]
    assert all(torch.equal(before[name], after[name]) for name in [*statistics, *frozen])
    assert not torch.equal(before["layer4.1.conv2.weight"], after["layer4.1.conv2.weight"])
    assert not torch.equal(before["layer4.1.bn2.weight"], after["layer4.1.bn2.weight"])
    stages = [line["stage"] for line in read_metrics(RunFolder(out).metrics) if "epoch" in line]
    assert stages == ["head"] * 3 + ["contrastive"] * 2
    losses = [line["loss"] for line in read_metrics(RunFolder(out).metrics) if line["stage"] == "head"]
    assert losses[-1] < losses[0]
    assert kept == [False, False]  # the features that the head alone has learned from


@pytest.mark.parametrize("stage", ["head", "contrastive"])
def test_stopped_in_either_training_it_ends_as_if_it_had_not_been(
    photos: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    asked = config(photos, weights, keep="last")
    whole = run(asked, tmp_path / "whole", quiet=True)
    steps = {"head": 0, "contrastive": 0}
    real = Checkpoints.after_step

    def stop_at_the_third(self: Checkpoints, at: str, state: object) -> None:
        steps[at] = steps.get(at, 0) + 1
        if at == stage and steps[at] == 3:
            monkeypatch.setattr(Checkpoints, "stop_requested", lambda self: True)
        real(self, at, state)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "after_step", stop_at_the_third)
        with pytest.raises(Interrupted):
            run(asked, tmp_path / "stopped", quiet=True)
    monkeypatch.undo()
    stopped = run(asked, tmp_path / "stopped", quiet=True)
    for name in ("backbone.safetensors", "head.safetensors"):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes()


def test_weights_that_simclr_spoils_are_kept_as_they_were_given(photos: Path, weights: Path, tmp_path: Path) -> None:
    asked = config(photos, weights, lr=30.0, optimizer="sgd", head_epochs=0, interpolate=(0.5,))
    out = run(asked, tmp_path / "run", quiet=True)
    result = RunFolder(out).read_result()
    kept = result["contrastive"]["kept"]
    assert kept["share"] == 0
    assert [version["share"] for version in kept["versions"]] == [0, 0.5, 1]
    assert kept["versions"][-1]["ahead"] < 0
    given, after = load_file(weights), load_file(out / "backbone.safetensors")
    assert all(torch.equal(given[name], after[name]) for name in given)
    assert result["probes"]["knn"]["accuracy"] == result["untrained"]["knn"]["accuracy"]
    assert kept_sentence(kept).startswith("kept the given weights: SimCLR took cross-validated")
    shows_one_network(out)
    assert "SimCLR has no part in them" in model_card(load(out), ["torchvision"], "backbone.safetensors", "")
    assert starts_of(load(out), FinetuneSettings(scratch=True)) == ["adapted", "scratch"]
    judged = read_json(evaluate_run(out))
    assert "untrained" not in judged["backbones"]
    assert "the run kept the given weights" in judged["left_out"]["untrained"]


def shows_one_network(out: Path) -> None:
    """The given weights once on the screen and on the page: before and after SimCLR are the same."""
    console = Console(width=160, record=True, file=io.StringIO())
    print_run(out, console)
    page = written(out).page.read_text()
    for shown in (console.export_text(), re.sub(r"<(script|svg).*?</\1>", "", page, flags=re.DOTALL)):
        assert shown.count("given weights, kept") >= 1
        assert "No change: kept the given weights" in shown
        for other in ("as given", "random, trainable", ">given weights<", ">before SimCLR<", "no better than"):
            assert other not in shown


def test_nothing_to_judge_by_keeps_the_given_weights_and_says_so_first(
    photos: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = config(photos, weights)
    asked = replace(asked, data=replace(asked.data, labels="none"))
    out = run(asked, tmp_path / "few")
    before, _, after = capsys.readouterr().err.partition("kept the given weights: ")
    assert "8 held-out pictures where 16 are needed: the given weights will be kept" in before
    assert "a few dozen labels would tell" in after
    result = RunFolder(out).read_result()
    kept = result["contrastive"]["kept"]
    assert (kept["by"], kept["share"]) == ("nothing", 0.0)
    given, ended = load_file(weights), load_file(out / "backbone.safetensors")
    assert all(torch.equal(given[name], ended[name]) for name in given)
    assert "in brackets" not in str(unlabelled_verdict(result))
    shows_one_network(out)
    last = replace(asked, contrastive=replace(asked.contrastive, keep="last"))
    out = run(last, tmp_path / "last")
    assert "held-out" not in capsys.readouterr().err
    assert not torch.equal(given["layer4.1.bn2.weight"], load_file(out / "backbone.safetensors")["layer4.1.bn2.weight"])


def test_without_labels_the_pictures_judge(photos: Path, weights: Path, tmp_path: Path) -> None:
    asked = config(photos, weights)
    asked = replace(asked, data=replace(asked.data, labels="none"))
    many = tmp_path / "many"
    many.mkdir()
    for i, path in enumerate(sorted(photos.glob("*/*.png")) * 3):  # so that sixteen are held out
        Image.open(path).rotate(3 * i).save(many / f"{i:03d}.png")
    large = replace(asked, data=replace(asked.data, sources=(str(many),)))
    result = RunFolder(run(large, tmp_path / "run", quiet=True)).read_result()
    kept = result["contrastive"]["kept"]
    assert str(unlabelled_verdict(result)).startswith("Not collapsed")
    assert kept["by"] == "pictures"
    assert all(0 <= version["retrieval"] <= 1 < version["rankme"] for version in kept["versions"])
    assert "without labels" in kept_sentence(kept)


def test_a_mixture_is_part_of_the_way() -> None:
    given = {"w": torch.tensor([0.0, 4.0]), "n": torch.tensor(3)}
    adapted = {"w": torch.tensor([2.0, 0.0]), "n": torch.tensor(7)}
    assert torch.equal(keeping.interpolated(given, adapted, 0.25)["w"], torch.tensor([0.5, 3.0]))
    assert keeping.interpolated(given, adapted, 0.25)["n"] == 7
    assert torch.equal(keeping.interpolated(given, adapted, 0.0)["w"], given["w"])
    assert torch.equal(keeping.interpolated(given, adapted, 1.0)["w"], adapted["w"])


def test_grey_pictures_have_no_colour_to_change(
    photos: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = replace(config(photos, weights), stages="contrastive")
    out = run(asked, tmp_path / "grey")
    assert "the pictures are grey" in capsys.readouterr().err
    assert "grey_p: 0.0" in (out / "config.yaml").read_text()
    for path in photos.glob("*/*.png"):
        other = tmp_path / "photos" / path.parent.name / path.name
        other.parent.mkdir(parents=True, exist_ok=True)
        grey = Image.open(path)
        Image.merge("RGB", [grey, grey.rotate(90), grey.rotate(180)]).save(other)
    coloured = replace(asked, data=replace(asked.data, sources=(str(tmp_path / "photos"),)))
    out = run(coloured, tmp_path / "colour")
    assert "the pictures are grey" not in capsys.readouterr().err
    assert "grey_p: 0.2" in (out / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("name", "share", "first"), [("resnet18", 0.4, ["conv1", "bn1"]), ("resnet18", 0.0, []), ("vgg11", 0.3, None)]
)
def test_blocks_are_frozen_from_the_pictures_on(name: str, share: float, first: list[str] | None) -> None:
    network = backbones.build(name)
    frozen = freeze(network, share)
    assert first is None or frozen == first
    states = [parameter.requires_grad for parameter in network.parameters()]
    assert states == sorted(states)  # frozen ones first
    assert all(states) == (share == 0)


def test_weights_that_became_others_since_are_not_taken_for_those_the_run_began_from(
    photos: Path, weights: Path, tmp_path: Path
) -> None:
    """Told by content: the file, or the run that was trained on, keeps its name."""
    own = Path(shutil.copy(weights, tmp_path / "own.safetensors"))
    settings, out = config(photos, own, keep="last"), tmp_path / "run"
    result = RunFolder(run(settings, out, quiet=True)).read_result()
    shutil.copy(weights, own)  # the same bytes once more are the same weights
    assert load(out).untrained_backbone() is not None
    tensors = load_file(weights)
    save_file({name: 1.01 * tensor for name, tensor in tensors.items()}, own)
    others = "own.safetensors holds other weights than those that the run began from"
    with pytest.raises(InputError, match=others):
        run(config(photos, own, keep="last", epochs=3), out, extend=True, quiet=True)
    with pytest.raises(InputError, match=others):
        load(out).untrained_backbone()
    with pytest.raises(InputError, match=others):
        finetune(load(out), photos, tmp_path / "classifier", quiet=True)
    assert not (tmp_path / "classifier").exists()
    found = read_json(evaluate_run(out, device="cpu", threads=1))
    assert found["backbones"]["trained"]["probes"]["knn"]["accuracy"] == result["probes"]["knn"]["accuracy"]
    assert "untrained" not in found["backbones"]
    assert others in found["left_out"]["untrained"]
    assert before_hash(settings, "x", given_as(str(own))) != before_hash(settings, "x", given_as(str(weights)))
