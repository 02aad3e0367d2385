"""Any backbone from one command line: the autoencoder, and so the head, takes the width of its features."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from headstart.cli import commands as cli
from headstart.records.config import (
    AugmentConfig,
    AutoencoderConfig,
    BackboneConfig,
    Config,
    ContrastiveConfig,
    DataConfig,
    HeadConfig,
    ProbeConfig,
)
from headstart.training.run import run

pytest.importorskip("timm")

LARGE = [("resnet34", "sgd", 512), ("vit_b_16", "sgd", 768), ("convnext_tiny", "adamw", 768)]


@pytest.mark.parametrize(
    ("name", "optimizer", "num_features"),
    [
        ("resnet18", "lars", 512),
        ("resnet50", "sgd", 2048),
        ("timm:test_vit", "sgd", 64),
        ("timm:mobilenetv3_small_050", "adamw", 1024),
        *(pytest.param(*large, marks=pytest.mark.soak) for large in LARGE),
    ],
)
def test_one_command_line_trains_it_with_a_head_of_its_width(
    tmp_path: Path, name: str, optimizer: str, num_features: int
) -> None:
    options = f"""--data.limit 24 --data.size 32 --backbone.name {name} --autoencoder.epochs 1 --head.hidden-dim 16
        --head.output-dim 8 --contrastive.epochs 1 --contrastive.batch-size 8 --contrastive.optimizer {optimizer}
        --stages contrastive --precision float32 --threads 1"""
    with pytest.raises(SystemExit) as ended:
        cli.main(["pretrain", "digits", "--out", str(tmp_path / "run"), *options.split()])
    assert ended.value.code == 0
    head = load_file(tmp_path / "run" / "head.safetensors")
    autoencoder = load_file(tmp_path / "run" / "autoencoder.safetensors")
    assert head["first.weight"].shape == (16, num_features)
    assert torch.equal(head["first.weight"], autoencoder["encoder.embedding.weight"])
    assert torch.equal(head["first.bias"], autoencoder["encoder.embedding.bias"])
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["stage"] == "contrastive"
    assert 0 < result["contrastive"]["train_loss"] < 10
    assert len(result["geometry"]["head"]["singular_values"]) == 16


@pytest.mark.parametrize(
    ("name", "pictures", "epochs", "lr"),
    [("timm:test_vit", 1000, 20, 1e-3), ("timm:test_convnext", 600, 8, 2e-3)],
    ids=["vit", "convnext"],
)
def test_a_short_training_lifts_few_shot_accuracy_over_the_untrained_network(
    tmp_path: Path, name: str, pictures: int, epochs: int, lr: float
) -> None:
    """Small members of both families: 0.3 and 0.2 million parameters."""
    config = Config(
        data=DataConfig(sources=("digits",), limit=pictures),
        backbone=BackboneConfig(name=name),
        head=HeadConfig(hidden_dim=64, output_dim=32),
        autoencoder=AutoencoderConfig(epochs=5, lr=1e-3),
        augment=AugmentConfig(crop_scale=(0.6, 1.0), flip=0.0, grey_p=0.0, blur_p=0.0),
        contrastive=ContrastiveConfig(
            epochs=epochs, batch_size=64, optimizer="adamw", lr=lr, temperature=0.2, online_probe=False
        ),
        probe=ProbeConfig(names=("few_shot_1",)),
        precision="float32",
        threads=1,
    )
    run(config, tmp_path / "run", quiet=True)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    trained, untrained = (result[part]["few_shot_1"] for part in ("probes", "untrained"))
    assert trained["accuracy"] > untrained["accuracy"] + 0.03
