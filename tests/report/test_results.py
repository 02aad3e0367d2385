"""results/records.py: what is committed follows from the records, and an altered number is found."""

import contextlib
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from headstart.records.errors import InputError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with tmp_path/results in place of results/."""
    spec = importlib.util.spec_from_file_location("records", ROOT / "results" / "records.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "HERE", tmp_path / "results")
    return module


@pytest.fixture(autouse=True)
def beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts find each other, as they do when one of them is the program."""
    monkeypatch.syspath_prepend(str(ROOT / "results"))


def test_the_committed_records_say_what_is_committed() -> None:
    path = ROOT / "results" / "records.py"
    done = subprocess.run([sys.executable, path, "check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("adapting/gains", "docs/adapting.md"),
        ("adapting/finetuned", "docs/adapting.md"),
    ],
)
def test_the_tables_on_the_pages_are_what_the_scripts_print(name: str, page: str) -> None:
    path = ROOT / "results" / f"{name}.py"
    printed = subprocess.run([sys.executable, path], capture_output=True, text=True, check=True).stdout
    rows = [line for line in printed.splitlines() if line.startswith("|")]
    assert len(rows) > 2
    text = (ROOT / page).read_text(encoding="utf-8")
    assert not [row for row in rows if row not in text]


def test_the_papers_autoencoders_are_told_from_their_records() -> None:
    records = (ROOT / "results" / "paper" / "autoencoders" / "runs").glob("autoencoder-*/result.json")
    found = {one["head"]["hidden_dim"]: one for one in (json.loads(path.read_text()) for path in records)}
    row = " | ".join(f"{found[size]['autoencoder']['test_mse']:.5f}" for size in (128, 256, 512))
    assert f"| Headstart | {row} |" in (ROOT / "results" / "details.md").read_text(encoding="utf-8")


def test_a_folder_without_runs_is_not_collected(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    with pytest.raises(InputError, match="nothing to report"):
        script.collect(tmp_path / "study", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_autoencoders_alone_are_told_by_their_error(
    script: ModuleType, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    study = tmp_path / "study"
    for hidden_dim, mse, seconds in (
        (64, 0.02, {"autoencoder": 3.0}),
        (128, 0.01, {"autoencoder": 4.0}),
        (128, 0.01, {}),
    ):
        own = make_run(study / "runs" / f"{hidden_dim}-{len(seconds)}", hidden_dim=hidden_dim)
        result = json.loads((own / "result.json").read_text())
        result |= {
            "stage": "autoencoder",
            "contrastive": None,
            "probes": {},
            "untrained": {},
            "geometry": {"head": None},
        }
        result["autoencoder"]["test_mse"], result["seconds"] = mse, seconds
        (own / "result.json").write_text(json.dumps(result))
    (study / "study.yaml").write_text("name: small\ndata: digits\n")
    kept = tmp_path / "results" / "small"
    script.collect(study, kept)
    said = "2 autoencoders and no backbone: test MSE 0.02000 on digits with an embedding of 64 (seed 0) and 0.01000 on"
    assert (kept / "tables" / "answer.md").read_text().startswith(f"**{said}")
    assert script.check() == 0


def test_autoencoders_of_several_kinds_are_told_apart_and_seeds_by_their_range(
    script: ModuleType, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    for seed in range(2):
        for scored, mse in ((False, 0.01), (True, 0.6)):
            own = make_run(tmp_path / "study" / "runs" / f"{scored},seed={seed}", seed=seed)
            result = json.loads((own / "result.json").read_text())
            result |= {"stage": "autoencoder", "contrastive": None, "probes": {}, "untrained": {}, "geometry": {}}
            result["autoencoder"]["test_mse"] = mse + seed / 1000
            (own / "result.json").write_text(json.dumps(result))
            config = (own / "config.yaml").read_text().split("autoencoder:\n")
            settings = config[1].replace("normalize: false", f"normalize: {str(scored).lower()}", 1)
            (own / "config.yaml").write_text(f"{config[0]}autoencoder:\n{settings}")
    (tmp_path / "study" / "study.yaml").write_text("name: small\ndata: digits\n")
    script.collect(tmp_path / "study", tmp_path / "kept")
    said = (tmp_path / "kept" / "tables" / "answer.md").read_text()
    assert "4 autoencoders" in said
    assert "0.01000 to 0.01100 on digits with an embedding of 64 of kind mlp (2 seeds)" in said
    assert "0.60000 to 0.60100 on digits with an embedding of 64 of kind mlp, Z-scored (2 seeds)" in said


def test_probed_runs_are_not_collected_without_the_probe_that_decides(
    script: ModuleType, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    make_run(tmp_path / "study" / "runs" / "a")
    for named in ("", "decides: few_shot_5\n"):
        (tmp_path / "study" / "study.yaml").write_text(f"name: small\ndata: {{digits: {{}}}}\nseeds: [0]\n{named}")
        with pytest.raises(InputError, match="must say which of their probes `decides`"):
            script.collect(tmp_path / "study", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_that_was_trained_again_does_not_take_the_place_of_the_one_that_is_there(
    script: ModuleType, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    run = make_run(tmp_path / "study" / "runs" / "seed=0", accuracy=0.8)
    (tmp_path / "study" / "study.yaml").write_text("name: small\ndecides: linear\nseeds: [0]\n")
    kept = tmp_path / "results" / "small"
    script.collect(tmp_path / "study", kept)
    script.collect(tmp_path / "study", kept)  # the same once more
    before = (kept / "runs" / "seed=0" / "result.json").read_text()
    result = run / "result.json"
    result.write_text(result.read_text().replace("0.8", "0.7"))
    with pytest.raises(InputError, match=r"seed=0 is in .*small already, with another result; take it out of "):
        script.collect(tmp_path / "study", kept)
    assert (kept / "runs" / "seed=0" / "result.json").read_text() == before


def test_a_study_that_leaves_out_what_is_planned_is_not_collected(
    script: ModuleType, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    """Its plan would take the place of the one there."""
    study = "name: small\ndecides: linear\nseeds: [0]\ndata: {{digits: {{}}}}\nfactors: {{head.init: [{}]}}\n"
    make_run(tmp_path / "study" / "runs" / "a")
    for inits, right in (("random", True), ("random, autoencoder", True), ("autoencoder", False)):
        (tmp_path / "study" / "study.yaml").write_text(study.format(inits))
        with contextlib.nullcontext() if right else pytest.raises(InputError, match=r"does not plan head\.init random"):
            script.collect(tmp_path / "study", tmp_path / "out")
    assert "autoencoder" in (tmp_path / "out" / "study.yaml").read_text()


def test_what_is_said_follows_from_the_records(
    script: ModuleType,
    make_run: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in range(3):
        for init, frozen in (("autoencoder", True), ("random", False)):
            make_run(tmp_path / "study" / "runs" / f"{init}{seed}", init=init, frozen=frozen, seed=seed)
    (tmp_path / "study" / "study.yaml").write_text(f"name: small\ndecides: linear\ndata: {tmp_path}/pictures\n")
    kept = tmp_path / "results" / "small"
    script.collect(tmp_path / "study", kept)
    assert {path.name for path in (kept / "runs" / "random0").iterdir()} == set(script.RECORD)
    assert {path.name for path in (kept / "answers").iterdir()} == {"linear.md", "paper.md"}
    assert (kept / "study.yaml").read_text() == "name: small\ndecides: linear\ndata: pictures\n"
    assert script.check() == 0
    answer = kept / "answers" / "linear.md"
    sentence = answer.read_text().splitlines()[0].strip("*")
    (tmp_path / "results" / "README.md").write_text(f"# Results\n\n> {sentence}\n>\n> - {sentence}\n")
    assert script.check() == 0
    (tmp_path / "results" / "README.md").write_text(f"> {sentence.replace('0', '1')}\n")
    assert script.check() == 1
    answer.write_text(answer.read_text().replace("autoencoder", "autoencoders", 1))
    table = kept / "tables" / "table3.csv"
    table.write_text(table.read_text().replace("maximum,", "maximum,1", 1))
    capsys.readouterr()
    assert script.check() == 3  # the quotation too
    assert "small: 6 records, answers/linear.md has other words; tables/table3.csv differs: " in capsys.readouterr().out


def test_another_seed_is_one_command_and_changes_the_page(
    script: ModuleType, make_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked: list[list[str]] = []

    def trained(arguments: list[str]) -> int:
        asked.append(arguments)
        out = Path(arguments[arguments.index("--out") + 1])
        seeds = arguments[arguments.index("--seeds") + 1 : arguments.index("--out")]
        for seed in map(int, seeds):
            for init, frozen in (("autoencoder", True), ("random", False)):
                make_run(out / "runs" / f"init={init},seed={seed}", init=init, frozen=frozen, seed=seed)
        (out / "study.yaml").write_text(f"name: small\ndecides: linear\nseeds: [{', '.join(seeds)}]\n")
        return 0

    monkeypatch.setattr(script, "trained", trained)
    trained(["--seeds", "0", "1", "2", "--out", "runs/first"])
    kept, readme = tmp_path / "results" / "small", tmp_path / "results" / "README.md"
    script.collect(tmp_path / "runs" / "first", kept)
    readme.write_text(
        "Asked.\n\n<!-- small linear: frozen autoencoder, trainable random -->\n<!-- end -->\n\nAnswered.\n"
    )
    assert script.check() == 1  # nothing stands there yet

    monkeypatch.setattr("sys.argv", ["records.py", "add", "small", "--seeds", "3", "--data-root", "pictures"])
    assert script.main() == 0
    assert asked[-1][1:] == ["--seeds", "3", "--out", "runs/small", "--keep", "records", "--data-root", "pictures"]
    assert asked[-1][0] == str(kept.with_suffix(".yaml"))
    assert len(list((kept / "runs").iterdir())) == 8
    assert "seeds:\n- 0\n- 1\n- 2\n- 3\n" in (kept / "study.yaml").read_text()
    text = readme.read_text()
    assert "over 4 seeds" in text
    assert text.startswith("Asked.\n")
    assert text.endswith("<!-- end -->\n\nAnswered.\n")
    assert script.check() == 0
    readme.write_text(text.replace("over 4 seeds", "over 5 seeds"))
    assert script.check() == 2  # as a block, and as a quotation

    trained(["--seeds", "4", "--out", "runs/other"])
    config = tmp_path / "runs" / "other" / "runs" / "init=random,seed=4" / "config.yaml"
    config.write_text(re.sub(r"(?m)^  temperature: .*$", "  temperature: 0.1", config.read_text()))
    with pytest.raises(InputError, match=r"init=random,seed=4 has contrastive.temperature 0.1, and .* 0.5; give --set"):
        script.collect(tmp_path / "runs" / "other", kept)
    assert len(list((kept / "runs").iterdir())) == 8
