"""A table of live rows: only what is on the screen is drawn, because all of it changes four times a second.

Columns that do not fit are left out, the least important first, so that there is nothing to scroll to the side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.events import Click, Resize
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from lumen_cli.dashboard.fit import GAP, Column, cut, fit
from lumen_cli.dashboard.rows import Row
from lumen_cli.dashboard.words import TONES

# Rows kept; filtering finds the others.
MOST = 200


class Grid(ScrollView):
    """Rows by key. The cursor stays on the row it is on, wherever that row goes.

    Args:
        chooses: whether it has a cursor; without one it is only looked at.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {"grid--head", "grid--cursor", *(f"grid--{tone}" for tone in TONES)}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home", "move(-100000)", show=False),
        Binding("end", "move(100000)", show=False),
        Binding("enter", "open", show=False),
    ]

    class Opened(Message):
        """Somebody wants to know more of the row with this key."""

        def __init__(self, key: str) -> None:
            super().__init__()
            self.key = key

    class Moved(Message):
        """The cursor went to another row."""

    def __init__(self, columns: Sequence[Column], *, chooses: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.can_focus = chooses
        self._columns = columns
        self._natural = [len(column.name) for column in columns]
        self._layout: list[tuple[int, int]] = []
        self._laid_out = -1
        self._rows: Sequence[Row] = ()
        self._at = 0

    def show(self, rows: Sequence[Row], *, follow: bool = False) -> None:
        """Make the table say this. `follow`: the cursor goes to the first row."""
        rows = rows[:MOST]
        if rows == self._rows:
            return
        chosen, count = self.chosen, len(self._rows)
        self._rows = rows
        # Never narrower again: a table whose columns jump cannot be read.
        for _, cells in rows:
            for at, cell in enumerate(cells):
                if len(cell) > self._natural[at]:
                    self._natural[at] = len(cell)
        if follow:
            self._at = 0
        elif chosen is not None:
            self._at = next((at for at, (key, _) in enumerate(rows) if key == chosen), self._at)
        self._at = min(self._at, max(len(rows) - 1, 0))
        self._fit()
        if len(rows) != count:
            self.virtual_size = Size(0, len(rows) + 1)
        if chosen is not None:
            self._reveal()
        self.refresh()

    @property
    def chosen(self) -> str | None:
        """The key of the row the cursor is on."""
        return self._rows[self._at][0] if self._rows else None

    @property
    def row_count(self) -> int:
        return len(self._rows)

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if width != self._laid_out:
            # On a slow machine the screen is drawn before the message comes that tells of the size.
            self._fit()
        row = y - 1 + self.scroll_offset.y
        if y == 0:
            style = self.get_component_rich_style("grid--head")
            cells: Sequence[str] = [column.name for column in self._columns]
        elif 0 <= row < len(self._rows):
            chosen = self.can_focus and row == self._at
            style = self.get_component_rich_style("grid--cursor") if chosen else self.rich_style
            cells = self._rows[row][1]
        else:
            return Strip.blank(width, self.rich_style)
        return self._line(cells, style, width)

    def _line(self, cells: Sequence[str], style: Style, width: int) -> Strip:
        segments = [Segment(" ", style)]
        for at, size in self._layout:
            text = cut(cells[at], size, right=self._columns[at].right)
            tone = getattr(cells[at], "tone", "")
            own = style + self.get_component_rich_style(f"grid--{tone}", partial=True) if tone else style
            segments += [Segment(text, own), Segment(" " * GAP, style)]
        return Strip(segments).adjust_cell_length(width, style).simplify()

    def _fit(self) -> None:
        self._laid_out = self.size.width
        self._layout = fit(self._columns, self._natural, max(self._laid_out - 2, 1))

    def on_resize(self, event: Resize) -> None:
        self._fit()
        self._reveal()
        self.refresh()

    def on_click(self, event: Click) -> None:
        row = event.y - 1 + self.scroll_offset.y
        if not self.can_focus or event.y == 0 or row >= len(self._rows):
            return
        if row == self._at:
            self.action_open()
        else:
            self.action_move(row - self._at)

    def action_move(self, by: int) -> None:
        if self._rows:
            self._at = min(max(self._at + by, 0), len(self._rows) - 1)
            self._reveal()
            self.refresh()
            self.post_message(self.Moved())

    def action_page(self, by: int) -> None:
        self.action_move(by * max(self.size.height - 2, 1))

    def action_open(self) -> None:
        if self.chosen is not None:
            self.post_message(self.Opened(self.chosen))

    def _reveal(self) -> None:
        """Scroll so that the cursor is seen; the head takes the first line."""
        shown = max(self.size.height - 1, 1)
        top = self.scroll_offset.y
        if self._at < top:
            self.scroll_to(y=self._at, animate=False)
        elif self._at >= top + shown:
            self.scroll_to(y=self._at - shown + 1, animate=False)
