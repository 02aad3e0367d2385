"""Whether a change leaves every result as it was: the same jobs at two commits, compared file by file.

    python -m benchmarks unchanged BEFORE [AFTER]

AFTER is the working tree unless a commit is named. Both do the demo, a run with the paper's preset, a study over two
sets and the import of the authors' records, with the same seeds, one thread and one interpreter. Weights must be
byte-equal, `config_hash` equal, `result.json` equal but for seconds, tables byte-equal. Exit code 1 where something
differs. A change that is meant to alter results says so, and which.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ("backbone.safetensors", "head.safetensors", "autoencoder.safetensors")

SMALL = {
    "data": {"limit": 200, "size": 16},
    "backbone": {"name": "resnet18"},
    "autoencoder": {"epochs": 2},
    "head": {"hidden_dim": 32, "output_dim": 16},
    "contrastive": {"epochs": 2, "batch_size": 32},
    "probe": {"names": ["paper", "linear", "knn", "few_shot_5"]},
}
TWO_SETS = {
    "name": "two-sets",
    "data": {"one": {"sources": ["digits"]}, "other": {"sources": ["digits"], "options": {"data.split_seed": 1}}},
    "base": SMALL,
    "factors": {"head.init": ["random", "autoencoder", "spectrum"], "head.frozen": [True, False]},
    "seeds": [0, 1],
}


def main(arguments: list[str]) -> None:
    """Run the jobs at both commits and print what differs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks unchanged", description=__doc__)
    parser.add_argument("before")
    parser.add_argument("after", nargs="?", help="a commit; the working tree where it is left out")
    parser.add_argument("--skip", nargs="*", default=[], choices=sorted(JOBS), help="jobs to leave out")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        folders = []
        for label, commit in (("before", asked.before), ("after", asked.after)):
            source = ROOT if commit is None else _worktree(commit, Path(scratch) / f"{label}-source")
            folders.append(Path(scratch) / label)
            for name in sorted(set(JOBS) - set(asked.skip)):
                print(f"{label}: {name}", flush=True)
                JOBS[name](source, folders[-1] / name)
        compared, found = 0, []
        for path, difference in differences(*folders):
            compared += 1
            found += [f"{path}: {difference}"] if difference else []
        for commit in ("before-source", "after-source"):
            subprocess.run(
                ["git", "worktree", "remove", "--force", f"{scratch}/{commit}"],
                cwd=ROOT,
                check=False,
                stderr=subprocess.DEVNULL,
            )
    print("\n".join(found) or f"unchanged: {compared} files")
    sys.exit(1 if found or not compared else 0)


def differences(before: Path, after: Path) -> Iterator[tuple[Path, str]]:
    """Each file that counts, with how its two versions differ; empty where they do not."""
    counted = {p.relative_to(folder) for folder in (before, after) for p in folder.rglob("*") if _counts(p)}
    for path in sorted(counted):
        missing = [folder.name for folder in (before, after) if not (folder / path).exists()]
        if missing:
            yield path, f"missing {missing[0]}"
        elif path.name == "result.json":
            old, new = (_flat(_result(folder / path)) for folder in (before, after))
            changed = [f"{k} {old.get(k)} -> {new.get(k)}" for k in sorted({**old, **new}) if old.get(k) != new.get(k)]
            yield path, "; ".join(changed[:5])
        else:
            same = (before / path).read_bytes() == (after / path).read_bytes()
            yield path, "" if same else "other bytes"


def _counts(path: Path) -> bool:
    return path.name in (*WEIGHTS, "result.json") or (path.parent.name == "tables" and path.is_file())


def _result(path: Path) -> dict[str, Any]:
    return {name: value for name, value in json.loads(path.read_text()).items() if name not in ("seconds", "headstart")}


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    return {inner: v for key, nested in value.items() for inner, v in _flat(nested, f"{name}.{key}").items()}


def _worktree(commit: str, folder: Path) -> Path:
    subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(folder), commit], cwd=ROOT, check=True)
    return folder


def _headstart(source: Path, *arguments: str | Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(source / "src"), "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    command = [sys.executable, "-P", "-m", "headstart", *map(str, arguments)]
    done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")


def _demo(source: Path, out: Path) -> None:
    _headstart(source, "demo", "--out", out, "--threads", "1")


def _paper(source: Path, out: Path) -> None:
    options = [
        "--preset",
        "paper",
        "--backbone.weights",
        "none",
        "--autoencoder.epochs",
        "2",
        "--contrastive.epochs",
        "2",
    ]
    options += ["--data.size", "16", "--data.limit", "800", "--contrastive.batch-size", "64"]
    _headstart(source, "pretrain", "digits", "--out", out, *options, "--threads", "1", "--precision", "float32")


def _study(source: Path, out: Path) -> None:
    settings = out.with_suffix(".yaml")
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(yaml.safe_dump(TWO_SETS, sort_keys=False), encoding="utf-8")
    _headstart(source, "study", "run", settings, "--out", out, "--workers", "0", "--threads", "1")
    _headstart(source, "report", out)


def _authors(source: Path, out: Path) -> None:
    shared = os.environ.get("HEADSTART_DATA")
    tables = sorted((Path(shared) / "reference").glob("*.csv")) if shared else []
    if not tables:
        sys.exit("the authors' CSV files are looked for in HEADSTART_DATA/reference; set it, or --skip authors")
    _headstart(source, "study", "import", *tables, "--out", out)
    _headstart(source, "report", out)


JOBS = {"authors": _authors, "demo": _demo, "paper": _paper, "study": _study}
