"""The authors' MLflow exports become a study folder that every later command treats like our own.

Comes in: CSV files of three kinds, told apart by their columns: autoencoders, SimCLR runs, and evaluations of SimCLR
runs (paper 3.3, 3.5, 3.6; design section 6). Goes out: STUDY/runs/NAME/ with config.yaml and result.json, one folder
an autoencoder and one a SimCLR run joined with its evaluation on `simclr_model_ckpt`, and STUDY/study.yaml. What the
CSV states and result.json has no place for stands under `imported`.
"""

import csv
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from headstart.records.config import Config, hash_of, paper, to_yaml
from headstart.records.errors import InputError
from headstart.records.folder import SCHEMA, RunFolder, printable, write, write_json
from headstart.records.version import __version__
from headstart.statistics import wilson

NAMED_SETS = {
    "Imagenette": "imagenette",
    "STL10": "stl10",
    "CIFAR10": "cifar10",
    "FGVCAircraft": "fgvc-aircraft",
    "CIFAR100": "cifar100",
}
OFFICIAL_TEST = {"imagenette": 3925, "stl10": 8000, "cifar10": 10_000, "fgvc-aircraft": 3333, "cifar100": 10_000}
"""Pictures of the official test split, of which the paper's probe judges a share (Imagenette: the official val)."""

COMPARE = [["autoencoder-frozen", "random-trainable"], ["autoencoder-frozen", "autoencoder-trainable"]]
"""The comparisons of the paper: its Tables 2 to 5, and its Table 6."""


@dataclass(frozen=True, kw_only=True)
class ImportSummary:
    """What an import found."""

    autoencoders: int
    runs: int
    unevaluated: int
    """SimCLR runs without an evaluation; they end at stage `contrastive`."""
    sets: tuple[str, ...]
    out: Path

    @property
    def records(self) -> int:
        """Run folders written."""
        return self.autoencoders + self.runs

    def __str__(self) -> str:
        text = (
            f"{self.records} records: {self.autoencoders} autoencoders and {self.runs} SimCLR runs "
            f"on {', '.join(self.sets)}"
        )
        return text + (f"; {self.unevaluated} runs without an evaluation" if self.unevaluated else "")


@dataclass(frozen=True)
class Row:
    """One parsed row and where it stands."""

    file: Path
    number: int
    """As a spreadsheet counts: the header is row 1."""
    values: Mapping[str, Any]

    def __getitem__(self, column: str) -> Any:
        return self.values[column]

    @property
    def place(self) -> str:
        return f"{self.file}, row {self.number}"


# ------------------------------------------------------------------------------------------------- columns and cells

SETTINGS: dict[str, str] = {
    "backbone": "text",
    "weights": "text",
    "dataset_name": "text",
    "img_size": "count",
    "standardize": "flag",
    "batch_size": "count",
    "epochs": "count",
    "learning_rate": "number",
    "momentum": "number",
    "weight_decay": "number",
    "temperature": "number",
    "projection_head": "text",
    "projection_head_activation": "text",
    "projection_head_embedding_dim": "count",
    "latent_dimensions": "count",
    "freeze_projection_head": "flag",
    "simclr_trainable_params": "whole",
    "simclr_non_trainable_params": "whole",
}
"""Settings of a SimCLR run, stated by its training row and again by its evaluation row."""

RECORD = {"Run ID": "text", "Start Time": "text", "Duration": "duration"}

METRICS = ("MulticlassAccuracy", "MulticlassF1Score", "MulticlassPrecision", "MulticlassRecall")

COLUMNS: dict[str, dict[str, str]] = {
    "autoencoder": RECORD
    | {
        "dataset_name": "text",
        "img_size": "count",
        "batch_size": "count",
        "epochs": "count",
        "learning_rate": "number",
        "weight_decay": "number",
        "standardize": "flag",
        "latent_dimensions": "count",
        "model_ckpt": "text",
        "test_mse": "share",
        "train_loss": "loss",
        "val_loss": "loss",
    },
    "training": RECORD
    | SETTINGS
    | {
        "projection_head_weights": "optional",
        "simclr_model_ckpt": "text",
        "train_loss": "loss",
        "val_loss": "loss",
    },
    "evaluation": RECORD
    | SETTINGS
    | {
        "simclr_model_ckpt": "text",
        "logreg_model_ckpt": "text",
        "logreg_trainable_params": "count",
        "eval_epochs": "count",
        "eval_learning_rate": "number",
        "eval_weight_decay": "number",
        "eval_test_perc": "share",
        "test_loss": "loss",
        "test_micro_MulticlassAccuracy": "share",
        **{f"test_macro_{name}": "share" for name in METRICS},
    },
}

KEY = {"autoencoder": "model_ckpt", "training": "simclr_model_ckpt", "evaluation": "simclr_model_ckpt"}

NUMBER = re.compile(r"[-+]?\d+(?:[.,](\d+))?(?:[eE][-+]?\d+)?")
DECIMAL = ("number", "share", "loss")
UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
DURATION = re.compile(r"(\d+(?:[.,]\d+)?)\s*(ms|s|min|h|d)")


def read_export(path: Path) -> tuple[str, list[Row]]:
    """Read one CSV export: its kind (autoencoder, training or evaluation) and its typed rows.

    Numbers may have a decimal point or a decimal comma, but one file has one sign throughout. Raises InputError
    naming the file and row for a missing column, a cell that is not what its column holds, a number with the other
    decimal sign, and a row that repeats an earlier one.
    """
    lines = _lines(path)
    header = lines[0][1]
    kind = _kind(path, header)
    missing = [column for column in COLUMNS[kind] if column not in header]
    if missing:
        raise InputError(f"{path}, row 1: the {kind} export lacks the column {', '.join(map(repr, missing))}")
    index = {column: header.index(column) for column in COLUMNS[kind]}
    raw = [(number, {column: cells[at] for column, at in index.items()}) for number, cells in lines[1:]]
    _check_decimal_sign(path, kind, raw)
    rows = [
        Row(path, number, {c: _cell(f"{path}, row {number}", c, COLUMNS[kind][c], v) for c, v in cells.items()})
        for number, cells in raw
    ]
    _refuse_repeats(rows, "Run ID")
    return kind, rows


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, cells) for cells in reader if cells]
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a CSV file in UTF-8: {error}") from None
    if not lines:
        raise InputError(f"{path} is empty; it must be a CSV export with a header row")
    width = len(lines[0][1])
    for number, cells in lines:
        if len(cells) != width:
            raise InputError(f"{path}, row {number}: {len(cells)} cells where the header has {width} columns")
    return lines


def _kind(path: Path, header: list[str]) -> str:
    marks = {
        "evaluation": ("logreg_model_ckpt", "logreg_trainable_params", "test_micro_MulticlassAccuracy"),
        "training": ("simclr_model_ckpt", "projection_head", "simclr_trainable_params"),
        "autoencoder": ("test_mse", "model_ckpt", "input_dimensions"),
    }
    for kind, columns in marks.items():
        if any(column in header for column in columns):
            return kind
    raise InputError(
        f"{path}, row 1: none of the columns {', '.join(c for columns in marks.values() for c in columns)}; "
        "it must be an export of autoencoder, SimCLR or evaluation runs"
    )


def _check_decimal_sign(path: Path, kind: str, raw: list[tuple[int, dict[str, str]]]) -> None:
    used: dict[str, list[tuple[int, str, str]]] = {".": [], ",": []}
    for number, cells in raw:
        for column, sort in COLUMNS[kind].items():
            if sort in DECIMAL:
                for sign in used:
                    if sign in cells[column]:
                        used[sign].append((number, column, cells[column]))
    if used["."] and used[","]:
        sign = min(used, key=lambda s: len(used[s]))
        number, column, value = used[sign][0]
        other = {".": "comma", ",": "point"}[sign]
        raise InputError(
            f"{path}, row {number}: {column} is {printable(value)!r}, but the file's numbers have a decimal {other}"
        )


def _cell(place: str, column: str, sort: str, text: str) -> Any:
    value, right = PARSERS[sort](text.strip())
    if value is None:
        raise InputError(f"{place}: {column} is {printable(text)!r}; it must be {right}")
    return value


def _number(text: str, good: Callable[[float], bool], right: str) -> tuple[float | None, str]:
    value = float(text.replace(",", ".")) if NUMBER.fullmatch(text) and len(text) < 40 else None
    return (value if value is not None and good(value) else None), right


def _whole(text: str, least: int) -> tuple[int | None, str]:
    value = int(text) if re.fullmatch(r"\d{1,12}", text, re.ASCII) else None
    return (value if value is not None and value >= least else None), f"a whole number of at least {least}"


def _duration(text: str) -> tuple[float | None, str]:
    # MLflow writes durations with a point whatever the other numbers have.
    match = DURATION.fullmatch(text)
    seconds = float(match[1].replace(",", ".")) * UNITS[match[2]] if match and len(text) < 40 else None
    return seconds, "a duration such as 49.4min or 2.0h"


PARSERS: dict[str, Callable[[str], tuple[Any, str]]] = {
    "text": lambda text: (text or None, "filled in"),
    "optional": lambda text: (text, ""),
    "flag": lambda text: ({"True": True, "False": False}.get(text), "True or False"),
    "count": lambda text: _whole(text, 1),
    "whole": lambda text: _whole(text, 0),
    "number": lambda text: _number(text, lambda v: 0 <= v < float("inf"), "a number of 0 or more"),
    "loss": lambda text: _number(text, lambda v: v == v and abs(v) < float("inf"), "a number"),
    "share": lambda text: _number(text, lambda v: 0 <= v <= 1, "a number from 0 to 1 (is the decimal sign lost?)"),
    "duration": _duration,
}


def _refuse_repeats(rows: Iterable[Row], column: str) -> dict[str, Row]:
    seen: dict[str, Row] = {}
    for row in rows:
        first = seen.setdefault(row[column], row)
        if first is not row:
            where = f"row {first.number}" + ("" if first.file == row.file else f" of {first.file}")
            raise InputError(f"{row.place} repeats {where}: the same {column} {printable(row[column])!r}")
    return seen


# ------------------------------------------------------------------------------------------------ rows to run folders


def import_csv(paths: Iterable[str | Path], out: str | Path) -> ImportSummary:
    """Write a study folder from the authors' CSV exports (any number of files of each kind).

    Everything is read and checked before anything is written. Raises InputError naming file and row for what
    `read_export` refuses, for a checkpoint that two rows of one kind name, for an evaluation without a training row
    or with other settings than it, for a head whose autoencoder is not among the autoencoders given, and for an
    `out` that already holds runs.
    """
    out = Path(out)
    if (out / "runs").is_dir() and any((out / "runs").iterdir()):
        raise InputError(f"--out {out} already holds runs; give another folder or delete it")
    by_kind: dict[str, list[Row]] = {kind: [] for kind in COLUMNS}
    files = [Path(path) for path in paths]
    for path in files:
        kind, rows = read_export(path)
        by_kind[kind] += rows
    if not files or not (by_kind["training"] or by_kind["autoencoder"]):
        raise InputError("study import needs CSV exports that hold at least one autoencoder or SimCLR run")
    keyed = {kind: _refuse_repeats(rows, KEY[kind]) for kind, rows in by_kind.items()}
    _check_joins(keyed)

    autoencoders = {key: _autoencoder_name(row) for key, row in keyed["autoencoder"].items()}
    records = [(autoencoders[key], *_autoencoder_record(row)) for key, row in keyed["autoencoder"].items()]
    for key, row in keyed["training"].items():
        source = _autoencoder_of(row)
        autoencoder = (autoencoders[source], keyed["autoencoder"][source]) if source in autoencoders else None
        records.append((_run_name(row), *_run_record(row, keyed["evaluation"].get(key), autoencoder)))

    for name, config, result in records:
        folder = RunFolder(out / "runs" / name)
        write(folder.config, to_yaml(config, {"headstart": __version__, "imported": True}))
        write_json(folder.result, result)
    sets = tuple(dict.fromkeys(row["dataset_name"] for rows in by_kind.values() for row in rows))
    study = {"name": "Imported runs", "imported": [path.name for path in files], "seeds": [0], "compare": COMPARE}
    write(out / "study.yaml", yaml.safe_dump(study, sort_keys=False, allow_unicode=True))
    return ImportSummary(
        autoencoders=len(by_kind["autoencoder"]),
        runs=len(by_kind["training"]),
        unevaluated=len(keyed["training"].keys() - keyed["evaluation"].keys()),
        sets=sets,
        out=out,
    )


def _check_joins(keyed: Mapping[str, Mapping[str, Row]]) -> None:
    for row in keyed["training"].values():
        head, weights = row["projection_head"], row["projection_head_weights"]
        if head not in ("ae", "mlp"):
            raise InputError(f"{row.place}: projection_head is {printable(head)!r}; it must be ae or mlp")
        if head == "ae" and keyed["autoencoder"] and _autoencoder_of(row) not in keyed["autoencoder"]:
            raise InputError(f"{row.place}: no autoencoder row has the model_ckpt {printable(weights)!r}")
    for key, row in keyed["evaluation"].items():
        training = keyed["training"].get(key)
        if training is None:
            raise InputError(f"{row.place}: no training row has its simclr_model_ckpt {printable(key)!r}")
        for column in SETTINGS:
            if row[column] != training[column]:
                raise InputError(
                    f"{row.place}: {column} is {row[column]}, but {training.place}, which has the same "
                    f"simclr_model_ckpt, says {training[column]}"
                )


def _autoencoder_of(row: Row) -> str:
    # The SimCLR runs were started from a sibling folder of the autoencoders'.
    return re.sub(r"^\.\./ae/", "", row["projection_head_weights"]) if row["projection_head"] == "ae" else ""


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60] or "set"


def _autoencoder_name(row: Row) -> str:
    return f"autoencoder-{_slug(row['dataset_name'])}-h{row['latent_dimensions']}-{_slug(row['Run ID'])[:8]}"


def _run_name(row: Row) -> str:
    start = {"ae": "autoencoder", "mlp": "random"}[row["projection_head"]]
    frozen = "frozen" if row["freeze_projection_head"] else "trainable"
    return "-".join(
        [
            _slug(row["dataset_name"]),
            start,
            frozen,
            _slug(row["projection_head_activation"]),
            f"h{row['projection_head_embedding_dim']}",
            f"z{row['latent_dimensions']}",
            "normalized" if row["standardize"] else "raw",
            _slug(row["Run ID"])[:8],
        ]
    )


def _base(row: Row) -> tuple[str, Config]:
    """The paper's preset for the row's data set, with the row's size and normalisation."""
    named = NAMED_SETS.get(row["dataset_name"], _slug(row["dataset_name"]))
    config = paper((named,))
    data = _replaced(row, config.data, size=row["img_size"], normalize=row["standardize"])
    return named, replace(config, data=data)


def _replaced(row: Row, section: Any, **values: Any) -> Any:
    try:
        return replace(section, **values)
    except InputError as error:
        raise InputError(f"{row.place}: {error}") from None


def _result(row: Row, config: Config, stage: str, seconds: dict[str, float]) -> dict[str, Any]:
    """The keys of result.json that an autoencoder's and a SimCLR run's record share."""
    head = {k: getattr(config.head, k) for k in ("init", "frozen", "activation", "hidden_dim", "output_dim")}
    return {
        "schema": SCHEMA,
        "stage": stage,
        "config_hash": hash_of(config, f"imported {row['dataset_name']}"),
        "data": {"name": row["dataset_name"], "size": row["img_size"], "normalize": row["standardize"]},
        "backbone": {k: getattr(config.backbone, k) for k in ("name", "stem", "weights")},
        "head": head,
        "autoencoder": None,
        "contrastive": None,
        "probes": {},
        "untrained": {},
        "geometry": {},
        "seconds": seconds,
    }


def _autoencoder_record(row: Row) -> tuple[Config, dict[str, Any]]:
    _, config = _base(row)
    config = replace(
        config,
        stages="autoencoder",
        head=_replaced(row, config.head, hidden_dim=row["latent_dimensions"]),
        autoencoder=_replaced(
            row,
            config.autoencoder,
            epochs=row["epochs"],
            batch_size=row["batch_size"],
            lr=row["learning_rate"],
            normalize=row["standardize"],
        ),
    )
    result = _result(row, config, "autoencoder", {"autoencoder": row["Duration"]})
    result["autoencoder"] = _autoencoder_summary(row)
    result["imported"] = _stated(row)
    return config, result


def _autoencoder_summary(row: Row) -> dict[str, Any]:
    return {"test_mse": row["test_mse"], "val_mse": row["val_loss"], "best_epoch": _epoch(row["model_ckpt"])}


def _run_record(row: Row, evaluation: Row | None, autoencoder: tuple[str, Row] | None) -> tuple[Config, dict[str, Any]]:
    named, config = _base(row)
    head = _replaced(
        row,
        config.head,
        init={"ae": "autoencoder", "mlp": "random"}[row["projection_head"]],
        frozen=row["freeze_projection_head"],
        activation=_activation(row),
        hidden_dim=row["projection_head_embedding_dim"],
        output_dim=row["latent_dimensions"],
    )
    contrastive = _replaced(
        row,
        config.contrastive,
        epochs=row["epochs"],
        batch_size=row["batch_size"],
        lr=row["learning_rate"],
        momentum=row["momentum"],
        weight_decay=row["weight_decay"],
        temperature=row["temperature"],
    )
    backbone = replace(
        config.backbone, name=row["backbone"], weights="imagenet" if row["weights"] == "DEFAULT" else row["weights"]
    )
    config = replace(config, head=head, contrastive=contrastive, backbone=backbone)

    result = _result(row, config, "contrastive", {"contrastive": row["Duration"]})
    result["contrastive"] = {
        "train_loss": row["train_loss"],
        "val_loss": row["val_loss"],
        "epochs": row["epochs"],
        "best_epoch": _epoch(row["simclr_model_ckpt"]),
    }
    result["imported"] = {"training": _stated(row)}
    if autoencoder is not None:
        result["autoencoder"] = _autoencoder_summary(autoencoder[1])
        result["imported"]["autoencoder"] = autoencoder[0]
    elif row["projection_head"] == "ae":
        result["imported"]["autoencoder"] = row["projection_head_weights"]
    if evaluation is not None:
        result["stage"] = "probe"
        result["seconds"]["probe"] = evaluation["Duration"]
        result["probes"]["paper"] = _paper_probe(evaluation, named)
        result["imported"]["evaluation"] = _stated(evaluation)
    return config, result


def _activation(row: Row) -> str:
    name = row["projection_head_activation"].lower()
    known = ("relu", "silu", "sigmoid", "tanh")
    if name not in known:
        raise InputError(
            f"{row.place}: projection_head_activation is {printable(name)!r}; it must be one of {', '.join(known)}"
        )
    return name


def _paper_probe(row: Row, named: str) -> dict[str, Any]:
    probe = {
        "accuracy": row["test_micro_MulticlassAccuracy"],
        "epochs": row["eval_epochs"],
        "lr": row["eval_learning_rate"],
        "best_epoch": _epoch(row["logreg_model_ckpt"]),
    }
    if named in OFFICIAL_TEST:
        n = int(OFFICIAL_TEST[named] * row["eval_test_perc"] + 1e-9)
        correct = round(probe["accuracy"] * n)
        probe |= {"correct": correct, "n_test": n, "ci95": list(wilson(correct, n))}
    return probe


def _stated(row: Row) -> dict[str, Any]:
    return {"file": row.file.name, "row": row.number, **row.values}


def _epoch(checkpoint: str) -> int | None:
    """The epoch, from 1, that a checkpoint's name states (Lightning counts from 0)."""
    match = re.search(r"epoch=(\d{1,9})", checkpoint)
    return int(match[1]) + 1 if match else None
