"""`data.range`: which samples of pictures of more than 8 bits become black and white, as people give it."""

from collections.abc import Sequence
from typing import Annotated, Literal

from tyro.constructors import PrimitiveConstructorSpec

from headstart.records.validation import Real, must

Levels = Literal["auto", "percentile"] | tuple[float, float]
"""By name, or MIN and MAX."""

RIGHT = "auto, percentile, or two numbers MIN MAX, MIN below MAX"
_Apart = must(lambda pair: pair[0] < pair[1], "two numbers, MIN below MAX")


def typed(words: Sequence[str]) -> Levels:
    """Of the words behind the option. Raises ValueError with what would be right."""
    match list(words):
        case ["auto"]:
            return "auto"
        case ["percentile"]:
            return "percentile"
        case [low, high]:
            try:
                return float(low), float(high)
            except ValueError:
                pass
    raise ValueError(f"it must be {RIGHT}; DATA stands before it, or another option between")


def shown(levels: Levels) -> str:
    """As the command line takes them."""
    return levels if isinstance(levels, str) else "{:g} {:g}".format(*levels)


Given = Annotated[
    Literal["auto", "percentile"] | Annotated[tuple[Real, Real], _Apart],
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="auto|percentile|MIN MAX",
        instance_from_str=typed,
        is_instance=lambda value: isinstance(value, (str, tuple)),
        str_from_instance=lambda value: shown(value).split(),
    ),
]
"""The type of the setting."""
