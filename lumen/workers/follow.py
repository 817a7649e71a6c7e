"""Following the log of an engine while it starts, for the phases that it tells there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from lumen.workers.logs import read_from
from lumen.workers.phases import Phase, PhaseReader


async def follow(
    log: Path,
    offset: int,
    said: Callable[[str], Phase | None],
    on_phase: Callable[[Phase], None],
    going: Callable[[], bool],
    pause: float,
) -> None:
    """Tell `on_phase` what `log` says from `offset` on, looking every `pause` seconds while `going`, and once more.

    The log is a file, not a pipe: an engine whose gateway was killed goes on writing without being blocked.
    """
    reader = PhaseReader(said)
    over = False
    while not over:
        over = not going()
        data, offset = await asyncio.to_thread(read_from, log, offset)
        for phase in reader.feed(data):
            on_phase(phase)
        if not data and not over:
            await asyncio.sleep(pause)
