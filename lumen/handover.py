"""One gateway takes over from another while both run: sockets, idle connections, and at last the ledger.

They speak over a UNIX socket in the run folder that only this user can open; each message is a JSON object, some carry
file descriptors (SCM_RIGHTS). What the new one (the successor) says, and what the old one answers:

1. `take` → `taken` with the lock of the run folder and the listening socket. Nothing changes yet: should the successor
   fail now, the old one just goes on.
2. `go`, once the successor's engines are ready → `gone`: the old one listens no more and has written down what it has
   learned. Whoever connects from then on waits in the listening socket's queue for the successor, which is there.
3. Connections come, each as soon as nothing is under way on it. A client keeps its connection and notices nothing.
4. `released`: the old one has finished its answers, booked them and closed the ledger.
5. The end of the socket: its engines are gone too, or it was killed.

The ledger has one writer at any time: the successor opens it at 4, or else at 5. Until then requests that cost nothing
are served and booked later; those that cost money wait, at most as long as the old one may drain.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lumen.core.errors import ConfigError

_LARGEST = 4096
_MOST_FDS = 32
_CREDENTIALS = struct.Struct("3i")
# Seconds that an answer of the other side may take: each is given from its event loop.
_PATIENCE = 10.0


class HandoverError(ConfigError):
    """There is nobody to take over from, or it cannot be done now."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a successor begins with: the lock of the run folder, and the socket that clients connect to."""

    lock: int
    listener: socket.socket


class Channel:
    """One side's end of the socket; every call returns at once or within seconds."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._loop = asyncio.get_running_loop()
        self._got: asyncio.Queue[tuple[dict[str, Any], list[int]] | None] = asyncio.Queue()
        self._loop.add_reader(end, self._read)
        self._open = True

    def send(self, what: str, fds: Iterable[int] = ()) -> bool:
        """False where the other side is gone or its buffer full; the descriptors stay ours either way."""
        if not self._open:
            return False
        try:
            socket.send_fds(self._end, [json.dumps({"say": what}).encode()], list(fds))
        except OSError:
            return False
        return True

    async def get(self, timeout: float | None) -> tuple[str, list[int]] | None:
        """The next message with its descriptors, which are the caller's then; `None`: the other side has ended.

        Raises:
            TimeoutError: none came in time.
        """
        async with asyncio.timeout(timeout):
            got = await self._got.get()
        return None if got is None else (str(got[0].get("say")), got[1])

    def close(self) -> None:
        if self._open:
            self._open = False
            self._loop.remove_reader(self._end)
            self._end.close()

    def _read(self) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._end, _LARGEST, _MOST_FDS)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        if not data:
            self.close()
            self._got.put_nowait(None)
            return
        try:
            message = json.loads(data)
        except ValueError:
            message = {}
        self._got.put_nowait((message if isinstance(message, dict) else {}, fds))


class Predecessor:
    """The side that gives: listens for a successor for as long as the gateway runs.

    `lock`, `listener`: descriptors of what a successor gets. `go`: called when it is ready to take over.
    """

    def __init__(self, path: Path, lock: int, listener: int, go: Callable[[], None]) -> None:
        self._path = path
        self._given = (lock, listener)
        self._go = go
        self._channel: Channel | None = None
        self._task: asyncio.Task[None] | None = None
        path.unlink(missing_ok=True)
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        before = os.umask(0o177)
        try:
            self._listening.bind(str(path))
        finally:
            os.umask(before)
        self._listening.listen(4)
        self._listening.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        with suppress(OSError):
            end, _ = self._listening.accept()
            *_, user, _ = _CREDENTIALS.unpack(end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
            if user != os.getuid() or self._task is not None:
                # One at a time: the second would get nothing that the first does not have.
                end.close()
                return
            self._channel = Channel(end)
            self._task = asyncio.ensure_future(self._serve(self._channel))

    async def _serve(self, channel: Channel) -> None:
        while (got := await channel.get(None)) is not None:
            say, fds = got
            for fd in fds:
                os.close(fd)
            if say == "take":
                channel.send("taken", self._given)
            elif say == "go":
                self._go()
                return
        # It gave up before it was ready; another may try.
        self._channel = self._task = None

    def gone(self) -> bool:
        """Tell the successor that nobody listens any more. From now on the run folder's files are its own."""
        self._stop_listening()
        return self._channel is not None and self._channel.send("gone")

    def give(self, connection: socket.socket) -> bool:
        """Pass a client's connection on and close ours. False: not now, try again; nothing was closed."""
        if self._channel is None or not self._channel.send("connection", [connection.fileno()]):
            return False
        connection.close()
        return True

    def released(self) -> None:
        """Tell the successor that the ledger is closed."""
        if self._channel is not None:
            self._channel.send("released")

    def close(self) -> None:
        """The end of everything here."""
        given = self._listening.fileno() == -1
        self._stop_listening()
        if not given:
            self._path.unlink(missing_ok=True)
        if self._task is not None:
            self._task.cancel()
        if self._channel is not None:
            self._channel.close()

    def _stop_listening(self) -> None:
        if self._listening.fileno() != -1:
            self._loop.remove_reader(self._listening)
            self._listening.close()


class Successor:
    """The side that takes."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    @classmethod
    async def begin(cls, path: Path) -> tuple[Successor, Taken]:
        """Ask the running gateway for its sockets.

        Raises:
            HandoverError: none runs that could give them.
        """
        end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            end.connect(str(path))
        except OSError:
            end.close()
            raise HandoverError("there is no running gateway to take over from") from None
        channel = Channel(end)
        channel.send("take")
        fds = await _told(channel, "taken")
        if len(fds) != 2:
            raise HandoverError("the running gateway gave something else than its sockets")
        return cls(channel), Taken(fds[0], socket.socket(fileno=fds[1]))

    async def go(self) -> None:
        """Have the other one listen no more.

        Raises:
            HandoverError: it has ended.
        """
        self._channel.send("go")
        await _told(self._channel, "gone")

    async def connections(
        self, adopt: Callable[[socket.socket], Awaitable[None]], released: Callable[[], Awaitable[None]]
    ) -> None:
        """Take over what connections come until the other one has ended; `released`: called once the ledger is free."""
        free = False
        while (got := await self._channel.get(None)) is not None:
            for fd in got[1]:
                await adopt(socket.socket(fileno=fd))
            if got[0] == "released":
                free = True
                await released()
        if not free:
            # It was killed.
            await released()

    def close(self) -> None:
        self._channel.close()


async def _told(channel: Channel, what: str) -> list[int]:
    try:
        got = await channel.get(_PATIENCE)
    except TimeoutError:
        got = None
    if got is None or got[0] != what:
        channel.close()
        raise HandoverError("the running gateway does not hand over; stop it and start anew")
    return got[1]
