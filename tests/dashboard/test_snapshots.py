"""Every screen in every state, as a picture that a person has looked at (pytest-textual-snapshot).

The pictures are SVG files in `__snapshots__`. After a change that is meant, look at the report that a failing run
writes (`snapshot_report.html`) and take the new ones over: `pytest tests/dashboard --snapshot-update`.
Nothing in them hangs on a clock: all times are seen from the moment that the frame was made.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from lumen_cli.dashboard.app import PANES, Dashboard
from lumen_cli.dashboard.windows import Told
from pytest_textual_snapshot import SVGImageExtension
from textual.pilot import Pilot

from tests.dashboard.fake_admin import FakeAdmin
from tests.dashboard.frames import DEGRADED, EMPTY, OK, REPORT, TRACE, history
from tests.dashboard.waiting import until

# The plugin names the pictures by an attribute that syrupy has renamed; as `.raw` no browser would show them.
SVGImageExtension.file_extension = "svg"
Compare = Callable[..., bool]
STATES: dict[str, list[dict[str, Any] | None]] = {
    "ok": [OK], "degraded": [DEGRADED], "empty": [EMPTY], "lost": [OK, None],
}  # fmt: skip
NAMES = [name for name, _ in PANES]
WINDOWS = {"trace": ("3", "enter"), "target": ("2", "enter"), "log": ("6", "l"), "trial": ("7", "enter")}
SMALL, WIDE = (80, 24), (150, 40)


def app(state: str) -> Dashboard:
    admin = FakeAdmin(*STATES[state])
    admin.answers = {
        "/admin/requests/req_000000000000000000000002": TRACE,
        "/admin/canary/chat": REPORT,
        "/admin/logs/lumen-tiny/0": {"lines": [f"srv  llama: line {number} of its log" for number in range(40)]},
    }
    made = Dashboard(admin)
    made.animation_level = "none"
    if state != "empty":
        for one in history():
            made.board.take(one)
    return made


def showing(
    state: str, *keys: str, light: bool = False, opens: bool = False
) -> Callable[[Pilot[None]], Awaitable[None]]:
    """What is done before the picture is taken."""

    async def do(pilot: Pilot[None]) -> None:
        shown = pilot.app
        assert isinstance(shown, Dashboard)
        if light:
            shown.theme = "textual-light"
        await until(pilot, lambda: shown.board.frame is STATES[state][0])
        await until(pilot, lambda: (shown.board.lost is not None) == (state == "lost"))
        await pilot.press(*keys)
        if opens:
            await until(pilot, lambda: isinstance(shown.screen, Told) and "wrote nothing" not in shown.screen.text)

    return do


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("pane", NAMES)
def test_every_pane_in_every_state(snap_compare: Compare, pane: str, state: str) -> None:
    key = str(NAMES.index(pane) + 1)
    assert snap_compare(app(state), terminal_size=SMALL, run_before=showing(state, key))


@pytest.mark.parametrize("pane", NAMES)
def test_every_pane_where_there_is_room(snap_compare: Compare, pane: str) -> None:
    key = str(NAMES.index(pane) + 1)
    assert snap_compare(app("degraded"), terminal_size=WIDE, run_before=showing("degraded", key))


@pytest.mark.parametrize("size", [SMALL, WIDE], ids=["small", "wide"])
@pytest.mark.parametrize("state", STATES)
def test_the_overview_in_light(snap_compare: Compare, state: str, size: tuple[int, int]) -> None:
    assert snap_compare(app(state), terminal_size=size, run_before=showing(state, light=True))


@pytest.mark.parametrize("window", WINDOWS)
def test_windows_over_the_panes(snap_compare: Compare, window: str) -> None:
    assert snap_compare(app("ok"), terminal_size=SMALL, run_before=showing("ok", *WINDOWS[window], opens=True))


@pytest.mark.parametrize("light", [False, True], ids=["dark", "light"])
def test_help(snap_compare: Compare, light: bool) -> None:
    assert snap_compare(
        app("ok"), terminal_size=SMALL, run_before=showing("ok", "question_mark", light=light, opens=True)
    )
