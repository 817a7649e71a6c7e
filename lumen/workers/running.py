"""One start of a replica: its process, what it says of itself, what is asked of it, and the leases out on it.

Whatever happens beside its owner (the exit, phases, probes) is a task of this start, ends with it, and only tells
`post` of an event.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from lumen.config.schema import Model
from lumen.core.errors import ConfigError
from lumen.engines.base import Launch, Phase, Place, Remedy, Request
from lumen.workers.follow import follow
from lumen.workers.lifecycle import Event
from lumen.workers.load import Load
from lumen.workers.logs import READ, log_path, tail
from lumen.workers.ports import is_free
from lumen.workers.probe import Address, answers, tell, until_listening
from lumen.workers.process import Process, ending, start_process
from lumen.workers.spec import Home, Spec
from lumen.workers.watching import watch

_logger = logging.getLogger(__name__)
Post = Callable[[Event, str | None], None]


class Run:
    """`number`: of this start, never used twice. `begun`: loop time at which it, or its last wake, began."""

    def __init__(self, spec: Spec, index: int, number: int, home: Home, post: Post, freed: Callable[[], None]) -> None:
        self.number = number
        self.slots: int | None = None  # as the engine itself says
        self.launch: Launch | None = None
        self.phase: Phase | None = None
        self.trouble: str | None = None
        clock = asyncio.get_running_loop().time
        self.begun = clock()
        self.load = Load(freed, clock)
        self.address = Address(None, "")
        self._name = f"{spec.name}/{index}, start {number}"
        self._spec = spec
        self._index = index
        self._home = home
        self._post = post
        self._clock = clock
        self._log = log_path(home.log_dir, spec.name, index)
        self._process: Process | None = None
        self._path, self._question = spec.engine.probe(spec.files, spec.model)
        self._helpers: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None] | None = None
        self._loading = True
        self._over = False

    @property
    def at_once(self) -> int | None:
        """Answers that it gives at a time, where it is worth to reckon how long others wait; see `Launch`."""
        return self.launch.at_once if self.launch is not None else None

    @property
    def served(self) -> str:
        """The name by which the engine knows the model."""
        return str(self._question["model"])

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.alive

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.alive else None

    @property
    def leader(self) -> int | None:
        """The number of its process, also after its end: until `clear`."""
        return self._process.pid if self._process is not None else None

    # -- starting ----------------------------------------------------------------------------------------

    async def start(self, model: Model, place: Place) -> None:
        """Start the process; the rest is told by events."""
        home, spec = self._home, self._spec
        marks = replace(home.marks, replica=f"{spec.name}:{self._index}:{self.number}")
        try:
            problem = spec.engine.missing()
            if problem is not None:
                raise ConfigError(problem)
            launch = spec.engine.launch(spec.files, model, place)
            if launch.fixed_port is not None and not is_free(launch.fixed_port):
                raise ConfigError(f"port {launch.fixed_port} is taken by another program")
            self.launch, self.address = launch, Address(launch.socket, launch.base_url)
            self._process = await start_process(
                launch, marks, self._log, self._phased, home.hidden, private=home.private()
            )
        except ConfigError as error:
            self._post(Event.FAILED, error.message)
        except OSError as error:
            # Who starts processes need not say which program is not there.
            what = error.filename or (self.launch.argv[0] if self.launch is not None else "")
            why = error.strerror or type(error).__name__
            self._post(Event.FAILED, f"its engine cannot be started: {what}: {why}")
        else:
            self._help(self._exit(self._process))
            if not launch.phases:
                self._help(self._wait_listening(launch.health))
            if launch.said is not None:
                log = self._process.log
                self._help(follow(*log, launch.said, self._phased, lambda: self._loading, home.timing.follow))

    def probe(self) -> None:
        """Ask for a first inference until it comes."""
        self._help(self._first_answer())

    def _phased(self, phase: Phase) -> None:
        if self._over:
            return
        before, self.phase = self.phase, phase
        slots, said = phase.facts.get("slots"), phase.facts.get("message")
        if isinstance(slots, int):
            self.slots = slots
        if phase.name == "failed" and isinstance(said, str):
            self.trouble = said
        if phase.name == "ready" and (before is None or before.name != "ready"):
            self._post(Event.LISTENING, None)

    async def _exit(self, process: Process) -> None:
        status = await process.wait()
        self._post(Event.EXITED, ending(status, self.trouble))

    async def _wait_listening(self, health: str | None) -> None:
        await until_listening(self.address, health, self._home.timing.poll)
        self._post(Event.LISTENING, None)

    async def _first_answer(self) -> None:
        while (trouble := await self._ask(self._home.timing.first_probe)) is not None:
            self.trouble = trouble
            await asyncio.sleep(self._home.timing.probe_pause)
        self._post(Event.ANSWERED, None)

    # -- serving and sleeping ----------------------------------------------------------------------------

    def serve(self) -> None:
        """It serves from now on: watch over it."""
        self._loading = False
        if self._process is not None:
            self._process.hush()
        self.load.sign(True)
        self._watching = self._help(self._watch())

    def rest(self) -> None:
        """Have it sleep."""
        if self._watching is not None:
            self._watching.cancel()
        sleeping = self.launch.sleeping if self.launch is not None else None
        self._help(self._told(sleeping.sleep if sleeping else None, Event.SLEPT))

    def rouse(self) -> None:
        """Have it wake."""
        self.begun = self._clock()
        sleeping = self.launch.sleeping if self.launch is not None else None
        self._help(self._told(sleeping.wake if sleeping else None, Event.ANSWERED))

    async def _told(self, request: Request | None, done: Event) -> None:
        trouble: str | None = "its engine cannot sleep"
        if request is not None:
            trouble = await tell(self.address, request, self._home.timing.slumber)
        self._post(done if trouble is None else Event.FAILED, trouble)

    async def _watch(self) -> None:
        trouble = await watch(self.load, self._ask, self._log, self._home.timing, self._clock)
        self._post(Event.HUNG, f"its engine hung: {trouble}")

    async def _ask(self, limit: float) -> str | None:
        return await answers(self.address, self._path, self._question, limit)

    # -- ending ------------------------------------------------------------------------------------------

    def terminate(self) -> None:
        if self._process is not None:
            self._process.terminate()

    async def last_lines(self) -> tuple[str, ...]:
        return await self._process.last_lines() if self._process is not None else ()

    async def remedy(self, model: Model) -> Remedy | None:
        """What its log says of a start that failed, and what asks for less, where its engine can tell."""
        found = self.launch.remedy if self.launch is not None else None
        if found is None or self._process is None:
            return None
        return found(await asyncio.to_thread(tail, *self._process.log, READ), model)

    async def clear(self) -> None:
        """Leave nothing of it behind: tasks, processes, socket. A second time there is nothing to do."""
        self._loading, self._over = False, True
        helpers = tuple(self._helpers)
        for helper in helpers:
            helper.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)
        process, self._process = self._process, None
        if process is not None and not await process.destroy(self._home.timing.sweep):
            _logger.error("process %d of %s cannot be killed", process.pid, self._name)
        if self.launch is not None and self.launch.socket is not None:
            self.launch.socket.unlink(missing_ok=True)

    def _help(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=self._name)
        self._helpers.add(task)
        task.add_done_callback(self._helped)
        return task

    def _helped(self, task: asyncio.Task[None]) -> None:
        self._helpers.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _logger.error("%s failed", task.get_name(), exc_info=error)
            self._post(Event.HUNG, "its supervision failed")
