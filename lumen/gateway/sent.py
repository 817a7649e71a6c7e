"""Answers of models, written straight to the client's connection.

The server library makes an object, a multi-dict and half a dozen coroutines of every response, more than all of the
routing (`bench/gateway.py` measures it). Errors and everything else go its own way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from email.utils import formatdate
from urllib.parse import quote

from aiohttp import HttpVersion11
from aiohttp.web import BaseRequest, StreamResponse

from lumen.gateway import cors

_JOIN_BELOW = 64 * 1024
_line = ": ".join
_dated: tuple[int, str] = (0, "")


class Sent(StreamResponse):
    """What the server library gets in place of a response: it is out already, nothing is left to do."""

    def __init__(self, *, keep: bool) -> None:
        super().__init__()
        self._keep_alive = keep

    @property
    def prepared(self) -> bool:
        return True

    async def prepare(self, request: BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


# The connection may serve another request; it may not.
KEPT, LAST = Sent(keep=True), Sent(keep=False)


class Out:
    """The way to one client, for one answer with status 200."""

    __slots__ = ("_lines", "_request", "chunked", "protocol", "sent")

    def __init__(self, request: BaseRequest) -> None:
        self._request = request
        self._lines = cors.lines()
        self.protocol = request.protocol
        # The body goes out in chunks of HTTP.
        self.chunked = False
        # What the server library is told in the end.
        self.sent = LAST

    def head(self, fixed: bytes, headers: Mapping[str, str], length: int | None) -> bytes:
        """The header of the answer.

        Args:
            fixed: lines that are the same for every answer of its kind.
            length: of the body; `None`: not known, so that the body goes out in chunks or ends with the connection.
        """
        request = self._request
        recent, keep = request.version >= HttpVersion11, request.keep_alive
        self.chunked = length is None and recent
        keep = keep and (length is not None or recent)
        self.sent = KEPT if keep else LAST
        values = "".join(headers.values())
        if not (values.isascii() and values.isprintable()):
            headers = {name: _safe(value) for name, value in headers.items()}
        lines = "\r\n".join((_date(), *map(_line, headers.items())))
        if length is not None:
            lines = f"{lines}\r\nContent-Length: {length}"
        elif recent:
            lines = f"{lines}\r\nTransfer-Encoding: chunked"
        if keep is not recent:
            lines = f"{lines}\r\nConnection: {'keep-alive' if keep else 'close'}"
        start = b"HTTP/1.1 200 OK\r\n" if recent else b"HTTP/1.0 200 OK\r\n"
        return start + fixed + self._lines + f"{lines}\r\n\r\n".encode("ascii")

    def write(self, *parts: bytes) -> bool:
        """Send bytes without waiting. False: the client is behind.

        Raises:
            ConnectionResetError: the client has gone.
        """
        transport = self._open()
        if len(parts) == 1:
            transport.write(parts[0])
        elif sum([len(part) for part in parts]) < _JOIN_BELOW:
            transport.write(b"".join(parts))
        else:
            transport.writelines(parts)
        return not self.protocol.writing_paused

    async def drain(self) -> None:
        """Wait until the client has taken enough.

        Raises:
            ConnectionResetError: the client has gone.
        """
        self._open()
        if self.protocol.writing_paused:
            await self._request.writer.drain()

    @property
    def gone(self) -> bool:
        transport = self.protocol.transport
        return transport is None or transport.is_closing()

    def close(self) -> None:
        """Once what was written is out."""
        if self.protocol.transport is not None:
            self.protocol.transport.close()
        self.sent = LAST

    def abort(self) -> None:
        """At once."""
        if self.protocol.transport is not None:
            self.protocol.transport.abort()

    def _open(self) -> asyncio.Transport:
        transport = self.protocol.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        return transport


def _safe(value: str) -> str:
    """A value that cannot end its line; names that a client made up may hold anything."""
    return value if value.isascii() and value.isprintable() else quote(value, safe=" /:;=,")


def _date() -> str:
    """The header line that tells the time."""
    global _dated
    now = int(time.time())
    if now != _dated[0]:
        _dated = now, f"Date: {formatdate(now, usegmt=True)}"
    return _dated[1]
