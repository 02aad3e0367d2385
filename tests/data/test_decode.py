"""Every format, mode and accident becomes correct RGB or a reason."""

import errno
import io
import os
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

import headstart
from headstart.data import check, decode
from headstart.data.decode import NotNowError, UnreadableError, read_picture, to_rgb
from headstart.data.levels import eight_bits
from headstart.records.config import DataConfig
from tests.data.pictures import encoded, pixels, put

PICTURE = pixels(24, 36)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("png", {}), ("bmp", {}), ("tiff", {}), ("tiff", {"compression": "tiff_lzw"}), ("webp", {"lossless": True})],
)
def test_lossless_formats_come_back_exactly(kind: str, options: dict[str, Any]) -> None:
    assert np.array_equal(to_rgb(encoded(PICTURE, kind, **options)), PICTURE)


@pytest.mark.parametrize(
    ("kind", "options"), [("jpeg", {"quality": 95}), ("webp", {"quality": 95}), ("avif", {"quality": 95})]
)
def test_lossy_formats_come_back_closely(kind: str, options: dict[str, Any]) -> None:
    if kind == "avif" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    decoded = to_rgb(encoded(PICTURE, kind, **options))
    assert decoded.shape == PICTURE.shape
    assert np.abs(decoded.astype(int) - PICTURE).mean() < 8


def test_heic_is_read_with_the_extra() -> None:
    pytest.importorskip("pillow_heif")
    decoded = to_rgb(encoded(pixels(64, 96), "heif", quality=95))
    assert np.abs(decoded.astype(int) - pixels(64, 96)).mean() < 8


def test_heic_without_the_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "HEIF", False)
    with pytest.raises(UnreadableError, match=r"headstart\[heif\]"):
        to_rgb(b"\0\0\0\x18ftypheic" + bytes(40))


def test_gif_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "gif", save_all=True, append_images=frames[1:])
    assert (to_rgb(buffer.getvalue()) == (255, 0, 0)).all()


def test_grey_palette_and_bilevel_become_rgb() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(to_rgb(encoded(grey, "png")), np.repeat(grey[..., None], 3, axis=2))
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 200, 30])
    buffer = io.BytesIO()
    palette.save(buffer, "png")
    assert (to_rgb(buffer.getvalue()) == (10, 200, 30)).all()
    assert set(np.unique(to_rgb(encoded(grey, "png", mode="1")))) <= {0, 255}


def test_transparency_lies_over_white() -> None:
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[..., 0], rgba[0, :, 3], rgba[1, :, 3] = 200, 255, 128
    seen = to_rgb(encoded(rgba, "png"))
    assert (seen[0] == (200, 0, 0)).all()
    assert np.abs(seen[1].astype(int) - (227, 127, 127)).max() <= 1
    assert (seen[2:] == 255).all()


@pytest.mark.parametrize("mode", ["L", "P", "RGB"])
def test_a_transparent_colour_of_a_png_lies_over_white(mode: str) -> None:
    image = Image.new(mode, (4, 4), 0)
    if mode == "P":
        image.putpalette([9, 9, 9])
    buffer = io.BytesIO()
    image.save(buffer, "png", transparency=(0, 0, 0) if mode == "RGB" else 0)
    assert (to_rgb(buffer.getvalue()) == 255).all()


def test_grey_with_alpha_lies_over_white() -> None:
    la = Image.new("LA", (3, 3), (100, 0))
    buffer = io.BytesIO()
    la.save(buffer, "png")
    assert (to_rgb(buffer.getvalue()) == 255).all()


def test_cmyk_has_the_right_colours() -> None:
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    for kind in ("jpeg", "tiff"):
        buffer = io.BytesIO()
        cmyk.save(buffer, kind)
        red = to_rgb(buffer.getvalue()).reshape(-1, 3).mean(0)
        assert red[0] > 240, (kind, red)
        assert red[1] < 15, (kind, red)


def png16(values: np.ndarray, colour_type: int, interlaced: bool = False, clear: bytes = b"") -> bytes:
    """A 16-bit PNG of big-endian samples (height, width, channels), written by hand: Pillow writes only grey ones.

    clear: the samples of its transparent colour.
    """
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, int(interlaced))
    see_through = chunk(b"tRNS", clear) if clear else b""
    parts = chunk(b"IHDR", header), see_through, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


ALL_16_BIT = np.arange(65536, dtype=np.uint16).reshape(256, 256)
SCALED = np.rint(ALL_16_BIT / 257).astype(np.uint8)


def test_sixteen_bit_grey_is_value_over_257() -> None:
    assert np.array_equal(to_rgb(encoded(ALL_16_BIT, "png"))[..., 1], SCALED)
    assert np.array_equal(to_rgb(encoded(ALL_16_BIT, "tiff"))[..., 2], SCALED)
    assert np.array_equal(to_rgb(png16(ALL_16_BIT[..., None], 0))[..., 0], SCALED)


def test_sixteen_bit_colour_is_value_over_257() -> None:
    colour = np.stack([ALL_16_BIT, ALL_16_BIT[::-1], ALL_16_BIT.T], axis=2)
    expected = np.stack([SCALED, SCALED[::-1], SCALED.T], axis=2)
    assert np.array_equal(to_rgb(png16(colour, 2)), expected)
    opaque = np.concatenate([colour, np.full((256, 256, 1), 65535, np.uint16)], axis=2)
    assert np.array_equal(to_rgb(png16(opaque, 6)), expected)


def test_sixteen_bit_transparency_lies_over_white() -> None:
    samples = np.zeros((2, 2, 2), np.uint16)
    samples[0, 0] = 255, 65535  # 255 / 257 is 1, though its high byte is 0
    samples[0, 1] = 0, 65535
    seen = to_rgb(png16(samples, 4))
    assert (seen[0, 0] == 1).all()
    assert (seen[0, 1] == 0).all()
    assert (seen[1] == 255).all()


def test_the_transparent_value_of_sixteen_bits_is_white() -> None:
    grey = to_rgb(png16(ALL_16_BIT[..., None], 0, clear=struct.pack(">H", 1000)))
    expected = np.where(ALL_16_BIT == 1000, 255, SCALED)
    assert np.array_equal(grey[..., 1], expected)
    colour = np.stack([ALL_16_BIT, ALL_16_BIT[::-1], ALL_16_BIT.T], axis=2)
    seen = to_rgb(png16(colour, 2, clear=colour[3, 4].astype(">u2").tobytes()))
    assert (seen[3, 4] == 255).all()
    assert np.array_equal(seen[3, 5:], np.stack([SCALED, SCALED[::-1], SCALED.T], axis=2)[3, 5:])


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bit_colour_tiff_is_value_over_257(order: str) -> None:
    colour = np.stack([ALL_16_BIT, ALL_16_BIT[::-1], ALL_16_BIT.T], axis=2)
    data = colour.astype(f"{order}u2").tobytes()
    tags = [
        (256, 3, 1, 256),
        (257, 3, 1, 256),
        (258, 3, 3, 8 + 2 + 12 * 9 + 4),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 8 + 2 + 12 * 9 + 4 + 6),
        (277, 3, 1, 3),
        (278, 3, 1, 256),
        (279, 4, 1, len(data)),
    ]
    body = struct.pack(f"{order}H", len(tags))
    for tag, kind, count, value in tags:
        short = kind == 3 and count == 1
        body += struct.pack(f"{order}HHI", tag, kind, count)
        body += struct.pack(f"{order}HH", value, 0) if short else struct.pack(f"{order}I", value)
    body += struct.pack(f"{order}I", 0) + struct.pack(f"{order}HHH", 16, 16, 16)
    tiff = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8) + body + data
    assert np.array_equal(to_rgb(tiff), np.stack([SCALED, SCALED[::-1], SCALED.T], axis=2))


def test_float_pictures_need_values_from_0_to_1() -> None:
    ramp = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    assert np.array_equal(to_rgb(encoded(ramp, "tiff"))[..., 0], np.rint(ramp * 255).astype(np.uint8))
    with pytest.raises(UnreadableError, match="expected 0 to 1"):
        to_rgb(encoded(ramp * 300, "tiff"))


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "webp" else {"quality": 95} if kind == "jpeg" else {}
    turned = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}[orientation]
    upright = Image.fromarray(PICTURE)
    expected = np.asarray(upright if turned is None else upright.transpose(Image.Transpose(turned)))
    seen = to_rgb(encoded(PICTURE, kind, exif=exif, **options))
    assert seen.shape == expected.shape
    assert np.abs(seen.astype(int) - expected).mean() < (6 if kind == "jpeg" else 0.01)


def test_a_damaged_exif_block_costs_no_picture() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(PICTURE, "jpeg", exif=exif)
    at = data.index(b"Exif\0\0") + 6
    assert to_rgb(data[:at] + b"\xff" * 12 + data[at + 12 :]).shape == PICTURE.shape


# ------------------------------------------------------------------------------------------------------- accidents

JPEG = encoded(pixels(64, 64), "jpeg")
PNG = encoded(pixels(64, 64), "png")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (bytes(500), "zero bytes"),
        (b"<html>not found</html>", "not a picture"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (PNG[: len(PNG) // 2], "truncated"),
        (PNG[:40], "."),
        (JPEG[:30], "."),
        (encoded(pixels(64, 64), "gif")[:200], "."),
        (encoded(pixels(64, 64), "webp")[:200], "."),
        (encoded(pixels(64, 64), "bmp")[:5000], "truncated"),
        (encoded(pixels(64, 64), "tiff")[:-3000], "."),
    ],
)
def test_damage_has_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableError, match=reason):
        to_rgb(data)


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    bomb = encoded(np.zeros((1, 1), np.uint8), "png")
    ihdr = struct.pack(">II", 30000, 30000) + bomb[24:29]
    bomb = bomb[:16] + ihdr + struct.pack(">I", zlib.crc32(b"IHDR" + ihdr)) + bomb[33:]
    with pytest.raises(UnreadableError, match=r"pixels|bomb"):
        to_rgb(bomb)


def test_files_that_are_no_files_have_a_reason(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, reason in (("pipe.jpg", "regular"), ("gone.jpg", "No such file"), (".", ".")):
        with pytest.raises(UnreadableError, match=reason):
            read_picture(str(tmp_path / name))


def test_the_short_way_gives_pillows_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Grey and colour, every subsampling, odd sizes; and whatever damage does to a file, the same verdict."""
    if decode._fast_jpeg is None:
        pytest.skip("this torchvision has no decoder")
    cases = [
        encoded(pixels(h, w, seed), "jpeg", quality=q, subsampling=s)
        for seed, (h, w, q, s) in enumerate([(32, 32, 75, 2), (33, 17, 90, 1), (1, 1, 50, 0), (31, 64, 30, 2)])
    ]
    cases += [encoded(pixels(32, 32)[..., 0], "jpeg"), encoded(pixels(40, 40), "jpeg", restart_marker_blocks=2)]
    generator = np.random.default_rng(0)
    for data in [*cases]:
        for _ in range(40):
            damaged = bytearray(data)
            for at in generator.integers(2, len(data) - 2, generator.integers(1, 4)):
                damaged[at] = generator.integers(256)
            cases.append(bytes(damaged))

    def verdicts() -> Iterator[np.ndarray | None]:
        for data in cases:
            try:
                yield to_rgb(data)
            except UnreadableError:
                yield None

    fast = list(verdicts())
    monkeypatch.setattr(decode, "_fast_jpeg", None)
    slow = list(verdicts())
    for a, b in zip(fast, slow, strict=True):
        assert (a is None) == (b is None)
        assert a is None or b is None or np.array_equal(a, b)
    assert sum(a is not None for a in fast) > 50
    assert decode._is_small_plain_jpeg(cases[0])


def test_read_picture_gives_the_bytes_too(tmp_path: Path) -> None:
    path = put(tmp_path / "with space é.png", encoded(PICTURE, "png"))
    seen, data = read_picture(str(path))
    assert np.array_equal(seen, PICTURE)
    assert data == path.read_bytes()


# ----------------------------------------------------------------------------------------- what is no picture, and why


def tiff(channels: int, bits: int, kind: int, order: str = "<") -> bytes:
    """A TIFF header, with nothing behind it."""
    tags = [(256, 8), (257, 8), (258, bits), (259, 1), (262, 1), (277, channels), (339, kind)]
    body = struct.pack(f"{order}H", len(tags)) + b"".join(struct.pack(f"{order}HHIHH", t, 3, 1, v, 0) for t, v in tags)
    return (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8) + body + bytes(4)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"\n<!DOCTYPE html><title>404</title>", r"web page \(HTML\)"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
        (b"%PDF-1.7", "PDF"),
        (b'<svg xmlns="x"/>', "SVG"),
        (b"P6\n1 1\n255\nabc", "PNM"),
        (b"\x00\x00\x00\x0cjP  \r\n", "JPEG 2000"),
        (bytes(128) + b"DICM", "DICOM"),
        (b"\x00\x00\x00\x18ftypmp42", "film"),
        (tiff(5, 8, 1), "TIFF of 5 channels of 8-bit unsigned integer samples"),
        (tiff(1, 64, 3, ">"), "TIFF of 1 channel of 64-bit float samples"),
        (tiff(3, 32, 2), "TIFF of 3 channels of 32-bit signed integer samples"),
        (encoded(np.full((4, 4), -5, np.int32), "tiff"), r"from -5 to -5; expected 0 to 65535, or a --data\.range"),
    ],
)
def test_what_is_no_picture_is_named(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableError, match=reason):
        to_rgb(data)


@pytest.mark.parametrize("text", ["Access denied\n", "Nicht gefunden: ü\n", "[InternetShortcut]\nURL=x\n"])
def test_text_in_place_of_a_picture_is_named(text: str) -> None:
    with pytest.raises(UnreadableError, match="not a picture: text"):
        to_rgb(text.encode())


EPSI = b"\xc5\xd0\xd3\xc6" + struct.pack("<6I", 30, 24, 0, 0, 0, 0) + b"\xff\xff%!PS-Adobe-3.0 EPSF-3.0\n"
"""PostScript behind a binary header, as printers' drivers for Windows write it."""


@pytest.mark.parametrize("kind", ["EPS", "PDF", "PPM", "ICO", "TGA", "PCX", "SGI"])
def test_only_our_formats_are_opened_and_no_program_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("subprocess.Popen", lambda *a, **k: pytest.fail("a program was started"))
    buffer = io.BytesIO()
    Image.fromarray(PICTURE).save(buffer, kind)
    with pytest.raises(UnreadableError):
        read_picture(str(put(tmp_path / "holiday.png", buffer.getvalue())))


def test_every_picture_is_opened_by_named_formats() -> None:
    """Pillow goes by content; without names it would try all its readers, and start Ghostscript for one."""
    root = Path(headstart.__file__).parents[2]
    rooms = [Path(headstart.__file__).parent, *(root / name for name in ("benchmarks", "examples"))]
    files = [path for room in rooms for path in room.rglob("*") if path.suffix in (".py", ".ipynb")]
    calls = [line for path in files for line in path.read_text().splitlines() if "Image.open(" in line]
    assert calls
    assert [line for line in calls if "formats=" not in line] == []


def as_zip(folder: Path, data: bytes) -> Path:
    with zipfile.ZipFile(folder / "p.zip", "w") as archive:
        archive.writestr("holiday.png", data)
    return folder / "p.zip"


def as_tar(folder: Path, data: bytes) -> Path:
    put(folder / "in" / "holiday.jpg", data)
    with tarfile.open(folder / "p.tar", "w") as archive:
        archive.add(folder / "in", ".")
    return folder / "p.tar"


def as_list(folder: Path, data: bytes) -> Path:
    put(folder / "in" / "holiday.tif", data)
    return put(folder / "l.txt", b"in/holiday.tif\n")


def as_folder(folder: Path, data: bytes) -> Path:
    return put(folder / "in" / "holiday.webp", data).parent


@pytest.mark.parametrize("lie", [as_folder, as_list, as_zip, as_tar])
@pytest.mark.parametrize("program", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n", EPSI])
def test_no_program_is_started_wherever_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: Callable[[Path, bytes], Path], program: bytes
) -> None:
    for starts in ("subprocess.Popen", "os.system", "os.posix_spawn"):
        monkeypatch.setattr(starts, lambda *a, **k: pytest.fail("a program was started"))
    report = check.run(DataConfig(sources=(str(lie(tmp_path, program)),)))
    ((name, reason),) = report.unreadable
    assert "holiday" in name
    assert "PostScript, a program that is never run" in reason


@pytest.mark.parametrize("error", [errno.EIO, errno.EMFILE, errno.ESTALE, errno.ENOMEM])
def test_a_read_that_failed_for_a_passing_reason_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    path = str(put(tmp_path / "a.png", encoded(PICTURE, "png")))
    failures = iter([OSError(error, os.strerror(error))] * 2)
    real = os.open

    def open_(name: str, *rest: Any) -> Any:
        if name == path and (failure := next(failures, None)):
            raise failure
        return real(name, *rest)

    monkeypatch.setattr(decode, "PAUSES", (0, 0))
    monkeypatch.setattr("os.open", open_)
    assert np.array_equal(read_picture(path)[0], PICTURE)
    failures = iter([OSError(error, os.strerror(error))] * 3)
    with pytest.raises(NotNowError, match=os.strerror(error)):
        read_picture(path)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_sixteen_bits_take_no_wide_numbers_for_the_whole_picture(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture of 36 million pixels took 3.5 GB; rows at a time, the values stay the same."""
    draws = np.random.default_rng(0)
    shape = (700, 500, 4)
    values, low = (draws.integers(0, 256, shape, dtype=np.uint8) for _ in range(2))
    whole = values.astype(np.uint16) << 8 | low
    plain = eight_bits(decode._over_white(whole), "auto")
    tracemalloc.start()
    found = eight_bits(decode._wide(Image.fromarray(values, "RGBA"), low), "auto")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(found, plain)
    assert peak < 60 * shape[0] * shape[1]
