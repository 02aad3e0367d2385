"""One run, stage by stage: the folder it leaves, what it refuses, and that it goes on where it stopped."""

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

import headstart
from headstart import autoencoders
from headstart.engine.checkpoint import Checkpoints, State, _read_one
from headstart.engine.device import choose
from headstart.engine.importers import PYTHAE_NAMES
from headstart.records.claim import owned
from headstart.records.config import load as load_config
from headstart.records.errors import InputError, Interrupted
from headstart.records.files import jsonl
from headstart.records.folder import RunFolder, read_metrics
from headstart.training import contrastive, opening
from headstart.training import run as pretraining
from headstart.training.resolving import prepare
from headstart.use.finetune import finetune
from tests.runs import small, until


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished small run."""
    return RunFolder(pretraining.run(small(), tmp_path_factory.mktemp("finished") / "run", quiet=True))


def test_run_folder_holds_what_the_contract_names(finished: RunFolder) -> None:
    result = finished.read_result()
    assert result["schema"] == 1
    assert result["stage"] == "probe"
    assert {"config_hash", "data", "backbone", "head", "autoencoder", "contrastive"} <= result.keys()
    assert {"name", "stem", "weights"} <= result["backbone"].keys()
    assert {"init", "frozen", "activation", "hidden_dim", "output_dim"} <= result["head"].keys()
    assert {"test_mse", "val_mse", "best_epoch"} <= result["autoencoder"].keys()
    assert {"train_loss", "val_loss", "epochs", "best_epoch"} <= result["contrastive"].keys()
    assert result["probes"].keys() == result["untrained"].keys() == {"knn", "few_shot_1"}
    assert {"correct", "n_test", "ci95", "accuracy"} <= result["probes"]["knn"].keys()
    assert {"std", "draws", "n_test", "ci95", "accuracy"} <= result["probes"]["few_shot_1"].keys()
    assert result["geometry"]["head"]["singular_values"]
    assert result["geometry"]["head"]["gradient_norm"] > 0
    logged = [line for line in read_metrics(finished.metrics) if line["stage"] == "contrastive"]
    assert all(line["h_gradient_norm"] > 0 for line in logged)
    trained = load_file(finished.head)["first.weight"].double()
    assert result["contrastive"]["singular_values"] == pytest.approx(torch.linalg.svdvals(trained).tolist())
    assert set(result["geometry"]["before"]) == set(result["geometry"]) - {"head", "before"}
    assert result["geometry"]["before"]["lidar"] != result["geometry"]["lidar"]
    assert {"autoencoder", "contrastive", "probe"} <= result["seconds"].keys()
    for path in (
        finished.config,
        finished.splits,
        finished.skipped,
        finished.metrics,
        finished.autoencoder,
        finished.head,
        finished.backbone,
        finished.report,
        finished.samples / "pairs.png",
        finished.samples / "reconstructions.png",
    ):
        assert path.stat().st_size > 0, path
    lines = read_metrics(finished.metrics)
    assert list(dict.fromkeys(line["stage"] for line in lines)) == ["data", "autoencoder", "contrastive", "probe"]
    assert [line["name"] for line in lines if line["stage"] == "probe"] == list(result["probes"])


def test_files_hold_the_contracts_keys(finished: RunFolder) -> None:
    assert {name.rsplit(".", 1)[0] for name in load_file(finished.autoencoder)} == {
        "encoder.hidden",
        "encoder.embedding",
        "decoder.hidden",
        "decoder.output",
    }
    assert load_file(finished.head).keys() == {"first.weight", "first.bias", "output.weight", "output.bias"}
    with np.load(finished.splits) as splits:
        parts = [set(splits[name]) for name in ("train", "val", "test")]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]


def test_backbone_loads_into_plain_torchvision(finished: RunFolder) -> None:
    plain = torchvision.models.resnet18()
    outcome = plain.load_state_dict(load_file(finished.backbone), strict=False)
    assert set(outcome.missing_keys) == {"fc.weight", "fc.bias"}
    assert not outcome.unexpected_keys
    plain.fc = torch.nn.Identity()
    pictures = torch.rand(4, 3, 16, 16)
    torch.testing.assert_close(
        plain.eval()(pictures), headstart.load(finished.path).backbone(pictures), rtol=1e-5, atol=1e-5
    )


def test_frozen_layer_is_the_autoencoders_to_the_bit(finished: RunFolder) -> None:
    head, autoencoder = load_file(finished.head), load_file(finished.autoencoder)
    assert torch.equal(head["first.weight"], autoencoder["encoder.embedding.weight"])
    assert torch.equal(head["first.bias"], autoencoder["encoder.embedding.bias"])


def test_load_embeds_and_config_reads_back(finished: RunFolder) -> None:
    run = headstart.load(finished.path)
    assert run.embed("digits").shape == (1797, 512)
    assert run.embed("digits").dtype == np.float32
    config, about = load_config(finished.config)
    assert config.contrastive.batch_size == 32
    assert about["headstart"] == headstart.__version__


def test_finished_run_is_refused_with_both_ways_out(finished: RunFolder) -> None:
    before = finished.result.read_bytes()
    with pytest.raises(InputError, match=r"--overwrite.*another --out"):
        pretraining.run(small(), finished.path, quiet=True)
    assert finished.result.read_bytes() == before


def test_a_report_that_fails_takes_nothing_from_a_finished_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("in the page")

    monkeypatch.setattr("headstart.report.write_report", fails)
    folder = RunFolder(pretraining.run(until(small(), "autoencoder"), tmp_path / "run", quiet=True))
    assert folder.is_complete()
    assert "the report could not be made (ZeroDivisionError: in the page)" in capsys.readouterr().err


def test_same_seed_same_bytes_and_another_head_same_start(finished: RunFolder, tmp_path: Path) -> None:
    again = RunFolder(pretraining.run(until(small(), "contrastive"), tmp_path / "again", quiet=True))
    assert again.backbone.read_bytes() == finished.backbone.read_bytes()
    assert again.head.read_bytes() == finished.head.read_bytes()
    other = small(head={"init": "random", "frozen": False}, contrastive={"epochs": 1, "lr": 1e-12})
    third = RunFolder(pretraining.run(until(other, "contrastive"), tmp_path / "other", quiet=True))
    start = headstart.load(finished.path).untrained_backbone().state_dict()
    for name, tensor in load_file(third.backbone).items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(tensor, start[name], rtol=0, atol=1e-6)
    assert not third.autoencoder.exists()


def test_stages_stop_and_go_on(finished: RunFolder, tmp_path: Path) -> None:
    out = tmp_path / "run"
    pretraining.run(until(small(), "autoencoder"), out, quiet=True)
    result = RunFolder(out).read_result()
    assert result["stage"] == "autoencoder"
    assert result["contrastive"] is None
    assert result["probes"] == {} == result["untrained"]
    weights = RunFolder(out).autoencoder.read_bytes()
    (out / ".checkpoint.pt.0.tmp").write_bytes(b"of a process that was killed")
    pretraining.run(small(), out, quiet=True)
    assert not list(out.glob(".*.tmp"))
    assert RunFolder(out).autoencoder.read_bytes() == weights
    assert RunFolder(out).backbone.read_bytes() == finished.backbone.read_bytes()
    assert RunFolder(out).read_result()["probes"] == finished.read_result()["probes"]


@pytest.mark.parametrize("stage", ["autoencoder", "contrastive", "contrastive, as it was saved before"])
def test_interrupted_and_resumed_is_byte_identical(
    finished: RunFolder, tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    steps = 0

    def stop_after_three(self: Checkpoints) -> bool:
        nonlocal steps
        steps += begun
        return steps == 3

    def with_a_list(self: contrastive.Contrastive) -> State:
        saved = state(self)
        return saved | {"observers": list(saved["observers"].values())}

    begun, state = stage == "autoencoder", contrastive.Contrastive.state
    monkeypatch.setattr(Checkpoints, "stop_requested", stop_after_three)
    if stage.endswith("before"):
        monkeypatch.setattr(contrastive.Contrastive, "state", with_a_list)
    if not begun:
        pretraining.run(until(small(), "autoencoder"), out, quiet=True)
        begun = True
    with pytest.raises(Interrupted):
        pretraining.run(small(), out, quiet=True)
    assert not RunFolder(out).backbone.exists()
    monkeypatch.undo()
    pretraining.run(small(), out, quiet=True)
    resumed = RunFolder(out)
    for name in ("autoencoder", "backbone", "head"):
        assert getattr(resumed, name).read_bytes() == getattr(finished, name).read_bytes(), name
    assert _without_times(resumed) == _without_times(finished)
    assert resumed.read_result()["probes"] == finished.read_result()["probes"]


def _without_times(run: RunFolder) -> list[dict[str, object]]:
    times = {"pairs_per_s", "pictures_per_s", "data_wait", "seconds"}
    return [{k: v for k, v in line.items() if k not in times} for line in read_metrics(run.metrics)]


def test_seconds_count_what_came_before_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, config = tmp_path / "run", until(small(), "autoencoder")

    def stop_late(self: Checkpoints) -> bool:
        time.sleep(2)
        return True

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "stop_requested", stop_late)
        with pytest.raises(Interrupted):
            pretraining.run(config, out, quiet=True)
    pretraining.run(config, out, quiet=True)
    assert RunFolder(out).read_result()["seconds"]["autoencoder"] > 2


def test_overwrite_keeps_what_bad_input_cannot_replace(
    finished: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    out = tmp_path / "run?"
    shutil.copytree(finished.path, out)
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    for wrong in (
        small(data={"sources": [str(tmp_path / "nowhere")]}),
        small(contrastive={"batch_size": 1000}),
        small(head={"depth": 1}),
        small(loggers=["wandb"]),
        small(loggers=["mlflow"]),  # which takes the ? for something else, where it is installed
    ):
        with pytest.raises(InputError):
            pretraining.run(wrong, out, overwrite=True, quiet=True)
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


def _state(out: Path) -> dict[str, Any]:
    saved = _read_one(RunFolder(out).checkpoint)
    assert saved is not None
    state: dict[str, Any] = saved["state"]
    return state


def test_overwrite_goes_on_with_what_it_has_begun(finished: RunFolder, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished.path, out)
    config = small(contrastive={"temperature": 0.2})
    with pytest.raises(Interrupted):
        pretraining.run(config, out, overwrite=True, deadline=time.monotonic(), quiet=True)
    assert not RunFolder(out).result.exists()
    first = _state(out)
    with pytest.raises(Interrupted):
        pretraining.run(config, out, overwrite=True, deadline=time.monotonic(), quiet=True)
    second = _state(out)
    assert (first["epoch"], first["step"]) == (0, 1)
    assert (second["epoch"], second["step"]) == (1, 0)  # two steps are the whole epoch
    pretraining.run(config, out, overwrite=True, quiet=True)
    assert RunFolder(out).read_result()["stage"] == "probe"


def test_a_set_on_disk_trains_the_same_autoencoder(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    for i in range(40):
        (root / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 255, (20 + i % 3, 24, 3), np.uint8)
        Image.fromarray(pixels).save(root / "ab"[i % 2] / f"{i}.png")
    found = []
    for memory in (4.0, 0.0):
        data = {"sources": [str(root)], "limit": None, "memory_gib": memory, "cache_dir": str(tmp_path / "cache")}
        config = small(data=data, contrastive={"batch_size": 16})
        out = pretraining.run(until(config, "autoencoder"), tmp_path / f"{memory}", quiet=True)
        found.append(RunFolder(out).autoencoder.read_bytes())
    assert found[0] == found[1]


def test_deadline_stops_and_saves(tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match="same command"):
        pretraining.run(small(), tmp_path / "run", deadline=time.monotonic(), quiet=True)
    assert RunFolder(tmp_path / "run").checkpoint.exists()


def test_other_settings_are_refused_with_the_difference(tmp_path: Path) -> None:
    out = tmp_path / "run"
    pretraining.run(until(small(), "autoencoder"), out, quiet=True)
    with pytest.raises(InputError, match=r"contrastive.temperature: 0.5 -> 0.2"):
        pretraining.run(small(contrastive={"temperature": 0.2}), out, quiet=True)
    with pytest.raises(InputError, match=r"the pictures themselves|data\.limit"):
        pretraining.run(small(data={"limit": 100}), out, quiet=True)


def test_extend_trains_on(finished: RunFolder, tmp_path: Path) -> None:
    out = Path(shutil.copytree(finished.path, tmp_path / "run"))
    with pytest.raises(InputError, match="--extend"):
        pretraining.run(small(contrastive={"epochs": 3}), out, quiet=True)
    pretraining.run(small(contrastive={"epochs": 3}), out, extend=True, quiet=True)
    result = RunFolder(out).read_result()
    assert result["contrastive"]["epochs"] == 3
    epochs = [line["epoch"] for line in read_metrics(RunFolder(out).metrics) if line["stage"] == "contrastive"]
    assert epochs == [1, 2, 3]


def test_batch_larger_than_the_training_split(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"contrastive.batch-size is 4096.*training split holds \d+"):
        pretraining.run(small(contrastive={"batch_size": 4096}), tmp_path / "run", quiet=True)


def test_autoencoder_of_another_run_is_taken(finished: RunFolder, tmp_path: Path) -> None:
    config = until(small(autoencoder={"weights": str(finished.path)}), "contrastive")
    folder = RunFolder(pretraining.run(config, tmp_path / "run", quiet=True))
    assert torch.equal(load_file(folder.head)["first.weight"], load_file(finished.head)["first.weight"])
    assert folder.read_result()["autoencoder"] is None


def test_an_autoencoder_under_other_names_is_taken_whole(finished: RunFolder, tmp_path: Path) -> None:
    ours = load_file(finished.autoencoder)
    pythae = {name: layer for layer, name in PYTHAE_NAMES.items()}
    split = {name: name.rpartition(".") for name in ours}
    renamed = {f"{pythae[layer]}.{kind}": ours[name] for name, (layer, _, kind) in split.items()}
    save_file(renamed, tmp_path / "foreign.safetensors")
    config = until(small(autoencoder={"weights": str(tmp_path / "foreign.safetensors")}), "contrastive")
    folder = RunFolder(pretraining.run(config, tmp_path / "run", quiet=True))
    found = load_file(folder.autoencoder)
    assert found.keys() == ours.keys()
    assert all(torch.equal(found[name], ours[name]) for name in ours)
    assert (folder.samples / "reconstructions.png").exists()


def test_what_a_network_cannot_become_is_said_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(opening, "say", said.append)
    monkeypatch.setattr(contrastive, "train", lambda *_, **__: pytest.fail("; ".join(said)))
    config = until(small(backbone={"name": "shufflenet_v2_x0_5"}), "contrastive")
    with pytest.raises(pytest.fail.Exception, match="can be exported as torchvision and onnx, not as timm"):
        pretraining.run(config, tmp_path / "run")


def test_python_interface(tmp_path: Path) -> None:
    run = headstart.pretrain(
        "digits",
        out=tmp_path / "run",
        quiet=True,
        data=dict(limit=64, size=16),
        backbone=dict(name="resnet18"),
        head=dict(init="random", frozen=False, hidden_dim=8, output_dim=8),
        contrastive=dict(epochs=1, batch_size=16),
        probe=dict(names=["knn"]),
        threads=1,
        precision="float32",
    )
    assert run.result["probes"]["knn"]["n_test"] > 0
    assert isinstance(run.backbone, torch.nn.Module)
    with pytest.raises(InputError, match=r"unknown key 'head\.innit'"):
        headstart.pretrain("digits", out=tmp_path / "other", head=dict(innit="random"))
    assert json.loads((tmp_path / "run" / "result.json").read_text())["head"]["init"] == "random"


def test_run_with_a_given_autoencoder_goes_on_without_training_one(finished: RunFolder, tmp_path: Path) -> None:
    given = autoencoders.load(finished.autoencoder)
    folder = RunFolder(pretraining.run(until(small(), "contrastive"), tmp_path / "run", autoencoder=given, quiet=True))
    assert folder.read_result()["autoencoder"] is None
    pretraining.run(small(contrastive={"epochs": 3}), folder.path, extend=True, quiet=True)
    assert not [line for line in read_metrics(folder.metrics) if line["stage"] == "autoencoder"]
    assert folder.read_result()["contrastive"]["epochs"] == 3
    assert folder.read_result()["autoencoder"] is None


def test_extend_needs_the_checkpoint(finished: RunFolder, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished.path, out)
    RunFolder(out).checkpoint.unlink()
    with pytest.raises(InputError, match=r"checkpoint\.pt.*is gone"):
        pretraining.run(small(contrastive={"epochs": 3}), out, extend=True, quiet=True)
    assert RunFolder(out).result.exists()


def test_lines_of_steps_that_are_done_again_are_forgotten(finished: RunFolder, tmp_path: Path) -> None:
    folder = RunFolder(pretraining.run(until(small(), "autoencoder"), tmp_path / "run", quiet=True))
    # As a kill leaves it that comes after the lines of the first save were written and before its checkpoint was.
    stray = [line for line in read_metrics(finished.metrics) if line["stage"] == "contrastive"][:1]
    folder.metrics.write_text(folder.metrics.read_text() + jsonl(stray))
    pretraining.run(small(), folder.path, quiet=True)
    assert _without_times(folder) == _without_times(finished)


def test_the_second_of_two_is_told_who_works_in_the_folder(finished: RunFolder, tmp_path: Path) -> None:
    config = until(small(autoencoder={"epochs": 1}), "autoencoder")
    with owned(tmp_path / "run", "pretrain"):
        for overwrite in (False, True):
            with pytest.raises(InputError, match=rf"is in use: process {os.getpid()} on .* since \d{{4}}-.*pretrain"):
                pretraining.run(config, tmp_path / "run", overwrite=overwrite, quiet=True)
        with pytest.raises(InputError, match="is in use"):
            finetune(headstart.load(finished.path), "digits", tmp_path / "run", quiet=True)
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".claim"]
        pretraining.run(config, tmp_path / "run", claimed=True, quiet=True)
    assert not (tmp_path / "run" / ".claim").exists()


@pytest.mark.parametrize(
    ("name", "value"), [("torch", "1.13.0"), ("headstart", "0.0.1"), ("device", "cuda NVIDIA H100"), ("threads", 64)]
)
def test_going_on_under_something_else_is_said_and_recorded(
    name: str, value: object, finished: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(opening, "say", said.append)
    folder = RunFolder(Path(shutil.copytree(finished.path, tmp_path / "run")))
    values = yaml.safe_load(folder.config.read_text())
    values["about"][name] = value
    folder.config.write_text(yaml.safe_dump(values))
    ready = prepare(small(), None, None, choose("cpu", "float32", 1), quiet=True)
    for _ in range(2):
        opening.open_run(folder, ready, choose("cpu", "float32", 1), False, False, None, False)
    (sentence,) = said
    assert f"begun under {name} {value}, goes on under {name} " in sentence
    (recorded,) = load_config(folder.config)[1]["resumed"]
    assert recorded.startswith(f"{name} {value} -> {name} ")
