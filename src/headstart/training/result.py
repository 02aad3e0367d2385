"""How a run ends: probes of the backbone before and after SimCLR (paper 3.6), and result.json, the last file.

Comes in: an open run whose trainings are done. Goes out: what was found, and the report made from it.
"""

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from headstart import backbones, report
from headstart.data import catalog
from headstart.engine import live_taps
from headstart.engine.importers import read_tensors
from headstart.engine.progress import say
from headstart.evaluate import probes, unlabelled
from headstart.evaluate.map import write_map
from headstart.evaluate.views import augmenter
from headstart.records import files, schema
from headstart.records.config import hash_of
from headstart.records.errors import HeadstartError, RunError
from headstart.records.folder import RunFolder
from headstart.records.seal import seal_of
from headstart.training.open_run import OpenRun


@dataclass(frozen=True)
class Judged:
    """What the probes found.

    Attributes:
        probes, untrained: results by probe, of the backbone after and before SimCLR.
        geometry: what needs no label, of the test pictures; under `before` the same of the backbone before SimCLR.
    """

    probes: dict[str, Any] = field(default_factory=dict)
    untrained: Mapping[str, Any] = field(default_factory=dict)
    geometry: dict[str, Any] = field(default_factory=dict)


def judge(run: OpenRun, before: Mapping[str, Any] | None) -> Judged:
    """Judge the backbone after SimCLR and, unless another run has done so (`of_before`), before it."""
    started = time.monotonic()
    trained = run.backbone()
    trained.load_state_dict(read_tensors(run.folder.backbone))
    features = _split_features(run, trained)
    lines: list[str] = []
    found, shape = _probes(run, features, lines), _geometry(run, trained, features)
    if before is None:
        given = run.backbone()
        as_given = _split_features(run, given)
        before = {"probes": _probes(run, as_given, lines), "geometry": _geometry(run, given, as_given)}
    for line in dict.fromkeys(lines):  # what is left out is mostly the same before and after
        say(line)
    untrained = before["probes"]
    judged = Judged(found, untrained, {**shape, "before": before["geometry"]})
    run.checkpoints.check_folder()
    run.metrics.forget("probe")
    for name, probe in found.items():
        before = untrained.get(name, {}).get("accuracy")
        run.metrics.log(stage="probe", name=name, accuracy=probe["accuracy"], untrained=before)
    if all(np.isfinite(part).all() for part in features.values()):
        write_map(run.folder.samples, features, run.images, run.parts)
    else:
        say("no map: the features hold values that are not finite")
    run.done("probe", None, started)
    return judged


def of_before(result: Mapping[str, Any]) -> dict[str, Any]:
    """What a finished run's result.json tells of its backbone before SimCLR, for another run that begins with it."""
    return {"probes": result["untrained"], "geometry": result["geometry"].get("before") or {}}


def _split_features(run: OpenRun, backbone: nn.Module) -> dict[str, np.ndarray]:
    live_taps.apply(backbone, run.size)
    return {split: run.features(backbone, indices, split) for split, indices in run.parts.items()}


def _probes(run: OpenRun, features: dict[str, np.ndarray], lines: list[str]) -> dict[str, Any]:
    labels = {split: run.images.labels[indices] for split, indices in run.parts.items()}
    names = {split: [run.images.names[i] for i in indices] for split, indices in run.parts.items()}
    return probes.run(
        features,
        labels,
        names,
        run.images.classes,
        which=run.config.probe.names,
        seed=run.config.seed,
        split_seed=run.config.data.split_seed,
        device=run.compute.device,
        say=lines.append,
    )


def _geometry(run: OpenRun, backbone: nn.Module, features: dict[str, np.ndarray]) -> dict[str, Any]:
    augment = augmenter(run.config.augment, run.size, *run.statistics("test"))
    return unlabelled.figures(backbone, features["test"], run.images, run.splits.test, augment, run.compute)


def write_result(run: OpenRun, judged: Judged) -> None:
    """Write result.json last, then the report made from it."""
    config = run.config
    result = {
        "schema": schema.SCHEMA,
        "stage": config.stages,
        "config_hash": hash_of(config, run.images.fingerprint),
        "data": _data(run),
        "backbone": {
            **dataclasses.asdict(config.backbone),
            "num_features": backbones.num_features(config.backbone.name),
        },
        "head": dataclasses.asdict(config.head),
        "autoencoder": run.stages.get("autoencoder"),
        "contrastive": run.stages.get("contrastive"),
        "probes": judged.probes,
        "untrained": dict(judged.untrained),
        "geometry": {"head": run.stages.get("head"), **judged.geometry},
        "seals": {path.stem: sealed for path in run.folder.weights if (sealed := seal_of(path))},
        "seconds": {name: round(seconds, 3) for name, seconds in run.stages.get("seconds", {}).items()},
    }
    run.metrics.flush()
    files.write_json(run.folder.result, result, within=run.folder.path)
    try:
        run.checkpoints.check_folder()  # somebody may be removing it file by file
    except RunError:
        run.folder.result.unlink(missing_ok=True)
        raise
    run.checkpoints.forget_previous()
    _report(run.folder)
    run.folder.stages.unlink(missing_ok=True)  # by which a run that is killed before it is told from one that is done
    run.checkpoints.check_folder()


def _report(folder: RunFolder) -> None:
    """The report; a fault in it takes nothing from a run whose result is in place."""
    try:
        report.write_report(folder.path)
    except (HeadstartError, OSError):
        raise
    except Exception as error:
        say(f"the report could not be made ({type(error).__name__}: {error}); the run is complete without it")


def _data(run: OpenRun) -> dict[str, Any]:
    mean, std = run.moments["train"]
    return {
        "name": ", ".join(catalog.shown(source) for source in run.config.data.sources),
        "fingerprint": run.images.fingerprint,
        "size": run.size,
        "classes": run.images.classes,
        "skipped": len(run.images.skipped),
        "labelled": int((run.images.labels >= 0).sum()),
        **{split: len(indices) for split, indices in run.parts.items()},
        "mean": [round(v, 6) for v in mean.tolist()],
        "std": [round(v, 6) for v in std.tolist()],
    }
