"""MODEL_CARD.md: what a backbone was trained on and how, what it gained, its limits, how to load it.

Comes in: a finished run. Goes out: Markdown. Every name in it is escaped, because class and file names are data.
"""

from collections.abc import Sequence
from typing import Any

from headstart import backbones
from headstart.data.prepare import how
from headstart.records.config import DataConfig
from headstart.records.levels import shown
from headstart.records.text import first_few, printable
from headstart.records.version import __version__
from headstart.report.verdict import as_it_was, before_simclr, kept_given, no_better
from headstart.use.load import Run

SHOWN_CLASSES = 50


def model_card(run: Run, formats: Sequence[str], file: str, lines: str) -> str:
    """The card's text.

    Args:
        formats: what the network can be exported as.
        file: name of the exported file, loaded by `lines` of plain Python.
    """
    result, config = run.result, run.config
    return (
        "\n\n".join(
            [
                f"# {_text(config.backbone.name)}, pretrained with SimCLR on {_text(_data_name(result['data']))}",
                _summary(run),
                "## Use",
                f"```python\n{lines}\n```",
                _feeding(run),
                *_plain_file(run, file),
                f"This network can be exported as {', '.join(formats)}.",
                "## Training",
                _training(run),
                "## Evaluation",
                _evaluation(result),
                "## Limits",
                _limits(run),
            ]
        )
        + "\n"
    )


def _summary(run: Run) -> str:
    return (
        f"A feature extractor: pictures of {run.size} x {run.size} pixels in, {run.backbone.num_features} features "
        "out. It was trained without labels and has no classifier."
    )


_SQUARES = {
    "squash": "squashed to",
    "crop": "their shorter side resized and the middle cut out, to",
    "pad": "their longer side resized and black added on both sides, to",
}


_LEVELS = {
    "auto": "",
    "percentile": " Samples of more than 8 bits: 0.5 and 99.5 % of each picture's own became black and white.",
}
_BETWEEN = " Samples of more than 8 bits: {} became black and white, and what lies beyond them too."


def _feeding(run: Run) -> str:
    mean = [0.0] * 3 if run.mean is None else run.mean.tolist()
    std = [1.0] * 3 if run.std is None else run.std.tolist()
    resize, method = how(run.config.data)
    return (
        f"Pictures: RGB, {_SQUARES[resize]} {run.size} x {run.size} (antialiased {method}), scaled to [0, 1], then "
        f"`(x - mean) / std` with\n`mean = [{_numbers(mean)}]`, `std = [{_numbers(std)}]`: {_whose(run.config.data)}."
        + _LEVELS.get(str(run.config.data.range), _BETWEEN.format(shown(run.config.data.range)))
    )


def _whose(data: DataConfig) -> str:
    """Whose statistics the Z-score is."""
    if not data.normalize:
        return "no Z-score"
    if data.statistics == "backbone":
        return "those that the weights it started from were made with"
    if data.statistics == "paper":
        return "means over the training pictures of each picture's own (the test split's probes used the test split's)"
    return "over all pixels of the training pictures"


def _plain_file(run: Run, file: str) -> list[str]:
    """How to load the run's own weights, where another file was exported."""
    settings, own = run.config.backbone, run.folder.backbone.name
    if file == own:
        return []
    lines = backbones.loading_lines(settings.name, stem=settings.stem, size=run.size, file=own)
    return [f"The run folder's own `{own}` loads with", f"```python\n{lines}\n```"]


def _training(run: Run) -> str:
    result, config = run.result, run.config
    data, contrastive, head = result["data"], result["contrastive"] or {}, config.head
    weights = config.backbone.weights
    starts = {
        "none": "random weights",
        "imagenet": "ImageNet weights",
        "pretrained": "the library's pretrained weights",
    }
    trained = "frozen" if head.frozen else "trained along"
    kind = "" if head.kind == "mlp" else f"{head.kind}, "
    rows = [
        ("data", f"{_data_name(data)}, fingerprint {data['fingerprint']}"),
        ("pictures", f"{data['train']} train, {data['val']} validation, {data['test']} test"),
        ("classes", _classes(data["classes"])),
        ("started from", starts.get(weights, f"weights from {weights}")),
        (
            "projection head",
            f"{kind}first layer {head.init}, {trained}; {head.hidden_dim} to {head.output_dim}, {head.activation}",
        ),
        (
            "SimCLR",
            f"{contrastive.get('epochs')} epochs, batch {config.contrastive.batch_size}, "
            f"{config.contrastive.optimizer}, peak learning rate {config.contrastive.lr:.4g}, "
            f"temperature {config.contrastive.temperature}",
        ),
        ("validation loss", f"{contrastive['val_loss']:.4f}" if contrastive.get("val_loss") is not None else "none"),
        ("seed", str(config.seed)),
        ("made by", f"Headstart {__version__}, config {result['config_hash']}"),
    ]
    return _table(("", ""), [(name, _text(value)) for name, value in rows])


def _evaluation(result: dict[str, Any]) -> str:
    if not result["probes"]:
        return "None: the pictures have no labels, or the run stopped before its probes."
    rows = []
    for name, probe in result["probes"].items():
        before = result["untrained"].get(name)
        rows.append((f"`{name}`", _accuracy(probe), _accuracy(before) if before else "", str(probe["n_test"])))
    accuracy = "Accuracy on the test split with 95 % intervals"
    if kept_given(result):
        alone = [(name, after, n_test) for name, after, _, n_test in rows]
        return f"{accuracy} of the given weights, which the run kept:\n\n" + _table(
            ("probe", "as given", "test pictures"), alone
        )
    return f"{accuracy}, beside the same network before SimCLR:\n\n" + _table(
        ("probe", "pretrained", as_it_was(result), "test pictures"), rows
    )


def _limits(run: Run) -> str:
    data = run.result["data"]
    points = [
        f"It has seen {data['train']} pictures of one kind; on others its features may be no better than those of "
        f"{before_simclr(run.result)}.",
        f"It was trained at {run.size} pixels; other sizes are untested.",
        "The augmentation taught it to ignore some of colour, scale and position; tasks that hang on these suffer.",
        "The intervals cover the drawing of test pictures, not the luck of one training run.",
    ]
    if kept_given(run.result):
        points.append("It is the network that was given: the run kept its weights, and SimCLR has no part in them.")
    elif worse := no_better(run.result["untrained"], run.result["probes"]):
        points.append(f"By {', '.join(f'`{name}`' for name in worse)} it is no better than before training.")
    return "\n".join(f"- {point}" for point in points)


def _accuracy(probe: dict[str, Any]) -> str:
    low, high = probe["ci95"]
    return f"{probe['accuracy']:.3f} ({low:.3f} to {high:.3f})"


def _classes(names: Sequence[str]) -> str:
    if not names:
        return "none"
    return f"{len(names)}: {first_few(names, SHOWN_CLASSES)}"


def _data_name(data: dict[str, Any]) -> str:
    return str(data.get("name") or "a folder of pictures")


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _text(value: str) -> str:
    """Data as Markdown text: no control characters, and every character that Markdown or HTML acts on escaped."""
    value = printable(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{c}" if c in "\\`*_[]()#!|~$" else c for c in value)
