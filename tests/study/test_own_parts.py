"""A head, an autoencoder and a backbone of one's own: in a study, in its report, and in every command on its runs."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import headstart
from headstart import autoencoders, backbones, heads, study
from headstart.backbones import networks
from headstart.cli.commands import main
from headstart.records import plugins
from headstart.records.errors import InputError
from headstart.records.names import AUTOENCODER_KINDS, BACKBONES, HEAD_KINDS
from headstart.report import frame, write_report

PARTS = """
import torch
from torch import nn
from torch.nn import functional as F

from headstart import autoencoders, backbones, heads


class Sphere(nn.Module):
    def __init__(self, in_features, settings):
        super().__init__()
        self.first = nn.Linear(in_features, settings.hidden_dim)
        self.output = nn.Linear(settings.hidden_dim, settings.output_dim, bias=False)

    def forward(self, h):
        return self.output(F.normalize(self.first(h)))


class Sturdy(autoencoders.Autoencoder):
    draws = True

    def loss(self, x, generator=None):
        kept = torch.rand(x.shape, generator=generator).to(x.device) > 0.3
        return F.l1_loss(self(x * kept), x)


def pooled(size):
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, stride=2), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 24, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )


heads.register("sphere", Sphere, "the hidden layer on a sphere")
autoencoders.register("sturdy", Sturdy, "reconstructs what is hidden from it")
backbones.register("pooled", pooled, "two convolutions")
"""
STUDY = {
    "name": "own parts",
    "data": ["digits"],
    "base": {
        "data": {"limit": 150},
        "backbone": {"name": "pooled"},
        "autoencoder": {"kind": "sturdy", "epochs": 1},
        "head": {"hidden_dim": 16, "output_dim": 8},
        "contrastive": {"epochs": 2, "batch_size": 32},
        "probe": {"names": ["knn"]},
        "precision": "float32",
    },
    "factors": {"head.kind": ["mlp", "sphere"]},
    "seeds": [0],
}


REGISTRIES = (HEAD_KINDS, AUTOENCODER_KINDS, BACKBONES)


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """What a test registers is gone after it, and whenever it asks, as in a new process."""
    plain = [dict(registry) for registry in REGISTRIES]

    def all_gone() -> None:
        for registry, choices in zip(REGISTRIES, plain, strict=True):
            monkeypatch.setattr(registry, "_choices", dict(choices))
        sys.modules.pop("my_parts", None)
        plugins._USED.clear()
        networks.sketch.cache_clear()
        networks.check_size.cache_clear()

    all_gone()
    yield all_gone
    all_gone()


def said_of(out: Path) -> None:
    """The study's records and report know the parts."""
    records = frame.read(out)
    assert set(records.heads) == {"autoencoder-frozen", "autoencoder (sphere)-frozen"}
    assert records.runs["accuracy"].notna().all()
    page = write_report(out).read_text()
    assert "frozen autoencoder (sphere)" in page
    assert "pooled" in page


def test_registered_in_python(forget: Callable[[], None], tmp_path: Path) -> None:
    exec(compile(PARTS, "parts", "exec"), {"__name__": "__main__"})
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(STUDY))
    assert study.run(file, tmp_path / "out", workers=0, threads=1, quiet=True).done == 2
    said_of(tmp_path / "out")
    run = next((tmp_path / "out" / "runs").glob("*kind=sphere*"))
    head, autoencoder = load_file(run / "head.safetensors"), load_file(run / "autoencoder.safetensors")
    assert set(head) == {"first.weight", "first.bias", "output.weight"}
    assert torch.equal(head["first.weight"], autoencoder["encoder.embedding.weight"])
    assert isinstance(autoencoders.load(run / "autoencoder.safetensors"), autoencoders.Autoencoder)
    opened = headstart.load(run)
    assert opened.backbone.num_features == 24
    assert opened.embed(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape == (2, 24)
    assert "plugins" not in yaml.safe_load((run / "config.yaml").read_text())["about"]


def test_on_the_command_line_and_refused_without_it(
    forget: Callable[[], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "my_parts.py").write_text(PARTS)
    monkeypatch.syspath_prepend(tmp_path / "parts")
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, plugin: bool = True, code: int = 0) -> str:
        forget()
        with pytest.raises(SystemExit) as ended:
            main([*arguments, *(["--plugin", "my_parts"] if plugin else [])])
        said = capsys.readouterr()
        assert ended.value.code == code, (arguments, said)
        return said.out + said.err

    (tmp_path / "study.yaml").write_text(yaml.safe_dump({**STUDY, "plugins": ["my_parts"]}))
    begun = ("study", "run", "study.yaml", "--out", "out", "--threads", "1", "--workers", "0")
    assert "needs the plugin my_parts" in call(*begun, plugin=False, code=2)
    call(*begun)
    said_of(tmp_path / "out")
    run = str(next((tmp_path / "out" / "runs").glob("*kind=sphere*")))
    assert yaml.safe_load(Path(run, "config.yaml").read_text())["about"]["plugins"] == ["my_parts"]

    assert "the hidden layer on a sphere" in call("list", "head-kinds")
    assert "two convolutions" in call("list", "backbones")
    for arguments in (
        ("embed", run, "--out", "vectors.npz"),
        ("evaluate", run, "--name", "self"),
        ("select", run, "-n", "3", "--out", "selection"),
        ("finetune", run, "--out", "classifier", "--epochs", "1", "--lr", "0.01", "--layer-decay", "1", "--no-compare"),
        ("predict", "classifier", "digits", "--out", "predictions.csv"),
        ("pretrain", "digits", "--out", run, "--config", f"{run}/config.yaml", "--extend", "--contrastive.epochs", "3"),
    ):
        refused = call(*arguments, plugin=False, code=2)
        assert (
            "was made with the plugin my_parts, which is a program; if you trust it, add --plugin my_parts" in refused
        )
        assert len(refused.strip().splitlines()) == 1
        call(*arguments)
    assert (Path(run) / "evaluations" / "self.json").exists()
    assert json.loads(Path(run, "result.json").read_text())["contrastive"]["epochs"] == 3


@pytest.mark.parametrize("register", [heads.register, autoencoders.register, backbones.register])
def test_a_name_that_is_taken_is_refused(forget: Callable[[], None], register: object) -> None:
    taken = {heads.register: "attention", autoencoders.register: "conv", backbones.register: "resnet18"}[register]  # type: ignore[index]
    with pytest.raises(InputError, match=f"{taken} is .* already; give another name"):
        register(taken, lambda *sizes: None)  # type: ignore[operator]


def test_parts_that_do_not_fit_are_refused_before_anything_is_trained(
    forget: Callable[[], None], tmp_path: Path
) -> None:
    heads.register("wide", lambda width, settings: torch.nn.Linear(width, 3))
    heads.register("blank", lambda width, settings: torch.nn.Linear(width, settings.output_dim))
    backbones.register("flat", lambda size: torch.nn.Conv2d(3, 8, 3))
    sections = {"data": {"limit": 60}, "contrastive": {"epochs": 1}, "threads": 1}
    for parts, said in (
        ({"head": {"kind": "wide", "init": "random", "frozen": False}}, r"turns h \(2, 512\) into \(2, 3\)"),
        ({"head": {"kind": "blank"}}, "Linear has no nn.Linear called first"),
        ({"backbone": {"name": "flat"}}, r"turns two pictures into \(2, 8, "),
        ({"backbone": {"name": "flat", "weights": "pretrained"}}, "no library has weights of flat, which is your own"),
    ):
        whole: dict[str, Any] = {"backbone": {"name": "resnet18"}, **sections, **parts}
        with pytest.raises(InputError, match=said):
            headstart.pretrain("digits", out=tmp_path / "run", quiet=True, **whole)
        assert not (tmp_path / "run" / "config.yaml").exists()
