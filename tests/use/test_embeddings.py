"""Embeddings that stay: read back as they were made, brought up to date by content, checked against their run."""

import csv
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import nn

from headstart.data.images import Images
from headstart.data.splits import Splits
from headstart.engine.device import Compute, choose
from headstart.evaluate import features
from headstart.records.errors import InputError
from headstart.use.embed import embed
from headstart.use.embeddings import of_images, opened, read
from headstart.use.load import Run
from headstart.use.mapped import write_map
from headstart.use.search import search
from headstart.use.select import select

NO_PYARROW = pytest.mark.skipif(find_spec("pyarrow") is None, reason="needs pyarrow")
ENDINGS = [".npz", pytest.param(".parquet", marks=NO_PYARROW)]


@pytest.fixture(scope="module")
def compute() -> Compute:
    return choose("cpu", "float32", threads=1)


@pytest.fixture
def mine(photos: Path, tmp_path: Path) -> Path:
    """A set that may be changed."""
    return Path(shutil.copytree(photos, tmp_path / "photos"))


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures every call embedded."""
    counts: list[int] = []
    real = features.extract

    def counting(backbone: nn.Module, images: Images, indices: np.ndarray, **more: Any) -> Any:
        counts.append(len(indices))
        return real(backbone, images, indices, **more)

    monkeypatch.setattr(features, "extract", counting)
    return counts


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_stands_for_the_run_and_its_pictures(
    run: Run, photos: Path, compute: Compute, tmp_path: Path, ending: str
) -> None:
    file = tmp_path / f"all{ending}"
    embed(run, photos, file, compute=compute, quiet=True)
    images = run.open_images(photos)
    kept, made = read(file, compute), of_images(run, images, compute)
    assert kept.names == made.names
    assert kept.classes == made.classes
    np.testing.assert_array_equal(kept.labels, made.labels)
    np.testing.assert_array_equal(kept.digests, images.digests)
    np.testing.assert_allclose(kept.features, made.features, atol=1e-4)
    query = photos / "ring" / "01.png"
    (one,), (other,) = (search(within, query, top=3, out=tmp_path / "s.png") for within in (kept, made))
    assert one.found[0].name == other.found[0].name == "ring/twin of 01.png"
    assert "ring/01.png" not in [match.name for match in one.found]
    assert select(kept, 4, out=tmp_path / "chosen").label_next == select(made, 4).label_next


@pytest.mark.parametrize("ending", ENDINGS)
def test_only_what_is_new_is_embedded(
    run: Run, mine: Path, compute: Compute, tmp_path: Path, embedded: list[int], ending: str
) -> None:
    """Content decides: a new picture, a changed one, one under another name, one that is gone."""
    file = tmp_path / f"all{ending}"
    assert embed(run, mine, file, compute=compute, quiet=True).new == 60
    before = read(file, compute)
    (mine / "ring" / "02.png").write_bytes((mine / "ring" / "03.png").read_bytes() + b" ")  # new bytes, same pixels
    (mine / "ring" / "04.png").rename(mine / "ring" / "another.png")
    (mine / "ring" / "05.png").unlink()
    (mine / "ring" / "fresh.png").write_bytes((mine / "=disc" / "06.png").read_bytes() + b"  ")
    del embedded[:]
    found = embed(run, mine, file, compute=compute, quiet=True)
    assert (found.pictures, found.new, found.gone) == (60, 2, 2)
    assert sum(embedded) == 2
    after = read(file, compute)
    assert after.names == run.open_images(mine).names
    np.testing.assert_allclose(after.features, run.embed(mine, compute=compute), atol=1e-4)
    rows = [before.names.index("ring/04.png"), after.names.index("ring/another.png")]
    np.testing.assert_array_equal(before.features[rows[0]], after.features[rows[1]])
    assert embed(run, mine, file, compute=compute, quiet=True).new == 0


def test_what_another_backbone_made_is_made_again(
    run: Run, photos: Path, compute: Compute, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "all.npz"
    embed(run, photos, file, compute=compute, quiet=True)
    for change in ({"weights": "x"}, {"size": 64}, {"mean": [0.1, 0.2, 0.3]}):
        with np.load(file) as found:
            arrays = dict(found)
        np.savez(file, **arrays | {"about": np.array(json.dumps(json.loads(str(arrays["about"])) | change))})
        assert embed(run, photos, file, compute=compute).new == 60
        (name,) = change
        assert f"another {name}" in capsys.readouterr().err


def test_pictures_made_squares_otherwise_are_embedded_again_and_queries_as_they_were(
    run: Run, compute: Compute, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows of cropped pictures were kept and called those of squashed ones; and their index stayed."""
    draw, wide = np.random.default_rng(0), tmp_path / "wide"
    wide.mkdir()
    for i in range(6):
        Image.fromarray(draw.integers(0, 255, (32, 96, 3), dtype=np.uint8)).save(wide / f"{i}.png")
    file, query = tmp_path / "all.npz", tmp_path / "query.png"
    shutil.copy(wide / "3.png", query)
    cropped = replace(run.reading, resize="crop")
    embed(run, run.open_images([str(wide)], cropped), file, compute=compute, quiet=True)
    first = read(file)
    (answer,) = search(first, query, top=1)
    assert (answer.found[0].name, round(answer.found[0].similarity, 4)) == ("3.png", 1.0)
    assert embed(run, run.open_images([str(wide)], cropped), file, compute=compute).new == 0
    assert embed(run, wide, file, compute=compute).new == 6
    assert "another resize" in capsys.readouterr().err
    again = read(file)
    assert again.identity != first.identity
    assert np.abs(again.features - first.features).max() > 1e-3
    (answer,) = search(again, query, top=1)
    assert (answer.found[0].name, round(answer.found[0].similarity, 4)) == ("3.png", 1.0)


def test_what_embed_did_not_write_is_left_alone(run: Run, photos: Path, compute: Compute, tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", years_of_work=np.arange(3))
    (tmp_path / "notes.npz").write_bytes(b"no embeddings")
    for name in ("mine.npz", "notes.npz"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(InputError, match=f"{name} is there, and cannot be brought up to date"):
            embed(run, photos, tmp_path / name, compute=compute, quiet=True)
        assert (tmp_path / name).read_bytes() == before


def _changed(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def write(file: Path) -> None:
        with np.load(file) as found:
            arrays = dict(found)
        np.savez(file, **arrays | {name: change(arrays[name])})

    return write


def _without(name: str) -> Callable[[Path], None]:
    def write(file: Path) -> None:
        with np.load(file) as found:
            arrays = {key: value for key, value in found.items() if key != name}
        np.savez(file, **arrays)

    return write


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_without("about"), "has no .*about"),
        (_without("embeddings"), "has no .*embeddings"),
        (_changed("names", lambda a: a[:-1]), "damaged"),
        (_changed("embeddings", lambda a: a.astype(np.float64)), "float64"),
        (_changed("labels", lambda a: a + 5), "labels from 4"),
        (_changed("about", lambda a: np.array("[]")), "about itself"),
        (_changed("about", lambda a: np.array(str(a).replace("shapes", "gone"))), "was made by the run .*gone"),
        (_changed("about", lambda a: np.array(json.dumps(json.loads(str(a)) | {"weights": "0"}))), "other weights"),
        (lambda file: file.write_bytes(file.read_bytes()[:-100]), "damaged or no"),
        (lambda file: file.write_bytes(b""), "damaged or no"),
    ],
)
def test_a_spoilt_file_is_named(
    run: Run, photos: Path, compute: Compute, tmp_path: Path, spoil: Callable[[Path], object], words: str
) -> None:
    file = tmp_path / "all.npz"
    embed(run, photos / "ring", file, compute=compute, quiet=True)
    spoil(file)
    with pytest.raises(InputError, match=words) as refusal:
        search(opened(file), photos / "ring" / "01.png")
    assert "all.npz" in str(refusal.value)


def test_a_picture_that_changed_since_is_not_shown_as_what_it_was(
    run: Run, mine: Path, compute: Compute, tmp_path: Path
) -> None:
    file = tmp_path / "all.npz"
    embed(run, mine, file, compute=compute, quiet=True)
    within = read(file, compute)
    at = within.names.index("ring/07.png")
    assert within.picture(at).ndim == 3
    (mine / "ring" / "07.png").write_bytes((mine / "ring" / "08.png").read_bytes())
    with pytest.raises(InputError, match=r"07\.png is no longer the picture"):
        within.picture(at)
    (mine / "ring" / "07.png").unlink()
    with pytest.raises(InputError, match=r"07\.png is no longer there"):
        read(file, compute).picture(at)


def test_data_beside_a_file_is_refused(run: Run, photos: Path, compute: Compute, tmp_path: Path) -> None:
    file = tmp_path / "all.npz"
    embed(run, photos, file, compute=compute, quiet=True)
    with pytest.raises(InputError, match="holds embeddings already"):
        opened(file, [str(photos)])
    with pytest.raises(InputError, match="holds embeddings already"):
        opened(file, (), replace(run.reading, labels="none"))


def test_the_map_is_one_page_and_tables(run: Run, photos: Path, compute: Compute, tmp_path: Path) -> None:
    """What is on it is what was embedded; no name can end the script element."""
    within = of_images(run, run.open_images(photos), compute)
    within = replace(within, names=["</script><b>.png", *within.names[1:]])
    found = write_map(within, tmp_path)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "map.csv").read_text())))
    assert found.pictures == len(rows) == 60
    assert all(0 <= float(row[axis]) <= 1 for row in rows for axis in ("x", "y"))
    page = (tmp_path / "map.html").read_text()
    assert page.count("</script>") == page.count("<script") == 3
    assert "http:" not in page.replace("http://www.w3.org", "")
    held = json.loads(page.split('type="application/json">')[1].split("</script>")[0])
    assert held["names"] == within.names
    assert held["colours"]["class"]["values"] == within.labels.tolist()
    parts = Splits.load(run.folder.splits, 60)  # two pictures are one, and may lie in two parts
    for number, part in enumerate((parts.train, parts.val, parts.test)):
        drawn = {held["colours"]["split"]["values"][i] for i in part if "01.png" not in within.names[i]}
        assert drawn == {number}
    assert sum(map(bool, held["thumbnails"])) == 60
    if find_spec("pyarrow"):
        import pandas as pd

        table = pd.read_parquet(tmp_path / "map.parquet")
        assert table["name"].tolist() == within.names
        assert table["path"][3] == str(photos / within.names[3])
        assert all(len(near) == 10 for near in table["neighbours"])
        assert table["thumbnail"][0][:2] == b"\xff\xd8"
