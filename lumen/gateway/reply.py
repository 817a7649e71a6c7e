"""Events to the client: whole answers in one write, streams as they come, at the client's own pace.

A stream's headers go out with its first token, so that everything before it can still be an honest status.
When the first token is slow, the headers and comments go out instead, and later errors travel in the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import msgspec
from aiohttp.web import BaseRequest, Response, StreamResponse

from lumen.core.errors import LumenError
from lumen.wire.call import Event
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
    """One open event stream to a client.

    Args:
        keepalive: seconds of silence after which a comment is sent.
        stall: seconds a single write may wait for the client before the connection is dropped.
    """

    def __init__(self, request: BaseRequest, keepalive: float, stall: float) -> None:
        self._request = request
        self._keepalive = keepalive
        self._stall = stall
        self._loop = asyncio.get_running_loop()
        self._response: StreamResponse | None = None
        self._opening = asyncio.Lock()
        self._last = self._loop.time()
        self._writing = False
        self._beating: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.headers: dict[str, str] = {}

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

    async def send(self, data: bytes) -> None:
        """Write whole events; returns when the client has taken enough of them."""
        response = self._response or await self._open()
        self._writing = True
        try:
            await response.write(data)
        finally:
            self._writing = False
            self._last = self._loop.time()

    async def end(self) -> StreamResponse:
        """Close the body the HTTP way; an answer without this is cut short for the client, on purpose."""
        response = self._response or await self._open()
        await response.write_eof()
        return response

    def cut(self) -> StreamResponse:
        """Flush, then close without the body's end: nobody may take what came for a complete answer."""
        assert self._response is not None
        if self._request.transport is not None:
            self._request.transport.close()
        return self._response

    async def _open(self) -> StreamResponse:
        async with self._opening:
            if self._response is None:
                response = StreamResponse(headers=_STREAM_HEADERS | self.headers)
                await response.prepare(self._request)
                self._response = response
            return self._response

    def _beat(self) -> None:
        """Runs on a timer, not per chunk: is the stream silent, or the client stuck?"""
        idle = self._loop.time() - self._last
        if self._writing:
            if idle > self._stall and self._request.transport is not None:
                self._request.transport.abort()
                return
        elif idle >= self._keepalive and (self._beating is None or self._beating.done()):
            self._beating = self._loop.create_task(self._comment())
            idle = 0.0
        wait = self._keepalive if self._writing else max(self._keepalive - idle, 0.05)
        self._timer = self._loop.call_later(wait, self._beat)

    async def _comment(self) -> None:
        try:
            await self.send(KEEPALIVE_FRAME)
        except ConnectionError:
            # The handler's own next write, or its cancellation, ends the request.
            self._last = self._loop.time()


async def stream_reply(
    stream: EventStream, batches: AsyncIterator[list[Event]], headers: Callable[[], dict[str, str]]
) -> StreamResponse:
    """Send every batch, then `[DONE]`; an error after the headers went out travels in the stream.

    Args:
        headers: called when the first token is here, and so the target known.

    Raises:
        LumenError: nothing was sent yet; the caller answers with its status.
    """
    stream.start()
    try:
        async for batch in batches:
            if not stream.opened:
                stream.headers.update(headers())
            if frames := _frames(batch):
                await stream.send(frames)
        await stream.send(DONE_FRAME)
        return await stream.end()
    except LumenError as error:
        if not stream.opened:
            raise
        await stream.send(frame(encode_error(error)))
        return stream.cut()
    finally:
        stream.stop()


def _frames(batch: list[Event]) -> bytes:
    """Whole events, ready to be written."""
    if len(batch) == 1:
        event = batch[0]
        return b"data: " + event.data + b"\n\n" if event.data else event.comment
    return b"".join([frame(event.data) if event.data else event.comment for event in batch])


async def whole_reply(batches: AsyncIterator[list[Event]], headers: Callable[[], dict[str, str]]) -> Response:
    """The answer folded into one body."""
    body = b""
    async for batch in batches:
        body = batch[-1].data
    return Response(body=body, headers=SERVER | headers(), content_type="application/json")


def error_reply(error: LumenError, headers: Mapping[str, str]) -> Response:
    """Any error as the API's own JSON, with what a client needs to decide on a retry."""
    sent = SERVER | dict(headers) | error.headers
    if error.retry_after is not None:
        sent["Retry-After"] = str(max(1, round(error.retry_after)))
    return Response(status=error.status, body=encode_error(error), headers=sent, content_type="application/json")


def encode_error(error: LumenError) -> bytes:
    return msgspec.json.encode(error.body())
