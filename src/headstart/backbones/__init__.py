"""The feature extractor f: torchvision's or timm's networks without their classifier (paper 3.1, 3.5).

Comes in: a name, a stem, weights, a random generator. Goes out: the network itself, whose last Linear layer became
nn.Identity, so that its state dict loads into the plain network and lacks that layer alone.
"""

from headstart.backbones.formats import check_exportable, exportable, loading_lines
from headstart.backbones.networks import TIMM, last_linear_name, num_features, register, sketch
from headstart.backbones.preprocessing import described, expected, settled, trained_with, zscores
from headstart.backbones.weights import FETCHED, build, cached, check, check_given, given_as, recognise

__all__ = [
    "FETCHED",
    "TIMM",
    "build",
    "cached",
    "check",
    "check_exportable",
    "check_given",
    "described",
    "expected",
    "exportable",
    "given_as",
    "last_linear_name",
    "loading_lines",
    "num_features",
    "recognise",
    "register",
    "settled",
    "sketch",
    "trained_with",
    "zscores",
]
