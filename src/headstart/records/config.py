"""Every setting of a run: one dataclass per stage, the presets, YAML, and every check that needs no data.

Comes in: option values, a preset's name, a YAML file. Goes out: one frozen `Config`. The sections are named after
the stations of a run (paper 3.1-3.6); the dotted option names of the command line are the field names here.
"""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
import yaml

from headstart.records.errors import InputError

HeadInit = Literal["random", "autoencoder", "orthogonal", "spectrum", "shuffled", "pca"]
Activation = Literal["relu", "silu", "sigmoid", "tanh", "gelu", "leaky_relu", "identity"]
Stage = Literal["autoencoder", "contrastive", "probe"]
ProbeName = Literal["paper", "linear", "knn", "few_shot_1", "few_shot_5", "linear_1pct", "linear_10pct"]

STAGES: tuple[Stage, ...] = ("autoencoder", "contrastive", "probe")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which pictures, and how they are read and split (paper Table 1, 3.3)."""

    sources: Annotated[tuple[str, ...], tyro.conf.Suppress] = ()
    """DATA: folders of pictures, a text or CSV list, or a named set with its root (`cifar10:ROOT`)."""
    labels: str = "auto"
    """`folders`: first-level folders are classes; `none`; or a CSV FILE `name,label`. auto: folders, unless pictures
    lie at the top."""
    split_seed: int = 0
    """Seed of the splits and of the label draws of few-label probes."""
    splits: Literal["house", "paper"] = "house"
    """`house`: official test split where there is one, val from train; `paper`: as the authors' code did."""
    size: int | Literal["auto"] = "auto"
    """Side of the square training pictures in pixels. auto: native if all pictures are one square size up to 128,
    else 128."""
    limit: int | None = None
    """Class-balanced subset of train + val of this many pictures; the test split is untouched."""
    normalize: bool = True
    """Z-score pictures (last step of the augmentation; also for features)."""
    statistics: Literal["train", "paper"] = "train"
    """Z-score statistics: pixels of the train split; or the authors' mean over pictures of each picture's own."""
    max_skipped: float = 0.05
    """Refuse to start when more than 10 files and more than this share of them cannot be read."""
    unlabelled: bool = False
    """Train on the set's unlabelled pictures too (stl10)."""
    annotation: Literal["manufacturer", "variant"] = "manufacturer"
    """Label level of fgvc-aircraft."""
    download: bool = False
    """Fetch a named set through torchvision when its files are missing."""
    detail: float = 1.0
    """Pixels kept on disk and in memory, per pixel of the training size, in a crop of the smallest scale; large
    photographs are stored no larger than that needs. 0: keep the native size."""
    memory_gib: float = 4.0
    """Decoded pictures up to this many GiB are held in memory; larger sets stay in a memory-mapped file."""
    cache_dir: str | None = None
    """Folder of decoded pictures. Unset: $HEADSTART_CACHE, else ~/.cache/headstart."""

    def __post_init__(self) -> None:
        check(self.size == "auto" or self.size >= 8, "data.size", self.size, "auto or at least 8 pixels")
        check(self.limit is None or self.limit >= 4, "data.limit", self.limit, "at least 4 pictures")
        check(0 <= self.max_skipped <= 1, "data.max-skipped", self.max_skipped, "a share from 0 to 1")
        check(self.memory_gib >= 0, "data.memory-gib", self.memory_gib, "0 or more GiB")
        check(self.detail >= 0, "data.detail", self.detail, "0 (native size) or a positive factor")


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """The feature extractor f (paper 3.1, 3.5)."""

    name: str = "resnet34"
    """Any torchvision classification network, or `timm:NAME` (extra `timm`)."""
    stem: Literal["imagenet", "cifar"] = "imagenet"
    """`cifar`: ResNets with a 3x3 stride-1 first convolution and no max-pooling."""
    weights: str = "none"
    """`none` (from scratch); `pretrained`, the library's default for that network (`imagenet` where it is that); a
    state-dict FILE; or a RUN of Headstart."""


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """The autoencoder whose embedding layer starts the head (paper 3.2, 3.3)."""

    kind: Literal["mlp", "deep", "conv", "denoising", "variational"] = "mlp"
    """`mlp` is the paper's; the others are its future work."""
    on: Literal["pixels", "features"] = "pixels"
    """What it reconstructs: the pictures (the paper), or the features h of the untrained backbone."""
    epochs: int = 100
    batch_size: int = 100
    lr: float = 1e-4
    """Adam's initial learning rate."""
    patience: int = 10
    """Epochs without a better validation loss before the learning rate is halved."""
    factor: float = 0.5
    """What the learning rate is multiplied by then."""
    normalize: bool = False
    """Z-score its pictures (paper contribution 5: this impairs it)."""
    weights: str | None = None
    """A FILE or RUN whose autoencoder is used; skips the training."""

    def __post_init__(self) -> None:
        check(self.epochs >= 1, "autoencoder.epochs", self.epochs, "at least 1")
        check(self.batch_size >= 1, "autoencoder.batch-size", self.batch_size, "at least 1")
        check(self.lr > 0, "autoencoder.lr", self.lr, "greater than 0")
        check(0 < self.factor < 1, "autoencoder.factor", self.factor, "between 0 and 1")
        check(self.patience >= 0, "autoencoder.patience", self.patience, "0 or more epochs")


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """The projection head g, and where its first layer comes from (paper 3.4)."""

    init: HeadInit = "autoencoder"
    frozen: bool = True
    """Keep the first layer as it starts. The paper's `mlp` is init random, not frozen."""
    activation: Activation = "relu"
    hidden_dim: int = 256
    """dim(g): output features of the first layer, and so the autoencoder's latent size."""
    output_dim: int = 128
    """dim(z)."""
    depth: int = 2
    """Linear layers, 1 to 4; 2 is the paper's."""
    batch_norm: bool = False
    """Batch norm after every layer but the last."""
    match_scale: bool = False
    """Rescale the first layer so that every init starts at the output scale of `random`."""
    pretrained: Literal["first", "all"] = "first"
    """How much of the head starts from the autoencoder."""
    unfreeze_at: float | None = None
    """Release a frozen first layer after this share of the SimCLR epochs (0 to 1). Unset: never."""

    def __post_init__(self) -> None:
        check(self.hidden_dim >= 1, "head.hidden-dim", self.hidden_dim, "at least 1")
        check(self.output_dim >= 1, "head.output-dim", self.output_dim, "at least 1")
        check(1 <= self.depth <= 4, "head.depth", self.depth, "1, 2, 3 or 4")
        check(
            self.unfreeze_at is None or (self.frozen and 0 <= self.unfreeze_at <= 1),
            "head.unfreeze-at",
            self.unfreeze_at,
            "a share from 0 to 1, of a head that starts frozen",
        )

    @property
    def needs_autoencoder(self) -> bool:
        """Whether this head is built from an embedding layer."""
        return self.init in ("autoencoder", "spectrum", "shuffled") or self.pretrained == "all"


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """The transformation family T (paper 3.1; values of design section 6, which are SimCLR's)."""

    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: tuple[float, float, float, float] = (0.8, 0.8, 0.8, 0.2)
    """Brightness, contrast, saturation, hue."""
    jitter_p: float = 0.8
    grey_p: float = 0.2
    blur_p: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    blur_kernel: int | None = None
    """Odd, in pixels. Unset: a tenth of the side, made odd."""

    def __post_init__(self) -> None:
        low, high = self.crop_scale
        check(0 < low <= high <= 1, "augment.crop-scale", self.crop_scale, "0 < smallest <= largest <= 1")
        low, high = self.crop_ratio
        check(0 < low <= high, "augment.crop-ratio", self.crop_ratio, "0 < smallest <= largest")
        for name in ("flip", "jitter_p", "grey_p", "blur_p"):
            value = getattr(self, name)
            check(0 <= value <= 1, f"augment.{name.replace('_', '-')}", value, "a probability from 0 to 1")
        check(
            min(self.jitter) >= 0 and self.jitter[3] <= 0.5,
            "augment.jitter",
            self.jitter,
            "four strengths of 0 or more, the last (hue) at most 0.5",
        )
        low, high = self.blur_sigma
        check(0 < low <= high, "augment.blur-sigma", self.blur_sigma, "0 < smallest <= largest")
        kernel = self.blur_kernel
        check(
            kernel is None or (kernel >= 1 and kernel % 2 == 1),
            "augment.blur-kernel",
            kernel,
            "an odd number of pixels",
        )


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig:
    """SimCLR's training of backbone and head (paper 3.5)."""

    epochs: int = 100
    batch_size: int | None = None
    """Pairs in the global batch. Unset: 256, or the largest power of two not above the training split."""
    lr: float | None = None
    """The peak learning rate itself. Unset: 0.3 batch_size / 256 (adamw: 0.001 batch_size / 256)."""
    optimizer: Literal["sgd", "adamw", "lars"] = "sgd"
    momentum: float = 0.9
    weight_decay: float = 1e-5
    decay_norms_and_biases: bool = False
    warmup_epochs: float | None = None
    """Linear warm-up. Unset: a tenth of the epochs, at most 10."""
    schedule: Literal["step", "epoch"] = "step"
    """Move along the cosine every step, or once an epoch (as the authors did)."""
    final_lr_fraction: float = 0.02
    """The cosine ends at this share of the peak (the paper's eta_min = lr / 50)."""
    temperature: float = 0.5
    passes: Literal[1, 2] = 1
    """Batch norm over both views, or one pass a view (as the authors did)."""
    chunk: int | None = None
    """Pairs held on the device at once; the loss still sees the whole batch (GradCache). Unset: all."""
    keep: Literal["last", "best"] = "last"
    """The weights a run ends with: of the last epoch, or of the lowest validation loss."""
    validation_views: Literal["augmented", "identical"] = "augmented"
    """Two augmented views with fixed draws, or the un-augmented picture twice (as the authors did)."""
    drop_last_validation: bool = False
    """Leave the last, smaller validation batch out (as the authors did)."""
    online_probe: bool = True
    """Train a linear classifier beside SimCLR, with no gradient into the backbone, to watch accuracy."""

    def __post_init__(self) -> None:
        check(self.epochs >= 1, "contrastive.epochs", self.epochs, "at least 1")
        check(
            self.batch_size is None or self.batch_size >= 2,
            "contrastive.batch-size",
            self.batch_size,
            "at least 2 pairs",
        )
        check(self.lr is None or self.lr > 0, "contrastive.lr", self.lr, "greater than 0")
        check(self.temperature > 0, "contrastive.temperature", self.temperature, "greater than 0")
        check(self.weight_decay >= 0, "contrastive.weight-decay", self.weight_decay, "0 or more")
        check(0 <= self.momentum < 1, "contrastive.momentum", self.momentum, "0 or more, below 1")
        check(
            0 <= self.final_lr_fraction <= 1,
            "contrastive.final-lr-fraction",
            self.final_lr_fraction,
            "a share from 0 to 1",
        )
        check(self.chunk is None or self.chunk >= 1, "contrastive.chunk", self.chunk, "at least 1 pair")
        check(
            self.warmup_epochs is None or self.warmup_epochs >= 0,
            "contrastive.warmup-epochs",
            self.warmup_epochs,
            "0 or more epochs",
        )

    @property
    def warmup(self) -> float:
        """Epochs of linear warm-up."""
        return min(10.0, self.epochs / 10) if self.warmup_epochs is None else self.warmup_epochs


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """How the representation h is judged (paper 3.6; design section 5)."""

    names: tuple[ProbeName, ...] = (
        "paper",
        "linear",
        "knn",
        "few_shot_1",
        "few_shot_5",
        "linear_1pct",
        "linear_10pct",
    )


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When the state of a running stage is saved. It never changes a result."""

    minutes: float = 0.5
    """Save whenever this many minutes have passed since the last save. 0: after every step."""
    epochs: int | None = None
    """Save at the end of every so many epochs as well."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """One run."""

    data: DataConfig = field(default_factory=DataConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    contrastive: ContrastiveConfig = field(default_factory=ContrastiveConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    seed: int = 0
    """Seed of the training: initial weights, order of pictures, augmentation."""
    stages: Stage = "probe"
    """Stop after this stage."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 where the device multiplies it natively."""
    threads: int | None = None
    """CPU threads. Unset: one per core."""
    loggers: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = ()
    """Where metrics go besides metrics.jsonl (extra `loggers`)."""

    def __post_init__(self) -> None:
        check(
            re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", self.device) is not None,
            "device",
            self.device,
            "auto, cpu, cuda, cuda:N or mps",
        )
        check(self.threads is None or self.threads >= 1, "threads", self.threads, "at least 1")
        check(self.seed >= 0, "seed", self.seed, "0 or more")


SECTIONS = tuple(f.name for f in fields(Config) if dataclasses.is_dataclass(f.default_factory))

NOT_HASHED = {
    "device",
    "threads",
    "loggers",
    "stages",
    "checkpoint",
    "data.sources",
    "data.download",
    "data.memory_gib",
    "data.cache_dir",
}
"""Where and how a run is computed and stored, not what it computes."""

YOUNGER: dict[str, Any] = {}
"""Settings that came after the hash, with their defaults: left out while they have them, so older runs keep theirs."""


def check(good: bool, name: str, value: object, right: str) -> None:
    """Raise `InputError` naming the option, the value received and what would be right."""
    if not good:
        raise InputError(f"{name} is {value}; it must be {right}")


# ---------------------------------------------------------------------------------------------------------- presets

TABLE_1 = {  # paper Table 1: training resolution and batch size
    "imagenette": (128, 392),
    "stl10": (96, 500),
    "cifar10": (32, 1280),
    "fgvc-aircraft": (128, 666),
    "cifar100": (32, 1280),
}


def paper(sources: tuple[str, ...] = ()) -> Config:
    """The authors' setting (design section 6, middle column), for a named set with Table 1's size and batch."""
    size, batch_size = TABLE_1.get(sources[0].split(":")[0] if sources else "", ("auto", None))
    return Config(
        data=DataConfig(sources=sources, size=size, splits="paper", statistics="paper", normalize=False),  # type: ignore[arg-type]
        backbone=BackboneConfig(name="resnet34", stem="imagenet", weights="imagenet"),
        contrastive=ContrastiveConfig(
            epochs=150,
            batch_size=batch_size,
            warmup_epochs=0,
            schedule="epoch",
            decay_norms_and_biases=True,
            passes=2,
            keep="best",
            validation_views="identical",
            drop_last_validation=True,
        ),
    )


PAPER_FOLDER_BATCH = 1280
"""The paper's batch where Table 1 names none; shrunk until one validation batch fits (paper 3.5)."""

PRESETS = {"paper": paper}


def preset(name: str | None, sources: tuple[str, ...] = ()) -> Config:
    """The named preset, or the house's defaults; raises InputError for an unknown name."""
    if name is None:
        return Config(data=DataConfig(sources=sources))
    check(name in PRESETS, "preset", name, f"one of {', '.join(PRESETS)}")
    return PRESETS[name](sources)


# ------------------------------------------------------------------------------------------- dictionaries, YAML, hash


LARGEST_YAML = 1_000_000
"""Values in a YAML file, each counted as often as it is referred to."""


class _Loader(yaml.SafeLoader):
    """YAML's safe subset, reading `1e-4` as the number YAML 1.2 says it is.

    References to references can make a few lines mean more values than fit in any memory; those are refused unread.
    """

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None and _values_in(node, {}) > LARGEST_YAML:
            raise yaml.YAMLError("its references mean more values than any setting has")
        return node


def _values_in(node: yaml.Node, known: dict[int, float]) -> float:
    """Values that a node stands for; infinitely many where it contains itself."""
    if id(node) not in known:
        known[id(node)] = math.inf
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        flat = (child for entry in children for child in (entry if isinstance(entry, tuple) else (entry,)))
        known[id(node)] = 1 + sum(_values_in(child, known) for child in flat)
    return known[id(node)]


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_yaml(path: str | Path) -> Any:
    """Parse a YAML file into plain values; no tag can build an object.

    Raises InputError naming the file (and the line) when it cannot be read or is not YAML.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        return yaml.load(text, Loader=_Loader)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        raise InputError(f"{path}{line} is not plain YAML: {getattr(error, 'problem', error)}") from None


def to_dict(config: Any) -> dict[str, Any]:
    """Nested plain dict of a config (tuples become lists), as written to config.yaml."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def to_yaml(config: Config, about: Mapping[str, Any]) -> str:
    """config.yaml: every setting, and under `about` what it was decided with (version, data fingerprint)."""
    return yaml.safe_dump({"about": dict(about), **to_dict(config)}, sort_keys=False, allow_unicode=True)


def load(path: str | Path, base: Config | None = None) -> tuple[Config, dict[str, Any]]:
    """A run's config.yaml, or a file with some of its settings, over `base`; and its `about`.

    Raises InputError naming the file: unreadable, not YAML, unknown keys, wrong values.
    """
    values = read_yaml(path) or {}
    if not isinstance(values, Mapping):
        raise InputError(f"{path} must hold options by section, such as `head: {{init: random}}`")
    about = values.get("about") or {}
    if not isinstance(about, Mapping):
        raise InputError(f"{path} holds about {about!r}; it must be names and values, or be left out")
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

    Every value goes through the same parser as a command-line option, so types, choices and ranges are checked.
    Raises InputError naming `where` and the key: unknown keys, wrong types, values out of range.
    """
    base = base or Config()
    if not isinstance(values, Mapping):
        raise InputError(f"{where} must hold options by section, such as `head: {{init: random}}`")
    sources = base.data.sources
    arguments: list[str] = []
    known = dict(flatten(to_dict(base)))
    for name, value in flatten(values):
        if name == "data.sources":
            sources = _sources(value, where)
        elif name not in known:
            raise InputError(f"{where} has the unknown key {name!r}{_nearest(name, known)}")
        else:
            arguments += _as_option(name, value)
    config = parse(arguments, base, where)
    return replace(config, data=replace(config.data, sources=sources))


def parse(arguments: list[str], base: Config, where: str = "option") -> Config:
    """A config from command-line options over `base`; raises InputError where tyro would print and exit."""
    import contextlib
    import io

    captured = io.StringIO()
    try:
        with contextlib.redirect_stderr(captured), contextlib.redirect_stdout(captured):
            return tyro.cli(Config, args=arguments, default=base, config=TYRO, console_outputs=True)
    except SystemExit:
        raise InputError(f"{where}: {_sentence(captured.getvalue())}") from None


TYRO = (tyro.conf.FlagConversionOff,)
"""Booleans of YAML files are values; the command line's flags are made in cli.py."""


def _sentence(boxed: str) -> str:
    """The one sentence inside tyro's drawn error box."""
    text = re.sub(r"\x1b\[[0-9;]*m|[╭╮╰╯│─]|-{5,}", " ", boxed)
    text = re.split(r"Argument helptext:|For full helptext", " ".join(text.split()))[0]
    text = re.sub(r"^(Parsing error|Value error|Invalid choice|Unrecognized options)\s*", "", text)
    return re.sub(r"^Error parsing [a-z]+: ", "", text).strip()


def _sources(value: Any, where: str) -> tuple[str, ...]:
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, (list, tuple)) or not all(isinstance(source, str) for source in listed):
        raise InputError(f"{where} holds data.sources {value!r}; it must be a folder, or a list of them")
    return tuple(listed)


def _as_option(name: str, value: Any) -> list[str]:
    option = f"--{name.replace('_', '-')}"
    if isinstance(value, (list, tuple)):
        return [option, *(str(v) for v in value)]
    return [option, str(value)]


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    return f" (perhaps you meant {close[0]!r})" if close else ""


def hash_of(config: Config, fingerprint: str) -> str:
    """16 hex digits that name what a run computes: its settings and its pictures, not where or how it runs."""
    decided = {name: value for name, value in flatten(to_dict(config)) if decides(name, value)}
    text = json.dumps([decided, fingerprint], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def decides(name: str, value: Any) -> bool:
    """Whether a setting has a part in what a run computes."""
    return not _unhashed(name) and not (name in YOUNGER and value == YOUNGER[name])


def differences(old: Config, new: Config) -> list[str]:
    """One line for every hashed setting in which two configs differ, as `name: old -> new`."""
    before, after = dict(flatten(to_dict(old))), dict(flatten(to_dict(new)))
    return [
        f"{name}: {before.get(name)} -> {after[name]}"
        for name in after
        if not _unhashed(name) and before.get(name) != after[name]
    ]


def _unhashed(name: str) -> bool:
    return name in NOT_HASHED or name.split(".")[0] in NOT_HASHED
