"""One picture file -> its correct 8-bit RGB pixels, or the reason why there are none.

Comes in: the bytes of a file in any format people have. Goes out: uint8 (height, width, 3), upright, over white.
The pixels are Pillow's, so they are what the authors' loaders saw (docs/the-paper.md).
"""

import errno
import io
import os
import stat
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import torchvision.io  # noqa: F401 - registers the operator below
from PIL import Image, UnidentifiedImageError

from headstart.data.levels import LevelsError, by_rows, eight_bits
from headstart.data.reasons import what_it_is
from headstart.data.source import Encoded
from headstart.records.levels import Levels

_RGB = 3
_fast_jpeg = getattr(torch.ops.image, "decode_jpeg", None)
# torchvision announces that its decoders will go; without them Pillow decodes everything, only slower.

SUFFIXES = frozenset(
    (
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".avif",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
        ".gif",
        ".heic",
        ".heif",
    )
)
"""Endings (lower case) of the files that count as pictures."""

MAX_PIXELS = 178_956_970
"""A header that claims more (Pillow's own limit for a decompression bomb) is not believed."""
MAX_BYTES = 1 << 30
"""A longer file is not read."""
GIANT = 32_000_000
"""Pixels from which on pictures take turns."""
SMALL_PIXELS = 256 * 256
"""Up to here a plain JPEG goes the short way: Pillow's overhead per file would outweigh the decoding."""

try:
    import pillow_heif

    pillow_heif.register_heif_opener()
    HEIF = True
except ImportError:
    HEIF = False


FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "DIB", "TIFF", "GIF", *(("HEIF",) if HEIF else ()))
"""What Pillow may take a file for. It goes by content, and would start Ghostscript for PostScript called x.png."""

_turns = threading.Lock()


class UnreadableError(Exception):
    """This file holds no picture we can read; the message is the reason."""


class NotNowError(UnreadableError):
    """This file could not be read for a reason that may pass, or that another user does not meet."""


def read_picture(path: str | os.PathLike[str] | Encoded, levels: Levels = "auto") -> tuple[np.ndarray, bytes]:
    """Pixels uint8 (height, width, 3) of a picture file, alone or inside another, and the bytes it was read from.

    levels: of samples wider than 8 bits, as in `to_rgb`.

    Pictures of more than `GIANT` pixels are decoded one at a time, so that a few of them do not fill the memory.

    Raises UnreadableError with the reason: missing, not a regular file, empty, truncated, oversized, not a picture;
    NotNowError where it may pass: no permission, too many open files, a failing disk, no memory.
    """
    for pause in (*PAUSES, None):
        try:
            data = _read(path) if isinstance(path, (str, os.PathLike)) else path.read()
            break
        except OSError as error:
            reason = f"cannot be read: {error.strerror or error}"
            if error.errno in _FOR_GOOD:
                raise UnreadableError(reason) from None
            if pause is None or error.errno in (errno.EACCES, errno.EPERM):
                raise NotNowError(reason) from None
            time.sleep(pause)
        except ValueError:
            raise UnreadableError("cannot be read: a NUL byte in its name") from None
    return to_rgb(data, levels), data


PAUSES = (0.05, 0.5)
"""Seconds after which a read that failed for a passing reason is tried again."""
_FOR_GOOD = frozenset(
    (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO, errno.EINVAL)
)


def _read(path: str | os.PathLike[str]) -> bytes:
    # Not blocking: a pipe named like a picture would otherwise be waited for.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableError("not a regular file")
        if status.st_size > MAX_BYTES:
            raise UnreadableError(f"file of {status.st_size:,} bytes, more than {MAX_BYTES:,}")
        data = os.read(handle, max(1, status.st_size))
        while more := os.read(handle, 1 << 20):  # a read may end early, and a file may have grown
            data += more
        return data
    finally:
        os.close(handle)


def to_rgb(data: bytes, levels: Levels = "auto") -> np.ndarray:
    """Pixels uint8 (height, width, 3) of an encoded picture: first frame, upright, transparency over white.

    levels: which samples of more than 8 bits become black and white, as `data.range` says; `auto` is value / 257,
    rounded. Colour profiles are not applied (nor do torchvision's loaders).
    Raises UnreadableError with the reason.
    """
    if not data:
        raise UnreadableError("empty file")
    if _fast_jpeg is not None and _is_small_plain_jpeg(data):
        try:
            # Both sit on libjpeg-turbo: the same pixels (tests/data/test_decode.py), in a third of the time.
            return _fast_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), _RGB).numpy().transpose(1, 2, 0)
        except RuntimeError:
            pass  # Pillow decides, and names the reason
    try:
        return _with_pillow(data, levels)
    except UnreadableError:
        raise
    except UnidentifiedImageError:
        raise UnreadableError(what_it_is(data, HEIF)) from None
    except MemoryError:
        raise NotNowError("not enough memory to decode it") from None
    except Exception as error:  # a decoder fed with garbage raises whatever it likes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableError(reason) from None


def _is_small_plain_jpeg(data: bytes) -> bool:
    """Whether this is a complete baseline JPEG, grey or YCbCr, without EXIF or Adobe markers, and small."""
    if data[:2] != b"\xff\xd8" or data[-2:] != b"\xff\xd9":
        return False
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in (0xE1, 0xEE):
            return False
        if marker == 0xC0:
            height, width = data[at + 5] << 8 | data[at + 6], data[at + 7] << 8 | data[at + 8]
            return data[at + 4] == 8 and data[at + 9] in (1, 3) and 0 < height * width <= SMALL_PIXELS
        if marker == 0xDA or 0xC1 <= marker <= 0xC3 or 0xC5 <= marker <= 0xC7 or 0xC9 <= marker <= 0xCF:
            return False
        at += 2 + (data[at + 2] << 8 | data[at + 3])
    return False


def opened(data: bytes) -> Image.Image:
    """A picture of one of our formats, whatever its file is called, by a reader that starts no other program.

    Raises UnidentifiedImageError for everything else.
    """
    return Image.open(io.BytesIO(data), formats=FORMATS)


def frames(image: Image.Image) -> int:
    """Frames or pages of a picture whose first can be read; where one is damaged, up to that one."""
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # as any decoder that is fed with garbage
        return image.tell() + 1


def frames_of(picture: str | os.PathLike[str] | Encoded) -> int:
    """The same of a file, alone or inside another, of which no more is read than that; 1 where it cannot be told."""
    try:
        if not isinstance(picture, (str, os.PathLike)):
            with opened(picture.read()) as image:
                return frames(image)
        if not os.path.isfile(picture):  # a pipe would be waited for
            return 1
        with Image.open(picture, formats=FORMATS) as image:
            return frames(image)
    except Exception:  # what is wrong with it is said where it is decoded
        return 1


def _with_pillow(data: bytes, levels: Levels) -> np.ndarray:
    with opened(data) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise UnreadableError(
                f"{height} x {width} pixels (height x width), more than {MAX_PIXELS:,} (a decompression bomb?)"
            )
        with _turns if width * height > GIANT else nullcontext():
            return _decoded(data, image, levels)


def _decoded(data: bytes, image: Image.Image, levels: Levels) -> np.ndarray:
    _check_channels(image)
    low = _low_bytes(data, image)
    if low is None:
        return pixels_of(image, levels)
    return _turned_upright(image, lambda: _levelled(_wide(image, low), levels))


def _check_channels(image: Image.Image) -> None:
    """Refuse a TIFF with channels beside colour and transparency, of which Pillow would read the first three alone."""
    channels = getattr(image, "tag_v2", {}).get(277, 1)
    if image.mode == "RGBX" or channels > len(image.getbands()):
        raise UnreadableError(f"{channels} channels that are not colour and transparency; pictures have 1 or 3")


def pixels_of(image: Image.Image, levels: Levels = "auto") -> np.ndarray:
    """uint8 (height, width, 3) of a PIL picture, as `to_rgb` gives those of a file."""
    return _turned_upright(image, lambda: _samples(image, levels))


def _turned_upright(image: Image.Image, pixels: Callable[[], np.ndarray]) -> np.ndarray:
    image.load()
    # Asked after loading, because Pillow turns TIFF files itself. A damaged EXIF block costs no picture.
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:
        orientation = 1
    return np.ascontiguousarray(_upright(pixels(), orientation))


def _samples(image: Image.Image, levels: Levels) -> np.ndarray:
    """uint8 (height, width, 3) of a loaded picture of any Pillow mode."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return np.asarray(image)
    if image.mode.startswith("I") or image.mode == "F":
        values = _grey(image)
        pixels = np.repeat(_levelled(values, levels)[..., None], 3, axis=2)
        pixels[_see_through(image, values[..., None])] = 255
        return pixels
    if image.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        above = image if image.mode == "RGBA" else image.convert("RGBA")
        return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, "white"), above).convert("RGB"))
    if image.mode == "LAB":
        raise UnreadableError("CIELAB colours are not supported; convert it to RGB")
    return np.asarray(image.convert("RGB"))


def wide_samples(data: bytes, image: Image.Image) -> np.ndarray | None:
    """The values of a picture of more than 8 bits, just opened, as its file means them; None for every other."""
    if image.mode.startswith("I") or image.mode == "F":
        return _grey(image)
    low = _low_bytes(data, image)
    return None if low is None else _wide(image, low)


def _grey(image: Image.Image) -> np.ndarray:
    """The values of Pillow's modes I and F."""
    tags: Any = getattr(image, "tag_v2", {})
    unsigned = image.mode == "I" and tags.get(258) == (32,) and tags.get(339, (1,)) == (1,)
    values = np.asarray(image)
    return values.view(np.uint32) if unsigned else values  # Pillow takes all 32 bits for signed


def _levelled(values: np.ndarray, levels: Levels) -> np.ndarray:
    try:
        return eight_bits(values, levels)
    except LevelsError as error:
        raise UnreadableError(str(error)) from None


# Pillow reads 16-bit colour by dropping the low byte of every sample, which is value // 256. To get value / 257 we
# let it decode a second time with the byte order turned round: the byte it then keeps is the low one.
_TURNED = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_WIDE_MODES = ("LA", "RGB", "RGBA", "RGBX")  # a grey PNG with alpha is raw LA, and RGBA once read


def _low_bytes(data: bytes, image: Image.Image) -> np.ndarray | None:
    """The low bytes of 16-bit colour samples (height, width, channels); None for every other picture."""
    tiles = getattr(image, "tile", None) or []
    if image.mode not in _WIDE_MODES or not tiles or not _is_wide(_raw_mode(tiles[0])):
        return None
    twin: Any = opened(data)
    with twin:
        if _raw_mode(tiles[0]).startswith("LA"):  # only one byte order is known; its four bytes read as RGBA are
            twin.tile = [_with_raw_mode(tile, "RGBA") for tile in twin.tile]
            twin.load()
            return np.asarray(twin)[..., [1, 1, 1, 3]]  # grey high, grey low, alpha high, alpha low
        twin.tile = [_turned(tile) for tile in twin.tile]
        twin.load()
        return np.asarray(twin)


def _raw_mode(tile: Any) -> str:
    arguments = tile[3]
    return arguments if isinstance(arguments, str) else str(arguments[0]) if arguments else ""


def _is_wide(raw_mode: str) -> bool:
    return raw_mode.split(";")[0] in _WIDE_MODES and raw_mode[-4:-1] == ";16"


def _turned(tile: Any) -> Any:
    raw_mode = _raw_mode(tile)
    return _with_raw_mode(tile, raw_mode[:-1] + _TURNED[raw_mode[-1]])


def _with_raw_mode(tile: Any, raw_mode: str) -> Any:
    arguments = raw_mode if isinstance(tile[3], str) else (raw_mode, *tile[3][1:])
    return type(tile)(*tile[:3], arguments)


def _wide(image: Image.Image, low: np.ndarray) -> np.ndarray:
    """uint16 (height, width, 3) over white, from the high bytes Pillow kept and the low ones."""
    values = np.asarray(image).astype(np.uint16) << 8 | low
    if image.mode == "RGBX":
        return values[..., :3]
    if image.mode == "RGB":
        values[_see_through(image, values)] = 65535
        return values
    return by_rows(_over_white, values)


def _see_through(image: Image.Image, values: np.ndarray) -> np.ndarray:
    """Where values (height, width, channels) are the one that a PNG of 16 bits says is transparent: (height, width)."""
    colour = image.info.get("transparency")
    return np.zeros(values.shape[:2], bool) if colour is None else (values == np.asarray(colour)).all(axis=-1)


def _over_white(values: np.ndarray) -> np.ndarray:
    colour, alpha = values[..., :-1].astype(np.float64), values[..., -1:].astype(np.float64) / 65535
    return np.rint(colour * alpha + 65535 * (1 - alpha)).astype(np.uint16)


def _upright(pixels: np.ndarray, orientation: Any) -> np.ndarray:
    """The picture as EXIF orientation 1 to 8 wants it shown."""
    turns = {
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.swapaxes(0, 1),
        6: lambda p: np.rot90(p, -1),
        7: lambda p: p.swapaxes(0, 1)[::-1, ::-1],
        8: lambda p: np.rot90(p),
    }
    return turns.get(orientation, lambda p: p)(pixels)
