"""What the page of a single run says, and in which order.

Comes in: the `Records` of one run. Goes out: a `Page` for html.py.
"""

import csv
import io
from collections.abc import Mapping
from math import isnan
from typing import Any

import pandas as pd

from headstart.records.config import flatten
from headstart.records.errors import InputError
from headstart.records.files import opened
from headstart.records.names import PROBES
from headstart.report import picture_map, probing
from headstart.report.comparisons import points
from headstart.report.frame import Records
from headstart.report.html import (
    Column,
    Facts,
    FigureGrid,
    Page,
    PageSection,
    SortableTable,
)
from headstart.report.labels import (
    head_label,
    name_of_head,
)
from headstart.report.sections import (
    FOOTER,
    every_probe,
    geometry,
    no_gain,
    percent,
    samples,
    title,
    training,
)
from headstart.report.unlabelled import unlabelled_verdict
from headstart.report.verdict import before_simclr, kept_given, not_known, verdict


def page(study: Records) -> Page:
    """The page of a single run."""
    (result,) = study.results.values()
    sections = [
        every_probe(study),
        _map(study),
        samples(study),
        _confusion(study),
        training(study),
        geometry(study),
        _settings(study),
        _skipped(study),
    ]
    headline, *support = _answer(study, result)
    return Page(
        title=title(study.path),
        counts=_run_counts(study, result),
        headline=headline,
        support=support,
        caveats=_run_caveats(result),
        sections=[s for s in sections if s is not None and s.blocks],
        footer=FOOTER,
    )


def _answer(study: Records, result: Mapping[str, Any]) -> list[str]:
    """What the run found, the first sentence first."""
    head, unlabelled = result["head"], unlabelled_verdict(result)
    said = [verdict(result), unlabelled]
    if not kept_given(result):
        said += [] if unlabelled else [_run_headline(study, result)]
        said += [no_gain(result, name_of_head(head_label(head["init"], head["frozen"])))]
    return [sentence for sentence in said if sentence]


def _map(study: Records) -> PageSection | None:
    """The pictures of a single run as its backbone sees them."""
    held = picture_map.read(study.folder(".").samples / "map.json")
    lead = "SimCLR never saw the test split. The command headstart map draws other sets, and more of large ones."
    return None if held is None else picture_map.section(held, lead)


def _run_counts(study: Records, result: Mapping[str, Any]) -> list[str]:
    data, head = result.get("data") or {}, result["head"]
    said = [str(name) for name in study.sets or study.autoencoders["dataset"].unique()]
    if all(key in data for key in ("train", "val", "test")):
        said.append(f"{data['train']:,} training, {data['val']:,} validation, {data['test']:,} test pictures")
    said.append(str((result.get("backbone") or {}).get("name", "")))
    if result["stage"] != "autoencoder":
        state = "frozen" if head["frozen"] else "trainable"
        kind = "" if head.get("kind", "mlp") == "mlp" else f" {head['kind']}"
        sizes = f"{head['hidden_dim']} to {head['output_dim']}"
        said.append(f"head:{kind} {state} {head['init']}, {head['activation']}, {sizes}")
    return [s for s in said if s]


def _run_headline(study: Records, result: Mapping[str, Any]) -> str:
    if result["stage"] == "autoencoder":
        mse = (result.get("autoencoder") or {}).get("test_mse")
        return (
            f"The autoencoder reconstructs test pictures with a mean squared error of {mse:.5f}."
            if mse
            else ("The run stopped after its autoencoder.")
        )
    run = study.runs.iloc[0]
    if pd.isna(run["accuracy"]):
        return "The backbone is trained. It was not probed, so there is no accuracy to report."
    interval = f" ({percent(run['low'])} to {percent(run['high'])})" if not isnan(run["low"]) else ""
    text = f"After SimCLR, {PROBES.shown(study.probe)} reaches {percent(run['accuracy'])} %{interval}"
    if isnan(run["untrained"]):
        return text + "."
    gain = 100 * (run["accuracy"] - run["untrained"])
    before = before_simclr(result)
    rest = f"{percent(run['untrained'])} %: {points(abs(gain))} points {'more' if gain >= 0 else 'less'}"
    than = " than untrained" if before == "the untrained backbone" else ""
    return f"{text}; on {before}, {rest}{than}."


def _run_caveats(result: Mapping[str, Any]) -> list[str]:
    if result["stage"] == "autoencoder":
        return []
    said = ["One run cannot say whether its head helped: that takes matched runs of another head, and several seeds."]
    if result.get("probes") and not result.get("untrained"):
        said.append(not_known(result))
    return said


def _confusion(study: Records) -> PageSection | None:
    (result,) = study.results.values()
    probes, classes = result.get("probes") or {}, (result.get("data") or {}).get("classes") or []
    name = "linear" if "linear" in probes else study.probe
    figure = probing.confusion(name, probes.get(name) or {}, [str(c) for c in classes])
    if figure is None:
        return None
    lead = "A row is a class, a column what its test pictures were taken for; the diagonal is right."
    return PageSection("confusion", "What it mixes up", lead, [FigureGrid([figure])])


def _settings(study: Records) -> PageSection:
    (result,) = study.results.values()
    facts = [
        (name.replace("_", " "), _value(value)) for name, value in flatten(study.configs["."]) if value is not None
    ]
    seconds = [(f"{stage}, seconds", f"{s:,.1f}") for stage, s in (result.get("seconds") or {}).items()]
    blocks = [Facts(f, title) for f, title in ((seconds, "Time"), (facts, "As decided")) if f]
    return PageSection("settings", "Settings", "", blocks)


def _value(value: Any) -> str:
    return ", ".join(str(v) for v in value) if isinstance(value, list) else str(value)


def _skipped(study: Records) -> PageSection | None:
    path = study.folder(".").skipped
    if not path.exists():
        return None
    try:
        with opened(path) as file, io.TextIOWrapper(file, encoding="utf-8", errors="replace", newline="") as text:
            rows = [row for row in csv.reader(text) if row]
    except (OSError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}; delete it or restore it from a copy") from None
    if len(rows) < 2:
        return None
    columns = [Column(name) for name in rows[0]]
    cells = [[*row, *[""] * len(columns)][: len(columns)] for row in rows[1:]]
    return PageSection(
        "skipped",
        "Pictures set aside",
        "Files that could not be used, and why.",
        [SortableTable("grid-skipped", "", columns, cells)],
    )
