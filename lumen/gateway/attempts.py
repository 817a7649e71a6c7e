"""The attempt loop: one generator for every endpoint, streamed or whole. A whole answer is one event.

For each target of the plan: open, decode, hand on; a failure before the first token moves on, a failure after
it resumes token-exactly where the target allows, and is told to the client where it does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from lumen.core.errors import LumenError, Retry, UnavailableError, UpstreamError
from lumen.core.retry import Next, after
from lumen.core.trace import Trace
from lumen.gateway.table import Target
from lumen.gateway.upstream import Exchange
from lumen.providers.base import Decoder, Resume
from lumen.wire.answers import Usage
from lumen.wire.call import Call, Event

# Seconds a target has to close its stream properly once it has said that the answer is complete.
_CLOSING = 1.0


@dataclass(slots=True)
class Attempt:
    """What one try at one target came to; `outcome`: ok, cancelled, or the error's code."""

    target: str
    reason: str
    started: float
    first_token: float | None = None
    ended: float = 0.0
    outcome: str = "cancelled"
    resumed_at: int | None = None
    usage: Usage | None = None


@dataclass(slots=True)
class Journey:
    """Everything one request went through; the pipeline settles it when the request is over."""

    trace: Trace
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def target(self) -> str:
        return self.attempts[-1].target if self.attempts else ""


async def run(
    call: Call, plan: Sequence[tuple[Target, str]], journey: Journey, draw: Callable[[], float]
) -> AsyncGenerator[list[Event], None]:
    """Batches of events until the answer is complete.

    Raises:
        LumenError: no target could serve it (before the first event), or the answer broke off for good.
    """
    trace = journey.trace
    splices = 0
    failure: LumenError | None = None
    for target, reason in plan:
        tries = 0
        while True:
            tries += 1
            attempt = _Try(call, target, reason, journey)
            try:
                while batch := await attempt.batch():
                    yield batch
                return
            except UnavailableError as error:
                if trace.delivered:
                    raise
                failure = error
                break
            except UpstreamError as error:
                if call.stream and trace.complete:
                    # Every choice has its finish reason; only the stream's own closing words were lost.
                    return
                failure = error
                resumable = target.resumable and call.stream and call.answers == 1
                decision = after(error, trace, tries=tries, splices=splices, resumable=resumable, draw=draw())
                if decision.next is Next.GIVE_UP:
                    raise
                if decision.next is Next.OTHER:
                    break
                splices += decision.next is Next.RESUME
                await asyncio.sleep(decision.pause)
            finally:
                attempt.close()
    raise failure or UnavailableError("No target can serve this request now.")


class _Try:
    """One try at one target, recorded whatever happens."""

    __slots__ = ("_call", "_decoder", "_exchange", "_first_by", "_journey", "_loop", "_ok", "_record", "_target")

    def __init__(self, call: Call, target: Target, reason: str, journey: Journey) -> None:
        self._loop = asyncio.get_running_loop()
        self._call = call
        self._target = target
        self._journey = journey
        self._exchange: Exchange | None = None
        self._decoder: Decoder | None = None
        self._ok: bool | None = None
        trace = journey.trace
        resumed_at = len(trace.token_ids) if trace.delivered else None
        self._record = Attempt(target.name, reason, self._loop.time(), resumed_at=resumed_at)
        self._first_by: float | None = self._record.started + target.limits.first_token
        journey.attempts.append(self._record)

    async def batch(self) -> list[Event]:
        """The next events for the client; empty when the answer is complete.

        Raises:
            LumenError: the target cannot go on.
        """
        try:
            if self._decoder is None or self._exchange is None:
                self._exchange, self._decoder = await self._open()
            exchange, decoder = self._exchange, self._decoder
            held: list[Event] = []
            while data := await exchange.read(self._due(decoder)):
                events = decoder.feed(data)
                held = held + events if held else events
                # Nothing goes out before the first token: until then another target can take over unseen.
                if self._first_by is not None and any(event.content or event.finished for event in held):
                    self._first_by, self._record.first_token = None, self._loop.time()
                if held and self._first_by is None:
                    return self._note(held)
            return self._note(held + self._finished(decoder))
        except LumenError as error:
            self._record.outcome = error.code or error.type
            # What the target refused as nonsense, and what never reached it, says nothing about its health.
            unjudged = not isinstance(error, UpstreamError) or error.retry is Retry.NEVER
            self._ok = None if unjudged else False
            raise

    def close(self) -> None:
        """Over, however it ended. Drops the connection where the answer was not read to its end."""
        self._record.ended = self._loop.time()
        if self._exchange is not None:
            self._exchange.close(self._ok)

    async def _open(self) -> tuple[Exchange, Decoder]:
        target, call, trace = self._target, self._call, self._journey.trace
        resume = Resume(trace.token_ids, trace.identity) if trace.delivered else None
        encode = partial(target.dialect.encode, call, resume=resume)
        exchange = await target.upstream.open(encode, target.model, target.limits, call.stream)
        try:
            if exchange.status != 200:
                raise target.dialect.refusal(exchange.status, exchange.headers, await exchange.refusal())
            kind = exchange.headers.get("content-type", "").lower()
            return exchange, target.dialect.decoder(call, kind, resume)
        except BaseException:
            # Not ours to close yet, but the caller must be able to.
            self._exchange = exchange
            raise

    def _due(self, decoder: Decoder) -> float | None:
        """When the next bytes are due at the latest; `None` leaves it to the limit between tokens."""
        return self._loop.time() + _CLOSING if decoder.done else self._first_by

    def _finished(self, decoder: Decoder) -> list[Event]:
        """What the end of the connection completes, once."""
        if self._ok:
            return []
        events = decoder.finish()
        self._record.outcome, self._ok = "ok", True
        if self._record.first_token is None:
            self._record.first_token = self._loop.time()
        return events

    def _note(self, events: list[Event]) -> list[Event]:
        """Write down what is about to go to the client."""
        trace = self._journey.trace
        for event in events:
            trace.add(event.content, event.finished, event.token_ids, event.identity)
            if event.usage is not None:
                self._record.usage = event.usage
        return events
