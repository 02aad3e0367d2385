"""Which networks torch's exporter gets right: one of each family, exported to ONNX and compared in onnxruntime.

`python -m benchmarks exports [NAME ...]`. What fails here has to be refused in
`headstart/backbones/formats.py`.
"""

import argparse
from collections.abc import Sequence

import numpy as np
import torch

from benchmarks import common
from headstart import backbones
from headstart.records.errors import InputError, RunError
from headstart.use.export import ONNX_BATCHES, ONNX_TOLERANCE, onnx_bytes, onnx_outputs

FAMILIES = (
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "mnasnet1_0",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_x_400mf",
    "regnet_y_400mf",
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "shufflenet_v2_x1_0",
    "squeezenet1_1",
    "swin_t",
    "swin_v2_t",
    "vgg11",
    "vgg11_bn",
    "vit_b_16",
    "wide_resnet50_2",
    "timm:resnet18",
    "timm:convnext_atto",
    "timm:efficientnet_b0",
    "timm:vit_tiny_patch16_224",
)
SIZES = (64, 224)
"""The smallest that the network takes is used."""


def main(argv: Sequence[str]) -> None:
    """Print the largest relative error of each network."""
    parser = argparse.ArgumentParser(
        prog="benchmarks exports", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=FAMILIES)
    print(common.machine("cpu"))
    print("| network | px | largest error / largest feature | |\n| --- | --- | --- | --- |")
    for name in parser.parse_args(argv).names:
        network, size = build(name)
        pictures = torch.randn(max(ONNX_BATCHES), 3, size, size, generator=torch.Generator().manual_seed(0))
        try:
            model = onnx_bytes(network, size, {})
            with torch.no_grad():
                wanted = network(pictures).numpy()
            found = [np.abs(onnx_outputs(model, pictures[:n]) - wanted[:n]).max() for n in ONNX_BATCHES]
            error = float(max(found) / np.abs(wanted).max())
            print(f"| {name} | {size} | {error:.1e} | {'good' if error <= ONNX_TOLERANCE else 'WRONG'} |", flush=True)
        except RunError as failure:
            print(f"| {name} | {size} | | FAILS: {failure} |", flush=True)


def build(name: str) -> tuple[torch.nn.Module, int]:
    """The network with random weights, and the size it was built for."""
    for size in SIZES:
        try:
            return backbones.build(name, size=size, generator=torch.Generator().manual_seed(0)).eval(), size
        except InputError:
            continue
    raise InputError(f"{name} takes none of the sizes {SIZES}")
