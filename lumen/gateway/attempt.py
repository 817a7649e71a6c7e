"""One try at one target: its money, its pass, its exchange, its events; recorded whatever happens."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from operator import sub

from msgspec import Struct, structs

from lumen.core.errors import LumenError, Retry, SilentError, UnavailableError, UpstreamError, WakingError
from lumen.core.resume import Rung
from lumen.core.trace import Trace
from lumen.core.tracecontext import Context
from lumen.gateway.callers import patience
from lumen.gateway.course import Leg
from lumen.gateway.health import Health, Pass
from lumen.gateway.outlet import Outlet
from lumen.gateway.tab import UNMARKED, Line, Marks, Tab
from lumen.gateway.table import Entry
from lumen.gateway.upstream import Exchange, Limits
from lumen.providers.base import Decoder, HttpCall, Resume
from lumen.wire.answers import Usage
from lumen.wire.call import Call, Event
from lumen.wire.closing import usage_chunk
from lumen.wire.continued import continued
from lumen.wire.matching import Diverged
from lumen.wire.prompt import parts
from lumen.wire.requests import Plain
from lumen.wire.splice import Seam
from lumen.workers.affinity import Block, blocks

# Seconds a target has to close its stream properly once it has said that the answer is complete.
_CLOSING = 1.0
# Seconds that a local model may take to say that a request has waited for its turn long enough.
_TOLD = 5.0
# Seconds over which a stream's rate is looked at.
_RATE_WINDOW = 10.0
# Of English text; a rate is seldom asked for more nearly than that.
_CHARACTERS_PER_TOKEN = 4
_NOTHING_SEEN = (0, 0, 0)


class Record(Struct):
    """What one try came to; `outcome`: ok, cancelled, or the error's code. Times are the loop's.

    `queued`, `woke`: seconds that it waited for a local model's turn, and for it to start or wake. `sent`: when the
    target was given the request, `answered`: when its headers came. `score`, `bar`: see `Marks`.
    """

    target: str
    reason: str
    started: float
    rung: str | None = None
    position: int = 0
    queued: float = 0.0
    woke: float = 0.0
    sent: float | None = None
    answered: float | None = None
    first_token: float | None = None
    ended: float = 0.0
    outcome: str = "cancelled"
    usage: Usage | None = None
    score: float | None = None
    bar: float | None = None


class Journey(Struct):
    """Everything one request went through; the pipeline settles it when the request is over."""

    trace: Trace
    attempts: list[Record] = []
    # Where it stands in a trace of its client's or of ours; `None`: nowhere.
    context: Context | None = None
    marks: Marks = UNMARKED
    # The loop's time until which it waits for its turn at a local model, which may still refuse it.
    quiet_until: float = 0.0

    @property
    def target(self) -> str:
        return self.attempts[-1].target if self.attempts else ""


class Errand(Struct, frozen=True):
    """What every attempt of a request shares. `size`: bytes of its body. `caller`, `salt`, `rank`: a header for local
    models; what keeps the prefixes apart that they compute for different callers; see `Call`.

    `loop`: the one that all of it runs on. Asking for it is a system call, so it is asked for once.
    """

    request_id: str
    call: Call
    entry: Entry
    size: int
    health: Health
    tab: Tab
    journey: Journey
    outlet: Outlet
    loop: asyncio.AbstractEventLoop
    caller: bytes = b""
    salt: str = ""
    rank: int = 0


class Attempt:
    """Made only with a pass and a line in hand; `close` it, whatever happens."""

    __slots__ = ("_before", "_decoder", "_due_first", "_errand", "_error", "_exchange", "_gap", "_leg",
                 "_limits", "_line", "_loop", "_ok", "_pass", "_pieces", "_seam", "_sent", "_window", "progressed",
                 "record")  # fmt: skip

    def __init__(self, errand: Errand, leg: Leg, given: Pass, line: Line) -> None:
        self._loop = errand.loop
        self._errand = errand
        self._leg = leg
        self._pass = given
        self._line = line
        now = self._loop.time()
        local = leg.target.can.local
        limits = given.target.limits(given.size, errand.entry.limits, errand.entry.own, alone=leg.alone, local=local)
        self._limits: Limits = limits if leg.patient else replace(limits, ready=0.0)
        self._exchange: Exchange | None = None
        self._decoder: Decoder | None = None
        self._seam: Seam | None = None
        self._ok: bool | None = None
        self._error: LumenError | None = None
        self._due_first: float | None = now + self._limits.first_token
        self._window = self._sent = now
        self._gap = 0.0
        # Parts of the answer; and what was seen of it at the beginning of the window in which its rate is looked at.
        self._pieces = 0
        self._before = _NOTHING_SEEN
        self.progressed = False
        trace = errand.journey.trace
        self.record = Record(leg.target.name, leg.reason, now)
        if marks := errand.journey.marks:
            self.record.score, self.record.bar = marks.get(leg.target.name, (None, None))
        if leg.rung is not None:
            self.record.rung = leg.rung.value
            self.record.position = len(trace.text) if trace.whole_text else trace.tokens
            line.resumed(trace.tokens, leg.rung.value)
        errand.journey.attempts.append(self.record)

    async def batch(self, *, pour: bool = False) -> list[Event]:
        """The next events for the client; empty when the answer is complete.

        Args:
            pour: let events go straight to the outlet as they come; returned is only what could not.

        Raises:
            LumenError: the target cannot go on. `Diverged`: it could, but not with what the client has.
        """
        if self._ok:
            return []
        try:
            if self._decoder is None or self._exchange is None:
                self._exchange, self._decoder = await self._open()
            exchange, decoder = self._exchange, self._decoder
            while pour and not decoder.done and await exchange.pour(self._pass_on):
                await self._errand.outlet.ready()
            held: list[Event] = []
            while data := await exchange.read(self._loop.time() + _CLOSING if decoder.done else self._due_first):
                events = self._taken(decoder.feed(data), exchange)
                held = held + events if held else events
                # Nothing goes out before the first token: until then another target can take over unseen.
                if held and self._due_first is None:
                    return self._note(held)
            return self._note(held + self._finished(decoder, exchange))
        except LumenError as error:
            self._error = error
            self.record.outcome = error.outcome
            # What the target refused as nonsense, a text that does not fit, and a model that wakes while another one
            # covers for it, say nothing about its health.
            told = isinstance(error, UpstreamError | UnavailableError) and not isinstance(error, Diverged)
            told = told and (self._leg.patient or not isinstance(error, WakingError))
            self._ok = False if told and getattr(error, "retry", None) is not Retry.NEVER else None
            raise

    def _pass_on(self, data: bytes) -> bool:
        """From the target's socket to the client's in one go; False where something else is to be done first."""
        exchange, decoder = self._exchange, self._decoder
        assert exchange is not None and decoder is not None
        events = self._taken(decoder.feed(data), exchange)
        return (not events or self._errand.outlet.push(self._note(events))) and not decoder.done

    def adopt(self) -> None:
        """Begun in a task of its own, read on by the calling one."""
        if self._exchange is not None:
            self._exchange.adopt()

    def close(self) -> None:
        """Over, however it ended. Drops the connection where the answer was not read to its end."""
        now = self.record.ended = self._loop.time()
        if self._exchange is not None:
            self._exchange.close(self._ok)
        self._line.end(self.record.outcome)
        if isinstance(self._error, SilentError) and self._error.phase == "stream":
            # The silence that was given up on counts, or the limit that was too short would stay too short.
            waited_from = self._exchange.waited_from if self._exchange is not None else now
            self._gap = max(self._gap, now - waited_from)
        first = self.record.first_token
        per_token = (now - first) / self._pieces if first is not None and self._pieces > 1 else None
        self._errand.health.ended(
            self._pass, now, self._ok, error=self._error, max_gap=self._gap or None, per_token=per_token
        )
        self._error = None

    async def _open(self) -> tuple[Exchange, Decoder]:
        errand, leg, line = self._errand, self._leg, self._line
        target, trace, call = leg.target, errand.journey.trace, line.call
        resume = None
        if leg.rung is Rung.TOKEN_EXACT:
            resume = Resume(
                trace.token_ids,
                trace.identity,
                prompt_ids=trace.prompt_ids,
                ahead=trace.ahead,
                context=target.offer.context,
            )
        elif leg.rung is not None:
            request = call.request
            if not isinstance(request, Plain):
                call = structs.replace(
                    call, request=continued(request, leg.rung, trace.text, trace.tokens, target.can.prefill)
                )
            self._seam = Seam(leg.rung, trace, echoes=target.can.prefill_echo)
        if target.can.local and (errand.salt or errand.rank):
            call = structs.replace(call, salt=errand.salt, rank=errand.rank)
        encode = partial(target.dialect.encode, call, resume=resume)
        lines = errand.caller if target.can.local else b""
        limits, waits = self._limits, target.can.local and leg.rung is None and not errand.outlet.opened
        if waits:
            lines += patience(limits.queue)
        elif target.can.local:
            # What a client has begun to read is not refused any more: it waits for as long as its other limits allow.
            limits = replace(limits, queue=math.inf)
        if errand.journey.context is not None:
            lines += errand.journey.context.header(len(errand.journey.attempts))
        if lines:
            encode = partial(_headed, encode, lines)
        if waits:
            encode = partial(self._in_line, encode)
        line.sent = True
        prompt = partial(_blocks, call)
        try:
            exchange = await target.upstream.open(encode, target.model, limits, call.stream, prompt)
        finally:
            errand.journey.quiet_until = 0.0
        record = self.record
        record.queued, record.woke = exchange.waited
        record.sent, record.answered = exchange.sent, self._loop.time()
        line.waited(record.woke, record.queued, record.answered - exchange.sent)
        try:
            if exchange.status != 200:
                raise target.dialect.refusal(exchange.status, exchange.headers, await exchange.refusal())
            kind = exchange.headers.get("content-type", "").lower()
            # Waiting for a replica to be ready is not the target's time, nor for the first token is that for a turn.
            self._sent = exchange.sent
            queued = target.can.local and errand.entry.own.first_token is None
            self._due_first = (record.answered if queued else exchange.sent) + self._limits.first_token
            return exchange, target.dialect.decoder(call, kind, resume)
        except BaseException:
            # Not read from any more, but `close` must find it.
            self._exchange = exchange
            raise

    def _in_line(self, encode: Callable[[str], HttpCall], model: str) -> HttpCall:
        """A replica is there: from now on the request waits for its turn, for so long at most."""
        self._errand.journey.quiet_until = self._loop.time() + self._limits.queue + _TOLD
        return encode(model)

    def _taken(self, events: list[Event], exchange: Exchange) -> list[Event]:
        """Book what the target sent, look at the clock, and pass it through the seam."""
        note = self._line.note
        parts, ended = self._pieces, False
        for event in events:
            note(event)
            if event.content:
                self._pieces += 1
            elif event.finished:
                ended = True
            if event.usage is not None:
                self._counted(event.usage)
            if event.prompt_ids is not None and self._leg.rung is None:
                self._errand.journey.trace.prompt_ids = event.prompt_ids
        if ended or self._pieces > parts:
            now = self._loop.time()
            # From when it was waited for: a client that reads slowly is not a target that sends slowly.
            if now - exchange.waited_from > self._gap or self._due_first is not None:
                self._arrived(now, exchange)
            if now - self._window >= _RATE_WINDOW:
                self._look_at_rate(now)
        return events if self._seam is None else self._seam.feed(events)

    def _counted(self, usage: Usage) -> None:
        self.record.usage = usage
        trace = self._errand.journey.trace
        if self._leg.rung is None and trace.prompt_tokens is None:
            trace.prompt_tokens = usage.prompt_tokens

    def _arrived(self, now: float, exchange: Exchange) -> None:
        """The first token, or one that took longer than any before it."""
        if self._due_first is None:
            self._gap = now - exchange.waited_from
            return
        self._due_first, self.record.first_token = None, now
        self._errand.health.serving(self._pass, now, now - self._sent if self._line.call.stream else None)
        self._window = now

    def _look_at_rate(self, now: float) -> None:
        """Raises:
        SilentError: over the last ten seconds it was slower than the route allows.
        """
        least = self._limits.min_rate
        if least:
            # Some targets send many tokens at once: those are counted by what they come to.
            text = len(self._errand.journey.trace.text) // _CHARACTERS_PER_TOKEN
            seen = self._pieces, text, self._line.so_far().tokens.output or 0
            if max(map(sub, seen, self._before)) < least * (now - self._window):
                raise SilentError("The target is slower than this route allows.", phase="stream")
            self._before = seen
        self._window = now

    def _finished(self, decoder: Decoder, exchange: Exchange) -> list[Event]:
        """What the end of the connection completes."""
        events = self._taken(decoder.finish(), exchange)
        self.record.outcome, self._ok = "ok", True
        return events + self._uncounted()

    def closing(self) -> list[Event]:
        """The answer is whole, and only its target's closing words are lost: what the client still misses of them."""
        self.record.outcome = "ok"
        return self._uncounted()

    def _uncounted(self) -> list[Event]:
        """The counts, estimated, where the client wants them and the target has told none."""
        call, trace = self._errand.call, self._errand.journey.trace
        if self.record.usage is not None or not (call.stream and call.include_usage):
            return []
        counts = self._line.counts(trace.prompt_tokens)
        return [Event(usage_chunk(call.operation, self._leg.target.model, trace.identity, *counts))]

    def _note(self, events: list[Event]) -> list[Event]:
        """Write down what is about to go to the client."""
        add = self._errand.journey.trace.add
        for e in events:
            if e.content:
                self.progressed = True
            add(e.content, e.finished, e.token_ids, e.identity, e.text, e.actionable, e.reasoning, e.data)
        return events


def _headed(encode: Callable[[str], HttpCall], lines: bytes, model: str) -> HttpCall:
    """The request with the trace that it belongs to, and who asks."""
    return structs.replace(encode(model), headers=lines)


def _blocks(call: Call) -> Sequence[Block]:
    return blocks(parts(call.request))
