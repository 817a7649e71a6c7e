"""One replica: a single task owns its state, starts its process, asks it, watches it, ends it.

Everything else (the exit of the process, its phases, probes, `stop`) only posts events to that task.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from lumen.core.errors import ConfigError
from lumen.engines.base import Launch, Place
from lumen.workers.follow import follow
from lumen.workers.lifecycle import Action, Event, Life, State, expiry, step
from lumen.workers.load import Lease, Load
from lumen.workers.logs import READ, log_path, tail, trim
from lumen.workers.phases import Phase
from lumen.workers.ports import free_port, is_free
from lumen.workers.probe import Address, answers, until_listening
from lumen.workers.process import Process, ending, start_process
from lumen.workers.spec import Home, ReplicaState, Spec, socket_path

_logger = logging.getLogger(__name__)


class Replica:
    """`changed` is called after each change of state, in the task that owns it."""

    def __init__(self, spec: Spec, index: int, home: Home, changed: Callable[[Replica], None]) -> None:
        self.spec = spec
        self.index = index
        self.stopping = False
        self.why: str | None = None
        self.slots = spec.model.slots or 0
        self._home = home
        self._changed = changed
        self._clock = asyncio.get_running_loop().time
        self._life = Life(start_timeout=spec.model.start_timeout)
        self._since = time.time()
        self._lines: tuple[str, ...] = ()
        self._events: asyncio.Queue[tuple[Event, int | None, str | None]] = asyncio.Queue()
        self._nudge = asyncio.Event()
        self._number = 0
        self._launch: Launch | None = None
        self._address = Address(None, "")
        self._question = spec.engine.probe(spec.files, spec.model)
        self._process: Process | None = None
        self._phase: Phase | None = None
        self._trouble: str | None = None
        # What is started: the model as it is wanted, or, where that did not fit, one that asks for less.
        self._model = spec.model
        self._end_by = float("inf")
        self._load = Load(self._nudge.set, self._clock)
        self._helpers: set[asyncio.Task[None]] = set()
        self._events.put_nowait((Event.START, None, None))
        self._owner = asyncio.create_task(self._own(), name=f"replica {spec.name}/{index}")

    # -- what others may ask -----------------------------------------------------------------------------

    @property
    def life(self) -> Life:
        return self._life

    @property
    def ready(self) -> bool:
        return self._life.state is State.READY and not self.stopping

    @property
    def load(self) -> Load:
        return self._load

    def lease(self) -> Lease:
        """A lease on it; only while `ready`."""
        return Lease(self._load, self._address, self.spec.name, self.index, str(self._question[1]["model"]))

    def state(self) -> ReplicaState:
        process, phase = self._process, self._phase
        return ReplicaState(
            model=self.spec.name,
            index=self.index,
            engine=self.spec.engine.name,
            state=self._life.state.value,
            since=self._since,
            why=self.why,
            pid=process.pid if process is not None and process.alive else None,
            phase=phase.name if phase else None,
            pct=phase.pct if phase else None,
            restarts=self._life.restarts,
            in_flight=self._load.in_flight,
            lines=self._lines,
        )

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
            await self._clear()
            self._life = replace(self._life, state=State.CRASHED, wake=None)
            pause = self._clock() + self._home.timing.backoff_most
            await self._until(lambda: self.stopping, lambda: pause)
        finally:
            await self._clear()
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
            if number is None or number == self._number:
                return event, trouble

    async def _take(self, event: Event, trouble: str | None) -> Action:
        self._life, action = step(self._life, event, self._clock(), self._home.timing)
        if action is Action.NONE:
            return action
        self._since = time.time()
        if action is Action.MEND:
            self.why = trouble
        elif action is Action.SERVE:
            self.why = None
            self._lines = ()
            self._load.sign(True)
        if action is not Action.END:
            self._changed(self)
        match action:
            case Action.LAUNCH:
                await self._start()
            case Action.PROBE:
                self._help(self._first_answer())
            case Action.SERVE:
                self._help(self._watch())
            case Action.MEND:
                await self._mend()
            case Action.DRAIN:
                await self._drain()
        return action

    def _post(self, event: Event, trouble: str | None = None) -> None:
        self._events.put_nowait((event, self._number, trouble))

    def _help(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside the owner for as long as this process lives."""
        task = asyncio.create_task(work, name=f"{self._owner.get_name()}, start {self._number}")
        self._helpers.add(task)
        task.add_done_callback(self._helped)

    def _helped(self, task: asyncio.Task[None]) -> None:
        self._helpers.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _logger.error("%s failed", task.get_name(), exc_info=error)
            self._post(Event.HUNG, "its supervision failed")

    # -- starting ----------------------------------------------------------------------------------------

    async def _start(self) -> None:
        home, spec = self._home, self.spec
        self._number = number = next(home.numbers)
        self._load = Load(self._nudge.set, self._clock)
        self._phase, self._trouble, self._launch = None, None, None
        marks = replace(home.marks, replica=f"{spec.name}:{self.index}:{number}")
        place = Place(
            socket=socket_path(home.run_dir, spec.name, self.index, number), port=free_port(), parent_pid=os.getpid()
        )
        try:
            problem = spec.engine.missing()
            if problem is not None:
                raise ConfigError(problem)
            launch = spec.engine.launch(spec.files, self._model, place)
            if launch.fixed_port is not None and not is_free(launch.fixed_port):
                raise ConfigError(f"port {launch.fixed_port} is taken by another program")
            self._launch, self._address = launch, Address(launch.socket, launch.base_url)
            self._process = await start_process(
                launch, marks, log_path(home.log_dir, spec.name, self.index), self._phased(number), home.hidden
            )
        except ConfigError as error:
            self._post(Event.FAILED, error.message)
        except OSError as error:
            self._post(Event.FAILED, f"its engine cannot be started: {error.strerror or type(error).__name__}")
        else:
            self._help(self._exit(self._process))
            if not launch.phases:
                self._help(self._wait_listening(self._address, launch.health))
            if launch.said is not None:
                told, loads = self._phased(number), (State.STARTING, State.PROBING)
                follows = follow(
                    *self._process.log, launch.said, told, lambda: self._life.state in loads, home.timing.follow
                )
                self._help(follows)

    def _phased(self, number: int) -> Callable[[Phase], None]:
        def on_phase(phase: Phase) -> None:
            if number != self._number:
                return
            before, self._phase = self._phase, phase
            slots, said = phase.facts.get("slots"), phase.facts.get("message")
            if isinstance(slots, int):
                self.slots = slots
            if phase.name == "failed" and isinstance(said, str):
                self._trouble = said
            if phase.name == "ready" and (before is None or before.name != "ready"):
                self._post(Event.LISTENING)

        return on_phase

    async def _exit(self, process: Process) -> None:
        status = await process.wait()
        self._post(Event.EXITED, ending(status, self._trouble))
        self._nudge.set()

    async def _wait_listening(self, address: Address, health: str | None) -> None:
        await until_listening(address, health, self._home.timing.poll)
        self._post(Event.LISTENING)

    async def _first_answer(self) -> None:
        while (trouble := await self._ask(self._home.timing.first_probe)) is not None:
            self._trouble = trouble
            await asyncio.sleep(self._home.timing.probe_pause)
        self._post(Event.ANSWERED)

    def _lateness(self) -> str:
        trouble = f"; {self._trouble}" if self._trouble else ""
        phase = f" (phase {self._phase.name})" if self._phase else ""
        return f"its engine was not ready after {self.spec.model.start_timeout:g} s{phase}{trouble}"

    # -- serving -----------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Probe it while nothing else shows that it works: an engine can hang with its port still open.

        A busy one is not judged unless a request on it failed: its slots may all be taken by long answers.
        """
        timing, load = self._home.timing, self._load
        strikes = 0
        while strikes < timing.strikes:
            load.alarm.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timing.probe_pause if strikes else timing.watch):
                    await load.alarm.wait()
            await asyncio.to_thread(trim, log_path(self._home.log_dir, self.spec.name, self.index))
            asked = self._clock()
            idle = load.in_flight == 0 and (strikes or asked - load.good >= timing.watch)
            if not idle and not load.suspect:
                strikes = 0
                continue
            trouble = await self._ask(timing.watch_limit)
            if trouble is None:
                load.sign(True)
            if load.good >= asked or (load.in_flight and not load.suspect):
                strikes = 0
            else:
                strikes += 1
                self._trouble = trouble
        self._post(Event.HUNG, f"its engine hung: {self._trouble}")

    async def _ask(self, limit: float) -> str | None:
        path, body = self._question
        return await answers(self._address, path, body, limit)

    # -- ending ------------------------------------------------------------------------------------------

    async def _mend(self) -> None:
        if self._process is not None:
            self._lines = await self._process.last_lines()
            if self._life.failed_starts:
                await self._learn(self._process)
        await self._clear()
        _logger.warning("replica %s/%d: %s", self.spec.name, self.index, self.why)

    async def _learn(self, process: Process) -> None:
        """What the log says of a start that failed. What asks for less is tried, once in the life of a replica."""
        remedy = self._launch.remedy if self._launch is not None else None
        if remedy is None:
            return
        found = remedy(await asyncio.to_thread(tail, *process.log, READ), self._model)
        if found is None:
            return
        self.why = found.why
        if found.model is not None and self._model is self.spec.model:
            self._model = found.model
        self._changed(self)

    async def _drain(self) -> None:
        await self._until(lambda: not self._load.in_flight, lambda: self._end_by)
        process, launch = self._process, self._launch
        if process is not None and launch is not None:
            process.terminate()
            asked, last_words = self._clock(), self._home.timing.last_words
            await self._until(
                lambda: not process.alive, lambda: max(min(self._end_by, asked + launch.grace), asked + last_words)
            )
        await self._clear()
        self._events.put_nowait((Event.EXITED, None, None))

    async def _until(self, done: Callable[[], bool], by: Callable[[], float]) -> None:
        """Wait until `done`, or the time that `by` says, which `stop` may move while we wait."""
        while not done() and by() > self._clock():
            self._nudge.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(by()):
                    await self._nudge.wait()

    async def _clear(self) -> None:
        """Leave nothing of this start behind: tasks, processes, socket."""
        helpers = tuple(self._helpers)
        for helper in helpers:
            helper.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)
        process, self._process = self._process, None
        if process is not None and not await process.destroy(self._home.timing.sweep):
            _logger.error("process %d of %s/%d cannot be killed", process.pid, self.spec.name, self.index)
        if self._launch is not None and self._launch.socket is not None:
            self._launch.socket.unlink(missing_ok=True)
