"""In which chunks a batch fits the memory that is free: chosen, said, written down and kept, or refused."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from headstart import backbones
from headstart.engine import memory
from headstart.engine.device import choose
from headstart.evaluate.views import augmenter
from headstart.records.config import Config
from headstart.records.config import load as load_config
from headstart.records.errors import InputError, RunError
from headstart.records.folder import RunFolder
from headstart.training import contrastive, footprint, resolving
from headstart.training import run as pretraining
from headstart.training.footprint import Cost, fitting_chunk
from headstart.training.resolving import prepare
from headstart.training.step import SimCLR
from tests.runs import small, until

MIB = 2**20


@pytest.mark.parametrize(
    ("free", "least", "chunk"),
    [
        (400, 1, 256),  # 256 + 20 fit into 320
        (340, 1, 128),  # they do not fit into 272
        (100, 1, 32),
        (100, 16, 32),
        (42, 16, 16),  # 8 would leave a fifth free, 16 fit
        (35, 16, None),
        (35, 1, 8),
        (21, 1, 1),
        (20, 1, None),
    ],
)
def test_the_chunk_is_the_largest_power_of_two_that_fits(free: int, least: int, chunk: int | None) -> None:
    assert fitting_chunk(256, Cost(pair=1, fixed=20), free, least) == chunk


def test_a_batch_below_the_fewest_pairs_is_its_own_least() -> None:
    assert fitting_chunk(6, Cost(pair=1, fixed=0), 6, 16) == 6
    assert fitting_chunk(6, Cost(pair=1, fixed=0), 5, 16) is None


@pytest.mark.parametrize(("name", "norms"), [("resnet18", "batch"), ("resnet18", "given"), ("vit_b_32", "batch")])
def test_what_a_pair_takes_is_what_autograd_keeps_of_it(name: str, norms: str) -> None:
    """Counted without memory, against real tensors."""
    torch.manual_seed(0)
    model = SimCLR(backbones.build(name, stem="imagenet", size=32), torch.nn.Identity(), norms=norms).train()
    with torch.no_grad():
        for parameter in list(model.parameters())[:3]:
            parameter.requires_grad_(True)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    two, four = (footprint._kept(model, tensors, 2 * pairs, 32, torch.float32) for pairs in (2, 4))
    counted = footprint.counted(name, "imagenet", 32, norms, 0.0, 1, torch.float32, False)
    kept = (four - two) / 2
    assert kept < counted.pair < 2 * kept  # and the largest map on its way
    assert counted.normed == (name == "resnet18" and norms == "batch")
    assert counted.weights == sum(p.nbytes for p in model.parameters())


def test_attention_in_float32_is_counted() -> None:
    """Against real tensors, of a network whose attention is torch's function."""
    model = SimCLR(backbones.build("timm:test_vit", size=32), torch.nn.Identity()).train()
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    wide, low = (
        [footprint._kept(model, tensors, 2 * pairs, 32, torch.bfloat16, way) for pairs in (2, 4)]
        for way in (True, False)
    )
    assert wide[1] - wide[0] > low[1] - low[0]
    for way, (two, four) in ((True, wide), (False, low)):
        counted = footprint.counted("timm:test_vit", "imagenet", 32, "batch", 0.0, 1, torch.bfloat16, way)
        assert counted.kept == (four - two) // 2


def with_free(monkeypatch: pytest.MonkeyPatch, free: int | None) -> list[str]:
    """What is said from now on, with so many bytes free."""
    said: list[str] = []
    monkeypatch.setattr(memory, "free", lambda device, sharers=1: free)
    monkeypatch.setattr(resolving, "say", said.append)
    return said


def cost_of(config: Config) -> Cost:
    compute = choose("cpu", "float32", 1)
    ready = prepare(config, None, None, compute, quiet=True)
    return footprint.simclr_cost(ready.config, ready.images, compute)[0]


def config(**sections: Any) -> Config:
    sections.setdefault("head", {"init": "random", "frozen": False})
    return small(**sections)


def test_a_batch_that_does_not_fit_is_cut_said_and_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cost = cost_of(config())
    said = with_free(monkeypatch, int(cost.of(20) / footprint.SHARE))
    out = pretraining.run(config(), tmp_path / "run")
    (line,) = [line for line in said if "in chunks of" in line]
    assert line.startswith("32 pairs in chunks of 16: ")
    assert "GiB free; batch norm takes the statistics of each chunk" in line
    folder = RunFolder(out)
    assert load_config(folder.config)[0].contrastive.chunk == 16
    assert folder.read_result()["stage"] == "probe"


def test_chunks_that_are_exact_may_be_smaller_and_say_nothing_of_batch_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = config(contrastive={"norms": "given"})
    cost = cost_of(exact)
    said = with_free(monkeypatch, int(cost.of(5) / footprint.SHARE))
    assert prepare(exact, None, None, choose("cpu", "float32", 1)).config.contrastive.chunk == 4
    assert [line for line in said if "batch norm" in line] == []


def test_a_batch_that_fits_stays_whole_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    for free in (2**40, None):
        said = with_free(monkeypatch, free)
        assert prepare(config(), None, None, choose("cpu", "float32", 1)).config.contrastive.chunk is None
        assert not any("chunk" in line for line in said)


def test_a_run_that_has_begun_keeps_its_chunk_whatever_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RunError("the power went")

    begun = config(contrastive={"epochs": 3}, checkpoint={"minutes": 0})
    with_free(monkeypatch, int(cost_of(begun).of(20) / footprint.SHARE))
    with monkeypatch.context() as patch:
        patch.setattr(contrastive.Contrastive, "end_epoch", fails)
        with pytest.raises(RunError, match="the power went"):
            pretraining.run(begun, tmp_path / "run", quiet=True)
    with_free(monkeypatch, 2**40)
    out = pretraining.run(begun, tmp_path / "run", quiet=True)
    assert load_config(RunFolder(out).config)[0].contrastive.chunk == 16


def test_what_cannot_fit_is_refused_before_the_folder_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_free(monkeypatch, 10 * MIB)
    with pytest.raises(InputError, match=r"SimCLR of resnet18 at 16 px .* 16 pairs at once .*chunk below 16"):
        pretraining.run(config(), tmp_path / "run", quiet=True)
    with pytest.raises(InputError, match=r"the autoencoder of 768 values .*head\.init random.* and SimCLR of resnet18"):
        pretraining.run(small(), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
    chosen = config(contrastive={"chunk": 4})  # whoever names a chunk is let try
    assert prepare(chosen, None, None, choose("cpu", "float32", 1), quiet=True).config.contrastive.chunk == 4


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_under_a_real_limit_a_run_that_cannot_fit_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "headstart", "pretrain", "digits", "--out", str(tmp_path / "run")]
    command += ["--data.size", "224", "--backbone.name", "resnet50", "--threads", "1"]
    script = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, 4 << 30)); "
    script += "os.execv(sys.argv[1], sys.argv[1:])"
    done = subprocess.run([sys.executable, "-c", script, *command], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert "the autoencoder of 150528 values needs" in last
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_validation_looks_at_as_many_views_at_once_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    compute = choose("cpu", "float32", 1)
    ready = prepare(config(), None, None, compute, quiet=True)
    model = SimCLR(backbones.build("resnet18", stem="imagenet", size=16), torch.nn.Linear(512, 8)).eval()
    seen: list[int] = []
    model.register_forward_pre_hook(lambda _, views: seen.append(len(views[0])))
    augment = augmenter(ready.config.augment, 16, None, None)
    watch = contrastive.Watch(ready.images, ready.splits, ready.config, augment, compute)
    chosen = torch.as_tensor(ready.splits.train[:10])
    for augmented in (True, False):
        whole = watch.pass_through(model, chosen, 0, augmented)
        with monkeypatch.context() as patch:
            patch.setattr(contrastive, "pictures_at_once", lambda size, device: 8)
            parts = watch.pass_through(model, chosen, 0, augmented)
        assert seen == [20, 8, 6, 6]
        seen.clear()
        for a, b in zip(whole, parts, strict=True):
            torch.testing.assert_close(a, b)


def test_a_run_stopped_after_its_autoencoder_decides_when_simclr_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_free(monkeypatch, 2**40)
    out = pretraining.run(until(small(), "autoencoder"), tmp_path / "run", quiet=True)
    with_free(monkeypatch, int(cost_of(small()).of(20) / footprint.SHARE))
    assert load_config(RunFolder(out).config)[0].contrastive.chunk is None
    pretraining.run(small(), tmp_path / "run", quiet=True)
    assert load_config(RunFolder(out).config)[0].contrastive.chunk == 16


def test_a_classifiers_batch_that_cannot_fit_is_refused_with_one_that_does(monkeypatch: pytest.MonkeyPatch) -> None:
    network, compute = small().backbone, choose("cpu", "float32", 1)
    with_free(monkeypatch, 2**40)
    footprint.check_batch(network, 224, 4096, compute)
    with_free(monkeypatch, 3 * 2**30)
    with pytest.raises(InputError, match=r"resnet18 .* for 4096 pictures .*--batch-size (\d+) fits") as found:
        footprint.check_batch(network, 224, 4096, compute)
    footprint.check_batch(network, 224, int(str(found.value).rsplit(" ", 2)[1]), compute)
    with_free(monkeypatch, 10 * MIB)
    with pytest.raises(InputError, match=r"smaller --backbone\.name"):
        footprint.check_batch(network, 224, 64, compute)
