"""The application: tabs, keys, and the one connection that feeds them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar
from urllib.parse import quote

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen
from textual.widgets import Footer, Header, Input, Static, TabbedContent, TabPane

from lumen_cli.client import Admin
from lumen_cli.dashboard import rows
from lumen_cli.dashboard.board import Board
from lumen_cli.dashboard.grid import Grid
from lumen_cli.dashboard.panes import Listing, Overview, Pane, Requests
from lumen_cli.errors import CliError

# Seconds before another try to reach a gateway that is gone.
_AGAIN = 1.0
_HELP = """\
1–7      the panes; Tab and the arrows move, Enter opens
Enter    a request or failover: its whole story; a trial: both sides
/        filter the requests, Esc leaves the filter
f        follow the newest request, or stay where you are
c        end the chosen request
e r d    eject, restore, drain the chosen target
R        restart the chosen model
a b      approve the chosen canary, or roll it back
y        copy the id or name of the chosen row
t        light or dark
Ctrl+P   every command by name
q        leave; nothing here stops the gateway"""


class Told(ModalScreen[None]):
    """Some lines over the screen, until a key is pressed."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,enter,q,question_mark", "dismiss", "Close")]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        yield Static(self._text, markup=False, id="told")


class Dashboard(App[None]):
    """`lumen top`.

    Args:
        admin: the gateway's admin API; its `events` feed the board.
    """

    TITLE = "Lumen"
    CSS_PATH = "dashboard.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(number + 1), f"pane('{name}')", show=False) for number, name in enumerate(
            ("overview", "targets", "failovers", "requests", "routes", "engines", "trials"))),
        Binding("question_mark", "help", "Help"),
        Binding("slash", "filter", "Filter"),
        Binding("escape", "leave_filter", show=False),
        Binding("f", "follow", "Follow", show=False),
        Binding("c", "cancel", "End request", show=False),
        Binding("e", "steer('eject')", "Eject", show=False),
        Binding("r", "steer('restore')", "Restore", show=False),
        Binding("d", "steer('drain')", "Drain", show=False),
        Binding("R", "restart", "Restart model", show=False),
        Binding("a", "decide('approve')", "Approve", show=False),
        Binding("b", "decide('rollback')", "Roll back", show=False),
        Binding("y", "copy", "Copy", show=False),
        Binding("t", "light", "Light/dark", show=False),
        Binding("q", "quit", "Quit"),
    ]  # fmt: skip

    def __init__(self, admin: Admin) -> None:
        super().__init__()
        self._admin = admin
        self.board = Board()

    def compose(self) -> ComposeResult:
        yield Header(show_clock=True)
        with TabbedContent(initial="overview"):
            with TabPane("1 Overview", id="overview"):
                yield Overview()
            with TabPane("2 Targets", id="targets"):
                yield Listing(
                    rows.TARGETS, lambda b: rows.targets(b.frame.get("targets", [])), "No target was asked yet."
                )
            with TabPane("3 Failovers", id="failovers"):
                yield Listing(
                    rows.FAILOVERS,
                    lambda b: rows.failovers(b.frame.get("failovers", ())),
                    "Nothing had to go on elsewhere.",
                )
            with TabPane("4 Requests", id="requests"):
                yield Requests()
            with TabPane("5 Routes", id="routes-tab"):
                yield Listing(
                    rows.ROUTES, lambda b: rows.routes(b.frame.get("routes", {})), "No route was asked for yet."
                )
            with TabPane("6 Engines", id="engines"):
                yield Listing(
                    rows.REPLICAS, lambda b: rows.replicas(b.frame.get("models", ())), "No local model is configured."
                )
            with TabPane("7 Trials", id="trials"):
                yield Listing(
                    rows.TRIALS,
                    lambda b: rows.trials(b.frame.get("trials") or {}),
                    "No shadow and no canary. See: lumen shadow start --help",
                )
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
                self.board.lose(str(error))
                self.draw()
            await asyncio.sleep(_AGAIN)

    def draw(self) -> None:
        """Show the board in the pane that is seen; the others are drawn when they are."""
        self.sub_title = "no connection" if self.board.lost else f"{self.board.totals.rps:.1f} requests/s"
        self._pane().refresh_from(self.board)

    def on_tabbed_content_tab_activated(self) -> None:
        self._enter()

    def _enter(self) -> None:
        """A pane comes to be seen."""
        self.draw()
        if isinstance(self.focused, Input):
            return
        # So that the arrows and Enter go to the table without a Tab first.
        for grid in self._pane().query(Grid):
            if grid.display:
                grid.focus(scroll_visible=False)
                break

    def _pane(self) -> Pane:
        return self._tabs().get_pane(self._tabs().active).query_one(Pane)

    def _tabs(self) -> TabbedContent:
        # On the first screen: a window over it has no tabs.
        return self.screen_stack[0].query_one(TabbedContent)

    def _chosen(self) -> str | None:
        pane = self._pane()
        return pane.chosen if isinstance(pane, Listing) else None

    # -- keys --------------------------------------------------------------------------------------------

    def action_pane(self, name: str) -> None:
        self._tabs().active = "routes-tab" if name == "routes" else name
        self.call_after_refresh(self._enter)

    def action_help(self) -> None:
        self.push_screen(Told(_HELP))

    def action_filter(self) -> None:
        self._tabs().active = "requests"
        self.query_one("#filter", Input).focus()

    def action_leave_filter(self) -> None:
        self.query_one(Requests).query_one(Grid).focus()

    def action_follow(self) -> None:
        pane = self.query_one(Requests)
        pane.follow = not pane.follow
        self.notify("following the newest" if pane.follow else "staying here")

    def action_light(self) -> None:
        self.theme = "textual-light" if self.current_theme.dark else "textual-dark"

    def action_copy(self) -> None:
        if chosen := self._chosen():
            word = chosen.partition(" ")[0]
            self.copy_to_clipboard(word)
            self.notify(f"copied {word}")

    def on_data_table_row_selected(self) -> None:
        chosen = self._chosen()
        if chosen and self._tabs().active in ("requests", "failovers"):
            self.run_worker(self._open(f"/admin/requests/{chosen.partition(' ')[0]}", rows.tries))
        elif chosen and self._tabs().active == "trials":
            kind, _, route = chosen.partition(" ")
            self.run_worker(self._open(f"/admin/{kind}/{quote(route, safe='/')}", rows.sides))

    async def _open(self, path: str, told: Callable[[dict[str, Any]], list[str]]) -> None:
        found = await self._ask("get", path)
        if found is not None:
            self.push_screen(Told("\n".join(told(found))))

    def action_cancel(self) -> None:
        if self._tabs().active == "requests" and (chosen := self._chosen()):
            self.run_worker(self._ask("post", "/admin/cancel", {"request": chosen}))

    def action_steer(self, action: str) -> None:
        if self._tabs().active == "targets" and (chosen := self._chosen()):
            self.run_worker(self._ask("post", "/admin/targets", {"target": chosen, "action": action}))

    def action_restart(self) -> None:
        if self._tabs().active == "engines" and (chosen := self._chosen()):
            self.run_worker(self._ask("post", "/admin/restart", {"model": chosen.rpartition(" ")[0] or chosen}))

    def action_decide(self, action: str) -> None:
        chosen = self._chosen() if self._tabs().active == "trials" else None
        kind, _, route = (chosen or "").partition(" ")
        if kind == "canary":
            body = {"route": route, "action": action, "options": "{}"}
            self.run_worker(self._ask("post", "/admin/canary", body))

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """One call of the admin API, off the loop; what goes wrong is told in a corner."""
        try:
            call = (lambda: self._admin.get(path)) if method == "get" else (lambda: self._admin.post(path, body))
            answer = await asyncio.to_thread(call)
        except CliError as error:
            self.notify(str(error), severity="error")
            return None
        if method == "post":
            self.notify("done")
        return answer
