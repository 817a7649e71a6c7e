"""The dashboard as a person drives it: keys in, screens out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from lumen_cli.dashboard import app as dashboard
from lumen_cli.dashboard.app import Dashboard, Told
from lumen_cli.dashboard.grid import Grid
from lumen_cli.dashboard.panes import Listing, Requests
from textual.pilot import Pilot
from textual.widgets import Static, TabbedContent

from tests.dashboard.fake_admin import FakeAdmin
from tests.dashboard.frames import DEGRADED, EMPTY, OK, REPORT, ended, frame

pytestmark = pytest.mark.anyio
SIZE = (120, 36)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def until(pilot: Pilot[None], true: Callable[[], Any]) -> None:
    """Let the application work until something holds."""
    for _ in range(400):
        if true():
            return
        await pilot.pause(0.01)
    raise AssertionError("it never came to hold")


def listing(app: Dashboard, pane: str) -> Listing:
    return app.query_one(TabbedContent).get_pane(pane).query_one(Listing)


async def test_frames_are_shown_and_a_lost_connection_is_told_and_found_again(monkeypatch: Any) -> None:
    monkeypatch.setattr(dashboard, "_AGAIN", 0.01)
    admin = FakeAdmin(OK)
    app = Dashboard(admin)
    async with app.run_test(size=SIZE) as pilot:
        bar = app.query_one("#alarms", Static)
        await until(pilot, lambda: "all is well" in str(bar.content))
        assert "12.0 requests/s" in app.sub_title
        admin.frames.put_nowait(None)
        await until(pilot, lambda: bar.has_class("bad"))
        assert app.sub_title == "no connection"
        admin.frames.put_nowait(DEGRADED)
        await until(pilot, lambda: "out: groq/fast" in str(bar.content))


async def test_a_failover_opens_the_story_of_its_request() -> None:
    admin = FakeAdmin(OK)
    one = ended(2)
    story = {"target": "groq/fast", "reason": "weight", "began_ms": 0.1, "first_token_ms": 40.0, "ended_ms": 300.0}
    tries = [{**story, "outcome": "upstream_disconnected", "rung": None, "position": 0}]
    admin.answers["/admin/requests/req_000000000000000000000002"] = {**one, "tries": tries}
    app = Dashboard(admin)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: app.board.frame)
        await pilot.press("3")
        await until(pilot, lambda: listing(app, "failovers").chosen)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Told))
        assert "upstream_disconnected" in str(app.screen.query_one("#told", Static).content)
        await pilot.press("escape")
        assert not isinstance(app.screen, Told)


async def test_targets_are_steered_only_where_they_are_seen() -> None:
    admin = FakeAdmin(OK)
    app = Dashboard(admin)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: app.board.frame)
        await pilot.press("e")
        assert admin.calls == []
        await pilot.press("2")
        await until(pilot, lambda: listing(app, "targets").chosen)
        await pilot.press("down", "e")
        await until(pilot, lambda: admin.calls)
        assert admin.calls == [("/admin/targets", {"target": "openai/best", "action": "eject"})]


async def test_a_request_is_filtered_and_ended() -> None:
    admin = FakeAdmin(OK)
    app = Dashboard(admin)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: app.board.frame)
        await pilot.press("4")
        pane = app.query_one(Requests)
        await until(pilot, lambda: pane.query_one(Grid).row_count == 3)
        await pilot.press("slash", *"code")
        admin.frames.put_nowait(frame(number=2, ended=[]))
        await until(pilot, lambda: pane.query_one(Grid).row_count == 1)
        assert pane.chosen == "req_000000000000000000000002"
        pane.query_one(Grid).focus()
        await pilot.press("c")
        await until(pilot, lambda: admin.calls)
        assert admin.calls == [("/admin/cancel", {"request": pane.chosen})]


async def test_the_cursor_stays_on_its_row_while_others_come() -> None:
    admin = FakeAdmin(frame(number=5, ended=[ended(i) for i in range(1, 6)], active=[]))
    app = Dashboard(admin)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: app.board.frame)
        await pilot.press("4")
        pane = app.query_one(Requests)
        await until(pilot, lambda: pane.query_one(Grid).row_count == 5)
        await pilot.press("f", "down", "down")
        chosen = pane.chosen
        admin.frames.put_nowait(frame(number=8, ended=[ended(i) for i in range(6, 9)], active=[]))
        await until(pilot, lambda: pane.query_one(Grid).row_count == 8)
        assert pane.chosen == chosen


async def test_a_model_is_restarted_and_help_and_light_work() -> None:
    admin = FakeAdmin(OK)
    app = Dashboard(admin)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: app.board.frame)
        await pilot.press("6")
        await until(pilot, lambda: listing(app, "engines").chosen)
        await pilot.press("R")
        await until(pilot, lambda: admin.calls)
        assert admin.calls == [("/admin/restart", {"model": "lumen-tiny"})]
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, Told))
        await pilot.press("escape")
        await pilot.press("t")
        assert not app.current_theme.dark


async def test_a_canary_is_looked_at_and_decided_and_a_shadow_is_not() -> None:
    admin = FakeAdmin(OK)
    admin.answers["/admin/canary/chat"] = REPORT
    app = Dashboard(admin)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: app.board.frame)
        await pilot.press("7")
        await until(pilot, lambda: listing(app, "trials").chosen == "canary chat")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Told))
        told = str(app.screen.query_one("#told", Static).content)
        assert "openai/best" in told and "better in 10, worse in 8" in told
        await pilot.press("escape", "a")
        asked = {"route": "chat", "action": "approve", "options": "{}"}
        await until(pilot, lambda: ("/admin/canary", asked) in admin.calls)
        calls = len(admin.calls)
        await pilot.press("down")
        assert listing(app, "trials").chosen == "shadow code"
        await pilot.press("b")
        assert len(admin.calls) == calls


@pytest.mark.parametrize("size", [(80, 24), (200, 60)])
@pytest.mark.parametrize("shown", [OK, DEGRADED, EMPTY])
async def test_every_pane_shows_every_state_at_every_size(size: tuple[int, int], shown: dict[str, Any]) -> None:
    app = Dashboard(FakeAdmin(shown))
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.board.frame)
        for key in "1234567":
            await pilot.press(key)
            await pilot.pause()
        assert app.is_running
