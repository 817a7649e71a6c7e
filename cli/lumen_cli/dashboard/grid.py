"""A table that changes only where its rows do: redrawing all of it four times a second would cost a core."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.text import Text
from textual.widgets import DataTable

from lumen_cli.dashboard.rows import Row

# Rows drawn; more do not fit on a screen, and filtering finds the others.
MOST = 200
_COLOURS = {
    "closed": "green",
    "ready": "green",
    "ok": "green",
    "open": "red",
    "crashed": "red",
    "half_open": "yellow",
    "starting": "yellow",
    "probing": "yellow",
    "asleep": "blue",
    "off": "dim",
    "cancelled": "dim",
    "…": "cyan",
}


class Grid(DataTable[Text]):
    """Rows by key. `show` leaves the cursor on the row it is on, wherever that row goes."""

    def __init__(self, columns: Sequence[str], **options: Any) -> None:
        super().__init__(cursor_type="row", zebra_stripes=True, **options)
        self._names = columns
        self._shown: list[Row] = []

    def on_mount(self) -> None:
        for name in self._names:
            self.add_column(name, key=name)

    def show(self, rows: Sequence[Row]) -> None:
        """Make the table say this."""
        wanted = list(rows[:MOST])
        if wanted == self._shown:
            return
        if [key for key, _ in wanted] == [key for key, _ in self._shown]:
            for (key, cells), (_, before) in zip(wanted, self._shown, strict=True):
                for name, cell, old in zip(self._names, cells, before, strict=True):
                    if cell != old:
                        self.update_cell(key, name, _text(cell), update_width=True)
        else:
            self._replace(wanted)
        self._shown = wanted

    @property
    def chosen(self) -> str | None:
        """The key of the row the cursor is on."""
        if not self._shown or not 0 <= self.cursor_row < len(self._shown):
            return None
        return self._shown[self.cursor_row][0]

    def _replace(self, rows: Sequence[Row]) -> None:
        at, top = self.chosen, self.scroll_y
        self.clear()
        for key, cells in rows:
            self.add_row(*map(_text, cells), key=key)
        keys = [key for key, _ in rows]
        if at in keys:
            self.move_cursor(row=keys.index(at), animate=False, scroll=False)
        self.scroll_y = top


def _text(cell: str) -> Text:
    return Text(cell, style=_COLOURS.get(cell.partition(" ")[0], ""))
