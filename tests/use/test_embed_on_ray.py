"""Embedding on a Ray cluster: what one process writes, also where a worker is lost and where pictures come and go."""

import importlib.util
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.data import catalog
from headstart.data.images import open_images, squares_of
from headstart.data.source import part
from headstart.engine.device import choose
from headstart.records.cluster import RayOptions
from headstart.records.config import DataConfig
from headstart.records.errors import InputError, RunError
from headstart.use import embed_on_ray as on_ray
from headstart.use.embed import Embedded, embed
from headstart.use.embeddings import read
from headstart.use.load import Run
from tests.study.test_ray import Eager
from tests.study.tiny import sprung, traps

NEEDS_RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra ray")
COMPUTE = choose("cpu", "float32", threads=1)

DYING = """
import os, signal, sys
from headstart.cli import main
from headstart.use import embed_on_ray as on_ray
real, marker = on_ray.embed_part, sys.argv.pop(1)

def dying(order, start, stop, known):
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return real(order, start, stop, known)
    os.kill(os.getpid(), signal.SIGKILL)

on_ray.PART, on_ray.embed_part = 16, dying
main(sys.argv[1:])
"""
"""The command, in parts of 16 pictures; the first worker that is given one dies of it."""


@pytest.fixture
def mine(photos: Path, tmp_path: Path) -> Path:
    """A set that may be changed, one picture of which cannot be read."""
    there = Path(shutil.copytree(photos, tmp_path / "photos"))
    (there / "ring" / "10.png").write_bytes(b"no picture")
    return there


@NEEDS_RAY
def test_a_cluster_writes_what_one_process_does_and_a_lost_worker_s_part_again(
    run: Run, mine: Path, tmp_path: Path
) -> None:
    out, marker = tmp_path / "all.npz", tmp_path / "died"
    words = ["embed", str(run.folder.path), f"../{mine.name}", "--out", f"../{out.name}", "--executor", "ray"]
    words += ["--threads", "1"]
    command = [sys.executable, "-P", "-c", DYING, str(marker), *words, "--device", "cpu", "--paths"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=traps(out), timeout=1800)
    assert done.returncode == 0, done.stderr[-2000:]
    assert sprung(out) == "", "a worker imports from the folder in which the command was given"
    assert marker.exists()
    assert "59 pictures, 59 embedded now" in done.stdout.replace("\n", " ")
    assert "1 of 60 pictures set aside (ring/10.png" in done.stderr
    assert_as_by_one_process(run, mine, out, tmp_path)
    with np.load(out) as file:
        assert [*map(os.path.normpath, file["paths"])] == [str(mine / name) for name in file["names"].tolist()]


def assert_as_by_one_process(run: Run, photos: Path, out: Path, folder: Path) -> None:
    found = read(out)
    embed(run, photos, folder / "plain.npz", compute=found.compute, quiet=True)
    plain = read(folder / "plain.npz")
    assert found.names == plain.names
    assert found.classes == plain.classes
    assert found.data == plain.data
    np.testing.assert_array_equal(found.labels, plain.labels)
    np.testing.assert_array_equal(found.digests, plain.digests)
    largest = np.abs(plain.features).max()
    np.testing.assert_allclose(found.features, plain.features, atol=largest * 1e-2)  # bfloat16, in other batches


class Two(Eager):
    """Ray's calls, in this process: a task gives two things, and an object is itself."""

    exceptions = SimpleNamespace(RayError=ZeroDivisionError)

    def remote(self, **_: Any) -> Any:
        def asked(task: Any) -> SimpleNamespace:
            def given(*arguments: Any) -> list[Any]:
                try:
                    return [SimpleNamespace(outcome=outcome) for outcome in task(*arguments)]
                except Exception as error:
                    return [error, error]

            return SimpleNamespace(remote=given)

        return asked

    def put(self, value: Any) -> Any:
        return value

    def get(self, reference: Any) -> Any:
        if isinstance(reference, Exception):
            raise reference
        return reference.outcome


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster that is this process, given parts of 16 pictures."""
    monkeypatch.setattr(on_ray, "cluster", lambda _: nullcontext(Two()))
    monkeypatch.setattr(on_ray, "PART", 16)
    monkeypatch.setattr(on_ray, "_opened", {})


def on_a_cluster(run: Run, photos: Path, out: Path, **options: Any) -> Embedded:
    return on_ray.embed_on_ray(run, [str(photos)], out, RayOptions(), device="cpu", threads=1, quiet=True, **options)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("ending", [".npz", ".parquet"])
def test_a_file_is_brought_up_to_date(run: Run, mine: Path, tmp_path: Path, ending: str) -> None:
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    out = tmp_path / f"all{ending}"
    assert on_a_cluster(run, mine, out) == Embedded(59, 59, 0)
    before = read(out)
    (mine / "ring" / "04.png").rename(mine / "=disc" / "another.png")
    (mine / "ring" / "05.png").unlink()
    Image.new("RGB", (40, 30), "navy").save(mine / "ring" / "fresh.png")
    assert on_a_cluster(run, mine, out) == Embedded(59, 1, 1)
    after = read(out)
    assert_as_by_one_process(run, mine, out, tmp_path)
    rows = [before.names.index("ring/04.png"), after.names.index("=disc/another.png")]
    np.testing.assert_array_equal(before.features[rows[0]], after.features[rows[1]])
    assert on_a_cluster(run, mine, out) == Embedded(59, 0, 0)


@pytest.mark.usefixtures("here")
def test_what_goes_wrong_elsewhere_is_one_sentence_and_leaves_the_file(
    run: Run, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "all.npz"
    on_a_cluster(run, mine, out)
    before = out.read_bytes()
    with monkeypatch.context() as other:
        other.setattr(on_ray, "_opened", {})
        names = iter(["asked for", "found"])
        other.setattr(on_ray, "listing", lambda _: next(names))
        with pytest.raises(InputError, match="every machine must find the same"):
            on_a_cluster(run, mine, out)
    with monkeypatch.context() as lost:
        lost.setattr(on_ray, "squares_of", lambda *_: 1 / 0)
        with pytest.raises(RunError, match="a part could not be embedded"):
            on_a_cluster(run, mine, out)
    assert out.read_bytes() == before


@pytest.mark.usefixtures("here")
def test_labels_of_a_file_hold_for_the_run_s_own_pictures_alone(run: Run, mine: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("name,label\nring/01.png,good\n")
    labelled = replace(run.config.data, labels=str(tmp_path / "labels.csv"))
    own = Run(run.folder, replace(run.config, data=labelled), run.result)
    on_a_cluster(own, Path(run.config.data.sources[0]), tmp_path / "own.npz")
    assert read(tmp_path / "own.npz").classes == ["good"]
    with pytest.raises(InputError, match=r"give --data\.labels FILE, folders or none"):
        on_a_cluster(own, mine, tmp_path / "others.npz")
    on_a_cluster(own, mine, tmp_path / "others.npz", reading=replace(own.reading, labels="none"))
    assert read(tmp_path / "others.npz").classes == []


def test_squares_of_a_part_are_those_of_the_whole(tmp_path: Path) -> None:
    """Squares of the training size among larger ones too, which are kept as they are where all are such."""
    for i, side in enumerate((32, 50, 77, 32, 64, 40)):
        noise = np.random.default_rng(i).integers(0, 255, (side, side, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{i}.png")
    data = DataConfig(sources=(str(tmp_path),), size=32)
    whole, source = open_images(data), catalog.find(data)
    for rows in (slice(0, 2), slice(2, 6), slice(3, 4)):
        some = squares_of(part(source, rows), data)
        numbers = range(*rows.indices(6))
        assert some.names == [whole.names[i] for i in numbers]
        np.testing.assert_array_equal(some.digests, whole.digests[rows])
        np.testing.assert_array_equal(some.squashed(range(len(some)), 32), whole.squashed(numbers, 32))
