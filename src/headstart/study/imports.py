"""The authors' MLflow exports become a study folder that every later command treats like our own.

Comes in: CSV files of three kinds, told apart by their columns: autoencoders, SimCLR runs, and evaluations of SimCLR
runs (paper 3.3, 3.5, 3.6). Goes out: STUDY/runs/NAME/ with config.yaml and result.json, one folder
an autoencoder and one a SimCLR run joined with its evaluation on `simclr_model_ckpt`, and STUDY/study.yaml. What the
CSV states and result.json has no place for stands under `imported`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headstart.records.claim import alone
from headstart.records.config import Config, hash_of, to_yaml
from headstart.records.errors import InputError
from headstart.records.files import as_yaml, expanded, read, write, write_json
from headstart.records.folder import RunFolder
from headstart.records.names import SETS
from headstart.records.outputs import check_results_folder
from headstart.records.presets import paper
from headstart.records.schema import SCHEMA
from headstart.records.text import number, printable
from headstart.records.version import __version__
from headstart.statistics import wilson
from headstart.study.exports import COLUMNS, KEY, SETTINGS, ExportRow, read_export, refuse_repeats

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
        """One line for the person."""
        text = (
            f"{number(self.records, 'record')}: {number(self.autoencoders, 'autoencoder')} and "
            f"{number(self.runs, 'SimCLR run')} on {', '.join(self.sets)}"
        )
        return text + (f"; {number(self.unevaluated, 'run')} without an evaluation" if self.unevaluated else "")


def import_csv(paths: Iterable[str | Path], out: str | Path) -> ImportSummary:
    """Write a study folder from the authors' CSV exports (any number of files of each kind).

    Everything is read and checked before anything is written. Raises InputError naming file and row for what
    `read_export` refuses, for a checkpoint that two rows of one kind name, for an evaluation without a training row
    or with other settings than it, for a head whose autoencoder is not among the autoencoders given, and for an
    `out` that already holds runs; those of the same import, which was interrupted, are gone on with.
    """
    out = expanded(out)
    check_results_folder(out, "study")
    by_kind: dict[str, list[ExportRow]] = {kind: [] for kind in COLUMNS}
    files = [expanded(path) for path in paths]
    for path in files:
        kind, rows = read_export(path)
        by_kind[kind] += rows
    if not files or not (by_kind["training"] or by_kind["autoencoder"]):
        raise InputError("study import needs CSV exports that hold at least one autoencoder or SimCLR run")
    keyed = {kind: refuse_repeats(rows, KEY[kind]) for kind, rows in by_kind.items()}
    _check_joins(keyed)

    autoencoders, names = (_folders(keyed[kind]) for kind in ("autoencoder", "training"))
    records = [(autoencoders[key], *_autoencoder_record(row)) for key, row in keyed["autoencoder"].items()]
    for key, row in keyed["training"].items():
        source = _autoencoder_of(row)
        autoencoder = (autoencoders[source], keyed["autoencoder"][source]) if source in autoencoders else None
        records.append((names[key], *_run_record(row, keyed["evaluation"].get(key), autoencoder)))

    about = {"headstart": __version__, "imported": True}
    runs = [(RunFolder(out / "runs" / name), to_yaml(config, about), result) for name, config, result in records]
    sets = tuple(dict.fromkeys(row["dataset_name"] for rows in by_kind.values() for row in rows))
    study = {"name": "Imported runs", "imported": [path.name for path in files], "seeds": [0], "compare": COMPARE}
    with alone(out):
        _refuse_others(out, {folder.path.name: config for folder, config, _ in runs})
        for folder, config, result in runs:
            write(folder.config, config)
            write_json(folder.result, result)
        write(out / "study.yaml", as_yaml(study))  # the last: it is whole
    return ImportSummary(
        autoencoders=len(by_kind["autoencoder"]),
        runs=len(by_kind["training"]),
        unevaluated=len(keyed["training"].keys() - keyed["evaluation"].keys()),
        sets=sets,
        out=out,
    )


def _refuse_others(out: Path, configs: Mapping[str, str]) -> None:
    """Raise InputError where the folder holds runs, unless an import of the same files was interrupted there."""
    there = list((out / "runs").iterdir()) if (out / "runs").is_dir() else []
    begun = not (out / "study.yaml").exists() and all(
        not (folder / "config.yaml").exists() or read(folder / "config.yaml") == configs.get(folder.name, "").encode()
        for folder in there
    )
    if (there or (out / "study.yaml").exists()) and not begun:
        what = "runs" if there else "a study"
        raise InputError(f"--out {out} already holds {what}; give another folder or delete it")


def _check_joins(keyed: Mapping[str, Mapping[str, ExportRow]]) -> None:
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


def _autoencoder_of(row: ExportRow) -> str:
    # The SimCLR runs were started from a sibling folder of the autoencoders'.
    return re.sub(r"^\.\./ae/", "", row["projection_head_weights"]) if row["projection_head"] == "ae" else ""


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60] or "set"


SHORT_ID = 8
"""Characters of a run's ID that its folder's name ends in, where they tell it from the others."""


def _folders(rows: Mapping[str, ExportRow]) -> dict[str, str]:
    """The name of each row's folder, by key: it ends in the whole ID where the short one is another row's too.

    Raises InputError naming both rows where that is the same as well.
    """
    short = Counter(_name(row, SHORT_ID) for row in rows.values())
    made: dict[str, str] = {}
    owners: dict[str, ExportRow] = {}
    for key, row in rows.items():
        name = _name(row, SHORT_ID)
        made[key] = name = name if short[name] == 1 else _name(row)
        first = owners.setdefault(name, row)
        if first is not row:
            raise InputError(
                f"{row.place}: its Run ID {printable(row['Run ID'])!r} and settings give the folder {name}, as those "
                f"of {first.place}, {printable(first['Run ID'])!r}, do; change one of the two IDs"
            )
    return made


def _name(row: ExportRow, characters: int | None = None) -> str:
    """What a row's folder is called, with so many characters of its ID; all where none are said."""
    run = _slug(row["Run ID"])[:characters]
    if "projection_head" not in row.values:
        return f"autoencoder-{_slug(row['dataset_name'])}-h{row['latent_dimensions']}-{run}"
    return "-".join(
        [
            _slug(row["dataset_name"]),
            {"ae": "autoencoder", "mlp": "random"}[row["projection_head"]],
            "frozen" if row["freeze_projection_head"] else "trainable",
            _slug(row["projection_head_activation"]),
            f"h{row['projection_head_embedding_dim']}",
            f"z{row['latent_dimensions']}",
            "normalized" if row["standardize"] else "raw",
            run,
        ]
    )


def _base(row: ExportRow) -> tuple[str, Config]:
    """The paper's preset for the row's data set, with the row's size and normalisation."""
    by_label = {named_set.shown: name for name, named_set in SETS.items()}
    named = by_label.get(row["dataset_name"], _slug(row["dataset_name"]))
    config = paper((named,))
    data = _replaced(row, config.data, size=row["img_size"], normalize=row["standardize"])
    return named, replace(config, data=data)


def _replaced(row: ExportRow, section: Any, **values: Any) -> Any:
    try:
        return replace(section, **values)
    except InputError as error:
        raise InputError(f"{row.place}: {error}") from None


AUTHORS_FEATURES = 512
"""What every head of the authors' code takes."""


def _result(row: ExportRow, config: Config, stage: str, seconds: dict[str, float]) -> dict[str, Any]:
    """The keys of result.json that an autoencoder's and a SimCLR run's record share."""
    head = {k: getattr(config.head, k) for k in ("init", "frozen", "activation", "hidden_dim", "output_dim")}
    return {
        "schema": SCHEMA,
        "stage": stage,
        "config_hash": hash_of(config, f"imported {row['dataset_name']}"),
        "data": {"name": row["dataset_name"], "size": row["img_size"], "normalize": row["standardize"]},
        "backbone": {
            **{k: getattr(config.backbone, k) for k in ("name", "stem", "weights")},
            "num_features": AUTHORS_FEATURES,
        },
        "head": head,
        "autoencoder": None,
        "contrastive": None,
        "probes": {},
        "untrained": {},
        "geometry": {},
        "seconds": seconds,
    }


def _autoencoder_record(row: ExportRow) -> tuple[Config, dict[str, Any]]:
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


def _autoencoder_summary(row: ExportRow) -> dict[str, Any]:
    return {"test_mse": row["test_mse"], "val_mse": row["val_loss"], "best_epoch": _epoch(row["model_ckpt"])}


def _run_record(
    row: ExportRow, evaluation: ExportRow | None, autoencoder: tuple[str, ExportRow] | None
) -> tuple[Config, dict[str, Any]]:
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


def _activation(row: ExportRow) -> str:
    name = row["projection_head_activation"].lower()
    known = ("relu", "silu", "sigmoid", "tanh")
    if name not in known:
        raise InputError(
            f"{row.place}: projection_head_activation is {printable(name)!r}; it must be one of {', '.join(known)}"
        )
    return name


def _paper_probe(row: ExportRow, named: str) -> dict[str, Any]:
    probe = {
        "accuracy": row["test_micro_MulticlassAccuracy"],
        "epochs": row["eval_epochs"],
        "lr": row["eval_learning_rate"],
        "best_epoch": _epoch(row["logreg_model_ckpt"]),
    }
    if named in SETS and (official := SETS[named].test):  # the probe judged a share of it
        n = int(official * row["eval_test_perc"] + 1e-9)
        correct = round(probe["accuracy"] * n)
        probe |= {"correct": correct, "n_test": n, "ci95": list(wilson(correct, n))}
    return probe


def _stated(row: ExportRow) -> dict[str, Any]:
    return {"file": row.file.name, "row": row.number, **row.values}


def _epoch(checkpoint: str) -> int | None:
    """The epoch, from 1, that a checkpoint's name states (Lightning counts from 0)."""
    match = re.search(r"epoch=(\d{1,9})", checkpoint)
    return int(match[1]) + 1 if match else None
