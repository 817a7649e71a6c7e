"""The engine thread's own way to a streamed answer's connection.

A token that goes by way of the loop costs two changes of thread, and each waits for a processor and for the
interpreter's lock. So while the loop owes a connection nothing, the engine thread writes to it itself. What the
connection does not take at once, and everything that is more than a piece of text, goes by way of the loop as before;
the engine thread then keeps off until the loop has written it all.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aiohttp import HttpVersion11, web

from lumen.workers.llamacpp.sequence import Event, Outbox


class Wire:
    """A connection's file descriptor, a duplicate: it stays this connection's whatever the loop does with its own."""

    __slots__ = ("_encode", "_fd", "_lock")

    def __init__(self, fd: int, encode: Callable[[Event], bytes | None]) -> None:
        """`fd` is a non-blocking socket. `encode` gives an event's bytes, None where it must go by way of the loop."""
        self._fd = os.dup(fd)
        self._encode = encode
        self._lock = threading.Lock()

    def send(self, event: Event) -> bool:
        """Write `event`; False leaves it, or what is left of it (`event.rest`), to the loop. On the engine thread."""
        data = self._encode(event)
        if data is None:
            return False
        data = b"%x\r\n%b\r\n" % (len(data), data)  # a chunk, as HTTP/1.1 frames it
        with self._lock:
            try:
                written = os.write(self._fd, data)
            except BlockingIOError:
                written = 0
            except OSError:  # closed, by either side: the loop finds out by itself
                return False
        if written == len(data):
            return True
        event.rest = data[written:]
        return False

    def close(self) -> None:
        """On the loop; the engine thread may still call `send`."""
        with self._lock:
            fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class Debt:
    """The loop's word on what it has written: it owes the client nothing once its transport holds nothing back."""

    def __init__(self, outbox: Outbox, transport: asyncio.WriteTransport) -> None:
        self._outbox = outbox
        self._transport = transport
        self._loop = asyncio.get_running_loop()

    def wrote(self, rest: bytes = b"") -> None:
        """Every event taken so far has been given to the transport, but for `rest`."""
        if rest:
            self._transport.write(rest)
        # The transport writes when the loop comes round.
        self._loop.call_soon(self._look, self._outbox.taken, 1)

    def _look(self, taken: int, again: int) -> None:
        if self._transport.get_write_buffer_size() == 0:
            self._outbox.written = max(taken, self._outbox.written)
        elif again:
            self._loop.call_soon(self._look, taken, again - 1)


@contextmanager
def shortcut(request: web.Request, outbox: Outbox, encode: Callable[[Event], bytes | None]) -> Iterator[Debt]:
    """While this lasts, the engine thread may write what `encode` gives to the (chunked) answer of `request`."""
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("The client has left.")
    socket = transport.get_extra_info("socket")
    wire = Wire(socket.fileno(), encode) if socket is not None and request.version >= HttpVersion11 else None
    outbox.line = wire
    try:
        yield Debt(outbox, transport)
    finally:
        if wire is not None:
            wire.close()
