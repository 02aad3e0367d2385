"""Folders as other tools lay them out: what is a split, a class, a wrapper, and that it is said."""

from pathlib import Path

import pytest

from headstart.data.layout import Folder, Layout
from headstart.records.errors import InputError
from tests.data.pictures import find, folder, put


def layout(folders: str, labels: str = "auto") -> Layout:
    """Of one picture in each of these folders; `.` is the top."""
    return Layout(Folder.of(tuple(f.split("/")) if f != "." else () for f in folders.split(" ")), "photos", labels)


def said(folders: str, labels: str = "auto") -> str:
    """`folder=split:class` of each folder; - for none, and x for what is left out."""
    of = layout(folders, labels)
    roles = [(f, of.roles[tuple(f.split("/")) if f != "." else ()]) for f in folders.split(" ")]
    return " ".join(f"{f}={r.official or '-'}:{r.label or '-'}" if r.kept else f"{f}=x" for f, r in roles)


SPLIT = [
    "Training/a=train:a Training/b=train:b Testing/a=test:a Testing/b=test:b",
    "TRAIN/a=train:a TEST/a=test:a",
    "train/a=train:a dev/a=val:a",
    "train-set/a=train:a valid_set/a=val:a test_set_1/a=test:a",
    "my_training_data/a=train:a my_validation_data/a=val:a",
    "train2017=train:- val2017=val:-",  # COCO
    "asl_alphabet_train/A=train:A asl_alphabet_test=test:-",  # Kaggle
    "PublicTest/sad=test:sad PrivateTest/sad=test:sad Training/sad=train:sad",  # FER2013
    "training/a=train:a validation/a=val:a evaluation/a=test:a",  # Food-11
    "train/a=train:a train/b=train:b test=test:-",  # flat test/ keeps the labels of train/CLASS
    "ILSVRC/train/n01=train:n01 ILSVRC/train/n02=train:n02 ILSVRC/val=val:-",
    "a/seg_train/seg_train/sea=train:sea a/seg_test/seg_test/sea=test:sea a/seg_pred/seg_pred=train:-",
    "train/a=train:a valid/a=val:a unlabeled=train:-",
    "train=train:- valid=val:- test=test:-",  # Roboflow
    "train/images=train:- valid/images=val:- test/images=test:-",
    "images/train=train:- images/val=val:- labels/train=x",  # YOLO
    "train/data=train:- validation/data=val:- test/data=test:-",  # Open Images as FiftyOne writes it
    "trainA=train:- trainB=train:- testA=test:- testB=test:-",  # CycleGAN
    "bottle/train/good=train:good bottle/test/cut=test:cut bottle/ground_truth/cut=x",  # MVTec
    "train=train:- train_masks=x test=test:-",  # Carvana
    "cats/train=train:cats cats/test=test:cats dogs/train=train:dogs",
    "A/train/x=train:x A/test/x=test:x B/train/y=train:y B/test/x=test:x",
    "xray/xray/train/N=train:N xray/xray/test/N=test:N xray/train/N=train:N xray/test/N=test:N",  # Kaggle
    "train/data/a=train:a train/data/b=train:b test/data/a=test:a",
    "train/cat=train:cat test/cat=test:cat test/dog=test:dog",  # a class, not a wrapper
    "train/a=train:a test/a=test:a extra/a=-:a extra/z=-:- .=-:-",
    "set/train/a=train:a set/valid/a=val:a test/test=test:-",
    "hold-out/a=test:a train/a=train:a",
    "labelled_train/a=train:a unlabelled_train=train:- test/a=test:a",
    "Training_Dataset/a=train:a Validating_Dataset/a=val:a",
    "train+val/a=train:a test/a=test:a",
    "cat_train=train:cat cat_test=test:cat dog_train=train:dog dog_test=test:dog",
    "Train-BigDog=train:BigDog Test-BigDog=test:BigDog Train-Cat=train:Cat Val-Cat=val:Cat",
    "leftImg8bit/train/x=train:x leftImg8bit/val/x=val:x gtFine/train/x=x gtFine/val/x=x",  # Cityscapes
    "img_dir/train=train:- img_dir/val=val:- ann_dir/train=x ann_dir/val=x",  # MMSegmentation
]
UNSPLIT = [
    "cat=-:cat dog=-:dog",
    "archive/cat=-:cat archive/dog=-:dog",
    "train/cat=-:cat train/dog=-:dog",
    "train=-:-",
    "images/cat=-:cat images/dog=-:dog labels/cat=x labels/dog=x",
    "images=-:- masks=x",
    "VOC/JPEGImages=-:- VOC/SegmentationClass=x VOC/Annotations=x",
    "labeled/a=-:a labeled/b=-:b unlabeled=-:-",
    "a=-:a b=-:b unlabelled=-:-",
    "val/a=-:a val/b=-:b test/a=-:a",
    "fold1/a=-:a fold1/b=-:b fold2/a=-:a",
    "fold_0=-:- fold_1=-:- fold_2=-:-",
    "2023/rome=-:- 2024/05/12=-:-",
    "2023-05-01=-:- 2023-05-02=-:-",
    "DCIM/100CANON=-:- DCIM/101CANON=-:-",
    "train=-:train bus=-:bus",
    "train_station=-:train_station test_tube=-:test_tube apple=-:apple",
    "with_mask=-:with_mask without_mask=-:without_mask",
    "cat_train=-:cat_train cat_test=-:cat_test dog_train=-:dog_train",  # no dog to test on
    "cat=-:cat",
    "cat/2024/05=-:cat",
    "0=-:0 1=-:1 2=-:2",
    "part_1=-:part_1 part_2=-:part_2",
    ".=-:- cat=-:-",
]


@pytest.mark.parametrize("expected", SPLIT + UNSPLIT)
def test_folders_are_what_people_mean_by_them(expected: str) -> None:
    assert said(" ".join(one.partition("=")[0] for one in expected.split(" "))) == expected


@pytest.mark.parametrize(
    ("folders", "note"),
    [
        ("archive/Training/a archive/Testing/a", "passed through: archive/ (alone in its folder)"),
        ("Testing/a Training/a", "taken for the official split: Training/ (train), Testing/ (test)"),
        ("Testing/a Training/b", "taken for classes: a, b"),
        ("train bus", "looks like a split, but is taken for a class: train/"),
        ("train_station test_tube", "looks like a split, but is taken for a class: test_tube/"),
        ("images labels", "left out: labels/ (1 annotations beside the pictures)"),
        ("2023 2024", "taken for dates, not for classes: 2023/, 2024/ (--data.labels folders makes classes of them)"),
        ("fold1 fold2", "taken for folds, not for classes, and no official split: fold1/, fold2/"),
        ("train/a train/b test", "without class folders, so unlabelled: test/"),
        ("train/a valid/a unlabeled", "taken for unlabelled pictures to train on: unlabeled/"),
        (
            "raw/a raw/b cropped/a cropped/b",
            "each of cropped/, raw/ holds the same folders a, b; if those are the classes, name each of the former as "
            "DATA of its own",
        ),
        ("cat_train cat_test dog_train dog_test", "taken for classes: cat, dog"),
        ("train/a test/a docs", "beside the split and no part of it, so free for training: docs/"),
    ],
)
def test_what_was_taken_for_something_is_said(folders: str, note: str) -> None:
    assert note in layout(folders).notes


def test_plain_folders_need_few_words() -> None:
    assert layout("cat dog").notes == ["taken for classes: cat, dog"]
    assert layout(".").notes == []


def test_folders_that_are_told_to_be_classes_are() -> None:
    assert said("2023 2024", "folders") == "2023=-:2023 2024=-:2024"
    assert said("fold1 fold2", "folders") == "fold1=-:fold1 fold2=-:fold2"
    assert said("train/a test/a", "none") == "train/a=train:- test/a=test:-"


def test_folds_with_a_split_in_each_are_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"2 folds with train and test in each; give one of them, such as fold1/"):
        layout("fold1/train/a fold1/test/a fold2/train/a fold2/test/a")


def test_train_and_test_given_as_two_folders_are_the_official_split(tmp_path: Path) -> None:
    folder(tmp_path, ["train/a/1.png", "train/b/2.png", "test/a/3.png"])
    source = find(tmp_path / "train", tmp_path / "test")
    assert dict(zip(source.names, source.official, strict=True)) == {
        "train/a/1.png": "train",
        "train/b/2.png": "train",
        "test/a/3.png": "test",
    }
    assert source.classes == ["a", "b"]


def test_junk_of_operating_systems_is_no_class(tmp_path: Path) -> None:
    folder(tmp_path, ["cat/a.png", "dog/b.png", "__MACOSX/cat/c.png", "@eaDir/d.png", ".Trash/e.png", "cat/._a.png"])
    for name in ("cat/.DS_Store", "Thumbs.db", "dog/desktop.ini"):
        (tmp_path / name).write_bytes(b"x")
    source = find(tmp_path)
    assert source.names == ["cat/a.png", "dog/b.png"]
    assert source.others == {".db": 1, ".ini": 1}


@pytest.mark.parametrize("inside", [[], ["notes.txt"], ["a/notes.txt", "b/notes.txt"]])
def test_a_folder_without_pictures_is_taken_for_nothing(inside: list[str], tmp_path: Path) -> None:
    for name in inside:
        put(tmp_path / "d" / name, b"milk")
    (tmp_path / "d").mkdir(exist_ok=True)
    with pytest.raises(InputError, match="holds no pictures") as refused:
        find(tmp_path / "d")
    assert "taken for" not in str(refused.value)


def test_folders_beside_pictures_are_no_classes_and_said_to_be_none() -> None:
    (said_of_them,) = layout(". Apple Pear").notes
    assert said_of_them.startswith(
        "not taken for classes, for pictures lie beside them: Apple/, Pear/ (--data.labels folders"
    )
    assert layout(". more").notes == []
    assert layout(". Apple Pear", "folders").notes == ["taken for classes: Apple, Pear"]
