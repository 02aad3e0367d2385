"""A classifier from few or all labels, beside the same network as it was before SimCLR.

Comes in: a finished run and labelled DATA. Goes out: a folder with the classifier and the comparison. All starts are
treated alike: the same pictures in the same order, learning rate and layer decay chosen for each on the validation
pictures, from the same candidates; only the first weights differ.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart import statistics
from headstart.data import Images
from headstart.data import splits as splitting
from headstart.data.splits import Splits
from headstart.engine.checkpoint import Checkpoints
from headstart.engine.device import Compute, choose
from headstart.engine.stopping import give_way, stop_on_signals
from headstart.evaluate.neighbours import nearest, normalized
from headstart.evaluate.scores import by_class, confusion_of, macro_of
from headstart.records import files, plugins, schema
from headstart.records import folder as runs
from headstart.records.claim import owned
from headstart.records.errors import InputError
from headstart.records.located import portable
from headstart.records.outputs import check_results_folder, no_input
from headstart.records.seal import seal_of
from headstart.records.version import __version__
from headstart.report.verdict import kept_given
from headstart.training import footprint
from headstart.use.classifier import CLASSIFIER, RESULT, SEEN, Classifier, save_classifier
from headstart.use.embeddings import weights_of
from headstart.use.fitting import Fit, Fitter
from headstart.use.labelled import FOLDS, fold_of, pool_of, split
from headstart.use.load import Run
from headstart.use.settings import FinetuneSettings

CHECKPOINT = "checkpoint.pt"
LABELS = {"adapted": "after SimCLR", "given": "before SimCLR, weights as given", "scratch": "from scratch"}
"""What a start is called on the screen."""
AS_GIVEN = "the given weights, which the run kept"
"""What the adapted start is called where it is the given one."""
TRIAL = 5
"""A candidate is tried for this part of the epochs."""
VAL = 0.2
"""Of a fold's training pictures, the share that decides its learning rate and when to stop."""
KEPT = 5000
"""Training pictures, at most, whose representations are kept to tell what is unlike them."""


@dataclass(frozen=True)
class FinetunedStart:
    """One start's result: accuracy on pictures that were not trained on, in [0, 1], with a Wilson 95 % interval.

    `majority` is what always answering the commonest class would reach there, `macro` precision, recall (balanced
    accuracy) and F1 as means over classes, `per_class` each class's recall, None where no picture is of it.
    With `--final` those are all labelled pictures, each judged by the fold that left it out; `val_accuracy` and
    `best_epoch` are then medians over the folds.
    """

    start: str
    label: str
    accuracy: float
    ci95: tuple[float, float]
    correct: int
    n_test: int
    val_accuracy: float
    best_epoch: int
    lr: float
    layer_decay: float
    majority: float
    macro: dict[str, float]
    per_class: dict[str, float | None]


@dataclass(frozen=True)
class Finetuned:
    """What `finetune` found: its folder, how many labels it used, and a row for each start, the classifier's first."""

    folder: Path
    n_labels: int
    n_val: int
    folds: int
    rows: list[FinetunedStart]


def finetune(
    run: Run,
    data: str | Path | Sequence[str | Path] | Images,
    out: str | Path,
    settings: FinetuneSettings | None = None,
    *,
    overwrite: bool = False,
    compute: Compute | None = None,
    deadline: float | None = None,
    quiet: bool = False,
) -> Finetuned:
    """Train a classifier on labelled DATA from the run's backbone.

    No picture that the run was pretrained on is tested on: its own pictures keep its split, whatever labels they have
    by now. Where that leaves too few labels in a part, they are split anew, and how many were seen is said. The
    validation split decides rates and when to stop; the test split is looked at once. With `settings.final` there are
    no splits, but five folds over all labelled pictures, and the classifier that is kept was trained on all of them for
    the folds' median number of epochs.

    Args:
        out: a folder; gets `finetune.json` (last), `classifier.safetensors` (under torchvision's or timm's parameter
            names, with the lines that load it in the metadata), `seen.npz` (what `predict` measures distances to) and,
            while unfinished, `checkpoint.pt`.
        overwrite: replace a finished classifier, or one begun with other settings.
        deadline: `time.monotonic()` after which it saves and stops.

    Raises:
        InputError: no labels, fewer than two classes, an occupied folder, too little memory for a batch.
        Interrupted: stopped and resumable.
    """
    settings = settings or FinetuneSettings()
    folder = runs.RunFolder(out)
    check_out(folder.path, overwrite)
    run.check_finished()
    starts = starts_of(run, settings)
    if "given" in starts:
        run.check_given()
    images = data if isinstance(data, Images) else run.open_images(data)
    no_input(folder.path, images.data.sources)
    parts = split(run, images, settings, quiet)
    compute = compute or choose()
    footprint.check_batch(run.config.backbone, run.size, min(settings.batch_size, len(images)), compute)
    with owned(folder.open(), "finetune", give_way):
        check_out(folder.path, overwrite)  # another process may have finished while the pictures were read
        identity = f"{run.result['config_hash']} {weights_of(run)} {images.fingerprint} {dataclasses.asdict(settings)}"
        metrics = runs.Metrics(folder.metrics)
        with stop_on_signals():
            checkpoints = Checkpoints(folder.path / CHECKPOINT, metrics, deadline=deadline)
            if overwrite:
                _clear(folder, checkpoints, identity)
            fitter = Fitter(run, images, settings, compute, checkpoints, identity, quiet)
            judge = _cross_validated if settings.final else _held_out
            rows, kept = judge(fitter, starts, parts)
        n_val = 0 if settings.final else len(parts.val)
        folds = min(FOLDS, len(kept["rows"])) if settings.final else 0
        found = Finetuned(folder.path, len(kept["rows"]), n_val, folds, rows)
        save_classifier(folder.path / CLASSIFIER, kept["tensors"], run, images.classes)
        seen = {"embeddings": kept["seen"].numpy(), "limit": np.float32(kept["limit"])}
        files.write(folder.path / SEEN, lambda file: np.savez(file, **seen), within=folder.path)
        metrics.flush()
        files.write_json(folder.path / RESULT, _record(run, images, settings, found), within=folder.path)
        checkpoints.discard()
    return found


def check_out(out: Path, overwrite: bool) -> None:
    """Raise InputError for a folder that takes no classifier: before a picture is read for it."""
    if (out / RESULT).exists() and not overwrite:
        raise InputError(f"{out} holds a finished classifier; replace it with --overwrite, or give another --out")
    if runs.RunFolder(out).config.exists():
        raise InputError(f"{out} holds a run, not a classifier; give another --out")
    check_results_folder(out, "classifier")


def starts_of(run: Run, settings: FinetuneSettings) -> list[str]:
    """Which first weights are compared: the backbone after SimCLR, as it was before it where that is another network,
    and random ones."""
    before = "scratch" if run.config.backbone.weights == "none" else "given"
    compared = settings.compare and not kept_given(run.result)
    return ["adapted"] + [before] * compared + ["scratch"] * (settings.scratch and before == "given")


def label_of(run: Run, start: str) -> str:
    """What a start of this run is called on the screen."""
    return AS_GIVEN if start == "adapted" and kept_given(run.result) else LABELS[start]


def _clear(folder: runs.RunFolder, checkpoints: Checkpoints, identity: str) -> None:
    """Remove a finished classifier, and one begun with other settings; what these have begun goes on."""
    saved = checkpoints.saved
    if (folder.path / RESULT).exists() or (saved and saved["state"].get("identity") != identity):
        for path in (folder.path / RESULT, folder.path / CLASSIFIER, folder.path / SEEN, folder.metrics):
            path.unlink(missing_ok=True)
        checkpoints.discard()


# ------------------------------------------------------------------------------------------------------------ judging

Kept = dict[str, Any]
"""What is left of a training: tensors and numbers, so that a checkpoint can hold it."""


def _held_out(fitter: Fitter, starts: Sequence[str], parts: Splits) -> tuple[list[FinetunedStart], Kept]:
    """Trained on the training split, stopped by the validation split, judged on the test split."""
    labels = {start: label_of(fitter.run, start) for start in starts}
    found = {start: _tuned(fitter, labels[start], start, parts, whole=start == starts[0]) for start in starts}
    kept = found[starts[0]]
    limit = _limit([kept["away"]])
    return [_row(start, labels[start], [found[start]], fitter.images.classes) for start in starts], kept | {
        "rows": parts.train,
        "limit": limit,
    }


def _cross_validated(fitter: Fitter, starts: Sequence[str], parts: Splits) -> tuple[list[FinetunedStart], Kept]:
    """Every labelled picture is judged by a training that left it out; then one training on all of them."""
    images, seed = fitter.images, fitter.settings.seed
    pool = pool_of(parts, fitter.settings)
    folds = fold_of(images.labels[pool], seed, splitting.originals(images)[pool])
    found: dict[str, list[Kept]] = {}
    for start in starts:
        found[start] = []
        for fold in np.unique(folds):  # of fewer labels than FOLDS each is one
            val, train = splitting.draw(pool[folds != fold], images.labels, VAL, seed, "finetune/val")
            part = Splits(train=train, val=val, test=pool[folds == fold])
            found[start].append(
                _tuned(fitter, f"{label_of(fitter.run, start)}, fold {fold + 1}", start, part, whole=False)
            )
    lr, layer_decay = Counter((f["lr"], f["layer_decay"]) for f in found[starts[0]]).most_common(1)[0][0]
    fit = Fit(
        name="on all labels",
        start=starts[0],
        train=pool,
        val=pool[:0],
        lr=lr,
        layer_decay=layer_decay,
        epochs=fitter.settings.epochs,
        stop_after=round(float(np.median([f["epoch"] for f in found[starts[0]]]))),
    )

    def keep(model: Classifier, best: Kept) -> Kept:
        return {"tensors": best["tensors"], "seen": _seen(fitter, model, pool)}

    kept = fitter.fit(fit, keep)
    limit = _limit([f["away"] for f in found[starts[0]]])
    rows = [_row(start, label_of(fitter.run, start), found[start], images.classes) for start in starts]
    return rows, kept | {"rows": pool, "limit": limit}


def _tuned(fitter: Fitter, name: str, start: str, parts: Splits, whole: bool) -> Kept:
    """One training with the best candidate by validation: `answers` and `labels` (n_test,), score, epoch, rates; of the
    adapted start also how far away each test picture lies from those trained on; `whole`: the weights too."""
    settings = fitter.settings
    epochs, tried, scores = settings.epochs, settings.candidates, []

    def keep(model: Classifier, best: Kept) -> Kept:
        kept = {"score": best["score"], "epoch": best["epoch"]}
        kept["answers"] = fitter.probabilities(model, parts.test).argmax(1)
        kept["labels"] = torch.from_numpy(fitter.images.labels[parts.test])
        if start == "adapted":
            seen = _seen(fitter, model, parts.train)
            kept["away"] = _away(fitter, model, np.union1d(parts.val, parts.test) if whole else parts.test, seen)
            kept |= {"seen": seen, "tensors": best["tensors"]} if whole else {}
        return kept

    for lr, layer_decay in tried if len(tried) > 1 else ():
        trial = Fit(
            name=f"{name}: rate {lr:g}, decay {layer_decay:g}",
            start=start,
            train=parts.train,
            val=parts.val,
            lr=lr,
            layer_decay=layer_decay,
            epochs=max(1, epochs // TRIAL),
        )
        scores.append(fitter.fit(trial, lambda model, best: {"score": best["score"]})["score"])
    lr, layer_decay = tried[max(range(len(scores)), key=scores.__getitem__)] if scores else tried[0]
    fit = Fit(name=name, start=start, train=parts.train, val=parts.val, lr=lr, layer_decay=layer_decay, epochs=epochs)
    return fitter.fit(fit, keep) | {"lr": lr, "layer_decay": layer_decay}


def _row(start: str, label: str, found: Sequence[Kept], classes: Sequence[str]) -> FinetunedStart:
    answers, labels = (torch.cat([f[name] for f in found]) for name in ("answers", "labels"))
    confusion = confusion_of(labels, answers, len(classes))
    correct, n = int(confusion.diagonal().sum()), len(labels)
    return FinetunedStart(
        start=start,
        label=label,
        accuracy=correct / n,
        ci95=statistics.wilson(correct, n),
        correct=correct,
        n_test=n,
        val_accuracy=float(np.median([f["score"][0] for f in found])),
        best_epoch=round(float(np.median([f["epoch"] for f in found]))),
        lr=found[0]["lr"],
        layer_decay=found[0]["layer_decay"],
        macro=macro_of(confusion),
        **by_class(labels, confusion.diagonal(), classes),
    )


# ------------------------------------------------------------------------------------------------ what predict looks at


def _seen(fitter: Fitter, model: Classifier, train: np.ndarray) -> torch.Tensor:
    """Unit rows (n, num_features) of the training pictures' representations; of a class-balanced KEPT where more."""
    rows = train if len(train) <= KEPT else splitting.balanced(train, fitter.images.labels, KEPT, 0)
    return torch.from_numpy(normalized(_representations(fitter, model, rows)))


def _away(fitter: Fitter, model: Classifier, others: np.ndarray, seen: torch.Tensor) -> torch.Tensor:
    """1 - cosine to the nearest training picture, (n,)."""
    return torch.from_numpy(1 - nearest(_representations(fitter, model, others), seen.numpy(), 1)[1][:, 0])


def _representations(fitter: Fitter, model: Classifier, rows: np.ndarray) -> np.ndarray:
    return fitter.run.features_of(fitter.images, rows, fitter.compute, model.backbone)


def _limit(away: Sequence[torch.Tensor]) -> float:
    """The distance that one in a hundred labelled pictures that were not trained on exceeds."""
    return float(np.quantile(torch.cat(list(away)).numpy(), 0.99))


# -------------------------------------------------------------------------------------------------------------- record


def _record(run: Run, images: Images, settings: FinetuneSettings, found: Finetuned) -> dict[str, Any]:
    return {
        "schema": schema.SCHEMA,
        "backbone": dataclasses.asdict(run.config.backbone),
        "size": run.size,
        "mean": None if run.mean is None else run.mean.tolist(),
        "std": None if run.std is None else run.std.tolist(),
        "classes": images.classes,
        "reading": portable(run.reading),
        "run": run.result["config_hash"],
        "data": images.fingerprint,
        "settings": dataclasses.asdict(settings),
        "n_labels": found.n_labels,
        "n_val": found.n_val,
        "folds": found.folds,
        "rows": [dataclasses.asdict(row) for row in found.rows],
        "seals": {"classifier": seal_of(found.folder / CLASSIFIER)},
        "headstart": __version__,
        "plugins": plugins.behind(run.config),
    }
