"""What each command says on a terminal of 80 columns: no line is wider, and a live line never wraps into two."""

import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.cells import cell_len

from headstart.cli.commands import COMMANDS

COLUMNS = 80
SMALL = (
    "--backbone.name resnet18 --data.size 16 --autoencoder.epochs 1 --contrastive.epochs 1 --contrastive.batch-size 8 "
    "--head.hidden-dim 16 --head.output-dim 8 --precision float32 --threads 1 --device cpu --probe.names knn few_shot_1"
)
STUDY = """\
data: [photos]
base:
  data: {size: 16}
  backbone: {name: resnet18}
  contrastive: {epochs: 1, batch_size: 8}
  head: {init: random, hidden_dim: 16, output_dim: 8}
  probe: {names: [knn]}
  precision: float32
  device: cpu
factors: {head.frozen: [true, false]}
seeds: [0]
"""
SAID = [
    f"pretrain photos --out run {SMALL}",
    "evaluate run --device cpu --threads 1",
    "embed run photos --out e.npz --data.labels none --device cpu --threads 1",
    "search e.npz --query photos/a/0.png --top 5",
    "search e.npz --query photos/a/0.png --out alike.png",
    "select e.npz -n 4 --out next",
    "map e.npz --out map",
    "finetune run photos --out cls --epochs 1 --lr 0.001 --layer-decay 1 --device cpu --threads 1",
    "predict cls photos --out p.csv --device cpu --threads 1",
    "export run --format torchvision --out b.pt",
    "study plan study.yaml --no-calibrate",
    "study run study.yaml --out study --threads 1",
    "study status study",
    "report run",
    "report study",
    "compare study --metric accuracy --by head",
    "check photos",
    "doctor",
    "list backbones",
    "list presets",
    "pretrain photoz --out other",
    "pretrain photos --out run --head.init random",
    "compare study --metric accuraci --by head",
    "--help",
    *(f"{name} --help" for name in COMMANDS),
]
DRIVER = """
import shlex, sys
from headstart.cli.commands import main
for line in sys.stdin:
    print("@@@ " + line, end="", flush=True)
    try:
        main(shlex.split(line))
    except SystemExit as ended:
        print(f"@@@ {ended.code}", flush=True)
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Command -> what it left on the terminal, line by line, each state of a live line as a line of its own."""
    folder = tmp_path_factory.mktemp("columns")
    for kind, name in enumerate("abc"):
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(12):
            noise = np.random.default_rng([kind, i]).integers(0, 90, (24, 24, 3)) + 50 * kind
            Image.fromarray(noise.astype(np.uint8)).save(folder / "photos" / name / f"{i}.png")
    (folder / "study.yaml").write_text(STUDY)
    lines: dict[str, list[str]] = {}
    here: list[str] = []
    for line in _lines(_on_terminal(folder, SAID)):
        if line.startswith("@@@ ") and not line[4:].isdigit():
            here = lines.setdefault(line[4:], [])
        elif line:
            here.append(line)
    return lines


def _on_terminal(folder: Path, commands: list[str]) -> str:
    """Everything that the commands write to a terminal of 24 lines."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    driver = subprocess.Popen(
        [sys.executable, "-P", "-c", DRIVER],
        cwd=folder,
        env={**environment, "TERM": "xterm-256color"},
        stdin=subprocess.PIPE,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    assert driver.stdin is not None
    driver.stdin.write("".join(f"{command}\n" for command in commands).encode())
    driver.stdin.close()
    written = b""
    try:
        while piece := os.read(ours, 2**16):
            written += piece
    except OSError:  # how a terminal ends whose other side has closed
        pass
    finally:
        os.close(ours)
    assert driver.wait() == 0, written.decode()[-2000:]
    return written.decode()


def _lines(written: str) -> Iterator[str]:
    for line in re.split(r"\x1b\[[0-9;?]*[A-HJKhl]|[\r\n]+", written):
        yield re.sub(r"\x1b\[[0-9;]*m|\x1b\]8;[^\x1b]*\x1b\\", "", line).rstrip()


@pytest.mark.parametrize("command", SAID, ids=[" ".join(shlex.split(command)[:4]) for command in SAID])
def test_no_line_is_wider_than_the_terminal(said: dict[str, list[str]], command: str) -> None:
    lines = said[command]
    assert lines[-1] == ("@@@ 2" if "photoz" in command or "accuraci" in command or "init" in command else "@@@ 0")
    to_paste = "next: headstart "  # a command stays on one line, that it can be copied whole
    assert [line for line in lines if cell_len(line) > COLUMNS and not line.startswith(to_paste)] == []


def test_trainings_show_a_live_line(said: dict[str, list[str]]) -> None:
    for command in (SAID[0], next(c for c in SAID if c.startswith("finetune"))):
        assert any("━" in line and "epoch 1/1" in line for line in said[command])
