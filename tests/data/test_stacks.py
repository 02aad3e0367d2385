"""Pictures as arrays: which array is what, and what is said of the others."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.data import open_images
from headstart.data.images import Images
from headstart.records.config import DataConfig
from headstart.records.errors import InputError
from tests.data.pictures import find, labelled, pixels

STACK = np.stack([pixels(20, 20, i) for i in range(8)])
HALVES = np.array([0, 1] * 4)


def opened(path: Path) -> Images:
    return open_images(DataConfig(sources=(str(path),)))


def npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


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


@pytest.mark.parametrize("word", ["val", "valid", "validation"])
def test_a_part_is_known_by_every_word_for_it(tmp_path: Path, word: str) -> None:
    arrays: Any = {"train_images": STACK, "train_labels": HALVES, f"{word}_images": STACK, f"{word}_labels": range(8)}
    source = find(npz(tmp_path / "p.npz", **arrays))
    val = {name: label for name, label in labelled(source).items() if name.startswith(word)}
    assert list(val.values()) == [str(i) for i in range(8)]
    assert set(source.official.tolist()) == {"train", "val"}
    assert not any("not used" in note for note in source.notes)


@pytest.mark.parametrize(
    ("arrays", "expected", "note"),
    [
        ({"ids": np.arange(8), "labels": HALVES}, "01", "array ids not used"),
        ({"names": np.array(list("abcdefgh")), "labels": HALVES}, "01", "array names not used"),
        ({"labels": HALVES.astype(float)}, "01", None),
        ({"labels": HALVES.astype(bool)}, ["False", "True"], None),
        ({"labels": np.array([b"a", b"b"] * 4)}, "ab", None),
        ({"labels": np.array([-1, 1] * 4)}, ["-1", "1"], None),
        ({"labels": np.array([-1, 0] * 4)}, [None, "0"], "labels: 4 labels -1 taken for none"),
        ({"labels": np.array(["NA", "a"] * 4)}, [None, "a"], "labels: 4 labels NA taken for none"),
        ({"labels": np.eye(2, dtype=int)[HALVES]}, "01", "labels taken for one class a column"),
        ({"labels": np.ones((8, 2), int)}, [None, None], "labels (8, 2) says no one class of each picture"),
        ({"labels": HALVES, "classes": np.array(["cat", "dog"])}, ["cat", "dog"], None),
        ({"labels": HALVES, "class_names": np.array(["cat"])}, "01", "array class_names not used"),
        ({"labels": HALVES, "masks": STACK[..., 0]}, "01", "array masks not used"),
        ({"arr_1": HALVES}, "01", "arr_1 taken for the labels"),
        ({"a": HALVES, "b": HALVES}, [None, None], "arrays a, b not used"),
        ({"weights": np.linspace(0, 1, 8)}, [None, None], "array weights not used"),
    ],
)
def test_every_array_is_used_or_named(tmp_path: Path, arrays: Any, expected: Any, note: str | None) -> None:
    source = find(npz(tmp_path / "p.npz", images=STACK, **arrays))
    assert list(labelled(source).values()) == list(expected) * 4
    assert [said.partition(": ")[2][: len(note or "")] for said in source.notes] == ([note] if note else [])


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"images": STACK, "labels": HALVES[:6]}, "labels holds 6 labels, and images 8 pictures"),
        ({"x_train": STACK, "y_train": HALVES[:0]}, "y_train holds 0 labels, and x_train 8 pictures"),
        (
            {"image": STACK[0]},
            r"one picture or 20 grey ones of 20 x 3 pixels \(height x width\); give \(1, 20, 20, 3\)",
        ),
        ({"images": STACK[:, :0]}, "without pixels"),
        ({"images": STACK, "labels": np.array(3)}, "labels holds no labels"),
    ],
)
def test_arrays_that_cannot_be_are_named(tmp_path: Path, arrays: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        find(npz(tmp_path / "p.npz", **arrays))
