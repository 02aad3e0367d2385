"""The named sets, in the exact files in which they are published."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from headstart.data import check, open_images
from headstart.records.config import DataConfig
from headstart.records.errors import InputError
from tests.data.pictures import cifar_rows, encoded, find, pixels, put, write_cifar10


def test_digits() -> None:
    images = open_images(DataConfig(sources=("digits",)))
    assert (len(images), images.size, len(images.classes)) == (1797, 32, 10)
    assert images.names[0] == "digits/00001.png"
    frame = images.batch([0])[0][0].numpy()
    from sklearn.datasets import load_digits

    grey = load_digits().images[0]
    assert np.array_equal(frame[0, ::4, ::4], np.rint(grey * 255 / 16))
    assert np.array_equal(frame[0], frame[2])


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_cifar10_in_its_python_files(tmp_path: Path, protocol: int) -> None:
    write_cifar10(tmp_path, protocol)
    for root in (tmp_path, tmp_path / "cifar-10-batches-py"):
        images = open_images(DataConfig(sources=(f"cifar10:{root}",)))
        assert len(images) == 18
        assert images.classes == [f"class {i}" for i in range(10)]
        assert images.official.tolist() == ["train"] * 15 + ["test"] * 3
        assert np.array_equal(images.batch([4])[0][0].numpy().ravel(), cifar_rows(3, 1)[1])
        assert images.labels[4] == 2


def test_cifar_files_that_disagree_are_named(tmp_path: Path) -> None:
    write_cifar10(tmp_path, 4)
    batch = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    for content, words in [
        ({"labels": [1], "data": cifar_rows(2, 0)}, "2 pictures but 1 labels"),
        ({"labels": [10], "data": cifar_rows(1, 0)}, "labels from 10"),
        ({"labels": [1], "data": cifar_rows(1, 0)[:, :100]}, "3 x 32 x 32"),
        ({"data": cifar_rows(1, 0)}, "no entry 'labels'"),
    ]:
        put(batch, pickle.dumps(content))
        with pytest.raises(InputError, match=words):
            find(f"cifar10:{tmp_path}")


def test_cifar100_has_its_fine_labels(tmp_path: Path) -> None:
    root = tmp_path / "cifar-100-python"
    for split, n in (("train", 4), ("test", 2)):
        content = {"data": cifar_rows(n, n), "fine_labels": [99 - i for i in range(n)], "coarse_labels": [0] * n}
        put(root / split, pickle.dumps(content, 2))
    put(root / "meta", pickle.dumps({"fine_label_names": [f"f{i}" for i in range(100)], "coarse_label_names": []}, 2))
    source = find(f"cifar100:{tmp_path}")
    assert source.labels.tolist() == [99, 98, 97, 96, 99, 98]
    assert source.names[-1] == "test/00002.png"


def test_stl10_binary_with_and_without_its_unlabelled_part(tmp_path: Path) -> None:
    root = tmp_path / "stl10_binary"
    seen = {
        s: np.stack([pixels(96, 96, i + k) for i in range(3)]) for k, s in enumerate(("train", "test", "unlabeled"))
    }
    for split, pictures in seen.items():
        put(root / f"{split}_X.bin", pictures.transpose(0, 3, 2, 1).tobytes())  # channels, then columns
    put(root / "train_y.bin", bytes([1, 10, 2]))
    put(root / "test_y.bin", bytes([3, 3, 1]))
    put(root / "class_names.txt", b"\n".join(b"c%d" % i for i in range(10)))
    images = open_images(DataConfig(sources=(f"stl10:{tmp_path}",)))
    assert (len(images), images.size, images.labels.tolist()) == (6, 96, [0, 9, 1, 2, 2, 0])
    assert np.array_equal(images.batch([1])[0][0].numpy().transpose(1, 2, 0), seen["train"][1])
    more = open_images(DataConfig(sources=(f"stl10:{tmp_path}",), unlabelled=True))
    assert more.labels.tolist()[6:] == [-1, -1, -1]
    assert set(more.official[6:]) == {"train"}
    assert np.array_equal(more.batch([8])[0][0].numpy().transpose(1, 2, 0), seen["unlabeled"][2])
    put(root / "test_X.bin", bytes(1000))
    with pytest.raises(InputError, match="multiple of 3 x 96 x 96"):
        find(f"stl10:{tmp_path}")


@pytest.mark.parametrize("name", ["imagenette2", "imagenette2-320", "imagenette2-160"])
def test_imagenette_of_every_size(tmp_path: Path, name: str) -> None:
    for i, split in enumerate(("train", "val")):
        put(tmp_path / name / split / "n01440764" / f"n01440764_{i}.JPEG", encoded(pixels(30, 40, i), "jpeg"))
        put(tmp_path / name / split / "n03888257" / f"n03888257_{i}.JPEG", encoded(pixels(30, 40, i + 5), "jpeg"))
    for root in (tmp_path, tmp_path / name):
        source = find(f"imagenette:{root}")
        assert source.classes == ["parachute", "tench"]
        assert source.official.tolist() == ["train", "train", "val", "val"]


def test_aircraft_loses_its_banner(tmp_path: Path) -> None:
    data = tmp_path / "fgvc-aircraft-2013b" / "data"
    plane = pixels(60, 50)
    plane[-20:] = 255
    for i in range(3):
        put(data / "images" / f"000000{i}.jpg", encoded(plane, "jpeg", quality=95))
    for level, label in (("manufacturer", "British Aerospace"), ("variant", "BAE-125")):
        for i, split in enumerate(("train", "val", "test")):
            put(data / f"images_{level}_{split}.txt", f"000000{i} {label}\n".encode())
    source = find(f"fgvc-aircraft:{tmp_path}")
    assert source.classes == ["British Aerospace"]
    assert source.official.tolist() == ["test", "train", "val"]
    images = open_images(DataConfig(sources=(f"fgvc-aircraft:{tmp_path}",), annotation="variant"))
    assert images.classes == ["BAE-125"]
    frames, valid = images.batch([0])
    assert valid.tolist() == [[40, 50]]
    assert np.abs(frames[0].numpy().transpose(1, 2, 0).astype(int) - plane[:40]).mean() < 6
    put(data / "images_variant_test.txt", b"0000002\n")
    with pytest.raises(InputError, match="line 1"):
        find(f"fgvc-aircraft:{tmp_path}", annotation="variant")


@pytest.mark.parametrize(
    ("name", "looked_for"),
    [
        ("cifar10", "cifar-10-batches-py/batches.meta"),
        ("cifar100", "cifar-100-python/meta"),
        ("stl10", "stl10_binary/class_names.txt"),
        ("imagenette", "imagenette2/train"),
        ("fgvc-aircraft", "fgvc-aircraft-2013b/data/images_manufacturer_train.txt"),
    ],
)
def test_missing_files_say_which_where_and_how_to_get_them(tmp_path: Path, name: str, looked_for: str) -> None:
    with pytest.raises(InputError) as caught:
        find(f"{name}:{tmp_path}")
    message = str(caught.value)
    assert str(tmp_path / looked_for) in message
    assert "--data.download" in message
    assert "http" in message


def test_check_compares_published_checksums_but_reading_does_not(tmp_path: Path) -> None:
    write_cifar10(tmp_path, 2)
    report = check.run(DataConfig(sources=(f"cifar10:{tmp_path}",)))
    assert len(report.altered) == 7
    assert report.readable == 18
