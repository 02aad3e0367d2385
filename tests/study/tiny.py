"""A study of four runs and two autoencoders that takes seconds, and what its folder holds afterwards."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from headstart.records.files import read_json
from headstart.records.folder import read_metrics

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": ["digits"],
    "base": {
        "data": {"limit": 64, "size": 16},
        "backbone": {"name": "shufflenet_v2_x0_5"},
        "autoencoder": {"epochs": 2, "lr": 0.001},
        "head": {"hidden_dim": 16, "output_dim": 8},
        "contrastive": {"epochs": 3, "batch_size": 16},
        "probe": {"names": ["knn"]},
        "checkpoint": {"minutes": 0},
        "precision": "float32",
        "device": "cpu",
        "threads": 1,
    },
    "factors": {"head.init": ["random", "autoencoder"]},
    "seeds": [0, 1],
}

CALL = """
import json, sys
from headstart import study
from headstart.records.errors import HeadstartError
options = json.loads(sys.argv[3])
if "ray" in options:
    options["ray"] = study.RayOptions(**options["ray"])
try:
    sys.exit(study.run(sys.argv[1], sys.argv[2], **options).exit_code)
except HeadstartError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""

TRAPS = ("yaml", "torch", "PIL", "uuid", "socket", "ray")
"""Modules that a folder of pictures may hold, to be imported by whoever imports from the current folder."""


def written(folder: Path, **changes: Any) -> Path:
    """The study's file, with other keys."""
    path = folder / "tiny.yml"
    path.write_text(yaml.safe_dump({**TINY, **changes}, sort_keys=False))
    return path


def start(file: Path | str, out: Path, **options: Any) -> subprocess.Popen[bytes]:
    """A study in a process group of its own, like a command typed into a shell in a folder that holds traps."""
    command = [sys.executable, "-P", "-c", CALL, str(file), str(out), json.dumps(options)]
    return subprocess.Popen(command, start_new_session=True, cwd=traps(out))


def traps(out: Path) -> Path:
    """A folder beside `out` that holds traps."""
    folder = out.with_name("traps")
    folder.mkdir(exist_ok=True)
    for name in TRAPS:
        code = f"open({str(folder / 'sprung')!r}, 'a').write({name!r} + chr(10))\nraise ImportError('a trap')\n"
        (folder / f"{name}.py").write_text(code)
    return folder


def sprung(out: Path) -> str:
    """Which of the traps beside `out` were imported."""
    path = out.with_name("traps") / "sprung"
    return path.read_text() if path.exists() else ""


def results(out: Path) -> dict[str, Any]:
    """What every run found, without times; and the bytes of its weights."""
    found = {}
    for path in sorted((out / "runs").glob("*/result.json")):
        result = read_json(path)
        lines = [
            {k: v for k, v in line.items() if k not in ("pairs_per_s", "pictures_per_s", "data_wait")}
            for line in read_metrics(path.with_name("metrics.jsonl"))
        ]
        weights = {p.name: p.read_bytes() for p in sorted(path.parent.glob("*.safetensors"))}
        found[path.parent.name] = ({k: v for k, v in result.items() if k != "seconds"}, lines, weights)
    return found


def assert_same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """The same runs found the same."""
    assert found.keys() == wanted.keys()
    for name in wanted:
        for part, (a, b) in enumerate(zip(found[name], wanted[name], strict=True)):
            assert a == b, (name, ("result", "metrics", "weights")[part])


def wait_for(what: Callable[[], Any], seconds: float = 1800.0) -> Any:
    """Wait until `what` returns something true, and return that."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen")


def processes_of(out: Path) -> set[int]:
    """Process ids that hold a claim in the study."""
    found = set()
    for path in (out / "runs").glob("*/.claim"):
        with contextlib.suppress(OSError, ValueError):
            found.add(json.loads(path.read_text())["pid"])
    return found


def half_done(out: Path) -> list[Path]:
    """Runs that have finished an epoch of SimCLR and saved it, and have no result yet."""
    return [
        p
        for p in (out / "runs").glob("data=*/checkpoint.pt")
        if not (p.parent / "result.json").exists() and epochs_done(p.parent)
    ]


def epochs_done(run: Path) -> list[int]:
    """Epochs of SimCLR in a run's metrics."""
    lines = read_metrics(run / "metrics.jsonl")
    return [line["epoch"] for line in lines if line["stage"] == "contrastive" and "epoch" in line]
