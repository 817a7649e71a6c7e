"""One gateway takes over from another while both run: sockets, idle connections, and the ledger.

They speak over a UNIX socket in the run folder that only this user can open; each message is a JSON object, some carry
file descriptors (SCM_RIGHTS). What the new one (the successor) says, and what the old one answers:

1. `take` → `taken` with the lock of the run folder and the listening socket. Nothing changes yet: should the successor
   fail now, the old one just goes on. `busy`: the one before the old one is not done yet.
2. `go`, once the successor's engines are ready → `come`: what was learned is written down.
3. `here`: the successor listens on the same socket, too → `gone`: the old one listens no more → `mine`: so the
   successor alone serves, and the run folder's files are its own. Should it die before it has said so, the old one
   listens again and goes on.
4. `released`: the old one has closed the ledger, which the successor opens. With `lent`, the old one still finishes
   its requests and their costs are read from its files, see `gateway/estate.py`; without, they are done.
5. Connections come, each as soon as nothing is under way on it. A client keeps its connection and notices nothing.
6. `ask` with a number, where the old one begins a new try of a request and has to hold money → `answer` with that
   number.
7. The end of the socket: the old one's engines are gone too, or it was killed.

The ledger has one writer at any time: the successor opens it at 4, or else at 7. Until then requests wait, usually for
some hundredths of a second.
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
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from lumen.core.errors import ConfigError

_LARGEST = 65_536
_MOST_FDS = 32
_CREDENTIALS = struct.Struct("3i")
# Seconds that an answer of the other side may take: each is given from its event loop.
_PATIENCE = 10.0
# Seconds between two tries to take over, and to say something where the other side's buffer is full.
_BUSY = 0.1
_AGAIN = 0.01


class HandoverError(ConfigError):
    """There is nobody to take over from, or it cannot be done now."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a successor begins with: the lock of the run folder, and the socket that clients connect to."""

    lock: int
    listener: socket.socket


class Message(NamedTuple):
    """What the other side says. `body`: the rest of the JSON object; `fds` are the receiver's to close."""

    say: str
    body: dict[str, Any]
    fds: list[int]


class Channel:
    """One side's end of the socket; every call returns at once or within seconds."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._loop = asyncio.get_running_loop()
        self._got: asyncio.Queue[Message | None] = asyncio.Queue()
        self._loop.add_reader(end, self._read)
        self._open = True

    @property
    def open(self) -> bool:
        """Whether the other side is still there, as far as is known."""
        return self._open

    def send(self, what: str, fds: Iterable[int] = (), **body: Any) -> bool:
        """False where the other side is gone or its buffer full; the descriptors stay ours either way."""
        if not self._open:
            return False
        try:
            socket.send_fds(self._end, [json.dumps({"say": what, **body}).encode()], list(fds))
        except OSError:
            return False
        return True

    async def get(self, timeout: float | None) -> Message | None:
        """The next message with its descriptors, which are the caller's then; `None`: the other side has ended.

        Raises:
            TimeoutError: none came in time.
        """
        async with asyncio.timeout(timeout):
            got = await self._got.get()
        if got is None:
            # Whoever asks again is told the same.
            self._got.put_nowait(None)
        return got

    def close(self) -> None:
        if self._open:
            self._open = False
            self._loop.remove_reader(self._end)
            self._end.close()

    def _read(self) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._end, _LARGEST, _MOST_FDS)
            for fd in fds:
                # They come inheritable: an engine that outlives the gateway would hold its lock and its port.
                os.set_inheritable(fd, False)
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
        body = message if isinstance(message, dict) else {}
        self._got.put_nowait(Message(str(body.pop("say", "")), body, fds))


@dataclass(frozen=True, slots=True)
class Giving:
    """What happens in the gateway that gives. All are called on the loop and return at once.

    `busy`: whether it cannot give now. `ready`: the successor is; what was learned is to be written down. `leave`: it
    listens, so this one is to stop listening and then to say `gone`.
    """

    busy: Callable[[], bool]
    ready: Callable[[], None]
    leave: Callable[[], None]


class Predecessor:
    """The side that gives: listens for a successor for as long as the gateway runs.

    `lock`, `listener`: descriptors of what a successor gets.
    """

    def __init__(self, path: Path, lock: int, listener: int, giving: Giving) -> None:
        self._path = path
        self._given = (lock, listener)
        self._giving = giving
        self._channel: Channel | None = None
        self._task: asyncio.Task[None] | None = None
        self._numbers = count()
        self._asked: dict[int, asyncio.Future[dict[str, Any] | None]] = {}
        # Whether the successor was there, and whether it has taken over (`None`: not told yet).
        self._left = False
        self._loop = asyncio.get_running_loop()
        self._taken: asyncio.Future[bool] = self._loop.create_future()
        # Set once the successor was told that the ledger is closed: it can answer nothing before.
        self._told = asyncio.Event()
        path.unlink(missing_ok=True)
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        before = os.umask(0o177)
        try:
            self._listening.bind(str(path))
        finally:
            os.umask(before)
        self._listening.listen(4)
        self._listening.setblocking(False)
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
            for fd in got.fds:
                os.close(fd)
            if got.say == "take":
                if self._giving.busy():
                    channel.send("busy")
                else:
                    self._taken = self._loop.create_future()
                    channel.send("taken", self._given)
            elif got.say == "go":
                self._giving.ready()
                channel.send("come")
            elif got.say == "here":
                self._left = True
                self._giving.leave()
            elif got.say == "mine":
                self._decide(taken=True)
            elif got.say == "answer":
                self._resolve(got.body)
        self._decide(taken=False)
        for asked in self._asked.values():
            if not asked.done():
                asked.set_result(None)
        if not self._left:
            # It gave up before it was there; another may try.
            self._channel = self._task = None

    def _resolve(self, body: dict[str, Any]) -> None:
        asked = self._asked.get(body.pop("number", -1))
        if asked is not None and not asked.done():
            asked.set_result(body)

    async def ask(self, what: dict[str, Any]) -> dict[str, Any] | None:
        """What the successor answers, once it has been told that it keeps the accounts; `None`: it does not answer."""
        number = next(self._numbers)
        answer: asyncio.Future[dict[str, Any] | None] = self._loop.create_future()
        self._asked[number] = answer
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._told.wait()
                while self._channel is not None and self._channel.open:
                    if self._channel.send("ask", number=number, **what):
                        return await answer
                    await asyncio.sleep(_AGAIN)
        except TimeoutError:
            return None
        finally:
            del self._asked[number]
        return None

    def _decide(self, *, taken: bool) -> None:
        if not self._taken.done():
            self._taken.set_result(taken)

    async def gone(self) -> bool:
        """Tell the successor that nobody listens any more. From now on the run folder's files are its own.

        False: it has died, and this gateway has to go on. There is no limit to this wait: a successor that is alive may
        take over at any moment, and then this one must not serve.
        """
        if self._channel is not None and self._channel.send("gone") and await self._taken:
            self._stop_listening()
            return True
        self._left = False
        self._end()
        return False

    def give(self, connection: socket.socket) -> bool:
        """Pass a client's connection on and close ours. False: not now, try again; nothing was closed."""
        if self._channel is None or not self._channel.send("connection", [connection.fileno()]):
            return False
        connection.close()
        return True

    def released(self, *, lent: bool = False) -> bool:
        """Tell the successor that the ledger is closed; `lent`: what is under way goes on, see `gateway/estate.py`.

        False: try again; whoever is gone needs not be told.
        """
        if self._channel is not None and self._channel.open and not self._channel.send("released", lent=lent):
            return False
        self._told.set()
        return True

    def close(self) -> None:
        """The end of everything here."""
        given = self._listening.fileno() == -1
        self._stop_listening()
        if not given:
            self._path.unlink(missing_ok=True)
        self._end()

    def _end(self) -> None:
        if self._task is not None:
            self._task.cancel()
        if self._channel is not None:
            self._channel.close()
        self._channel = self._task = None
        for asked in self._asked.values():
            if not asked.done():
                asked.set_result(None)

    def _stop_listening(self) -> None:
        if self._listening.fileno() != -1:
            self._loop.remove_reader(self._listening)
            self._listening.close()


@dataclass(frozen=True, slots=True)
class Taking:
    """What happens in the gateway that takes.

    `adopt`: a client's connection is its own now. `released`: the ledger is to be opened; where it is lent (`True`),
    requests of the other gateway are still under way. `asked`: the other one asks something; returns the answer.
    """

    adopt: Callable[[socket.socket], Awaitable[None]]
    released: Callable[[bool], Awaitable[None]]
    asked: Callable[[dict[str, Any]], dict[str, Any]]


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
        channel, loop = Channel(end), asyncio.get_running_loop()
        until = loop.time() + _PATIENCE
        channel.send("take")
        while (got := await _told(channel, "taken", "busy")).say == "busy" and loop.time() < until:
            await asyncio.sleep(_BUSY)
            channel.send("take")
        if got.say == "busy":
            channel.close()
            raise HandoverError(
                "the gateway before the one that runs is still finishing its requests; try again in a moment"
            )
        fds = got.fds
        if len(fds) != 2:
            raise HandoverError("the running gateway gave something else than its sockets")
        return cls(channel), Taken(fds[0], socket.socket(fileno=fds[1]))

    async def go(self) -> None:
        """Say that this gateway is ready. Where the other one was killed meanwhile, it is needed all the more.

        Raises:
            HandoverError: the other one does not answer; it goes on.
        """
        self._channel.send("go")
        await self._answer("come")

    async def here(self) -> None:
        """Say that this gateway listens, wait until the other one does so no more, and take all that it had.

        Raises:
            HandoverError: the other one does not answer; it goes on.
        """
        self._channel.send("here")
        await self._answer("gone")
        self._channel.send("mine")

    async def inherit(self, taking: Taking) -> None:
        """Take over what comes until the other one has ended."""
        free = False
        while (got := await self._channel.get(None)) is not None:
            for fd in got.fds:
                await taking.adopt(socket.socket(fileno=fd))
            if got.say == "released":
                free = True
                await taking.released(bool(got.body.get("lent")))
            elif got.say == "ask":
                self._channel.send("answer", number=got.body.pop("number", -1), **taking.asked(got.body))
        if not free:
            # It was killed.
            await taking.released(False)

    async def _answer(self, what: str) -> None:
        if not self._channel.open:
            return
        try:
            got = await self._channel.get(_PATIENCE)
        except TimeoutError:
            got = Message("", {}, [])
        if got is not None and got.say != what:
            self._channel.close()
            raise HandoverError("the running gateway does not hand over; stop it and start anew")

    def close(self) -> None:
        self._channel.close()


async def _told(channel: Channel, *what: str) -> Message:
    try:
        got = await channel.get(_PATIENCE)
    except TimeoutError:
        got = None
    if got is None or got.say not in what:
        channel.close()
        raise HandoverError("the running gateway does not hand over; stop it and start anew")
    return got
