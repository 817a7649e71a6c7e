"""Events to the client: whole answers in one write, streams as they come, at the client's own pace.

A stream's headers go out with its first token, so that everything before it can still be an honest status.
When the first token is slow, the headers and comments go out instead, and later errors travel in the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import msgspec
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web import BaseRequest, Response, StreamResponse

from lumen.core.errors import LumenError
from lumen.wire.call import Event
from lumen.wire.ingress.dress import Dress
from lumen.wire.sse import DONE_FRAME, KEEPALIVE_FRAME, frame

# In place of the server library's own name and version.
SERVER = {"Server": "lumen"}
_STREAM_HEADERS = {
    **SERVER,
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}


class EventStream:
    """One open event stream to a client; the outlet of its answer.

    Args:
        headers: those known from the beginning. `told`: those known once the first token is here.
        dress: what the answer is turned into, where the client speaks another dialect.
        keepalive: seconds of silence after which a comment is sent.
        stall: seconds a single write may wait for the client before the connection is dropped.
    """

    def __init__(
        self,
        request: BaseRequest,
        headers: Mapping[str, str],
        told: Callable[[], Mapping[str, str]],
        *,
        keepalive: float,
        stall: float,
        dress: Dress | None = None,
    ) -> None:
        self._request = request
        self._dress = dress
        self._frames = _frames if dress is None else partial(_dressed, dress)
        # What went wrong while events were pushed, until somebody waits.
        self._error: LumenError | None = None
        self._protocol = request.protocol
        self._headers = _STREAM_HEADERS | dict(headers)
        self._told = told
        self._keepalive = keepalive
        self._stall = stall
        self._loop = asyncio.get_running_loop()
        self._response: StreamResponse | None = None
        self._opening = asyncio.Lock()
        self._writer: AbstractStreamWriter | None = None
        # The body goes out in chunks of HTTP; to a client of HTTP/1.0 it does not.
        self._chunked = False
        # Writes so far, those the last beat saw, and how long there has been no other since.
        self._writes = self._seen = 0
        self._quiet = 0.0
        self._writing = False
        self._beating: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def opened(self) -> bool:
        return self._response is not None

    def start(self) -> None:
        self._timer = self._loop.call_later(self._keepalive, self._beat)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._beating is not None:
            self._beating.cancel()

    async def send(self, events: list[Event]) -> None:
        """See `Outlet`. The stream's headers go out with the first of them."""
        if self._writer is None:
            self._headers.update(self._told())
        frames = self._frames(events)
        # Also where nothing is shown of the first ones: whatever is pushed later comes behind the headers.
        if frames or self._writer is None:
            await self._write(frames)

    def push(self, events: list[Event]) -> bool:
        """See `Outlet`. Straight to the transport, past the server library's writer, which waits."""
        protocol = self._protocol
        transport = protocol.transport
        if transport is None or transport.is_closing():
            return False
        try:
            frames = self._frames(events)
        except LumenError as error:
            self._error = error
            return False
        if frames:
            self._writes += 1
            transport.write(b"%x\r\n%b\r\n" % (len(frames), frames) if self._chunked else frames)
        return not protocol.writing_paused

    async def ready(self) -> None:
        """See `Outlet`."""
        if self._error is not None:
            raise self._error
        transport = self._protocol.transport
        if self._writer is None or transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        self._writing = True
        try:
            await self._writer.drain()
        finally:
            self._writing = False

    async def end(self) -> StreamResponse:
        """`[DONE]`, and close the body the HTTP way; an answer without this is cut short for the client, on purpose."""
        if self._response is None:
            await self._open()
        assert self._response is not None
        await self._response.write_eof(DONE_FRAME if self._dress is None else self._dress.end())
        return self._response

    async def fail(self, error: LumenError) -> StreamResponse:
        """The error as an event, then close without the body's end: nobody may take what came for a whole answer."""
        await self._write(frame(encode_error(error)) if self._dress is None else self._dress.failed(error))
        assert self._response is not None
        if self._request.transport is not None:
            self._request.transport.close()
        return self._response

    async def _write(self, data: bytes) -> None:
        """Write whole frames; returns when the client has taken enough of them."""
        writer = self._writer or await self._open()
        self._writes += 1
        self._writing = True
        try:
            await writer.write(data)
        finally:
            self._writing = False

    async def _open(self) -> AbstractStreamWriter:
        async with self._opening:
            if self._writer is None:
                response = StreamResponse(headers=self._headers)
                writer = await response.prepare(self._request)
                if writer is None:
                    raise ConnectionResetError("the client has gone")
                self._response, self._writer = response, writer
                self._chunked = "Transfer-Encoding" in response.headers
            return self._writer

    def _beat(self) -> None:
        """Runs on a timer, not per chunk: has the stream been silent since the last beat, or the client stuck?"""
        self._timer = self._loop.call_later(self._keepalive, self._beat)
        if self._writes != self._seen:
            self._seen, self._quiet = self._writes, 0.0
            return
        self._quiet += self._keepalive
        if not self._writing:
            if self._beating is None or self._beating.done():
                self._beating = self._loop.create_task(self._comment())
        elif self._quiet > self._stall and self._request.transport is not None:
            self._request.transport.abort()

    async def _comment(self) -> None:
        try:
            await self._write(KEEPALIVE_FRAME)
            self._seen = self._writes
        except ConnectionError:
            # The handler's own next write, or its cancellation, ends the request.
            return


async def stream_reply(stream: EventStream, answer: Awaitable[None]) -> StreamResponse:
    """Let the answer run into the stream; an error after its headers went out travels in the stream.

    Raises:
        LumenError: nothing was sent yet; the caller answers with its status.
    """
    stream.start()
    try:
        await answer
        return await stream.end()
    except LumenError as error:
        if not stream.opened:
            raise
        return await stream.fail(error)
    finally:
        stream.stop()


def _frames(batch: list[Event]) -> bytes:
    """Whole events, ready to be written."""
    if len(batch) == 1:
        event = batch[0]
        return b"data: " + event.data + b"\n\n" if event.data else event.comment
    return b"".join([frame(event.data) if event.data else event.comment for event in batch])


def _dressed(dress: Dress, batch: list[Event]) -> bytes:
    """Whole events in the client's own dialect."""
    return b"".join([dress.chunk(event.data) if event.data else event.comment for event in batch])


class Fold:
    """The outlet of a whole answer: its body is the last event's."""

    def __init__(self, dress: Dress | None = None) -> None:
        self._body = b""
        self._dress = dress

    async def send(self, events: list[Event]) -> None:
        """See `Outlet`."""
        self.push(events)

    def push(self, events: list[Event]) -> bool:
        """See `Outlet`."""
        self._body = events[-1].data
        return True

    async def ready(self) -> None:
        """See `Outlet`. There is always room: the decoder bounds the answer."""

    def reply(self, headers: Mapping[str, str]) -> Response:
        """The answer.

        Raises:
            MalformedError: it cannot be said in the client's dialect.
        """
        body = self._body if self._dress is None else self._dress.whole(self._body)
        return Response(body=body, headers=SERVER | dict(headers), content_type="application/json")


def error_reply(error: LumenError, headers: Mapping[str, str], body: bytes | None = None) -> Response:
    """Any error as the API's own JSON, with what a client needs to decide on a retry.

    Args:
        body: the error in the client's own dialect, where that is another.
    """
    sent = SERVER | dict(headers) | error.headers
    if error.retry_after is not None:
        sent["Retry-After"] = str(max(1, round(error.retry_after)))
    told = encode_error(error) if body is None else body
    return Response(status=error.status, body=told, headers=sent, content_type="application/json")


def encode_error(error: LumenError) -> bytes:
    return msgspec.json.encode(error.body())
