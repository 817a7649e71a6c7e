"""HTTP ingress: aiohttp's server with the limits and error bodies an OpenAI client expects.

aiohttp has no deadline for a header that drips in, answers broken requests as text, and would go on reading a
connection whose framing it could not make sense of. `Connection` mends the three. It leans on five private
names of aiohttp's `RequestHandler` (`_request_count`, `_messages`, `_waiter`, `_close`, `_reading_paused`); the version
is pinned and tests/gateway/test_http.py drives each through a real socket.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web import BaseRequest, Response, Server, StreamResponse
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from lumen.core.errors import LumenError, RequestError
from lumen.gateway.reply import encode_error, error_reply
from lumen.wire.passed import Received

Handler = Callable[[BaseRequest], Awaitable[StreamResponse]]


class Connection(RequestHandler):
    """One client connection."""

    __slots__ = ("_begun", "_header_timeout", "_header_timer")

    def __init__(self, manager: Server, *, header_timeout: float, **options: Any) -> None:
        super().__init__(manager, **options)
        self._header_timeout = header_timeout
        self._header_timer: asyncio.TimerHandle | None = None
        self._begun = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # aiohttp lets go of an idle connection only after its first request.
        self._header_timer = self._loop.call_later(self.keepalive_timeout, self.force_close)

    def data_received(self, data: bytes) -> None:
        before = self._request_count
        super().data_received(data)
        if self._request_count != before:
            self._disarm()
            if isinstance(self._messages[-1][0] if self._messages else None, _ErrInfo):
                # Whatever follows cannot be told apart from the broken request: read no more of it.
                self._close = True
        elif not self._begun and (self._waiter is not None or not before):
            # The first bytes of a connection may come before the task that waits for them.
            self._disarm()
            self._begun = True
            self._header_timer = self._loop.call_later(self._header_timeout, self._header_stalled)

    def resume_reading(self, resume_parser: bool = True) -> None:
        # Asked after every body that was read; aiohttp would send an empty piece through the parser each time.
        if self._reading_paused:
            super().resume_reading(resume_parser)

    @property
    def secured(self) -> bool:
        """What TLS knows of it lives in this process alone."""
        return self.transport is not None and self.transport.get_extra_info("sslcontext") is not None

    def release(self) -> socket.socket | None:
        """Its socket, for another process to go on with; `None` while something is under way on it.

        What a client sends from now on waits in the socket for that process. One that sent the half of a request behind
        a whole one, which no known client does, would be misunderstood there.
        """
        transport, waiter = self.transport, self._waiter
        idle = waiter is not None and not waiter.done() and not self._messages and not self._begun
        if not idle or transport is None or self.secured or transport.is_closing():
            return None
        if transport.get_write_buffer_size():
            return None
        taken = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        # Closes our descriptor, not the connection, which the other one still has.
        self.force_close()
        return taken

    def connection_lost(self, exc: BaseException | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> Response:
        """aiohttp's own failures (unparsable requests, an escaped exception) in the API's JSON."""
        if isinstance(exc, HttpProcessingError) or status == 400:
            error: LumenError = RequestError("The request is not valid HTTP.", status=400)
        else:
            self.log_exception("unhandled error in a request", exc_info=exc)
            error = LumenError("Lumen failed to handle this request.", status=status)
        response = error_reply(error, {})
        response.force_close()
        return response

    def _disarm(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
        self._begun = False

    def _header_stalled(self) -> None:
        self._header_timer = None
        if self.transport is not None:
            self.transport.write(_STALLED)
        self.force_close()


class Ingress(Server):
    """The server of one handler; counts nothing, decides nothing."""

    def __init__(self, handler: Handler, *, header_timeout: float, idle_timeout: float) -> None:
        super().__init__(handler, handler_cancellation=True)
        self._options: dict[str, Any] = {
            "header_timeout": header_timeout,
            "keepalive_timeout": idle_timeout,
            "access_log": None,
            "auto_decompress": False,
            "lingering_time": 2.0,
            "max_line_size": 8190,
            "max_field_size": 16 * 1024,
        }

    def __call__(self) -> Connection:
        return Connection(self, loop=self._loop, **self._options)


async def read_body(request: BaseRequest, limit: int, timeout: float) -> bytes:
    """The whole body.

    Raises:
        RequestError: 413 beyond `limit` bytes, 408 after `timeout` seconds, 415 for a coding or type not JSON.
    """
    headers = request.headers
    if headers.get("Content-Encoding", "identity").lower() not in ("", "identity"):
        raise RequestError("Request bodies must not be compressed.", status=415, code="unsupported_encoding")
    if headers.get("Content-Type", "application/json") != "application/json":
        _check_kind(request.content_type)
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    content = request.content
    if content.is_eof() and content.total_bytes <= limit:
        # Small bodies come with their header, all at once: nothing to wait for.
        return content.read_nowait()
    size, parts = 0, []
    try:
        async with asyncio.timeout(timeout):
            while data := await content.readany():
                size += len(data)
                if size > limit:
                    raise _too_large(limit)
                parts.append(data)
    except TimeoutError:
        raise RequestError("The request's body did not arrive in time.", status=408, code="request_timeout") from None
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def read_form(request: BaseRequest, limit: int, timeout: float) -> Received:
    """The whole body of a form, held once; small pieces of it are added as they come.

    Raises:
        RequestError: 413 beyond `limit` bytes, 408 after `timeout` seconds, 415 for a coding.
    """
    headers = request.headers
    if headers.get("Content-Encoding", "identity").lower() not in ("", "identity"):
        raise RequestError("Request bodies must not be compressed.", status=415, code="unsupported_encoding")
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    body = bytearray()
    try:
        async with asyncio.timeout(timeout):
            while data := await request.content.readany():
                body += data
                if len(body) > limit:
                    raise _too_large(limit)
    except TimeoutError:
        raise RequestError("The request's body did not arrive in time.", status=408, code="request_timeout") from None
    return Received(body, headers.get("Content-Type", ""))


def _check_kind(kind: str) -> None:
    if kind != "application/json":
        raise RequestError(
            f"Unsupported content type '{kind[:64]}'; send 'application/json'.",
            status=415,
            code="unsupported_content_type",
        )


def _too_large(limit: int) -> RequestError:
    return RequestError(f"The request's body is larger than {limit} bytes.", status=413, code="request_too_large")


_stalled_body = encode_error(
    RequestError("The request's header did not arrive in time.", status=408, code="request_timeout")
)
_STALLED = (
    b"HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: "
    + str(len(_stalled_body)).encode()
    + b"\r\n\r\n"
    + _stalled_body
)
