"""Runs as TensorBoard and Weights & Biases keep them: event files and their CSV, W&B's files. (MLflow: mlflow_runs.)

Comes in: a folder, or the cells of an exported chart. Goes out: a table with a row a run: its settings, and
the last value of each metric. TensorBoard's own package reads event files, and only they need it.
"""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from headstart.records.config import flatten
from headstart.records.errors import InputError
from headstart.records.files import read_yaml
from headstart.records.text import printable
from headstart.report.delimited import OUTCOMES, PLACE, column


def _with(table: pd.DataFrame, outcomes: Iterable[str]) -> pd.DataFrame:
    """A table that remembers which columns are metrics."""
    table.attrs[OUTCOMES] = list(dict.fromkeys(outcomes))
    return table


# ---------------------------------------------------------------------------------------------------------- TensorBoard

EXPORT = ["Wall time", "Step", "Value"]
"""The header of TensorBoard's CSV of one scalar."""
_EXPORTED = re.compile(r"(run-)?(?P<run>.+?)-tag-(?P<tag>.+)")


def event_folders(path: Path) -> list[Path]:
    """Folders with event files in and below a folder."""
    return sorted({file.parent for file in path.rglob("*tfevents*") if file.is_file()})


def tensorboard(path: Path, folders: Sequence[Path]) -> pd.DataFrame:
    """A row a folder of event files: the last value of each scalar, its hyperparameters, and `NAME=VALUE` of its path.

    What `add_hparams` wrote into a folder of its own belongs to the run around it.
    """
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415 - an extra
    except ImportError:
        raise InputError(
            f"{path} holds TensorBoard's event files; reading them needs `pip install 'headstart[tensorboard]'`"
        ) from None
    rows: dict[Path, dict[str, Any]] = {}
    outcomes: list[str] = []
    for folder in folders:
        try:
            events = EventAccumulator(str(folder), size_guidance=dict.fromkeys(_KEPT, 1))
            events.Reload()
            settings, scalars = _hyperparameters(events), dict(_scalars(events))
        except Exception as error:
            raise InputError(f"{folder} holds event files that TensorBoard cannot read: {error}") from None
        run = folder.parent if settings and folder.parent in rows else folder
        name = "." if run == path else run.relative_to(path).as_posix()
        row = rows.setdefault(run, {"run": name, **_named_in(name), PLACE: f"{path}, run {name}"})
        row |= {**settings, **scalars}
        outcomes += scalars
    return _with(pd.DataFrame(list(rows.values())), outcomes)


_KEPT = ("scalars", "tensors", "images", "audio", "histograms", "compressedHistograms")


def _scalars(events: Any) -> Iterator[tuple[str, float]]:
    """The last value of each scalar, of either generation of event files."""
    for tag in events.Tags()["scalars"]:
        yield tag, float(events.Scalars(tag)[-1].value)
    for tag in events.Tags()["tensors"]:
        if events.SummaryMetadata(tag).plugin_data.plugin_name == "scalars":
            from tensorboard.util.tensor_util import make_ndarray  # noqa: PLC0415 - an extra

            yield tag, float(make_ndarray(events.Tensors(tag)[-1].tensor_proto))


def _hyperparameters(events: Any) -> dict[str, Any]:
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData  # noqa: PLC0415 - an extra

    try:
        content = events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    except KeyError:
        return {}
    stated = HParamsPluginData.FromString(content).session_start_info.hparams
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in stated.items()}


def tensorboard_csv(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """The last value of a downloaded scalar, under the name of its tag where the file's name tells it."""
    if table.empty:
        raise InputError(f"{path} holds no value")
    last = table.tail(1)
    value = column(last["Value"].reset_index(drop=True), [last[PLACE].iloc[0]])[0]
    found = _EXPORTED.fullmatch(path.stem)
    run = found["run"] if found else path.stem
    tag = found["tag"] if found else "Value"
    return _with(pd.DataFrame([{"run": run, **_named_in(run), tag: value, PLACE: str(path)}]), [tag])


def one_a_run(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Scalars of one run, from a file each, in one row."""
    tables = list(tables)
    joined = pd.concat(tables, ignore_index=True).groupby("run", as_index=False, sort=False).first()
    return _with(joined, (tag for table in tables for tag in table.attrs[OUTCOMES]))


def _named_in(run: str) -> dict[str, str]:
    """What a run's name says of it: `lr=0.1,seed=0`."""
    pieces = [piece.partition("=") for piece in re.split(r"[,/;&]", run) if "=" in piece]
    return {name.strip(): value.strip() for name, _, value in pieces if name.strip()}


# ----------------------------------------------------------------------------------------------------- Weights & Biases

SUMMARY = "wandb-summary.json"
_LINE = re.compile(r"(?P<run>.+) - (?P<metric>.+?)(?P<band>__(MIN|MAX))?")


def beside(summary: Path) -> dict[str, Any]:
    """The settings of the run whose wandb-summary.json this is, from config.yaml beside it."""
    config = summary.with_name("config.yaml")
    if not config.is_file():
        return {}
    stated = read_yaml(config)
    if not isinstance(stated, Mapping):
        raise InputError(f"{config} is not the config.yaml of a W&B run: it must hold names and values")
    return {
        str(name): value["value"]
        for name, value in stated.items()
        if isinstance(value, Mapping) and "value" in value and name != "_wandb"
    }


def is_chart(header: Sequence[str]) -> bool:
    """Whether a table is the CSV of a W&B chart: a column a run and metric, `NAME - METRIC`, over steps."""
    lines = [_LINE.fullmatch(name) for name in header[1:]]
    return len(lines) > 0 and all(lines) and any(line and line["band"] for line in lines)


def chart(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """A row a run: the last value of each metric that a chart shows."""
    rows: dict[str, dict[str, Any]] = {}
    for name in (name for name in table.columns[1:] if name != PLACE):
        line = _LINE.fullmatch(str(name))
        if line is None or line["band"]:
            continue
        known = table[name][table[name].notna() & (table[name] != "")]
        row = rows.setdefault(line["run"], {"run": line["run"], **_named_in(line["run"])})
        row[line["metric"]] = known.iloc[-1] if len(known) else None
    places = {PLACE: [f"{path}, run {run}" for run in rows]}
    metrics = [str(line["metric"]) for name in table.columns if (line := _LINE.fullmatch(str(name)))]
    return _with(pd.DataFrame(list(rows.values())).assign(**places), metrics)


def unpacked(table: pd.DataFrame) -> list[tuple[str, dict[str, Any]]]:
    """Rows of the table that W&B's guide makes of runs: `summary` and `config` hold Python dicts, as text."""
    return [
        (row[PLACE], {"run": row.get("name", ""), **{part: _dict(row, part) for part in ("config", "summary")}})
        for row in table.to_dict("records")
    ]


def _dict(row: Mapping[str, str], part: str) -> Mapping[str, Any]:
    try:
        value = ast.literal_eval(re.sub(r"(?<![\w'\"])(nan|inf)(?![\w'\"])", "None", row[part]))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InputError(f"{row[PLACE]}: {part} is {printable(row[part][:60])!r}; it must be a run's names and values")
    return dict(flatten(value))
