"""One timer for all the waits of an exchange.

`asyncio.timeout` sets and cancels a timer for each wait, which for a stream is a timer per chunk. Here a wait only
writes down when it is due; the one timer, when it fires, sees whether that moment has really come.
"""

from __future__ import annotations

import asyncio

NEVER = float("inf")


class Watch:
    """Cancels the waiting task when its wait is over. Belongs to the task that made it, until another adopts it.

    try:
        watch.wait(due)
        data = await something()
    except asyncio.CancelledError:
        if watch.expired():
            raise SilentError(...) from None
        raise
    finally:
        watch.rest()
    """

    # `due`: when the wait under way must have ended. `rings`: when the timer will look.
    __slots__ = ("_fired", "_handle", "_loop", "_task", "due", "rings")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.due = NEVER
        self.rings = NEVER
        self._handle: asyncio.TimerHandle | None = None
        self._task = asyncio.current_task()
        self._fired = False

    def wait(self, due: float) -> None:
        """The caller's next await must end by `due` (loop time)."""
        self.due = due
        if due < self.rings:
            self.arm()

    def arm(self) -> None:
        """Ring at `due`, which is earlier than the timer would."""
        if self._handle is not None:
            self._handle.cancel()
        self.rings = self.due
        self._handle = self._loop.call_at(self.due, self._ring)

    def adopt(self) -> None:
        """The calling task is the one that waits from here on."""
        self._task = asyncio.current_task()

    def rest(self) -> None:
        """Nothing is awaited under this watch for now."""
        self.due = NEVER

    def expired(self) -> bool:
        """Whether the cancellation just caught was this watch's own, and no one else's as well."""
        if not self._fired:
            return False
        self._fired = False
        return self._task is not None and self._task.uncancel() == 0

    def close(self) -> None:
        """The exchange is over."""
        self.due = NEVER
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _ring(self) -> None:
        self._handle = None
        self.rings = NEVER
        if self.due == NEVER:
            return
        if self._loop.time() < self.due:
            self.rings = self.due
            self._handle = self._loop.call_at(self.due, self._ring)
        elif self._task is not None:
            self._fired = True
            self._task.cancel()
