"""One end of the socket over which two gateways speak: messages in JSON, some with descriptors."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Iterable
from typing import Any, NamedTuple

from lumen.core.errors import ConfigError

_LARGEST = 65_536
_MOST_FDS = 32
# Seconds that an answer of the other side may take: each is given from its event loop.
PATIENCE = 10.0


class HandoverError(ConfigError):
    """There is nobody to take over from, or it cannot be done now."""


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
