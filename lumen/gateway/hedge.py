"""A second target asked when the first token is late. The loser is cancelled; both are on the bill, truthfully."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from lumen.core.errors import LumenError
from lumen.gateway.attempt import Attempt
from lumen.wire.call import Event


async def first_of(
    attempt: Attempt, delay: float, spare: Callable[[], Awaitable[Attempt | None]]
) -> tuple[Attempt, list[Event]]:
    """The attempt whose first batch comes first, and that batch. The other one is closed when this returns.

    Args:
        delay: seconds after which `spare` is asked for a second attempt; it may have none.

    Raises:
        LumenError: both failed; what the first one failed with, which the caller still has to close.
    """
    first = asyncio.create_task(attempt.batch())
    second: asyncio.Task[list[Event]] | None = None
    other: Attempt | None = None
    winner = attempt
    try:
        await asyncio.wait({first}, timeout=delay)
        if not first.done() and (other := await spare()) is not None:
            second = asyncio.create_task(other.batch())
            await _one_good(first, second)
            if (not first.done() or first.exception() is not None) and second.done() and second.exception() is None:
                winner = other
        batch = await (first if second is None or winner is attempt else second)
        winner.adopt()
        return winner, batch
    finally:
        for task in (first, second):
            if task is not None and not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError, LumenError):
                    await task
        loser = other if winner is attempt else attempt
        if loser is not None:
            if loser.record.outcome == "cancelled":
                loser.record.outcome = "hedged"
            loser.close()


async def _one_good(first: asyncio.Task[list[Event]], second: asyncio.Task[list[Event]]) -> None:
    """Until one of the two has given something, or both have failed."""
    waiting = {first, second}
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if any(task.exception() is None for task in done if not task.cancelled()):
            return
