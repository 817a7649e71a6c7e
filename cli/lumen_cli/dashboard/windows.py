"""What opens over the panes: lines to read, and a log that goes on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

# Seconds between two looks at a log.
_AGAIN = 1.0


class Told(ModalScreen[None]):
    """Some lines, until a key is pressed. `copies`: what `y` copies of it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,q,question_mark", "dismiss", "Close"),
        Binding("y", "copy", "Copy", show=False),
    ]

    def __init__(self, lines: Sequence[str], copies: str = "", title: str = "") -> None:
        super().__init__()
        self._lines, self._copies, self._named = lines, copies, title

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="window") as window:
            window.border_title = self._named
            window.border_subtitle = "Esc closes" + (", y copies the id" if self._copies else "")
            yield Static(self.text, markup=False, id="told")

    def on_mount(self) -> None:
        self._fold()

    def on_resize(self) -> None:
        self._fold()

    def _fold(self) -> None:
        """As wide as the longest line, where that fits; else lines are folded."""
        longest = max(map(len, self.text.splitlines()), default=0)
        self.query_one("#told", Static).styles.width = min(longest, self.app.size.width * 96 // 100 - 7)

    @property
    def text(self) -> str:
        return "\n".join(self._lines)

    def action_copy(self) -> None:
        if self._copies:
            self.app.copy_to_clipboard(self._copies)
            self.notify(f"copied {self._copies}")


class Log(Told):
    """The last lines of a log, read again every second; its end stays in sight unless one scrolled away from it.

    Args:
        read: the lines now, or `None` where they cannot be had.
    """

    def __init__(self, read: Callable[[], Awaitable[Sequence[str] | None]], title: str) -> None:
        super().__init__(("It wrote nothing yet.",), title=title)
        self._read = read

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one("#window").add_class("log")
        self.set_interval(_AGAIN, self._look)
        self._look()

    @work(exclusive=True)
    async def _look(self) -> None:
        lines = await self._read()
        if not lines or list(lines) == self._lines:
            return
        window = self.query_one("#window", VerticalScroll)
        end = window.is_vertical_scroll_end
        self._lines = list(lines)
        self._fold()
        self.query_one("#told", Static).update(self.text)
        if end:
            window.scroll_end(animate=False)
