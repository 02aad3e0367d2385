"""One run, stage by stage: pictures, split, autoencoder, projection head, SimCLR, probes, result (design section 2).

Only this module knows the order of the stages. Each stage takes what is already open and leaves its files in the run
folder; `result.json` comes last. A run that was stopped anywhere goes on from its last checkpoint.
"""

import dataclasses
import functools
import math
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headstart import autoencoders, backbones, data, report
from headstart.autoencoders import Autoencoder, EmbeddingOnly
from headstart.backbones import FORMATS, exportable
from headstart.data import Images, catalog
from headstart.data import splits as splitting
from headstart.data.images import Squashed
from headstart.data.sheets import sheet
from headstart.data.splits import Splits
from headstart.engine import distributed, live_taps, loggers, weights
from headstart.engine.checkpoint import Checkpoints, interrupted_by_signals, stop_on_signals
from headstart.engine.device import Compute, choose, enough_memory
from headstart.engine.importers import read_tensors
from headstart.engine.observer import Observer
from headstart.engine.progress import say
from headstart.engine.randomness import generator
from headstart.evaluate import features as representations
from headstart.evaluate import geometry, probes
from headstart.evaluate.health import Health
from headstart.evaluate.map import write_map
from headstart.evaluate.online import OnlineProbe
from headstart.heads import ProjectionHead, check_pretrained, head_statistics
from headstart.records import folder as runs
from headstart.records.config import STAGES, Config, differences, flatten, from_dict, hash_of, to_dict, to_yaml
from headstart.records.errors import InputError
from headstart.records.files import read_yaml
from headstart.records.folder import Metrics, RunFolder
from headstart.records.presets import PAPER_FOLDER_BATCH
from headstart.records.version import __version__
from headstart.training import autoencoder as autoencoding
from headstart.training import contrastive, optimizers, views
from headstart.training.step import running_statistics_kept, stochastic_layers

SAMPLES = 8
"""Pictures in samples/pairs.png and samples/reconstructions.png."""

NEEDS_LESS = "a smaller --data.size or --data.memory-gib needs less"

HEAD_PAIRS = 128
"""Training pictures whose views show the gradient that reaches h at step 0."""

HEAD_FEATURES = 4096
"""Training pictures whose features the `pca` init, `match_scale` and the head's statistics look at."""


def run(
    config: Config,
    out: str | Path,
    *,
    images: Images | None = None,
    splits: Splits | None = None,
    autoencoder: Autoencoder | EmbeddingOnly | None = None,
    untrained: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    extend: bool = False,
    deadline: float | None = None,
    quiet: bool = False,
) -> Path:
    """Do one run, or go on with it, up to `config.stages`.

    Args:
        config: what to do; `auto` and unset values are decided here and written to config.yaml.
        out: the run folder.
        images, splits, autoencoder: what is already open, so that a study reads and trains it once.
        untrained: probes of the backbone before SimCLR, where another run of the same seed has them already.
        overwrite: replace a finished run, or one begun with other settings; one interrupted with these goes on.
        extend: go on with a finished run for more SimCLR epochs.
        deadline: `time.monotonic()` after which the run saves and stops.

    Returns:
        The run folder's path, with result.json in it.

    Raises:
        InputError: bad input, or an occupied folder; nothing already computed is touched.
        RunError: the training failed.
        Interrupted: stopped and resumable.
    """
    folder = RunFolder(out)
    _refuse_finished(folder, config, overwrite, extend)
    compute = choose(distributed.local_device(config.device), config.precision, config.threads)
    with distributed.process_group(compute):
        with stop_on_signals():
            folder.open()
            quiet = quiet or distributed.rank() > 0
            run = _open(
                folder,
                config,
                compute,
                images,
                splits,
                overwrite=overwrite,
                extend=extend,
                deadline=deadline,
                quiet=quiet,
            )
            run.untrained = untrained
            names = config.loggers if run.writes else ()
            with (
                enough_memory(compute.device, NEEDS_LESS),
                loggers.attached(run.metrics, names, folder.path, dict(flatten(to_dict(run.config)))),
            ):
                run.train_autoencoder(autoencoder)
                if config.stages != "autoencoder":
                    run.train_contrastive()
        if run.writes:
            with interrupted_by_signals("stopped; the same command goes on after the last finished stage"):
                if config.stages == "probe":
                    run.probe()
                run.finish()
        distributed.wait_for_all()  # until result.json is there: every process goes on to read it
    return folder.path


def _refuse_finished(folder: RunFolder, config: Config, overwrite: bool, extend: bool) -> None:
    """A finished run is never touched by accident."""
    if not folder.is_complete() or overwrite or extend:
        return
    stage = folder.read_result()["stage"]
    if STAGES.index(stage) >= STAGES.index(config.stages):
        raise InputError(
            f"{folder.path} holds a finished run (stage {stage}); replace it with --overwrite, train it for more "
            "epochs with --extend, or give another --out"
        )


def _replace(folder: RunFolder, config: Config, images: Images) -> None:
    """Clear a finished run, and one begun with other settings; what these settings have begun goes on."""
    stale = folder.is_complete()
    if not stale and folder.config.exists():
        try:
            _compare(folder, config, images, extend=False)
        except InputError:
            stale = True
    distributed.wait_for_all()  # every process has read what rank 0 now removes
    if stale and distributed.rank() == 0:
        _clear(folder)
    distributed.wait_for_all()


def _clear(folder: RunFolder) -> None:
    """Remove the files of an earlier run, the one that says it is finished first."""
    named = [folder.result, folder.stages, folder.checkpoint, folder.checkpoint.with_suffix(".previous.pt")]
    named += [folder.config, folder.splits, folder.skipped, folder.metrics, folder.report, folder.failed, folder.card]
    named += [folder.autoencoder, folder.head, folder.backbone]
    named += [*folder.samples.glob("*.png"), *folder.evaluations.glob("*.json")]
    for path in named:
        path.unlink(missing_ok=True)


def _open(
    folder: RunFolder,
    config: Config,
    compute: Compute,
    images: Images | None,
    splits: Splits | None,
    *,
    overwrite: bool,
    extend: bool,
    deadline: float | None,
    quiet: bool,
) -> "Run":
    """Read the pictures, split them, decide what was left open, and compare with what the folder holds."""
    images = images or data.open_images(config.data, config.augment.crop_scale[0], config.augment.crop_ratio[0])
    splits = splits or splitting.make(images, config.data)
    config = resolve(config, images, splits, compute)
    if overwrite:
        _replace(folder, config, images)
    elif folder.config.exists():
        _compare(folder, config, images, extend)
    about = {"headstart": __version__, "fingerprint": images.fingerprint, "folder": os.getcwd(), **environment(compute)}
    metrics = Metrics(folder.metrics)
    checkpoints = Checkpoints(
        folder.checkpoint,
        metrics,
        config.checkpoint.minutes,
        config.checkpoint.epochs,
        deadline,
        writes=distributed.rank() == 0,
    )
    stages = _finished_stages(folder)
    if extend and stages.get("contrastive", {}).get("epochs", config.contrastive.epochs) < config.contrastive.epochs:
        say(
            f"extending from {stages['contrastive']['epochs']} to {config.contrastive.epochs} epochs: the learning "
            f"rate follows the cosine of {config.contrastive.epochs} epochs from here, so it rises before it falls"
        )
        if checkpoints.saved is None or checkpoints.saved["stage"] != contrastive.STAGE:
            raise InputError(
                f"{folder.path} cannot be extended: {folder.checkpoint.name}, from which its training would go on, is "
                "gone; replace the run with --overwrite, or give another --out"
            )
        del stages["contrastive"]
    distributed.wait_for_all()  # everyone has read what rank 0 now changes
    opened = Run(folder, config, compute, images, splits, metrics, checkpoints, stages, quiet)
    if config.stages != "autoencoder" and not quiet:
        _say_exports(config.backbone.name)
    if opened.writes:
        for left_behind in folder.path.glob(".*.tmp"):  # by a process that was killed
            left_behind.unlink(missing_ok=True)
        if folder.is_complete() and "contrastive" not in stages and extend:
            runs.write_json(folder.stages, stages)
            folder.result.unlink()
        runs.write(folder.config, to_yaml(config, about))
        splits.save(folder.splits)
        _write_skipped(folder.skipped, images)
        if not stages:
            metrics.lines[:] = metrics.lines if checkpoints.saved else []
        if not metrics.lines:
            parts = {name: len(part) for name, part in opened.parts.items()}
            metrics.log(stage="data", pictures=len(images), skipped=len(images.skipped), **parts)
    return opened


def _say_exports(backbone: str) -> None:
    """Say before training what the network cannot become after it."""
    formats = exportable(backbone)
    missing = [name for name in FORMATS if name not in formats]
    if missing:
        say(f"{backbone} can be exported as {' and '.join(formats)}, not as {' or '.join(missing)}")


def _finished_stages(folder: RunFolder) -> dict[str, Any]:
    """What the stages that are done found: of a run under way, or of one that was finished up to its `stage`."""
    if folder.stages.exists():
        return runs.read_json(folder.stages)
    if not folder.is_complete():
        return {}
    result = folder.read_result()
    stages = {name: result[name] for name in ("contrastive", "seconds") if result.get(name)}
    if folder.autoencoder.exists():  # one that was given has no figures, and is done all the same
        stages["autoencoder"] = result["autoencoder"]
    return {**stages, "head": result["geometry"].get("head")}


def resolve(config: Config, images: Images, splits: Splits, compute: Compute) -> Config:
    """Fill in what was left open: size, batch size, learning rate, precision.

    Raises InputError for what a later stage would refuse: a batch larger than the training split or that the processes
    cannot share, a head or an augmentation that cannot be built.
    """
    n_train, n_val = len(splits.train), len(splits.val)
    settings = config.contrastive
    batch_size = settings.batch_size
    if batch_size is None and settings.drop_last_validation:
        batch_size = min(PAPER_FOLDER_BATCH, n_val)  # paper 3.5: at least one full validation batch
    elif batch_size is None:
        batch_size = min(256, 2 ** (n_train.bit_length() - 1))
    if config.stages != "autoencoder" and settings.drop_last_validation and batch_size > n_val:
        raise InputError(
            f"contrastive.batch-size is {batch_size}, but the validation split holds {n_val} pictures, and the paper "
            f"chooses the epoch by whole validation batches; give at most {n_val}"
        )
    if batch_size > n_train:
        raise InputError(
            f"contrastive.batch-size is {batch_size}, but the training split holds {n_train} pictures; "
            f"give at most {n_train}, or leave it unset"
        )
    size = images.training_size(config.data.size)
    network = config.backbone
    if read := backbones.check(network.name, stem=network.stem, weights=network.weights, size=size):
        say(f"backbone.weights {network.weights}: {read}")
    if config.stages != "autoencoder":
        head = config.head
        ProjectionHead(1, head.hidden_dim, head.output_dim, head.activation, head.depth, head.batch_norm)
        check_pretrained(head.pretrained, head.init, head.depth)
        views.check_batch(batch_size)
        views.augmenter(config.augment, size, None, None)
    lr = optimizers.peak_learning_rate(settings, batch_size)
    return replace(
        config,
        data=replace(config.data, size=size),
        contrastive=replace(settings, batch_size=batch_size, lr=lr),
        precision=compute.precision,  # type: ignore[arg-type]
    )


def _compare(folder: RunFolder, config: Config, images: Images, extend: bool) -> None:
    """Refuse to go on with a run under other settings or pictures, showing the difference."""
    values = read_yaml(folder.config)
    about = values.pop("about", {}) if isinstance(values, dict) else {}
    before = from_dict(values, where=str(folder.config))
    changed = differences(before, config)
    if extend and config.contrastive.epochs >= before.contrastive.epochs:
        changed = [line for line in changed if not line.startswith("contrastive.epochs:")]
    if about.get("fingerprint") != images.fingerprint:
        changed.append("the pictures themselves")
    if changed:
        more = "; --extend allows more epochs" if any("contrastive.epochs" in line for line in changed) else ""
        raise InputError(
            f"{folder.path} was begun with other settings ({'; '.join(changed)}); repeat those, replace the run with "
            f"--overwrite, or give another --out{more}"
        )


def environment(compute: Compute) -> dict[str, str]:
    """What a result may depend on besides its settings."""
    name = torch.cuda.get_device_name(compute.device) if compute.device.type == "cuda" else platform.processor()
    return {
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "device": f"{compute.device.type} {name}".strip(),
    }


@dataclass
class Run:
    """An open run: what its stages share.

    Attributes:
        stages: what finished stages found: `autoencoder`, `contrastive`, `head`, `seconds`; becomes result.json.
        untrained: probes of the backbone before SimCLR, if known.
    """

    folder: RunFolder
    config: Config
    compute: Compute
    images: Images
    splits: Splits
    metrics: Metrics
    checkpoints: Checkpoints
    stages: dict[str, Any]
    quiet: bool
    untrained: Mapping[str, Any] | None = None
    probes: dict[str, Any] = dataclasses.field(default_factory=dict)
    geometry: dict[str, Any] = dataclasses.field(default_factory=dict)
    embedding: Autoencoder | EmbeddingOnly | None = None

    @property
    def writes(self) -> bool:
        """Whether this process writes files."""
        return distributed.rank() == 0

    @property
    def parts(self) -> dict[str, np.ndarray]:
        """Indices of train, val and test, by name."""
        return vars(self.splits)

    @property
    def size(self) -> int:
        """Side of the training pictures in pixels."""
        assert isinstance(self.config.data.size, int)
        return self.config.data.size

    def statistics(self, split: str) -> tuple[Tensor | None, Tensor | None]:
        """Mean and std (3,) of the Z-score for a split's pictures, or None twice."""
        return self.moments[split] if self.config.data.normalize else (None, None)

    @functools.cached_property
    def moments(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Mean and std (3,) of each split's Z-score, whether it is applied or not."""
        found = splitting.statistics(self.images, self.splits, self.config.data)
        return {split: (_float32(mean), _float32(std)) for split, (mean, std) in found.items()}

    def backbone(self) -> nn.Module:
        """f as it is before SimCLR: the same for every head of a seed."""
        settings = self.config.backbone
        return backbones.build(
            settings.name,
            stem=settings.stem,
            weights=settings.weights,
            size=self.size,
            generator=generator(self.config.seed, "backbone"),
        )

    def features(self, backbone: nn.Module, indices: np.ndarray, split: str) -> np.ndarray:
        """h (N, num_features) of un-augmented pictures."""
        mean, std = self.statistics(split)
        return representations.extract(
            backbone, self.images, indices, size=self.size, mean=mean, std=std, compute=self.compute
        )

    # ------------------------------------------------------------------------------------- autoencoder (3.2, 3.3)

    def train_autoencoder(self, given: Autoencoder | EmbeddingOnly | None = None) -> None:
        """Train the autoencoder or take one that is there; leaves autoencoder.safetensors and reconstructions.png."""
        wanted = self.config.head.needs_autoencoder or self.config.stages == "autoencoder"
        if self.folder.autoencoder.exists() and "autoencoder" in self.stages:
            self.embedding = autoencoders.load(self.folder.autoencoder)
            return
        settings = self.config.autoencoder
        if not wanted:
            return
        started = time.monotonic()
        if given is not None:
            self.embedding, found = given, None
        elif settings.weights is not None:
            self.embedding, found = autoencoders.find(settings.weights), None
        else:
            self.embedding, found = self._fit_autoencoder()
        if self.writes:
            autoencoders.save(self.embedding, self.folder.autoencoder, **(found or {}))
            self._reconstructions()
        self._done("autoencoder", found, started)

    def _fit_autoencoder(self) -> tuple[Autoencoder, dict[str, Any]]:
        settings, parts = self.config.autoencoder, (self.splits.train, self.splits.val, self.splits.test)
        inputs: list[Tensor | Squashed]
        if settings.on == "features":
            backbone = self.backbone()
            inputs = [torch.from_numpy(self.features(backbone, part, "train")) for part in parts]
        elif self.images.resident:
            inputs = [self.images.squashed(part, self.size) for part in parts]
        else:
            inputs = [Squashed(self.images, part, self.size) for part in parts]
        width = backbones.num_features(self.config.backbone.name)
        model = autoencoders.build(
            settings,
            in_features=math.prod(inputs[0].shape[1:]),
            hidden_features=width,
            latent_dim=self.config.head.hidden_dim,
            generator=generator(self.config.seed, "autoencoder-init"),
        )
        mean, std = self.moments["train"]
        trained = autoencoding.train(
            model,
            (inputs[0], inputs[1], inputs[2]),
            settings,
            seed=self.config.seed,
            compute=self.compute,
            checkpoints=self.checkpoints,
            log=self.metrics.log,
            mean=mean,
            std=std,
            quiet=self.quiet,
        )
        return trained.model, {
            "test_mse": trained.test_mse,
            "val_mse": trained.val_mse,
            "best_epoch": trained.best_epoch,
        }

    def _reconstructions(self) -> None:
        """samples/reconstructions.png: pictures the autoencoder did not train on, above what it makes of them."""
        if not isinstance(self.embedding, Autoencoder) or self.embedding.on != "pixels":
            return
        pictures = self.images.squashed(views.mixed(self.splits.test, self.config.seed)[:SAMPLES], self.size)
        if pictures[0].numel() != self.embedding.in_features:
            return
        rows = [_channels_last(pictures), _channels_last(autoencoders.reconstruct(self.embedding, pictures))]
        runs.write(self.folder.samples / "reconstructions.png", sheet(rows, scale=_scale(self.size)))

    # ------------------------------------------------------------------------------- head and SimCLR (3.4, 3.5)

    def train_contrastive(self) -> None:
        """Build the head, train it with the backbone; leaves head, backbone and pairs.png."""
        if "contrastive" in self.stages:
            return
        started = time.monotonic()
        backbone = self.backbone()
        head, self.stages["head"] = self._build_head(backbone)
        if self.writes:
            self._pairs()
        live_taps.apply(backbone, self.size)
        mean, std = self.statistics("train")
        observers: list[Observer] = [Health(say=say)] if self.writes else []
        if self.config.contrastive.online_probe and self.writes and self.images.classes:
            observers.append(OnlineProbe(self.images.labels, len(self.images.classes)))
        trained = contrastive.train(
            backbone,
            head,
            self.images,
            self.splits,
            self.config,
            compute=self.compute,
            checkpoints=self.checkpoints,
            mean=mean,
            std=std,
            observers=observers,
            log=self.metrics.log,
            quiet=self.quiet,
        )
        if self.writes:
            settings = self.config.backbone
            lines = backbones.loading_lines(settings.name, stem=settings.stem, size=self.size)
            weights.save(self.folder.head, head.state_dict(), **dataclasses.asdict(self.config.head))
            weights.save(self.folder.backbone, backbone.state_dict(), loading=lines, **self._about_backbone())
        self._done("contrastive", dataclasses.asdict(trained), started)

    def _build_head(self, backbone: nn.Module) -> tuple[ProjectionHead, dict[str, Any]]:
        """g, and what it does to the untrained backbone's features at step 0."""
        settings, chosen = self.config.head, views.mixed(self.splits.train, self.config.seed)
        features = torch.from_numpy(self.features(backbone, chosen[:HEAD_FEATURES].numpy(), "train"))
        head = ProjectionHead.from_init(
            features.shape[1],
            init=settings.init,
            hidden_dim=settings.hidden_dim,
            output_dim=settings.output_dim,
            activation=settings.activation,
            frozen=settings.frozen,
            autoencoder=self.embedding,
            features=features,
            generator=generator(self.config.seed, "head"),
            depth=settings.depth,
            batch_norm=settings.batch_norm,
            match_scale=settings.match_scale,
            pretrained=settings.pretrained,
        )
        if settings.init == "random" and settings.frozen and self.writes:
            say("the first layer is random and frozen: a control, not the paper's mlp (that is --head.no-frozen)")
        first = self._first_views(backbone, chosen[:HEAD_PAIRS])
        return head, head_statistics(head, features, first, self.config.contrastive.temperature)

    def _first_views(self, backbone: nn.Module, chosen: Tensor) -> Tensor:
        """h (2n, num_features) of two augmented views, as SimCLR's first step sees it: batch norm by the batch."""
        augment = views.augmenter(self.config.augment, self.size, *self.statistics("train"))
        draws = views.draw_pairs(augment, self.images, chosen, generator(self.config.seed, "head-statistics"))
        both = augment.apply(self.images.batch(chosen)[0], draws).to(self.compute.device)
        backbone.train()
        with (
            torch.no_grad(),
            running_statistics_kept(backbone),
            self.compute.autocast(),
            stochastic_layers(self.compute.device, self.config.seed, 0, 0),
        ):
            return torch.cat([backbone(part) for part in both.chunk(self.config.contrastive.passes)]).float()

    def _pairs(self) -> None:
        """samples/pairs.png: pictures with two of their views, as SimCLR sees them (before the Z-score)."""
        chosen = views.mixed(self.splits.train, self.config.seed)[:SAMPLES]
        augment = views.augmenter(self.config.augment, self.size, None, None)
        draws = views.draw_pairs(augment, self.images, chosen, generator(self.config.seed, "samples"))
        both = augment.apply(self.images.batch(chosen)[0], draws)
        first, second = (_channels_last((part * 255).round().clamp(0, 255).byte()) for part in both.chunk(2))
        rows = [_channels_last(self.images.squashed(chosen.numpy(), self.size)), first, second]
        runs.write(self.folder.samples / "pairs.png", sheet(rows, scale=_scale(self.size)))

    def _about_backbone(self) -> dict[str, object]:
        """What somebody who only has backbone.safetensors needs to feed it."""
        mean, std = self.statistics("test")
        return {
            "backbone": self.config.backbone.name,
            "stem": self.config.backbone.stem,
            "size": self.size,
            "mean": [] if mean is None else mean.tolist(),
            "std": [] if std is None else std.tolist(),
            "headstart": __version__,
        }

    def _done(self, stage: str, found: dict[str, Any] | None, started: float) -> None:
        """Remember what a stage found; the next call begins after it."""
        self.stages[stage] = found
        seconds = self.stages.setdefault("seconds", {})
        before = self.checkpoints.spent(stage) or seconds.get(stage, 0.0)  # before an interruption, or an extension
        seconds[stage] = before + time.monotonic() - started
        if self.writes:
            self.metrics.flush()
            runs.write_json(self.folder.stages, self.stages)

    # -------------------------------------------------------------------------------------------- probes (3.6)

    def probe(self) -> None:
        """Judge the backbone before and after SimCLR."""
        started = time.monotonic()
        trained = self.backbone()
        trained.load_state_dict(load_backbone(self.folder.backbone))
        features = self._split_features(trained)
        self.probes = self._probes(features)
        if self.untrained is None:
            self.untrained = self._probes(self._split_features(self.backbone()))
        self.geometry = geometry.of_features(features["test"])
        self.metrics.forget("probe")
        for name, found in self.probes.items():
            before = self.untrained.get(name, {}).get("accuracy")
            self.metrics.log(stage="probe", name=name, accuracy=found["accuracy"], untrained=before)
        write_map(self.folder.samples, features["test"], self.images, self.splits.test)
        self._done("probe", None, started)

    def _split_features(self, backbone: nn.Module) -> dict[str, np.ndarray]:
        live_taps.apply(backbone, self.size)
        return {split: self.features(backbone, indices, split) for split, indices in self.parts.items()}

    def _probes(self, features: dict[str, np.ndarray]) -> dict[str, Any]:
        labels = {split: self.images.labels[indices] for split, indices in self.parts.items()}
        names = {split: [self.images.names[i] for i in indices] for split, indices in self.parts.items()}
        return probes.run(
            features,
            labels,
            names,
            self.images.classes,
            which=self.config.probe.names,
            seed=self.config.seed,
            split_seed=self.config.data.split_seed,
            device=self.compute.device,
        )

    # ------------------------------------------------------------------------------------------------- result

    def finish(self) -> None:
        """Write result.json last, then the report made from it."""
        config = self.config
        result = {
            "schema": runs.SCHEMA,
            "stage": config.stages,
            "config_hash": hash_of(config, self.images.fingerprint),
            "data": self._data(),
            "backbone": dataclasses.asdict(config.backbone),
            "head": dataclasses.asdict(config.head),
            "autoencoder": self.stages.get("autoencoder"),
            "contrastive": self.stages.get("contrastive"),
            "probes": self.probes,
            "untrained": dict(self.untrained or {}),
            "geometry": {"head": self.stages.get("head"), **self.geometry},
            "seconds": {name: round(seconds, 3) for name, seconds in self.stages.get("seconds", {}).items()},
        }
        self.metrics.flush()
        runs.write_json(self.folder.result, result)
        self.folder.stages.unlink(missing_ok=True)
        self.checkpoints.forget_previous()
        report.write_report(self.folder.path)

    def _data(self) -> dict[str, Any]:
        mean, std = self.moments["train"]
        return {
            "name": ", ".join(catalog.shown(source) for source in self.config.data.sources),
            "fingerprint": self.images.fingerprint,
            "size": self.size,
            "classes": self.images.classes,
            "skipped": len(self.images.skipped),
            "labelled": int((self.images.labels >= 0).sum()),
            **{split: len(indices) for split, indices in self.parts.items()},
            "mean": [round(v, 6) for v in mean.tolist()],
            "std": [round(v, 6) for v in std.tolist()],
        }


def load_backbone(path: Path) -> dict[str, Tensor]:
    """The tensors of a backbone.safetensors; raises InputError naming the file when it is missing or damaged."""
    return read_tensors(path)


def _write_skipped(path: Path, images: Images) -> None:
    """skipped.csv: `name,reason` of the pictures set aside, safe to open in a spreadsheet."""
    runs.write(path, runs.table(("name", "reason"), images.skipped))


def _float32(values: np.ndarray) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32)


def _channels_last(pictures: Tensor) -> list[np.ndarray]:
    return list(pictures.permute(0, 2, 3, 1).cpu().numpy())


def _scale(size: int) -> int:
    """Enlarge small pictures so that a person can see them."""
    return max(1, 96 // size)
