"""The attempt loop: one for every endpoint, streamed or whole. A whole answer is one event.

`course.py` says what is tried next, `attempt.py` tries it; here the one follows the other until the answer is
complete or nothing is left to try.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from lumen.core.errors import LumenError, UnavailableError, UpstreamError, let_go
from lumen.core.resume import Rung
from lumen.gateway.attempt import Attempt, Errand
from lumen.gateway.course import Course, Leg
from lumen.gateway.failovers import Failover
from lumen.gateway.hedge import first_of
from lumen.wire.call import Event
from lumen.wire.continued import taken_off
from lumen.wire.splice import splice_comment


@dataclass(frozen=True, slots=True)
class _Break:
    """Where an answer, or the way to it, broke off: the target, the error's code, and the loop time."""

    source: str
    why: str
    at: float


async def run(errand: Errand, course: Course) -> None:
    """Give the outlet the answer's events until it is complete and booked.

    Raises:
        LumenError: no target could serve it (before the first event), or the answer broke off for good.
    """
    trace, loop = errand.journey.trace, errand.loop
    errand.health.retries.request(loop.time())
    broke: _Break | None = None
    while (leg := course.next()) is not None:
        attempt = await _begin(errand, course, leg)
        if attempt is None:
            continue
        try:
            attempt, batch = await _first(errand, course, attempt, leg)
            while batch:
                # What a seam still holds is no continuation yet: it may turn out to be another answer.
                if broke is not None and any(event.data for event in batch):
                    batch = [_gone_on(errand, attempt, leg, broke), *batch]
                    broke = None
                await errand.outlet.send(batch)
                batch = await attempt.batch(pour=broke is None)
            errand.tab.close()
            return
        except UnavailableError as error:
            let_go(error)
            course.refused(error)
        except UpstreamError as error:
            let_go(error)
            if errand.call.stream and trace.complete:
                # Every choice has its finish reason; only the stream's own closing words were lost.
                if closing := attempt.closing():
                    await errand.outlet.send(closing)
                errand.tab.close()
                return
            broke = broke or _Break(leg.target.name, error.outcome, loop.time())
            if pause := course.failed(leg, error, progressed=attempt.progressed):
                await asyncio.sleep(pause)
        finally:
            attempt.close()
    raise course.verdict()


async def _begin(errand: Errand, course: Course, leg: Leg) -> Attempt | None:
    """Take a pass and set money aside; `None` where the target is out or the money does not reach."""
    loop, health, target = errand.loop, errand.health, leg.target
    if target.offer not in errand.tab.offers:
        return None
    given = health.begin(target.name, loop.time(), errand.size, force=leg.forced)
    if given is None:
        return None
    trace = errand.journey.trace
    # A replayed answer is counted once more by the target that replays it.
    carried = trace.tokens if leg.rung is Rung.TOKEN_EXACT else 0
    extra = len(trace.text) * 4 + 1024 if leg.rung is not None else 0
    try:
        delivered, slack = taken_off(leg.rung, trace.tokens) if leg.rung is not None else (0, 0)
        line = errand.tab.begin(target.offer, carried=carried, extra_bytes=extra, delivered=delivered, slack=slack)
        if line.asked is not None:
            await line.asked
    except LumenError as error:
        let_go(error)
        health.ended(given, loop.time(), None)
        course.refused(error)
        return None
    except BaseException:
        health.ended(given, loop.time(), None)
        raise
    return Attempt(errand, leg, given, line)


async def _first(errand: Errand, course: Course, attempt: Attempt, leg: Leg) -> tuple[Attempt, list[Event]]:
    """The first batch; where the route hedges and the target is late, of whichever of two targets is first."""
    delay = errand.health.hedge_delay(leg.target.name) if errand.entry.hedge and leg.rung is None else None
    if delay is None or not errand.call.stream:
        return attempt, await attempt.batch()

    async def spare() -> Attempt | None:
        other = course.next()
        if other is None:
            return None
        begun = await _begin(errand, course, other)
        if begun is None:
            # There may be no money for two at once, but for one after the other.
            course.keep(other)
        return begun

    return await first_of(attempt, delay, spare)


def _gone_on(errand: Errand, attempt: Attempt, leg: Leg, broke: _Break) -> Event:
    """Note the failover for the operator, and the comment that marks the seam in the stream."""
    record, loop = attempt.record, errand.loop
    seam_ms = round((loop.time() - broke.at) * 1000, 1)
    rung = leg.rung.value if leg.rung is not None else "fresh"
    told = "one answer, continued" if leg.rung is not None else "nothing"
    position = record.position
    errand.health.failovers.add(
        Failover(
            request_id=errand.request_id,
            time=time.time(),
            source=broke.source,
            to=record.target,
            why=broke.why,
            rung=rung,
            position=position,
            seam_ms=seam_ms,
            client=told,
        )
    )
    if leg.rung is None or not errand.call.stream:
        return Event(b"")
    seam = splice_comment(origin=broke.source, target=record.target, rung=leg.rung, at=position, seam_ms=seam_ms)
    return Event(b"", comment=seam)
