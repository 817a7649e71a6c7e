"""The dashboard as a person drives it: keys and clicks in, calls of the admin API and screens out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from lumen_cli.dashboard import app as dashboard
from lumen_cli.dashboard.app import Dashboard
from lumen_cli.dashboard.grid import Grid
from lumen_cli.dashboard.panes import Listing, Pane, Requests
from lumen_cli.dashboard.plot import Plot
from lumen_cli.dashboard.status import Status
from lumen_cli.dashboard.windows import Log, Told
from lumen_cli.errors import CliError
from textual.command import CommandPalette
from textual.pilot import Pilot
from textual.widgets import Input

from tests.dashboard.fake_admin import FakeAdmin
from tests.dashboard.frames import AT, DEGRADED, OK, REPORT, TRACE, ended, frame, model, replica
from tests.dashboard.waiting import until

pytestmark = pytest.mark.anyio
SIZE = (120, 36)
SECOND = "req_000000000000000000000002"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Desk:
    """A dashboard at work, and whoever sits before it."""

    def __init__(self, app: Dashboard, admin: FakeAdmin, pilot: Pilot[None]) -> None:
        self.app, self.admin, self.pilot = app, admin, pilot

    async def go(self, pane: str) -> None:
        await self.pilot.press(str([name for name, _ in dashboard.PANES].index(pane) + 1))
        await self.until(lambda: self.app.active == pane and not isinstance(self.app.focused, Input))

    async def until(self, true: Callable[[], Any]) -> None:
        await until(self.pilot, true)

    async def show(self, shown: dict[str, Any]) -> None:
        self.admin.frames.put_nowait(shown)
        await self.until(lambda: self.app.board.frame is shown)

    async def asked(self, path: str, body: dict[str, Any]) -> None:
        """Wait for exactly this to be asked, last."""
        await self.until(lambda: self.admin.calls and self.admin.calls[-1] == (path, body))

    async def told(self) -> str:
        """The text of the window that opens."""
        await self.until(lambda: isinstance(self.app.screen, Told))
        assert isinstance(self.app.screen, Told)
        return self.app.screen.text

    def listing(self, kind: type[Listing] = Listing) -> Listing:
        pane = self.app.query_one(f"#{self.app.active}").query_one(Pane)
        assert isinstance(pane, kind)
        return pane

    @property
    def notes(self) -> list[str]:
        return [note.message for note in self.app._notifications]


@asynccontextmanager
async def desk(shown: dict[str, Any] = OK, size: tuple[int, int] = SIZE) -> AsyncIterator[Desk]:
    admin = FakeAdmin(shown)
    app = Dashboard(admin)
    app.animation_level = "none"
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.board.frame)
        yield Desk(app, admin, pilot)


async def test_what_is_wrong_is_seen_from_every_pane_and_a_lost_connection_is_found_again(monkeypatch: Any) -> None:
    monkeypatch.setattr(dashboard, "_AGAIN", 0.01)
    async with desk() as at:
        bar = at.app.query_one(Status)
        await at.until(lambda: "all is well" in bar.text and bar.has_class("good"))
        await at.go("requests")
        at.admin.frames.put_nowait(None)
        await at.until(lambda: bar.has_class("bad"))
        assert "no connection" in bar.text and at.listing().grid.row_count == 3, "what was known stays to be seen"
        await at.show(DEGRADED)
        await at.until(lambda: "used up" in bar.text and "(+" in bar.text)


async def test_enter_on_a_failover_and_on_a_request_opens_the_trace() -> None:
    async with desk() as at:
        at.admin.answers[f"/admin/requests/{SECOND}"] = TRACE
        await at.go("failovers")
        await at.until(lambda: at.app.chosen)
        await at.pilot.press("enter")
        told = await at.told()
        assert "upstream_disconnected" in told and "the client saw: one answer, continued" in told
        await at.pilot.press("y")
        assert at.notes == [f"copied {SECOND}"] and at.app.clipboard == SECOND
        await at.pilot.press("escape")
        assert not isinstance(at.app.screen, Told)
        await at.go("requests")
        await at.pilot.press("f", "down", "enter")
        assert "prefill at 120" in await at.told()


async def test_a_request_that_is_not_kept_any_more_says_so() -> None:
    async with desk() as at:
        at.admin.refuses = CliError("There is no such request among the last ones.")
        await at.go("requests")
        await at.pilot.press("enter")
        await at.until(lambda: at.notes)
        assert at.notes == ["There is no such request among the last ones."]
        assert not isinstance(at.app.screen, Told)


@pytest.mark.parametrize(("key", "action"), [("e", "eject"), ("r", "restore"), ("d", "drain")])
async def test_targets_are_steered_only_where_they_are_seen(key: str, action: str) -> None:
    async with desk() as at:
        await at.pilot.press(key)
        assert at.admin.calls == []
        await at.go("targets")
        await at.pilot.press("down", key)
        await at.asked("/admin/targets", {"target": "openai/best", "action": action})
        await at.until(lambda: at.notes == [f"{action}: openai/best"])
        assert len(at.admin.calls) == 1


async def test_enter_on_a_target_tells_all_of_it() -> None:
    async with desk(DEGRADED) as at:
        await at.go("targets")
        await at.pilot.press("enter")
        assert "tried again in 18 s" in await at.told()


async def test_requests_are_filtered_and_ended() -> None:
    async with desk() as at:
        await at.go("requests")
        await at.until(lambda: at.listing().grid.row_count == 3)
        await at.pilot.press("slash", *"code")
        await at.until(lambda: at.listing().grid.row_count == 1)
        assert at.app.chosen == SECOND
        await at.pilot.press("c")
        assert at.admin.calls == [], "what is typed into the filter is no key of the pane"
        await at.pilot.press("backspace", "escape", "c")
        await at.asked("/admin/cancel", {"request": SECOND})
        await at.pilot.press("slash", *["backspace"] * 4, "enter")
        await at.until(lambda: at.listing().grid.row_count == 3)


async def test_the_filter_is_reached_from_every_pane() -> None:
    async with desk() as at:
        await at.pilot.press("slash")
        await at.until(lambda: isinstance(at.app.focused, Input) and at.app.active == "requests")


async def test_the_cursor_follows_the_newest_or_stays_on_its_row() -> None:
    async with desk(frame(number=5, ended=[ended(i) for i in range(1, 6)], active=[])) as at:
        await at.go("requests")
        await at.until(lambda: at.listing().grid.row_count == 5)
        assert at.app.chosen == ended(5)["id"]
        await at.show(frame(number=6, ended=[ended(6)], active=[]))
        assert at.app.chosen == ended(6)["id"]
        await at.pilot.press("f", "down", "down")
        assert at.app.chosen == ended(4)["id"]
        await at.show(frame(number=8, ended=[ended(i) for i in range(7, 9)], active=[]))
        assert (at.listing().grid.row_count, at.app.chosen) == (8, ended(4)["id"])
        await at.pilot.press("end")
        assert at.app.chosen == ended(1)["id"]
        await at.pilot.press("home", "pagedown", "up", "f")
        await at.show(frame(number=9, ended=[ended(9)], active=[]))
        assert at.listing(Requests).chosen == ended(9)["id"]


async def test_the_cursor_stays_in_sight_in_a_long_table() -> None:
    async with desk(frame(number=99, ended=[ended(i) for i in range(1, 100)], active=[]), (80, 24)) as at:
        await at.go("requests")
        await at.pilot.press("f", "end")
        grid = at.listing().grid
        await at.until(lambda: grid.scroll_offset.y == 99 - (grid.size.height - 1))
        await at.pilot.press("home")
        await at.until(lambda: grid.scroll_offset.y == 0)


async def test_a_click_moves_and_a_second_one_opens() -> None:
    async with desk(DEGRADED) as at:
        await at.go("targets")
        await at.pilot.click("#targets #list", offset=(5, 2))
        assert at.app.chosen == "openai/best"
        await at.pilot.click("#targets #list", offset=(5, 0))
        await at.pilot.click("#targets #list", offset=(5, 2))
        assert "10.5 times its history" in await at.told()


@pytest.mark.parametrize(("key", "action"), [("s", "sleep"), ("w", "wake"), ("R", "restart")])
async def test_models_sleep_wake_and_restart(key: str, action: str) -> None:
    two = model(True, "resident", replica(), replica(index=1))
    async with desk(frame(models=[two, model(False, "off", name="a/b")])) as at:
        await at.go("engines")
        await at.pilot.press("down", key)
        await at.asked(f"/admin/{action}", {"model": "lumen-tiny"})
        await at.pilot.press("down", key)
        await at.asked(f"/admin/{action}", {"model": "a/b"})


async def test_the_log_of_a_replica_goes_on(monkeypatch: Any) -> None:
    monkeypatch.setattr("lumen_cli.dashboard.windows._AGAIN", 0.01)
    async with desk() as at:
        at.admin.answers["/admin/logs/lumen-tiny/0"] = {"lines": []}
        await at.go("engines")
        await at.pilot.press("l")
        await at.until(lambda: isinstance(at.app.screen, Log) and at.admin.calls)
        assert await at.told() == "It wrote nothing yet."
        at.admin.answers["/admin/logs/lumen-tiny/0"] = {"lines": [f"line {i}" for i in range(80)]}
        await at.until(lambda: at.app.screen.text.endswith("line 79"))  # type: ignore[attr-defined]
        window = at.app.screen.query_one("#window")
        await at.until(lambda: window.scroll_offset.y > 0)
        await at.pilot.press("q")
        assert not isinstance(at.app.screen, Log) and at.app.is_running


async def test_a_model_without_a_replica_has_no_log() -> None:
    async with desk(frame(models=[model(False, "off")])) as at:
        await at.go("engines")
        await at.pilot.press("enter")
        assert at.admin.calls == [] and not isinstance(at.app.screen, Log)


async def test_a_canary_is_looked_at_and_decided_and_a_shadow_is_not() -> None:
    async with desk() as at:
        at.admin.answers["/admin/canary/chat"] = REPORT
        await at.go("trials")
        await at.until(lambda: at.app.chosen == "canary chat")
        await at.pilot.press("enter")
        told = await at.told()
        assert "openai/best" in told and "better in 10, worse in 8" in told
        await at.pilot.press("escape")
        for key, action in (("a", "approve"), ("b", "rollback")):
            await at.pilot.press(key)
            await at.asked("/admin/canary", {"route": "chat", "action": action, "options": "{}"})
        calls = len(at.admin.calls)
        await at.pilot.press("down")
        assert at.app.chosen == "shadow code"
        await at.pilot.press("a", "b")
        await at.pilot.pause()
        assert len(at.admin.calls) == calls


async def test_the_plot_is_that_of_the_chosen_route() -> None:
    async with desk() as at:
        await at.go("routes")
        plot = at.listing().query_one(Plot)
        await at.until(lambda: plot.route.startswith("chat"))
        await at.pilot.press("down")
        await at.until(lambda: plot.route.startswith("code"))


@pytest.mark.parametrize(
    ("pane", "word"),
    [("targets", "groq/fast"), ("failovers", SECOND), ("requests", "req_active"), ("trials", "chat"),
     ("engines", "lumen-tiny"), ("routes", "chat")],
)  # fmt: skip
async def test_what_the_cursor_is_on_is_copied(pane: str, word: str) -> None:
    async with desk() as at:
        await at.go(pane)
        await at.until(lambda: at.app.chosen)
        await at.pilot.press("y")
        assert at.app.clipboard == word


async def test_every_key_that_means_something_is_a_command_by_name() -> None:
    async with desk() as at:
        await at.go("targets")
        found = [*at.app.get_system_commands(at.app.screen)]
        names = {command.title for command in found}
        assert {command.help for command in found if command.title in ("Filter", "Eject")} == {
            "Everywhere: /", "groq/fast: e"
        }  # fmt: skip
        assert {"Eject", "Restore", "Drain", "Go to Trials", "Help", "Quit"} <= names and "Wake" not in names
        await at.pilot.press("ctrl+p")
        await at.until(lambda: isinstance(at.app.screen, CommandPalette))
        await at.pilot.press(*"drain")
        await at.until(lambda: at.app.screen.query_one("CommandList").option_count)  # type: ignore[attr-defined]
        await at.pilot.press("enter")
        await at.until(lambda: not isinstance(at.app.screen, CommandPalette))
        await at.asked("/admin/targets", {"target": "groq/fast", "action": "drain"})


async def test_help_light_and_quit() -> None:
    async with desk() as at:
        await at.pilot.press("question_mark")
        told = await at.told()
        for binding in dashboard.Dashboard.BINDINGS:
            key = binding.key.replace("question_mark", "?").replace("slash", "/")  # type: ignore[union-attr]
            assert key.isdecimal() or key in ("?", "escape") or f" {key} " in f" {told.replace(chr(10), ' ')} ", key
        await at.pilot.press("question_mark", "t")
        assert not at.app.current_theme.dark
        await at.pilot.press("t", "q")
        await at.until(lambda: not at.app.is_running)


async def test_a_pane_that_is_not_seen_costs_nothing() -> None:
    async with desk() as at:
        await at.show(frame(at=AT + 1, targets=[]))
        assert at.app.query_one("#targets Grid", Grid).row_count == 0
        await at.show(OK)
        await at.go("targets")
        assert at.listing().grid.row_count == 2


async def test_a_frame_that_comes_while_one_leaves_changes_nothing() -> None:
    async with desk() as at:
        app = at.app
    app.board.take(DEGRADED)
    app.draw()
    app.on_tabbed_content_tab_activated()
    assert not app.is_running
