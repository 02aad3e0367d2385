"""Everything that is chosen by name, registered once: options, --help, figures, tables and sentences follow from it.

A choice says its name, how people read it, one line of help, and what implements it: a function, or
`"module:function"`, which is imported when it is first used, so that nothing here imports torch. To add one, add its
line below (or call `REGISTRY.register(...)` while the program runs) and write the function that it names. The order of
a registry is the order in which people read it.
"""

import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from headstart.records.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Something that a user chooses by name.

    Attributes:
        name: as options and files have it: small letters, digits, `_` and `-`.
        help: one line.
        label: as figures, tables and sentences have it; the name where empty.
        make: what implements it, or where: `"module:function"`. What it is called with is the registry's own.
    """

    name: str
    help: str
    label: str = ""
    make: Callable[..., Any] | str = ""

    @property
    def shown(self) -> str:
        """How people read it."""
        return self.label or self.name

    def made(self) -> Any:
        """What implements it, imported now."""
        if not isinstance(self.make, str):
            return self.make
        module, _, name = self.make.partition(":")
        return getattr(importlib.import_module(module), name)


@dataclass(frozen=True, kw_only=True)
class HeadInit(Choice):
    """Where a head's first layer comes from. `make(start: heads.Start)` gives weight and bias.

    Attributes:
        from_embedding: whether it is made from an autoencoder's embedding layer.
        colour: on a light and on a dark page.
        shape: of its mark; empty: the next free one.
        distance: from plain SimCLR's. Of two heads that are compared, the one further away is named first.
    """

    from_embedding: bool = False
    colour: tuple[str, str] = ("#1d2327", "#e6e9eb")
    shape: str = ""
    distance: int = 9


@dataclass(frozen=True, kw_only=True)
class Probe(Choice):
    """A judge of a frozen representation. `make(task: probes.Task)` gives its result.

    Attributes:
        rank: of the probes that runs have, the lowest decides, and their tables and answers use it (in the paper's own
            study, its probe does).
    """

    rank: int = 9


@dataclass(frozen=True, kw_only=True)
class NamedSet(Choice):
    """A data set with a name. `make(root: Path, data: DataConfig)` gives its `Source`.

    Attributes:
        train: official training pictures.
        side: of its pictures in pixels, where all have one; else 128, to which others are squashed.
        test: pictures of the official test split.
        paper: training size and batch of the paper's Table 1; None for a set that the paper does not have.
        archive: the address of its published files; empty for a set that comes with a library.
        md5: of that archive; None where none was published.
        mirrored: whether a mirrored picture of it is still what it was.
    """

    train: int | None = None
    test: int | None = None
    side: int = 128
    paper: tuple[int, int] | None = None
    archive: str = ""
    md5: str | None = None
    mirrored: bool = True


C = TypeVar("C", bound=Choice)


class _PlainText(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, str)


class Chosen(str, metaclass=_PlainText):
    """The type of a setting that holds a name of `registry`: `init: HeadInitName`. A value is a plain str."""

    registry: ClassVar["Names[Any]"]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema  # noqa: PLC0415 - only settings need it

        return core_schema.no_info_after_validator_function(cls._known, core_schema.str_schema())

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        return {"type": "string", "enum": list(cls.registry)}

    @classmethod
    def _known(cls, name: str) -> str:
        if name not in cls.registry:
            raise ValueError(cls.registry.right)
        return name


class Names(Mapping[str, C], Generic[C]):
    """The choices of one kind: a mapping from name to choice, in reading order.

    Args:
        what: the option that chooses, such as `head.init`; it stands in error sentences.
    """

    def __init__(self, what: str, *choices: C) -> None:
        self.what = what
        self.type: Any = _PlainText("Chosen", (Chosen,), {"registry": self})
        self._choices: dict[str, C] = {}
        for choice in choices:
            self.register(choice)

    def register(self, choice: C) -> None:
        """Add a choice; raises InputError for a name that is taken, or that options and files cannot hold."""
        if not re.fullmatch(r"[a-z][a-z0-9_-]*", choice.name):
            raise InputError(
                f"{self.what} {choice.name!r} cannot be registered; a name is small letters, digits, _ and -"
            )
        if choice.name in self._choices:
            raise InputError(f"{self.what} {choice.name} is registered already; give another name")
        self._choices[choice.name] = choice

    @property
    def right(self) -> str:
        """What a value must be, for a sentence."""
        return f"one of {', '.join(self)}"

    def known(self, name: str) -> C:
        """The choice of that name; raises InputError naming the option, the value and what there is."""
        if name not in self._choices:
            raise InputError(f"{self.what} is {name!r}; it must be {self.right}")
        return self._choices[name]

    def shown(self, name: str) -> str:
        """How people read a name; a name that a record holds and nobody registered is shown as it is."""
        return self._choices[name].shown if name in self._choices else name

    def place(self, name: str) -> int:
        """Where a name stands in reading order; unregistered ones stand last."""
        return list(self).index(name) if name in self._choices else len(self)

    def lines(self) -> str:
        """`name: help`, a line each, for an option's help."""
        return "\n".join(f"{name}: {choice.help}" for name, choice in self.items())

    def __getitem__(self, name: str) -> C:
        return self._choices[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._choices)

    def __len__(self) -> int:
        return len(self._choices)


# -------------------------------------------------------------------------------------------------------- what there is

HEAD_INITS = Names(
    "head.init",
    HeadInit(
        name="random",
        help="the layer's own default init (trainable: the paper's mlp)",
        make="headstart.heads:as_given",
        colour=("#c44e00", "#ff9257"),
        shape="square",
        distance=0,
    ),
    HeadInit(
        name="autoencoder",
        help="a pretrained autoencoder's embedding layer (frozen: the paper's ae)",
        make="headstart.heads:as_given",
        from_embedding=True,
        colour=("#0067b0", "#62b5f5"),
        shape="circle",
        distance=5,
    ),
    HeadInit(
        name="orthogonal",
        help="a random (semi-)orthogonal matrix: full-rank geometry alone",
        make="headstart.heads:orthogonal",
        colour=("#00805c", "#41cf9f"),
        shape="triangle",
        distance=2,
    ),
    HeadInit(
        name="spectrum",
        help="the embedding layer's singular values in random bases: its spectrum without its directions",
        make="headstart.heads:spectrum",
        from_embedding=True,
        colour=("#a8457f", "#eca4d0"),
        shape="diamond",
        distance=4,
    ),
    HeadInit(
        name="shuffled",
        help="the embedding layer's entries, permuted: its distribution without spectrum or directions",
        make="headstart.heads:shuffled",
        from_embedding=True,
        colour=("#806600", "#e3c74a"),
        shape="down",
        distance=3,
    ),
    HeadInit(
        name="pca",
        help="principal directions of the backbone's features before SimCLR: the data without an autoencoder",
        make="headstart.heads:pca",
        colour=("#4d4d4d", "#b9b9b9"),
        shape="hexagon",
        distance=1,
    ),
)

ACTIVATIONS = Names(
    "head.activation",
    Choice(name="relu", label="ReLU", help="the paper's default", make="torch.nn:ReLU"),
    Choice(name="silu", label="SiLU", help="x sigmoid(x)", make="torch.nn:SiLU"),
    Choice(name="sigmoid", label="Sigmoid", help="1 / (1 + exp(-x))", make="torch.nn:Sigmoid"),
    Choice(name="tanh", label="Tanh", help="hyperbolic tangent", make="torch.nn:Tanh"),
    Choice(name="gelu", label="GELU", help="x times the normal distribution's share below x", make="torch.nn:GELU"),
    Choice(name="leaky_relu", label="LeakyReLU", help="ReLU with slope 0.01 below zero", make="torch.nn:LeakyReLU"),
    Choice(name="identity", label="Identity", help="none: a linear head", make="torch.nn:Identity"),
)
"""As the paper writes them, in its order, then the others."""

PROBES = Names(
    "probe.names",
    Probe(
        name="paper",
        label="the paper's probe",
        help="section 3.6 as run: SGD on the test split's features, split 70/10/20 again",
        make="headstart.evaluate.probes:paper",
        rank=6,
    ),
    Probe(
        name="linear",
        label="linear probe",
        help="L-BFGS logistic regression on standardised train features, C chosen on val",
        make="headstart.evaluate.probes:linear",
        rank=0,
    ),
    Probe(
        name="knn",
        label="k nearest neighbours",
        help="cosine, k 20, weights exp(similarity / 0.1)",
        make="headstart.evaluate.probes:knn",
        rank=1,
    ),
    Probe(
        name="few_shot_1",
        label="1 label a class",
        help="one labelled train picture a class, mean of eight draws",
        make="headstart.evaluate.probes:one_shot",
        rank=3,
    ),
    Probe(
        name="few_shot_5",
        label="5 labels a class",
        help="five labelled train pictures a class, mean of eight draws",
        make="headstart.evaluate.probes:five_shot",
        rank=2,
    ),
    Probe(
        name="linear_1pct",
        label="linear probe, 1 % of the labels",
        help="as linear with 1 % of the train labels, mean of eight draws",
        make="headstart.evaluate.probes:one_percent",
        rank=5,
    ),
    Probe(
        name="linear_10pct",
        label="linear probe, 10 % of the labels",
        help="as linear with 10 % of the train labels, mean of eight draws",
        make="headstart.evaluate.probes:ten_percent",
        rank=4,
    ),
)

SETS = Names(
    "DATA",
    NamedSet(
        name="imagenette",
        label="Imagenette",
        help="10 easy classes of ImageNet",
        make="headstart.data.named:imagenette",
        train=9469,
        test=3925,
        paper=(128, 392),
        archive="https://s3.amazonaws.com/fast-ai-imageclas/imagenette2.tgz",
        md5="fe2fc210e6bb7c5664d602c3cd71e612",
    ),
    NamedSet(
        name="stl10",
        label="STL10",
        help="10 classes, 96 pixels, 100,000 unlabelled pictures besides",
        make="headstart.data.named:stl10",
        train=5000,
        test=8000,
        side=96,
        paper=(96, 500),
        archive="http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
        md5="91f7769df0f17e558f3565bffb0c7dfb",
    ),
    NamedSet(
        name="cifar10",
        label="CIFAR10",
        help="10 classes, 32 pixels",
        make="headstart.data.named:cifar10",
        train=50_000,
        test=10_000,
        side=32,
        paper=(32, 1280),
        archive="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        md5="c58f30108f718f92721af3b95e74349a",
    ),
    NamedSet(
        name="fgvc-aircraft",
        label="FGVCAircraft",
        help="aircraft by manufacturer (30) or variant (100)",
        make="headstart.data.named:fgvc_aircraft",
        train=6667,
        test=3333,
        paper=(128, 666),
        archive="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
    ),
    NamedSet(
        name="cifar100",
        label="CIFAR100",
        help="100 classes, 32 pixels",
        make="headstart.data.named:cifar100",
        train=50_000,
        test=10_000,
        side=32,
        paper=(32, 1280),
        archive="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        md5="eb9058c3a382ffc7106e4002c42a8d85",
    ),
    NamedSet(
        name="digits",
        mirrored=False,
        help="the 1,797 handwritten digits that come with scikit-learn",
        make="headstart.data.named:digits",
        train=1797,
        side=32,
    ),
)
"""The paper's in the order of its tables, then the others."""

AUTOENCODER_KINDS = Names(
    "autoencoder.kind",
    Choice(
        name="mlp",
        help="the paper's: one hidden layer, one embedding layer",
        make="headstart.autoencoders:Autoencoder",
    ),
    Choice(name="deep", help="more hidden layers", make="headstart.autoencoders:Deep"),
    Choice(name="conv", help="convolutions in place of the hidden layer", make="headstart.autoencoders:Convolutional"),
    Choice(name="denoising", help="mlp that reconstructs from noisy pictures", make="headstart.autoencoders:Denoising"),
    Choice(name="variational", help="mlp whose embedding is a distribution", make="headstart.autoencoders:Variational"),
)
"""Networks (in_features, hidden_features, latent_dim, on, generator) -> an `Autoencoder`."""

STEMS = Names(
    "backbone.stem",
    Choice(name="imagenet", help="the network's own"),
    Choice(name="cifar", help="ResNets: a 3x3 stride-1 first convolution, no max-pooling"),
)

OPTIMIZERS = Names(
    "contrastive.optimizer",
    Choice(name="sgd", help="SGD with momentum, the paper's", make="headstart.training.optimizers:sgd"),
    Choice(name="adamw", help="Adam with decoupled weight decay", make="headstart.training.optimizers:adamw"),
    Choice(name="lars", help="SGD scaled layer by layer, for large batches", make="headstart.training.optimizers:lars"),
)

OBJECTIVES = Names(
    "contrastive.objective",
    Choice(name="nt_xent", help="the paper's and SimCLR's", label="NT-Xent", make="headstart.objectives:of_nt_xent"),
    Choice(
        name="vicreg", help="variance, invariance, covariance", label="VICReg", make="headstart.objectives:of_vicreg"
    ),
    Choice(
        name="barlow",
        help="views correlate, features do not",
        label="Barlow Twins",
        make="headstart.objectives:of_barlow",
    ),
    Choice(
        name="sigreg",
        help="LeJEPA's: projections like a Gaussian",
        label="SIGReg",
        make="headstart.objectives:of_sigreg",
    ),
)

LOGGERS = Names(
    "loggers",
    Choice(name="tensorboard", help="event files below loggers/", make="headstart.engine.loggers:TensorBoard"),
    Choice(name="mlflow", help="an sqlite store below loggers/", make="headstart.engine.loggers:MLflow"),
    Choice(name="wandb", help="Weights & Biases, offline: `wandb sync` uploads", make="headstart.engine.loggers:WandB"),
)

FORMATS = Names(
    "--format",
    Choice(name="torchvision", help="a state dict with torchvision's names"),
    Choice(name="timm", help="a state dict with timm's names"),
    Choice(name="onnx", help="a network for other runtimes (extra `onnx`)"),
)

if TYPE_CHECKING:
    HeadInitName = str
    ActivationName = str
    ProbeName = str
    AutoencoderKind = str
    Stem = str
    OptimizerName = str
    ObjectiveName = str
    Format = str
    LoggerName = str
else:
    HeadInitName, ActivationName, ProbeName = HEAD_INITS.type, ACTIVATIONS.type, PROBES.type
    AutoencoderKind, Stem, OptimizerName, Format = AUTOENCODER_KINDS.type, STEMS.type, OPTIMIZERS.type, FORMATS.type
    LoggerName, ObjectiveName = LOGGERS.type, OBJECTIVES.type
