"""One replica: a single task owns its state and starts, asks, rests and ends its engine, one `Run` after another.

Everything else (the engine's exit, its phases, probes, `turn`, `sleep`, `stop`) only posts events to that task.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace

from lumen.engines.base import Place
from lumen.workers.lifecycle import Action, Event, Life, State, expiry, step
from lumen.workers.load import Lease, Load
from lumen.workers.ports import free_port
from lumen.workers.running import Run
from lumen.workers.spec import Home, ReplicaState, Spec, Wake, socket_path

_logger = logging.getLogger(__name__)


class Replica:
    """`changed` is called after each change of state, in the task that owns it.

    `key`: what its memory is accounted under, never the name of another. `loaded`: loop time at which it came to
    serve, and `woke` how. `closed`: it takes nothing new, for another model's sake.
    """

    def __init__(self, spec: Spec, index: int, home: Home, changed: Callable[[Replica], None]) -> None:
        self.spec = spec
        self.index = index
        self.key = f"{spec.name}/{index}/{next(home.numbers)}"
        self.stopping = False
        self.closed = False
        self.why: str | None = None
        self.loaded = 0.0
        self.woke: Wake | None = None
        self._home = home
        self._changed = changed
        self._clock = asyncio.get_running_loop().time
        self._life = Life(start_timeout=spec.model.start_timeout)
        self._since = time.time()
        self._lines: tuple[str, ...] = ()
        self._events: asyncio.Queue[tuple[Event, int | None, str | None]] = asyncio.Queue()
        self._nudge = asyncio.Event()
        self._run = self._next_run()
        # What is started: the model as it is wanted, or, where that did not fit, one that asks for less.
        self._model = spec.model
        self._gpus: tuple[int, ...] = ()
        self._turned = self._resting = False  # told to start or wake, told to sleep; not yet seen to
        self._end_by = float("inf")
        self._events.put_nowait((Event.START, None, None))
        self._owner = asyncio.create_task(self._own(), name=f"replica {spec.name}/{index}")

    # -- what others may ask -----------------------------------------------------------------------------

    @property
    def life(self) -> Life:
        return self._life

    @property
    def ready(self) -> bool:
        """Whether it serves, or would if it were not `closed`."""
        return self._life.state is State.READY and not (self.stopping or self._resting)

    @property
    def open(self) -> bool:
        """Whether a request may be given to it."""
        return self.ready and not self.closed

    @property
    def waits(self) -> bool:
        """Whether it can be given its turn: to start, or to be woken."""
        return self._life.state in (State.WAITING, State.ASLEEP) and not (self.stopping or self._turned)

    @property
    def sleeps(self) -> bool:
        """Whether the process that runs now can sleep."""
        return self._run.launch is not None and self._run.launch.sleeping is not None

    @property
    def load(self) -> Load:
        return self._run.load

    @property
    def slots(self) -> int:
        """How many answers it gives at once; 0 where nobody says."""
        said = self._run.slots
        return said if said is not None else self.spec.model.slots or 0

    @property
    def run(self) -> Run:
        """Its last start."""
        return self._run

    def lease(self) -> Lease:
        """A lease on it; only while `ready`."""
        run = self._run
        return Lease(run.load, run.address, self.spec.name, self.index, run.served)

    def state(self) -> ReplicaState:
        phase = self._run.phase
        return ReplicaState(
            model=self.spec.name,
            index=self.index,
            engine=self.spec.engine.name,
            state=self._life.state.value,
            since=self._since,
            why=self.why,
            pid=self._run.pid,
            phase=phase.name if phase else None,
            pct=phase.pct if phase else None,
            restarts=self._life.restarts,
            in_flight=self.load.in_flight,
            lines=self._lines,
        )

    def turn(self, gpus: tuple[int, ...] = ()) -> None:
        """Start, or wake: memory is set aside, on these cards. Only while it `waits`."""
        self._turned, self._gpus = True, gpus
        self._events.put_nowait((Event.TURN, None, None))

    def sleep(self) -> None:
        """Give the device memory back. Only while it is `ready`, has nothing in flight, and its engine can."""
        self._resting = True
        self._events.put_nowait((Event.SLEEP, None, None))

    def stop(self, grace: float) -> None:
        """Take nothing new; running answers have `grace` seconds. A later call may shorten that, not lengthen it."""
        self.stopping = True
        self._end_by = min(self._end_by, self._clock() + grace)
        self._events.put_nowait((Event.STOP, None, None))
        self._nudge.set()

    async def gone(self) -> None:
        """Wait until it is off for good, which `stop` brings about."""
        await asyncio.wait({self._owner})

    # -- the owner ---------------------------------------------------------------------------------------

    async def _own(self) -> None:
        try:
            action = Action.NONE
            while action is not Action.END:
                event, trouble = await self._next()
                action = await self._take(event, trouble)
        except Exception:
            # A mistake of ours must not look like a replica that is still being looked after.
            _logger.exception("replica %s/%d gave up", self.spec.name, self.index)
            # Its successor would likely fare no better: not before a pause.
            await self._run.clear()
            self._life = replace(self._life, state=State.CRASHED, wake=None)
            pause = self._clock() + self._home.timing.backoff_most
            await self._until(lambda: self.stopping, lambda: pause)
        finally:
            await self._run.clear()
            self._life = replace(self._life, state=State.OFF)
            self._changed(self)

    async def _next(self) -> tuple[Event, str | None]:
        while True:
            try:
                async with asyncio.timeout_at(self._life.wake):
                    event, number, trouble = await self._events.get()
            except TimeoutError:
                return expiry(self._life.state), self._lateness()
            # News of an earlier process do not concern its successor.
            if number is None or number == self._run.number:
                return event, trouble

    async def _take(self, event: Event, trouble: str | None) -> Action:
        before = self._life.state
        self._life, action = step(self._life, event, self._clock(), self._home.timing)
        if action is Action.NONE:
            return action
        self._since = time.time()
        self._note(action, before, trouble)
        if action is not Action.END:
            self._changed(self)
        match action:
            case Action.LAUNCH:
                await self._start()
            case Action.PROBE:
                self._run.probe()
            case Action.SERVE:
                self._run.serve()
            case Action.REST:
                self._run.rest()
            case Action.ROUSE:
                self._run.rouse()
            case Action.MEND:
                await self._mend(before)
            case Action.DRAIN:
                await self._drain()
        return action

    def _note(self, action: Action, before: State, trouble: str | None) -> None:
        """What others see of this change, before they hear of it."""
        match action:
            case Action.LAUNCH:
                self._turned, self._run = False, self._next_run()
            case Action.ROUSE:
                self._turned = False
            case Action.SERVE:
                now = self._clock()
                self.woke = Wake("asleep" if before is State.WAKING else "off", now - self._run.begun)
                self.loaded, self.why, self._lines, self._resting = now, None, (), False
            case Action.MEND:
                self.why, self._turned, self._resting = trouble, False, False
            case Action.DRAIN:
                self.stopping = True
                self.why = trouble or self.why

    def _next_run(self) -> Run:
        number = next(self._home.numbers)

        def post(event: Event, trouble: str | None) -> None:
            self._events.put_nowait((event, number, trouble))
            # Whoever waits for the process to end looks at it.
            self._nudge.set()

        return Run(self.spec, self.index, number, self._home, post, self._freed)

    def _freed(self) -> None:
        self._nudge.set()
        self._home.freed()

    async def _start(self) -> None:
        home, run = self._home, self._run
        socket = socket_path(home.run_dir, self.spec.name, self.index, run.number)
        await run.start(self._model, Place(socket=socket, port=free_port(), gpus=self._gpus, parent_pid=os.getpid()))

    def _lateness(self) -> str:
        state, run = self._life.state, self._run
        if state in (State.SLEEPING, State.WAKING):
            return f"its engine was not done {state.value} after {self._home.timing.slumber:g} s"
        trouble = f"; {run.trouble}" if run.trouble else ""
        phase = f" (phase {run.phase.name})" if run.phase else ""
        return f"its engine was not ready after {self.spec.model.start_timeout:g} s{phase}{trouble}"

    # -- ending ------------------------------------------------------------------------------------------

    async def _mend(self, before: State) -> None:
        self._lines = await self._run.last_lines() or self._lines
        # Of one that had come up the log tells of its requests too.
        if before in (State.STARTING, State.PROBING):
            await self._learn()
        await self._run.clear()
        _logger.warning("replica %s/%d: %s", self.spec.name, self.index, self.why)

    async def _learn(self) -> None:
        """What the log says of a start that failed. What asks for less is tried, once in the life of a replica."""
        found = await self._run.remedy(self._model)
        if found is None:
            return
        self.why = found.why
        self._lines = found.lines or self._lines
        if found.model is not None and self._model is self.spec.model:
            self._model = found.model
        self._changed(self)

    async def _drain(self) -> None:
        run, load = self._run, self._run.load
        await self._until(lambda: not load.in_flight, lambda: self._end_by)
        if run.launch is not None and run.alive:
            run.terminate()
            asked, grace, last_words = self._clock(), run.launch.grace, self._home.timing.last_words
            await self._until(lambda: not run.alive, lambda: max(min(self._end_by, asked + grace), asked + last_words))
        await run.clear()
        self._events.put_nowait((Event.EXITED, None, None))

    async def _until(self, done: Callable[[], bool], by: Callable[[], float]) -> None:
        """Wait until `done`, or the time that `by` says, which `stop` may move while we wait."""
        while not done() and by() > self._clock():
            self._nudge.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(by()):
                    await self._nudge.wait()
