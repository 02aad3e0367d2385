"""Folders of files of pictures: splits, what Headstart wrote among them, links, damage, and the memory they take."""

import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from headstart.data import check, open_images
from headstart.data import parquet as ours
from headstart.records.config import DataConfig
from headstart.records.errors import InputError
from headstart.records.folder import MARK
from tests.data.pictures import encoded, find, labelled, pixels, put
from tests.data.test_packed import PICTURES, hugging_face, opened, right, tar, zipped

WANTED = {"train": 12, "val": 8}


def parts(*sources: object) -> dict[str, int]:
    official = list(find(*sources).official)
    return {part: official.count(part) for part in sorted(set(official))}


def shard(path: Path, which: range) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return tar(path, [(f"{i:02}.{e}", d) for i in which for e, d in (("png", PICTURES[i]), ("cls", b"%d" % (i % 2)))])


@pytest.mark.parametrize("around", ["", "default/"])
def test_folders_around_shards_are_the_official_split(tmp_path: Path, around: str) -> None:
    shard(tmp_path / "set" / f"{around}train" / "0000.tar", range(6))
    shard(tmp_path / "set" / f"{around}train" / "0001.tar", range(6, 12))
    shard(tmp_path / "set" / f"{around}val" / "0000.tar", range(12, 20))
    assert parts(tmp_path / "set") == WANTED
    assert parts(tmp_path / "set" / f"{around}train", tmp_path / "set" / f"{around}val") == WANTED


def test_parquet_as_the_hub_lays_it_out(tmp_path: Path) -> None:
    for part, which in (("train", range(12)), ("val", range(12, 20))):
        hugging_face(tmp_path / "set" / "default" / part / "0000.parquet", [(PICTURES[i], i % 2) for i in which])
    assert parts(tmp_path / "set") == WANTED
    assert right(opened(tmp_path / "set"))


def test_folders_inside_webdataset_are_the_official_split(tmp_path: Path) -> None:
    where = [f"{'train' if i < 12 else 'val'}/{i:02}" for i in range(20)]
    members = [(f"{at}.{e}", d) for i, at in enumerate(where) for e, d in (("png", PICTURES[i]), ("cls", b"x"))]
    assert parts(tar(tmp_path / "set.tar", members)) == WANTED


def test_shards_that_webdataset_s_own_library_writes(tmp_path: Path) -> None:
    """Pictures, labels as numbers and metadata in several shards, as its ShardWriter names and packs them."""
    for part, which in (("train", range(12)), ("val", range(12, 20))):
        written_by_its_library(tmp_path / "set", f"{part}-%04d.tar", which)
    found = find(tmp_path / "set")
    assert sorted(path.name for path in (tmp_path / "set").iterdir())[:2] == ["train-0000.tar", "train-0001.tar"]
    assert parts(tmp_path / "set") == WANTED
    assert right(opened(tmp_path / "set"))
    assert [entry % 2 for entry in range(20)] == opened(tmp_path / "set").labels.tolist()
    assert len(found.names) == 20


def test_compressed_shards_are_to_be_unpacked_first(tmp_path: Path) -> None:
    written_by_its_library(tmp_path / "set", "train-%04d.tar.gz", range(12))
    with pytest.raises(InputError, match=r"it holds 3 \.gz; unpack what is compressed first"):
        find(tmp_path / "set")


def written_by_its_library(folder: Path, pattern: str, which: range) -> None:
    webdataset = pytest.importorskip("webdataset")
    folder.mkdir(exist_ok=True)
    with webdataset.ShardWriter(str(folder / pattern), maxcount=5, verbose=0) as writer:
        for i in which:
            writer.write({"__key__": f"{i:06}", "png": pixels(20, 20, i), "cls": i % 2, "json": {"number": i}})


def test_many_shards_of_a_split_are_counted(tmp_path: Path) -> None:
    for i in range(20):
        shard(tmp_path / "set" / f"{'train' if i < 12 else 'val'}-{i:05}-of-00020.tar", range(i, i + 1))
    assert "taken for the official split: 12 of train, 8 of val" in find(tmp_path / "set").notes


def test_what_headstart_wrote_among_shards_is_none_of_the_set(tmp_path: Path) -> None:
    put(
        tmp_path / "set" / "a.tar",
        tar(tmp_path / "a.tar", [(f"{i}.png", p) for i, p in enumerate(PICTURES)]).read_bytes(),
    )
    column = pyarrow.array(PICTURES, pyarrow.binary())
    for name in ("map/map.parquet", "kept.parquet"):
        table = pyarrow.table({"thumbnail": column}).replace_schema_metadata({MARK: b"said"})
        (tmp_path / "set" / name).parent.mkdir(exist_ok=True)
        parquet.write_table(table, tmp_path / "set" / name)
    np.savez(tmp_path / "set" / "kept.npz", about="{}", digests=np.zeros((1, 16), np.uint8), images=pixels(8, 8)[None])
    run = tmp_path / "set" / "run"
    run.mkdir()
    (run / "config.yaml").touch()
    (run / "metrics.jsonl").touch()
    np.savez(run / "splits.npz", train=np.arange(3))
    found = find(tmp_path / "set")
    assert len(found.names) == 20
    assert "left out: kept.npz, kept.parquet, map/map.parquet, which Headstart wrote" in found.notes
    assert "left out: the pictures of runs and studies in run" in found.notes


def test_links_in_a_tar_are_the_pictures_they_lead_to(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for i in range(3):
        put(folder / "a" / f"{i}.png", PICTURES[i])
        (folder / "b").mkdir(exist_ok=True)
        (folder / "b" / f"hard{i}.png").hardlink_to(folder / "a" / f"{i}.png")
        (folder / "b" / f"soft{i}.png").symlink_to(f"../a/{i}.png")
    (folder / "b" / "gone.png").symlink_to("../a/9.png")
    subprocess.run(["tar", "cf", tmp_path / "set.tar", "-C", folder, "."], check=True)
    found = find(tmp_path / "set.tar")
    assert sorted(found.names) == sorted(
        [f"a/{i}.png" for i in range(3)] + [f"b/{k}{i}.png" for k in ("hard", "soft") for i in range(3)]
    )
    assert [reason for _, reason in found.skipped] == ["a link to a/9.png, which is no file of the archive"]
    assert right(opened(tmp_path / "set.tar"), [0, 1, 2, 0, 1, 2, 0, 1, 2])


def test_a_bit_that_a_zip_lost_is_noticed(tmp_path: Path) -> None:
    path = zipped(
        tmp_path / "a.zip", [(f"{i}.bmp", encoded(pixels(20, 20, i), "bmp")) for i in range(20)], zipfile.ZIP_STORED
    )
    content = bytearray(path.read_bytes())
    content[content.index(b"BM") + 500] ^= 1
    path.write_bytes(content)
    report = check.run(DataConfig(sources=(str(path),)))
    assert [(name, reason) for name, reason in report.unreadable] == [
        ("0.bmp", "damaged in its archive: its checksum is another")
    ]


def test_a_zip_of_a_version_to_come_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", [("0.png", PICTURES[0])])
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + 6] = 137
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.zip cannot be read \(zip file version 13\.7\); pack it again"):
        find(path)


def test_second_pictures_of_a_webdataset_sample_are_left_out_and_said(tmp_path: Path) -> None:
    members = [
        (f"{i:02}.{e}", d) for i in range(4) for e, d in (("png", PICTURES[i]), ("seg.png", PICTURES[9]), ("cls", b"1"))
    ]
    found = find(tar(tmp_path / "a.tar", members))
    assert list(found.names) == [f"{i:02}.png" for i in range(4)]
    assert "a.tar: left out: 4 pictures beside that of their sample (00.seg.png)" in found.notes


def test_a_class_label_of_any_name_is_taken_where_there_is_one(tmp_path: Path) -> None:
    path = hugging_face(tmp_path / "a.parquet", [(PICTURES[i], i % 2) for i in range(6)])
    table = parquet.read_table(path)
    said = table.schema.metadata[b"huggingface"].replace(b'"label"', b'"fine_label"')
    table = table.rename_columns(["image", "fine_label"]).replace_schema_metadata({"huggingface": said})
    parquet.write_table(table, path)
    assert labelled(find(path)) == {f"{i:07}": ("cat", "dog")[i % 2] for i in range(6)}


def test_of_parquet_a_few_batches_are_held_whatever_its_groups_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours, "AT_ONCE", 4 * len(PICTURES[0]))
    for i in range(6):
        table = pyarrow.table({"image": pyarrow.array(PICTURES, pyarrow.binary())})
        (tmp_path / "set").mkdir(exist_ok=True)
        parquet.write_table(table, tmp_path / "set" / f"{i}.parquet", row_group_size=20, compression="none")
    images = open_images(DataConfig(sources=(str(tmp_path / "set"),), memory_gib=0.0))
    assert right(images, [*range(20)] * 6)
    back: Any = find(tmp_path / "set" / "0.parquet").pictures
    assert [back[i].read() == PICTURES[i] for i in (19, 0, 7, 3, 12, 1)] == [True] * 6
    held = [batch for reader in ours._READERS.values() for batch in reader._kept]
    assert len(ours._READERS) <= ours.TABLES
    assert 0 < len(held) <= ours.TABLES * ours.BATCHES
    assert max(len(batch.values) for batch in held) < 10
