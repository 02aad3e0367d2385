"""Backbones and classifiers for other people's code: torchvision and timm state dicts, ONNX, and a model card.

Comes in: a finished run, or a classifier's folder. Goes out: one file that plain torchvision, timm or onnxruntime reads
without Headstart, and `MODEL_CARD.md` in the run folder. Nothing is kept before it was loaded back and gave the same.
"""

import contextlib
import importlib.util
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load as safetensors_load
from torch import Tensor, nn

from headstart import backbones
from headstart.backbones import check_exportable, exportable
from headstart.backbones.networks import timm
from headstart.data.prepare import how
from headstart.engine.device import Compute
from headstart.engine.randomness import generator
from headstart.engine.weights import to_bytes
from headstart.records import files
from headstart.records.config import DataConfig
from headstart.records.errors import InputError, RunError
from headstart.records.folder import RunFolder
from headstart.records.levels import shown
from headstart.records.outputs import check_output_file, check_output_folder, check_own, no_input
from headstart.records.together import write_together
from headstart.records.version import __version__
from headstart.use import hub
from headstart.use.card import model_card
from headstart.use.classifier import (
    CLASSIFIER,
    Classifier,
    classifier_name,
    load_classifier,
    loading_lines,
    own_names,
    plain_name,
    reading_of,
)
from headstart.use.load import Run

SUFFIXES = {"torchvision": (".safetensors", ".pt"), "timm": (".safetensors", ".pt"), "onnx": (".onnx",)}

STATE_DICT_TOLERANCE = 1e-5
ONNX_TOLERANCE = 1e-4
ONNX_BATCHES = (1, 7)
"""Batch sizes at which onnxruntime is compared with the backbone."""


@dataclass(frozen=True)
class Exportable:
    """A network that other tools are to load: a backbone, or a classifier.

    Attributes:
        name, stem, size: as for `backbones.build`.
        tensors: its weights under the names of the library it comes from.
        about: what travels with the weights; values are JSON text.
        classes: names of the classifier's classes; none for a backbone.
    """

    name: str
    stem: str
    size: int
    tensors: Mapping[str, Tensor]
    about: Mapping[str, str]
    classes: tuple[str, ...] = ()

    @property
    def output(self) -> str:
        """What comes out of it."""
        return "scores" if self.classes else "features"

    def network(self, name: str, tensors: Mapping[str, Tensor]) -> nn.Module:
        """The network without anything of Headstart's in it: plain convolutions, so that every tool can read it."""
        network = backbones.build(name, stem=self.stem, size=self.size, generator=generator(0, "export"))
        if self.classes:
            network = Classifier(network, len(self.classes))
            tensors = own_names(network, tensors, classifier_name(name))
        network.load_state_dict(dict(tensors))
        return network.eval()

    def lines(self, name: str, file: str) -> str:
        """Plain Python that loads the state dict `file`."""
        if self.classes:
            lines = loading_lines(name, self.stem, self.size, len(self.classes), file)
        else:
            lines = backbones.loading_lines(name, stem=self.stem, size=self.size, file=file)
        if file.endswith(".pt"):
            lines = lines.replace("from safetensors.torch import load_file\n", "")
            lines = lines.replace(f"load_file({file!r})", f"torch.load({file!r}, weights_only=True)")
        return lines


def of_run(run: Run) -> Exportable:
    """A run's backbone."""
    settings = run.config.backbone
    about = {
        "num_features": json.dumps(int(run.backbone.num_features)),  # type: ignore[arg-type]
        **_feeding(run.size, run.mean, run.std, run.config.data),
        "config_hash": run.result["config_hash"],
    }
    return Exportable(settings.name, settings.stem, run.size, run.backbone.state_dict(), about)


def of_classifier(folder: str | Path) -> Exportable:
    """The classifier that `finetune` left in a folder. Raises InputError when there is none."""
    model, about = load_classifier(folder)
    backbone = about["backbone"]
    last = classifier_name(backbone["name"])
    tensors = {plain_name(name, last): tensor for name, tensor in model.state_dict().items()}
    mean, std = (None if about[name] is None else torch.tensor(about[name]) for name in ("mean", "std"))
    metadata = {"classes": json.dumps(about["classes"]), **_feeding(about["size"], mean, std, reading_of(about))}
    return Exportable(
        backbone["name"], backbone["stem"], about["size"], tensors, metadata, classes=tuple(about["classes"])
    )


def export(
    source: Run | str | Path,
    format: str,
    out: str | Path,
    *,
    license: str | None = None,
    compute: Compute | None = None,
) -> Path:
    """Write a run's backbone, and RUN/MODEL_CARD.md, or a classifier, for other tools.

    Args:
        source: a run, or the folder of a classifier that `finetune` made.
        format: `torchvision` or `timm`: a state dict, a backbone's without the classifier, `.safetensors` (metadata in
            the file) or `.pt` (metadata in FILE.pt.json beside it); `onnx`: input `pictures` (batch, 3, S, S) float32,
            Z-scored as the metadata say, output `features` (batch, num_features), of a classifier `scores` (batch,
            classes) before the softmax, for any batch; `hub`: a folder, of a run alone, from which
            `timm.create_model("local-dir:DIR", pretrained=True)` builds the backbone.
        license: of the weights; `hub` needs it, and nothing else takes it.
        compute: where what the file, read on the CPU, must give is computed. Unset: there.

    Returns:
        `out`.

    Raises:
        InputError: the network has no such counterpart, a wrong ending, a missing package.
        RunError: the file, loaded back, did not give the same; nothing is kept.
    """
    out = files.expanded(out)
    if format == "hub":
        return _export_hub(source, out, license, compute)
    if license is not None:
        raise InputError(f"--license goes with --format hub, whose card it stands in; --format {format} has none")
    what = of_run(source) if isinstance(source, Run) else of_classifier(source)
    check_exportable(what.name, format)
    _check_file(out, format, source.folder.path if isinstance(source, Run) else Path(source))
    name = counterpart(what.name, format)
    plain = {key: tensor.detach().cpu().contiguous() for key, tensor in what.tensors.items()}
    # Pictures of different brightness and contrast, so that a network that ignores its input cannot pass.
    pictures = torch.randn(max(ONNX_BATCHES), 3, what.size, what.size, generator=generator(0, "export"))
    trained = source.backbone if isinstance(source, Run) else load_classifier(source)[0]
    wanted = _outputs(trained, pictures, compute.device if compute else "cpu")
    lines = onnx_lines(out.name, what.size, what.output) if format == "onnx" else what.lines(name, out.name)
    about = {"backbone": what.name, "stem": what.stem, **what.about, "headstart": __version__, "loading": lines}
    if format == "onnx":
        content = onnx_bytes(what.network(what.name, plain), what.size, about, what.output)
        for n in ONNX_BATCHES:
            found = onnx_outputs(content, pictures[:n])
            _compare(found, wanted[:n], ONNX_TOLERANCE, f"onnxruntime at batch {n}", what.output)
    else:
        content, read = _state_dict_file(plain, out.suffix, about)
        found = _outputs(what.network(name, read(content)), pictures)
        _compare(found, wanted, STATE_DICT_TOLERANCE, name, what.output)
    beside = {f"{out.name}.json": files.as_json(about)} if out.suffix == ".pt" else {}
    write_together(out.parent, "export", {out.name: content, **beside})
    if isinstance(source, Run):
        card = model_card(source, exportable(what.name), out.name, lines)
        files.write(source.folder.card, card, within=source.folder.path)
    return out


def _check_file(out: Path, format: str, folder: Path) -> None:
    """`out` has one of the format's endings, can be written, and is none of the files in `folder`, what is exported."""
    if out.suffix not in SUFFIXES[format]:
        raise InputError(f"--out {out} must end in {' or '.join(SUFFIXES[format])} for --format {format}")
    check_output_file(out)
    no_input(out, [*vars(RunFolder(folder)).values(), folder / CLASSIFIER])
    told_in = out.with_name(f"{out.name}.json") if out.suffix == ".pt" else None
    check_own(out, told_in=told_in)
    if told_in:
        check_own(told_in)


def _export_hub(source: Run | str | Path, out: Path, license: str | None, compute: Compute | None) -> Path:
    """The folder of `use/hub.py`, kept once timm, given nothing but the folder, computes the same features."""
    if not isinstance(source, Run):
        raise InputError(
            f"{source} holds a classifier, and --format hub writes backbones; --format timm writes its state dict"
        )
    place = out.absolute()  # of `.`, too, it has a parent and a name
    check_exportable(source.config.backbone.name, "hub")
    hub.check(source, license)
    if out.exists() and not (out.is_dir() and {path.name for path in out.iterdir()} <= {*hub.FILES}):
        raise InputError(f"--out {out} must be a new folder, or one that --format hub wrote")
    check_output_folder(out)
    check_own(out / hub.CONFIG)
    what = of_run(source)
    pictures = torch.randn(2, 3, what.size, what.size, generator=generator(0, "export"))
    wanted = _outputs(source.backbone, pictures, compute.device if compute else "cpu")
    contents = hub.contents(source, what.tensors, str(license), files.last_name(out))
    with tempfile.TemporaryDirectory() as trial:
        for name, content in contents.items():
            files.write(Path(trial, name), content)
        network = timm().create_model(f"local-dir:{trial}", pretrained=True)
    _compare(_outputs(network, pictures), wanted, STATE_DICT_TOLERANCE, "timm", "features")
    write_together(place.parent, "export", {f"{place.name}/{name}": content for name, content in contents.items()})
    return out


def counterpart(backbone_name: str, format: str) -> str:
    """The name under which the other library knows the network."""
    plain = backbone_name.removeprefix(backbones.TIMM)
    return f"{backbones.TIMM}{plain}" if format == "timm" else plain if format == "torchvision" else backbone_name


def _feeding(size: int, mean: Tensor | None, std: Tensor | None, data: DataConfig) -> dict[str, str]:
    """How pictures are to be fed."""
    squares = how(data)
    return {
        "size": json.dumps(size),
        "mean": json.dumps([0.0] * 3 if mean is None else [round(v, 6) for v in mean.tolist()]),
        "std": json.dumps([1.0] * 3 if std is None else [round(v, 6) for v in std.tolist()]),
        "resize": squares[0],
        "interpolation": squares[1],
        **({} if data.range == "auto" else {"range": shown(data.range)}),
    }


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
def _outputs(network: nn.Module, pictures: Tensor, device: torch.device | str = "cpu") -> np.ndarray:
    return network.to(device).eval()(pictures.to(device)).cpu().numpy()


def _compare(found: np.ndarray, wanted: np.ndarray, tolerance: float, who: str, output: str) -> None:
    """Refuse features or scores that differ by more than `tolerance` times the largest."""
    scale = float(np.abs(wanted).max())
    error = float(np.abs(found - wanted).max()) / scale if found.shape == wanted.shape else float("inf")
    if not error <= tolerance:
        raise RunError(
            f"{who} gives other {output} than the trained network ({error:.2g} off, {tolerance:g} allowed); not kept"
        )


# -------------------------------------------------------------------------------------------------------------- ONNX


def onnx_bytes(network: nn.Module, size: int, about: Mapping[str, str], output: str = "features") -> bytes:
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
                output_names=[output],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            )
        except Exception as error:  # the exporter and what it calls raise many kinds
            raise RunError(f"torch cannot export this network as onnx: {str(error).splitlines()[0]}") from error
        assert program is not None
        model = program.model_proto
    for key, value in about.items():
        model.metadata_props.add(key=key, value=value)
    return model.SerializeToString()


def onnx_outputs(model: bytes, pictures: Tensor) -> np.ndarray:
    """What onnxruntime computes, on the CPU."""
    _need_onnx()
    import onnxruntime  # noqa: PLC0415 - an extra

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {"pictures": pictures.numpy()})[0]


def onnx_lines(file: str, size: int, output: str = "features") -> str:
    """Plain Python that runs the ONNX file."""
    return "\n".join(
        [
            "import onnxruntime",
            f"session = onnxruntime.InferenceSession({file!r})",
            f"# pictures: float32 (N, 3, {size}, {size}), Z-scored",
            f'{output} = session.run(["{output}"], {{"pictures": pictures}})[0]',
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
