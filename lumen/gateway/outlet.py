"""Where the events of an answer go: the client's stream, or the fold of a whole answer."""

from __future__ import annotations

from typing import Protocol

from lumen.wire.call import Event


class Outlet(Protocol):
    """Events in their order. The first ones are sent; once that is done, those that follow may be pushed."""

    @property
    def opened(self) -> bool:
        """Whether something has gone out to the client, so that a failure is no status any more."""
        ...

    async def send(self, events: list[Event]) -> None:
        """Take events in; returns when there is room for more.

        Raises:
            ConnectionError: the client has gone.
        """
        ...

    def push(self, events: list[Event]) -> bool:
        """Take events in without waiting. False: before the next, wait for `ready`."""
        ...

    async def ready(self) -> None:
        """Wait until there is room for more.

        Raises:
            ConnectionError: the client has gone.
        """
        ...
