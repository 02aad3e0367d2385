"""Prints the table of docs/heads.md: what each kind of autoencoder costs, and its error with the same budget.

    python docs/figures/autoencoder_kinds.py RUNS DATA      (CIFAR-10 as JPEG: train/CLASS/*.jpg, test/CLASS/*.jpg)

Every kind is trained with the settings below; runs are kept in RUNS, and those already there are read. A cost is the
multiplications and additions of a training step, forward and backward, per picture.
"""

import sys
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from headstart.autoencoders import Autoencoder, load
from headstart.engine.randomness import generator
from headstart.records.config import AutoencoderConfig, BackboneConfig, Config, DataConfig, HeadConfig
from headstart.records.folder import RunFolder
from headstart.records.names import AUTOENCODER_KINDS
from headstart.training import run as pretraining

PICTURES, EPOCHS, LR, LATENT, BATCH = 3000, 15, 1e-3, 256, 100


def trained(kind: str, source: str, folder: Path) -> tuple[Autoencoder, float]:
    """An autoencoder of that kind, and its mean squared error on the test split."""
    run = RunFolder(folder / kind)
    if not run.is_complete():
        config = Config(
            data=DataConfig(sources=(source,), limit=PICTURES),
            backbone=BackboneConfig(name="resnet34"),
            autoencoder=AutoencoderConfig(kind=kind, epochs=EPOCHS, lr=LR, batch_size=BATCH),
            head=HeadConfig(hidden_dim=LATENT),
            stages="autoencoder",
            precision="float32",
            threads=1,
        )
        pretraining.run(config, run.path, quiet=True)
    model = load(run.autoencoder)
    assert isinstance(model, Autoencoder)
    return model, run.read_result()["autoencoder"]["test_mse"]


def cost(model: Autoencoder) -> float:
    """Floating-point operations of a training step, per picture."""
    x = torch.rand(BATCH, model.in_features)
    with FlopCounterMode(display=False) as counted:
        model.loss(x, generator(0, "cost")).backward()
    return counted.get_total_flops() / BATCH


def main(folder: Path, source: str) -> None:
    """A row for each kind."""
    for kind in AUTOENCODER_KINDS:
        model, test_mse = trained(kind, source, folder)
        parameters = sum(p.numel() for p in model.parameters())
        print(f"| `{kind}` | {parameters / 1e6:.1f} M | {cost(model) / 1e6:.0f} M | {test_mse:.4f} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
