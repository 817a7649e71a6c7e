"""The HTTP/1.1 client of the request path: one POST at a time on a kept connection, read as it comes.

It does what a gateway needs and nothing else: no redirects, no proxies from the environment, no cookies, no
decompression, bounded headers, and it stops reading the socket while the reader is behind. Parsing is
httptools' (llhttp); a general client spends several times more on each request and each chunk than the rest of
Lumen does together (`bench/gateway.py`).
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import httptools

_HIGH_WATER = 64 * 1024
_MAX_HEADERS = 64 * 1024
_MAX_IDLE = 256
_MAX_HEADS = 256
_IDLE_SECONDS = 55.0
# Below this a body is copied behind its header, so that both leave in one packet.
_JOIN_BELOW = 64 * 1024


class BadAnswer(Exception):
    """What came is not HTTP, or beyond the bounds."""


class ConnectionBroke(Exception):
    """The connection ended before the answer did."""


class Connection(asyncio.Protocol):
    """One connection to an origin. `send`, then `head`, then `read` until it is empty, then `Origin.give_back`.

    `pour` takes the place of many reads where what is read only has to be handed on.
    """

    __slots__ = (
        "_chunks",
        "_complete",
        "_error",
        "_full",
        "_header_bytes",
        "_loop",
        "_parser",
        "_paused",
        "_ready",
        "_size",
        "_take",
        "_transport",
        "_until_eof",
        "_waiter",
        "headers",
        "idle_since",
        "status",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.idle_since = 0.0
        # Serves one answer after the other: only what was read whole is followed by another.
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        # While a form is sent: done when the other side has taken enough of it.
        self._full: asyncio.Future[None] | None = None
        self._reset()

    def _reset(self) -> None:
        self._chunks: list[bytes] = []
        self._size = 0
        # Who is handed every piece at once, while someone waits in `pour`.
        self._take: Callable[[bytes], bool] | None = None
        self._header_bytes = 0
        self._paused = False
        self._ready = False
        self._complete = False
        self._until_eof = False
        # What every read raises from now on: made anew for each, or it would hold the frames of those before.
        self._error: Callable[[], Exception] | None = None
        self.status = 0
        self.headers: dict[str, str] = {}

    # -- what the exchange asks --------------------------------------------------------------------------------

    def send(self, head: bytes, body: bytes) -> None:
        """Begin a new exchange.

        Raises:
            ConnectionBroke: the other side closed the connection while it was idle.
        """
        if self._transport is None or self._transport.is_closing():
            raise ConnectionBroke
        self._reset()
        if len(body) < _JOIN_BELOW:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))

    async def send_form(self, head: bytes, parts: Sequence[bytes | memoryview]) -> None:
        """Begin a new exchange with a body that is sent at the pace of the other side, and never copied as a whole.

        Raises:
            ConnectionBroke: the other side closed the connection.
        """
        self.send(head, b"")
        for part in parts:
            for at in range(0, len(part), _JOIN_BELOW):
                if self._ready:
                    # It has answered without waiting for the rest; the connection ends with that.
                    self.headers["connection"] = "close"
                    return
                if self._transport is None or self._transport.is_closing():
                    raise ConnectionBroke
                self._transport.write(part[at : at + _JOIN_BELOW])
                if self._full is not None:
                    await self._full

    async def head(self) -> None:
        """Wait for `status` and `headers` (names in lower case).

        Raises:
            BadAnswer, ConnectionBroke.
        """
        while not self._ready:
            if self._error is not None:
                raise self._error()
            await self._come()

    async def read(self) -> bytes:
        """The next bytes of the body, empty at its end.

        Raises:
            BadAnswer, ConnectionBroke: only after everything that came before was read.
        """
        while (data := self.taken()) is None:
            if self._error is not None:
                raise self._error()
            await self._come()
        return data

    def taken(self) -> bytes | None:
        """As `read`, without waiting; `None` where nothing has come, or it broke."""
        if self._chunks:
            return self._drained()
        return b"" if self._complete else None

    async def pour(self, take: Callable[[bytes], bool]) -> bool:
        """Hand the body on as it comes, until `take` says that it wants no more for now.

        No task is woken for a piece: the event loop itself calls `take`, which must not wait. What it raises is
        raised here.

        Returns:
            False where nothing is left to pour; `read` then tells how the body ended.
        """
        if self._chunks and not take(self._drained()):
            return True
        if self._complete or self._error is not None:
            return False
        self._take = take
        try:
            await self._come()
        finally:
            self._take = None
        return True

    @property
    def reusable(self) -> bool:
        """Read to its end, and the other side keeps the connection."""
        transport = self._transport
        return self._complete and not self._until_eof and transport is not None and not transport.is_closing()

    def close(self) -> None:
        """Drop it; what was not sent yet is not sent."""
        if self._transport is not None:
            self._transport.abort()

    def _drained(self) -> bytes:
        """Everything that has come and was not read yet."""
        chunks = self._chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._size = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    def _come(self) -> asyncio.Future[None]:
        """Done when something has come, or ended."""
        self._waiter = waiter = self._loop.create_future()
        return waiter

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # -- the transport -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast: uvloop's transports are not subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        parser = self._parser
        if self._complete or self._error is not None or parser is None:
            # Nobody asked for more: whatever this is, the connection cannot be trusted with another request.
            self.close()
            return
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, BadAnswer):
            self._fail()
            return
        waiter = self._waiter
        if waiter is None or waiter.done():
            if self._size > _HIGH_WATER and not self._paused and self._transport is not None:
                self._paused = True
                self._transport.pause_reading()
        elif self._take is None or self._hand_on(self._take, waiter):
            waiter.set_result(None)

    def _hand_on(self, take: Callable[[bytes], bool], waiter: asyncio.Future[None]) -> bool:
        """Pour what has come; whether the one who waits has something to do now."""
        try:
            return (bool(self._chunks) and not take(self._drained())) or self._complete
        except Exception as error:  # noqa: BLE001 - raised again by the one who waits
            waiter.set_exception(error)
            return False

    def pause_writing(self) -> None:
        self._full = self._loop.create_future()

    def resume_writing(self) -> None:
        full, self._full = self._full, None
        if full is not None and not full.done():
            full.set_result(None)

    def eof_received(self) -> None:
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        # Each of the two holds the other.
        self._parser = None
        self.resume_writing()
        if not self._complete and self._error is None:
            if self._until_eof and exc is None:
                self._complete = True
            else:
                self._error = ConnectionBroke
        self._wake()

    def _fail(self) -> None:
        self._error = BadAnswer
        self.close()
        self._wake()

    # -- the parser --------------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > _MAX_HEADERS:
            raise BadAnswer
        self.headers[_lowered(name)] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        parser = self._parser
        assert parser is not None
        self.status = parser.get_status_code()
        if self.status < 200:
            return
        self._ready = True
        headers = self.headers
        framed = "content-length" in headers or "transfer-encoding" in headers
        # Without framing the answer ends with the connection; with `close` it may not serve again either way.
        self._until_eof = not parser.should_keep_alive()
        if framed and self._until_eof:
            self._until_eof = False
            self.headers["connection"] = "close"

    def on_body(self, data: bytes) -> None:
        if data:
            self._chunks.append(data)
            self._size += len(data)

    def on_message_complete(self) -> None:
        if self.status < 200:
            self.headers.clear()
            return
        self._complete = True


@lru_cache(maxsize=512)
def _lowered(name: bytes) -> str:
    return name.decode("latin-1").lower()


@dataclass(frozen=True, slots=True)
class Address:
    """Where an origin listens: a UNIX socket, or host and port, with TLS or without."""

    host: str
    port: int
    tls: bool
    base: str
    socket: Path | None = None


def address(base_url: str, socket: Path | None = None) -> Address:
    """Take a base URL such as `https://host/v1` apart; the URL was checked when the configuration loaded."""
    parts = urlsplit(base_url)
    tls = parts.scheme == "https"
    return Address(parts.hostname or "localhost", parts.port or (443 if tls else 80), tls, parts.path, socket)


class Origin:
    """One place requests go to, with its idle connections and its own headers (the key among them)."""

    def __init__(self, where: Address, headers: Mapping[str, str]) -> None:
        self._where = where
        default = 443 if where.tls else 80
        host = f"[{where.host}]" if ":" in where.host else where.host
        lines = {"Host": host if where.port == default else f"{host}:{where.port}"}
        lines |= {name: value for name, value in headers.items() if name.lower() != "content-type"}
        kind = next((value for name, value in headers.items() if name.lower() == "content-type"), "application/json")
        for name, value in lines.items():
            if any(c in name + value + kind for c in "\r\n\0"):
                raise ValueError(f"the header {name!r} holds a line break")
        self._own = "".join(f"{name}: {value}\r\n" for name, value in lines.items()).encode("latin-1")
        self._headers = self._own + f"Content-Type: {kind}\r\n".encode("latin-1")
        self._heads: dict[tuple[str, str, str], bytes] = {}
        self._idle: deque[Connection] = deque()
        self._tls: ssl.SSLContext | None = None

    def kept(self, now: float) -> Connection | None:
        """A connection that an earlier request has left. `now`: the loop's time."""
        oldest = now - _IDLE_SECONDS
        while self._idle:
            kept = self._idle.pop()
            if kept.reusable and kept.idle_since > oldest:
                return kept
            kept.close()
        return None

    async def connect(self, loop: asyncio.AbstractEventLoop) -> Connection:
        """A connection that kept, else a new one.

        Raises:
            OSError: it cannot be reached.
        """
        kept = self.kept(loop.time())
        if kept is not None:
            return kept
        where = self._where
        if where.socket is not None:
            _, made = await loop.create_unix_connection(lambda: Connection(loop), str(where.socket))
            return made
        if where.tls and self._tls is None:
            # Reading the machine's certificates takes tens of milliseconds: once, and not on the loop.
            self._tls = await asyncio.to_thread(ssl.create_default_context)
        _, made = await loop.create_connection(
            lambda: Connection(loop),
            where.host,
            where.port,
            ssl=self._tls,
            server_hostname=where.host if where.tls else None,
        )
        return made

    def head(self, path: str, accept: str, length: int, method: str = "POST", lines: bytes = b"") -> bytes:
        """The request's header; all but the length and `lines` was made when it was first needed.

        Args:
            path: below the base URL, or from the root where it begins with a slash.
        """
        made = self._heads.get((method, path, accept))
        if made is None:
            start = self._start(method, path, accept)
            if len(self._heads) >= _MAX_HEADS:
                self._heads.clear()
            made = self._heads[method, path, accept] = start + self._headers + b"Content-Length: "
        return b"%b%d\r\n%b\r\n" % (made, length, lines)

    def form_head(self, path: str, accept: str, length: int, kind: str, lines: bytes = b"") -> bytes:
        """The header of a request whose body is of another kind than JSON; `kind` holds no line break."""
        more = b"Content-Type: %b\r\nContent-Length: %d\r\n%b\r\n" % (kind.encode("latin-1"), length, lines)
        return self._start("POST", path, accept) + self._own + more

    def _start(self, method: str, path: str, accept: str) -> bytes:
        where = path if path.startswith("/") else f"{self._where.base.rstrip('/')}/{path}"
        return f"{method} {where} HTTP/1.1\r\nAccept: {accept}\r\n".encode("latin-1")

    def give_back(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        """Keep a connection for the next request where it can serve one, else drop it."""
        if connection.reusable and connection.headers.get("connection") != "close" and len(self._idle) < _MAX_IDLE:
            connection.idle_since = loop.time()
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Drop the idle connections."""
        while self._idle:
            self._idle.pop().close()
