"""One request from its plan to its record: what it is, where it goes, what came of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping

from aiohttp.web import BaseRequest, StreamResponse

from lumen.core.trace import Trace
from lumen.gateway import planning, timing
from lumen.gateway.attempt import Errand, Journey
from lumen.gateway.attempts import run
from lumen.gateway.bytestream import ByteStream
from lumen.gateway.callers import line, rank, salt
from lumen.gateway.course import Course
from lumen.gateway.live import Active
from lumen.gateway.objective import covered
from lumen.gateway.outlet import Outlet
from lumen.gateway.reply import EventStream, Fold, stream_reply
from lumen.gateway.settled import Settled
from lumen.gateway.state import State
from lumen.gateway.tab import Tab
from lumen.gateway.table import Entry
from lumen.gateway.traces import context_of
from lumen.gateway.trial import Asked
from lumen.keys import Key
from lumen.wire.call import Call
from lumen.wire.continued import asked
from lumen.wire.ingress.dress import Dress, Sealed
from lumen.wire.requests import Plain


class Passage:
    """A request that was planned and counts as under way: `answer` it, then `end` it, whatever happens.

    Args:
        size: bytes of its body. headers: the client's. started: the loop's time when it came.

    Raises:
        LumenError: there is no plan for it; nothing is under way then.
    """

    __slots__ = ("_asks", "_call", "_entry", "_fresh", "_id", "_journey", "_key", "_part", "_plan", "_size", "_started",
                 "_state", "_tab", "_whole")  # fmt: skip

    def __init__(
        self,
        state: State,
        request_id: str,
        key: Key | None,
        entry: Entry,
        call: Call,
        size: int,
        headers: Mapping[str, str],
        started: float,
    ) -> None:
        self._state, self._id, self._key, self._entry = state, request_id, key, entry
        self._call, self._size, self._started = call, size, started
        plan, fresh, marks = planning.plan(state, entry, call, request_id, key, size, headers, state.loop.time())
        trial = state.trials.get(entry.account)
        self._part = None if trial is None else trial.begin(Asked(request_id, entry, key, call, size, headers))
        if self._part is not None:
            plan, fresh = self._part.steer(plan, fresh)
        self._plan, self._fresh = plan, fresh
        self._asks = asked(call)
        keep = call.stream and (state.payloads is not None or state.traces is not None) and self._kept()
        self._journey = Journey(Trace(call.answers, replayable=self._asks.repeatable and call.stream, keep=keep))
        self._journey.marks = marks
        self._journey.context = context_of(state.traces, headers.get("traceparent"), headers.get("tracestate"))
        self._tab: Tab | None = None
        self._whole = b""
        state.counters.in_flight += 1
        who = key.id if key else None
        state.active[request_id] = Active(
            request_id, call.operation.value, entry.name, who, call.stream, started, self._journey,
            asyncio.current_task(state.loop),
        )  # fmt: skip

    def _kept(self) -> bool:
        """Whether somebody keeps what an answer says, also beside its text."""
        if isinstance(self._call.request, Plain):
            return False
        state, account = self._state, self._entry.account
        logged = state.payloads is not None and state.payloads.keeps(account)
        traced = state.traces is not None and state.traces.wanted.payloads
        return (logged or traced) and state.retention.retains(account, self._key)

    async def answer(
        self, request: BaseRequest, dress: Dress | None, kind: str | None = None
    ) -> tuple[StreamResponse, str]:
        """The attempt loop: the answer that was sent, and how it ended. `kind`: its content type, where that varies.

        Raises:
            LumenError: nothing was sent.
        """
        state, entry, call, fresh = self._state, self._entry, self._call, self._fresh
        offers = [target.offer for target, _ in self._plan]
        self._tab = state.billing.open(
            self._id, self._key, entry.account, call, self._size, offers[:fresh], offers[fresh:]
        )
        self._tab.marks = self._journey.marks
        response: StreamResponse
        if call.stream:
            server = state.config.server
            known = {"x-request-id": self._id, "x-lumen-route": entry.name}
            keepalive, stall, quiet = server.keepalive, server.client_stall, self._quiet_until
            stream = (
                EventStream(request, known, self.told, dress=dress, keepalive=keepalive, stall=stall, quiet_until=quiet)
                if kind is None
                else ByteStream(
                    request, known, self.told, kind=kind, keepalive=keepalive, stall=stall, quiet_until=quiet
                )
            )
            answer = run(self._errand(self._tab, stream), self._course())
            if dress is not None and isinstance(dress, Sealed):
                answer = _sealed(answer, dress)
            response = await stream_reply(stream, answer)
        else:
            fold = Fold(dress, kind)
            await run(self._errand(self._tab, fold), self._course())
            self._whole = fold.body
            if dress is not None and isinstance(dress, Sealed):
                await dress.seal(fold.body)
            response = await fold.reply(request, self.told())
        return response, self._journey.attempts[-1].outcome

    def _quiet_until(self) -> float:
        return self._journey.quiet_until

    def _errand(self, tab: Tab, outlet: Outlet) -> Errand:
        state, entry, key = self._state, self._entry, self._key
        who = line(key, entry.priority, shared=entry.shared, keep=state.retention.retains(entry.account, key))
        return Errand(
            self._id, self._call, entry, self._size, state.health, tab, self._journey, outlet, state.loop, who,
            salt(key, shared=entry.shared), rank(key, entry.priority),
        )  # fmt: skip

    def _course(self) -> Course:
        entry, state = self._entry, self._state
        return Course(
            self._plan,
            self._journey.trace,
            self._asks,
            state.health,
            around_filter=entry.around_filter,
            clock=state.loop.time,
            draw=state.draw.random,
            fresh=self._fresh,
            most=entry.max_splices,
            cover=covered(entry, self._plan, state.planner.wakes),
        )

    def told(self) -> dict[str, str]:
        """The headers that tell of it, as far as it has come."""
        journey, started = self._journey, self._started
        taken = self._state.loop.time() - started
        return {
            "x-request-id": self._id,
            "x-lumen-route": self._entry.name,
            "x-lumen-target": journey.target,
            "x-lumen-reason": planning.reason(self._plan, journey.attempts),
            "openai-processing-ms": str(round(taken * 1000)),
            **timing.headers(journey.attempts, started, stream=self._call.stream),
        }

    def end(self, outcome: str) -> None:
        """Book it, count it, tell who watches. Synchronous, so that a cancelled handler still finishes it."""
        state, key, call, journey, whole = self._state, self._key, self._call, self._journey, self._whole
        cost = 0
        if self._tab is not None:
            self._tab.close(outcome)
            cost = self._tab.cost
        settled = Settled(
            self._id, call.operation.value, self._entry.name, key.id if key else None, time.time(), self._started,
            state.loop.time(), outcome, call.stream, journey.attempts, cost,
        )  # fmt: skip
        settle(state, settled)
        account = self._entry.account
        if state.traces is not None and journey.context is not None and journey.context.sampled:
            may = state.retention.retains(account, key)
            state.traces.take(settled, journey.context, call if may else None, journey.trace, whole)
        if state.payloads is not None:
            state.payloads.take(settled, account, key, call, journey.trace, whole)
        if self._part is not None:
            self._part.over(settled, journey, whole)


async def _sealed(answer: Coroutine[None, None, None], dress: Sealed) -> None:
    await answer
    await dress.seal(None)


def settle(state: State, settled: Settled) -> None:
    """Count a request that is over and tell who watches."""
    del state.active[settled.id]
    counters = state.counters
    counters.in_flight -= 1
    counters.total += 1
    if counters.in_flight == 0:
        state.idle.set()
    if settled.outcome == "cancelled":
        counters.cancelled += 1
    elif settled.outcome != "ok":
        counters.errors += 1
    counters.splices += len(settled.splices)
    for observer in state.observers:
        observer.add(settled)
