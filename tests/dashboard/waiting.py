from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from textual.pilot import Pilot


async def until(pilot: Pilot[None], true: Callable[[], Any]) -> None:
    """Let the application work until something holds; the bound only turns a hang into a failure."""
    end = time.monotonic() + 100.0
    while not true():
        assert time.monotonic() < end, "it never came to hold"
        await pilot.pause(0.01)
