"""A classifier on disk and in memory: a backbone, a linear layer, and a file that plain torchvision or timm loads.

Comes in: the folder that `finetune` made. Goes out: the network, ready for pictures, and class probabilities.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headstart import backbones
from headstart.data import Images
from headstart.engine import live_taps, weights
from headstart.engine.device import Compute, sent, tuned, zscored
from headstart.engine.importers import read_tensors
from headstart.engine.memory import pictures_at_once
from headstart.engine.randomness import generator
from headstart.records import config as configs
from headstart.records import files, plugins, schema
from headstart.records.arrays import arrays
from headstart.records.config import DataConfig
from headstart.records.errors import InputError
from headstart.records.names import BACKBONES
from headstart.records.seal import check_recorded
from headstart.records.version import __version__
from headstart.use.load import Run

RESULT = "finetune.json"
CLASSIFIER = "classifier.safetensors"
SEEN = "seen.npz"
"""Representations of the training pictures, and from which distance on a picture is unlike all of them."""


class Classifier(nn.Module):
    """A backbone and a linear layer that starts at zero: (N, 3, S, S) -> (N, classes)."""

    def __init__(self, backbone: nn.Module, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Linear(int(backbone.num_features), classes)  # type: ignore[arg-type]
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, pictures: Tensor) -> Tensor:
        """Normalized pictures (N, 3, H, W) -> logits (N, classes)."""
        return self.classifier(self.backbone(pictures))


@torch.no_grad()
def outputs(
    model: Classifier,
    images: Images,
    indices: np.ndarray,
    size: int,
    zscore: tuple[Tensor | None, Tensor | None],
    compute: Compute,
    batch_size: int = 256,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Class probabilities (n, classes) and representations (n, num_features), float32 on the CPU, a batch at a time."""
    model.to(memory_format=torch.channels_last).to(compute.device).eval()
    batch_size = min(batch_size, pictures_at_once(size, compute.device))
    for start in range(0, len(indices), batch_size):
        pictures = sent(images.squashed(indices[start : start + batch_size], size), compute.device)
        x = zscored(pictures, *zscore).contiguous(memory_format=torch.channels_last)
        with compute.autocast(), tuned(len(x) == min(batch_size, len(indices))):
            h = model.backbone(x)
            scores = model.classifier(h)
        yield scores.float().softmax(1).cpu(), h.float().cpu()


def read_record(folder: Path) -> dict[str, Any]:
    """finetune.json. Raises InputError when there is none, or it is damaged."""
    if not (folder / RESULT).exists():
        what = "it is a file" if folder.is_file() else f"it has no {RESULT}"
        absent = files.missing(folder, "folder") or f"{folder} holds no finished classifier: {what}"
        raise InputError(f"{absent}; `headstart finetune` makes one")
    record: dict[str, Any] = files.read_json(folder / RESULT, schema.CLASSIFIER, "a classifier's record")
    plugins.check(record, folder / RESULT)
    return record


def load_classifier(folder: str | Path) -> tuple[Classifier, dict[str, Any]]:
    """The network that `finetune` left in `folder`, in evaluation mode, and its finetune.json.

    Raises InputError when there is none, or it is damaged.
    """
    folder = files.expanded(folder)
    about = read_record(folder)
    settings = about["backbone"]
    backbone = backbones.build(
        settings["name"], stem=settings["stem"], size=about["size"], generator=generator(0, "predict")
    )
    model = Classifier(live_taps.apply(backbone, about["size"]), len(about["classes"]))
    check_recorded(folder / CLASSIFIER, about, RESULT)
    tensors, last = read_tensors(folder / CLASSIFIER), classifier_name(settings["name"])
    own, shapes = own_names(model, tensors, last), model.state_dict()
    if missing := [name for name in shapes if name not in own or own[name].shape != shapes[name].shape]:
        raise InputError(f"{folder / CLASSIFIER} does not fit {settings['name']} (first: {missing[0]}); restore it")
    model.load_state_dict(own)
    return model.eval(), about


def reading_of(about: Mapping[str, Any]) -> DataConfig:
    """How the pictures of a classifier are read, from its finetune.json."""
    return configs.from_dict({"data": about.get("reading", {})}, where=RESULT).data


def read_seen(folder: Path, width: int) -> tuple[np.ndarray, float]:
    """Unit rows (n, width) float32 of what a classifier was trained on, and the distance from which on a picture is
    unlike them. Raises InputError when the file is missing or damaged."""
    path = folder / SEEN
    try:
        with arrays(path) as file:
            rows, limit = file["embeddings"], float(file["limit"])
        if rows.ndim != 2 or rows.shape[1] != width or rows.dtype != np.float32 or not len(rows):
            raise ValueError(f"embeddings are {rows.dtype} {rows.shape}")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is missing or damaged ({error}); fine-tune again with --overwrite") from None
    return rows, limit


def classifier_name(backbone: str) -> str:
    """What the whole network calls its last layer: torchvision's `fc` or `classifier.6`, timm's `head.fc`, ..."""
    if backbone in BACKBONES:
        return "classifier"
    if not backbone.startswith(backbones.TIMM):
        return backbones.last_linear_name(backbone)
    import timm  # noqa: PLC0415 - an extra

    name = timm.get_pretrained_cfg_value(backbone.removeprefix(backbones.TIMM), "classifier")
    return name if isinstance(name, str) else "classifier"


def own_names(model: Classifier, tensors: Mapping[str, Tensor], last: str) -> dict[str, Tensor]:
    """Tensors of the whole network, whose last layer is called `last`, as `Classifier` calls them."""
    plain = {name: plain_name(name, last) for name in model.state_dict()}
    return {name: tensors[other] for name, other in plain.items() if other in tensors}


def plain_name(name: str, last: str) -> str:
    """A name within `Classifier` as the whole network calls it."""
    part, rest = name.split(".", 1)
    return rest if part == "backbone" else f"{last}.{rest}"


def loading_lines(name: str, stem: str, size: int, classes: int, file: str = CLASSIFIER) -> str:
    """Plain Python that loads the classifier into torchvision's or timm's own network."""
    if name in BACKBONES:
        return "from headstart.use.classifier import load_classifier\nnetwork, about = load_classifier(FOLDER)"
    lines = backbones.loading_lines(name, stem=stem, size=size, file=file)
    lines = lines.replace("weights=None", f"weights=None, num_classes={classes}")
    lines = lines.replace("num_classes=0", f"num_classes={classes}")
    kept = [line for line in lines.splitlines() if "set_submodule" not in line]
    return "\n".join(kept).replace("backbone", "network")


def save_classifier(path: Path, tensors: Mapping[str, Tensor], run: Run, classes: Sequence[str]) -> None:
    """Write a classifier's weights with what is needed to build it again."""
    settings = run.config.backbone
    last = classifier_name(settings.name)
    about = {
        "backbone": settings.name,
        "classes": json.dumps(list(classes)),
        "headstart": __version__,
        "loading": loading_lines(settings.name, settings.stem, run.size, len(classes)),
    }
    weights.save(path, {plain_name(n, last): tensor for n, tensor in tensors.items()}, **about)
