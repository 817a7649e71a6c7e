"""The gateway that gives: it listens for a successor for as long as it runs."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from lumen.handover.channel import PATIENCE, Channel

_CREDENTIALS = struct.Struct("3i")
# Seconds between two tries to say something where the other side's buffer is full.
_AGAIN = 0.01


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
            async with asyncio.timeout(PATIENCE):
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
