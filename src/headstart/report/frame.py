"""What the finished runs of a folder say, as one tidy table. Reads files; imports no torch.

Comes in: a run folder, or a study folder with runs/NAME/. Goes out: `Records`: a row a SimCLR run, a row an
autoencoder, and what failed. Our own runs and imported ones are read alike. A number that a run does not state is
missing (NaN), never guessed.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import TypeAdapter

from headstart.records.errors import InputError
from headstart.records.files import expanded, missing, read_json, read_yaml
from headstart.records.folder import RunFolder, read_metrics
from headstart.records.grid import grid_of, unplanned
from headstart.records.names import ACTIVATIONS, HEAD_INITS, PROBES, SETS, from_embedding
from headstart.records.schema import CONFIG, FAILED, NAMES, RECORD
from headstart.records.unhashed import YOUNGER
from headstart.records.validation import problem
from headstart.report.labels import PROJECTORS, head_label
from headstart.report.settings import counted, places, varying
from headstart.report.variants import label_heads, variant

PAPER_SETS = tuple(named.shown for named in SETS.values() if named.paper)
"""In the order of the paper's tables."""

EARLY = 0.1
"""Share of the training after which accuracy counts as early."""


@dataclass(frozen=True)
class Records:
    """A study, or a single run, as read.

    Attributes:
        path: its folder.
        probe: the probe whose accuracy the tables and the answer use.
        runs: one row a SimCLR run with the columns of `COLUMNS`.
        autoencoders: one row an autoencoder trained as a run of its own: run, dataset, hidden_dim, test_mse, ...
        curves: run -> its lines of metrics.jsonl.
        results: run -> its result.json.
        configs: run -> its config.yaml.
        failed: (name, reason) of runs that ended in failed.json.
        planned: runs that study.yaml plans; none for imported records.
        settings: study.yaml; empty for a single run.
    """

    path: Path
    probe: str
    runs: pd.DataFrame
    autoencoders: pd.DataFrame
    curves: Mapping[str, list[dict[str, Any]]]
    results: Mapping[str, dict[str, Any]]
    configs: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    failed: list[tuple[str, str]] = field(default_factory=list)
    planned: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def folder(self, run: str) -> RunFolder:
        """Where a run's files are."""
        return RunFolder(self.path if run == "." else self.path / "runs" / run)

    @property
    def trained(self) -> dict[str, dict[str, Any]]:
        """The results of runs of SimCLR."""
        return {name: result for name, result in self.results.items() if not _is_autoencoder(result)}

    @property
    def missing(self) -> list[str]:
        """Planned runs that have neither finished nor failed."""
        ended = {*self.results, *(name for name, _ in self.failed)}
        return [name for name in self.planned if name not in ended]

    @property
    def unplanned(self) -> str:
        """What is said where runs are there that study.yaml does not plan; else nothing."""
        return unplanned(self.planned, self.results) if self.settings else ""

    @property
    def single(self) -> bool:
        """Whether this is a run's own folder."""
        return "." in self.results

    @property
    def autoencoders_alone(self) -> bool:
        """Whether autoencoders were trained and no backbone."""
        return self.runs.empty and len(self.autoencoders) > 0

    @property
    def sets(self) -> list[str]:
        """Data sets in the paper's order, then by name."""
        return list(self.runs["dataset"].cat.categories)

    @property
    def heads(self) -> list[str]:
        """Heads: the paper's two first, then the other inits."""
        return list(self.runs["head"].cat.categories)


COLUMNS = {
    "run": "the run's folder; `.` for a single run",
    "dataset": "`set`, and what was varied of the settings that are no head's: `CIFAR10, resnet18`",
    "set": "as in the paper's Table 1, or the folder's name",
    "init": "where the first layer comes from",
    "frozen": "whether it stays so",
    "head": "see `head_label`",
    "projector": "ae, mlp, or head",
    "activation": "",
    "hidden_dim": "",
    "output_dim": "",
    "normalized": "Z-scored pictures",
    "seed": "",
    "autoencoder": "what a first layer was drawn from: runs with the same value share it",
    "pictures": "their fingerprint; runs to be compared agree in it",
    "settings": "digest of every other setting that does not vary; runs to be compared agree in it",
    "epochs": "",
    "accuracy": "[0, 1]",
    "low": "95 % interval over test pictures",
    "high": "",
    "n_test": "",
    "untrained": "the same probe of the backbone before SimCLR",
    "train_loss": "",
    "val_loss": "",
    "seconds": "of SimCLR training",
    "parameters": "of the head that SimCLR trains",
    "early": "online-probe accuracy after 10 % of the epochs",
    "compare": "what study.yaml names: comparisons that are corrected together, as JSON; empty where it names none",
}
"""Columns of `Records.runs`; behind them one for each setting in which runs of one set differ, by its dotted name."""

WHOLE = ("hidden_dim", "output_dim", "seed")
NUMBERS = (
    *WHOLE,
    *("epochs", "accuracy", "low", "high", "n_test", "untrained"),
    *("train_loss", "val_loss", "seconds", "parameters", "early"),
)
"""Columns of numbers; all others are text."""


def read(path: str | Path, probe: str | None = None) -> Records:
    """Read a run or study folder.

    `probe` chooses the accuracy; unset, the one that study.yaml says `decides`, else `linear` where a run has it, but
    `paper` in the paper's own study. Raises InputError when the folder holds no finished run, a file is damaged, or no
    run has the probe.
    """
    path = expanded(path)
    if not path.is_dir():
        raise InputError(f"{missing(path, 'folder') or f'{path} is not a folder'}; give the folder of a run or a study")
    single = (path / "result.json").exists()
    if not single and not (path / "runs").is_dir():
        raise InputError(f"{path} holds neither result.json (a finished run) nor runs/ (a study); nothing to report")
    folders = {".": RunFolder(path)} if single else dict(_folders(path / "runs"))
    results = {name: _result(folder) for name, folder in folders.items() if folder.result.exists()}
    if not results:
        raise InputError(f"{path} holds no finished run yet; `headstart study status` says how far it is")
    configs = {name: _config(folders[name]) for name in results}
    curves = {name: read_metrics(folders[name].metrics) for name in results}
    settings = _study_yaml(path)
    grid = grid_of(settings, path / "study.yaml")
    records = Records(
        path=path,
        probe="",
        runs=pd.DataFrame(),
        autoencoders=_autoencoders(_autoencoder(n, r, configs[n]) for n, r in results.items() if _is_autoencoder(r)),
        curves=curves,
        results=results,
        configs=configs,
        failed=[] if single else list(_failures(folders)),
        planned=() if grid is None else grid.names(),
        settings=settings,
    )
    known = _probes(records)
    if probe is not None and probe not in known:
        raise InputError(f"no run in {path} has the probe {probe!r}; there is {', '.join(known) or 'none'}")
    named = [name for name in known if name == settings.get("decides")]
    return judged(records, probe or next(iter([*named, *known]), min(PROBES, key=_rank)))


def judged(records: Records, probe: str) -> Records:
    """What was read, with the accuracies of `probe`, which are missing where a run has it not."""
    configs, trained = records.configs, records.trained
    rows = [_row(name, result, configs[name], records.curves[name], probe) for name, result in trained.items()]
    varied = _add_settings(rows, [counted(configs[name]) for name in trained])
    label_heads(rows, [variant(configs[name], result["head"]["init"]) for name, result in trained.items()])
    compared = json.dumps(records.settings["compare"]) if records.settings.get("compare") else ""
    rows = [row | {"compare": compared} for row in rows]
    return replace(records, probe=probe, runs=ordered(pd.DataFrame(rows, columns=[*COLUMNS, *varied]), varied))


def dataset_name(name: str) -> str:
    """A data set as the paper's Table 1 writes it: `cifar10:ROOT` -> CIFAR10; the last part of a folder's path."""
    head = name.split(":")[0]
    short = head if head.lower() in SETS else name.rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1]
    return SETS.shown(short.lower()) if short.lower() in SETS else short or "pictures"


def _folders(runs: Path) -> Iterator[tuple[str, RunFolder]]:
    for folder in sorted(runs.iterdir()):
        if folder.is_dir():
            yield folder.name, RunFolder(folder)


def _failures(folders: Mapping[str, RunFolder]) -> Iterator[tuple[str, str]]:
    for name, folder in folders.items():
        if folder.failed.exists() and not folder.result.exists():
            yield name, read_json(folder.failed, FAILED).get("reason", "no reason was recorded")


def _is_autoencoder(result: Mapping[str, Any]) -> bool:
    return bool(result["stage"] == "autoencoder")


def _probes(records: Records) -> list[str]:
    """Those that runs have, the one that decides unasked first."""
    papers = _is_the_papers(records.trained, records.configs)
    found = {probe for result in records.trained.values() for probe in result.get("probes", {})}
    return sorted(found, key=lambda name: _rank(name, papers))


def _result(folder: RunFolder) -> dict[str, Any]:
    return read_json(folder.result, RECORD, "a run's result")


def _config(folder: RunFolder) -> dict[str, Any]:
    return _yaml(folder.config, CONFIG)


def _study_yaml(path: Path) -> dict[str, Any]:
    return _yaml(path / "study.yaml", NAMES)


def _yaml(path: Path, shape: TypeAdapter[Any]) -> dict[str, Any]:
    """A YAML file's names and values; none where there is no file."""
    values = read_yaml(path) if path.exists() else {}
    if wrong := problem(values, shape):
        raise InputError(f"{path} is not what Headstart wrote: {wrong}; restore it from a copy")
    return values


def _dataset(name: str, result: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """A run's set: the label that its study gave it, which its name holds, or what the run calls its pictures."""
    if label := _LABEL.match(name):
        return dataset_name(label[1] or label[2])
    sources = config.get("data", {}).get("sources") or ["pictures"]
    return dataset_name(str(result.get("data", {}).get("name") or sources[0]))


_LABEL = re.compile(r"data=([^,]+),|autoencoder-(.+)-h\d+-seed\d+-[0-9a-f]+$")
"""How a study names its runs and autoencoders, with the set's label."""


def _row(
    name: str, result: Mapping[str, Any], config: Mapping[str, Any], curve: list[dict[str, Any]], probe: str
) -> dict[str, Any]:
    head, data = result["head"], result.get("data") or {}
    found = (result.get("probes") or {}).get(probe) or {}
    low, high = found.get("ci95") or (None, None)
    contrastive = result.get("contrastive") or {}
    dataset = _dataset(name, result, config)
    return {
        "run": name,
        "dataset": dataset,
        "set": dataset,
        "init": head["init"],
        "frozen": bool(head["frozen"]),
        "activation": ACTIVATIONS.shown(head["activation"]),
        "hidden_dim": head["hidden_dim"],
        "output_dim": head["output_dim"],
        "normalized": bool(data.get("normalize", config.get("data", {}).get("normalize", False))),
        "seed": config.get("seed", 0),
        "autoencoder": _first_layer(result, config, dataset),
        "pictures": data.get("fingerprint") or "",
        "epochs": contrastive.get("epochs"),
        "accuracy": found.get("accuracy"),
        "low": low,
        "high": high,
        "n_test": found.get("n_test"),
        "untrained": ((result.get("untrained") or {}).get(probe) or {}).get("accuracy"),
        "train_loss": contrastive.get("train_loss"),
        "val_loss": contrastive.get("val_loss"),
        "seconds": (result.get("seconds") or {}).get("contrastive"),
        "parameters": _head_parameters(result),
        "early": _early(curve),
    }


AUTOENCODER_COLUMNS = (
    *("run", "dataset", "kind", "normalized", "hidden_dim", "seed"),
    *("test_mse", "val_mse", "best_epoch", "seconds"),
)
"""`kind` also says where pictures were Z-scored, as the error is in other units then."""


def _autoencoder(name: str, result: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    found, settings = result.get("autoencoder") or {}, config.get("autoencoder") or {}
    return {
        "run": name,
        "dataset": _dataset(name, result, config),
        "kind": f"{settings.get('kind', 'mlp')}{', Z-scored' if settings.get('normalize') else ''}",
        "normalized": bool(settings.get("normalize")),
        "hidden_dim": result["head"]["hidden_dim"],
        "seed": config.get("seed", 0),
        **{key: found.get(key) for key in ("test_mse", "val_mse", "best_epoch")},
        "seconds": (result.get("seconds") or {}).get("autoencoder"),
    }


def _autoencoders(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """One row for each; a run of this stage alone that was given a shared one, and took no time, is not another."""
    frame = pd.DataFrame(list(rows), columns=list(AUTOENCODER_COLUMNS))
    same = ["dataset", "kind", "hidden_dim", "seed", "test_mse", "val_mse", "best_epoch"]
    repeats = frame.sort_values("seconds", na_position="last", kind="stable").duplicated(same)
    return frame[~(repeats.sort_index() & frame["seconds"].isna())].reset_index(drop=True)


def _first_layer(result: Mapping[str, Any], config: Mapping[str, Any], dataset: str) -> str:
    """What the first layer was drawn from: runs with the same value share that draw's luck.

    A stated autoencoder, else the one that the run's settings lead to: one a data set, size, seed and autoencoder
    setting. Heads without an autoencoder share the draw of their seed and size in the same way.
    """
    stated = (result.get("imported") or {}).get("autoencoder") or config.get("autoencoder", {}).get("weights")
    if stated and from_embedding(result["head"]["init"]):
        return str(stated)
    settings = config.get("autoencoder") or {} if from_embedding(result["head"]["init"]) else {}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:8]
    own = f"{dataset} h{result['head']['hidden_dim']} seed {config.get('seed', 0)}"
    if pictures := (result.get("data") or {}).get("fingerprint"):
        own += f" of {pictures}"
    return f"{own} {digest}" if settings else own


def _head_parameters(result: Mapping[str, Any]) -> int | None:
    """Weights and biases of the head that SimCLR trains; None for heads whose sizes the result does not tell."""
    head, features = result["head"], (result.get("backbone") or {}).get("num_features")
    if (
        features is None
        or head.get("kind", "mlp") != "mlp"
        or head.get("depth", 2) != 2
        or head.get("batch_norm", False)
    ):
        return None
    first, last = (features + 1) * head["hidden_dim"], (head["hidden_dim"] + 1) * head["output_dim"]
    return last if head["frozen"] and head.get("unfreeze_at") is None else first + last


def _early(curve: list[dict[str, Any]]) -> float | None:
    """Online-probe accuracy at the first epoch that ends after a tenth of the training."""
    seen = [
        line
        for line in curve
        if line.get("stage") == "contrastive" and isinstance(line.get("accuracy"), (int, float)) and "epoch" in line
    ]
    epochs = max((line["epoch"] for line in seen), default=0)
    return next((line["accuracy"] for line in seen if line["epoch"] >= EARLY * epochs), None) if epochs >= 5 else None


def _rank(probe: str, papers: bool = False) -> tuple[int, str]:
    """Of the probes that runs have, the lowest decides; in the paper's study, its own."""
    rank = PROBES[probe].rank if probe in PROBES else len(PROBES)
    return (-1 if papers and probe == "paper" else rank, probe)


def _is_the_papers(results: Mapping[str, Mapping[str, Any]], configs: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether all runs are on the paper's sets, split as its authors split them."""
    return all(
        configs[name].get("data", {}).get("splits") == "paper" and _dataset(name, result, configs[name]) in PAPER_SETS
        for name, result in results.items()
    )


def _in_order(values: pd.Series, order: Sequence[str]) -> list[str]:
    """The values that occur: those of `order` in it, then the others."""
    present = set(values)
    return [value for value in dict.fromkeys(order) if value in present] + sorted(present - set(order))


def _add_settings(rows: list[dict[str, Any]], settings: Sequence[Mapping[str, str]]) -> list[str]:
    """Fill in each row's settings in which runs of one set differ, and a digest of the others; gives their names."""
    names = varying([row["set"] for row in rows], settings)
    for row, of_run in zip(rows, settings, strict=True):
        rest = {name: value for name, value in of_run.items() if name not in names}
        row["settings"] = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:8]
        row |= {name: of_run.get(name, str(YOUNGER.get(name, ""))) for name in names}
    return names


def ordered(runs: pd.DataFrame, varied: Sequence[str]) -> pd.DataFrame:
    """Categories in the order in which people read them; numbers as numbers."""
    numbers = [name for name in NUMBERS if name not in WHOLE]
    runs[numbers] = runs[numbers].replace("", np.nan).astype(float)  # an empty column of a table that was read
    sets = _in_order(runs["set"], PAPER_SETS)
    runs["dataset"] = places(runs, varied)
    known = sorted(set(zip(runs["set"], runs["dataset"], strict=True)), key=lambda two: (sets.index(two[0]), two[1]))
    runs["dataset"] = pd.Categorical(runs["dataset"], [place for _, place in known])
    order = [*PROJECTORS, *(head_label(i, f) for i in HEAD_INITS for f in (True, False))]
    heads = _in_order(runs["head"], order)
    runs["head"] = pd.Categorical(runs["head"], heads)
    runs["projector"] = pd.Categorical(runs["projector"], [PROJECTORS.get(h, h) for h in heads])
    kinds = _in_order(runs["activation"], [activation.shown for activation in ACTIVATIONS.values()])
    runs["activation"] = pd.Categorical(runs["activation"], kinds)
    by = ["dataset", "head", "hidden_dim", "output_dim", "activation", "seed", "run"]
    return runs.sort_values(by).reset_index(drop=True)
