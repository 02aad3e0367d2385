"""The backbone for other people's code: torchvision and timm state dicts, ONNX, and a model card.

Comes in: a finished run. Goes out: one file that plain torchvision, timm or onnxruntime reads without Headstart, and
`MODEL_CARD.md` in the run folder. Nothing is kept before it was loaded back and gave the same features.
"""

import contextlib
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load as safetensors_load
from torch import Tensor, nn

from headstart import backbones
from headstart.backbones import check_exportable, exportable
from headstart.engine.device import Compute
from headstart.engine.randomness import generator
from headstart.engine.weights import to_bytes
from headstart.records import folder as runs
from headstart.records.errors import InputError, RunError
from headstart.records.version import __version__
from headstart.use.card import model_card
from headstart.use.load import Run

SUFFIXES = {"torchvision": (".safetensors", ".pt"), "timm": (".safetensors", ".pt"), "onnx": (".onnx",)}

STATE_DICT_TOLERANCE = 1e-5
ONNX_TOLERANCE = 1e-4
ONNX_BATCHES = (1, 7)
"""Batch sizes at which onnxruntime is compared with the backbone."""


def export(run: Run, format: str, out: str | Path, *, compute: Compute | None = None) -> Path:
    """Write the run's backbone for other tools, and RUN/MODEL_CARD.md.

    Args:
        format: `torchvision` or `timm`: a state dict without the classifier, `.safetensors` (metadata in the file) or
            `.pt` (metadata in FILE.pt.json beside it); `onnx`: input `pictures` (batch, 3, S, S) float32, Z-scored
            as the metadata say, output `features` (batch, num_features), for any batch.
        compute: where the backbone's features are computed, which the file, read on the CPU, must give. Unset: there.

    Returns:
        `out`.

    Raises:
        InputError: the network has no such counterpart, a wrong ending, a missing package.
        RunError: the file, loaded back, did not give the backbone's features; nothing is kept.
    """
    out = Path(out)
    settings = run.config.backbone
    check_exportable(settings.name, format)
    if out.suffix not in SUFFIXES[format]:
        raise InputError(f"--out {out} must end in {' or '.join(SUFFIXES[format])} for --format {format}")
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in run.backbone.state_dict().items()}
    name = counterpart(settings.name, format)
    # Pictures of different brightness and contrast, so that a network that ignores its input cannot pass.
    pictures = torch.randn(max(ONNX_BATCHES), 3, run.size, run.size, generator=generator(0, "export"))
    wanted = _features(run.backbone, pictures, compute.device if compute else "cpu")
    if format == "onnx":
        lines = onnx_lines(out.name, run.size)
        model = onnx_bytes(_plain_network(run, settings.name, plain), run.size, metadata(run, lines))
        for n in ONNX_BATCHES:
            _compare(onnx_features(model, pictures[:n]), wanted[:n], ONNX_TOLERANCE, f"onnxruntime at batch {n}")
        runs.write(out, model)
    else:
        lines = backbones.loading_lines(name, stem=settings.stem, size=run.size, file=out.name)
        if out.suffix == ".pt":
            lines = lines.replace("from safetensors.torch import load_file\n", "").replace(
                f"load_file({out.name!r})", f"torch.load({out.name!r}, weights_only=True)"
            )
        content, read = _state_dict_file(plain, out.suffix, metadata(run, lines))
        _compare(_features(_plain_network(run, name, read(content)), pictures), wanted, STATE_DICT_TOLERANCE, name)
        runs.write(out, content)
        if out.suffix == ".pt":
            runs.write_json(out.with_name(f"{out.name}.json"), metadata(run, lines))
    runs.write(run.folder.card, model_card(run, exportable(settings.name), out.name, lines))
    return out


def counterpart(backbone_name: str, format: str) -> str:
    """The name under which the other library knows the network."""
    plain = backbone_name.removeprefix(backbones.TIMM)
    return f"{backbones.TIMM}{plain}" if format == "timm" else plain if format == "torchvision" else backbone_name


def metadata(run: Run, lines: str) -> dict[str, str]:
    """What travels with the weights: what feeds them pictures, and the lines that load them. Values are JSON text."""
    settings = run.config.backbone
    return {
        "backbone": settings.name,
        "stem": settings.stem,
        "num_features": json.dumps(int(run.backbone.num_features)),  # type: ignore[arg-type]
        "size": json.dumps(run.size),
        "mean": json.dumps([0.0] * 3 if run.mean is None else [round(v, 6) for v in run.mean.tolist()]),
        "std": json.dumps([1.0] * 3 if run.std is None else [round(v, 6) for v in run.std.tolist()]),
        "config_hash": run.result["config_hash"],
        "headstart": __version__,
        "loading": lines,
    }


def _plain_network(run: Run, name: str, tensors: dict[str, Tensor]) -> nn.Module:
    """The network without anything of Headstart's in it: plain convolutions, so that every tool can read it."""
    settings = run.config.backbone
    network = backbones.build(name, stem=settings.stem, size=run.size, generator=generator(0, "export"))
    network.load_state_dict(tensors)
    return network.eval()


def _state_dict_file(
    tensors: dict[str, Tensor], suffix: str, about: dict[str, str]
) -> tuple[bytes, Callable[[bytes], dict[str, Tensor]]]:
    """A file's bytes and what reads them back."""
    if suffix == ".safetensors":
        return to_bytes(tensors, about), safetensors_load
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return buffer.getvalue(), lambda content: torch.load(io.BytesIO(content), weights_only=True)


@torch.no_grad()
def _features(network: nn.Module, pictures: Tensor, device: torch.device | str = "cpu") -> np.ndarray:
    return network.to(device).eval()(pictures.to(device)).cpu().numpy()


def _compare(found: np.ndarray, wanted: np.ndarray, tolerance: float, who: str) -> None:
    """Refuse features that differ by more than `tolerance` times the largest feature."""
    scale = float(np.abs(wanted).max())
    error = float(np.abs(found - wanted).max()) / scale if found.shape == wanted.shape else float("inf")
    if not error <= tolerance:
        raise RunError(
            f"{who} gives other features than the backbone ({error:.2g} off, {tolerance:g} allowed); not kept"
        )


# -------------------------------------------------------------------------------------------------------------- ONNX


def onnx_bytes(network: nn.Module, size: int, about: dict[str, str]) -> bytes:
    """An ONNX file of `network`, weights inside, with a batch axis of any length and `about` in its metadata.

    Raises InputError without the extra `onnx`, RunError where torch's exporter fails.
    """
    _need_onnx()
    example = torch.zeros(2, 3, size, size)
    with _silence():
        try:
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                verbose=False,
                input_names=["pictures"],
                output_names=["features"],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            )
        except Exception as error:  # the exporter and what it calls raise many kinds
            raise RunError(f"torch cannot export this network as onnx: {str(error).splitlines()[0]}") from error
        assert program is not None
        model = program.model_proto
    for key, value in about.items():
        model.metadata_props.add(key=key, value=value)
    return model.SerializeToString()


def onnx_features(model: bytes, pictures: Tensor) -> np.ndarray:
    """What onnxruntime computes, on the CPU."""
    _need_onnx()
    import onnxruntime  # noqa: PLC0415 - an extra

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(["features"], {"pictures": pictures.numpy()})[0]


def onnx_lines(file: str, size: int) -> str:
    """Plain Python that runs the ONNX file."""
    return "\n".join(
        [
            "import onnxruntime",
            f"session = onnxruntime.InferenceSession({file!r})",
            f"# pictures: float32 (N, 3, {size}, {size}), Z-scored",
            'features = session.run(["features"], {"pictures": pictures})[0]',
        ]
    )


def _need_onnx() -> None:
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"--format onnx needs {', '.join(missing)}; install with `pip install 'headstart[onnx]'`")


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporter's progress and advice off the screen; its errors still come as exceptions."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
