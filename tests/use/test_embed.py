"""Embeddings on disk are those in memory, and a file is whole or not there."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from headstart.records.errors import InputError
from headstart.use import embed as embedding
from headstart.use.embed import embed
from headstart.use.embeddings_file import has_paths
from headstart.use.load import Run


def test_npz_holds_names_embeddings_labels_and_classes(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "BLOCK", 16)  # several blocks, the last one smaller
    n = embed(run, photos, tmp_path / "all.npz", quiet=True).pictures
    with np.load(tmp_path / "all.npz", allow_pickle=False) as file:
        assert sorted(file.files) == ["about", "classes", "digests", "embeddings", "labels", "names"]
        images = run.open_images(photos)
        assert file["names"].tolist() == images.names
        assert file["labels"].dtype == np.int64
        assert file["labels"].tolist() == images.labels.tolist()
        assert file["classes"].tolist() == images.classes
        assert file["embeddings"].dtype == np.float32
        assert file["embeddings"].shape == (n, 512)
        np.testing.assert_allclose(file["embeddings"], run.embed(photos), atol=1e-2, rtol=1e-2)
    assert os.listdir(tmp_path) == ["all.npz"]


@pytest.mark.parametrize("ending", ["npz", "parquet"])
def test_paths_stand_beside_names_where_they_are_asked_for(ending: str, run: Run, photos: Path, tmp_path: Path) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    embed(run, photos, out := tmp_path / f"all.{ending}", paths=True, quiet=True)
    if ending == "npz":
        with np.load(out) as file:
            names, paths = file["names"].tolist(), file["paths"].tolist()
    else:
        import pandas as pd

        table = pd.read_parquet(out)
        assert list(table.columns) == ["name", "label", "embedding", "path"]
        names, paths = table["name"].tolist(), table["path"].tolist()
    assert [Path(path).relative_to(photos).as_posix() for path in paths] == names
    assert all(Path(path).is_file() for path in paths)
    assert embed(run, photos, out, quiet=True).new == 0  # and such a file is still one that embed continues


@pytest.mark.parametrize("ending", [".npz", ".parquet"])
def test_a_file_that_says_where_pictures_lie_goes_on_saying_it(
    ending: str, run: Run, photos: Path, tmp_path: Path
) -> None:
    own = shutil.copytree(photos, tmp_path / "photos")
    out = tmp_path / f"kept{ending}"
    embed(run, own, out, paths=True, quiet=True)
    first = sorted(own.rglob("*.png"))[0]
    shutil.copy(first, tmp_path / "photos" / first.parent.name / "again.png")
    assert embed(run, own, out, quiet=True).new == 0
    first.unlink()
    assert embed(run, own, out, quiet=True).gone == 1, "one of two equal pictures"
    assert has_paths(out)


def test_what_a_killed_writer_left_goes_when_it_is_old(run: Run, photos: Path, tmp_path: Path) -> None:
    old, young = tmp_path / ".kept.npz.0a.tmp", tmp_path / ".kept.npz.0b.tmp"
    for path in (old, young):
        path.touch()
    os.utime(old, (0, 0))
    embed(run, photos, tmp_path / "kept.npz", quiet=True)
    assert not old.exists()
    assert young.exists()


def test_parquet_holds_a_row_a_picture(run: Run, photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pandas as pd

    embed(run, photos, tmp_path / "all.npz", quiet=True)
    embed(run, photos, tmp_path / "all.parquet", quiet=True)
    table = pd.read_parquet(tmp_path / "all.parquet")
    assert list(table.columns) == ["name", "label", "embedding"]
    with np.load(tmp_path / "all.npz") as file:
        assert table["name"].tolist() == file["names"].tolist()
        assert table["label"].tolist() == file["classes"][file["labels"]].tolist()
        np.testing.assert_array_equal(np.stack(table["embedding"].tolist()), file["embeddings"])


def test_pictures_without_labels_have_minus_one(run: Run, photos: Path, tmp_path: Path) -> None:
    embed(run, photos / "ring", tmp_path / "ring.npz", quiet=True)
    with np.load(tmp_path / "ring.npz") as file:
        assert set(file["labels"].tolist()) == {-1}
        assert file["classes"].size == 0


def test_another_ending_is_refused(run: Run, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.npz or \.parquet"):
        embed(run, photos, tmp_path / "all.csv")


SLOW = """
import sys, time
import headstart
from headstart.evaluate import features
from headstart.use.embed import embed
def slow(*args, **kwargs):
    print("computing", flush=True)
    time.sleep(3600)
features.extract = slow
embed(headstart.load(sys.argv[1]), sys.argv[2], sys.argv[3], quiet=True)
"""


def test_a_stopped_call_leaves_the_old_file_and_no_half_one(run: Run, photos: Path, tmp_path: Path) -> None:
    processes = {}
    embed(run, photos / "ring", tmp_path / "old.npz", quiet=True)
    old = (tmp_path / "old.npz").read_bytes()
    for number in (signal.SIGINT, signal.SIGTERM):
        folder = tmp_path / number.name
        folder.mkdir()
        (folder / "all.npz").write_bytes(old)
        command = [sys.executable, "-c", SLOW, str(run.folder.path), str(photos), str(folder / "all.npz")]
        processes[number] = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    for number, process in processes.items():
        folder = tmp_path / number.name
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == "computing\n"
            assert len(os.listdir(folder)) == 2  # the unfinished file is there
            process.send_signal(number)
            assert process.wait(timeout=600) != 0
        assert os.listdir(folder) == ["all.npz"]
        assert (folder / "all.npz").read_bytes() == old
