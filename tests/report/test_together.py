"""Files of one call: what an earlier one left and this one has not, goes; what is somebody else's stays."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from headstart.records.together import write_together
from headstart.report import write_report
from headstart.report.compare import compare
from headstart.report.compare_page import write_comparison
from headstart.report.figures import drawn_before


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_an_earlier_call_s_files_go_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("years of work")
    write_together(tmp_path, "x", {"a.csv": "1", "sub/b.csv": "1"}, ["a.csv", "sub/b.csv"])
    assert names(tmp_path) == {"mine.csv", "a.csv", "sub/b.csv"}
    assert write_together(tmp_path, "x", {"a.csv": "2"}, ["a.csv", "sub/b.csv"]) == [tmp_path / "a.csv"]
    assert names(tmp_path) == {"mine.csv", "a.csv"}
    assert (tmp_path / "a.csv").read_text() == "2"


def test_a_study_that_became_smaller_shows_no_figure_of_before(make_run: Callable[..., Path], tmp_path: Path) -> None:
    runs, figures = tmp_path / "runs", tmp_path / "figures"
    make_run(runs / "one")
    other = make_run(runs / "two", init="random", frozen=False, accuracy=0.7)
    (tmp_path / "study.yaml").write_text("compare: [head]\nseeds: [0]\n")
    write_report(tmp_path)
    before = names(figures)
    (figures / "mine.svg").write_text("<svg/>")
    (figures / "mine.csv").write_text("years,of,work\n")
    for path in sorted(other.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    other.rmdir()
    write_report(tmp_path)
    assert names(figures) < before | {"mine.svg", "mine.csv"}
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for path in map(Path, drawn_before(tmp_path)):
        assert (
            path.suffix == ".csv" or (tmp_path / path).read_text(encoding="utf-8").split('aria-label="')[1][:60] in page
        )
    assert {"mine.svg", "mine.csv"} <= names(figures)


def test_so_does_a_comparison_of_other_metrics(tmp_path: Path) -> None:
    rows = [
        {"method": m, "dataset": d, "seed": s, "accuracy": 0.5 + 0.01 * s + 0.1 * (m == "a"), "loss": 1.0 + 0.01 * s}
        for m in "ab"
        for d in ("x", "y", "z")
        for s in range(3)
    ]
    table = pd.DataFrame(rows)
    write_comparison(compare(table, metric=["accuracy", "loss"], by="method"), tmp_path)
    assert any("loss" in name for name in names(tmp_path))
    write_comparison(compare(table.drop(columns="loss"), metric="accuracy", by="method"), tmp_path)
    assert not any("loss" in name for name in names(tmp_path))
    assert any("accuracy" in name for name in names(tmp_path))
