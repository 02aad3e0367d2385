"""`headstart doctor`: what a bug report needs, and nothing that names a person or a folder of theirs."""

import importlib.metadata
import os
import platform
import shutil
from pathlib import Path

import torch

from headstart.engine.device import available_cores, choose
from headstart.records.version import __version__

EXTRAS = ("timm", "ray", "onnx", "onnxruntime", "pyarrow", "pillow-heif", "tensorboard", "mlflow", "wandb")
CORE = ("torchvision", "numpy", "scikit-learn", "scipy", "pandas", "pillow", "safetensors", "tyro")


def describe() -> dict[str, str]:
    """Names and values, in the order in which they help."""
    compute = choose()
    device = str(compute.device)
    if compute.device.type == "cuda":
        free, total = torch.cuda.mem_get_info()
        device = f"{torch.cuda.get_device_name()}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    return {
        "headstart": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "torch": f"{torch.__version__} (CUDA {torch.version.cuda or 'none'})",
        "device": device,
        "precision": f"{compute.precision} (chosen by auto)",
        "processor": f"{available_cores()} cores, {torch.backends.cpu.get_cpu_capability()}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "free disk": f"{shutil.disk_usage(Path.cwd()).free / 2**30:.0f} GiB here",
        "core": _versions(CORE),
        "extras": _versions(EXTRAS) or "none",
    }


def _versions(names: tuple[str, ...]) -> str:
    found = []
    for name in names:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)
