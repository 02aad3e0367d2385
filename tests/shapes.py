"""A folder of real picture files with difficult names, and a real small run on it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from headstart.records.config import from_dict
from headstart.training.run import run as pretrain
from headstart.use.load import Run, load

CLASSES = ("=disc", "bar|*_x", "ring")
PER_CLASS = 20


def shape(kind: int, seed: int) -> Image.Image:
    """A coloured disc, bar or ring on noise, of its own size."""
    draws = np.random.default_rng([kind, seed])
    width, height = draws.integers(30, 60, 2)
    noise = draws.integers(0, 60, (height, width, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    draw = ImageDraw.Draw(picture)
    colour = tuple(int(c) for c in draws.integers(120, 256, 3))
    box = (width * 0.2, height * 0.2, width * 0.8, height * 0.8)
    match kind:
        case 0:
            draw.ellipse(box, fill=colour)
        case 1:
            draw.rectangle((width * 0.4, 0, width * 0.6, height), fill=colour)
        case _:
            draw.ellipse(box, outline=colour, width=4)
    return picture


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 20 pictures in folders; a file whose name is a spreadsheet formula; an exact duplicate."""
    root = tmp_path_factory.mktemp("photos")
    for kind, name in enumerate(CLASSES):
        (root / name).mkdir()
        for seed in range(PER_CLASS):
            shape(kind, seed).save(root / name / f"{seed:02d}.png")
    (root / "ring" / "00.png").replace(root / "ring" / "twin of 01.png")
    (root / "ring" / "twin of 01.png").write_bytes((root / "ring" / "01.png").read_bytes())
    return root


@pytest.fixture(scope="session")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """ResNet-18 at 32 px, a few steps of SimCLR and one probe."""
    config = from_dict(
        {
            "data": {"sources": [str(photos)], "size": 32},
            "backbone": {"name": "resnet18"},
            "head": {"init": "random", "frozen": False},
            "contrastive": {"epochs": 2, "batch_size": 16},
            "probe": {"names": ["knn"]},
            "precision": "float32",
            "threads": 1,
            "device": "cpu",
        }
    )
    return load(pretrain(config, tmp_path_factory.mktemp("runs") / "shapes", quiet=True))
