"""The commands: one clear sentence and exit 2 for bad input, help without torch, exit 75 when interrupted."""

import dataclasses
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from headstart.cli import defaults, refusals
from headstart.cli.commands import COMMANDS, main
from headstart.cli.screen import print_evaluation
from headstart.records.config import Config

SMALL = [
    "--backbone.name",
    "resnet18",
    "--data.limit",
    "128",
    "--data.size",
    "16",
    "--autoencoder.epochs",
    "2",
    "--contrastive.epochs",
    "2",
    "--contrastive.batch-size",
    "32",
    "--head.hidden-dim",
    "32",
    "--head.output-dim",
    "16",
    "--precision",
    "float32",
    "--threads",
    "1",
    "--probe.names",
    "knn",
]


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return int(stop.value.code or 0)


def pictures(folder: Path, n: int) -> Path:
    folder.mkdir(parents=True)
    for i in range(n):
        noise = np.random.default_rng(i).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
    return folder


def bad_inputs(tmp_path: Path) -> dict[str, list[str]]:
    file = tmp_path / "file"
    file.write_text("not a folder")
    (tmp_path / "empty").mkdir()
    one = pictures(tmp_path / "one", 1)
    out = str(tmp_path / "run")
    (tmp_path / "bad.yaml").write_text("head: {hiden_dim: 3}\n")
    (tmp_path / "type.yaml").write_text("head: {hidden_dim: many}\n")
    return {
        "missing path": ["pretrain", str(tmp_path / "nowhere"), "--out", out],
        "empty folder": ["pretrain", str(tmp_path / "empty"), "--out", out],
        "one picture": ["pretrain", str(one), "--out", out],
        "no data": ["pretrain", "--out", out],
        "batch too large": ["pretrain", "digits", "--out", out, "--contrastive.batch-size", "5000"],
        "out is a file": ["pretrain", "digits", "--out", str(file)],
        "out below a file": ["pretrain", "digits", "--out", str(file / "run")],
        "unknown backbone": ["pretrain", "digits", "--out", out, "--backbone.name", "resnet35"],
        "missing named set": ["pretrain", f"cifar10:{tmp_path}", "--out", out],
        "unknown key": ["pretrain", "digits", "--out", out, "--config", str(tmp_path / "bad.yaml")],
        "wrong type": ["pretrain", "digits", "--out", out, "--config", str(tmp_path / "type.yaml")],
        "no such device": ["pretrain", "digits", "--out", out, "--device", "cuda:7"],
        "not a run": ["embed", str(tmp_path / "empty"), "digits", "--out", str(tmp_path / "e.npz")],
        "not a study": ["study", "status", str(tmp_path / "empty")],
        "unknown study": ["study", "plan", "nothing-like-it"],
        "unknown command": ["pretrian", "digits"],
        "nothing to report": ["report", str(tmp_path / "empty")],
        "missing csv": ["study", "import", str(tmp_path / "no.csv"), "--out", out],
    }


CASES = (
    "missing path",
    "empty folder",
    "one picture",
    "no data",
    "batch too large",
    "out is a file",
    "out below a file",
    "unknown backbone",
    "missing named set",
    "unknown key",
    "wrong type",
    "no such device",
    "not a run",
    "not a study",
    "unknown study",
    "unknown command",
    "nothing to report",
    "missing csv",
)


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_sentence_and_exit_2(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*bad_inputs(tmp_path)[case]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    lines = [line for line in error.splitlines() if line.startswith("headstart:")]
    assert len(lines) == 1, error
    assert not (tmp_path / "run" / "result.json").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--contrastive.epoch", "3"],
            "pretrain has no option --contrastive.epoch (perhaps you meant --contrastive.epochs)",
        ),
        (
            ["--batch-size=3"],
            "no option --batch-size (perhaps you meant --autoencoder.batch-size or --contrastive.batch-size)",
        ),
        (["--hed.init", "pca"], "no option --hed.init (perhaps you meant --head.init)"),
        (["--contrastive.learning-rate", "3"], "no option --contrastive.learning-rate; `headstart pretrain --help`"),
        (["--contrastive.temperature", "-1"], "contrastive.temperature is -1.0; it must be greater than 0"),
        (["--contrastive.lr", "0,1"], "--contrastive.lr is '0,1'; it must be a number, with a point: 0.1"),
        (["--contrastive.epochs=2.5"], "--contrastive.epochs is '2.5'; it must be a whole number"),
        (["--contrastive.interpolate", "0.1,2"], "must be numbers, with blanks between them: 0.1 2"),
        (["--data.size", "tiny"], "--data.size is 'tiny'; it must be a whole number or auto"),
        (["--augment.crop-scale", "a", "b"], "--augment.crop-scale is 'a b'; it must be 2 numbers"),
        (["--augment.crop-scale", "0.5"], "--augment.crop-scale needs 2 values"),
        (["--head.init", "pac"], "--head.init is 'pac' (perhaps you meant 'pca'); it must be random, autoencoder,"),
        (["--head.frozen", "no"], "--head.frozen takes no value, and 'no' stands behind it"),
        (["--seed", "1", "2"], "'2' is a word too many"),
        (["--seed"], "--seed needs a value"),
    ],
)
@pytest.mark.parametrize("columns", ["60", "200"])
def test_wrong_options_say_in_a_sentence_what_would_be_right(
    arguments: list[str],
    said: str,
    columns: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert run("pretrain", "digits", "--out", str(tmp_path / "run"), *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("headstart: ")
    assert error.count("\n") == 1
    assert said in error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["search", "run"], "search needs --query PICTURE: a picture file, or a folder or list of them"),
        (["search", "run", "--qurey", "q.png"], "search has no option --qurey (perhaps you meant --query)"),
        (["predict"], "predict needs RUN and --out PATH; `headstart predict --help`"),
        (
            ["study", "run", "smoke", "--out", "s", "--seeds", "1,2"],
            "must be whole numbers, with blanks between them: 1 2",
        ),
        (["select", "run", "-n", "1.5"], "-n is '1.5'; it must be a whole number"),
        (["study", "plan"], "study plan needs STUDY; `headstart study plan --help`"),
    ],
)
def test_of_every_command(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "typed", "meant"),
    [
        ("compare", "a.csv --metric x --by h --metric y", "a.csv --by h --metric x y"),
        ("compare", "--metric=x a.csv --metric y z --by h", "a.csv --by h --metric x y z"),
        ("compare", "a.csv --metric x y --by g --by h", "a.csv --metric x y --by g --by h"),
        (
            "study run",
            "smoke --seeds 0 --out s --seeds 1 2 --data a --data b",
            "smoke --out s --data a b --seeds 0 1 2",
        ),
        ("pretrain", "--probe.names knn --out r --probe.names linear p", "--out r --probe.names knn linear p"),
        ("pretrain", "p --plugin a --plugin b --out r", "p --plugin a --plugin b --out r"),
        ("evaluate", "run --data a --data=b --threads 1", "run --threads 1 --data a b"),
    ],
)
def test_a_list_given_in_parts_is_one_list(command: str, typed: str, meant: str) -> None:
    """The last part alone counted; of one value the last still does."""
    assert defaults.joined(COMMANDS[command], typed.split()) == meant.split()


def test_what_no_sentence_is_known_for_is_shown_as_the_parser_says_it() -> None:
    assert refusals.sentence("╭─ Subcommand already selected ─╮\n│ twice │\n╰─╯", [], "headstart x", list) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_unwritable_out_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    assert run("pretrain", "digits", "--out", str(tmp_path / "locked" / "run")) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_out_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As root, too: /proc takes no folders."""
    assert run("pretrain", "digits", "--out", "/proc/headstart") == 2
    assert "cannot be written" in capsys.readouterr().err


def test_home_is_home_behind_an_equals_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where shells leave `~` as it is, an output would go into a folder of that name."""
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert run("check", "a.png", "--json=~/x.json") == 0
    assert (tmp_path / "home/x.json").is_file()
    assert not (tmp_path / "~").exists()


def test_an_open_file_of_the_shell_is_no_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--json /dev/fd/3 3> file`: renaming a file to it would not reach what the shell opened."""
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    with (tmp_path / "file").open("w") as file:
        assert run("check", str(tmp_path / "a.png"), "--json", f"/dev/fd/{file.fileno()}") == 2
    assert "is a device or a pipe" in capsys.readouterr().err


def test_help_status_and_report_do_not_import_torch() -> None:
    program = (
        "import sys\n"
        "from headstart.cli.commands import main\n"
        "for words in (['--help'], ['pretrain', '--help'], ['study', 'run', '--help'], ['report', '--help']):\n"
        "    try: main(words)\n"
        "    except SystemExit: pass\n"
        "import headstart.report, headstart.study\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for words in COMMANDS:
        assert run(*words.split(), "--help") == 0
        assert "usage" in capsys.readouterr().out
    assert run("--help") == 0
    listed = capsys.readouterr().out
    assert all(words in listed for words in COMMANDS)


def test_options_override_config_file_which_overrides_preset(tmp_path: Path) -> None:
    from headstart.cli.defaults import base_config

    (tmp_path / "some.yaml").write_text("contrastive: {epochs: 7, lr: 1e-4}\n")
    base = base_config(["digits", "--preset", "paper", f"--config={tmp_path / 'some.yaml'}", "--out", "run"])
    assert base.contrastive.epochs == 7
    assert base.contrastive.lr == 1e-4
    assert base.contrastive.passes == 2


def test_of_an_option_given_again_the_last_holds(tmp_path: Path) -> None:
    from headstart.cli.defaults import base_config, parsed
    from headstart.cli.train import pretrain

    (tmp_path / "first.yaml").write_text("contrastive: {epochs: 7}\n")
    (tmp_path / "last.yaml").write_text("contrastive: {epochs: 9}\n")
    argv = ["digits", "--preset", "adapt", "--config", str(tmp_path / "first.yaml"), "--out", "run"]
    argv += ["--preset=paper", f"--config={tmp_path / 'last.yaml'}"]
    base = base_config(argv)
    assert (base.contrastive.passes, base.contrastive.epochs) == (2, 9)
    assert parsed(pretrain, argv, "headstart", options=base)["preset"] == "paper"


def test_preset_knows_the_set_wherever_data_stands(tmp_path: Path) -> None:
    from headstart.cli.defaults import base_config

    (tmp_path / "some.yaml").write_text("data: {sources: [stl10:/data]}\n")
    for argv in (
        ["stl10:/data", "--preset", "paper", "--out", "cifar10"],
        ["--preset=paper", "--out", "cifar10", "--head.no-frozen", "stl10:/data"],
        ["--preset", "paper", "--config", str(tmp_path / "some.yaml"), "--out", "cifar10"],
    ):
        base = base_config(argv)
        assert (base.data.size, base.contrastive.batch_size) == (96, 500), argv


def test_set_may_be_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    both = ("--set", "contrastive.epochs=0", "--set", "head.output_dim=8")
    assert run("study", "plan", "smoke", "--no-calibrate", *both) == 2
    assert "contrastive.epochs is 0" in capsys.readouterr().err


def test_pretrain_repeats_from_its_own_config(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert run("pretrain", "digits", "--out", str(first), *SMALL, "--stages", "autoencoder") == 0
    assert run("pretrain", "--config", str(first / "config.yaml"), "--out", str(second)) == 0
    assert (first / "autoencoder.safetensors").read_bytes() == (second / "autoencoder.safetensors").read_bytes()
    assert run("pretrain", "digits", "--out", str(first), *SMALL, "--stages", "autoencoder") == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_saves_and_exits_75(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "headstart", "pretrain", "digits", "--out", str(tmp_path / "run"), *SMALL]
    process = subprocess.Popen([*command, "--autoencoder.epochs", "100000"], stderr=subprocess.PIPE, text=True)
    autoencoder_began = tmp_path / "run" / "splits.npz"
    while not autoencoder_began.exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(number)
    error = process.communicate(timeout=600)[1]
    assert process.returncode == 75, error
    assert "same command goes on" in error
    assert (tmp_path / "run" / "checkpoint.pt").exists()


@pytest.mark.parametrize(("what", "some"), [("probes", "linear"), ("heads", "autoencoder"), ("data", "digits")])
def test_list_says_what_can_be_named(capsys: pytest.CaptureFixture[str], what: str, some: str) -> None:
    assert run("list", what, "--json") == 0
    assert some in {choice["name"] for choice in json.loads(capsys.readouterr().out)}


@pytest.mark.parametrize(
    "name", ["pretrain", "evaluate", "embed", "search", "select", "map", "finetune", "predict", "export"]
)
def test_every_command_that_computes_takes_device_threads_and_plugins(name: str) -> None:
    taken = set(inspect.signature(COMMANDS[name]).parameters)
    if name == "pretrain":  # whose options are the settings
        taken |= {field.name for field in dataclasses.fields(Config)}
    assert {"device", "threads", "plugin"} <= taken


def test_evaluate_shows_the_geometry_that_its_json_holds(tmp_path: Path) -> None:
    shape = {"pictures": 9, "effective_rank": 12.34, "uniformity": -2.5, "mean_norm": 3.0, "dead": 0.25}
    columns = {
        "trained": {"probes": {}, "geometry": shape},
        "untrained": {"probes": {}, "geometry": shape | {"effective_rank": 7.0, "dead": None}},
    }
    path = tmp_path / "self.json"
    path.write_text(json.dumps({"backbones": columns, "left_out": {}}))
    console = Console(record=True, width=120)
    print_evaluation(path, console)
    shown = console.export_text()
    for line in (r"RankMe\)\W+12.3\W+7.0", r"uniformity .*-2.50\W+-2.50", r"never change\W+25.0%\W+-"):
        assert re.search(line, shown), shown


def test_no_color_is_heard() -> None:
    """https://no-color.org: no colours where NO_COLOR is set, whatever the terminal can."""
    program = "from headstart.engine import progress\nwith progress.stage('checking', 3) as bar:\n    bar.advance(3)\n"
    colour = re.compile(rb"\x1b\[[0-9;]*3[0-9][0-9;]*m")
    plain = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    terminal = {**plain, "FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "80"}
    shown = [
        subprocess.run(
            [sys.executable, "-c", program], env={**terminal, **more}, check=True, capture_output=True
        ).stderr
        for more in ({}, {"NO_COLOR": "1"})
    ]
    assert colour.search(shown[0])
    assert not colour.search(shown[1])
    assert b"checking" in shown[1]


def test_check_and_plan_take_threads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", str(pictures(tmp_path / "some", 12)), "--threads", "1") == 0
    assert run("study", "plan", "smoke", "--no-calibrate", "--threads", "1", "--device", "cpu") == 0
    capsys.readouterr()
    for arguments, said in (
        (["check", "digits", "--threads", "0"], "threads is 0; it must be at least 1"),
        (["study", "plan", "smoke", "--threads", "0"], "threads is 0; it must be at least 1"),
        (["study", "plan", "smoke", "--device", "gpu"], "device is 'gpu'; it must be auto, cpu"),
        (
            ["study", "run", "smoke", "--out", str(tmp_path / "s"), "--workers=-1"],
            "workers is -1; it must be at least 0",
        ),
    ):
        assert run(*arguments) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_a_value_behind_a_flag_is_answered(capsys: pytest.CaptureFixture[str]) -> None:
    for typed, right in (("--head.frozen no", "--head.no-frozen is no"), ("--overwrite true", "--no-overwrite is no")):
        assert run("pretrain", "digits", "--out", "r", *typed.split()) == 2
        assert right in capsys.readouterr().err
