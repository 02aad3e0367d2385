"""Do our autoencoders reach the authors' test error on CIFAR-10? `python -m benchmarks autoencoder_quality DATA`.

Trains the autoencoder stage of `--preset paper` (paper 3.2, 3.3) at each latent size and prints its test MSE beside the
authors' own (their published runs, docs/the-paper.md). It goes on from where an interrupted call stopped.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from rich.table import Table

from headstart import autoencoders
from headstart.data import images, splits
from headstart.engine import device, progress, randomness
from headstart.engine.checkpoint import Checkpoints
from headstart.engine.stopping import stop_on_signals
from headstart.records import files, presets
from headstart.records import folder as runs
from headstart.records.config import AutoencoderConfig
from headstart.training import autoencoder

AUTHORS = {128: 0.00597, 256: 0.00498, 512: 0.00430}
"""Test MSE of the authors' CIFAR-10 autoencoders after 100 epochs."""


def train_one(
    latent_dim: int, parts: tuple[Any, ...], settings: AutoencoderConfig, compute: device.Compute, folder: Path
) -> dict[str, Any]:
    """Train at one latent size; leaves FOLDER/LATENT.safetensors and FOLDER/LATENT.json."""
    record = folder / f"{latent_dim}.json"
    if record.exists():
        return files.read_json(record)
    metrics = runs.Metrics(folder / f"{latent_dim}.jsonl")
    saved = Checkpoints(folder / f"{latent_dim}.pt", metrics)
    model = autoencoders.build(
        settings, parts[0][0].numel(), 512, latent_dim, randomness.generator(0, "autoencoder-init")
    )
    found = autoencoder.train(model, parts, settings, seed=0, compute=compute, checkpoints=saved, log=metrics.log)
    metrics.flush()
    result = {
        "latent_dim": latent_dim,
        "test_mse": found.test_mse,
        "val_mse": found.val_mse,
        "best_epoch": found.best_epoch,
        "epochs": settings.epochs,
        "precision": compute.precision,
        # Summed over the epochs, so that an interruption does not count.
        "seconds": sum(len(parts[0]) / line["pictures_per_s"] for line in metrics.lines),
    }
    autoencoders.save(found.model, folder / f"{latent_dim}.safetensors", test_mse=found.test_mse)
    files.write_json(record, result)
    saved.discard()
    return result


def main(argv: list[str] | None = None) -> None:
    """Train CIFAR-10's autoencoders as the paper did and print their test MSE beside the authors'."""
    parser = argparse.ArgumentParser(prog="benchmarks autoencoder_quality", description=__doc__)
    parser.add_argument("data", help="CIFAR-10: cifar10:ROOT, or a folder with train/ and test/")
    parser.add_argument("--latent-dims", type=int, nargs="+", default=list(AUTHORS))
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--precision", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, default=Path("runs/autoencoder_quality"))
    options = parser.parse_args(argv)
    paper = presets.paper((options.data,))
    settings = dataclasses.replace(paper.autoencoder, epochs=options.epochs)
    compute = device.choose(precision=options.precision, threads=options.threads)
    pictures = images.open_images(paper.data)
    split = splits.make(pictures, paper.data)
    parts = tuple(pictures.squashed(part, 32) for part in (split.train, split.val, split.test))
    table = Table("latent size", "test MSE", "authors'", "ratio", "best epoch", "seconds", "precision")
    with stop_on_signals():
        for latent_dim in options.latent_dims:
            found = train_one(latent_dim, parts, settings, compute, options.out)
            authors = AUTHORS.get(latent_dim)
            table.add_row(
                *(f"{latent_dim}", f"{found['test_mse']:.5f}"),
                *((f"{authors:.5f}", f"{found['test_mse'] / authors:.3f}") if authors else ("", "")),
                *(f"{found['best_epoch']}", f"{found['seconds']:.0f}", f"{found['precision']}"),
            )
    progress.console.print(table)
