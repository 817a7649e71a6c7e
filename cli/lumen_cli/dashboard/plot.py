"""A live plot of braille dots: several series over the same seconds, the newest at the right."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from lumen_cli.dashboard.fit import cut
from lumen_cli.dashboard.words import short_ms

Point = tuple[float | None, ...]

# The bit of a braille character by column and row of its 2 x 4 dots, from the top. Source: Unicode 15, 2800-28FF.
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_EMPTY = 0x2800
# Characters for the figures of the scale.
SCALE = 6


def ceiling(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, … that is not below `value`: a scale that does not move with every point."""
    top = 1.0
    while top < value:
        for factor in (2.0, 2.5, 2.0):
            top *= factor
            if top >= value:
                break
    return top


def dots(points: Sequence[Point], width: int, height: int, top: float) -> list[list[tuple[str, int]]]:
    """Lines of (character, series), from the top: what `width` x `height` characters show of the last points.

    `series`: the last one that has a dot in that character, -1 for none. Neighbours are joined, gaps stay gaps.
    """
    bits = [[_EMPTY] * width for _ in range(height)]
    owner = [[-1] * width for _ in range(height)]
    shown = points[-2 * width :]
    begin = 2 * width - len(shown)
    for series in range(len(shown[0]) if shown else 0):
        before: int | None = None
        for x, point in enumerate(shown, start=begin):
            value = point[series]
            if value is None:
                before = None
                continue
            y = round((1.0 - min(value / top, 1.0)) * (4 * height - 1))
            last = y if before is None else before
            for step in range(min(y, last), max(y, last) + 1):
                bits[step // 4][x // 2] |= _DOTS[x % 2][step % 4]
                owner[step // 4][x // 2] = series
            before = y
    lines = zip(bits, owner, strict=True)
    return [[(" " if of < 0 else chr(bit), of) for bit, of in zip(*line, strict=True)] for line in lines]


class Plot(Widget):
    """Times to the first token of one route, in milliseconds: p99, p95 and p50, the last one drawn over the others."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"plot--p50", "plot--p95", "plot--p99", "plot--name", "plot--scale"}
    _SERIES = ("p99", "p95", "p50")

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.route = ""
        self._points: Sequence[Point] = ()
        self._top = 1.0
        self._lines: Sequence[Sequence[tuple[str, int]]] = ()

    def show(self, name: str, points: Sequence[Point]) -> None:
        """`points`: one a second, (p50, p95, p99) each."""
        turned = [point[::-1] for point in points]
        if (name, turned) != (self.route, self._points):
            self.route, self._points = name, turned
            self._draw()

    def on_resize(self) -> None:
        self._draw()

    def _draw(self) -> None:
        told = [value for point in self._points for value in point if value is not None]
        self._top = ceiling(max(told, default=1.0))
        width, height = self.size
        self._lines = dots(self._points, max(width - SCALE, 1), max(height - 1, 1), self._top)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if y == 0:
            return self._title(width)
        if y > len(self._lines):
            return Strip.blank(width, self.rich_style)
        scale = {1: short_ms(self._top), len(self._lines): "0"}.get(y, "")
        segments = [Segment(cut(scale, SCALE - 1, right=True) + " ", self._style("scale"))]
        for series, run in groupby(self._lines[y - 1], key=itemgetter(1)):
            style = self.rich_style if series < 0 else self._style(self._SERIES[series])
            segments.append(Segment("".join(character for character, _ in run), style))
        return Strip(segments).adjust_cell_length(width, self.rich_style)

    def _title(self, width: int) -> Strip:
        now = self._points[-1] if self._points else (None, None, None)
        figures = [f" {name} {short_ms(value)}" for name, value in zip(self._SERIES, now, strict=True)]
        room = max(width - sum(map(len, figures)), 1)
        segments = [Segment(cut(self.route, min(room, len(self.route))), self._style("name"))]
        segments += [Segment(text, self._style(name)) for name, text in zip(self._SERIES, figures, strict=True)][::-1]
        return Strip(segments).adjust_cell_length(width, self.rich_style)

    def _style(self, part: str) -> Style:
        return self.get_component_rich_style(f"plot--{part}")
