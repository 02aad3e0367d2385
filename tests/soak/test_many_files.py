"""A folder of very many small files, and lists of it: all are counted, and what is said does not grow with them."""

import os
from pathlib import Path

import pytest

from headstart.cli.commands import main
from tests.data.pictures import encoded, pixels, put

FEW, MANY = 2_000, 200_000
DIFFERENT = 20


def ended(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


def linked(root: Path, count: int) -> Path:
    """So many names of DIFFERENT pictures, in two class folders."""
    sources = [put(root / "src" / f"{i}.png", encoded(pixels(8, 8, i), "png")) for i in range(DIFFERENT)]
    for name in "ab":
        (root / "photos" / name).mkdir(parents=True)
    for i in range(count):
        os.link(sources[i % DIFFERENT], root / "photos" / "ab"[i % 2] / f"{i:06}.png")
    return root / "photos"


def lists(root: Path, count: int) -> tuple[str, str]:
    """Of all of them, behind them four times as many that are gone; and with a class each."""
    there = [f"{'ab'[i % 2]}/{i:06}.png" for i in range(count)]
    (root / "gone.txt").write_text("".join(f"{name}\n" for name in there + [f"gone/{i}.png" for i in range(4 * count)]))
    rows = "".join(f"{name},class {i}\n" for i, name in enumerate(there))
    (root / "classes.csv").write_text(f"name,label\n{rows}")
    return "gone.txt", "classes.csv"


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.soak)])
def test_very_many_small_files(count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = linked(tmp_path, count)
    gone, classes = lists(root, count)
    for data, code, words in (
        (root, 0, [f"{count:,}, of which 0 unreadable", f"{count - DIFFERENT:,} in {DIFFERENT} groups"]),
        (root / gone, 0, [f"{5 * count:,}, of which {4 * count:,} unreadable", "a run starts │ no"]),
        (root / classes, 0, [f"{count:,} in {count:,} classes"]),
    ):
        capsys.readouterr()
        assert ended("check", data, "--threads", 1) == code
        said = " ".join(capsys.readouterr().out.split())
        for word in words:
            assert word in said
        assert len(said) < 30_000
    print(f"\nvery many files: {count:,} in a folder, {5 * count:,} lines of a list, {count:,} classes: all counted")
