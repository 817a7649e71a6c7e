"""One engine process: started in a session of its own, marked, listened to, ended for good.

The engine's messages go straight into its log file, so a chatty engine costs the gateway nothing and an
engine whose gateway was killed does not block on a full pipe. Only where nothing of what is asked may be kept do they
come by here, for an engine might write it: they reach the log until it serves, and nobody from then on.
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
        self,
        child: Child,
        marks: Marks,
        log: Path,
        offset: int,
        phases: asyncio.ReadTransport | None,
        words: _Words | None,
    ) -> None:
        self._child = child
        self._marks = marks
        self._log = log
        self._offset = offset
        self._phases = phases
        self._words = words

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

    def hush(self) -> None:
        """It serves from now on: where nothing may be kept, nothing that it says is."""
        if self._words is not None:
            self._words.hush()

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
        if self._words is not None:
            self._words.close()
        return gone and not self.alive


async def start_process(
    launch: Launch,
    marks: Marks,
    log: Path,
    on_phase: Callable[[Phase], None],
    hidden: Collection[str] = (),
    *,
    private: bool = False,
) -> Process:
    """Start `launch`. `hidden`: names of variables of our own environment that it must not see. `private`: nothing of
    what it is asked may be kept.

    Raises:
        OSError: the program cannot be started, or the log not be written.
    """
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    # Cards are numbered as their driver numbers them, by which they were chosen; CUDA's own order is by speed.
    environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    environment |= launch.env
    environment |= marks.environment()
    out, offset = await asyncio.to_thread(open_log, log)
    words: _Words | None = None
    phases: asyncio.ReadTransport | None = None
    theirs = -1
    try:
        if private and not launch.discreet:
            words, out = await _overheard(out)
        if launch.phases:
            # A pipe of our own: asyncio's would hold back the news of the exit while a grandchild has it open.
            ours, theirs = os.pipe()
            phases = await _listen(ours, lambda: _Phases(on_phase))
        child = await create_subprocess_exec(
            *launch.argv,
            stdin=DEVNULL,
            stdout=theirs if launch.phases else out,
            stderr=out,
            env=environment,
            start_new_session=True,
        )
    except BaseException:
        for opened in (phases, words):
            if opened is not None:
                opened.close()
        raise
    finally:
        if theirs >= 0:
            os.close(theirs)
        os.close(out)
    return Process(child, marks, log, offset, phases, words)


async def _overheard(log: int) -> tuple[_Words, int]:
    """Who writes what is said to `log`, which is its own from now on, and where it is to be said."""
    words = _Words(log)
    ours, theirs = os.pipe()
    try:
        await _listen(ours, lambda: words)
    except BaseException:
        os.close(theirs)
        raise
    return words, theirs


async def _listen(descriptor: int, protocol: Callable[[], asyncio.Protocol]) -> asyncio.ReadTransport:
    loop = asyncio.get_running_loop()
    pipe = os.fdopen(descriptor, "rb", buffering=0)
    try:
        transport, _ = await loop.connect_read_pipe(protocol, pipe)
    except BaseException:
        pipe.close()
        raise
    return transport


class _Words(asyncio.Protocol):
    """What an engine says: written to its log until `hush`, and read and forgotten from then on."""

    def __init__(self, log: int) -> None:
        self._log: int | None = log
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._log is not None:
            # Some lines of a start, to a file: nobody waits for that.
            with contextlib.suppress(OSError):
                os.write(self._log, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.hush()

    def hush(self) -> None:
        log, self._log = self._log, None
        if log is not None:
            os.close(log)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
        self.hush()


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
