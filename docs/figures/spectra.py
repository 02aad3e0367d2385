"""Draws docs/figures/spectra.svg: singular values of the head's first layer under every init.

    python docs/figures/spectra.py RUNS cifar10:ROOT        (or any folder of pictures)

The autoencoders are trained here, on scikit-learn's digits and on 3,000 pictures of the argument,
with hidden_dim 256 (needs matplotlib); the backbone is an untrained ResNet-18. The autoencoders' runs are kept in RUNS,
and those already there are drawn again as they are.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes

from headstart.heads import ProjectionHead
from headstart.records.config import AutoencoderConfig, BackboneConfig, Config, DataConfig, HeadConfig
from headstart.records.files import read_json
from headstart.records.folder import RunFolder
from headstart.training import run as pretraining

DIGITS_EPOCHS = 60
OTHER_EPOCHS, OTHER_PICTURES = 20, 3000
LINES = {  # label: init, autoencoder on, colour, style
    "autoencoder, spectrum": ("autoencoder", "pixels", "C3", "-"),
    "autoencoder on features": ("autoencoder", "features", "C1", "-"),
    "shuffled": ("shuffled", "pixels", "C0", "-"),
    "random": ("random", "pixels", "0.3", "--"),
    "orthogonal, pca": ("orthogonal", "pixels", "C2", "--"),
}


def trained(source: str, on: str, folder: Path) -> Path:
    """An autoencoder of `source`, trained on pixels or on the untrained backbone's features."""
    run = RunFolder(folder / on / title(source))
    if run.is_complete():
        return run.autoencoder
    config = Config(
        data=data_of(source),
        backbone=BackboneConfig(name="resnet18"),
        autoencoder=AutoencoderConfig(on=on, epochs=DIGITS_EPOCHS if source == "digits" else OTHER_EPOCHS, lr=1e-3),  # type: ignore[arg-type]
        head=HeadConfig(hidden_dim=256),
        stages="autoencoder",
    )
    pretraining.run(config, run.path, quiet=True)
    return run.autoencoder


def data_of(source: str) -> DataConfig:
    """All digits; a part of anything else."""
    return DataConfig(sources=(source,), limit=None if source == "digits" else OTHER_PICTURES)


def title(source: str) -> str:
    """`cifar10` of `cifar10:ROOT` and of `/data/cifar10`."""
    return Path(source.partition(":")[0]).name


def draw(axes: Axes, source: str, folder: Path) -> None:
    """One panel: the spectra for one set of pictures."""
    autoencoders = {on: trained(source, on, folder) for on in ("pixels", "features")}
    for label, (init, on, colour, style) in LINES.items():
        head = ProjectionHead.from_init(
            512,
            init=init,
            hidden_dim=256,
            autoencoder=autoencoders[on],
            generator=torch.Generator().manual_seed(0),
        )
        values = torch.linalg.svdvals(head.first.weight.detach().double())
        axes.semilogy(range(1, len(values) + 1), values, style, color=colour, label=label, linewidth=1.4)
    seen = read_json(RunFolder(folder / "pixels" / title(source)).result)["data"]["train"]
    axes.set_title(f"{title(source)} (trained on {seen:,} pictures)", fontsize=10)
    axes.set_xlabel("index")
    axes.grid(alpha=0.25)


def main(folder: Path, sources: list[str]) -> None:
    """Train, draw, and write the figure beside this script."""
    size = (4.2 * len(sources), 3.6)
    figure, panels = plt.subplots(1, len(sources), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for axes, source in zip(panels[0], sources, strict=True):
        draw(axes, source, folder)
    panels[0][0].set_ylabel("singular value of the first layer (256 x 512)")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(LINES), fontsize=8, frameon=False)
    figure.savefig(Path(__file__).with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]), ["digits", *sys.argv[2:]])
