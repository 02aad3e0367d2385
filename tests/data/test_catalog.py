"""Several DATA at once, and picture files by name."""

from pathlib import Path

from tests.data.pictures import find, folder


def test_picture_files_keep_their_order_and_names(tmp_path: Path) -> None:
    root = folder(tmp_path, ["x/a.png", "y/b.png", "z/a.png"])
    files = [root / "y/b.png", root / "z/a.png", root / "x/a.png"]
    assert find(*files).names == ["b.png", "a.png", "2/a.png"]
    assert find(*files[:2], root / "x").names == ["a.png", "b.png", "x/a.png"]
