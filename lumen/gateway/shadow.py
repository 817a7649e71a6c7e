"""Requests that no client waits for: run in the dark, bounded, billed to their route, cancelled first under load.

They take the same path to a target as any other request, from health and budget to decoder, and none of it is told to
those who watch the traffic. Whoever wants one run puts a job in the queue; it is refused while the gateway has enough
to do, and cancelled as soon as it has.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from msgspec import Struct, structs

from lumen.core.errors import LumenError, RequestError, Retry, UpstreamError, let_go
from lumen.core.meter import worst
from lumen.core.trace import Trace
from lumen.gateway.attempt import Errand, Journey, Record
from lumen.gateway.attempts import run
from lumen.gateway.course import Course
from lumen.gateway.need import needed
from lumen.gateway.state import State
from lumen.gateway.tab import bounded
from lumen.gateway.table import Entry, Target
from lumen.wire.answers import Usage
from lumen.wire.call import Call, Event, Operation
from lumen.wire.continued import asked
from lumen.wire.requests import ChatRequest, CompletionRequest, Message, Plain, StreamOptions

# Jobs at once and waiting, and requests of clients under way at which there is no room for any.
AT_ONCE = 4
WAITING = 64
CROWD = 32
# Seconds between two looks whether jobs are in the way, and that one may take.
_LOOK = 0.1
_LONGEST = 300.0
# Bytes of an answer that are kept, and tokens of one whose request names no limit.
_MOST_KEPT = 2 * 1024 * 1024
MOST_OUTPUT = 4096


class Heard(Struct, frozen=True):
    """What a target answered in the dark. `payloads`: the JSON of its events. `outcome`: ok or an error's code.

    `cost`: pico-dollars, `None` where the target has no price. `ttft`, `seconds`: from when it was asked. `passing`: it
    failed for a reason of the moment, such as a limit of its rate, which says nothing of how it answers.
    """

    target: str
    outcome: str
    payloads: list[bytes]
    usage: Usage | None
    cost: int | None
    ttft: float | None
    seconds: float
    passing: bool = False


@dataclass(eq=False, slots=True)
class Job:
    """`work` is run once, or never. `targets`: local models it asks, before which requests of clients go."""

    work: Callable[[], Awaitable[None]]
    targets: frozenset[str] = frozenset()


@dataclass(slots=True)
class Tally:
    """Jobs since the start: ended by themselves, cancelled under load, refused for want of room."""

    done: int = 0
    cancelled: int = 0
    refused: int = 0


@dataclass(eq=False, slots=True)
class _Ear:
    """The outlet of an answer that goes to nobody."""

    payloads: list[bytes] = field(default_factory=list)
    size: int = 0
    opened: bool = False

    async def send(self, events: list[Event]) -> None:
        self.push(events)

    def push(self, events: list[Event]) -> bool:
        for event in events:
            if event.data and self.size < _MOST_KEPT:
                self.size += len(event.data)
                self.payloads.append(event.data)
        return True

    async def ready(self) -> None:
        """There is always room: what is too much is not kept."""


class Dark:
    """The queue of what is run in the dark. One event loop's own; `close` it.

    Args:
        say: tells the operator of a job that failed in a way nobody expected.
    """

    def __init__(
        self, state: State, say: Callable[[str], None], *, at_once: int = AT_ONCE, waiting: int = WAITING,
        crowd: int = CROWD,
    ) -> None:  # fmt: skip
        self._state = state
        self._say = say
        self._at_once, self._waiting, self._crowd = at_once, waiting, crowd
        self._queue: deque[Job] = deque()
        self._running: dict[asyncio.Task[None], Job] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self.tally = Tally()

    def offer(self, job: Job) -> bool:
        """Have it run when there is room. False: there is none, and it never runs."""
        if self._closed or len(self._queue) >= self._waiting or self._crowded():
            self.tally.refused += 1
            return False
        self._queue.append(job)
        self._start()
        return True

    async def close(self) -> None:
        """Cancel everything, and wait until it has ended."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._queue.clear()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def standing(self) -> dict[str, int]:
        """For operators."""
        tally = self.tally
        return {
            "running": len(self._running), "waiting": len(self._queue), "done": tally.done,
            "cancelled": tally.cancelled, "refused": tally.refused,
        }  # fmt: skip

    # -- asking ----------------------------------------------------------------------------------------------

    def target(self, entry: Entry, name: str) -> Target:
        """A target by its name, of this route or any.

        Raises:
            RequestError: there is none.
        """
        for target in entry.targets:
            if target.name == name:
                return target
        table = self._state.table
        try:
            found = table.find(name).targets
        except RequestError:
            found = ()
        entries = [found, *(other.targets for other in table.entries())]
        for target in (target for targets in entries for target in targets):
            if target.name == name:
                return target
        raise RequestError(f"There is no target '{name[:128]}'.", status=404, param="target")

    def local(self, entry: Entry, *names: str | None) -> frozenset[str]:
        """Those of these targets that run on this machine, where clients and the dark are in each other's way."""
        found = set()
        for name in names:
            with suppress(RequestError):
                if name is not None and self.target(entry, name).can.local:
                    found.add(name)
        return frozenset(found)

    def most(self, target: Target, call: Call, size: int) -> int | None:
        """The most that asking it can cost, in pico-dollars; `None` where its price is not known."""
        offer = target.offer
        if offer.price is None:
            return None
        need = needed(call, size)
        bound = need.input_bound if offer.context is None else min(need.input_bound, offer.context)
        return worst(offer.price, bound, (need.max_tokens or MOST_OUTPUT) * max(need.answers, 1), offer.most_micros)

    async def ask(
        self, entry: Entry, target: Target, call: Call, size: int, kind: str, paid: Callable[[int], None]
    ) -> Heard | None:
        """Ask one target, on the route's account, and hear all of its answer.

        Args:
            kind: what the ledger calls it.
            paid: told what it cost, in pico-dollars, however it ended.

        Returns `None` where it could not be asked: it is out, or the route's budget does not reach.
        """
        state = self._state
        loop = state.loop
        call = bounded(call, MOST_OUTPUT)
        journey, ear = Journey(Trace(call.answers)), _Ear()
        course = Course(
            [(target, kind)], journey.trace, asked(call), state.health,
            around_filter=False, clock=loop.time, draw=state.draw.random,
        )  # fmt: skip
        request_id, outcome, passing = f"{kind}_{secrets.token_hex(12)}", "cancelled", False
        tab = None
        try:
            tab = state.billing.open(request_id, None, entry.account, call, size, [target.offer])
            tab.operation = kind
            async with asyncio.timeout(_LONGEST):
                await run(Errand(request_id, call, entry, size, state.health, tab, journey, ear, loop), course)
            outcome = "ok"
        except LumenError as error:
            let_go(error)
            outcome = error.code or error.type
            passing = not (isinstance(error, UpstreamError) and error.retry is Retry.NEVER)
        except TimeoutError:
            outcome, passing = "timeout", True
        finally:
            if tab is not None:
                tab.close(outcome)
                paid(tab.cost)
        if not journey.attempts:
            return None
        last = journey.attempts[-1]
        cost = None if target.offer.price is None or tab is None else tab.cost
        return Heard(target.name, outcome, ear.payloads, last.usage, cost, *_times(last), passing)

    # -- inside ----------------------------------------------------------------------------------------------

    def _crowded(self) -> bool:
        return self._state.draining or self._state.counters.in_flight > self._crowd

    def _start(self) -> None:
        while self._queue and len(self._running) < self._at_once:
            job = self._queue.popleft()
            task = asyncio.ensure_future(self._run(job))
            self._running[task] = job
            task.add_done_callback(self._ended)
        if self._running and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LOOK, self._look)

    async def _run(self, job: Job) -> None:
        await job.work()
        self.tally.done += 1

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._say(f"a request in the dark failed: {type(error).__name__}: {error}")
        if not self._closed:
            self._start()

    def _look(self) -> None:
        """While anything runs: has the gateway better things to do?"""
        self._timer = None
        if self._crowded():
            self.tally.cancelled += len(self._running) + len(self._queue)
            self._queue.clear()
            for task in self._running:
                task.cancel()
        elif any(job.targets for job in self._running.values()):
            asked_now = {one.journey.target for one in self._state.active.values()}
            for task, job in self._running.items():
                if job.targets & asked_now:
                    self.tally.cancelled += 1
                    task.cancel()
        if self._running:
            self._timer = asyncio.get_running_loop().call_later(_LOOK, self._look)


def again(call: Call) -> Call | None:
    """The same request to be asked once more, as a stream with its counts; `None` for one that cannot be compared."""
    request = call.request
    if isinstance(request, Plain) or call.answers != 1:
        return None
    more = {"stream": True, "stream_options": StreamOptions(include_usage=True), "n": None}
    # What asks for tokens by their ids is between a client and its target.
    own = {"return_token_ids": None, "resume_token_ids": None, "resume_exact": None}
    made: ChatRequest | CompletionRequest = structs.replace(request, **more, **own)
    return Call(call.operation, made, True, True, 1, call.lent)


def chat(model: str, messages: list[tuple[str, str]], max_tokens: int) -> Call:
    """A chat of (role, text), asked as a stream with its counts."""
    request = ChatRequest(
        model=model,
        messages=[Message(role=role, content=text) for role, text in messages],  # type: ignore[arg-type]
        max_tokens=max_tokens,
        stream=True,
        stream_options=StreamOptions(include_usage=True),
    )
    return Call(Operation.CHAT, request, True, True, 1)


def _times(last: Record) -> tuple[float | None, float]:
    asked_at = last.sent if last.sent is not None else last.started
    first = None if last.first_token is None else last.first_token - asked_at
    return first, max(last.ended - asked_at, 0.0)
