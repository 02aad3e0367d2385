"""`check` lists every kind of damage with its reason, duplicates, and what leaks from train into test."""

import csv
import io
import json
import os
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from headstart.data import check, open_images
from headstart.records.config import DataConfig
from headstart.records.errors import InputError
from headstart.records.names import SETS
from headstart.training import run as pretraining
from tests.data.pictures import encoded, folder, pixels, put
from tests.data.test_decode import png16
from tests.runs import small


def a_bomb() -> bytes:
    small = encoded(np.zeros((1, 1), np.uint8), "png")
    ihdr = struct.pack(">II", 60000, 60000) + small[24:29]
    return small[:16] + ihdr + struct.pack(">I", zlib.crc32(b"IHDR" + ihdr)) + small[33:]


def seeded(root: Path) -> list[str]:
    """Two hundred good pictures and ten kinds of damage."""
    folder(root, [f"{'ab'[i % 2]}/{i}.png" for i in range(200)])
    good, jpeg = encoded(pixels(40, 40), "png"), encoded(pixels(40, 40), "jpeg")
    damage = {
        "empty.jpg": b"",
        "zeros.jpg": bytes(4000),
        "page.jpg": b"<html>404</html>",
        "cut.png": good[:900],
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "header.jpg": jpeg[:20],
        "flipped.png": good[:60] + bytes([good[60] ^ 255]) + good[61:],
        "bomb.png": a_bomb(),
        "float.tiff": encoded(np.full((4, 4), 7e9, np.float32), "tiff"),
    }
    for name, data in damage.items():
        put(root / "a" / name, data)
    os.mkfifo(root / "a" / "pipe.png")
    return [f"a/{name}" for name in [*damage, "pipe.png"]]


def test_pictures_that_stand_out_are_named(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    for i in range(20):
        put(tmp_path / f"{i:02}.png", encoded(draws.integers(0, 255, (60, 80, 3), dtype=np.uint8), "png"))
    noise = draws.integers(0, 255, (60, 80, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(noise[:6, :8]).resize((80, 60), Image.Resampling.BICUBIC))
    stands_out = {
        "blurred": smooth,
        "dark": noise // 16,
        "white": 255 - noise // 32,
        "one colour": np.full((60, 80, 3), 90, np.uint8),
        "shape": draws.integers(0, 255, (30, 160, 3), dtype=np.uint8),
        "size": draws.integers(0, 255, (12, 16, 3), dtype=np.uint8),
    }
    for name, array in stands_out.items():
        put(tmp_path / f"{name}.png", encoded(array, "png"))
    report = check.run(DataConfig(sources=(str(tmp_path),)))
    assert [(name, why.partition(":")[0]) for name, why in report.odd] == [(f"{n}.png", n) for n in sorted(stands_out)]
    assert ("shape.png", "shape: 30 x 160 (height x width), 5.3 to 1 where 1.3 to 1 is usual") in report.odd
    assert json.loads(json.dumps(report.to_dict()))["odd"][0][0] == "blurred.png"


def test_a_few_pictures_are_odd_by_themselves_alone(tmp_path: Path) -> None:
    put(tmp_path / "a.png", encoded(np.zeros((4, 400, 3), np.uint8), "png"))
    put(tmp_path / "b.png", encoded(pixels(40, 40), "png"))
    assert [name for name, _ in check.run(DataConfig(sources=(str(tmp_path),))).odd] == ["a.png"]


def test_ten_kinds_of_damage_are_each_listed_with_a_reason(tmp_path: Path) -> None:
    damaged = seeded(tmp_path)
    report = check.run(DataConfig(sources=(str(tmp_path),)))
    assert sorted(name for name, _ in report.unreadable) == sorted(damaged)
    assert len(damaged) == 10
    assert all(len(reason) > 5 for _, reason in report.unreadable)
    assert (report.pictures, report.readable) == (210, 200)
    assert report.classes == {"a": 100, "b": 100}
    assert report.starts
    assert open_images(DataConfig(sources=(str(tmp_path),))).skipped == report.unreadable
    assert json.loads(json.dumps(report.to_dict()))["unreadable"][0][0] == "a/bomb.png"


def test_a_run_on_damaged_pictures_finishes_and_names_them(tmp_path: Path) -> None:
    damaged = seeded(tmp_path / "photos")
    sources = [str(tmp_path / "photos")]
    config = small(data={"sources": sources, "limit": 64}, autoencoder={"epochs": 1}, contrastive={"epochs": 1})
    pretraining.run(config, tmp_path / "run")
    assert (tmp_path / "run" / "result.json").exists()
    with open(tmp_path / "run" / "skipped.csv", encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["name", "reason"]
    assert sorted(name for name, _ in rows) == sorted(damaged)
    assert all(reason for _, reason in rows)


def test_duplicates_leaks_and_conflicts(tmp_path: Path) -> None:
    folder(tmp_path, [f"{s}/{c}/{i}{s}.png" for s in ("train", "test") for c in "ab" for i in range(3)])
    twin = tmp_path / "train/a/0train.png"
    put(tmp_path / "train/a/copy.png", twin.read_bytes())
    put(tmp_path / "test/a/recompressed.bmp", encoded(pixels(20, 20, seed=0), "bmp"))  # other bytes, same pixels
    put(tmp_path / "train/b/mislabelled.png", (tmp_path / "train/a/1train.png").read_bytes())
    report = check.run(DataConfig(sources=(str(tmp_path),)))
    assert sorted(map(sorted, report.duplicates)) == [
        ["test/a/recompressed.bmp", "train/a/0train.png", "train/a/copy.png"],
        ["train/a/1train.png", "train/b/mislabelled.png"],
    ]
    assert [sorted(g)[0] for g in report.leaks] == ["test/a/recompressed.bmp"]
    assert [sorted(g)[1] for g in report.conflicts] == ["train/b/mislabelled.png"]
    assert report.splits == {"train": 8, "test": 7}
    assert report.formats == {"PNG": 14, "BMP": 1}


def test_the_table_shows_names_and_obeys_none(tmp_path: Path) -> None:
    folder(tmp_path, ["a/1.png", "b/2.png"])
    put(tmp_path / "a" / "\x1b[31mred[bold].png", b"junk")
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(check.run(DataConfig(sources=(str(tmp_path),))).table())
    shown = console.export_text()
    assert "\\x1b[31mred[bold].png" in shown
    assert "\x1b" not in shown
    assert re.search(r"sizes \(height x width\) *│ 20 x 20: 2", shown)


def test_sizes_and_the_training_size(tmp_path: Path) -> None:
    folder(tmp_path / "same", [f"{i}.png" for i in range(3)], lambda i: (48, 48))
    assert check.run(DataConfig(sources=(str(tmp_path / "same"),))).training_size == 48
    folder(tmp_path / "mixed", [f"{i}.png" for i in range(3)], lambda i: (48, 48 + i // 2))
    report = check.run(DataConfig(sources=(str(tmp_path / "mixed"),)))
    assert report.training_size == 128
    assert check.run(DataConfig(sources=(str(tmp_path / "mixed"),), size=64)).training_size == 64
    assert report.sizes == {"48 x 48": 2, "48 x 49": 1}
    assert report.unlabelled == 3


def test_a_source_beyond_the_limit_would_not_start(tmp_path: Path) -> None:
    folder(tmp_path, [f"{i}.png" for i in range(20)])
    for i in range(11):
        put(tmp_path / f"broken{i}.png", b"junk")
    assert not check.run(DataConfig(sources=(str(tmp_path),))).starts
    assert check.run(DataConfig(sources=(str(tmp_path),), max_skipped=0.5)).starts


@pytest.mark.parametrize(
    ("names", "data"),
    [
        (["1.png", "2.png"], {}),
        (["1.png", "2.png", "3.png"], {}),
        (["train/a/1.png", "train/a/2.png", "test/a/3.png"], {}),
        (["train/1.png", "val/2.png", "test/3.png"], {}),
        ([f"{i}.png" for i in range(40)] + [f"broken{i}" for i in range(11)], {}),
        ([f"{i}.tif" for i in range(20)], {"range": (60000, 65535)}),
    ],
)
def test_check_says_of_pictures_what_pretrain_says(names: list[str], data: dict[str, Any], tmp_path: Path) -> None:
    photos = folder(tmp_path / "photos", [name for name in names if name.endswith(".png")])
    for i, name in enumerate(names):
        if name.endswith(".tif"):
            put(photos / name, encoded(np.full((8, 8), 4000 + i, np.uint16), "tiff"))
        elif name.startswith("broken"):
            put(photos / f"{name}.png", b"junk")
    config = small(data={"sources": [str(photos)], "limit": None, **data})
    with pytest.raises(InputError) as refused:
        pretraining.run(config, tmp_path / "run")
    report = check.run(config.data)
    assert report.refusal == str(refused.value)
    assert not report.starts
    assert report.to_dict()["starts"] is False


def test_four_pictures_are_enough_to_start(tmp_path: Path) -> None:
    photos = folder(tmp_path / "photos", [f"{i}.png" for i in range(4)])
    config = small(data={"sources": [str(photos)], "limit": None}, contrastive={"epochs": 1, "batch_size": None})
    assert check.run(config.data).starts
    assert (pretraining.run(config, tmp_path / "run") / "result.json").exists()


def shown(root: Path, **data: Any) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(check.run(DataConfig(sources=(str(root),), **data)).table())
    return console.export_text()


def test_duplicates_are_named_on_the_screen(tmp_path: Path) -> None:
    folder(tmp_path, ["a/1.png", "b/2.png"])
    for i in range(9):
        put(tmp_path / f"a/copy{i}.png", (tmp_path / "a/1.png").read_bytes())
    assert "a/1.png, a/copy0.png, a/copy1.png, a/copy2.png, a/copy3.png, a/copy4.png and 4 more" in shown(tmp_path)


def a_stack(path: Path, seed: int = 0, pages: int = 3) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = (Image.fromarray(pixels(20, 20, 3 * seed + page)) for page in range(pages))
    first.save(path, "TIFF", save_all=True, append_images=others)


def test_a_run_says_that_it_reads_the_first_page_of_a_stack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(20):
        a_stack(tmp_path / f"{i:02}.tif", i, pages=3 if i == 3 * 4 else 1)
    put(tmp_path / "20.png", encoded(pixels(20, 20, 99), "png"))
    open_images(DataConfig(sources=(str(tmp_path),)))
    assert "1 of 7 TIFF files that were looked at holds several frames or pages (up to 3)" in capsys.readouterr().err


def test_a_damaged_second_page_is_no_reason_to_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_stack(tmp_path / "a.tif")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    after = struct.unpack_from("<I", content, 4)[0]
    second = after + 2 + 12 * struct.unpack_from("<H", content, after)[0]  # where the first page names the next
    struct.pack_into("<H", content, struct.unpack_from("<I", content, second)[0], 1)  # entries, which lack its size now
    for i in range(3):
        put(tmp_path / f"{i}.tif", bytes(content))
    assert "4 pictures hold several frames or pages (up to 3)" in shown(tmp_path)
    assert len(open_images(DataConfig(sources=(str(tmp_path),)))) == 4
    assert "Traceback" not in capsys.readouterr().err


def test_a_page_too_large_to_open_is_set_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_stack(tmp_path / "a.tif")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    for tag in (256, 257):  # width and height
        entry = next(i for kind in (3, 4) if (i := content.find(struct.pack("<HHI", tag, kind, 1))) >= 0)
        struct.pack_into("<HHII", content, entry, tag, 4, 1, 65_535)
    put(tmp_path / "b.tif", bytes(content))
    assert len(open_images(DataConfig(sources=(str(tmp_path),)))) == 1
    assert "1 of 2 pictures set aside (b.tif" in capsys.readouterr().err


def test_what_is_odd_about_a_whole_set_is_named(tmp_path: Path) -> None:
    for i in range(3):
        put(tmp_path / "blue" / f"x/{i}.png", encoded(pixels(20, 20, i) * np.array([1, 1, 0], np.uint8), "png"))
        put(tmp_path / "dark" / f"{i}.tif", encoded(np.full((8, 8), 4000 + i, np.uint16), "tiff"))
        put(tmp_path / "eight" / f"{i}.png", encoded(np.array([[0, 250 + i]], np.uint16), "png"))
        a_stack(tmp_path / "stacks" / f"{i}.tif", i)
        put(tmp_path / "colour" / f"{i}.png", png16(np.full((8, 8, 3), 3000 + i, np.uint16), 2))
    assert "hold values from 3000 to 3002 (12 bits)" in shown(tmp_path / "colour")
    assert "hold values from 0 to 252 (8 bits), so they come out dark; give --data.range 0 255" in shown(
        tmp_path / "eight"
    )
    assert "3 pictures hold several frames or pages (up to 3), of which the first alone is read" in shown(
        tmp_path / "stacks"
    )
    text = shown(tmp_path / "blue")
    assert "blue is 0 in every pixel of every picture" in text
    assert "all labels are of one class, x" in text
    assert "3 pictures are too few" in text
    assert "hold values from 4000 to 4002 (12 bits)" in shown(tmp_path / "dark")
    assert "come out dark; give --data.range 0 4095" in shown(tmp_path / "dark")
    assert "3 of 3 pictures of more than 8 bits hold values beyond --data.range 0 100" in shown(
        tmp_path / "dark", range=(0, 100)
    )


def test_other_files_are_counted(tmp_path: Path) -> None:
    folder(tmp_path, ["a/1.png", "b/2.png"])
    for name in ("a/x.jp2", "a/y.JP2", "b/z.ppm", "notes.txt"):
        put(tmp_path / name, b"")
    report = check.run(DataConfig(sources=(str(tmp_path),)))
    assert report.others == {".jp2": 2, ".ppm": 1, ".txt": 1}
    assert "left out: 2 .jp2, 1 .ppm (pictures of kinds that are not read; convert them)" in report.taken


def test_a_folder_named_like_a_set_is_spoken_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder(tmp_path, ["digits/a/1.png"]))
    assert "the folder of that name is ./digits" in check.run(DataConfig(sources=("digits",))).taken[-1]
    for written in ("digits/", "./digits", str(tmp_path / "digits")):
        assert check.run(DataConfig(sources=(written,))).pictures == 1


@pytest.mark.parametrize("name", sorted(set(SETS) - {"digits"}))
def test_a_folder_named_like_a_set_of_files_is_the_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder(tmp_path, [f"{name}/a/1.png"]))
    report = check.run(DataConfig(sources=(name,)))
    assert report.pictures == 1
    assert report.taken[-1] == f"{name} is taken for the folder of that name; the named set is {name}:ROOT"
