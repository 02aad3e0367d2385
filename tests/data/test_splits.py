"""Splits and statistics: stratified, seeded, saved, independent of order; the authors' numbers on CIFAR-10 (JPEG)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Subset, random_split

from headstart.data import open_images
from headstart.data.splits import Splits, balanced, copies, draw, make, per_picture, pooled, statistics
from headstart.records.config import DataConfig
from headstart.records.errors import InputError
from tests.data.pictures import encoded, folder, pixels, put


@dataclass
class Pictures:
    """As much of `Images` as splitting looks at."""

    labels: np.ndarray
    official: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def order(self) -> np.ndarray:
        return np.arange(len(self))


def pictures(**parts: int) -> Any:
    """So many pictures of each official split, labels 0 to 9 in turn."""
    official = np.concatenate([np.full(n, "" if name == "none" else name, "U5") for name, n in parts.items()])
    return Pictures(np.arange(len(official)) % 10, official)


def sizes(splits: Splits) -> tuple[int, int, int]:
    return len(splits.train), len(splits.val), len(splits.test)


def of(images: Pictures, splits: Splits) -> list[set[str]]:
    return [set(images.official[part]) for part in (splits.train, splits.val, splits.test)]


def test_without_an_official_split_it_is_70_10_20() -> None:
    images = pictures(none=1797)
    splits = make(images, DataConfig())
    assert sizes(splits) == (1258, 180, 359)
    assert np.array_equal(np.sort(np.concatenate([splits.train, splits.val, splits.test])), np.arange(1797))
    for part, share in ((splits.train, 0.7), (splits.val, 0.1), (splits.test, 0.2)):
        counts = np.bincount(images.labels[part], minlength=10)
        assert np.abs(counts - share * 180).max() <= 2


@pytest.mark.parametrize(
    ("parts", "style", "expected", "come_from"),
    [
        ({"train": 500, "test": 100}, "house", (450, 50, 100), ["train", "train", "test"]),
        ({"train": 500, "test": 100}, "paper", (450, 50, 100), ["train", "train", "test"]),
        ({"train": 500, "val": 100}, "house", (450, 50, 100), ["train", "train", "val"]),
        ({"train": 500, "val": 100}, "paper", (450, 10, 100), ["train", "val", "val"]),
        ({"train": 300, "val": 200, "test": 100}, "house", (300, 200, 100), ["train", "val", "test"]),
        ({"train": 500, "none": 100, "test": 100}, "house", (540, 60, 100), None),
    ],
)
def test_official_splits(
    parts: dict[str, int], style: Any, expected: tuple[int, int, int], come_from: list[str] | None
) -> None:
    images = pictures(**parts)
    splits = make(images, DataConfig(splits=style))
    assert sizes(splits) == expected
    if come_from:
        assert of(images, splits) == [{name} for name in come_from]
    assert not set(splits.train) & (set(splits.val) | set(splits.test))


def test_the_papers_aircraft_val_is_a_tenth_of_trainval() -> None:
    images = pictures(train=300, val=200, test=100)
    splits = make(images, DataConfig(splits="paper"))
    assert sizes(splits) == (450, 50, 100)
    assert of(images, splits)[0] == {"train", "val"}
    assert of(images, splits)[2] == {"test"}


def test_the_papers_imagenette_val_is_part_of_its_test() -> None:
    splits = make(pictures(train=500, val=100), DataConfig(splits="paper"))
    assert set(splits.val) < set(splits.test)


def test_only_one_official_split_is_none() -> None:
    assert sizes(make(pictures(train=100), DataConfig())) == (70, 10, 20)


def test_the_seed_decides_and_the_training_seed_is_not_asked() -> None:
    images = pictures(none=500)
    one, again, other = (make(images, DataConfig(split_seed=s)) for s in (0, 0, 1))
    assert np.array_equal(one.test, again.test)
    assert not np.array_equal(one.test, other.test)


def test_the_split_does_not_depend_on_where_or_in_which_order_files_lie(tmp_path: Path) -> None:
    names = [f"{'abc'[i % 3]}/{i}.png" for i in range(30)]
    first = open_images(DataConfig(sources=(str(folder(tmp_path / "one", names)),)))
    other = open_images(DataConfig(sources=(str(folder(tmp_path / "two", names[::-1])),)))
    assert first.names == other.names
    assert np.array_equal(make(first, DataConfig()).test, make(other, DataConfig()).test)


@pytest.mark.parametrize("official", ["", "test/"])
def test_copies_of_a_picture_are_in_one_part(tmp_path: Path, official: str) -> None:
    """Two of 40 pictures each in two classes: where parts are drawn, none is trained on and judged by."""
    names = [f"{'train/' * bool(official)}{'ab'[i % 2]}/{i}.png" for i in range(40)]
    root = folder(tmp_path, names)
    for name in names[:30]:
        (root / name).with_name(f"{Path(name).stem} - Copy.png").write_bytes((root / name).read_bytes())
    for i in range(4 * bool(official)):
        put(root / "test" / "ab"[i % 2] / f"{i}.png", (root / names[i]).read_bytes())
    images = open_images(DataConfig(sources=(str(root),)))
    splits = make(images, DataConfig())
    train, val, test = ({images.digests[i].tobytes() for i in part} for part in vars(splits).values())
    assert not (train & val)
    assert [len(part) for part in (train, val, test)] == ([36, 4, 4] if official else [28, 4, 8])
    assert copies(images, splits) == len(train & test) == (4 if official else 0)
    some = Splits(splits.train[:5], splits.val[:1], splits.test[:2])
    grown = make(images, DataConfig(), some)
    assert all(np.isin(getattr(some, name), getattr(grown, name)).all() for name in vars(some))


def test_a_set_of_one_picture_over_and_over_is_split_all_the_same(tmp_path: Path) -> None:
    for i in range(20):
        put(tmp_path / f"{i}.png", encoded(pixels(20, 20), "png"))
    images = open_images(DataConfig(sources=(str(tmp_path),)))
    splits = make(images, DataConfig())
    assert (sizes(splits), copies(images, splits)) == ((14, 2, 4), 4)


def test_a_limit_is_class_balanced_and_leaves_the_test_split_alone() -> None:
    labels = np.array([0] * 700 + [1] * 250 + [2] * 50)
    images: Any = Pictures(np.concatenate([labels, labels[::4]]), np.array(["train"] * 1000 + ["test"] * 250))
    whole, some = make(images, DataConfig()), make(images, DataConfig(limit=120))
    assert len(some.train) + len(some.val) == 120
    assert np.array_equal(whole.test, some.test)
    assert set(some.train) <= set(whole.train)
    assert np.bincount(images.labels[some.train]).tolist() == [36, 36, 36]
    fewer = make(images, DataConfig(limit=60))
    assert set(fewer.train) <= set(some.train)
    assert sizes(make(images, DataConfig(limit=5000))) == sizes(whole)
    scarce = make(images, DataConfig(limit=400))  # 45 of class 2 is all there is
    assert np.bincount(images.labels[scarce.train])[2] == np.bincount(images.labels[whole.train])[2]


@settings(deadline=None)
@given(st.lists(st.integers(-1, 4), min_size=3, max_size=200), st.integers(0, 5), st.sampled_from([0.1, 0.125, 0.2]))
def test_draws_are_stratified_and_complete(drawn: list[int], seed: int, share: float) -> None:
    labels = np.array(drawn)
    pool = np.arange(len(labels))
    part, rest = draw(pool, labels, share, seed, "x")
    assert np.array_equal(np.sort(np.concatenate([part, rest])), pool)
    assert len(part) == max(1, round(share * len(pool)))
    for label in set(labels.tolist()):
        # Each class alone is within one of its share; the total has to be met as well.
        expected = len(part) / len(pool) * (labels == label).sum()
        assert abs((labels[part] == label).sum() - expected) < 2
    few = balanced(pool, labels, 3, seed)
    assert set(few) <= set(balanced(pool, labels, min(5, len(pool)), seed))


def test_too_few_pictures_are_bad_input() -> None:
    with pytest.raises(InputError, match="too few"):
        make(pictures(none=2), DataConfig())
    assert sizes(make(pictures(none=3), DataConfig())) == (1, 1, 1)


def test_splits_are_saved_and_damage_is_named(tmp_path: Path) -> None:
    splits = make(pictures(none=50), DataConfig())
    splits.save(tmp_path / "splits.npz")
    loaded = Splits.load(tmp_path / "splits.npz", 50)
    for name in ("train", "val", "test"):
        assert np.array_equal(getattr(splits, name), getattr(loaded, name))
        assert getattr(loaded, name).dtype == np.int64
    whole = (tmp_path / "splits.npz").read_bytes()
    (tmp_path / "splits.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"splits\.npz is damaged"):
        Splits.load(tmp_path / "splits.npz", 50)
    np.savez(tmp_path / "o.npz", train=np.array([object()]), val=[0], test=[0])
    with pytest.raises(InputError, match="damaged"):
        Splits.load(tmp_path / "o.npz", 50)
    with pytest.raises(InputError, match="there is no"):
        Splits.load(tmp_path / "gone.npz", 50)


def test_statistics_are_the_plain_ones(tmp_path: Path) -> None:
    root = folder(
        tmp_path, [f"{'ab'[i % 2]}/{i}.png" for i in range(30)], lambda i: (200 + i, 270) if i % 2 else (30, 21)
    )
    data = DataConfig(sources=(str(root),), size=16)  # so that the large ones are kept smaller than they are
    images = open_images(data)
    exact = open_images(DataConfig(sources=(str(root),), size=16, detail=0))
    assert (images.batch(range(30))[1] < exact.batch(range(30))[1]).any()
    some = np.array([1, 2, 5, 20, 29])
    each = []
    for i in some:
        frames, ((h, w),) = exact.batch([i])
        each.append(frames[0, :, :h, :w].double() / 255)
    flat = np.concatenate([p.reshape(3, -1).numpy() for p in each], axis=1)
    mean, std = pooled(images, some)
    assert np.allclose(mean, flat.mean(1), atol=1e-9)
    assert np.allclose(std, flat.std(1), atol=1e-9)
    mean, std = per_picture(images, some)
    assert np.allclose(mean, np.mean([p.mean((1, 2)).numpy() for p in each], axis=0), atol=1e-9)
    assert np.allclose(std, np.mean([p.reshape(3, -1).std(1).numpy() for p in each], axis=0), atol=1e-9)


def test_which_pictures_count(tmp_path: Path) -> None:
    root = folder(tmp_path, [f"{s}/a/{i}.png" for s in ("train", "test") for i in range(20)])
    images = open_images(DataConfig(sources=(str(root),)))
    splits = make(images, DataConfig())
    house = statistics(images, splits, DataConfig())
    assert np.array_equal(house["test"][0], pooled(images, splits.train)[0])
    paper = statistics(images, splits, DataConfig(statistics="paper"))
    whole_train = np.flatnonzero(images.official == "train")
    assert np.array_equal(paper["val"], per_picture(images, whole_train))
    assert np.array_equal(paper["train"], per_picture(images, whole_train))
    assert np.array_equal(paper["test"], per_picture(images, splits.test))


def test_cifar10_has_the_authors_statistics(cifar10: Path) -> None:
    """Design section 6: mean to 0.001, std to 0.004 (the copy is JPEG)."""
    data = DataConfig(sources=(str(cifar10),), splits="paper", statistics="paper")
    images = open_images(data)
    splits = make(images, data)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (45_000, 5_000, 10_000)
    mean, std = statistics(images, splits, data)["train"]
    assert np.abs(mean - (0.4914, 0.4822, 0.4465)).max() < 0.001
    assert np.abs(std - (0.2023, 0.1994, 0.2010)).max() < 0.004


def torchs(pictures: Any) -> list[Subset[Any]]:
    return random_split(pictures, [0.9, 0.1], generator=torch.Generator().manual_seed(42))


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"train": 6667, "test": 3333}, (6001, 666, 3333)),  # FGVC-Aircraft, trainval as one
        ({"train": 9469, "val": 3925}, (8523, 392, 3925)),  # Imagenette
        ({"train": 50_000, "test": 10_000}, (45_000, 5_000, 10_000)),  # CIFAR
        ({"train": 5000, "test": 8000}, (4500, 500, 8000)),  # STL-10
    ],
)
def test_the_papers_splits_are_torchs_own(parts: dict[str, int], expected: tuple[int, int, int]) -> None:
    """The very indices of `random_split` with the authors' seed over the official train part, and the official val."""
    images = pictures(**parts)
    splits = make(images, DataConfig(splits="paper"))
    assert sizes(splits) == expected
    train, val = torchs(range(parts["train"]))
    assert np.array_equal(splits.train, np.sort(train.indices))
    if "val" in parts:
        _, val = torchs(range(parts["val"]))
        assert np.array_equal(splits.val, np.sort(val.indices) + parts["train"])
        assert set(splits.val) < set(splits.test)
    else:
        assert np.array_equal(splits.val, np.sort(val.indices))
    assert not np.array_equal(make(images, DataConfig(splits="paper", split_seed=1)).train, splits.train)


def test_aircraft_is_split_in_the_order_of_its_trainval_file(tmp_path: Path) -> None:
    data = tmp_path / "fgvc-aircraft-2013b" / "data"
    plane = encoded(pixels(40, 30), "jpeg")
    numbers = [f"{i:07d}" for i in range(40)]
    shuffled = np.random.default_rng(0).permutation(numbers[:30]).tolist()
    for number in numbers:
        put(data / "images" / f"{number}.jpg", plane)
    for split, some in (
        ("train", numbers[:20]),
        ("val", numbers[20:30]),
        ("test", numbers[30:]),
        ("trainval", shuffled),
    ):
        put(data / f"images_manufacturer_{split}.txt", "".join(f"{n} Boeing\n" for n in some).encode())
    config = DataConfig(sources=(f"fgvc-aircraft:{tmp_path}",), splits="paper")
    images = open_images(config)
    train, val = torchs(shuffled)
    splits = make(images, config)
    assert {images.names[i][-11:-4] for i in splits.train} == {shuffled[i] for i in train.indices}
    assert {images.names[i][-11:-4] for i in splits.val} == {shuffled[i] for i in val.indices}


def test_the_papers_imagenette_val_has_the_statistics_of_its_test(tmp_path: Path) -> None:
    root = folder(tmp_path, [f"{s}/a/{i}.png" for s in ("train", "val") for i in range(20)])
    config = DataConfig(sources=(str(root),), splits="paper", statistics="paper")
    images = open_images(config)
    found = statistics(images, make(images, config), config)
    assert np.array_equal(found["val"], per_picture(images, np.flatnonzero(images.official == "val")))
    assert np.array_equal(found["val"], found["test"])
    assert np.array_equal(found["train"], per_picture(images, np.flatnonzero(images.official == "train")))


def test_a_constant_channel_can_be_divided_by(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(20):
        put(tmp_path / f"{i}.png", encoded(pixels(20, 20, i) * np.array([1, 1, 0], np.uint8), "png"))
    for kind in ("train", "paper"):
        config = DataConfig(sources=(str(tmp_path),), statistics=kind)
        images = open_images(config)
        mean, std = statistics(images, make(images, config), config)["train"]
        assert (mean[2], std[2]) == (0, 1)
        assert (std[:2] < 0.5).all()
    assert "blue is 0 in every pixel of every picture" in " ".join(capsys.readouterr().err.split())


def test_a_test_split_without_labels_is_not_tested_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"train/{c}/{i}.png" for c in "ab" for i in range(20)] + [f"test/{i}.png" for i in range(10)]
    images = open_images(DataConfig(sources=(str(folder(tmp_path, names)),)))
    splits = make(images, DataConfig())
    assert sizes(splits) == (28, 4, 8)
    assert (images.labels[splits.test] >= 0).all()
    assert "the official test pictures have no labels" in " ".join(capsys.readouterr().err.split())
