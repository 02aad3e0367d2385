"""What is said first where every row of a study is below the network before SimCLR."""

import re
from collections.abc import Callable
from pathlib import Path

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


def test_one_row_above_and_nothing_is_said(make_run: Callable[..., Path], tmp_path: Path) -> None:
    page, summary = study(make_run, tmp_path / "study", (0.41, 0.3))
    assert "rows are below" not in page + summary
