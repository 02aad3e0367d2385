"""Text that anybody may have written, made safe to show: on a terminal, in a page, in a spreadsheet."""

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

_RUN = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes a cell that begins with it for: a formula, or nothing at all."""


def data_cell(text: str) -> str:
    """A name as a data file holds it: itself, with a leading ' only where a spreadsheet would run it.

    `from_data_cell` takes the ' off again; nothing else is escaped, for the column names a file.
    """
    return f"'{text}" if text[:1] in _RUN or from_data_cell(text) != text else text


def from_data_cell(text: str) -> str:
    """What `data_cell` was given."""
    return text[1:] if text[:1] == "'" and text[1:].lstrip("'")[:1] in _RUN else text


def printable(text: str) -> str:
    """Text with control and undecodable characters escaped, so that no file name can steer a terminal."""
    return "".join(c.encode("unicode_escape", "surrogatepass").decode() if _steers(c) else c for c in text)


def _steers(character: str) -> bool:
    """Whether a terminal may obey it, or break the line at it."""
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def brief(value: object) -> str:
    """What somebody passed, as Python writes it: on one line, and its beginning alone where it is long."""
    text = " ".join(repr(value).split())
    return f"{text[:60]}{'...' if len(text) > 60 else ''}"


def first_few(names: Sequence[str], shown: int = 3, between: str = ", ") -> str:
    """Names in a sentence: the first `shown` of them, and how many more there are.

    >>> first_few(["apple", "pear", "plum"], 2)
    'apple, pear and 1 more'
    """
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return between.join(names[:shown]) + more


def number(n: int, what: str) -> str:
    """`1 picture`, `2,000 pictures`, `3 classes`."""
    return f"{n:,} {what}{'' if n == 1 else 'es' if what.endswith('s') else 's'}"


def not_used(what: str, names: Sequence[str]) -> str:
    """`column a not used`, `columns a, b not used`."""
    return f"{what}{'s' if len(names) > 1 else ''} {', '.join(names)} not used"


def be(n: int) -> str:
    """What follows `number`: `1 picture is`, `2 pictures are`."""
    return "is" if n == 1 else "are"


def json_text(value: Any) -> str:
    """A value as JSON that a terminal may show: what could steer it stands in JSON's own escapes."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return "".join(json.dumps(c)[1:-1] if _steers(c) and c != "\n" else c for c in text)


_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


def visible(text: str) -> str:
    """`printable` of a whole document: its line ends and tabs stay, other control characters are shown escaped."""
    return _UNSEEN.sub(lambda found: printable(found[0]), text)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """CSV text whose names no spreadsheet takes for formulas."""
    return csv_line(header) + "".join(csv_line(row) for row in rows)


def csv_line(row: Iterable[object]) -> str:
    """One row of a CSV: names as `data_cell` has them, fractions to six places.

    Quoted where a reader needs it; Python's own writer before 3.13 leaves a lone carriage return bare.
    """
    cells = (data_cell(c) if isinstance(c, str) else f"{c:.6f}" if isinstance(c, float) else str(c) for c in row)
    return ",".join(f'"{c.replace(chr(34), 2 * chr(34))}"' if _QUOTED.search(c) else c for c in cells) + "\n"


_QUOTED = re.compile('[,"\r\n]|^\\s|\\s$')
