"""Accuracy with 1 %, 10 % and all labels: a linear classifier on frozen features, and fine-tuning, each from the
pretrained and the untrained network.

`python -m benchmarks few_labels RUN --data grocery/ --out runs/few-labels`. Continues where it was stopped. Linear:
the probes of the run. Fine-tuned: `headstart finetune` with its defaults. Intervals: Wilson over test pictures; the
few-label probes' over eight draws of labels.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import headstart
from benchmarks import common
from headstart.engine.device import choose
from headstart.records import files
from headstart.use.classifier import RESULT
from headstart.use.finetune import finetune
from headstart.use.load import Run
from headstart.use.settings import FinetuneSettings

SHARES = {"1 %": (0.01, "linear_1pct"), "10 %": (0.1, "linear_10pct"), "all": (1.0, "linear")}


def main(argv: Sequence[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="benchmarks few_labels", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run")
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True, help="a folder for the classifiers")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args(argv)
    run, compute = headstart.load(options.run), choose(threads=options.threads)
    images = run.open_images(options.data)
    rows: dict[str, list[str]] = {"linear, untrained": [], "linear, pretrained": []}
    labels = []
    for name, (share, probe) in SHARES.items():
        out = options.out / name.replace(" %", "pct")
        if not (out / RESULT).exists():
            finetune(run, images, out, FinetuneSettings(labels=share, epochs=options.epochs), compute=compute)
        record = files.read_json(out / RESULT)
        labels.append(f"{name} ({record['n_labels']})")
        for row in record["rows"]:
            rows.setdefault(f"fine-tuned, {row['label']}", []).append(cell(row))
        for kind in ("untrained", "pretrained"):
            rows[f"linear, {kind}"].append(probed(run, kind, probe))
    print(common.machine())
    print(f"{record['rows'][0]['n_test']} test pictures, {record['n_val']} labelled pictures to stop by\n")
    print(f"| labels | {' | '.join(labels)} |\n| --- {'| --- ' * len(labels)}|")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |")


def probed(run: Run, kind: str, probe: str) -> str:
    """A probe of the run before or after SimCLR, as a table cell."""
    results = run.result["probes" if kind == "pretrained" else "untrained"]
    return cell(results[probe]) if probe in results else "-"


def cell(result: dict[str, Any]) -> str:
    """Accuracy in percent with its interval."""
    low, high = result["ci95"]
    return f"{100 * result['accuracy']:.1f} ({100 * low:.1f} to {100 * high:.1f})"
