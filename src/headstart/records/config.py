"""Every setting of a run: one dataclass per stage, with every check that needs no data.

Comes in: option values, a YAML file. Goes out: one frozen `Config`. The sections are named after the stations of a run
(paper 3.1-3.6); the dotted option names of the command line are the field names here, and a field's type says which
values are right.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from pydantic import Field, TypeAdapter, ValidationError, ValidationInfo, field_validator

from headstart.records import plugins
from headstart.records.errors import InputError
from headstart.records.files import as_yaml, read_yaml
from headstart.records.levels import Given
from headstart.records.names import (
    ActivationName,
    AutoencoderKind,
    HeadInitName,
    HeadKind,
    LoggerName,
    ObjectiveName,
    OptimizerName,
    ProbeName,
    Stem,
    from_embedding,
)
from headstart.records.unhashed import NOT_HASHED, YOUNGER
from headstart.records.validation import (
    Amount,
    Count,
    NotNegative,
    Pixels,
    Positive,
    Real,
    Seed,
    Several,
    Share,
    Text,
    Threads,
    Whole,
    Width,
    must,
    option,
    sentence,
    settings,
)

Stage = Literal["autoencoder", "contrastive", "probe"]

DEVICES = r"auto|cpu|cuda(:\d+)?|mps"
Device = Annotated[str, must(re.compile(DEVICES).fullmatch, "auto, cpu, cuda, cuda:N or mps")]
Ordered = must(lambda pair: pair[0] <= pair[1], "the smallest, then the largest")

STAGES: tuple[Stage, ...] = ("autoencoder", "contrastive", "probe")


@settings("data")
class DataConfig:
    """Which pictures, and how they are read and split (paper Table 1, 3.3)."""

    sources: Annotated[tuple[Text, ...], Several, tyro.conf.Suppress] = ()
    """DATA: folders of pictures, a text or CSV list, or a named set with its root (`cifar10:ROOT`)."""
    labels: Text = "auto"
    """`folders`: first-level folders are classes; `none`; or a CSV FILE `name,label`. auto: folders, unless pictures
    lie at the top."""
    split_seed: Seed = 0
    """Seed of the splits and of the label draws of few-label probes."""
    splits: Literal["house", "paper"] = "house"
    """`house`: official test split where there is one, val from train; `paper`: as the authors' code did."""
    size: Pixels | Literal["auto"] = "auto"
    """Side of the training pictures in pixels: one number, for they are squares. auto: native if all pictures are one
    square size up to `auto-size`, else that."""
    auto_size: Pixels | None = None
    """The largest side that `size` auto takes. Unset: 128; with `statistics` backbone what the weights expect, or what
    the pictures have where that is less."""
    resize: Literal["squash", "crop", "pad"] = "squash"
    """How un-augmented pictures that are no squares become squares: `squash` all of it, as the authors did; `crop` the
    middle; `pad` with black."""
    interpolation: Literal["bilinear", "bicubic", "backbone"] = "bilinear"
    """How un-augmented pictures get their size (antialiased): `backbone` is as given `backbone.weights` expect. Crops
    of the augmentation are bilinear."""
    limit: Annotated[Whole, Field(ge=4)] | None = None
    """Class-balanced subset of train + val of this many pictures; the test split is untouched."""
    normalize: bool = True
    """Z-score pictures (last step of the augmentation; also for features)."""
    statistics: Literal["train", "paper", "backbone"] = "train"
    """Z-score statistics: pixels of the train split; the authors' mean over pictures of each picture's own; or those
    that given `backbone.weights` were made with."""
    max_skipped: Share = 0.05
    """Refuse to start when more than 10 files and more than this share of them cannot be read."""
    range: Given = "auto"
    """Of pictures of 16 bits or floats, what becomes black and white: auto, 0 and 65535 (floats: 0 and 1); MIN MAX;
    `percentile`, 0.5 and 99.5 % of each picture's own samples."""
    unlabelled: bool = False
    """Train on the set's unlabelled pictures too (stl10)."""
    annotation: Literal["manufacturer", "variant"] = "manufacturer"
    """Label level of fgvc-aircraft."""
    download: bool = False
    """Fetch a named set through torchvision when its files are missing."""
    detail: Amount = 1.0
    """Pixels kept on disk and in memory, per pixel of the training size, in a crop of the smallest scale; large
    photographs are stored no larger than that needs. 0: keep the native size."""
    memory_gib: Amount = 4.0
    """Decoded pictures up to this many GiB, and up to half of what is free, are held in memory; larger sets stay in a
    memory-mapped file."""
    cache_dir: Text | None = None
    """Folder of decoded pictures. Unset: $HEADSTART_CACHE, else ~/.cache/headstart."""


@settings("backbone")
class BackboneConfig:
    """The feature extractor f (paper 3.1, 3.5)."""

    name: str = "resnet34"
    """Any torchvision classification network, or `timm:NAME` (extra `timm`)."""
    stem: Stem = "imagenet"
    """`cifar`: ResNets with a 3x3 stride-1 first convolution and no max-pooling."""
    weights: Text = "none"
    """`none` (from scratch); `pretrained`, the library's default for that network (`imagenet` where it is that); a
    state-dict FILE; or a RUN of Headstart."""


@settings("autoencoder")
class AutoencoderConfig:
    """The autoencoder whose embedding layer starts the head (paper 3.2, 3.3)."""

    kind: AutoencoderKind = "mlp"
    """`mlp` is the paper's; the others are its future work."""
    on: Literal["pixels", "features"] = "pixels"
    """What it reconstructs: the pictures (the paper), or the features h of the untrained backbone."""
    epochs: Count = 100
    batch_size: Count = 100
    lr: Positive = 1e-4
    """Adam's initial learning rate."""
    patience: NotNegative = 10
    """Epochs without a better validation loss before the learning rate is halved."""
    factor: Annotated[Real, Field(gt=0, lt=1)] = 0.5
    """What the learning rate is multiplied by then."""
    normalize: bool = False
    """Z-score its pictures (paper contribution 5: this impairs it, since its reconstruction ends in a sigmoid)."""
    mask_ratio: Annotated[Real, Field(gt=0, lt=1)] = 0.75
    """Of kind masked: share of a picture's patches that the encoder does not see."""
    active: Annotated[Real, Field(gt=0, le=1)] = 0.1
    """Of kind sparse: share of the embedding's units that a picture may use."""
    weights: Text | None = None
    """A FILE or RUN whose autoencoder is used; skips the training."""


@settings("head")
class HeadConfig:
    """The projection head g, and where its first layer comes from (paper 3.4)."""

    kind: HeadKind = "mlp"
    """`mlp` is the paper's; `attention` is its future work."""
    init: HeadInitName = "autoencoder"
    frozen: bool = True
    """Keep the first layer as it starts. The paper's `mlp` is init random, not frozen."""
    activation: ActivationName = "relu"
    hidden_dim: Width = 256
    """dim(g): output features of the first layer, and so the autoencoder's latent size."""
    output_dim: Width = 128
    """dim(z)."""
    depth: Literal[1, 2, 3, 4] = 2
    """Linear layers of an mlp, 1 to 4; 2 is the paper's."""
    batch_norm: bool = False
    """Batch norm after every layer of an mlp but the last."""
    tokens: Count = 8
    """Of kind attention: parts into which h is cut."""
    blocks: Literal[1, 2] = 1
    """Of kind attention: transformer blocks."""
    match_scale: bool = False
    """Rescale the first layer so that every init starts at the output scale of `random`."""
    pretrained: Literal["first", "all"] = "first"
    """How much of the head starts from the autoencoder."""
    output_init: HeadInitName | None = None
    """Where the output layer starts: `autoencoder` is the decoder's layer, from which `spectrum` and `shuffled` are
    made. Unset: as `pretrained` says."""
    unfreeze_at: Share | None = None
    """Release a frozen first layer after this share of the SimCLR epochs (0 to 1). Unset: never."""

    @field_validator("unfreeze_at")
    @classmethod
    def _only_what_is_frozen_is_released(cls, share: float | None, others: ValidationInfo) -> float | None:
        if share is not None and not others.data.get("frozen", True):
            raise ValueError("unset for a head that does not start frozen")
        return share

    @property
    def needs_autoencoder(self) -> bool:
        """Whether this head is built from an embedding layer."""
        return self.pretrained == "all" or from_embedding(self.init) or from_embedding(self.output_init)


@settings("augment")
class AugmentConfig:
    """The transformation family T (paper 3.1; values of docs/the-paper.md, which are SimCLR's)."""

    crop_scale: Annotated[tuple[Positive, Annotated[Positive, Field(le=1)]], Ordered] = (0.08, 1.0)
    crop_ratio: Annotated[tuple[Positive, Positive], Ordered] = (3 / 4, 4 / 3)
    flip: Share = 0.5
    jitter: tuple[Amount, Amount, Amount, Annotated[Amount, Field(le=0.5)]] = (0.8, 0.8, 0.8, 0.2)
    """Brightness, contrast, saturation, hue."""
    jitter_p: Share = 0.8
    grey_p: Share = 0.2
    blur_p: Share = 0.5
    blur_sigma: Annotated[tuple[Positive, Positive], Ordered] = (0.1, 2.0)
    blur_kernel: Annotated[Count, must(lambda side: side % 2 == 1, "an odd number of pixels")] | None = None
    """Odd, in pixels. Unset: a tenth of the side, made odd."""
    colour: Literal["always", "auto"] = "always"
    """auto: saturation, hue and greying are left out where every picture is grey and has none to change."""


@settings("contrastive")
class ContrastiveConfig:
    """SimCLR's training of backbone and head (paper 3.5)."""

    epochs: Count = 100
    batch_size: Annotated[Whole, Field(ge=2)] | None = None
    """Pairs in the global batch. Unset: the largest power of two up to 256 that leaves eight steps an epoch, 16 at the
    least."""
    lr: Positive | None = None
    """The peak learning rate itself. Unset: 0.3 batch_size / 256 (adamw: 0.001 batch_size / 256)."""
    optimizer: OptimizerName = "sgd"
    momentum: Annotated[Real, Field(ge=0, lt=1)] = 0.9
    weight_decay: Amount = 1e-5
    decay_norms_and_biases: bool = False
    warmup_epochs: Amount | None = None
    """Linear warm-up. Unset: a tenth of the epochs, at most 10."""
    schedule: Literal["step", "epoch"] = "step"
    """Move along the cosine every step, or once an epoch (as the authors did)."""
    final_lr_fraction: Share = 0.02
    """The cosine ends at this share of the peak (the paper's eta_min = lr / 50)."""
    objective: ObjectiveName = "nt_xent"
    """What pulls the views together; the coefficients of the others stand in sections of their names."""
    temperature: Positive = 0.5
    """Of NT-Xent."""
    passes: Literal[1, 2] = 1
    """Batch norm over both views, or one pass a view (as the authors did)."""
    chunk: Count | None = None
    """Pairs held on the device at once; the loss still sees the whole batch (GradCache). Unset: all
    that fit the free memory, said where that is not the whole batch."""
    compile: bool = False
    """On a GPU, put the network through torch.compile: some 20 to 80 s first, and a long training is done sooner."""
    keep: Literal["last", "best", "best-probe"] = "last"
    """The weights a run ends with: of the last epoch, of the lowest validation loss, or the best of given, interpolated
    and adapted weights by cross-validated probes on the labels of train and val."""
    interpolate: Annotated[tuple[Share, ...], Several] = ()
    """Shares of the way from the given to the adapted weights whose mixtures `keep best-probe` may choose as well."""
    head_epochs: Whole = 0
    """Epochs that the head trains alone, on features of the backbone as it was given, before both train together."""
    head_lr: Positive | None = None
    """Peak learning rate of the head, also while it trains alone. Unset: lr."""
    frozen_share: Annotated[Share, Field(lt=1)] = 0.0
    """Share of the backbone's blocks, counted from the pictures, that keep the weights they are given."""
    norms: Literal["batch", "given"] = "batch"
    """Batch norm by the batch's statistics, or always by the given running ones (its scale and shift still train)."""
    validation_views: Literal["augmented", "identical"] = "augmented"
    """Two augmented views with fixed draws, or the un-augmented picture twice (as the authors did)."""
    drop_last_validation: bool = False
    """Leave the last, smaller validation batch out (as the authors did)."""
    online_probe: bool = True
    """Train a linear classifier beside SimCLR, with no gradient into the backbone, to watch accuracy."""

    @property
    def warmup(self) -> float:
        """Epochs of linear warm-up."""
        return min(10.0, self.epochs / 10) if self.warmup_epochs is None else self.warmup_epochs


def default_learning_rate(optimizer: object, batch_size: int) -> float:
    """The peak that follows where `contrastive.lr` is unset: 0.3 B / 256 (paper 3.5; AdamW: 0.001 B / 256)."""
    return (0.001 if optimizer == "adamw" else 0.3) * batch_size / 256


@settings("vicreg")
class VICRegConfig:
    """Coefficients of VICReg (Bardes, Ponce and LeCun 2022, section 4.2)."""

    invariance: Amount = 25.0
    variance: Amount = 25.0
    covariance: Amount = 1.0


@settings("barlow")
class BarlowConfig:
    """The coefficient of Barlow Twins (Zbontar et al. 2021)."""

    off_diagonal: Amount = 5e-3


@settings("sigreg")
class SIGRegConfig:
    """Settings of LeJEPA's objective (Balestriero and LeCun 2025)."""

    weight: Share = 0.05
    """Of the statistic; the rest is the prediction's."""
    directions: Count = 1024
    """Random directions, drawn anew every step."""


@settings("probe")
class ProbeConfig:
    """How the representation h is judged (paper 3.6; docs/evaluation.md)."""

    names: Annotated[tuple[ProbeName, ...], Several] = (
        "paper",
        "linear",
        "knn",
        "few_shot_1",
        "few_shot_5",
        "linear_1pct",
        "linear_10pct",
    )


@settings("checkpoint")
class CheckpointConfig:
    """When the state of a running stage is saved. It never changes a result."""

    minutes: Amount = 0.5
    """Save whenever this many minutes have passed since the last save. 0: after every step."""
    epochs: Count | None = None
    """Save at the end of every so many epochs as well."""


@settings("")
class Config:
    """One run."""

    data: DataConfig = field(default_factory=DataConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    contrastive: ContrastiveConfig = field(default_factory=ContrastiveConfig)
    vicreg: VICRegConfig = field(default_factory=VICRegConfig)
    barlow: BarlowConfig = field(default_factory=BarlowConfig)
    sigreg: SIGRegConfig = field(default_factory=SIGRegConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    seed: Seed = 0
    """Seed of the training: initial weights, order of pictures, augmentation."""
    stages: Stage = "probe"
    """Stop after this stage."""
    device: Device = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 where the device multiplies it natively."""
    threads: Threads | None = None
    """CPU threads. Unset: one per core."""
    loggers: Annotated[tuple[LoggerName, ...], Several] = ()
    """Where metrics go besides metrics.jsonl (extra `loggers`)."""

    @property
    def needs_autoencoder(self) -> bool:
        """Whether an autoencoder has to be there, for the head or for its own sake."""
        return self.head.needs_autoencoder or self.stages == "autoencoder"


SECTIONS = tuple(f.name for f in fields(Config) if dataclasses.is_dataclass(f.default_factory))

_CONFIG = TypeAdapter(Config)


def to_dict(config: Config) -> dict[str, Any]:
    """Nested plain dict of a config (tuples become lists), as written to config.yaml."""
    values = json.loads(json.dumps(dataclasses.asdict(config)))
    if config.contrastive.schedule == "epoch" and config.contrastive.warmup_epochs == 0:
        values["contrastive"]["warmup_epochs"] = 0  # not 0.0: so `paper` has always written it, and the hash reads it
    return values


def to_yaml(config: Config, about: Mapping[str, Any]) -> str:
    """config.yaml: every setting, and under `about` what it was decided with (version, data fingerprint)."""
    return as_yaml({"about": dict(about), **to_dict(config)})


def load(path: str | Path, base: Config | None = None) -> tuple[Config, dict[str, Any]]:
    """A run's config.yaml, or a file with some of its settings, over `base`; and its `about`.

    Raises InputError naming the file: unreadable, not YAML, unknown keys, wrong values, a plugin that is not there.
    """
    values = read_yaml(path)
    if not isinstance(values, Mapping):
        raise InputError(f"{path} must hold options by section, such as `head: {{init: random}}`")
    about = values.get("about") or {}
    if not isinstance(about, Mapping):
        raise InputError(f"{path} holds about {about!r}; it must be names and values, or be left out")
    plugins.check(about, path)
    settings = {name: value for name, value in values.items() if name != "about"}
    return from_dict(settings, base, where=str(path)), dict(about)


def flatten(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of a nested dict, depth first."""
    for name, value in nested.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def from_dict(values: Mapping[str, Any], base: Config | None = None, where: str = "config") -> Config:
    """A config from nested plain values over `base` (default: the house's defaults), fully checked.

    Raises InputError naming `where` and the key: unknown keys, wrong types, values out of range.
    """
    base = base or Config()
    if not isinstance(values, Mapping):
        raise InputError(f"{where} must hold options by section, such as `head: {{init: random}}`")
    given: dict[str, Any] = {}
    for name, value in values.items():  # `head.init: pca` is `head: {init: pca}`
        section, dot, last = str(name).partition(".")
        if section in SECTIONS and (dot or isinstance(value, Mapping)):
            given[section] = {**given.get(section, vars(getattr(base, section))), **({last: value} if dot else value)}
        else:
            given[name] = value
    try:
        return _CONFIG.validate_python(vars(base) | given)
    except ValidationError as error:
        known = [*dict(flatten(to_dict(base))), *SECTIONS]
        raise InputError(sentence(error, given, where, written=option, known=known)) from None


def hash_of(config: Config, fingerprint: str) -> str:
    """16 hex digits that name what a run computes: its settings and its pictures, not where or how it runs."""
    decided = {name: value for name, value in flatten(to_dict(config)) if decides(name, value)}
    text = json.dumps([decided, fingerprint], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def decides(name: str, value: Any) -> bool:
    """Whether a setting has a part in what a run computes."""
    return not _unhashed(name) and not (name in YOUNGER and value == YOUNGER[name])


def differences(old: Config, new: Config) -> dict[str, str]:
    """Every hashed setting in which two configs differ, by its name, and how: `old -> new`."""
    before, after = dict(flatten(to_dict(old))), dict(flatten(to_dict(new)))
    changed = [name for name in after if not _unhashed(name) and before.get(name) != after[name]]
    return {name: f"{before.get(name)} -> {after[name]}" for name in changed}


def _unhashed(name: str) -> bool:
    return name in NOT_HASHED or name.split(".")[0] in NOT_HASHED
