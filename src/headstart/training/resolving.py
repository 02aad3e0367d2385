"""What a run is to do: read the pictures, split them, resolve what was left open, refuse what cannot be.

Comes in: a config with open values. Goes out: the config with none, its pictures and their split, or one sentence.
Everything that can be known to be wrong without training is refused here, before any run folder is touched.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from headstart import autoencoders, backbones, data
from headstart.data import Images, growing
from headstart.data import splits as splitting
from headstart.data.growing import Growth
from headstart.data.named import set_of
from headstart.data.splits import Splits
from headstart.engine import distributed
from headstart.engine.device import Compute
from headstart.engine.progress import say
from headstart.evaluate.views import augmenter
from headstart.heads import check_directions, check_kind
from headstart.records.config import AugmentConfig, Config, ContrastiveConfig, HeadConfig, load
from headstart.records.errors import InputError
from headstart.records.folder import RunFolder
from headstart.records.names import SETS
from headstart.records.presets import PAPER_FOLDER_BATCH
from headstart.records.text import be, number
from headstart.training import autoencoder as autoencoding
from headstart.training import feed, footprint, keeping, optimizers
from headstart.training.head import HEAD_FEATURES

EPOCH_STEPS = 8
"""Steps an epoch that an unset batch size leaves, where 16 pairs a batch allow it."""

MANY_EPOCHS = 10
"""From so many epochs of a single step on it is asked whether they are meant."""


@dataclass(frozen=True)
class Prepared:
    """What a run is to do, and with which pictures; all that can be refused without training has been.

    Attributes:
        growth: what changed in the pictures or their labels since the run began, where that is allowed.
        remembers: whether splits.npz is to say which pictures it splits; not in a study, which opens them once for all.
    """

    config: Config
    images: Images
    splits: Splits
    growth: Growth | None = None
    remembers: bool = False


def prepare(
    config: Config,
    images: Images | None,
    splits: Splits | None,
    compute: Compute,
    quiet: bool = False,
    begun: Config | None = None,
    grown: RunFolder | None = None,
) -> Prepared:
    """Read the pictures, split them, decide what was left open; touches no run folder.

    Args:
        begun: the settings of the run that the folder holds, if any; how its batch is cut does not change.
        grown: the folder, where it may go on with pictures or labels that are new or gone since.

    Raises InputError for what any later stage would refuse, or what does not fit the memory.
    """
    config = backbones.settled(config)
    remembers, growth = images is None, None
    images = images or data.open_images(config.data, config.augment.crop_scale[0], config.augment.crop_ratio[0])
    if begun is not None and grown is not None and splits is None:
        fingerprint = load(grown.config)[1].get("fingerprint")
        splits, growth = growing.follow(grown.splits, images, config.data, fingerprint)
        config = _as_begun(config, begun)
    splits = splits or splitting.make(images, config.data)
    if not quiet and (twice := splitting.copies(images, splits)):
        say(
            f"{twice:,} of {number(len(splits.test), 'test picture')} {be(twice)} in the training split as well, byte "
            "for byte: accuracy looks too good; `headstart check` names them"
        )
    resolved, notes = resolve(config, images, splits, compute)
    resolved, cut = footprint.fitted(resolved, images, compute, begun)
    left_out = [*_not_compiled(resolved, compute), *_without_a_part(resolved, splits)]
    for note in [*notes, *cut, *left_out] if not quiet else ():
        say(note)
    return Prepared(resolved, images, splits, growth, remembers)


def _not_compiled(config: Config, compute: Compute) -> list[str]:
    """Why `contrastive.compile` is left out, where it is."""
    settings = config.contrastive
    assert settings.batch_size is not None
    if not settings.compile:
        return []
    if compute.device.type != "cuda":
        return [f"contrastive.compile is for a GPU, and left out on this {compute.device.type}"]
    if settings.chunk is not None and settings.chunk < settings.batch_size // distributed.world_size():
        return ["contrastive.compile is for whole batches, and left out of chunks"]
    return []


def _without_a_part(config: Config, splits: Splits) -> list[str]:
    """Settings that were given and decide nothing, because of others or of the pictures."""
    head, settings = config.head, config.contrastive
    notes = []
    if head.kind == "mlp":
        given = [name for name in ("tokens", "blocks") if getattr(head, name) != getattr(HeadConfig(), name)]
        notes += [f"head.{name} is for --head.kind attention, and has no part in this head" for name in given]
    if settings.interpolate and settings.keep != "best-probe":
        notes.append(f"contrastive.interpolate is for --contrastive.keep best-probe, and left out of {settings.keep}")
    if settings.keep == "best" and len(splits.val) < 2:
        notes.append("contrastive.keep best needs two validation pictures for a loss; the last weights are kept")
    return notes


def _as_begun(config: Config, begun: Config) -> Config:
    """What follows from the number or the size of the pictures stays as it was decided when there were fewer."""
    settings, was = config.contrastive, begun.contrastive
    kept = replace(settings, batch_size=settings.batch_size or was.batch_size, lr=settings.lr or was.lr)
    size = begun.data.size if config.data.size == "auto" else config.data.size
    return replace(config, contrastive=kept, data=replace(config.data, size=size))


def resolve(config: Config, images: Images, splits: Splits, compute: Compute) -> tuple[Config, list[str]]:
    """Fill in what was left open: size, batch size, learning rate, precision; and what there is to say of it.

    Raises InputError for what a later stage would refuse: weights that cannot be had or do not fit, a batch larger than
    the training split or that the processes cannot share, a head, an autoencoder or an augmentation that cannot be
    built.
    """
    splitting.check_training(splits, len(images))
    settings = config.contrastive
    augment, notes = _colours(config.augment, images)
    size = images.training_size(config.data.size, config.data.auto_size)
    network, fetch = config.backbone, config.stages != "autoencoder"
    if read := backbones.check(network.name, stem=network.stem, weights=network.weights, size=size, fetch=fetch):
        notes.append(f"backbone.weights {network.weights}: {read}")
    if expected := backbones.described(config, size):
        notes.append(expected)
    if augment.flip and not _mirrored(config.data.sources):
        notes.append(f"{config.data.sources[0]} is never mirrored: augment.flip {augment.flip:g} becomes 0")
        augment = replace(augment, flip=0.0)
    batch_size = settings.batch_size or _batch_size(settings, len(splits.train), len(splits.val))
    _check_batch(config, batch_size, len(splits.train), len(splits.val))
    notes += _few_steps(config, batch_size, len(splits.train))
    _check_autoencoder(config, splits, size)
    _check_rate(settings)
    if config.stages != "autoencoder" and settings.keep == "best-probe":
        notes += keeping.unjudged(images.labels, splits, config.data.split_seed)
    if config.stages != "autoencoder":
        _check_head(config, len(splits.train))
        augmenter(augment, size, None, None)
    resolved = replace(
        config,
        data=replace(config.data, size=size),
        augment=augment,
        contrastive=replace(settings, batch_size=batch_size, lr=optimizers.peak_learning_rate(settings, batch_size)),
        precision=compute.precision,  # type: ignore[arg-type]
    )
    return resolved, notes


def _colours(augment: AugmentConfig, images: Images) -> tuple[AugmentConfig, list[str]]:
    """With `colour: auto`, no change of colour for pictures that have none, and the sentence that says so."""
    if augment.colour != "auto" or not images_are_grey(images):
        return augment, []
    changes = augment.grey_p or augment.jitter[2:] != (0.0, 0.0)
    note = "the pictures are grey: their views differ in brightness and contrast, not in colour"
    return replace(augment, jitter=(*augment.jitter[:2], 0.0, 0.0), grey_p=0.0), [note] if changes else []


def images_are_grey(images: Images) -> bool:
    """Whether all of (at most 256) pictures from the whole set have the same value in every channel."""
    some = np.linspace(0, len(images) - 1, min(256, len(images))).astype(int)
    return all(bool((frames == frames[:, :1]).all()) for frames in (images.batch([i])[0] for i in some))


def _mirrored(sources: Sequence[str]) -> bool:
    """Whether pictures of these sources stay what they are when they are mirrored, as digits do not."""
    return all(SETS[name].mirrored for name in map(set_of, sources) if name)


def _batch_size(settings: ContrastiveConfig, n_train: int, n_val: int) -> int:
    """Where it is unset: the largest power of two up to 256 that leaves EPOCH_STEPS steps an epoch, 16 at the least.

    The paper's fits one validation batch (paper 3.5).
    """
    if settings.drop_last_validation:
        return min(PAPER_FOLDER_BATCH, n_val)
    fits = 2 ** (max(n_train // EPOCH_STEPS, 1).bit_length() - 1)
    return min(256, max(16, fits), 2 ** (n_train.bit_length() - 1))


def _check_rate(settings: ContrastiveConfig) -> None:
    """SGD's unset rate is NT-Xent's; objectives whose gradients are larger by far diverge at it."""
    if settings.objective != "nt_xent" and settings.optimizer == "sgd" and settings.lr is None:
        raise InputError(
            f"contrastive.lr is unset, and sgd's rule for it is NT-Xent's; with contrastive.objective "
            f"{settings.objective} give --contrastive.lr, or --contrastive.optimizer adamw"
        )


def _check_batch(config: Config, batch_size: int, n_train: int, n_val: int) -> None:
    settings = config.contrastive
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
    if config.stages != "autoencoder":
        feed.check_batch(batch_size)
        feed.check_chunk(settings)


def _few_steps(config: Config, batch_size: int, n_train: int) -> list[str]:
    """Question many epochs of one step each."""
    epochs = config.contrastive.epochs
    if config.stages == "autoencoder" or n_train // batch_size != 1 or epochs < MANY_EPOCHS:
        return []
    out = n_train - batch_size
    left_out = f", and {number(out, 'picture')} {'sit' if out > 1 else 'sits'} out of each" if out else ""
    return [
        f"contrastive.batch-size {batch_size} leaves 1 step an epoch for {n_train} training pictures{left_out}: are "
        f"{epochs} steps in all what you want? A smaller one takes more"
    ]


def _check_autoencoder(config: Config, splits: Splits, size: int) -> None:
    """What the autoencoder's stage and the head's start from it would refuse."""
    if not config.needs_autoencoder:
        return
    settings, width, latent = config.autoencoder, backbones.num_features(config.backbone.name), config.head.hidden_dim
    if settings.weights is not None:
        layer = autoencoders.find(settings.weights).embedding
        if config.stages != "autoencoder" and (layer.in_features, layer.out_features) != (width, latent):
            raise InputError(
                f"autoencoder.weights {settings.weights}: its embedding layer turns {layer.in_features} features into "
                f"{layer.out_features}; {config.backbone.name} with head.hidden-dim {latent} needs {width} into "
                f"{latent}"
            )
        return
    autoencoding.check_splits(splits.train, splits.val, splits.test)
    autoencoding.outline(config, size)


def _check_head(config: Config, n_train: int) -> None:
    head, width = config.head, backbones.num_features(config.backbone.name)
    check_kind(width, head)
    if head.init == "pca":
        check_directions(head.hidden_dim, min(n_train, HEAD_FEATURES), width)
