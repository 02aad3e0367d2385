"""What goes wrong, in the words of whoever asked: options for the command line, keywords for Python."""

from pathlib import Path

import pytest

import headstart
from headstart.records.errors import InputError, in_python


@pytest.mark.parametrize(
    ("said", "in_keywords"),
    [
        ("replace it with --overwrite, or give another --out", "replace it with overwrite=True, or give another out"),
        ("train it with --extend", "train it with extend=True"),
        ("a smaller --data.memory-gib needs less", "a smaller data=dict(memory_gib=...) needs less"),
        ("the paper's mlp (that is --head.no-frozen)", "the paper's mlp (that is head=dict(frozen=False))"),
        ("photos--2024/a--b.png is no picture", "photos--2024/a--b.png is no picture"),
        ("head.depth is 7; it must be 1, 2, 3 or 4", "head.depth is 7; it must be 1, 2, 3 or 4"),
    ],
)
def test_options_become_keywords(said: str, in_keywords: str) -> None:
    assert in_python(said) == in_keywords


def test_python_is_told_in_keywords(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"^out .*file is a file"):
        headstart.pretrain("digits", out=tmp_path / "file")
    with pytest.raises(InputError, match="not a run folder"):
        headstart.load(tmp_path / "none")
    with pytest.raises(InputError, match=r"headstart\.pretrain has the unknown key 'hed'"):
        headstart.pretrain("digits", out=tmp_path / "run", hed={})
