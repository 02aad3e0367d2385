"""Files of arrays from elsewhere: read without running anything, and refused in words that say what they are."""

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from headstart.records.arrays import arrays

GOOD = {"train": np.arange(500), "val": np.arange(3)}


def packed(path: Path, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)


def cut(path: Path) -> None:
    np.savez(path, **GOOD)  # type: ignore[arg-type]
    path.write_bytes(path.read_bytes()[:-100])


def flipped(path: Path) -> None:
    np.savez(path, **GOOD)  # type: ignore[arg-type]
    content = bytearray(path.read_bytes())
    content[content.index(b"\x93NUMPY") + 1000] ^= 1
    path.write_bytes(content)


def endless(path: Path) -> None:
    header = io.BytesIO()
    shape = {"descr": "<i8", "fortran_order": False, "shape": (1 << 50,)}
    np.lib.format.write_array_header_1_0(header, shape)
    packed(path, train=header.getvalue())


def single(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.arange(3))


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (Path.touch, "it is empty"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps(GOOD)), "a pickle: Python objects, which are not loaded"),
    "text": (lambda path: path.write_text("train: 1 2 3"), "no file of arrays"),
    "cut": (cut, "cut short or its bytes were altered"),
    "flipped": (flipped, "cut short or its bytes were altered"),
    "single": (single, r"a single array \(\.npy\)"),
    "objects": (
        lambda path: np.savez(path, train=np.array([{}], object)),
        "holds Python objects, which are not loaded",
    ),
    "without": (lambda path: np.savez(path, val=np.arange(3)), "it has no train"),
    "endless": (endless, "more values than fit"),
    "pickled member": (lambda path: packed(path, train=pickle.dumps([1])), "what is no array"),
    "bad header": (lambda path: packed(path, train=b"\x93NUMPY\x01\x00d\x00" + b"(" * 100), "what is no array"),
    "folder": (Path.mkdir, "directory"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_archive_of_arrays_is_said_in_words(kind: str, tmp_path: Path) -> None:
    make, words = BAD[kind]
    make(tmp_path / "x.npz")
    with pytest.raises(ValueError, match=words) as refused, arrays(tmp_path / "x.npz") as found:
        assert found["train"].shape
    assert "allow_pickle" not in str(refused.value)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **GOOD)  # type: ignore[arg-type]
    with arrays(tmp_path / "x.npz") as found:
        np.testing.assert_array_equal(found["train"], GOOD["train"])
    with pytest.raises(FileNotFoundError), arrays(tmp_path / "nowhere.npz"):
        pass
