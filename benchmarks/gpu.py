"""All that is to be found out on a GPU, one step after the other, each within a limit of time (docs/performance.md).

    python -m benchmarks gpu --list
    python -m benchmarks gpu --budget 840 --out gpu/                     # until so many seconds are used up
    python -m benchmarks gpu --only paper knn --budget 840 --out gpu/    # these alone
    python -m benchmarks gpu --device cpu --quick --out /tmp/dry         # small, to see that every command is right

A step that would not end within what is left of the budget is left out, and said. One that fails or is cut off stops no
other. Goes out: OUT/log.txt with all that the steps printed, OUT/steps.json, and of each training its result.json and
metrics.jsonl.
"""

import argparse
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO

from benchmarks import common

HERE = Path(__file__).parent.parent
RUN = [sys.executable, "-P", "-m", "headstart"]
BENCH = [sys.executable, "-m", "benchmarks"]
STUDY = """
name: shared
data: [digits]
base:
  data: {limit: 200}
  backbone: {name: resnet18}
  autoencoder: {epochs: 1}
  contrastive: {epochs: 1, batch_size: 32}
factors:
  head.init: [random, autoencoder]
seeds: [0]
"""
"""Two runs, which share the device."""


@dataclass(frozen=True)
class Step:
    """A command, what it is for, and the seconds after which it is ended; neighbours that may be are taken `beside`."""

    name: str
    command: Sequence[str]
    limit: float
    beside: bool = False


def smoke(device: str, folder: Path) -> list[Step]:
    """Every path of the product once, small, on the digits: each command reads what those before it wrote."""
    run, chosen = str(folder / "run"), ["--device", device, "--threads", "1"]  # a dozen of them side by side
    config, picture, study = (str(folder / name) for name in ("run/config.yaml", "picture.png", "study.yaml"))
    tiny = ["--data.limit", "200", "--autoencoder.epochs", "2", "--contrastive.epochs", "2"]
    tiny += ["--backbone.name", "resnet18", "--contrastive.batch-size", "32"]
    adamw = ["--contrastive.optimizer", "adamw"]

    def pretrain(name: str, *options: str) -> list[str]:
        return ["pretrain", "digits", "--out", f"{run}-{name}", *tiny, *options]

    commands = {
        "pretrain": ["pretrain", "digits", "--out", run, *tiny],
        "chunks": pretrain("chunks", "--contrastive.chunk", "8"),
        "lars": pretrain("lars", "--contrastive.optimizer", "lars"),
        "vicreg": pretrain("vicreg", "--contrastive.objective", "vicreg", *adamw),
        "barlow": pretrain("barlow", "--contrastive.objective", "barlow", *adamw),
        "sigreg": pretrain("sigreg", "--contrastive.objective", "sigreg", *adamw),
        "float32": pretrain("float32", "--precision", "float32"),
        "adapt": pretrain("adapt", "--backbone.weights", run),
        "evaluate": ["evaluate", run],
        "embed": ["embed", run, "digits", "--out", f"{run}.npz"],
        "search": ["search", run, "digits", "--query", picture, "--top", "3"],
        "select": ["select", run, "digits", "-n", "5"],
        "map": ["map", run, "digits", "--out", f"{run}-map"],
        "finetune": ["finetune", run, "digits", "--out", f"{run}-classifier", "--epochs", "2"],
        "two runs at once": ["study", "run", study, "--out", f"{run}-study", "--workers", "2"],
        "predict": ["predict", f"{run}-classifier", picture, "--out", f"{run}.csv"],
        "extend": ["pretrain", "--config", config, "--out", run, "--contrastive.epochs", "3", "--extend"],
    }
    alone = {"pretrain", "predict", "extend"}  # what the others read, what reads theirs, what changes what they read
    return [Step(f"smoke: {name}", [*RUN, *it, *chosen], 90, name not in alone) for name, it in commands.items()]


def tables(device: str, quick: bool) -> list[Step]:
    """The benchmarks, and the step through torch.compile."""
    rounds = ["--device", device, "--rounds", "1" if quick else "5"]
    batch, steps = ["--batch-size", "16" if quick else "1280"], ["--steps", "1" if quick else "10"]
    photographs = ["--size", "64" if quick else "224", "--backbone", "resnet50"]
    photographs += ["--batch-size", "4" if quick else "32", "--steps", "5"]
    knn = ["--backbone", "resnet18", "--stem", "cifar", "--batch-size", "16" if quick else "512"]
    compiled = ["step", *rounds, *batch, "--only-headstart", "--compile"]
    commands: dict[str, tuple[list[str], float]] = {
        "step": (["step", *rounds, *batch], 90),
        "profile": (["step", "--device", device, *batch, "--profile"], 60),
        "step, resnet18": (["step", *rounds, *knn, "--only-headstart", "--compile", "default"], 150),
        "profile, resnet18": (["step", "--device", device, *knn, "--profile"], 60),
        "photographs": (["step", *rounds, *photographs], 200),
        "end to end": (["end_to_end", *rounds, *batch, *steps], 200),
        "compiled": ([*compiled, "default"], 150),
        "workers": (["workers", *rounds, *batch], 120),
        "first": (["first", "--device", device, *(["--epochs", "1", "--pictures", "128"] if quick else [])], 150),
        "augment": (["augment", *rounds], 90),
        "loss": (["loss", *rounds, "--objective", "nt_xent"], 90),
        "autoencoder": (["autoencoder", *rounds], 60),
        "probe": (["probe", *rounds], 90),
    }
    return [Step(name, [*BENCH, *command], limit) for name, (command, limit) in commands.items()]


def targets(device: str, quick: bool, folder: Path, pictures: str) -> list[Step]:
    """The paper's run on CIFAR-10 (SimCLR in one minute, two at most; its autoencoder's epochs are only counted), and
    84.8 % by the 200 nearest neighbours, with the settings of lightly's published CIFAR-10 benchmark (five minutes, ten
    at most), also compiled. Their result.json has the seconds of each stage, and the probe `knn` with its `wide`.
    Between them what lightly's own parts make of the same pictures in 40 epochs."""
    chosen = [pictures, "--device", device, "--probe.names", "knn"]
    less = ["--data.limit", "400", "--autoencoder.epochs", "1"] if quick else []

    def size(epochs: int, pairs: int) -> list[str]:
        epochs, pairs = (1, 32) if quick else (epochs, pairs)
        return ["--contrastive.epochs", str(epochs), "--contrastive.batch-size", str(pairs)]

    paper = ["pretrain", *chosen, "--out", str(folder / "paper"), "--autoencoder.epochs", "5", *size(150, 1280), *less]
    knn = ["pretrain", *chosen, *size(200, 512), *less]
    knn += ["--backbone.name", "resnet18", "--backbone.stem", "cifar"]
    knn += ["--head.init", "random", "--head.no-frozen", "--head.hidden-dim", "512", "--head.batch-norm"]
    knn += ["--contrastive.lr", "0.24", "--contrastive.weight-decay", "5e-4"]
    knn += ["--augment.blur-p", "0", "--augment.jitter", "0.4", "0.4", "0.4", "0.1"]
    parity = ["parity", pictures, "--device", device, "--stem", "cifar", "--batch-size", "16" if quick else "512"]
    parity += ["--limit", "400", "--epochs", "1"] if quick else ["--limit", "50000", "--epochs", "40"]
    return [
        Step("paper", [*RUN, *paper], 180),
        Step("parity", [*BENCH, *parity], 420),
        Step("knn", [*RUN, *knn, "--out", str(folder / "knn")], 600),
        Step("whole, compiled", [*RUN, *knn, "--out", str(folder / "compiled"), "--contrastive.compile"], 480),
    ]


def steps_of(device: str, quick: bool, folder: Path, pictures: str) -> list[Step]:
    """All of them, in order: what is small and may fail first, what is long last."""
    tests = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", "tests/device", "--device", device]
    first, *others = smoke(device, folder)
    return [
        first,
        Step("tests", [sys.executable, *tests], 150, beside=True),
        *others,
        *tables(device, quick),
        *targets(device, quick, folder, pictures),
    ]


def only(names: Sequence[str] | None, steps: Sequence[Step]) -> Sequence[Step]:
    """The steps of these names, or of these groups, such as `smoke`; without names all. Exits for an unknown one."""
    chosen = [step for step in steps if {step.name, step.name.split(":")[0]} & set(names or ())]
    known = {step.name for step in steps} | {step.name.split(":")[0] for step in steps}
    if unknown := sorted(set(names or ()) - known):
        sys.exit(f"benchmarks gpu: there is no step {unknown[0]!r}; --list has them")
    return chosen if names else steps


def take(step: Step, log: IO[str]) -> tuple[str, float]:
    """Run one; `ok`, `failed (CODE)` or `cut off`, and its seconds. Its process group ends with it."""
    log.write(f"\n==== {step.name}: {' '.join(step.command)}\n")
    log.flush()
    began = time.monotonic()
    process = subprocess.Popen(step.command, cwd=HERE, stdout=log, stderr=log, start_new_session=True)
    try:
        code = process.wait(step.limit)
        outcome = "ok" if code == 0 else f"failed ({code})"
    except subprocess.TimeoutExpired:
        outcome = "cut off"
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return outcome, time.monotonic() - began


def keep_results(folder: Path, out: Path) -> None:
    """OUT/NAME.json and NAME.jsonl of every training: result.json and metrics.jsonl are small, weights are not."""
    for result in sorted(folder.glob("*/result.json")):
        (out / f"{result.parent.name}.json").write_bytes(result.read_bytes())
        (out / f"{result.parent.name}.jsonl").write_bytes(result.with_name("metrics.jsonl").read_bytes())


def main(argv: list[str]) -> None:
    """Take the steps; exit code 1 where one failed."""
    parser = argparse.ArgumentParser(
        prog="benchmarks gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="small sizes, one round, one epoch")
    parser.add_argument("--budget", type=float, default=float("inf"), help="seconds for all steps together")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these steps; `smoke` is all of its steps")
    parser.add_argument("--cifar10", default="cifar10:.", metavar="DATA", help="as `headstart pretrain` takes it")
    parser.add_argument("--out", type=Path, default=Path("gpu"))
    parser.add_argument("--list", action="store_true", help="the steps and their commands, and no more")
    chosen = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        steps = only(chosen.only, steps_of(chosen.device, chosen.quick, folder, chosen.cifar10))
        if chosen.list:
            for step in steps:
                print(f"{step.name} (at most {step.limit:.0f} s)\n    {' '.join(step.command)}")
            return
        chosen.out.mkdir(parents=True, exist_ok=True)
        print(common.machine(chosen.device))
        done = take_all(steps, chosen.budget, folder, chosen.out)
    (chosen.out / "steps.json").write_text(json.dumps(done, indent=1))
    sys.exit(any(step["outcome"] not in ("ok", "left out") for step in done))


def take_all(steps: Sequence[Step], budget: float, folder: Path, out: Path) -> list[dict[str, object]]:
    """Each step's name, command, outcome and seconds; the same as a table on the screen."""
    (folder / "study.yaml").write_text(STUDY)
    _a_picture(folder / "picture.png")
    ends, done = time.monotonic() + budget, []
    with (out / "log.txt").open("w") as log:
        for beside, neighbours in itertools.groupby(steps, key=lambda step: step.beside):
            several = list(neighbours)
            with ThreadPoolExecutor(len(several) if beside else 1) as pool:
                taken = pool.map(partial(_within, ends, log), several)
                for step, (outcome, seconds) in zip(several, taken, strict=True):
                    print(f"| {step.name} | {outcome} | {seconds:.0f} s |", flush=True)
                    done.append({**asdict(step), "outcome": outcome, "seconds": round(seconds, 1)})
                    keep_results(folder, out)
    return done


def _within(ends: float, log: IO[str], step: Step) -> tuple[str, float]:
    """As `take`, with what it printed in one piece; left out where it might not end in time."""
    if ends - time.monotonic() <= step.limit:
        return "left out", 0.0
    with tempfile.TemporaryFile("w+") as own:
        outcome = take(step, own)
        own.seek(0)
        log.write(own.read())
        log.flush()
    return outcome


def _a_picture(path: Path) -> None:
    from torchvision.io import write_png

    from headstart.data import open_images
    from headstart.records.config import DataConfig

    write_png(open_images(DataConfig(sources=("digits",), limit=20)).batch([0])[0][0], str(path))
