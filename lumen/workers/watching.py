"""Watching a replica that serves: an engine can hang with its port still open."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from lumen.workers.lifecycle import Timing
from lumen.workers.load import Load
from lumen.workers.logs import trim


async def watch(
    load: Load, ask: Callable[[float], Awaitable[str | None]], log: Path, timing: Timing, clock: Callable[[], float]
) -> str:
    """Probe it while nothing else shows that it works; what was wrong, once it has hung.

    A busy one is not judged unless a request on it failed: its slots may all be taken by long answers.

    Args:
        ask: one inference within so many seconds; `None`, or what was wrong with it.
    """
    strikes, trouble = 0, ""
    while strikes < timing.strikes:
        load.alarm.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timing.probe_pause if strikes else timing.watch):
                await load.alarm.wait()
        await asyncio.to_thread(trim, log)
        asked = clock()
        idle = load.in_flight == 0 and (strikes or asked - load.good >= timing.watch)
        if not idle and not load.suspect:
            strikes = 0
            continue
        found = await ask(timing.watch_limit)
        if found is None:
            load.sign(True)
        if load.good >= asked or (load.in_flight and not load.suspect):
            strikes = 0
        else:
            strikes, trouble = strikes + 1, found or trouble
    return trouble
