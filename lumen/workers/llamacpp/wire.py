"""The engine thread's own way to a streamed answer's connection.

A token that goes by way of the loop costs two changes of thread, and each waits for a processor and for the
interpreter's lock. So while the loop owes a connection nothing, the engine thread writes to it itself. What the
connection does not take at once, and everything that is more than a piece of text, goes by way of the loop as before;
the engine thread then keeps off until the loop has written it all.

The engine thread begins the answer too, where that is one choice of a chat, so that while a prompt is computed the loop
sleeps and takes no processor from it. Until it has begun, the loop may take the beginning back, and then makes it
itself: an error can still be an error.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate

from aiohttp import HttpVersion11, web

from lumen.workers.llamacpp.sequence import Event, Outbox

SSE_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}
_HEAD = "HTTP/1.1 200 OK\r\n" + "".join(f"{name}: {value}\r\n" for name, value in SSE_HEADERS.items())
_HEAD += "Transfer-Encoding: chunked\r\n"


class Wire:
    """A connection's file descriptor, a duplicate: it stays this connection's whatever the loop does with its own."""

    __slots__ = ("_encode", "_fd", "_lock", "_opening")

    def __init__(self, fd: int, encode: Callable[[Event], bytes | None], opening: bytes = b"") -> None:
        """`fd` is a non-blocking socket. `encode` gives an event's bytes, None where it must go by way of the loop.
        `opening`: what comes before the first of them on the wire, as it is.
        """
        self._fd = os.dup(fd)
        self._encode = encode
        self._opening = opening
        self._lock = threading.Lock()

    def send(self, event: Event) -> bool:
        """Write `event`; False leaves it, or what is left of it (`event.rest`), to the loop. On the engine thread."""
        if event.started:
            return bool(self._opening) and self._write(event, b"")
        data = self._encode(event)
        return data is not None and self._write(event, chunk(data))

    def _write(self, event: Event, data: bytes) -> bool:
        with self._lock:
            data = self._opening + data
            try:
                written = os.write(self._fd, data)
            except BlockingIOError:
                written = 0
            except OSError:  # closed, by either side: the loop finds out by itself
                return False
            self._opening = b""
        if written == len(data):
            return True
        event.rest = data[written:]
        return False

    def take_back(self) -> bool:
        """On the loop: the opening will not be written here any more. False: it has been, or is in an event's rest."""
        with self._lock:
            opening, self._opening = self._opening, b""
        return bool(opening)

    def close(self) -> None:
        """On the loop; the engine thread may still call `send`."""
        with self._lock:
            fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def chunk(data: bytes) -> bytes:
    """`data`, not empty, as HTTP/1.1 frames it."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Begun(web.StreamResponse):
    """An answer whose head is on the wire already."""

    async def _write_headers(self) -> None:
        return


class Way:
    """The loop's end of a streamed answer, and its word on what it has written: it owes the client nothing once its
    transport holds nothing back.
    """

    def __init__(self, request: web.Request, outbox: Outbox, encode: Callable[[Event], bytes | None]) -> None:
        self._request = request
        self._outbox = outbox
        self._encode = encode
        self._wire: Wire | None = None
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()

    def let(self, role: bytes) -> None:
        """Before anything is sent: the engine thread begins the answer, with `role`, where the connection allows it."""
        transport = self._request.transport
        if transport is not None and transport.get_write_buffer_size() == 0:  # else a former answer is under way
            self._connect(transport, _opening(self._request, role))

    def begun(self) -> bool:
        """Once, with the first event at hand: whether the engine thread has begun the answer. If not, it never will."""
        return self._wire is not None and not self._wire.take_back()

    async def begin(self, begun: bool) -> web.StreamResponse:
        """The answer, its head written. `begun`: it is on the wire already."""
        request = self._request
        if request.transport is None:
            raise ConnectionResetError("The client has left.")
        self._transport = request.transport
        response: web.StreamResponse = Begun(headers=SSE_HEADERS) if begun else web.StreamResponse(headers=SSE_HEADERS)
        if request.version >= HttpVersion11:
            response.enable_chunked_encoding()
        await response.prepare(request)
        if self._wire is None:
            self._connect(request.transport, b"")
        return response

    def _connect(self, transport: asyncio.Transport, opening: bytes) -> None:
        socket = transport.get_extra_info("socket")
        if socket is not None and self._request.version >= HttpVersion11:
            self._outbox.line = self._wire = Wire(socket.fileno(), self._encode, opening)

    def wrote(self, rest: bytes = b"") -> None:
        """Every event taken so far has been given to the transport, but for `rest`."""
        if self._transport is None:
            raise ConnectionResetError("The client has left.")
        if rest:
            self._transport.write(rest)
        # The transport writes when the loop comes round.
        self._loop.call_soon(self._look, self._transport, self._outbox.taken, 1)

    def _look(self, transport: asyncio.WriteTransport, taken: int, again: int) -> None:
        if transport.get_write_buffer_size() == 0:
            self._outbox.written = max(taken, self._outbox.written)
        elif again:
            self._loop.call_soon(self._look, transport, taken, again - 1)

    def close(self) -> None:
        """The engine thread writes no more to it."""
        if self._wire is not None:
            self._wire.close()


def _opening(request: web.Request, role: bytes) -> bytes:
    """Head and first event of an answer to `request`."""
    head = f"{_HEAD}Date: {formatdate(usegmt=True)}\r\n"
    if not request.keep_alive:
        head += "Connection: close\r\n"
    return head.encode() + b"\r\n" + chunk(role)


@contextmanager
def shortcut(request: web.Request, outbox: Outbox, encode: Callable[[Event], bytes | None]) -> Iterator[Way]:
    """While this lasts, the engine thread may write what `encode` gives to the (chunked) answer of `request`."""
    way = Way(request, outbox, encode)
    try:
        yield way
    finally:
        way.close()
