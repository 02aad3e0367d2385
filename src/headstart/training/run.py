"""One run, in the order of the paper: pictures, autoencoder, projection head, SimCLR, probes, result.

Only this module knows the order of the stages. Each stage takes what is already open and leaves its files in the run
folder; `result.json` comes last. A run that was stopped anywhere goes on from its last checkpoint.
"""

import dataclasses
import math
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from headstart import autoencoders, backbones, heads
from headstart.autoencoders import Autoencoder, EmbeddingOnly
from headstart.data import Images
from headstart.data.splits import Splits
from headstart.engine import distributed, live_taps, loggers, weights
from headstart.engine.device import choose, enough_memory
from headstart.engine.randomness import generator
from headstart.engine.stopping import give_way, interrupted_by_signals, stop_on_signals
from headstart.evaluate.health import Health
from headstart.records.claim import owned
from headstart.records.config import Config, flatten, to_dict
from headstart.records.folder import RunFolder
from headstart.training import autoencoder as autoencoding
from headstart.training import contrastive, head, samples
from headstart.training.keeping import keep_best
from headstart.training.open_run import OpenRun
from headstart.training.opening import begun, is_finished, open_run, refuse_finished
from headstart.training.resolving import prepare
from headstart.training.result import Judged, judge, write_result

NEEDS_LESS = "a smaller --data.size or --data.memory-gib needs less"


def run(
    config: Config,
    out: str | Path,
    *,
    images: Images | None = None,
    splits: Splits | None = None,
    autoencoder: Autoencoder | EmbeddingOnly | None = None,
    before: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    extend: bool = False,
    deadline: float | None = None,
    claimed: bool = False,
    sharers: int = 1,
    quiet: bool = False,
) -> Path:
    """Do one run, or go on with it, up to `config.stages`; returns the run folder, with result.json in it.

    Args:
        config: what to do; `auto` and unset values are decided here and written to config.yaml.
        out: the run folder.
        images, splits, autoencoder: what is already open, so that a study reads and trains it once.
        before: what `result.of_before` tells of the backbone before SimCLR, where another run of the same seed has it.
        overwrite: replace a finished run, or one begun with other settings; one interrupted with these goes on.
        extend: go on with a finished run for more SimCLR epochs, or with pictures or labels that are new or gone since.
        deadline: `time.monotonic()` after which the run saves and stops.
        claimed: the caller is the folder's owner already (records/claim.py).
        sharers: processes that share the device, this one among them: each counts with its share of the memory.

    Raises:
        InputError: bad input, or a folder that is occupied or in use; nothing already computed is touched.
        RunError, Interrupted: the training failed; it was stopped and is resumable.
    """
    folder = RunFolder(out)
    refuse_finished(folder, config, overwrite, extend)
    if distributed.first():
        loggers.check(config.loggers, folder.path)
    compute = choose(distributed.local_device(config.device), config.precision, config.threads, sharers)
    quiet = quiet or not distributed.first()
    with distributed.process_group(compute), enough_memory(compute.device, NEEDS_LESS), ExitStack() as owner:
        with interrupted_by_signals("stopped before anything was trained"):
            grown = folder if extend else None
            prepared = prepare(config, images, splits, compute, quiet, begun(folder), grown)
        if distributed.first() and not claimed:
            owner.enter_context(owned(folder.open(), "pretrain", give_way))
            refuse_finished(folder, config, overwrite, extend)  # by another process, while the pictures were read
        with stop_on_signals():
            run = open_run(folder, prepared, compute, overwrite, extend, deadline, quiet)
            if extend and is_finished(folder, config):
                return folder.path
            names = config.loggers if run.writes else ()
            with loggers.attached(run.metrics, names, folder.path, dict(flatten(to_dict(run.config)))):
                embedding = pretrain_embedding(run, autoencoder)
                if config.stages != "autoencoder":
                    train_simclr(run, embedding)
        if run.writes:
            with interrupted_by_signals("stopped; the same command goes on after the last finished stage"):
                write_result(run, judge(run, before) if config.stages == "probe" else Judged())
        distributed.wait_for_all()  # until result.json is there: every process goes on to read it
    return folder.path


def pretrain_embedding(
    run: OpenRun, given: Autoencoder | EmbeddingOnly | None = None
) -> Autoencoder | EmbeddingOnly | None:
    """Train the autoencoder or take one that is there (paper 3.2, 3.3); leaves its file and reconstructions.png."""
    folder, settings = run.folder, run.config.autoencoder
    if folder.autoencoder.exists() and "autoencoder" in run.stages:
        return autoencoders.load(folder.autoencoder)
    if not run.config.needs_autoencoder:
        return None
    started = time.monotonic()
    found: dict[str, Any] | None = None
    if given is None and settings.weights is not None:
        given = autoencoders.find(settings.weights)
    if given is None:
        trained = _fit_autoencoder(run)
        given = trained.model
        found = {name: getattr(trained, name) for name in ("test_mse", "val_mse", "best_epoch")}
    if run.writes:
        run.checkpoints.check_folder()
        autoencoders.save(given, folder.autoencoder, **(found or {}))
        samples.write_reconstructions(run, given)
    run.done("autoencoder", found, started)
    return given


def _fit_autoencoder(run: OpenRun) -> autoencoding.TrainedAutoencoder:
    inputs, settings, seed = run.autoencoder_inputs(), run.config.autoencoder, run.config.seed
    model = autoencoders.build(
        settings,
        in_features=math.prod(inputs[0].shape[1:]),
        hidden_features=backbones.num_features(run.config.backbone.name),
        latent_dim=run.config.head.hidden_dim,
        generator=generator(seed, "autoencoder-init"),
    )
    mean, std = run.moments["train"]
    named = run.images.name_of(run.splits.train, run.splits.val)
    return autoencoding.train(model, inputs, settings, seed=seed, mean=mean, std=std, named=named, **run.shared)


def train_simclr(run: OpenRun, embedding: Autoencoder | EmbeddingOnly | None) -> None:
    """Build the head (paper 3.4), train it with the backbone (3.1, 3.5); leaves both, and pairs.png."""
    if "contrastive" in run.stages:
        return
    started = time.monotonic()
    f = run.backbone()
    g, run.stages["head"] = head.build(run, f, embedding)
    if run.writes:
        samples.write_pairs(run)
    live_taps.apply(f, run.size)
    mean, std = run.statistics("train")
    observers = run.observers()
    trained = contrastive.train(
        f, g, run.images, run.splits, run.config, mean=mean, std=std, observers=observers, **run.shared
    )
    found = dataclasses.asdict(trained)
    found["singular_values"] = heads.singular_values(g)
    found["warnings"] = [name for one in observers if isinstance(one, Health) for name in one.said]
    if run.config.contrastive.keep == "best-probe":
        found["kept"] = keep_best(run, run.backbone(), f)
    if run.writes:
        weights.save(run.folder.head, g.state_dict(), **dataclasses.asdict(run.config.head))
        weights.save(run.folder.backbone, f.state_dict(), **run.about_backbone())
    run.done("contrastive", found, started)
