"""Pictures inside one file, in the layouts that other libraries write."""

import io
import json
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from headstart.data import check, open_images
from headstart.data.decode import UnreadableError
from headstart.data.images import Images
from headstart.data.packed import Member
from headstart.records.config import DataConfig
from headstart.records.errors import InputError
from tests.data.pictures import encoded, find, labelled, pixels, put

PICTURES = [encoded(pixels(20, 20, i), "png") for i in range(20)]


def tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def zipped(path: Path, members: Iterable[tuple[str, bytes]], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def hugging_face(path: Path, rows: Sequence[tuple[bytes | None, int]], names: Sequence[str] = ("cat", "dog")) -> Path:
    """As `Dataset.to_parquet` writes images with class labels."""
    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    features = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
    schema = pyarrow.schema(
        [("image", image), ("label", pyarrow.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    columns = [[{"bytes": data, "path": None} for data, _ in rows], [label for _, label in rows]]
    table = pyarrow.table(dict(zip(("image", "label"), columns, strict=True)), schema=schema)
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path, row_group_size=4)
    return path


def right(images: Images, order: Iterable[int] = range(20)) -> bool:
    """Every picture holds what was put there."""
    frames = images.batch(range(len(images)))[0].permute(0, 2, 3, 1).numpy()
    return all(np.array_equal(frame, pixels(20, 20, i)) for frame, i in zip(frames, order, strict=True))


def opened(*sources: object, **data: Any) -> Images:
    return open_images(DataConfig(sources=tuple(map(str, sources)), **data))


@pytest.mark.parametrize("pack", [tar, zipped])
def test_another_choice_of_an_archives_pictures_is_not_served_from_the_first_ones_cache(
    pack: Callable[[Path, list[tuple[str, bytes]]], Path], tmp_path: Path
) -> None:
    """Masks are left out unless folders are classes: with the same file, names and pictures came apart."""
    members = [
        (f"fold{fold}/{kind}/{i}.png", PICTURES[10 * (kind == "masks") + i])
        for fold in (1, 2)
        for kind in ("images", "masks")
        for i in range(10)
    ]
    path, cache = pack(tmp_path / "p.zip" if pack is zipped else tmp_path / "p.tar", members), str(tmp_path / "cache")
    fewer, all_of_them = (opened(path, labels=labels, cache_dir=cache) for labels in ("auto", "folders"))
    assert (len(fewer), len(all_of_them)) == (20, 40)
    for images in (fewer, all_of_them):
        assert right(images, [10 * ("masks" in name) + int(Path(name).stem) for name in images.names])


@pytest.mark.parametrize("memory", [4.0, 0.0])
@pytest.mark.parametrize("kind", ["tar", "stored.zip", "deflated.zip"])
def test_an_archive_of_pictures_is_read_as_the_folder_it_was(tmp_path: Path, kind: str, memory: float) -> None:
    members = [(f"Training/{'ab'[i % 2]}/{i:02d}.png", data) for i, data in enumerate(PICTURES)]
    members += [("Testing/a/99.png", PICTURES[0]), ("__MACOSX/Training/a/._0.png", b"x"), ("notes.txt", b"x")]
    path = tmp_path / f"p.{kind}"
    if kind == "tar":
        tar(path, members)
    else:
        zipped(path, members, zipfile.ZIP_STORED if kind.startswith("stored") else zipfile.ZIP_DEFLATED)
    images = opened(path, memory_gib=memory)
    assert images.names[:2] == ["Testing/a/99.png", "Training/a/00.png"]
    assert (images.classes, sorted(set(images.official))) == (["a", "b"], ["test", "train"])
    assert right(images, [0, *range(0, 20, 2), *range(1, 20, 2)])
    assert not list(tmp_path.glob("Training"))


def test_webdataset_shards(tmp_path: Path) -> None:
    for shard in range(2):
        members = []
        for i in range(shard * 10, shard * 10 + 10):
            members += [(f"{i:04d}.png", PICTURES[i]), (f"{i:04d}.cls", str(i % 2).encode())]
        tar(tmp_path / f"set-{shard:06d}.tar", members)
    images = opened(tmp_path)
    assert images.classes == ["0", "1"]
    assert images.labels.tolist() == [i % 2 for i in range(20)]
    assert right(images)
    assert opened(*sorted(tmp_path.glob("*.tar"))).fingerprint == images.fingerprint
    described = [("a.png", PICTURES[0]), ("a.json", b'{"label": "cat", "width": 3}')]
    described += [("b.png", PICTURES[1]), ("b.json", b"{"), ("c.png", PICTURES[2])]
    source = find(tar(tmp_path / "json.tar", described))
    assert labelled(source) == {"a.png": "cat", "b.png": None, "c.png": None}
    assert source.skipped == []
    assert source.notes[1].startswith("json.tar: the label of b.png cannot be read")


def test_names_in_an_archive_that_are_no_text_are_escaped(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "old.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        for i, data in enumerate(PICTURES):
            info = tarfile.TarInfo(f"{('café', 'tea')[i % 2]}/{i:02d}.png")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    images = opened(tmp_path / "old.tar")
    assert images.classes == ["caf\\xe9", "tea"]
    assert len(images.fingerprint) == 16


def test_an_entry_of_a_zip_that_lies_about_its_size_is_set_aside(tmp_path: Path) -> None:
    """Of what claims to unpack to nothing zlib would unpack all; what claims to be huge would be made room for."""
    path = zipped(tmp_path / "p.zip", [(f"{i:02d}.png", data) for i, data in enumerate(PICTURES)])
    packed = zlib.compress(bytes(10**7))[2:-4]
    own = tmp_path / "raw"
    own.write_bytes(packed)
    with pytest.raises(UnreadableError, match="longer than it says"):
        Member(str(own), 0, len(packed), 0, deflated=True).read()
    tracemalloc.start()
    with pytest.raises(UnreadableError):
        Member(str(own), 0, len(packed), 0, deflated=True).read()
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()
    with pytest.raises(UnreadableError, match="more than"):
        Member(str(path), 0, 2**45, 20, deflated=True).read()


def test_a_truncated_shard_costs_only_what_is_missing(tmp_path: Path) -> None:
    path = tar(tmp_path / "p.tar", [(f"{i:02d}.png", data) for i, data in enumerate(PICTURES)])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    images = opened(path)
    assert 10 <= len(images) < 19
    assert right(images, range(len(images)))
    assert any("cut off" in reason for _, reason in images.skipped)
    path.write_bytes(b"not a tar" * 100)
    with pytest.raises(InputError, match="no whole tar archive"):
        opened(path)
    put(tmp_path / "x.zip", zipped(tmp_path / "y.zip", [("a.png", PICTURES[0])]).read_bytes()[:-30])
    with pytest.raises(InputError, match="no whole zip archive"):
        opened(tmp_path / "x.zip")


@pytest.mark.parametrize("more", [0, 100, 512, 600])
def test_a_shard_cut_off_anywhere_is_named(tmp_path: Path, more: int) -> None:
    path = tar(tmp_path / "p.tar", [(f"{i:02d}.cls", b"1") for i in range(8)] + [("99.png", PICTURES[0])] * 2)
    path.write_bytes(path.read_bytes()[: 8 * 1024 + 512 + -(-len(PICTURES[0]) // 512) * 512 + more])
    source = find(path)
    assert source.names == ["99.png"]
    (aside,) = source.skipped
    assert aside == ("p.tar after 99.png", "cut off: unexpected end of data")


@pytest.mark.parametrize("memory", [4.0, 0.0])
def test_parquet_as_hugging_face_writes_it(tmp_path: Path, memory: float) -> None:
    hugging_face(tmp_path / "data/train-00000-of-00002.parquet", [(PICTURES[i], i % 2) for i in range(9)])
    hugging_face(tmp_path / "data/train-00001-of-00002.parquet", [(PICTURES[i], i % 2) for i in range(9, 18)])
    hugging_face(tmp_path / "data/test-00000-of-00001.parquet", [(PICTURES[18], 0), (PICTURES[19], -1)])
    images = opened(tmp_path, memory_gib=memory)
    assert images.classes == ["cat", "dog"]
    assert images.official.tolist() == ["test"] * 2 + ["train"] * 18
    assert images.labels.tolist() == [0, -1, *(i % 2 for i in range(18))]
    assert right(images, [18, 19, *range(18)])


def test_parquet_that_lacks_something_is_named(tmp_path: Path) -> None:
    rows = [(PICTURES[i], 0) for i in range(5)]
    source = hugging_face(tmp_path / "a.parquet", [*rows, (None, 1), (b"junk", 1)])
    report = check.run(DataConfig(sources=(str(source),)))
    assert (report.pictures, report.readable) == (7, 5)
    assert report.unreadable[0][1] == "its row holds no picture"
    parquet.write_table(pyarrow.table({"path": ["x"], "label": [1]}), tmp_path / "b.parquet")
    with pytest.raises(InputError, match="no column of image bytes; it has path, label"):
        find(tmp_path / "b.parquet")
    put(tmp_path / "c.parquet", b"PAR1 cut")
    with pytest.raises(InputError, match="no whole parquet file"):
        find(tmp_path / "c.parquet")


def test_json_beside_pictures_that_says_no_label_leaves_the_folders_alone(tmp_path: Path) -> None:
    members = [("cat/0.png", PICTURES[0]), ("cat/0.json", b'{"version": "5.0", "shapes": []}')]
    members += [("dog/1.png", PICTURES[1]), ("dog/1.json", b"[1, 2]"), ("@eaDir/dog/1.png", PICTURES[2])]
    assert labelled(find(tar(tmp_path / "p.tar", members))) == {"cat/0.png": "cat", "dog/1.png": "dog"}
    members = [("0.png", PICTURES[0]), ("0.cls", b"-1"), ("0.json", b'{"label": 7}'), ("1.png", PICTURES[1])]
    members += [("1.json", b'{"label": [1], "category": "x"}'), ("2.png", PICTURES[2]), ("2.cls", b"0\n")]
    assert labelled(find(tar(tmp_path / "w.tar", members))) == {"0.png": None, "1.png": "1", "2.png": "0"}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("again", ["c/0.png", "../c/0.png", "c\\\\0.png"])
def test_of_two_files_of_one_name_the_last_counts(tmp_path: Path, again: str) -> None:
    images = opened(
        zipped(tmp_path / "p.zip", [("c/0.png", PICTURES[0]), (again, PICTURES[1]), ("d/1.png", PICTURES[2])])
    )
    assert images.names == ["c/0.png", "d/1.png"]
    assert right(images, [1, 2])
    note = "p.zip: 1 file under a name that there was before (c/0.png); the last counts"
    assert note in find(tmp_path / "p.zip").notes


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zips_of_other_methods_say_which(tmp_path: Path, method: int) -> None:
    path = zipped(tmp_path / "p.zip", [("a.png", PICTURES[0])], method)
    with pytest.raises(InputError, match=r"compressed with (bzip2|lzma); pack it again with deflate"):
        find(path)


def test_an_archive_without_pictures_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"it holds 2 \.zip, 1 \.txt"):
        find(zipped(tmp_path / "p.zip", [("a.zip", b""), ("b.zip", b""), ("notes.txt", b"")]))


@pytest.mark.parametrize(
    ("columns", "expected", "official"),
    [
        ({"label": [1.0, 2.0, None]}, ["1", "2", None], [""] * 3),
        ({"label": [[3], [1, 2], []]}, ["3", None, None], [""] * 3),
        ({"label": [0, 1, -1]}, ["0", "1", None], [""] * 3),
        ({"species": ["a", "b", "c"], "label": [0, 1, 2]}, ["0", "1", "2"], [""] * 3),
        ({"label": [0, 1, 0], "split": ["train", "validation", "test"]}, ["0", "1", "0"], ["train", "val", "test"]),
        ({"label": [0, 1, 0], "split": ["a", "b", "train"]}, ["0", "1", "0"], [""] * 3),
    ],
)
def test_columns_of_parquet(
    tmp_path: Path, columns: dict[str, list[Any]], expected: list[str | None], official: list[str]
) -> None:
    masks, pictures = pyarrow.array(PICTURES[5:8]), pyarrow.array(PICTURES[:3])
    parquet.write_table(pyarrow.table({"mask": masks, "image": pictures, **columns}), tmp_path / "p.parquet")
    source = find(tmp_path / "p.parquet")
    assert list(labelled(source).values()) == expected
    assert source.official.tolist() == official
    assert source.notes[0].startswith("p.parquet: column")
    assert "mask" in source.notes[0]
    assert right(opened(tmp_path / "p.parquet"), range(3))


@pytest.mark.parametrize(
    ("labels", "note"),
    [
        (["a", "NA", "nan"], "2 labels NA, nan taken for none"),
        ([[3], [1, 2], []], "1 row of several classes at once, left unlabelled"),
        ([[1, 0], [0, 1], [1, 0]], "3 rows of several classes at once, left unlabelled"),
        ([0, 1, -1], "1 label -1 taken for none"),
        ([0.0, 1.0, None], None),
    ],
)
def test_labels_that_are_none_are_said(tmp_path: Path, labels: list[Any], note: str | None) -> None:
    parquet.write_table(pyarrow.table({"image": pyarrow.array(PICTURES[:3]), "label": labels}), tmp_path / "p.parquet")
    assert find(tmp_path / "p.parquet").notes == ((f"p.parquet: {note}",) if note else ())


def test_json_of_several_classes_beside_a_picture_is_said(tmp_path: Path) -> None:
    labels = ([0], [0, 1], 1)
    members = [(f"{i}.png", PICTURES[i]) for i in range(3)]
    members += [(f"{i}.json", json.dumps({"label": label}).encode()) for i, label in enumerate(labels)]
    source = find(tar(tmp_path / "s.tar", members))
    assert list(labelled(source).values()) == ["0", None, "1"]
    assert "s.tar: the label of 1.png cannot be read (it says several classes)" in source.notes


def test_a_parquet_file_without_rows_is_named(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"image": pyarrow.array([], pyarrow.binary())}), tmp_path / "p.parquet")
    with pytest.raises(InputError, match="has no rows"):
        find(tmp_path / "p.parquet")
