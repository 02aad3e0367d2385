"""What the pages here take from the records, written anew: `python results/page.py`; `records.py collect` does it too.

A block starts with a comment that says where its lines come from, and ends with `<!-- end -->`:

    <!-- power.py -->                                    what that script prints (files that it makes lie beside it)
    <!-- digits/controls linear: frozen autoencoder, trainable random; frozen control -->
                                                         what a study says of two heads by a probe, or the line with
                                                         these words, as quotations

Sentences between the blocks are written by people: read them again where a block has changed.
"""

import contextlib
import importlib
import io
import re
import tempfile
from pathlib import Path

import pandas as pd
from recorded import UnreadError, forget

HERE = Path(__file__).parent
PAGES = ("README.md", "details.md")
BLOCK = re.compile(r"(<!-- ([^\n]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def written(text: str, files: Path, root: Path = HERE) -> str:
    """The page with every block as the records under `root` have it; what scripts make of files goes into `files`."""

    def again(block: re.Match[str]) -> str:
        lines = body(block[2], files, root)
        return block[0] if lines is None else f"{block[1]}\n{lines}\n\n{block[4]}"

    return BLOCK.sub(again, text)


def stale(root: Path = HERE) -> list[str]:
    """The blocks of the pages, and the files beside them, that are not what the records say."""
    with tempfile.TemporaryDirectory() as temporary:
        again = Path(temporary)
        found = []
        for page in pages(root):
            text = page.read_text(encoding="utf-8")
            pairs = zip(BLOCK.finditer(text), BLOCK.finditer(written(text, again, root)), strict=True)
            found += [f"{page.name}: {before[2]}" for before, after in pairs if before[0] != after[0]]
        return found + [made.name for made in sorted(again.iterdir()) if differs(root / made.name, made)]


def pages(root: Path = HERE) -> list[Path]:
    """Those that are there."""
    return [page for name in PAGES if (page := root / name).exists()]


def differs(one: Path, other: Path) -> str:
    """How two files differ in words, tables beyond rounding; empty where they do not."""
    if not (one.exists() and other.exists()):
        return "is not in both"
    if one.suffix != ".csv":
        return "" if one.read_text(encoding="utf-8") == other.read_text(encoding="utf-8") else "has other words"
    try:
        pd.testing.assert_frame_equal(pd.read_csv(one), pd.read_csv(other), rtol=1e-6, atol=1e-4)
    except AssertionError as error:
        return f"differs: {str(error).splitlines()[0]}"
    return ""


def rewrite(root: Path = HERE) -> None:
    """Write the pages anew, where they are there, and the files beside them."""
    forget()
    for page in pages(root):
        page.write_text(written(page.read_text(encoding="utf-8"), root, root), encoding="utf-8")


def body(source: str, files: Path, root: Path) -> str | None:
    """The lines of one block; None where what they come from is not here."""
    if source.endswith(".py"):
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                importlib.import_module(source.removesuffix(".py")).main(files)
        except UnreadError:
            return None
        return printed.getvalue().strip()
    place, _, asked = source.partition(": ")
    study, probe = place.split()
    lines = (root / study / "answers" / f"{probe}.md").read_text(encoding="utf-8").splitlines()
    return "\n".join(f"> {quoted(lines, one.split(', '))}" for one in asked.split("; "))


def quoted(lines: list[str], words: list[str]) -> str:
    """The first sentence with all these words, as an item of a list; a head's name stands for that head alone."""
    whole = [re.compile(re.escape(one) + r"(?! \([a-z])", re.IGNORECASE) for one in words]  # not `NAME (variant)`
    for line in lines:
        if all(one.search(line) for one in whole) and not line.startswith("- Set by set"):
            return f"- {line.removeprefix('- ').strip('*')}"
    return f"- (nothing is said of {' and '.join(words)})"


if __name__ == "__main__":
    rewrite()
