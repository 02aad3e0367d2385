"""Draws docs/figures/spectra.svg: singular values of the head's first layer under every init.

    python docs/figures/spectra.py RUNS cifar10:ROOT        (or any folder of pictures)

The autoencoders are trained here, on scikit-learn's digits and on 3,000 pictures of the argument,
with hidden_dim 256; the backbone is an untrained ResNet-18. The autoencoders' runs are kept in RUNS, and those already
there are drawn again as they are.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from headstart.heads import ProjectionHead
from headstart.records.config import AutoencoderConfig, BackboneConfig, Config, DataConfig, HeadConfig
from headstart.records.files import read_json
from headstart.records.folder import RunFolder
from headstart.report.svg import WIDTH, Drawing, Look, Scale, scale
from headstart.training import run as pretraining

DIGITS_EPOCHS = 60
OTHER_EPOCHS, OTHER_PICTURES = 20, 3000
LINES = {  # label: init, autoencoder on, look; dashed lines and hollow marks are of the one on features
    "autoencoder, spectrum": ("autoencoder", "pixels", Look("init-autoencoder", "circle")),
    "autoencoder on features": ("autoencoder", "features", Look("init-autoencoder", "circle", hollow=True)),
    "shuffled": ("shuffled", "pixels", Look("init-shuffled", "circle")),
    "random": ("random", "pixels", Look("init-random", "circle")),
    "orthogonal, pca": ("orthogonal", "pixels", Look("init-orthogonal", "circle")),
}
TOP, BOTTOM, LEFT = 108, 328, 44


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


def spectra(source: str, folder: Path) -> dict[str, list[float]]:
    """The singular values of the first layer by label, the largest first."""
    autoencoders = {on: trained(source, on, folder) for on in ("pixels", "features")}
    found = {}
    for label, (init, on, _) in LINES.items():
        head = ProjectionHead.from_init(
            512,
            init=init,
            hidden_dim=256,
            autoencoder=autoencoders[on],
            generator=torch.Generator().manual_seed(0),
        )
        found[label] = torch.linalg.svdvals(head.first.weight.detach().double()).tolist()
    return found


def panel(drawing: Drawing, place: int, heading: str, lines: Mapping[str, list[float]], y: Scale) -> None:
    """One set's spectra; the panels share their y axis."""
    left = place * WIDTH + LEFT
    x = Scale(0, 256, left, left + WIDTH - LEFT - 16)
    drawing.text(left, TOP - 28, heading, "strong")
    drawing.y_axis(y, left, x.end, "")
    drawing.x_axis(x, TOP, BOTTOM, "index", [1, 64, 128, 192, 256])
    for label, values in lines.items():
        _, _, look = LINES[label]
        points = [(x(i), y(value)) for i, value in enumerate(values, start=1)]
        drawing.path(points, f"curve {look.colour}{' trainable' if look.hollow else ''}")


def figure(found: Mapping[str, Mapping[str, list[float]]], pictures: Mapping[str, int]) -> Drawing:
    """The drawing of spectra by set and label, with the number of pictures that each set's autoencoders saw."""
    y = scale([v for lines in found.values() for values in lines.values() for v in values], BOTTOM, TOP, log=True)
    said = "; ".join(
        f"{name}: {k} {v[0]:.2g} to {v[-1]:.2g}" for name, lines in found.items() for k, v in lines.items()
    )
    alt = f"Singular values of the first layer, largest to smallest. {said}"
    drawing = Drawing(BOTTOM + 40, alt, len(found) * WIDTH)
    drawing.legend(14, [(label, look) for label, (_, _, look) in LINES.items()])
    drawing.text(0, TOP - 10, "singular value of the first layer (256 x 512)", "small")
    for place, (name, lines) in enumerate(found.items()):
        panel(drawing, place, f"{name}, trained on {pictures[name]:,} pictures", lines, y)
    return drawing


def main(folder: Path, sources: list[str]) -> None:
    """Train, draw, and write the figure beside this script."""
    found = {title(source): spectra(source, folder) for source in sources}
    seen = {name: read_json(RunFolder(folder / "pixels" / name).result)["data"]["train"] for name in found}
    Path(__file__).with_suffix(".svg").write_text(figure(found, seen).standalone(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), ["digits", *sys.argv[2:]])
