"""Pictures inside one file, in the layouts that other libraries write."""

import io
import json
import tarfile
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from headstart.data import check, open_images
from headstart.data.images import Images
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
    assert source.skipped[0][0] == "b.png"


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


@pytest.mark.parametrize("shape", ["nhwc", "nchw", "grey", "grey1"])
def test_arrays(tmp_path: Path, shape: str) -> None:
    stack = np.stack([pixels(20, 20, i) for i in range(20)])
    given = {"nhwc": stack, "nchw": stack.transpose(0, 3, 1, 2), "grey": stack[..., 0], "grey1": stack[..., :1]}[shape]
    np.save(tmp_path / "p.npy", given)
    images = opened(tmp_path / "p.npy")
    frames = images.batch(range(20))[0].permute(0, 2, 3, 1).numpy()
    expected = stack if shape.startswith("n") else np.repeat(stack[..., :1], 3, axis=3)
    assert np.array_equal(frames, expected)
    assert images.size == 20


def test_arrays_with_labels_and_parts(tmp_path: Path) -> None:
    stack = np.stack([pixels(20, 20, i) for i in range(20)])
    labels = np.arange(20)[:, None] % 2
    parts = {"train_images": stack[:12], "train_labels": labels[:12], "val_images": stack[12:15]}
    parts |= {"val_labels": labels[12:15], "test_images": stack[15:], "test_labels": labels[15:]}
    np.savez(tmp_path / "medmnist.npz", **parts)  # type: ignore[arg-type]
    images = opened(tmp_path / "medmnist.npz")
    assert sorted(zip(images.official, images.labels.tolist(), strict=True)) == sorted(
        ("train" if i < 12 else "val" if i < 15 else "test", i % 2) for i in range(20)
    )
    np.savez(tmp_path / "one.npz", x=stack, y=labels[:, 0])
    assert opened(tmp_path / "one.npz").labels.tolist() == labels[:, 0].tolist()
    np.save(tmp_path / "f.npy", stack.astype(np.float32))
    with pytest.raises(InputError, match=r"no uint8 pictures .*; it holds images float32 \(20, 20, 20, 3\)"):
        opened(tmp_path / "f.npy")
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="cannot be read"):
        opened(tmp_path / "o.npy")
