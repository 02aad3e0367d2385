"""A classifier from few or all labels, beside the same network that never saw SimCLR; and its predictions.

Comes in: a finished run and labelled DATA. Goes out: a folder with the classifier and the comparison; `predict` turns
pictures into a CSV. Both networks get the same pictures in the same order; every draw follows from the seed, and an
interrupted training goes on to the same weights.
"""

import copy
import csv
import dataclasses
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from headstart import backbones, statistics
from headstart.augment import SimCLRAugment
from headstart.data import Images, open_images
from headstart.data import splits as splitting
from headstart.data.splits import Splits
from headstart.engine import live_taps, progress, weights
from headstart.engine.checkpoint import Checkpoints, State, stop_on_signals
from headstart.engine.device import Compute, choose
from headstart.engine.importers import read_tensors
from headstart.engine.randomness import generator, order
from headstart.records import folder as runs
from headstart.records.config import DataConfig
from headstart.records.errors import InputError, RunError
from headstart.records.version import __version__
from headstart.training.contrastive import normalize, stochastic_layers
from headstart.use.load import Run

RESULT = "finetune.json"
CLASSIFIER = "classifier.safetensors"
CHECKPOINT = "checkpoint.pt"
STARTS = ("pretrained", "untrained")
FEWEST_STEPS = 4
"""Optimiser steps between two looks at the validation split, which with few labels costs more than training."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a classifier is trained. Defaults are for hundreds to tens of thousands of pictures."""

    labels: float = 1.0
    """Share of the training labels that is used, class-balanced, at least one a class."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float | None = None
    """Peak learning rate of the new classifier layer. Unset: 0.001 for adamw, 0.03 for sgd."""
    layer_decay: float = 0.75
    """Each earlier block of the backbone learns at this share of the next one's rate. The untrained network, which has
    nothing to keep, learns at the full rate everywhere."""
    weight_decay: float = 0.01
    epochs: int = 50
    """At most so many. An epoch is a pass over the labels, or four steps where they are fewer."""
    patience: int = 10
    """Stop after so many epochs without a better validation accuracy (or an equal one at a lower loss)."""
    batch_size: int = 64
    crop_scale: tuple[float, float] = (0.4, 1.0)
    """Share of the picture's area that a training crop shows."""
    seed: int = 0

    def __post_init__(self) -> None:
        def check(good: bool, name: str, value: object, right: str) -> None:
            if not good:
                raise InputError(f"--{name} is {value}; it must be {right}")

        check(0 < self.labels <= 1, "labels", self.labels, "a share above 0, up to 1 (0.01 for 1 %)")
        check(self.optimizer in ("adamw", "sgd"), "optimizer", self.optimizer, "adamw or sgd")
        check(self.lr is None or self.lr > 0, "lr", self.lr, "greater than 0")
        check(0 < self.layer_decay <= 1, "layer-decay", self.layer_decay, "a share above 0, up to 1")
        check(self.weight_decay >= 0, "weight-decay", self.weight_decay, "0 or more")
        check(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        check(self.patience >= 1, "patience", self.patience, "at least 1")
        check(self.batch_size >= 2, "batch-size", self.batch_size, "at least 2 pictures")
        check(0 < self.crop_scale[0] <= self.crop_scale[1] <= 1, "crop-scale", self.crop_scale, "shares, smaller first")
        check(self.seed >= 0, "seed", self.seed, "0 or more")

    @property
    def peak(self) -> float:
        """The learning rate that `lr` stands for."""
        return self.lr if self.lr is not None else {"adamw": 1e-3, "sgd": 0.03}[self.optimizer]


@dataclass(frozen=True)
class Row:
    """One network's result: accuracy on the test split in [0, 1], with a Wilson 95 % interval."""

    start: str
    accuracy: float
    ci95: tuple[float, float]
    correct: int
    n_test: int
    val_accuracy: float
    best_epoch: int


@dataclass(frozen=True)
class Finetuned:
    """What `finetune` found: its folder, how many labels it used, and a row for each start."""

    folder: Path
    n_labels: int
    n_val: int
    rows: list[Row]


def finetune(
    run: Run,
    data: str | Path | Sequence[str | Path] | Images,
    out: str | Path,
    *,
    labels: float = 1.0,
    optimizer: Literal["adamw", "sgd"] = "adamw",
    lr: float | None = None,
    layer_decay: float = 0.75,
    weight_decay: float = 0.01,
    epochs: int = 50,
    patience: int = 10,
    batch_size: int = 64,
    crop_scale: tuple[float, float] = (0.4, 1.0),
    seed: int = 0,
    compare: bool = True,
    overwrite: bool = False,
    compute: Compute | None = None,
    deadline: float | None = None,
    quiet: bool = False,
) -> Finetuned:
    """Train a classifier on labelled DATA from the run's backbone.

    DATA is split by the run's split seed: if it is what the run was pretrained on, the test split was never seen. Of
    other pictures some may have been; that is said. The validation split decides when to stop; the test split is
    looked at once.

    Args:
        out: a folder; gets `finetune.json` (last), `classifier.safetensors` (under torchvision's or timm's parameter
            names, with the lines that load it in the metadata) and, while unfinished, `checkpoint.pt`.
        labels, ..., seed: as in `Settings`.
        compare: train the network as it was before SimCLR beside it, with the same labels and draws.
        overwrite: replace a finished classifier, or one begun with other settings.
        deadline: `time.monotonic()` after which it saves and stops.

    Raises:
        InputError: no labels, fewer than two classes, an occupied folder. Interrupted: stopped and resumable.
    """
    settings = Settings(
        labels=labels,
        optimizer=optimizer,
        lr=lr,
        layer_decay=layer_decay,
        weight_decay=weight_decay,
        epochs=epochs,
        patience=patience,
        batch_size=batch_size,
        crop_scale=crop_scale,
        seed=seed,
    )
    folder = runs.RunFolder(out)
    if (folder.path / RESULT).exists() and not overwrite:
        raise InputError(
            f"{folder.path} holds a finished classifier; replace it with --overwrite, or give another --out"
        )
    images = data if isinstance(data, Images) else run.open_images(data)
    splits = labelled(splitting.make(images, replace(run.config.data, limit=None)), images)
    splits = replace(splits, train=draw_labels(splits.train, images.labels, settings.labels, settings.seed))
    folder.open()
    if images.fingerprint != run.result["data"].get("fingerprint") and not quiet:
        progress.say(
            "these are not the pictures of pretraining; where test pictures were among those, pretrained looks too good"
        )
    identity = f"{run.result['config_hash']} {images.fingerprint} {dataclasses.asdict(settings)} {compare}"
    metrics = runs.Metrics(folder.metrics)
    with stop_on_signals():
        checkpoints = Checkpoints(folder.path / CHECKPOINT, metrics, deadline=deadline)
        if overwrite:
            _clear(folder, checkpoints, identity)
        trainer = Trainer(run, images, splits, settings, compute or choose(), checkpoints, quiet)
        trained = trainer.all(STARTS if compare else STARTS[:1], identity)
    found = Finetuned(folder.path, len(splits.train), len(splits.val), [row for row, _ in trained])
    _save(folder.path / CLASSIFIER, trained[0][1], run, images.classes)
    metrics.flush()
    runs.write_json(folder.path / RESULT, _record(run, images, settings, found))
    checkpoints.discard()
    return found


def _clear(folder: runs.RunFolder, checkpoints: Checkpoints, identity: str) -> None:
    """Remove a finished classifier, and one begun with other settings; what these have begun goes on."""
    saved = checkpoints.saved
    if (folder.path / RESULT).exists() or (saved and saved["state"].get("identity") != identity):
        for path in (folder.path / RESULT, folder.path / CLASSIFIER, folder.metrics):
            path.unlink(missing_ok=True)
        checkpoints.discard()


def labelled(splits: Splits, images: Images) -> Splits:
    """The labelled pictures of each split.

    Raises InputError when a split has none, or the training split fewer than two classes.
    """
    parts = {name: part[images.labels[part] >= 0] for name, part in dataclasses.asdict(splits).items()}
    for name, part in parts.items():
        if not len(part):
            raise InputError(
                f"no picture of the {name} split has a label; put pictures into one folder a class, or give "
                "--data.labels FILE with columns name,label"
            )
    if len(np.unique(images.labels[parts["train"]])) < 2:
        raise InputError("the training pictures are all of one class; a classifier needs at least two")
    return Splits(**parts)


def draw_labels(train: np.ndarray, labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """A class-balanced `share` of the training pictures, at least one of every class; sorted."""
    if share == 1:
        return train
    n = max(round(share * len(train)), len(np.unique(labels[train])))
    return splitting.balanced(train, labels, n, seed)


class Classifier(nn.Module):
    """A backbone and a linear layer that starts at zero: (N, 3, S, S) -> (N, classes)."""

    def __init__(self, backbone: nn.Module, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Linear(int(backbone.num_features), classes)  # type: ignore[arg-type]
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.classifier(self.backbone(pictures))


def groups(model: Classifier, settings: Settings, layer_decay: float) -> list[dict[str, Any]]:
    """Optimiser groups: each block's `rate` is `layer_decay` times that of the block after it; the classifier's is 1.

    Blocks count in the order in which the network registers them, which is that of its forward pass. Norms and biases
    are not decayed.
    """
    named = list(model.named_parameters())
    blocks = list(dict.fromkeys(block_of(name) for name, _ in named))
    return [
        {
            "params": [p],
            "rate": layer_decay ** (len(blocks) - 1 - blocks.index(block_of(name))),
            "weight_decay": settings.weight_decay if p.ndim > 1 else 0.0,
        }
        for name, p in named
    ]


def block_of(name: str) -> str:
    """The block that a parameter belongs to: its name up to the first part with a number (`backbone.layer3`,
    `backbone.features.7`, `backbone.encoder.layers.encoder_layer_2`), or its layer's where no part has one."""
    parts = name.split(".")
    numbered = next((i for i, part in enumerate(parts[:-1]) if any(c.isdigit() for c in part)), len(parts) - 2)
    return ".".join(parts[: numbered + 1])


@dataclass
class Trainer:
    """What the trainings of both starts share."""

    run: Run
    images: Images
    splits: Splits
    settings: Settings
    compute: Compute
    checkpoints: Checkpoints
    quiet: bool

    def __post_init__(self) -> None:
        self.batch_size = min(self.settings.batch_size, len(self.splits.train))
        # The last, smaller batch is left to the next pass's order: of one picture there are no batch statistics.
        self.steps_per_pass = len(self.splits.train) // self.batch_size
        self.steps_per_epoch = max(FEWEST_STEPS, self.steps_per_pass)
        self.augment = SimCLRAugment(
            size=self.run.size,
            crop_scale=self.settings.crop_scale,
            flip=self.run.config.augment.flip,
            jitter_p=0,
            grey_p=0,
            blur_p=0,
            mean=self.run.mean,
            std=self.run.std,
        ).to(self.compute.device)

    def all(self, starts: Sequence[str], identity: str) -> list[tuple[Row, dict[str, Tensor]]]:
        """Train from each start, or take over what a checkpoint holds; `identity` names what is being trained."""
        done: dict[str, Any] = {}
        state: State | None = None
        saved = self.checkpoints.load("finetune")
        if saved is not None:
            if saved["identity"] != identity:
                raise InputError(
                    f"{self.checkpoints.path.parent} was begun with other settings or pictures; repeat those, or "
                    "replace it with --overwrite"
                )
            done, state = saved["done"], saved["state"]
        for start in starts:
            if start not in done:
                best = self._train(start, state, lambda s: {"identity": identity, "done": done, "state": s})
                done[start], state = best, None
        return [(self._row(start, done[start]), done[start]["tensors"]) for start in starts]

    def _train(self, start: str, state: State | None, wrap: Callable[[State], State]) -> dict[str, Any]:
        backbone = self.run.untrained_backbone() if start == "untrained" else copy.deepcopy(self.run.backbone)
        model = Classifier(backbone, len(self.images.classes))
        model.to(memory_format=torch.channels_last).to(self.compute.device)
        optimizer = self._optimizer(model, self.settings.layer_decay if start == "pretrained" else 1.0)
        best: dict[str, Any] = {"score": [-1.0, 0.0], "epoch": 0, "tensors": {}}
        first, stale = 0, 0
        if state is not None:
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            best, first, stale = state["best"], state["step"], state["stale"]
        total = self.settings.epochs * self.steps_per_epoch

        def current() -> State:
            return wrap(
                {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "best": best,
                    "step": step + 1,
                    "stale": stale,
                }
            )

        step = first - 1
        with progress.stage(start, total, first, quiet=self.quiet) as bar:
            while step + 1 < total and stale < self.settings.patience:
                step += 1
                loss = self._step(model, optimizer, step, total)
                epoch, left = divmod(step + 1, self.steps_per_epoch)
                if left == 0:
                    score = self._validate(model)
                    better = score > best["score"]
                    stale = 0 if better else stale + 1
                    if better:
                        best = {"score": score, "epoch": epoch, "tensors": _copied(model)}
                    self.checkpoints.metrics.log(
                        stage="finetune", start=start, epoch=epoch, loss=loss, val_accuracy=score[0], val_loss=-score[1]
                    )
                    bar.advance(0, accuracy=score[0])
                bar.advance(1, loss=loss)
                self.checkpoints.after_step("finetune", current)
        return best

    def _optimizer(self, model: Classifier, layer_decay: float) -> torch.optim.Optimizer:
        grouped = groups(model, self.settings, layer_decay)
        if self.settings.optimizer == "sgd":
            return torch.optim.SGD(grouped, lr=0.0, momentum=0.9)
        return torch.optim.AdamW(grouped, lr=0.0)

    def _step(self, model: Classifier, optimizer: torch.optim.Optimizer, step: int, total: int) -> float:
        """One optimiser step; what it sees follows from the seed and `step` alone."""
        number, position = divmod(step, self.steps_per_pass)
        seed, train = self.settings.seed, self.splits.train
        shuffled = train[order(seed, "finetune/order", number, len(train)).numpy()]
        chosen = shuffled[position * self.batch_size : (position + 1) * self.batch_size]
        frames, valid = self.images.batch(chosen)
        height, width = valid.unbind(1)
        draws = self.augment.draw(len(chosen), height, width, generator=generator(seed, "finetune/draws", step))
        pictures = self.augment.apply(frames.to(self.compute.device), draws)
        targets = torch.from_numpy(self.images.labels[chosen]).to(self.compute.device)
        rate = self.settings.peak * _schedule(step, total)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["rate"]
        model.train()
        with stochastic_layers(self.compute.device, seed, step), self.compute.autocast():
            loss = cross_entropy(model(pictures.contiguous(memory_format=torch.channels_last)).float(), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise RunError(f"the loss of step {step + 1} is {value}; try a smaller --lr than {self.settings.peak:g}")
        return value

    def _validate(self, model: Classifier) -> list[float]:
        """Accuracy and negative loss on the validation split: the larger pair is the better one."""
        labels = torch.from_numpy(self.images.labels[self.splits.val])
        p = torch.cat(
            list(probabilities(model, self.images, self.splits.val, self.run.size, self._zscore, self.compute))
        )
        loss = -p[torch.arange(len(labels)), labels].clamp(min=1e-12).log().mean()
        return [float((p.argmax(1) == labels).float().mean()), -float(loss)]

    def _row(self, start: str, best: dict[str, Any]) -> Row:
        model = Classifier(copy.deepcopy(self.run.backbone), len(self.images.classes))
        model.load_state_dict(best["tensors"])
        test = self.splits.test
        p = torch.cat(list(probabilities(model, self.images, test, self.run.size, self._zscore, self.compute)))
        correct = int((p.argmax(1).numpy() == self.images.labels[test]).sum())
        return Row(
            start,
            correct / len(test),
            statistics.wilson(correct, len(test)),
            correct,
            len(test),
            best["score"][0],
            best["epoch"],
        )

    @property
    def _zscore(self) -> tuple[Tensor | None, Tensor | None]:
        return self.run.mean, self.run.std


def _schedule(step: int, total: int) -> float:
    """Warm-up over a twentieth of the steps, then a half cosine to 0."""
    warm = max(1, total // 20)
    return (step + 1) / warm if step < warm else (1 + math.cos(math.pi * (step - warm) / max(1, total - warm))) / 2


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}


@torch.no_grad()
def probabilities(
    model: Classifier,
    images: Images,
    indices: np.ndarray,
    size: int,
    zscore: tuple[Tensor | None, Tensor | None],
    compute: Compute,
    batch_size: int = 256,
) -> Iterator[Tensor]:
    """Class probabilities (n, classes) float32 on the CPU of un-augmented pictures, a batch at a time."""
    model.to(memory_format=torch.channels_last).to(compute.device).eval()
    for start in range(0, len(indices), batch_size):
        pictures = images.squashed(indices[start : start + batch_size], size).to(compute.device)
        x = normalize(pictures, *zscore).contiguous(memory_format=torch.channels_last)
        with compute.autocast():
            scores = model(x)
        yield scores.float().softmax(1).cpu()


# ------------------------------------------------------------------------------------------------------------ predict


def predict(
    folder: str | Path,
    pictures: str | Path | Sequence[str | Path] | Images,
    out: str | Path,
    *,
    batch_size: int = 256,
    compute: Compute | None = None,
    quiet: bool = False,
) -> int:
    """Classify pictures: a CSV `name,label,probability` with the most probable class of each.

    Args:
        folder: what `finetune` made.
        pictures: DATA; labels it may have are not looked at.

    Returns:
        The number of pictures.

    Raises:
        InputError: no classifier there, a wrong ending, bad DATA.
    """
    out, folder = Path(out), Path(folder)
    if out.suffix != ".csv":
        raise InputError(f"--out {out} must end in .csv")
    model, about = load_classifier(folder)
    sources = (pictures,) if isinstance(pictures, (str, Path)) else pictures
    images = (
        sources
        if isinstance(sources, Images)
        else open_images(DataConfig(sources=tuple(map(str, sources)), size=about["size"], labels="none"))
    )
    zscore = tuple(None if about[name] is None else torch.tensor(about[name]) for name in ("mean", "std"))
    compute = compute or choose()
    batches = probabilities(model, images, np.arange(len(images)), about["size"], zscore, compute, batch_size)  # type: ignore[arg-type]

    def write(file: BinaryIO) -> None:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("name", "label", "probability"))
        done = 0
        with progress.stage("predicting", len(images), quiet=quiet) as bar:
            for p in batches:
                values, labels = p.max(1)
                for name, label, value in zip(images.names[done:], labels.tolist(), values.tolist(), strict=False):
                    writer.writerow((runs.data_cell(name), runs.data_cell(about["classes"][label]), f"{value:.6f}"))
                done += len(p)
                bar.advance(len(p))
        text.detach()  # the file stays open: runs.write still has to bring it to the disk

    runs.write(out, write)
    return len(images)


_RECORD = {
    "backbone": {"name": str, "stem": str},
    "size": int,
    "classes": [str],
    "mean": (None, [float] * 3),
    "std": (None, [float] * 3),
}
"""What finetune.json must tell to open a classifier."""


def load_classifier(folder: str | Path) -> tuple[Classifier, dict[str, Any]]:
    """The network that `finetune` left in `folder`, in evaluation mode, and its finetune.json.

    Raises InputError when there is none, or it is damaged.
    """
    folder = Path(folder)
    if not (folder / RESULT).exists():
        raise InputError(f"{folder} holds no finished classifier: it has no {RESULT}; `headstart finetune` makes one")
    about = runs.read_json(folder / RESULT, _RECORD, "a classifier's record")
    settings = about["backbone"]
    backbone = backbones.build(
        settings["name"], stem=settings["stem"], size=about["size"], generator=generator(0, "predict")
    )
    model = Classifier(live_taps.apply(backbone, about["size"]), len(about["classes"]))
    tensors, last = read_tensors(folder / CLASSIFIER), classifier_name(settings["name"])
    own = {name: tensors.get(_plain_name(name, last)) for name in model.state_dict()}
    if missing := [
        name for name, tensor in own.items() if tensor is None or tensor.shape != model.state_dict()[name].shape
    ]:
        raise InputError(f"{folder / CLASSIFIER} does not fit {settings['name']} (first: {missing[0]}); restore it")
    model.load_state_dict(own)
    return model.eval(), about


# -------------------------------------------------------------------------------------------------------------- files


def classifier_name(backbone: str) -> str:
    """What the whole network calls its last layer: torchvision's `fc` or `classifier.6`, timm's `head.fc`, ..."""
    if not backbone.startswith(backbones.TIMM):
        return backbones.last_linear_name(backbone)
    import timm

    name = timm.get_pretrained_cfg_value(backbone.removeprefix(backbones.TIMM), "classifier")
    return name if isinstance(name, str) else "classifier"


def _plain_name(name: str, last: str) -> str:
    """A name within `Classifier` as the whole network calls it."""
    part, rest = name.split(".", 1)
    return rest if part == "backbone" else f"{last}.{rest}"


def loading_lines(run: Run, classes: int) -> str:
    """Plain Python that loads the classifier into torchvision's or timm's own network."""
    settings = run.config.backbone
    lines = backbones.loading_lines(settings.name, stem=settings.stem, size=run.size, file=CLASSIFIER)
    lines = lines.replace("weights=None", f"weights=None, num_classes={classes}")
    lines = lines.replace("num_classes=0", f"num_classes={classes}")
    kept = [line for line in lines.splitlines() if "set_submodule" not in line]
    return "\n".join(kept).replace("backbone", "network")


def _save(path: Path, tensors: Mapping[str, Tensor], run: Run, classes: Sequence[str]) -> None:
    last = classifier_name(run.config.backbone.name)
    about = {
        "backbone": run.config.backbone.name,
        "classes": json.dumps(list(classes)),
        "headstart": __version__,
        "loading": loading_lines(run, len(classes)),
    }
    weights.save(path, {_plain_name(n, last): tensor for n, tensor in tensors.items()}, **about)


def _record(run: Run, images: Images, settings: Settings, found: Finetuned) -> dict[str, Any]:
    return {
        "schema": runs.SCHEMA,
        "backbone": dataclasses.asdict(run.config.backbone),
        "size": run.size,
        "mean": None if run.mean is None else run.mean.tolist(),
        "std": None if run.std is None else run.std.tolist(),
        "classes": images.classes,
        "run": run.result["config_hash"],
        "data": images.fingerprint,
        "settings": dataclasses.asdict(settings),
        "n_labels": found.n_labels,
        "n_val": found.n_val,
        "rows": [dataclasses.asdict(row) for row in found.rows],
        "headstart": __version__,
    }
