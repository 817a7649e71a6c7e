"""One engine process: started in a session of its own, marked, listened to, ended for good.

The engine's messages go straight into its log file, so a chatty engine costs the gateway nothing and an
engine whose gateway was killed does not block on a full pipe.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, create_subprocess_exec
from asyncio.subprocess import Process as Child
from collections.abc import Callable, Collection
from pathlib import Path

from lumen.engines.base import Launch
from lumen.workers.logs import open_log, tail
from lumen.workers.phases import Phase, PhaseReader
from lumen.workers.sweep import Marks, of_start, sweep


class Process:
    """A running engine. Made by `start_process`."""

    def __init__(
        self, child: Child, marks: Marks, log: Path, offset: int, phases: asyncio.ReadTransport | None
    ) -> None:
        self._child = child
        self._marks = marks
        self._log = log
        self._offset = offset
        self._phases = phases

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def alive(self) -> bool:
        return self._child.returncode is None

    @property
    def log(self) -> tuple[Path, int]:
        """Where its messages go, and the offset at which they begin."""
        return self._log, self._offset

    async def wait(self) -> int:
        """Wait for the end; the exit status, negative for a signal. May be awaited by several."""
        return await self._child.wait()

    async def last_lines(self) -> tuple[str, ...]:
        """The last lines the engine wrote into its log, for whoever asks why it ended."""
        return await asyncio.to_thread(tail, self._log, self._offset)

    def terminate(self) -> None:
        """Ask it to end. Only the leader is asked: it needs its own helpers to finish its answers."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                self._child.terminate()

    def kill(self) -> None:
        """SIGKILL to its whole group. Not after its end: the number may be somebody else's by then."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child.pid, signal.SIGKILL)

    async def stop(self, grace: float) -> None:
        """SIGTERM, up to `grace` seconds for it to end, then `destroy`."""
        self.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self.wait()

    async def destroy(self, limit: float) -> bool:
        """Kill what is left: the process, its group, and whatever carries its mark.

        Returns:
            Whether all of it was gone within `limit` seconds.
        """
        self.kill()
        _, gone = await asyncio.to_thread(sweep, of_start(self._marks), limit)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await self.wait()
        if self._phases is not None:
            self._phases.close()
        return gone and not self.alive


async def start_process(
    launch: Launch, marks: Marks, log: Path, on_phase: Callable[[Phase], None], hidden: Collection[str] = ()
) -> Process:
    """Start `launch`. `hidden`: names of variables of our own environment that it must not see.

    Raises:
        OSError: the program cannot be started, or the log not be written.
    """
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    # Cards are numbered as their driver numbers them, by which they were chosen; CUDA's own order is by speed.
    environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    environment |= launch.env
    environment |= marks.environment()
    descriptor, offset = await asyncio.to_thread(open_log, log)
    # A pipe of our own: asyncio's would hold back the news of the exit while a grandchild has it open.
    ours, theirs = os.pipe() if launch.phases else (None, descriptor)
    phases: asyncio.ReadTransport | None = None
    try:
        if ours is not None:
            phases = await _listen(ours, on_phase)
        child = await create_subprocess_exec(
            *launch.argv,
            stdin=DEVNULL,
            stdout=theirs,
            stderr=descriptor,
            env=environment,
            start_new_session=True,
        )
    except BaseException:
        if phases is not None:
            phases.close()
        raise
    finally:
        if theirs != descriptor:
            os.close(theirs)
        os.close(descriptor)
    return Process(child, marks, log, offset, phases)


async def _listen(descriptor: int, on_phase: Callable[[Phase], None]) -> asyncio.ReadTransport:
    loop = asyncio.get_running_loop()
    pipe = os.fdopen(descriptor, "rb", buffering=0)
    try:
        transport, _ = await loop.connect_read_pipe(lambda: _Phases(on_phase), pipe)
    except BaseException:
        pipe.close()
        raise
    return transport


class _Phases(asyncio.Protocol):
    def __init__(self, on_phase: Callable[[Phase], None]) -> None:
        self._reader = PhaseReader()
        self._on_phase = on_phase

    def data_received(self, data: bytes) -> None:
        for phase in self._reader.feed(data):
            self._on_phase(phase)


def ending(status: int, said: str | None) -> str:
    """How a process ended, in words."""
    because = f": {said}" if said else ""
    if status >= 0:
        return f"its engine ended by itself with status {status}{because}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"its engine was killed by {name}{because}"
