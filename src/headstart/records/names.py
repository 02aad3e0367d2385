"""Everything that is chosen by name, registered once: options, --help, figures, tables and sentences follow from it.

A choice says its name, how people read it, one line of help, and what implements it: a function, or
`"module:function"`, which is imported when it is first used, so that nothing here imports torch. To add one, add its
line below (or call `REGISTRY.register(...)` while the program runs) and write the function that it names. The order of
a registry is the order in which people read it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headstart.records.registry import Choice, Chosen, Names, own


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
    """A judge of a frozen representation. `make(task: probes.Task)` gives its result, or scores.

    Attributes:
        rank: of the probes that runs have, the lowest decides where study.yaml names none, and their tables and
            answers use it (in the paper's own study, its probe does).
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


__all__ = ["Choice", "Chosen", "Names", "own"]

# -------------------------------------------------------------------------------------------------------- what there is

HEAD_INITS = Names(
    "head.init",
    HeadInit(
        name="random",
        help="the layer's own default init (trainable: the paper's mlp)",
        make="headstart.heads.starts:as_given",
        colour=("#c44e00", "#ff9257"),
        shape="square",
        distance=0,
    ),
    HeadInit(
        name="autoencoder",
        help="a pretrained autoencoder's embedding layer (frozen: the paper's ae)",
        make="headstart.heads.starts:as_given",
        from_embedding=True,
        colour=("#0067b0", "#62b5f5"),
        shape="circle",
        distance=5,
    ),
    HeadInit(
        name="orthogonal",
        help="a random (semi-)orthogonal matrix: full-rank geometry alone",
        make="headstart.heads.starts:orthogonal",
        colour=("#00805c", "#41cf9f"),
        shape="triangle",
        distance=2,
    ),
    HeadInit(
        name="spectrum",
        help="the embedding layer's singular values in random bases: its spectrum without its directions",
        make="headstart.heads.starts:spectrum",
        from_embedding=True,
        colour=("#a8457f", "#eca4d0"),
        shape="diamond",
        distance=4,
    ),
    HeadInit(
        name="shuffled",
        help="the embedding layer's entries, permuted: its distribution without spectrum or directions",
        make="headstart.heads.starts:shuffled",
        from_embedding=True,
        colour=("#806600", "#e3c74a"),
        shape="down",
        distance=3,
    ),
    HeadInit(
        name="pca",
        help="principal directions of the backbone's features before SimCLR: the data without an autoencoder",
        make="headstart.heads.starts:pca",
        colour=("#4d4d4d", "#b9b9b9"),
        shape="hexagon",
        distance=1,
    ),
)


def from_embedding(init: str | None) -> bool:
    """Whether a layer of this init is made from an autoencoder's embedding layer."""
    return init is not None and init in HEAD_INITS and HEAD_INITS[init].from_embedding


HEAD_KINDS = Names(
    "head.kind",
    Choice(name="mlp", help="the paper's: Linear, activation, Linear", make="headstart.heads.kinds:mlp"),
    Choice(
        name="attention",
        help="the first layer gives a token for each part of h, transformer blocks exchange, a last layer reads their "
        "sum",
        make="headstart.heads.attention:of",
    ),
)
"""Networks (in_features, settings, generator) -> a module from h to z; docs/heads.md."""

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

HUB = "hf"
"""DATA that begins so, and a colon, lies on Hugging Face's hub of data sets."""

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
        make="headstart.autoencoders.networks:Autoencoder",
    ),
    Choice(name="deep", help="more hidden layers", make="headstart.autoencoders.kinds:Deep"),
    Choice(
        name="conv", help="convolutions in place of the hidden layer", make="headstart.autoencoders.kinds:Convolutional"
    ),
    Choice(
        name="denoising",
        help="mlp that reconstructs from noisy pictures",
        make="headstart.autoencoders.kinds:Denoising",
    ),
    Choice(
        name="variational",
        help="mlp whose embedding is a distribution",
        make="headstart.autoencoders.kinds:Variational",
    ),
    Choice(
        name="masked",
        help="a transformer that sees a quarter of the patches, and is asked for the others",
        make="headstart.autoencoders.masked:Masked",
    ),
    Choice(
        name="sparse",
        help="mlp that may use only the largest tenth of the embedding",
        make="headstart.autoencoders.kinds:Sparse",
    ),
)
"""Networks (in_features, hidden_features, latent_dim, on, generator) -> an `Autoencoder`."""

BACKBONES: Names[Choice] = Names("backbone.name")
"""A user's own networks (size) -> a module from pictures to h, beside torchvision's and timm's."""

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
    Choice(name="hub", help="a folder that timm and hubs of models load: weights, config, card (extra `timm`)"),
)

if TYPE_CHECKING:
    HeadInitName = str
    HeadKind = str
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
    LoggerName, ObjectiveName, HeadKind = LOGGERS.type, OBJECTIVES.type, HEAD_KINDS.type
