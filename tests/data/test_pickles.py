"""CIFAR's pickles are read, and nothing in them runs."""

import contextlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.data import pickles
from headstart.records.errors import InputError
from tests.data.pictures import cifar_rows, put


def test_a_pickle_as_python_2_wrote_it_is_read(tmp_path: Path) -> None:
    """Byte strings, and an array whose bytes are a str: the opcodes of the published files, written by hand."""
    raw = cifar_rows(2, 0)
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR(K\x01(K\x02M\x00\x0ct"
        b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89T" + len(raw.tobytes()).to_bytes(4, "little") + raw.tobytes() + b"tb"
    )
    path = put(tmp_path / "batch", b"\x80\x02}(U\x04data" + array + b"U\x06labels](K\x05K\x07eu.")
    content = pickles.read_pickle(path)
    assert np.array_equal(content["data"], raw)
    assert content["labels"] == [5, 7]


class _Evil:
    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
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
def test_a_pickle_that_asks_for_anything_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, payload: object
) -> None:
    monkeypatch.chdir(tmp_path)
    for protocol in (0, 2, 4, 5):
        path = put(tmp_path / "data_batch_1", pickle.dumps(payload, protocol))
        with pytest.raises(InputError, match="refused"):
            pickles.read_pickle(path)
    assert not (tmp_path / "OWNED").exists()


def test_a_pickle_cannot_change_what_it_may_call(tmp_path: Path) -> None:
    path = put(tmp_path / "x", b"\x80\x02c_codecs\nencode\n}X\x09\x00\x00\x00_functionK\x01sb.")
    with pytest.raises(InputError, match="refused"):
        pickles.read_pickle(path)
    assert pickles._ALLOWED["_codecs", "encode"]("a") == b"a"


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
def test_a_damaged_pickle_is_bad_input(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InputError, match=r"damaged or no CIFAR file|refused") as caught:
        pickles.read_pickle(put(tmp_path / "x", data))
    assert str(tmp_path) in str(caught.value)


@given(st.binary(max_size=60))
def test_no_bytes_do_more_than_fail(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = put(tmp_path_factory.mktemp("p") / "x", b"\x80\x02" + data)
    with contextlib.suppress(InputError):
        assert isinstance(pickles.read_pickle(path), dict)
