"""The attempt loop: one generator for every endpoint, streamed or whole. A whole answer is one event.

For each target of the plan: open, decode, hand on; a failure before the first token moves on, a failure after
it resumes token-exactly where the target allows, and is told to the client where it does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial

from lumen.core.errors import LumenError, Retry, UnavailableError, UpstreamError
from lumen.core.retry import Next, after
from lumen.core.trace import Trace
from lumen.gateway.table import Target
from lumen.providers.base import Resume
from lumen.wire.answers import Usage
from lumen.wire.call import Call, Event


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
            resume = Resume(trace.token_ids, trace.identity) if trace.delivered else None
            try:
                async with aclosing(_attempt(call, target, reason, journey, resume)) as batches:
                    async for batch in batches:
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
                decision = after(
                    error,
                    trace,
                    tries=tries,
                    splices=splices,
                    resumable=target.resumable and call.stream and call.answers == 1,
                    draw=draw(),
                )
                if decision.next is Next.GIVE_UP:
                    raise
                if decision.next is Next.OTHER:
                    break
                splices += decision.next is Next.RESUME
                await asyncio.sleep(decision.pause)
    raise failure or UnavailableError("No target can serve this request now.")


async def _attempt(
    call: Call, target: Target, reason: str, journey: Journey, resume: Resume | None
) -> AsyncGenerator[list[Event], None]:
    """One try at one target, recorded whatever happens."""
    loop = asyncio.get_running_loop()
    trace = journey.trace
    record = Attempt(target.name, reason, loop.time(), resumed_at=len(resume.token_ids) if resume else None)
    journey.attempts.append(record)
    exchange = None
    refused: bool | None = False
    try:
        encode = partial(target.dialect.encode, call, resume=resume)
        exchange = await target.upstream.open(encode, target.model, target.limits, call.stream)
        if exchange.status != 200:
            raise target.dialect.refusal(exchange.status, exchange.headers, await exchange.refusal())
        decoder = target.dialect.decoder(call, exchange.content_type, resume)
        first_by: float | None = record.started + target.limits.first_token
        held: list[Event] = []
        while data := await exchange.read(first_by):
            held += decoder.feed(data)
            # Nothing goes out before the first token: until then another target can take over unseen.
            if first_by is not None and any(event.content or event.finished for event in held):
                first_by, record.first_token = None, loop.time()
            if first_by is None and held:
                yield _note(held, trace, record)
                held = []
        held += decoder.finish()
        if held:
            record.first_token = record.first_token or loop.time()
            yield _note(held, trace, record)
        record.outcome = "ok"
    except LumenError as error:
        record.outcome = error.code or error.type
        if isinstance(error, UpstreamError) and error.retry is Retry.NEVER:
            refused = None
        raise
    finally:
        record.ended = loop.time()
        if exchange is not None:
            exchange.close({"ok": True, "cancelled": None}.get(record.outcome, refused))


def _note(events: list[Event], trace: Trace, record: Attempt) -> list[Event]:
    """Write down what is about to go to the client."""
    for event in events:
        trace.add(event.content, event.finished, event.token_ids, event.identity)
        if event.usage is not None:
            record.usage = event.usage
    return events
