"""A run as timm and the hubs of models expect one: a folder with the weights, timm's config, and a card.

Comes in: a finished run. Goes out: `model.safetensors`, `config.json` (timm's schema: the architecture, and in
`pretrained_cfg` how pictures are fed) and `README.md` with front matter. `timm.create_model("local-dir:DIR",
pretrained=True)` builds the network from them.
"""

import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from headstart.backbones import TIMM, exportable
from headstart.backbones.networks import options, timm
from headstart.data.prepare import how
from headstart.engine.weights import to_bytes
from headstart.records.errors import InputError
from headstart.records.files import as_yaml
from headstart.records.names import PROBES
from headstart.use.card import model_card
from headstart.use.load import Run

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
FILES = (WEIGHTS, CONFIG, CARD)

CROP_MODES = {"squash": "squash", "crop": "center", "pad": "border"}
"""`data.resize` -> timm's `crop_mode`."""


def check(run: Run, license: str | None) -> None:
    """Raise InputError, in one sentence, for a run that cannot be a timm network, and without a licence."""
    settings = run.config.backbone
    if settings.stem != "imagenet":
        raise InputError(
            f"{settings.name} with the stem {settings.stem} is no network of timm's; "
            "--format torchvision or onnx writes it for other tools"
        )
    if not license:
        raise InputError("--format hub needs --license, the weights' licence, such as apache-2.0 or other")


def built(run: Run) -> nn.Module:
    """timm's network for a run, without its weights and without a classifier."""
    name = run.config.backbone.name
    network: nn.Module = timm().create_model(_architecture(name), num_classes=0, **_arguments(name, run.size))
    return network


def contents(run: Run, tensors: Mapping[str, Tensor], license: str, folder: str) -> dict[str, bytes]:
    """The folder's files.

    Args:
        tensors: the backbone's weights under timm's names.
        license: as it is to stand in the front matter.
        folder: what the folder is called in the card's loading lines.

    Raises InputError where the weights do not fit timm's network without a classifier.
    """
    network = built(run)
    misfits = network.load_state_dict(dict(tensors), strict=False)
    wrong = [*misfits.missing_keys, *misfits.unexpected_keys]
    if wrong:
        raise InputError(
            f"{run.config.backbone.name} cannot be a timm network without a classifier: {wrong[0]} does not fit; "
            "--format timm writes its state dict"
        )
    lines = f"import timm, torch\nbackbone = timm.create_model({f'local-dir:{folder}'!r}, pretrained=True)"
    text = model_card(run, exportable(run.config.backbone.name), WEIGHTS, lines)
    front = as_yaml(_front_matter(run, license))
    return {
        WEIGHTS: to_bytes(tensors, {"format": "pt"}),
        CONFIG: (json.dumps(_config(run, network), indent=2) + "\n").encode(),
        CARD: f"---\n{front}---\n\n{text}".encode(),
    }


def _architecture(name: str) -> str:
    return name.removeprefix(TIMM).split(".")[0]


def _arguments(name: str, size: int) -> dict[str, Any]:
    """What timm has to be told besides the name: a transformer's picture size."""
    own = name if name.startswith(TIMM) else f"{TIMM}{name}"
    return {key: value for key, value in options(own, size).items() if key not in ("num_classes", "pretrained")}


def _config(run: Run, network: nn.Module) -> dict[str, Any]:
    own: Any = network
    resize, interpolation = how(run.config.data)
    known = own.pretrained_cfg
    arguments = _arguments(run.config.backbone.name, run.size)
    return {
        "architecture": _architecture(run.config.backbone.name),
        "num_classes": 0,
        "num_features": int(run.backbone.num_features),  # type: ignore[arg-type]
        **({"model_args": arguments} if arguments else {}),
        "pretrained_cfg": {
            "tag": "headstart",
            "custom_load": False,
            "input_size": [3, run.size, run.size],
            "fixed_input_size": bool(known.get("fixed_input_size", False)),
            "interpolation": interpolation,
            "crop_pct": 1.0,
            "crop_mode": CROP_MODES[resize],
            "mean": [0.0] * 3 if run.mean is None else [round(value, 6) for value in run.mean.tolist()],
            "std": [1.0] * 3 if run.std is None else [round(value, 6) for value in run.std.tolist()],
            "num_classes": 0,
            "pool_size": None,
            "first_conv": known.get("first_conv"),
            "classifier": known.get("classifier"),
        },
    }


def _front_matter(run: Run, license: str) -> dict[str, Any]:
    base = _base_model(run)
    return {
        "library_name": "timm",
        "pipeline_tag": "image-feature-extraction",
        "license": license,
        "tags": ["timm", "simclr", "self-supervised", "image-feature-extraction"],
        **({"base_model": base} if base else {}),
        **({"model-index": [_results(run)]} if run.result["probes"] else {}),
    }


def _base_model(run: Run) -> str | None:
    """The hub's name of the weights that the run started from; None for random ones and those of a file."""
    settings = run.config.backbone
    if settings.weights != "pretrained" or not settings.name.startswith(TIMM):
        return None
    known = timm().models.get_pretrained_cfg(settings.name.removeprefix(TIMM))
    return str(known.hf_hub_id or "") + (f"{_architecture(settings.name)}.{known.tag}" if known else "") or None


def _results(run: Run) -> dict[str, Any]:
    """Every probe's accuracy with its interval, as the hub's model index has it."""
    data = run.result["data"]
    metrics = []
    for name, probe in run.result["probes"].items():
        low, high = probe["ci95"]
        label = PROBES[name].shown if name in PROBES else name
        said = f"accuracy, {label} (95 % interval {low:.4f} to {high:.4f}, {probe['n_test']} test pictures)"
        metrics.append({"type": "accuracy", "name": said, "value": round(probe["accuracy"], 4)})
    dataset = {"name": str(data.get("name") or "a folder of pictures"), "type": data["fingerprint"]}
    return {
        "name": f"{run.config.backbone.name}, SimCLR",
        "results": [{"task": {"type": "image-feature-extraction"}, "dataset": dataset, "metrics": metrics}],
    }
