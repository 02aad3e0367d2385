"""`hf:NAME`: sets in the layouts that Hugging Face's `datasets` writes and reads, from a folder in place of the hub."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.cli.commands import main
from headstart.data import check, open_images
from headstart.records.config import DataConfig
from headstart.records.errors import InputError
from headstart.records.located import places
from tests.data.pictures import encoded, find, pixels, put

datasets = pytest.importorskip("datasets")

PICTURES = [encoded(pixels(20, 20, i), "png") for i in range(20)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `datasets` keeps stays in the test's own folder, and its own threads of progress stay silent."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "kept")
    datasets.disable_progress_bars()


def pushed(folder: Path, **splits: range) -> Path:
    """A set as `push_to_hub` lays it out: shards of parquet under data/."""
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"]), "id": datasets.Value("int64")}
    )
    (folder / "data").mkdir(parents=True)
    for split, rows in splits.items():
        columns = {
            "image": [{"bytes": PICTURES[i], "path": None} for i in rows],
            "label": [i % 2 for i in rows],
            "id": list(rows),
        }
        table = datasets.Dataset.from_dict(columns, features=features)
        for shard in range(2):
            table.shard(2, shard).to_parquet(folder / "data" / f"{split}-0000{shard}-of-00002.parquet")
    return folder


@pytest.mark.parametrize("memory", [4.0, 0.0])
def test_a_set_as_it_lies_on_the_hub(tmp_path: Path, memory: float) -> None:
    folder = pushed(tmp_path / "set", train=range(14), validation=range(14, 17), test=range(17, 20))
    images = open_images(DataConfig(sources=(f"hf:{folder}",), memory_gib=memory))
    assert images.classes == ["cat", "dog"]
    assert dict(zip(*np.unique(images.official, return_counts=True), strict=True)) == {"test": 3, "train": 14, "val": 3}
    assert images.names[0] == "test/0000000"
    frames = images.batch(range(20))[0].permute(0, 2, 3, 1).numpy()
    for frame, i in zip(frames, [17, 18, 19, *range(14), 14, 15, 16], strict=True):
        assert np.array_equal(frame, pixels(20, 20, i))
    assert images.labels.tolist() == [i % 2 for i in (17, 18, 19, *range(14), 14, 15, 16)]
    assert open_images(DataConfig(sources=(f"hf:{folder}",), memory_gib=memory)).fingerprint == images.fingerprint
    assert any("id not used" in note for note in find(f"hf:{folder}").notes)


def test_a_set_of_picture_files_with_a_table_beside_them(tmp_path: Path) -> None:
    """The layout `imagefolder`."""
    rows = []
    for i in range(6):
        put(tmp_path / f"set/train/{i}.png", PICTURES[i])
        rows.append(json.dumps({"file_name": f"{i}.png", "label": "ab"[i % 2]}))
    put(tmp_path / "set/train/metadata.jsonl", "\n".join(rows).encode())
    images = open_images(DataConfig(sources=(f"hf:{tmp_path}/set",)))
    assert images.classes == ["a", "b"]
    assert images.official.tolist() == [""] * 6
    frames = images.batch(range(6))[0].permute(0, 2, 3, 1).numpy()
    assert all(np.array_equal(frame, pixels(20, 20, i)) for i, frame in enumerate(frames))


@pytest.mark.parametrize("kind", ["number", "class"])
def test_the_column_called_label_is_that(tmp_path: Path, kind: str) -> None:
    """Beside others that could be; as in the same parquet file without `datasets`, where -1 is no class either."""
    names = datasets.ClassLabel(names=["0", "1"])
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "tag": names if kind == "class" else datasets.Value("string"),
            "label": names if kind == "class" else datasets.Value("int64"),
        }
    )
    columns = {"image": [{"bytes": picture, "path": None} for picture in PICTURES[:3]], "tag": ["0", "1", "1"]}
    table = datasets.Dataset.from_dict(columns | {"label": [-1, 0, 1]}, features=features)
    (tmp_path / "set").mkdir()
    table.to_parquet(tmp_path / "set/train.parquet")
    for name in (f"hf:{tmp_path}/set", f"{tmp_path}/set/train.parquet"):
        source = find(name)
        assert (source.classes, source.labels.tolist()) == (["0", "1"], [-1, 0, 1])
        assert any("column tag not used" in note for note in source.notes)


@pytest.mark.parametrize(
    ("labels", "note"),
    [
        (["a", "NA", "None"], "2 labels NA, None taken for none"),
        ([[1], [0, 1], [0]], "1 row of several classes at once, left unlabelled"),
        ([-1, 0, 1], "1 label -1 taken for none"),
    ],
)
def test_labels_that_are_none_are_said(tmp_path: Path, labels: list[Any], note: str) -> None:
    features = datasets.Features({"image": datasets.Image()})
    pictures = {"image": [{"bytes": picture, "path": None} for picture in PICTURES[:3]]}
    table = datasets.Dataset.from_dict(pictures, features=features).add_column("label", labels)
    (tmp_path / "set").mkdir()
    table.to_parquet(tmp_path / "set/train.parquet")
    assert f"hf:{tmp_path}/set: {note}" in find(f"hf:{tmp_path}/set").notes


def test_bad_rows_are_set_aside_by_name(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image()})
    cut = PICTURES[3][:60]
    rows = [{"bytes": data, "path": None} for data in (PICTURES[0], b"junk", PICTURES[2], cut)]
    (tmp_path / "set").mkdir()
    datasets.Dataset.from_dict({"image": [*rows, None]}, features=features).to_parquet(tmp_path / "set/train.parquet")
    report = check.run(DataConfig(sources=(f"hf:{tmp_path}/set",)))
    assert (report.pictures, report.readable) == (5, 2)
    assert [name for name, _ in report.unreadable] == ["train/0000001", "train/0000003", "train/0000004"]
    assert report.unreadable[2][1] == "its row holds no picture"


def test_a_set_without_pictures_is_refused_with_its_columns(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    datasets.Dataset.from_dict({"text": ["a"], "stars": [1]}).to_parquet(tmp_path / "set/train.parquet")
    with pytest.raises(InputError, match="has no column of pictures; it has text, stars"):
        find(f"hf:{tmp_path}/set")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionError("Couldn't reach 'o/n' on the Hub\n(LocalEntryNotFoundError)"), "Couldn't reach 'o/n' on the"),
        (datasets.exceptions.DatasetNotFoundError("Dataset 'o/n' doesn't exist on the Hub."), "doesn't exist"),
        (ValueError("Config name is missing.\nPlease pick one among: ['a', 'b']"), "pick one among: ['a', 'b']"),
    ],
)
def test_a_hub_that_fails_is_one_sentence(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, str | None]] = []

    def failing(name: str, config: str | None = None, **more: Any) -> None:
        asked.append((name, config))
        raise error

    monkeypatch.setattr(datasets, "load_dataset", failing)
    with pytest.raises(SystemExit) as ended:
        main(["check", "hf:o/n:large"])
    assert ended.value.code == 2
    assert asked == [("o/n", "large")]
    lines = capsys.readouterr().err.strip().splitlines()
    assert "hf:o/n:large cannot be had: " in lines[-1]
    assert said in " ".join(lines)
    assert "Traceback" not in " ".join(lines)


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"headstart\[datasets\]"):
        find("hf:beans")


def test_a_set_is_one_place_from_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pushed(tmp_path / "set", train=range(4))
    monkeypatch.chdir(tmp_path)
    assert places(("hf:set", "hf:owner/name")) == (f"hf:{folder}", "hf:owner/name")
    with pytest.raises(InputError, match="must be the only DATA"):
        find("hf:set", "hf:owner/name")


def test_pictures_decode_as_datasets_own_do(tmp_path: Path) -> None:
    folder = pushed(tmp_path / "set", train=range(4))
    theirs = datasets.load_dataset(str(folder))["train"]
    ours = find(f"hf:{folder}")
    for i, row in enumerate(theirs):
        read: Any = ours.pictures[i]
        assert np.array_equal(np.asarray(row["image"]), np.asarray(Image.open(io.BytesIO(read.read()))))
