"""What is said first where every row of a study is below the network before SimCLR."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headstart import study as studies
from headstart.cli.commands import main
from headstart.report import write_report

HEADS = (("autoencoder", True), ("random", False))


def study(make_run: Callable[..., Path], out: Path, accuracies: tuple[float, float]) -> tuple[str, str]:
    """The page's text and answer.md; before SimCLR every probe gives 40 %."""
    for (init, frozen), accuracy in zip(HEADS, accuracies, strict=True):
        for seed in range(3):
            make_run(out / "runs" / f"{init}{seed}", init=init, frozen=frozen, seed=seed, accuracy=accuracy)
    (out / "study.yaml").write_text("name: small\ndata: digits\n")
    page = re.sub(r"<[^>]+>", " ", write_report(out).read_text(encoding="utf-8").partition("<main")[2])
    return re.sub(r"\s+", " ", page), (out / "tables" / "answer.md").read_text(encoding="utf-8")


def test_all_rows_below_comes_first(make_run: Callable[..., Path], tmp_path: Path) -> None:
    page, summary = study(make_run, tmp_path / "study", (0.39, 0.3))
    said = (
        "All 2 rows are below the untrained backbone by linear probe on digits (30.0 to 39.0 %; 40.0 % before SimCLR)."
    )
    assert summary.startswith(f"**{said}**\n\n**")
    assert page.index(said) < page.index("rozen autoencoder")
    assert "All 2 rows are below the untrained backbone by the paper's probe on digits" in summary


@pytest.mark.parametrize("command", ["report", "study run"])
def test_the_terminal_says_it_too(
    make_run: Callable[..., Path],
    tmp_path: Path,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    study(make_run, tmp_path / "study", (0.39, 0.3))
    monkeypatch.setattr(studies, "run", lambda *_, **__: studies.Summary(total=6, done=6, failed=0, elsewhere=0))
    folder = str(tmp_path / "study")
    with pytest.raises(SystemExit) as ended:
        main(["report", folder] if command == "report" else ["study", "run", "smoke", "--out", folder])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("All 2 rows are below the untrained backbone"))
    assert lines[first].endswith("by linear probe on digits (30.0 to 39.0 %; 40.0 % before SimCLR).")
    assert lines[first + 1].startswith("All 2 rows are below the untrained backbone by the paper's probe")
    assert "rozen autoencoder" in lines[first + 2], "what the heads did to each other comes after it"
    assert lines[first + 3].startswith("report: ")


@pytest.mark.parametrize(
    ("weights", "word", "words"),
    [("none", "untrained", "the untrained backbone"), ("pretrained", "as given", "the given weights")],
)
def test_what_the_network_began_as_is_called_what_it_was_everywhere(
    weights: str, word: str, words: str, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    others = {"untrained", "as given", "the untrained backbone", "the given weights"} - {word, words}

    def began(path: Path, **settings: Any) -> Path:
        run = make_run(path, **settings)
        result = json.loads((run / "result.json").read_text())
        result["backbone"]["weights"] = weights
        (run / "result.json").write_text(json.dumps(result))
        return run

    def said(folder: Path) -> str:
        return re.sub(r"<[^>]+>", " ", write_report(folder).read_text(encoding="utf-8"))

    for i, accuracy in enumerate((0.30, 0.35, 0.32, 0.38, 0.33, 0.36)):
        init = ("autoencoder", "random")[i % 2]
        began(tmp_path / "study" / "runs" / f"data=digits,{i}", init=init, frozen=not i % 2, seed=i, accuracy=accuracy)
    alone = make_run(tmp_path / "study" / "runs" / "autoencoder-digits")  # trained without a backbone
    result = json.loads((alone / "result.json").read_text()) | {"stage": "autoencoder", "probes": {}, "untrained": {}}
    (alone / "result.json").write_text(json.dumps(result))
    (tmp_path / "study" / "study.yaml").write_text("seeds: [0]\n")
    page = said(tmp_path / "study")
    for told in (f"{word} 40.0", f"{word}, %", f"dashed line {words}, where probed", f"rows are below {words}"):
        assert told in page
    assert not [other for other in others if other in page]
    for run in (tmp_path / "study" / "runs").iterdir():
        result = json.loads((run / "result.json").read_text())
        (run / "result.json").write_text(json.dumps(result | {"untrained": {}}))
    assert f"{words[1:]} w" in (page := said(tmp_path / "study"))
    assert "not probed: how much SimCLR itself added is not known" in page
    for init in ("autoencoder", "random"):
        began(tmp_path / "two" / "runs" / init, init=init, frozen=init == "autoencoder", accuracy=0.3)
    (tmp_path / "two" / "study.yaml").write_text("compare: [head]\nseeds: [0]\n")
    assert f"what SimCLR added is the distance to {words}." in said(tmp_path / "two")


def test_one_row_above_and_nothing_is_said(make_run: Callable[..., Path], tmp_path: Path) -> None:
    page, summary = study(make_run, tmp_path / "study", (0.41, 0.3))
    assert "rows are below" not in page + summary
