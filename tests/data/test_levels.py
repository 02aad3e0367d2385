"""Pictures of 12 and 16 bits and of floats: which samples become black and white, alike wherever pictures are read."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from headstart.cli.commands import main
from headstart.data import check, open_images
from headstart.data.decode import UnreadableError, to_rgb
from headstart.data.levels import LevelsError, eight_bits
from headstart.records import config as configs
from headstart.records.config import DataConfig
from headstart.records.errors import InputError
from headstart.use.load import load
from tests.data.pictures import encoded, put

TWELVE_BITS = np.arange(4096, dtype=np.uint16).reshape(64, 64)
GREY = np.rint(TWELVE_BITS / 4095 * 255).astype(np.uint8)


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_twelve_bits_in_sixteen_use_the_whole_of_eight(kind: str) -> None:
    seen = to_rgb(encoded(TWELVE_BITS, kind), (0, 4095))
    assert np.array_equal(seen, np.repeat(GREY[..., None], 3, axis=2))
    assert to_rgb(encoded(TWELVE_BITS, kind)).max() == 16


def test_what_lies_beyond_is_clipped() -> None:
    values = np.array([[0, 100, 181, 200, 65535]], np.uint16)
    assert to_rgb(encoded(values, "png"), (100, 200))[0, :, 0].tolist() == [0, 0, 207, 255, 255]


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_floats_and_negative_numbers_have_a_range(dtype: type) -> None:
    """Hounsfield units, say."""
    values: np.ndarray = np.linspace(-1024, 3071, 64 * 64).reshape(64, 64).astype(dtype)
    file = encoded(values, "tiff")
    with pytest.raises(UnreadableError, match=r"-1024 to 3071; expected .* or a --data\.range"):
        to_rgb(file)
    seen = to_rgb(file, (-1024, 3071))[..., 1]
    assert np.abs(seen - (values.astype(float) + 1024) / 4095 * 255).max() <= 0.5
    assert np.array_equal(to_rgb(file, "percentile")[..., 0], to_rgb(encoded(values * 3, "tiff"), "percentile")[..., 0])


def unsigned_tiff(values: np.ndarray) -> bytes:
    """A TIFF of one strip of 32-bit unsigned samples, which Pillow reads and does not write."""
    height, width = values.shape
    tags = [(256, 4, width), (257, 4, height), (258, 3, 32), (259, 3, 1), (262, 3, 1), (273, 4, 134), (277, 3, 1)]
    tags += [(278, 4, height), (279, 4, values.nbytes), (339, 3, 1)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + values.astype("<u4").tobytes()


@pytest.mark.parametrize("top", [3_932_100_000, 2**31, 2**32 - 1])
def test_unsigned_32_bits_are_not_negative(tmp_path: Path, top: int) -> None:
    values = np.linspace(0, top, 40 * 60).reshape(40, 60).round().astype(np.uint32)
    file = unsigned_tiff(values)
    with pytest.raises(UnreadableError, match=rf"^pixels from 0 to {top}; expected 0 to 65535, or a --data\.range"):
        to_rgb(file)
    seen = to_rgb(file, (0, top))[..., 0]
    assert np.abs(seen - values / top * 255).max() <= 0.5
    assert np.array_equal(to_rgb(unsigned_tiff(values // 2**16)), to_rgb(encoded(values // 2**16, "tiff")))
    (tmp_path / "u.tif").write_bytes(file)
    report = check.run(DataConfig(sources=(str(tmp_path),), range=(0, top / 2)))
    assert any(f"all lie from 0 to {top:g}" in doubt for doubt in report.doubts)


def test_percentiles_are_each_pictures_own() -> None:
    draws = np.random.default_rng(0).normal(3000, 200, (64, 64))
    draws[0, :3] = 65535  # a hot pixel or three decide nothing
    values = draws.clip(0, 65535).astype(np.uint16)
    seen = to_rgb(encoded(values, "png"), "percentile")[..., 0]
    low, high = np.percentile(values, (0.5, 99.5))
    assert np.abs(seen - ((values - low) / (high - low) * 255).clip(0, 255)).max() <= 0.5
    flat = np.full((8, 8), 700, np.uint16)
    assert not to_rgb(encoded(flat, "tiff"), "percentile").any()
    flat[0, 0] = 900  # nearly all samples are equal: the extremes
    assert to_rgb(encoded(flat, "tiff"), "percentile")[0, 0].tolist() == [255] * 3


def test_colour_of_sixteen_bits_has_one_range_for_all_channels() -> None:
    from tests.data.test_decode import png16

    colour = np.stack([TWELVE_BITS, TWELVE_BITS // 2, TWELVE_BITS.T], axis=2)
    assert np.array_equal(to_rgb(png16(colour, 2), (0, 4095)), np.rint(colour / 4095 * 255).astype(np.uint8))
    seen = to_rgb(png16(colour, 2), "percentile")
    assert seen[..., 1].max() < 140 < seen[..., 0].max()


def test_eight_bits_stay_as_they_are() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for levels in ("percentile", (0.0, 4095.0)):
        assert np.array_equal(to_rgb(encoded(grey, "png"), levels)[..., 0], grey)


def test_numbers_that_are_none_are_refused() -> None:
    for levels in ("auto", "percentile", (0.0, 1.0)):
        with pytest.raises(LevelsError, match="finite"):
            eight_bits(np.array([[0.0, np.nan]], np.float32), levels)


def tiff_of(channels: int, extra: int) -> bytes:
    """A whole 8 x 8 RGB TIFF with channels beside its three, of which `extra` says what they are (0: nothing)."""
    beside = channels - 3
    tags = [(256, 8), (257, 8), (259, 1), (262, 2), (277, channels), (278, 8)]
    count = len(tags) + 4
    after = 8 + 2 + 12 * count + 4
    entries = [struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags]
    entries.append(struct.pack("<HHII", 258, 3, channels, after))
    entries.append(struct.pack("<HHII", 273, 4, 1, after + 2 * channels))
    entries.append(struct.pack("<HHII", 279, 4, 1, 64 * channels))
    entries.append(struct.pack("<HHIHH", 338, 3, beside, extra, 0))
    entries.sort(key=lambda entry: struct.unpack_from("<H", entry))
    head = b"II" + struct.pack("<HI", 42, 8) + struct.pack("<H", count) + b"".join(entries) + bytes(4)
    return head + struct.pack(f"<{channels}H", *[8] * channels) + bytes(range(64)) * channels


def test_more_channels_than_colour_and_transparency_are_refused() -> None:
    assert to_rgb(tiff_of(4, 2)).shape == (8, 8, 3)
    for channels in (4, 5):
        with pytest.raises(UnreadableError, match=f"^{channels} channels that are not colour and transparency"):
            to_rgb(tiff_of(channels, 0))


# ------------------------------------------------------------------------------------------------------------ settings


def test_a_range_at_its_default_changes_no_hash() -> None:
    plain, given = configs.Config(), configs.from_dict({"data": {"range": [0, 4095]}})
    assert not configs.decides("data.range", plain.data.range)
    assert configs.hash_of(given, "x") != configs.hash_of(plain, "x")
    assert configs.from_dict(configs.to_dict(given)) == given


@pytest.mark.parametrize("wrong", [[5, 5], [10, 2], "wide", [1], [0, float("nan")], ["a", 3], [True, 3]])
def test_a_wrong_range_is_one_sentence(wrong: Any) -> None:
    with pytest.raises(InputError, match=r"^config: data\.range.* is .*; it must be ") as refusal:
        configs.from_dict({"data": {"range": wrong}})
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("typed", "words"), [("4095 0", "MIN below MAX"), ("7 7", "MIN below MAX"), ("dark", "range")])
def test_a_wrong_range_ends_with_2(typed: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["pretrain", "digits", "--out", str(tmp_path / "run"), "--data.range", *typed.split()])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------------------------------------------------- sources


def write(root: Path, bits: int, count: int = 24) -> Path:
    """Two classes of noise on a bright or a dark ground, in files of 8 bits or of 12 bits in 16."""
    draws = np.random.default_rng(0)
    for i in range(count):
        values = draws.integers(0, 4096, (32, 32)) // 2 + (i % 2) * 2047
        shown = values.astype(np.uint16) if bits == 12 else np.rint(values / 4095 * 255).astype(np.uint8)
        put(root / "ab"[i % 2] / f"{i:02d}.png", encoded(shown, "png"))
    return root


def opened(root: Path, **data: Any) -> Any:
    return open_images(DataConfig(sources=(str(root),), **data))


def test_a_set_is_the_same_whether_scaled_here_or_before(tmp_path: Path) -> None:
    wide, narrow = write(tmp_path / "wide", 12), write(tmp_path / "narrow", 8)
    scaled, before = opened(wide, range=(0, 4095)), opened(narrow)
    assert np.array_equal(scaled.squashed(range(24), 32), before.squashed(range(24), 32))
    assert opened(wide).squashed(range(24), 32).max() == 16  # and no cache of the one stands for the other
    assert np.array_equal(scaled.squashed(range(24), 32), opened(wide, range=(0, 4095)).squashed(range(24), 32))
    assert not np.array_equal(opened(wide, range="percentile").squashed(range(24), 32), before.squashed(range(24), 32))


def test_twelve_bits_are_spoken_of_however_bright(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, top in (("dim", 400), ("bright", 4095)):
        for i in range(3):
            values = np.full((16, 16), top, np.uint16)
            values[i] = 0
            put(tmp_path / name / f"{i}.png", encoded(values, "png"))
        opened(tmp_path / name)
        assert "nearly black" in (said := capsys.readouterr().err)
        assert "--data.range 0 4095" in said


def test_a_range_that_no_picture_lies_in_is_refused(tmp_path: Path) -> None:
    wide = write(tmp_path, 12)
    with pytest.raises(InputError, match=r"under --data\.range 5000 9000 every pixel of every picture is black"):
        opened(wide, range=(5000, 9000))
    with pytest.raises(InputError, match=r"every picture is white"):
        opened(wide, range=(-9, -5))


def test_check_names_the_values_of_floats(tmp_path: Path) -> None:
    for i in range(3):
        values = np.linspace(0, 300 + i, 64, dtype=np.float32).reshape(8, 8)
        put(tmp_path / f"{i}.tif", encoded(values, "tiff"))
    report = check.run(DataConfig(sources=(str(tmp_path),)))
    assert "floating-point pixels from 0 to 300; expected 0 to 1, or a --data.range" in report.unreadable[0][1]
    report = check.run(DataConfig(sources=(str(tmp_path),), range=(0, 301)))
    assert not report.unreadable
    assert any("1 of 3 pictures of more than 8 bits hold values beyond --data.range 0 301" in d for d in report.doubts)
    assert any("all lie from 0 to 302" in doubt for doubt in report.doubts)


# ----------------------------------------------------------------------------------------------------------- every use


def go(command: str, code: int = 0) -> None:
    with pytest.raises(SystemExit) as ended:
        main(command.split())
    assert int(ended.value.code or 0) == code


def test_a_run_reads_alike_in_every_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Trained on 12 bits, it embeds, classifies and is exported with the same range, and refuses another."""
    wide, narrow = write(tmp_path / "wide", 12), write(tmp_path / "narrow", 8)
    run, small = tmp_path / "run", "--threads 1 --device cpu"
    go(
        f"pretrain {wide} --out {run} --data.range 0 4095 --backbone.name mobilenet_v3_small --head.init random "
        f"--head.no-frozen --contrastive.epochs 1 --contrastive.batch-size 8 --probe.names knn "
        f"--precision float32 {small}"
    )
    assert "range:\n  - 0.0\n  - 4095.0" in (run / "config.yaml").read_text()
    trained = load(run)
    for name, images in (("wide", wide), ("narrow", narrow)):
        go(f"embed {run} {images} --out {tmp_path / name}.npz {small}")
    embedded = {name: dict(np.load(tmp_path / f"{name}.npz"))["embeddings"] for name in ("wide", "narrow")}
    np.testing.assert_array_equal(embedded["wide"], embedded["narrow"])
    one = Image.open(wide / "a" / "00.png", formats=["PNG"])  # as the library is given one
    np.testing.assert_allclose(trained.embed(one), embedded["wide"][:1], atol=1e-5)
    go(f"evaluate {run} --name again {small}")
    assert json.loads((run / "evaluations" / "again.json").read_text())["backbones"]["trained"]["probes"]
    go(f"search {tmp_path / 'wide.npz'} --query {wide / 'a' / '00.png'} --out {tmp_path / 's.png'} {small}")
    go(f"finetune {run} --out {tmp_path / 'c'} --epochs 1 --lr 0.001 --layer-decay 1 --no-compare {small}")
    go(f"predict {tmp_path / 'c'} {wide} --out {tmp_path / 'p.csv'} {small}")
    go(f"predict {tmp_path / 'c'} {narrow} --out {tmp_path / 'q.csv'} {small}")
    assert (tmp_path / "p.csv").read_text() == (tmp_path / "q.csv").read_text()
    go(f"export {run} --format torchvision --out {tmp_path / 'b.safetensors'} {small}")
    for file in (tmp_path / "b.safetensors", run / "backbone.safetensors"):
        with safe_open(file, "np") as weights:
            assert weights.metadata()["range"] == "0 4095"
    assert "more than 8 bits: 0 4095 became black and white" in (run / "MODEL_CARD.md").read_text()
    capsys.readouterr()
    for command in (f"embed {run} {wide} --out {tmp_path / 'x.npz'}", f"predict {tmp_path / 'c'} {wide} --out x.csv"):
        go(f"{command} --data.range percentile {small}", 2)
        assert "--data.range is percentile, but the run has 0 4095; leave it out" in capsys.readouterr().err
