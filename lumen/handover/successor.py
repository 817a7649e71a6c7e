"""The gateway that takes: it asks the one that runs for its sockets, its connections and its ledger."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lumen.handover.channel import PATIENCE, Channel, HandoverError, Message

# Seconds between two tries to take over.
_BUSY = 0.1


@dataclass(frozen=True, slots=True)
class Taken:
    """What a successor begins with: the lock of the run folder, and the socket that clients connect to."""

    lock: int
    listener: socket.socket


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
        until = loop.time() + PATIENCE
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
            got = await self._channel.get(PATIENCE)
        except TimeoutError:
            got = Message("", {}, [])
        if got is not None and got.say != what:
            self._channel.close()
            raise HandoverError("the running gateway does not hand over; stop it and start anew")

    def close(self) -> None:
        self._channel.close()


async def _told(channel: Channel, *what: str) -> Message:
    try:
        got = await channel.get(PATIENCE)
    except TimeoutError:
        got = None
    if got is None or got.say not in what:
        channel.close()
        raise HandoverError("the running gateway does not hand over; stop it and start anew")
    return got
