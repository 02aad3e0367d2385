"""What the runs of a study share: an autoencoder, the probes of the network before SimCLR, and what names them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from headstart.records.cluster import RayOptions
from headstart.records.config import Config, hash_of
from headstart.records.validation import Amount, NotNegative, settings
from headstart.study.file import Planned, StudyOptions
from headstart.study.progress import AUTOENCODER


def autoencoder_config(config: Config) -> Config:
    """The run that trains the autoencoder of `config`: what it depends on is kept, all else is the house's default, so
    that runs which differ elsewhere share it."""
    on_features = config.autoencoder.on == "features"
    house = Config()
    data = replace(config.data, detail=house.data.detail)
    if not on_features:
        data = replace(data, normalize=house.data.normalize)
        data = data if config.autoencoder.normalize else replace(data, statistics=house.data.statistics)
    looks_at_weights = on_features or "backbone" in (data.statistics, data.interpolation)
    return replace(
        config,
        stages="autoencoder",
        data=data,
        backbone=config.backbone if looks_at_weights else replace(config.backbone, weights=house.backbone.weights),
        head=replace(house.head, hidden_dim=config.head.hidden_dim),
        contrastive=house.contrastive,
        augment=house.augment,
        probe=house.probe,
    )


def trains_autoencoder(config: Config) -> bool:
    """Whether the run needs an autoencoder that is not there yet as a file."""
    wanted = config.needs_autoencoder
    return wanted and config.autoencoder.weights is None


def autoencoder_hash(config: Config, fingerprint: str) -> str:
    """Names the autoencoder of `config` by content: pictures, latent size, seed and every setting it depends on."""
    return hash_of(autoencoder_config(config), fingerprint)


def before_hash(config: Config, fingerprint: str, given: str | None) -> str:
    """Names what is found of the backbone before SimCLR in the same way; no head has a part in it.

    given: a name of the weights' content (`backbones.given_as`), which their place does not tell.
    """
    house = Config()
    neutral = replace(config, head=house.head, autoencoder=house.autoencoder, contrastive=house.contrastive)
    return hash_of(neutral, f"{fingerprint} {given}" if given else fingerprint)


def autoencoder_name(config: Config, label: str, digest: str) -> str:
    """The folder of the autoencoder's own run."""
    return f"{AUTOENCODER}{label}-h{config.head.hidden_dim}-seed{config.seed}-{digest[:8]}"


def autoencoders_of(planned: Sequence[Planned]) -> dict[str, Planned]:
    """One run for every autoencoder that the study needs; the pictures are known by their label here."""
    needed: dict[str, Planned] = {}
    for run in planned:
        if trains_autoencoder(run.config):
            needed.setdefault(autoencoder_hash(run.config, run.point.data), run)
    return needed


@settings("")
class RunOptions(StudyOptions):
    """How a study is run; `headstart study run` has the same options."""

    executor: Literal["local", "ray"] = "local"
    """local, or ray: a local or existing Ray cluster (extra `ray`)."""
    workers: NotNegative = 1
    """Processes on this machine, which take its GPUs in turns; 0: all in this one."""
    retry_failed: bool = False
    """Do failed runs once more."""
    max_seconds: Amount | None = None
    """Save and stop (exit 75, `Interrupted`) after this many seconds."""
    keep: Literal["all", "records"] = "all"
    """records removes weights and checkpoints of finished runs."""
    ray: RayOptions = RayOptions()


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every process of a study is told.

    Attributes:
        deadline: in seconds since the epoch, as other machines know it.
        folder: relative names in settings, such as a file of weights, are of here.
        sharers: processes that share a device, of which each counts with its share of the memory.
    """

    out: str
    folder: str
    plugins: tuple[str, ...]
    threads: int | None
    device: str
    keep: Literal["all", "records"]
    deadline: float | None
    quiet: bool
    bars: bool = True
    sharers: int = 1
