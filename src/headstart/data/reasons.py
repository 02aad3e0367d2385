"""Why a file is no picture that can be read: what it is instead, in words for the person who put it there.

Comes in: the bytes of a file that no reader took. Goes out: half a sentence.
"""

import struct

_STARTS = (
    (
        b"version https://git-lfs.github.com/spec",
        "a Git LFS pointer; fetch the picture with `git lfs pull`",
    ),
    (b"%!PS", "PostScript, a program that is never run"),
    (b"\xc5\xd0\xd3\xc6", "PostScript, a program that is never run"),
    (b"%PDF", "a PDF document"),
    (b"8BPS", "a Photoshop document"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000, which is not read; convert it"),
    (b"\xff\x4f\xff\x51", "JPEG 2000, which is not read; convert it"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL, which is not read; convert it"),
    (b"\xff\x0a", "JPEG XL, which is not read; convert it"),
    (b"\x00\x00\x01\x00", "an icon"),
    (b"\x76\x2f\x31\x01", "OpenEXR, which is not read; convert it"),
    (b"\x89HDF", "HDF5"),
    (b"\x93NUMPY", "a NumPy array; give the .npy file itself as DATA"),
    (b"SIMPLE  =", "FITS, which is not read; convert it"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"Rar!", "a RAR archive"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
)
_HEIC = (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"heim", b"heis")


def what_it_is(data: bytes, heif: bool) -> str:
    """What a file is that no reader took; heif: whether there is a reader of HEIC."""
    for start, what in _STARTS:
        if data.startswith(start):
            return f"not a picture that is read: {what}"
    return (
        _what_text_it_is(data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower())
        or _what_else_it_is(data, heif)
        or tiff_layout(data)
        or _plain(data[:512])
        or "not a picture in a known format, or its header is damaged"
    )


def _what_text_it_is(text: bytes) -> str | None:
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "not a picture: a web page (HTML), which a download got in place of it"
    if text.startswith(b"<svg") or (text.startswith(b"<?xml") and b"<svg" in text):
        return "not a picture that is read: an SVG drawing; convert it"
    return "not a picture: text (XML or JSON)" if text.startswith((b"<?xml", b"{", b"[")) else None


def _plain(text: bytes) -> str | None:
    """Whether a file begins with words (its first bytes may end within a letter)."""
    letters = text.decode("utf-8", "ignore")
    words = len(letters.encode()) > len(text) - 4 and all(
        letter.isprintable() or letter in "\t\r\n" for letter in letters
    )
    return "not a picture: text" if letters and words else None


def _what_else_it_is(data: bytes, heif: bool) -> str | None:
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC:
        return "damaged HEIC" if heif else "HEIC: reading it needs `pip install headstart[heif]`"
    if data[4:8] == b"ftyp" and data[8:12] not in (b"avif", b"avis"):
        return "not a picture: a film"
    if data[128:132] == b"DICM":
        return "not a picture that is read: DICOM; convert it"
    if data[:2] in (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6") and data[2:3].isspace():
        return "not a picture that is read: PNM; convert it"
    return None if data.strip(b"\0") else "nothing but zero bytes"


_SAMPLES = {1: "unsigned integer", 2: "signed integer", 3: "float", 5: "complex integer", 6: "complex float"}
_PLACES = {1: "B", 3: "H", 4: "I", 16: "Q"}


def tiff_layout(data: bytes) -> str | None:
    """`TIFF of 5 channels of 16-bit unsigned integer samples ...`; None where this is no whole TIFF header."""
    try:
        tags = _tiff_tags(data)
    except (struct.error, KeyError, IndexError):
        return None
    if not tags or 256 not in tags:
        return None
    channels, bits = tags.get(277, 1), tags.get(258, 1)
    kind = _SAMPLES.get(tags.get(339, 1), "unknown")
    return (
        f"TIFF of {channels} channel{'s' if channels > 1 else ''} of {bits}-bit {kind} samples, which is not read; "
        "convert it to 8 or 16-bit grey or RGB"
    )


def _tiff_tags(data: bytes) -> dict[int, int]:
    """The first value of each whole-number tag of a TIFF's first picture."""
    order = {b"II": "<", b"MM": ">"}[data[:2]]
    (version,) = struct.unpack_from(f"{order}H", data, 2)
    big = {42: False, 43: True}[version]
    at = struct.unpack_from(f"{order}Q" if big else f"{order}I", data, 8 if big else 4)[0]
    (count,) = struct.unpack_from(f"{order}Q" if big else f"{order}H", data, at)
    at += 8 if big else 2
    width, inline = (20, 8) if big else (12, 4)
    tags = {}
    for entry in range(at, at + width * min(count, 200), width):
        tag, kind = struct.unpack_from(f"{order}HH", data, entry)
        (number,) = struct.unpack_from(f"{order}Q" if big else f"{order}I", data, entry + 4)
        if kind not in _PLACES or not number:
            continue
        place = entry + width - inline
        if struct.calcsize(f"<{_PLACES[kind]}") * number > inline:
            (place,) = struct.unpack_from(f"{order}Q" if big else f"{order}I", data, place)
        (tags[tag],) = struct.unpack_from(f"{order}{_PLACES[kind]}", data, place)
    return tags
