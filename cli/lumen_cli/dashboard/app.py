"""The application: tabs, keys, and the one connection that feeds them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar
from urllib.parse import quote

from textual.app import App, ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Footer, Input, TabbedContent, TabPane

from lumen_cli.client import Admin
from lumen_cli.dashboard import telling
from lumen_cli.dashboard.board import Board
from lumen_cli.dashboard.grid import Grid
from lumen_cli.dashboard.panes import PANES, Pane, Requests
from lumen_cli.dashboard.status import Status
from lumen_cli.dashboard.windows import Log, Told
from lumen_cli.errors import CliError

# Seconds before another try to reach a gateway that is gone.
_AGAIN = 1.0
# Where the keys that are not everywhere mean something: action → pane.
_ONLY = {
    "steer": "targets", "cancel": "requests", "follow": "requests", "decide": "trials",
    "model": "engines", "log": "engines",
}  # fmt: skip


class Dashboard(App[None]):
    """`lumen top`.

    Args:
        admin: the gateway's admin API; its `events` feed the board.
    """

    TITLE = "Lumen"
    CSS_PATH = "dashboard.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(number), f"pane('{name}')", show=False) for number, (name, _) in enumerate(PANES, 1)),
        Binding("question_mark", "help", "Help"),
        Binding("e", "steer('eject')", "Eject"),
        Binding("r", "steer('restore')", "Restore"),
        Binding("d", "steer('drain')", "Drain"),
        Binding("slash", "filter", "Filter"),
        Binding("escape", "leave_filter", show=False),
        Binding("f", "follow", "Follow"),
        Binding("c", "cancel", "End request"),
        Binding("s", "model('sleep')", "Sleep"),
        Binding("w", "model('wake')", "Wake"),
        Binding("R", "model('restart')", "Restart"),
        Binding("l", "log", "Log"),
        Binding("a", "decide('approve')", "Approve"),
        Binding("b", "decide('rollback')", "Roll back"),
        Binding("y", "copy", "Copy"),
        Binding("t", "light", "Light/dark", show=False),
        Binding("q", "quit", "Quit"),
    ]

    def __init__(self, admin: Admin) -> None:
        super().__init__()
        self._admin = admin
        self.board = Board()

    def compose(self) -> ComposeResult:
        yield Status()
        with TabbedContent(initial="overview"):
            for number, (name, make) in enumerate(PANES, start=1):
                with TabPane(f"{number} {name.capitalize()}", id=name):
                    yield make()
        yield Footer()

    def on_ready(self) -> None:
        # Not before: the tabs choose their first pane while they are mounted, whatever was chosen by then.
        self.run_worker(self._listen(), exclusive=True)

    async def _listen(self) -> None:
        """Take in frames for as long as the dashboard is open; a gateway that is gone may come back."""
        while True:
            try:
                async for frame in self._admin.events():
                    self.board.take(frame)
                    self.draw()
            except CliError as error:
                self.board.lose(f"no connection: {error}")
                self.draw()
            await asyncio.sleep(_AGAIN)

    def draw(self) -> None:
        """Show the board in the pane that is seen; the others are drawn when they are."""
        if not self._there():
            return
        self.screen_stack[0].query_one(Status).show(self.board)
        self._tabs().set_class(self.board.lost is not None, "stale")
        self._pane().refresh_from(self.board)

    def on_tabbed_content_tab_activated(self) -> None:
        self._enter()

    def _enter(self) -> None:
        """A pane comes to be seen."""
        if not self._there():
            return
        self.draw()
        self.refresh_bindings()
        if isinstance(self.focused, Input):
            return
        # So that the arrows and Enter go to the table without a Tab first.
        for widget in self._pane().query("Grid, VerticalScroll"):
            if widget.display and widget.can_focus:
                widget.focus(scroll_visible=False)
                break

    def _there(self) -> bool:
        """Whether there is a screen: frames and messages come before it and after it, too."""
        stack = self.screen_stack
        return bool(stack) and bool(stack[0].query(Status)) and bool(stack[0].query(Grid))

    def _pane(self) -> Pane:
        return self._tabs().get_pane(self.active).query_one(Pane)

    def _tabs(self) -> TabbedContent:
        # On the first screen: a window over it has no tabs.
        return self.screen_stack[0].query_one(TabbedContent)

    @property
    def active(self) -> str:
        """The name of the pane that is seen."""
        return self._tabs().active

    @property
    def chosen(self) -> str | None:
        """The key of the row the cursor is on."""
        return self._pane().chosen

    # -- keys --------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys mean something only where what they change is seen."""
        return action not in _ONLY or _ONLY[action] == self.active

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """Every key that means something now, for the palette, with what Textual itself has."""
        yield from super().get_system_commands(screen)
        for binding in self.BINDINGS:
            if not isinstance(binding, Binding) or not binding.description:
                continue
            name, *_ = binding.action.split("(")
            if name not in ("quit", "help") and self.check_action(name, ()):
                about = f"{self.chosen}" if name in _ONLY and self.chosen else "Everywhere"
                key = self.get_key_display(binding)
                yield SystemCommand(binding.description, f"{about}: {key}", self._runs(binding.action))
        for name, _ in PANES:
            yield SystemCommand(f"Go to {name.capitalize()}", "A pane", self._runs(f"pane('{name}')"))
        yield SystemCommand("Help", "What every key does", self.action_help)

    def _runs(self, action: str) -> Any:
        async def run() -> None:
            await self.run_action(action)

        return run

    def action_pane(self, name: str) -> None:
        self._tabs().active = name
        self.call_after_refresh(self._enter)

    def action_help(self) -> None:
        self.push_screen(Told(telling.KEYS.splitlines(), title="Keys"))

    def action_filter(self) -> None:
        self._tabs().active = "requests"
        self.query_one(Requests).ask()

    def action_leave_filter(self) -> None:
        if isinstance(self.focused, Input):
            self.query_one(Requests).answered()

    def on_input_changed(self) -> None:
        self.draw()

    def on_input_submitted(self) -> None:
        self.action_leave_filter()

    def action_follow(self) -> None:
        pane = self.query_one(Requests)
        pane.follow = not pane.follow
        self.notify("following the newest" if pane.follow else "staying here")

    def action_light(self) -> None:
        self.theme = "textual-light" if self.current_theme.dark else "textual-dark"

    def action_copy(self) -> None:
        if self.chosen:
            kind, _, rest = self.chosen.partition(" ")
            word = rest if self.active == "trials" else kind
            self.copy_to_clipboard(word)
            self.notify(f"copied {word}")

    def on_grid_moved(self) -> None:
        if self.active == "routes":
            self.draw()

    def on_grid_opened(self, event: Grid.Opened) -> None:
        match self.active:
            case "requests" | "failovers":
                self.run_worker(self._open_request(event.key.partition(" ")[0]))
            case "trials":
                self.run_worker(self._open_trial(*event.key.split(" ", 1)))
            case "targets":
                for one in self.board.frame.get("targets", ()):
                    if one["name"] == event.key:
                        self.push_screen(Told(telling.target(one, self.board.at), event.key, "Target"))
            case "engines":
                self.action_log()

    async def _open_request(self, request: str) -> None:
        found = await self._ask("get", f"/admin/requests/{request}")
        if found is not None:
            here = [one for one in self.board.frame.get("failovers", ()) if one["request_id"] == request]
            self.push_screen(Told(telling.request(found, here), request, "Request"))

    async def _open_trial(self, kind: str, route: str) -> None:
        found = await self._ask("get", f"/admin/{kind}/{quote(route, safe='/')}")
        if found is not None:
            self.push_screen(Told(telling.sides(found), title=kind.capitalize()))

    def action_log(self) -> None:
        model, _, number = (self.chosen or "").rpartition(" ")
        if number.isdecimal():

            async def read() -> Sequence[str] | None:
                found = await self._ask("get", f"/admin/logs/{quote(model)}/{number}")
                return None if found is None else found["lines"]

            self.push_screen(Log(read, f"{model} #{number}"))

    def action_cancel(self) -> None:
        if self.chosen:
            self._do("/admin/cancel", {"request": self.chosen}, f"ended {self.chosen}")

    def action_steer(self, action: str) -> None:
        if self.chosen:
            self._do("/admin/targets", {"target": self.chosen, "action": action}, f"{action}: {self.chosen}")

    def action_model(self, action: str) -> None:
        if self.chosen:
            model = self.chosen.rpartition(" ")[0]
            self._do(f"/admin/{action}", {"model": model}, f"{action}: {model}")

    def action_decide(self, action: str) -> None:
        kind, _, route = (self.chosen or "").partition(" ")
        if kind == "canary":
            self._do("/admin/canary", {"route": route, "action": action, "options": "{}"}, f"{action}: {route}")

    def _do(self, path: str, body: dict[str, Any], done: str) -> None:
        async def do() -> None:
            if await self._ask("post", path, body) is not None:
                self.notify(done)

        self.run_worker(do())

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """One call of the admin API, off the loop; what goes wrong is told in a corner, and `None` comes back."""
        try:
            call = (lambda: self._admin.get(path)) if method == "get" else (lambda: self._admin.post(path, body))
            return await asyncio.to_thread(call)
        except CliError as error:
            self.notify(str(error), severity="error")
            return None
