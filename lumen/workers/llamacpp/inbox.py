"""The loop's end of an answer: events from the engine thread, awaited one by one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from lumen.workers.llamacpp.answers import Usage
from lumen.workers.llamacpp.prepare import Prepared
from lumen.workers.llamacpp.sequence import Event, Outbox, Sequence


class Inbox:
    """The loop's end of an outbox: events in order, awaited one by one."""

    def __init__(self, wake: Callable[[], None], limit: int, whole: bool) -> None:
        """`wake`, `limit` and `whole` are the outbox's."""
        self._events: deque[Event] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self.outbox = Outbox(self.put, wake, limit, whole)

    def put(self, event: Event) -> None:
        self._events.append(event)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> Event:
        if not self._events:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        event = self._events.popleft()
        self.outbox.took()
        return event


class Events:
    """The events of one request until every choice has had its last one; gathers usage on the way."""

    def __init__(self, inbox: Inbox, prepared: Prepared, usage: Usage, per_prompt: int) -> None:
        self._inbox = inbox
        self.outbox = inbox.outbox
        self._left = prepared.choices
        self._per_prompt = per_prompt
        self._sequences: dict[int, Sequence] = {sequence.choice: sequence for sequence in prepared.sequences}
        self.usage = usage

    async def next(self) -> Event | None:
        """The next event; None after the last."""
        if not self._left:
            return None
        event = await self._inbox.get()
        if event.finish is not None or event.error is not None:
            self._left -= 1
            self.usage.add(event, self._per_prompt)
            sequence = self._sequences.get(event.choice)
            if sequence is not None:
                sequence.ended = True
        return event


def deliver(events: list[tuple[Outbox, Event]]) -> None:
    for outbox, event in events:
        outbox.deliver(event)
