"""What Headstart's files hold, as types that their readers check (pydantic) and `result_schema` writes down.

A record may come from another version, another program or somebody who means harm: what readers rely on is named
here; other names are free.
"""

from typing import Annotated, Any, Literal, NotRequired, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from typing_extensions import TypeAliasType, TypedDict

SCHEMA = 1
"""Version of result.json."""

Text: TypeAlias = Annotated[str, Field(strict=True)]
Flag: TypeAlias = Annotated[bool, Field(strict=True)]
Whole: TypeAlias = Annotated[int, Field(strict=True, gt=-(2**53), lt=2**53)]
Number: TypeAlias = Annotated[float, Field(strict=True, gt=-1e100, lt=1e100)]
"""Beyond 1e100 a number is nobody's measurement, and arithmetic with it overflows."""
Names: TypeAlias = dict[Any, Any]
Interval: TypeAlias = tuple[Number, Number]
Channels: TypeAlias = tuple[Number, Number, Number]
Geometry = TypeAliasType(
    "Geometry", "dict[str, Text | Flag | Number | list[Number] | list[Interval] | Geometry | None]"
)


class _ProbeDetails(TypedDict, total=False):
    n_test: Whole | None
    correct: Whole | None
    confusion: list[list[Number]] | None
    most_confused: list[tuple[Text, Text, Whole]] | None


class AnyProbe(_ProbeDetails, total=False):
    """What one probe found, of an imported record."""

    accuracy: Number
    ci95: Interval | None


class ProbeShape(_ProbeDetails):
    """What one probe of a run of ours found."""

    accuracy: Number
    ci95: Interval


class AnyData(TypedDict, total=False):
    """The pictures, of an imported record."""

    name: Text | None
    size: Whole | None
    normalize: Flag
    classes: list[Text]
    train: Whole
    val: Whole
    test: Whole
    mean: Channels
    std: Channels


class Data(TypedDict):
    """The pictures of a run of ours."""

    name: Text
    fingerprint: Text
    size: Whole
    classes: list[Text]
    train: Whole
    val: Whole
    test: Whole
    mean: Channels
    std: Channels


class Backbone(TypedDict):
    """The network f."""

    name: Text
    num_features: NotRequired[Whole]


class Head(TypedDict):
    """The projection head g."""

    init: Text
    frozen: Flag
    activation: Text
    hidden_dim: Whole
    output_dim: Whole
    kind: NotRequired[Text]
    depth: NotRequired[Whole]
    batch_norm: NotRequired[Flag]
    unfreeze_at: NotRequired[Number | None]


class AutoencoderShape(TypedDict, total=False):
    """What the autoencoder reached."""

    test_mse: Number | None
    val_mse: Number | None
    best_epoch: Whole | None


class ContrastiveShape(TypedDict, total=False):
    """What SimCLR reached."""

    train_loss: Number | None
    val_loss: Number | None
    epochs: Whole | None
    singular_values: list[Number] | None
    warnings: list[Text]


class Imported(TypedDict, total=False):
    """Where an imported record comes from."""

    autoencoder: Text | None


Seals: TypeAlias = dict[str, Text]
"""By the name of a weights file without its ending: the digest in its metadata."""


class _Common(TypedDict):
    stage: Literal["autoencoder", "contrastive", "probe"]
    backbone: Backbone
    head: Head
    autoencoder: AutoencoderShape | None
    contrastive: ContrastiveShape | None
    geometry: Geometry
    seconds: dict[str, Number]
    imported: NotRequired[Imported]


class Record(_Common):
    """Any result.json, an imported one too."""

    data: AnyData
    probes: dict[str, AnyProbe]
    untrained: dict[str, AnyProbe]


class Result(_Common):
    """The result.json of a run of ours."""

    config_hash: Text
    data: Data
    probes: dict[str, ProbeShape]
    untrained: dict[str, ProbeShape]
    seals: NotRequired[Seals]


class Failed(TypedDict, total=False):
    """failed.json."""

    reason: Text


class Line(BaseModel):
    """A line of metrics.jsonl."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Text | Flag | Number | None]

    stage: Text = ""
    start: Text = ""
    epoch: Whole = 0
    step: Whole = 0


class GridFile(TypedDict):
    """What names the runs in a study.yaml."""

    data: Names
    factors: NotRequired[dict[Any, list["Level"] | Names] | None]
    seeds: list[Whole]
    exclude: NotRequired[list[Names] | None]
    added: NotRequired[Names | None]


class StudyShape(TypedDict, total=False):
    """What else a study's YAML may hold, where its reader checks no more than this."""

    preset: Text | None
    added: Names | None


class ConfigData(TypedDict, total=False):
    """`data` in a config.yaml."""

    sources: list[Text]
    normalize: Flag


class ConfigAutoencoder(TypedDict, total=False):
    """`autoencoder` in a config.yaml."""

    weights: Text | None


class ConfigFile(TypedDict, total=False):
    """What a report reads of a config.yaml, of any version."""

    seed: Whole
    data: ConfigData
    autoencoder: ConfigAutoencoder
    head: Names
    backbone: Names
    contrastive: Names
    augment: Names
    probe: Names
    about: Names


class ClassifierBackbone(TypedDict):
    """The network of a finetune.json."""

    name: Text
    stem: Text


class ClassifierRecord(TypedDict):
    """What finetune.json must tell to open a classifier."""

    backbone: ClassifierBackbone
    size: Whole
    classes: list[Text]
    mean: Channels | None
    std: Channels | None
    seals: NotRequired[Seals]


class EmbeddingsRecord(TypedDict):
    """What a file of embeddings says about itself."""

    run: Text
    weights: Text
    size: Whole
    mean: Channels | None
    std: Channels | None
    precision: Literal["float32", "bfloat16"]
    data: Names


class Timed(TypedDict, total=False):
    """What an estimate of time reads of a result.json."""

    seconds: dict[Any, Number] | None


class Stages(TypedDict, total=False):
    """stages.json: what the finished stages of a run under way found."""

    autoencoder: AutoencoderShape | None
    contrastive: ContrastiveShape | None
    head: Geometry | None
    seconds: dict[str, Number]


class Holder(TypedDict):
    """What a claim says of its holder."""

    token: Text
    host: Text
    space: Text
    pid: Whole
    started: Text | None
    epochs: NotRequired[dict[Any, Whole | None] | None]
    doing: NotRequired[Text]
    since: NotRequired[Text]


class Checkpoint(TypedDict):
    """What a checkpoint.pt holds."""

    stage: Text
    state: Names
    metrics: Whole
    seconds: NotRequired[Number]


class Choices(TypedDict):
    """By what a map is coloured: of each picture a position in `names`, -1 where it has none."""

    values: list[Whole]
    names: list[Text]


class Range(TypedDict):
    """By what a map is coloured: of each picture a number from `low` to `high`, none where there is none."""

    values: list[Number | None]
    low: Number
    high: Number


class MapOfPictures(TypedDict):
    """samples/map.json: of each picture on a map its name, its place in [0, 1] and its WebP in base64, or ''.

    `of` is how many pictures the set has.
    """

    of: Whole
    names: list[Text]
    x: list[Number]
    y: list[Number]
    colours: dict[str, Choices | Range]
    thumbnails: list[Text]


_Plain: TypeAlias = Text | Flag | Number | None
Level: TypeAlias = _Plain | Names | list[_Plain]

RECORD, RESULT = TypeAdapter[Any](Record), TypeAdapter[Any](Result)
TIMED, CLASSIFIER, FAILED = TypeAdapter[Any](Timed), TypeAdapter[Any](ClassifierRecord), TypeAdapter[Any](Failed)
LINE, CHECKPOINT, HOLDER = TypeAdapter[Any](Line), TypeAdapter[Any](Checkpoint), TypeAdapter[Any](Holder)
CONFIG, STUDY, GRID = TypeAdapter[Any](ConfigFile), TypeAdapter[Any](StudyShape), TypeAdapter[Any](GridFile)
NAMES, EMBEDDINGS, STAGES_DONE = TypeAdapter[Any](Names), TypeAdapter[Any](EmbeddingsRecord), TypeAdapter[Any](Stages)
MAP = TypeAdapter[Any](MapOfPictures)


def result_schema() -> dict[str, Any]:
    """The JSON Schema of the result.json of a run of ours."""
    return RESULT.json_schema()
