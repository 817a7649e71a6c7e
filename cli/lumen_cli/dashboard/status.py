"""The line above all panes: is anything wrong? And the figures that say how much goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from lumen_cli.dashboard.board import Board, Totals
from lumen_cli.dashboard.fit import cut
from lumen_cli.dashboard.words import Cell, clock, dollars, grade, short_ms, toned


class Status(Widget):
    """One line, seen from every pane, coloured by the worst that is wrong."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._left = self._right = ""

    def show(self, board: Board) -> None:
        alarms, totals = board.alarms(), board.totals
        left = " ● all is well"
        if alarms:
            more = f"  (+{len(alarms) - 1})" if len(alarms) > 1 else ""
            left = f" ▲ {alarms[0].text}{more}"
        right = f"{totals.rps:.1f} requests/s  {dollars(totals.spent)} today  {clock(board.at)} "
        if board.lost:
            right = f"last heard of at {clock(board.at)} " if board.frame else ""
        if (left, right) != (self._left, self._right):
            self._left, self._right = left, right
            worst = alarms[0].level if alarms else "good"
            for level in ("good", "warn", "bad"):
                self.set_class(level == worst, level)
            self.refresh()

    @property
    def text(self) -> str:
        return self._left

    def render_line(self, y: int) -> Strip:
        width, right = self.size.width, f"  {self._right}"
        # What is wrong needs the room more than what goes on.
        room = width - len(right) if width - len(right) >= min(len(self._left), width // 2) else width
        text = cut(self._left, room) + (right if room < width else "")
        return Strip([Segment(text, self.rich_style)]).adjust_cell_length(width, self.rich_style)


class Tiles(Widget):
    """Names with their figures below, side by side."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"tiles--name", "tiles--warn", "tiles--bad"}

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._shown: Sequence[tuple[str, str]] = ()

    def show(self, totals: Totals) -> None:
        shown = tiles(totals)
        if shown != self._shown:
            self._shown = shown
            self.refresh()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if y > 1 or not self._shown:
            return Strip.blank(width, self.rich_style)
        widest = [max(len(name), len(figure)) + 2 for name, figure in self._shown]
        spare, segments = max(width - sum(widest), 0) // len(widest), []
        for pair, own in zip(self._shown, widest, strict=True):
            text = pair[y]
            segments.append(Segment(cut(f" {text}", own + spare), self._style(y, text)))
        return Strip(segments).adjust_cell_length(width, self.rich_style)

    def _style(self, y: int, text: str) -> Style:
        if y == 0:
            return self.get_component_rich_style("tiles--name")
        tone = text.tone if isinstance(text, Cell) else ""
        return (self.get_component_rich_style(f"tiles--{tone}") if tone else self.rich_style) + Style(bold=True)


def tiles(totals: Totals) -> Sequence[tuple[str, str]]:
    """The figures over all routes, of the last minute."""
    times = "/".join(map(short_ms, (totals.p50, totals.p95, totals.p99)))
    spent = dollars(totals.spent)
    if totals.budget:
        spent = grade(f"{spent} of {dollars(totals.budget)}", totals.spent / totals.budget, 0.9, 1.0)
    return (
        ("requests/s", f"{totals.rps:.1f}"),
        ("tokens/s", f"{totals.tps:.0f}"),
        ("first token ms", "-" if totals.p50 is None else times),
        ("errors", grade(f"{totals.errors:.1%}", totals.errors, 0.01, 0.05)),
        ("today", spent if totals.budget else toned(spent, "")),
        ("under way", str(totals.in_flight)),
    )
