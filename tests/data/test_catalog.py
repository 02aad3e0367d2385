"""What DATA names mean: folders, lists, label files and the named sets, in the exact files people have."""

import contextlib
import io
import os
import pickle
import tarfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.data import catalog, check, open_images
from headstart.records.config import DataConfig
from headstart.records.errors import InputError
from tests.data.pictures import encoded, folder, pixels, put


def find(*sources, **data):
    return catalog.find(DataConfig(sources=tuple(str(s) for s in sources), **data))


def labelled(source):
    return {
        name: (source.classes[label] if label >= 0 else None)
        for name, label in zip(source.names, source.labels, strict=True)
    }


# ---------------------------------------------------------------------------------------------------------- folders


def test_first_level_folders_are_classes_at_any_depth(tmp_path):
    source = find(folder(tmp_path, ["dog/a.png", "cat/2024/05/b.png", "cat/c.PNG"]))
    assert labelled(source) == {"cat/2024/05/b.png": "cat", "cat/c.PNG": "cat", "dog/a.png": "dog"}
    assert source.classes == ["cat", "dog"]
    assert set(source.official) == {""}


def test_pictures_at_the_top_mean_no_classes_unless_asked(tmp_path):
    root = folder(tmp_path, ["2023/a.png", "2024/b.png", "top.png"])
    assert labelled(find(root)) == {"2023/a.png": None, "2024/b.png": None, "top.png": None}
    assert labelled(find(root, labels="folders")) == {"2023/a.png": "2023", "2024/b.png": "2024", "top.png": None}


def test_date_folders_are_no_classes_when_told_so(tmp_path):
    assert find(folder(tmp_path, ["2023/a.png", "2024/b.png"]), labels="none").classes == []


@pytest.mark.parametrize("last", ["val", "test", "Validation"])
def test_split_folders_are_the_official_split(tmp_path, last):
    source = find(folder(tmp_path, ["train/cat/a.png", "train/dog/b.png", f"{last}/cat/c.png"]))
    assert dict(zip(source.names, source.official, strict=True)) == {
        "train/cat/a.png": "train",
        "train/dog/b.png": "train",
        f"{last}/cat/c.png": "test" if last == "test" else "val",
    }
    assert source.classes == ["cat", "dog"]


def test_a_stray_picture_beside_train_and_test_changes_nothing_else(tmp_path):
    source = find(folder(tmp_path, ["train/cat/a.png", "test/cat/b.png", "preview.png"]))
    assert labelled(source)["train/cat/a.png"] == "cat"
    assert labelled(source)["preview.png"] is None


def test_a_class_called_train_is_a_class(tmp_path):
    source = find(folder(tmp_path, ["train/a.png", "bus/b.png"]))
    assert source.classes == ["bus", "train"]
    assert set(source.official) == {""}


def test_hidden_files_other_files_and_resource_forks_are_not_pictures(tmp_path):
    folder(tmp_path, ["a/x.png", ".hidden/y.png", "__MACOSX/z.png"])
    put(tmp_path / "a" / "._x.png", b"fork")
    put(tmp_path / "a" / "notes.txt", b"")
    assert find(tmp_path).names == ["a/x.png"]


def test_any_name_works(tmp_path):
    strange = ["a b/ü 漢字.png", "a b/=cmd.png", "a b/new\nline.png", "a b/%s{x}.png"]
    names = find(folder(tmp_path, strange)).names
    assert sorted(strange) == names
    bad = os.fsencode(tmp_path) + b"/a b/\xff\xfe.png"
    Path(os.fsdecode(bad)).write_bytes((tmp_path / strange[0]).read_bytes())
    images = open_images(DataConfig(sources=(str(tmp_path),)))
    assert "a b/\\xff\\xfe.png" in images.names
    "".join(images.names).encode()


def test_links_are_followed_once_and_loops_end(tmp_path):
    root = folder(tmp_path / "root", ["cat/a.png"])
    outside = folder(tmp_path / "outside", ["b.png"])
    (root / "dog").symlink_to(outside)
    (root / "cat" / "loop").symlink_to(root)
    (root / "also-cat").symlink_to(root / "cat")
    (root / "cat" / "nowhere.png").symlink_to(tmp_path / "gone")
    assert find(root).names == ["cat/a.png", "cat/nowhere.png", "dog/b.png"]


@given(st.permutations(["b/1.png", "a/2.png", "c/0.png", "a/1.png"]))
def test_order_follows_names_alone(order):
    made = catalog._make("x", [catalog.Entry(n, n, n[0]) for n in order])
    assert made.names == ["a/1.png", "a/2.png", "b/1.png", "c/0.png"]
    assert made.labels.tolist() == [0, 0, 1, 2]


def test_several_folders_are_told_apart(tmp_path):
    one, two = folder(tmp_path / "x/photos", ["a.png"]), folder(tmp_path / "y/photos", ["a.png"])
    assert find(one, two).names == ["photos-2/a.png", "photos/a.png"]


def test_what_is_not_there_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    put(tmp_path / "x.zip", b"")
    for sources, words in [
        ((), "no DATA"),
        (("nowhere",), "no folder, list or named set nowhere; named sets are digits, cifar10"),
        ((tmp_path / "empty",), "holds no pictures"),
        ((tmp_path / "x.zip",), "unpack"),
        (("cifar10",), "cifar10:ROOT"),
        (("digits:/x",), "write digits"),
        (("digits", tmp_path), "only DATA"),
    ]:
        with pytest.raises(InputError, match=words):
            find(*sources)


# ---------------------------------------------------------------------------------------------------- lists, labels


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("l.txt", "# a comment\nb.png\n\na.png\n", {"a.png": None, "b.png": None}),
        ("l.csv", "path,label\nb.png,dog\na.png,\n", {"a.png": None, "b.png": "dog"}),
        ("l.csv", "b.png,dog\na.png,cat\n", {"a.png": "cat", "b.png": "dog"}),
        ("l.csv", "\ufeffid;class;file\n1;dog;b.png\n2;cat;a.png\n", {"a.png": "cat", "b.png": "dog"}),
        ("l.tsv", "image\tcategory\nb.png\tbig dog\n", {"b.png": "big dog"}),
        ("l.csv", 'path,label\n"b.png","a, b"\n', {"b.png": "a, b"}),
    ],
)
def test_lists(tmp_path, name, text, expected):
    folder(tmp_path, ["a.png", "b.png"])
    put(tmp_path / name, text.encode())
    assert labelled(find(tmp_path / name)) == expected


def test_a_list_can_name_the_split_and_absolute_paths(tmp_path):
    folder(tmp_path / "p", ["a.png", "b.png"])
    put(tmp_path / "l.csv", f"path,label,split\n{tmp_path}/p/a.png,x,train\np/b.png,y,test\n".encode())
    source = find(tmp_path / "l.csv")
    assert sorted(source.official) == ["test", "train"]


def test_missing_pictures_of_a_list_are_set_aside(tmp_path):
    folder(tmp_path, ["a.png"])
    put(tmp_path / "l.txt", b"a.png\ngone.png\n")
    assert find(tmp_path / "l.txt").skipped == [("gone.png", "no such file")]
    images = open_images(DataConfig(sources=(str(tmp_path / "l.txt"),)))
    assert (images.names, images.skipped) == (["a.png"], [("gone.png", "no such file")])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "empty"),
        (b"path,label\n,x\n", "row 2"),
        (b"path,label\na.png,x\na.png,y\n", "row 3 lists a.png again"),
        (b"path,split\na.png,holdout\n", "row 2 has the split 'holdout'"),
        (b"gone.png\n", "none of the 1"),
        (b"\xff\xfe\n", "UTF-8"),
        (b'"a.png\n', "not a CSV table"),
    ],
)
def test_bad_lists_are_named_by_row(tmp_path, text, words):
    folder(tmp_path, ["a.png"])
    put(tmp_path / "l.csv", text)
    with pytest.raises(InputError, match=words):
        find(tmp_path / "l.csv")


def test_a_label_file_gives_some_labels(tmp_path):
    name = unicodedata.normalize("NFD", "café.png")
    folder(tmp_path / "p", ["a.png", "x/b.png", "x/c.png", name])
    put(tmp_path / "labels.csv", "name,label\na.png,cat\nb.png,dog\ncafé.png,cat\nelsewhere.png,dog\n".encode())
    source = find(tmp_path / "p", labels=str(tmp_path / "labels.csv"))
    assert labelled(source) == {"a.png": "cat", "x/b.png": "dog", "x/c.png": None, name: "cat"}


def test_bad_label_files_are_named(tmp_path):
    folder(tmp_path / "p", ["a.png"])
    put(tmp_path / "names.csv", b"name\na.png\n")
    put(tmp_path / "others.csv", b"name,label\nz.png,cat\n")
    for labels, words in [
        ("nope.csv", "auto, folders, none"),
        ("names.csv", "no label"),
        ("others.csv", "none of the 1"),
    ]:
        with pytest.raises(InputError, match=words):
            find(tmp_path / "p", labels=str(tmp_path / labels))


# ------------------------------------------------------------------------------------------------------ named sets


def test_digits():
    images = open_images(DataConfig(sources=("digits",)))
    assert (len(images), images.size, len(images.classes)) == (1797, 32, 10)
    assert images.names[0] == "digits/00001.png"
    frame = images.batch([0])[0][0].numpy()
    from sklearn.datasets import load_digits

    grey = load_digits().images[0]
    assert np.array_equal(frame[0, ::4, ::4], np.rint(grey * 255 / 16))
    assert np.array_equal(frame[0], frame[2])


def cifar_rows(n, seed):
    return np.random.default_rng(seed).integers(0, 256, (n, 3072), dtype=np.uint8)


def write_cifar10(root, protocol, per_batch=3):
    folder = root / "cifar-10-batches-py"
    for i, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        content = {
            "batch_label": name,
            "labels": [(i + k) % 10 for k in range(per_batch)],
            "data": cifar_rows(per_batch, i),
        }
        content["filenames"] = [f"{name}_{k}.png" for k in range(per_batch)]
        if protocol == 2:  # as Python 2 wrote them
            content = {key.encode(): value for key, value in content.items()}
        put(folder / name, pickle.dumps(content, protocol))
    put(folder / "batches.meta", pickle.dumps({"label_names": [f"class {i}" for i in range(10)]}, protocol))
    return root


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_cifar10_in_its_python_files(tmp_path, protocol):
    write_cifar10(tmp_path, protocol)
    for root in (tmp_path, tmp_path / "cifar-10-batches-py"):
        images = open_images(DataConfig(sources=(f"cifar10:{root}",)))
        assert len(images) == 18
        assert images.classes == [f"class {i}" for i in range(10)]
        assert images.official.tolist() == ["train"] * 15 + ["test"] * 3
        assert np.array_equal(images.batch([4])[0][0].numpy().ravel(), cifar_rows(3, 1)[1])
        assert images.labels[4] == 2


def test_a_pickle_as_python_2_wrote_it_is_read(tmp_path):
    """Byte strings, and an array whose bytes are a str: the opcodes of the published files, written by hand."""
    raw = cifar_rows(2, 0)
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR(K\x01(K\x02M\x00\x0ct"
        b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89T" + len(raw.tobytes()).to_bytes(4, "little") + raw.tobytes() + b"tb"
    )
    path = put(tmp_path / "batch", b"\x80\x02}(U\x04data" + array + b"U\x06labels](K\x05K\x07eu.")
    content = catalog.read_pickle(path)
    assert np.array_equal(content["data"], raw)
    assert content["labels"] == [5, 7]


class _Evil:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "payload",
    [
        _Evil(os.system, "touch OWNED"),
        _Evil(eval, "open('OWNED', 'w')"),
        _Evil(getattr, "x", "join"),
        _Evil(np.load, "x", None, True),
        {"data": np.array([1, "x"], dtype=object)},
        {"data": np.zeros((1, 3072), np.float64)},
        Path("x"),
        np.random.default_rng(0),
    ],
    ids=lambda p: type(p).__name__,
)
def test_a_pickle_that_asks_for_anything_else_is_refused(tmp_path, monkeypatch, payload):
    monkeypatch.chdir(tmp_path)
    for protocol in (0, 2, 4, 5):
        path = put(tmp_path / "data_batch_1", pickle.dumps(payload, protocol))
        with pytest.raises(InputError, match="refused"):
            catalog.read_pickle(path)
    assert not (tmp_path / "OWNED").exists()


def test_a_pickle_cannot_change_what_it_may_call(tmp_path):
    path = put(tmp_path / "x", b"\x80\x02c_codecs\nencode\n}X\x09\x00\x00\x00_functionK\x01sb.")
    with pytest.raises(InputError, match="refused"):
        catalog.read_pickle(path)
    assert catalog._ALLOWED["_codecs", "encode"]("a") == b"a"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x02}.garbage"[:3],
        b"\x80\x02]\x71\xff.",
        b"\x80\x02]r\xff\xff\xff\x7f.",  # a memo index of two billion
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # bytes of a length that is not there
        b"\x80\x02K\x01.",
    ],
)
def test_a_damaged_pickle_is_bad_input(tmp_path, data):
    with pytest.raises(InputError, match=r"damaged or no CIFAR file|refused") as caught:
        catalog.read_pickle(put(tmp_path / "x", data))
    assert str(tmp_path) in str(caught.value)


@given(st.binary(max_size=60))
def test_no_bytes_do_more_than_fail(tmp_path_factory, data):
    path = put(tmp_path_factory.mktemp("p") / "x", b"\x80\x02" + data)
    with contextlib.suppress(InputError):
        assert isinstance(catalog.read_pickle(path), dict)


def test_cifar_files_that_disagree_are_named(tmp_path):
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


def test_cifar100_has_its_fine_labels(tmp_path):
    root = tmp_path / "cifar-100-python"
    for split, n in (("train", 4), ("test", 2)):
        content = {"data": cifar_rows(n, n), "fine_labels": [99 - i for i in range(n)], "coarse_labels": [0] * n}
        put(root / split, pickle.dumps(content, 2))
    put(root / "meta", pickle.dumps({"fine_label_names": [f"f{i}" for i in range(100)], "coarse_label_names": []}, 2))
    source = find(f"cifar100:{tmp_path}")
    assert source.labels.tolist() == [99, 98, 97, 96, 99, 98]
    assert source.names[-1] == "test/00002.png"


def test_stl10_binary_with_and_without_its_unlabelled_part(tmp_path):
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
def test_imagenette_of_every_size(tmp_path, name):
    for i, split in enumerate(("train", "val")):
        put(tmp_path / name / split / "n01440764" / f"n01440764_{i}.JPEG", encoded(pixels(30, 40, i), "jpeg"))
        put(tmp_path / name / split / "n03888257" / f"n03888257_{i}.JPEG", encoded(pixels(30, 40, i + 5), "jpeg"))
    for root in (tmp_path, tmp_path / name):
        source = find(f"imagenette:{root}")
        assert source.classes == ["parachute", "tench"]
        assert source.official.tolist() == ["train", "train", "val", "val"]


def test_aircraft_loses_its_banner(tmp_path):
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
def test_missing_files_say_which_where_and_how_to_get_them(tmp_path, name, looked_for):
    with pytest.raises(InputError) as caught:
        find(f"{name}:{tmp_path}")
    message = str(caught.value)
    assert str(tmp_path / looked_for) in message
    assert "--data.download" in message
    assert "http" in message


def test_download_fetches_and_unpacks_what_is_missing(tmp_path, monkeypatch):
    """The archive comes from a stand-in for the network; its md5 goes to torchvision, the unpacking is ours."""
    made = write_cifar10(tmp_path / "made", 2)

    def fetch(url, root, filename, md5):
        assert url.endswith("cifar-10-python.tar.gz")
        assert len(md5) == 32
        Path(root).mkdir(parents=True, exist_ok=True)
        with tarfile.open(Path(root, filename), "w:gz") as tar:
            tar.add(made / "cifar-10-batches-py", "cifar-10-batches-py")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", fetch)
    assert len(find(f"cifar10:{tmp_path}/there", download=True).names) == 18

    def fail(url, root, filename, md5):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", fail)
    with pytest.raises(InputError, match=r"no network.*by hand"):
        find(f"cifar10:{tmp_path}/elsewhere", download=True)


@pytest.mark.parametrize("member", ["../outside.txt", "/tmp/headstart-outside.txt", "link"])
def test_an_archive_cannot_write_outside_its_folder(tmp_path, member):
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        info = tarfile.TarInfo(member)
        if member == "link":
            info.type, info.linkname = tarfile.SYMTYPE, "../../etc"
            tar.addfile(info)
        else:
            info.size = 4
            tar.addfile(info, io.BytesIO(b"evil"))
    with contextlib.suppress(InputError):  # an absolute name is made relative; the others are refused
        catalog.unpack(tmp_path / "evil.tar", tmp_path / "in")
    assert not (tmp_path / "outside.txt").exists()
    assert not Path("/tmp/headstart-outside.txt").exists()
    assert not (tmp_path / "in" / "link").is_symlink()


def test_check_compares_published_checksums_but_reading_does_not(tmp_path):
    write_cifar10(tmp_path, 2)
    report = check.run(DataConfig(sources=(f"cifar10:{tmp_path}",)))
    assert len(report.altered) == 7
    assert report.readable == 18


def test_picture_files_keep_their_order_and_names(tmp_path):
    root = folder(tmp_path, ["x/a.png", "y/b.png", "z/a.png"])
    files = [root / "y/b.png", root / "z/a.png", root / "x/a.png"]
    assert find(*files).names == ["b.png", "a.png", "2/a.png"]
    assert find(*files, root / "x").names == ["2/a.png", "a.png", "b.png", "x/a.png"]
