"""Drawings as SVG text: axes, marks and labels that follow the page's light or dark colours.

A drawing is about 360 units wide, so that its letters stay readable at a phone's width and several stand beside each
other on a desk. Colours are classes; templates/figure.css holds them, and a drawing saved as a file carries a copy.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from math import ceil, floor, isfinite, log10
from pathlib import Path

from headstart.records.names import HEAD_INITS

DECLARATION, ELEMENT = '<?xml version="1.0" encoding="UTF-8"?>\n', '<svg class="figure"'
BEGINNING = DECLARATION + ELEMENT
"""By it a figure of an earlier report is told from other people's files."""
WIDTH = 360
TEMPLATES = Path(__file__).parent / "templates"


def stylesheet() -> str:
    """The colours and letters of figures; each head init has the colour that it is registered with."""
    text = (TEMPLATES / "figure.css").read_text(encoding="utf-8")
    for place, which in enumerate(("light", "dark")):
        text = text.replace(f"/*{which}*/", ";".join(f"--{n}:{i.colour[place]}" for n, i in HEAD_INITS.items()))
    return text.replace("/*inits*/", "\n".join(f"svg.figure .init-{n}{{color:var(--{n})}}" for n in HEAD_INITS))


@dataclass(frozen=True)
class Scale:
    """A map from values to positions; logarithmic where `log`, with whole ticks only where `whole`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    whole: bool = False

    def __call__(self, value: float) -> float:
        """The position of a value."""
        low, high = (log10(self.low), log10(self.high)) if self.log else (self.low, self.high)
        value = log10(max(value, self.low * 1e-6)) if self.log else value
        return self.start + (value - low) / ((high - low) or 1.0) * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """Round values inside the range: about `count` of them; powers of ten where logarithmic."""
        if self.log and self.high < 100 * self.low:
            exponents = range(floor(log10(self.low)), ceil(log10(self.high)) + 1)
            return [v for e in exponents for m in (1, 2, 5) if self.low <= (v := m * 10.0**e) <= self.high]
        if self.log:
            powers = [10.0**e for e in range(ceil(log10(self.low) - 1e-9), floor(log10(self.high) + 1e-9) + 1)]
            return powers[:: max(1, ceil(len(powers) / count))]
        raw = (self.high - self.low) / max(count, 1) or 1.0
        power = 10.0 ** floor(log10(raw))
        step = next(s * power for s in (1, 2, 5, 10) if s * power >= raw * 0.999)
        step = max(step, 1.0) if self.whole else step
        first = ceil(self.low / step - 1e-9)
        return [k * step for k in range(first, floor(self.high / step + 1e-9) + 1)]


def scale(
    values: Iterable[float], start: float, end: float, *, zero: bool = False, log: bool = False, whole: bool = False
) -> Scale:
    """A scale that holds `values` with a little room (and zero, where asked for)."""
    finite = [v for v in values if isfinite(v)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if log:
        return Scale(low / 1.2, high * 1.2, start, end, log=True)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    room = (high - low) * 0.05 or max(abs(high) * 0.05, 0.5)
    return Scale(low - room, high + room, start, end, whole=whole)


def number(value: float) -> str:
    """A tick's label: short, with a real minus sign."""
    if value == 0:
        return "0"
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M".replace("-", "−")
    if abs(value) >= 1e4:
        return f"{value / 1e3:g}k".replace("-", "−")
    if abs(value) < 1e-3:
        return f"{value:.0e}".replace("e-0", "e-").replace("-", "−")
    return f"{round(value, 6):g}".replace("-", "−")


def _at(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


SHAPES = ("circle", "square", "triangle", "diamond", "down", "hexagon")
_POLYGONS = {
    "square": ((-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)),
    "triangle": ((0, -1.2), (1.1, 0.8), (-1.1, 0.8)),
    "diamond": ((0, -1.3), (1.15, 0), (0, 1.3), (-1.15, 0)),
    "down": ((0, 1.2), (1.1, -0.8), (-1.1, -0.8)),
    "hexagon": ((-1.1, 0), (-0.55, -0.95), (0.55, -0.95), (1.1, 0), (0.55, 0.95), (-0.55, 0.95)),
}


@dataclass
class Drawing:
    """An SVG in the making. `alt` is what a screen reader says instead."""

    height: float
    alt: str
    width: float = WIDTH
    parts: list[str] = field(default_factory=list)

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        """A straight line of a class: axis, rule, zero, interval."""
        self.parts.append(f'<line class="{kind}" x1="{_at(x1)}" y1="{_at(y1)}" x2="{_at(x2)}" y2="{_at(y2)}"/>')

    def text(self, x: float, y: float, text: str, kind: str = "label", anchor: str = "start") -> None:
        """Words; `anchor` start, middle or end."""
        where = "" if anchor == "start" else f' text-anchor="{anchor}"'
        self.parts.append(f'<text class="{kind}" x="{_at(x)}" y="{_at(y)}"{where}>{escape(text)}</text>')

    def mark(self, x: float, y: float, look: "Look", radius: float = 4.0, title: str = "", faint: bool = False) -> None:
        """A data point: shape and colour by init, hollow where trainable; `title` shows on hovering."""
        kind = f"mark {look.colour}{' hollow' if look.hollow else ''}{' faint' if faint else ''}"
        inside = f"<title>{escape(title)}</title>" if title else ""
        if look.shape == "circle":
            shape, place = "circle", f'cx="{_at(x)}" cy="{_at(y)}" r="{_at(radius)}"'
        else:
            corners = " ".join(f"{_at(x + radius * dx)},{_at(y + radius * dy)}" for dx, dy in _POLYGONS[look.shape])
            shape, place = "polygon", f'points="{corners}"'
        end = f">{inside}</{shape}>" if inside else "/>"
        self.parts.append(f'<{shape} class="{kind}" {place}{end}')

    def path(self, points: Sequence[tuple[float, float]], kind: str) -> None:
        """A line through points."""
        if len(points) > 1:
            steps = "L".join(f"{_at(x)} {_at(y)}" for x, y in points)
            self.parts.append(f'<path class="{kind}" d="M{steps}"/>')

    def area(self, x: float, y: float, width: float, height: float, kind: str, opacity: float, title: str = "") -> None:
        """A filled rectangle."""
        inside = f"<title>{escape(title)}</title>" if title else ""
        self.parts.append(
            f'<rect class="{kind}" x="{_at(x)}" y="{_at(y)}" width="{_at(width)}" height="{_at(height)}" '
            f'fill-opacity="{opacity:.2f}">{inside}</rect>'
        )

    def x_axis(self, axis: Scale, top: float, bottom: float, label: str, ticks: int | Sequence[float] = 5) -> None:
        """Grid lines, tick labels below, and the axis' name; `ticks` are about how many, or where."""
        for tick in axis.ticks(ticks) if isinstance(ticks, int) else ticks:
            self.line(axis(tick), top, axis(tick), bottom, "rule")
            self.text(axis(tick), bottom + 14, number(tick), "small", "middle")
        self.text((axis.start + axis.end) / 2, bottom + 30, label, "small", "middle")

    def y_axis(self, axis: Scale, left: float, right: float, label: str, count: int = 5) -> None:
        """Grid lines, tick labels at the left, and the axis' name above."""
        for tick in axis.ticks(count):
            self.line(left, axis(tick), right, axis(tick), "rule")
            self.text(left - 6, axis(tick) + 4, number(tick), "small", "end")
        self.text(0, axis.end - 10, label, "small")

    def legend(self, y: float, entries: Sequence[tuple[str, "Look"]]) -> None:
        """Marks with their names, two a line."""
        for i, (name, look) in enumerate(entries):
            x, at = (i % 2) * self.width / 2, y + (i // 2) * 18
            self.mark(x + 6, at - 4, look)
            self.text(x + 16, at, name, "small")

    def inline(self) -> str:
        """For the page, which has the colours."""
        return self._svg("")

    def standalone(self) -> str:
        """For a file of its own."""
        return DECLARATION + self._svg(f"<style>{stylesheet()}</style>") + "\n"

    def _svg(self, style: str) -> str:
        size = f"0 0 {_at(self.width)} {_at(self.height)}"
        return (
            f'{ELEMENT} xmlns="http://www.w3.org/2000/svg" viewBox="{size}" role="img" '
            f'aria-label="{escape(self.alt)}">{style}{"".join(self.parts)}</svg>'
        )


@dataclass(frozen=True)
class Look:
    """How a head is drawn: colour and shape say the init, hollow says trainable."""

    colour: str
    shape: str
    hollow: bool = False
