"""Events to the client: whole answers in one write, streams as they come, at the client's own pace.

A stream's headers go out with its first token, so that everything before it can still be an honest status.
When the first token is slow, the headers and comments go out instead, and later errors travel in the stream; but not
while a request only waits for its turn at a local model, which is bounded.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from urllib.parse import quote

import msgspec
from aiohttp.web import BaseRequest, Response, StreamResponse

from lumen.core.errors import LumenError, let_go
from lumen.gateway.sent import LAST, Out
from lumen.wire.call import Event
from lumen.wire.ingress.dress import Dress
from lumen.wire.sse import DONE_FRAME, KEEPALIVE_FRAME, frame

# In place of the server library's own name and version.
SERVER = {"Server": "lumen"}
_WHOLE = b"Server: lumen\r\nContent-Type: application/json\r\n"
_STREAM = (
    b"Server: lumen\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"
    b"X-Accel-Buffering: no\r\n"
)


class EventStream:
    """One open event stream to a client; the outlet of its answer.

    Args:
        headers: those known from the beginning. `told`: those known once the first token is here.
        dress: what the answer is turned into, where the client speaks another dialect.
        keepalive: seconds of silence after which a comment is sent.
        quiet_until: the loop's time until which nothing is said before the answer begins: it waits for its turn, and
            may still be refused by an honest status.
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
        quiet_until: Callable[[], float] | None = None,
    ) -> None:
        self._out = Out(request)
        self._quiet_until = quiet_until
        self._dress = dress
        self._frames: Callable[[list[Event]], bytes] = _frames if dress is None else partial(_dressed, dress)
        # The lines that every answer of this kind has, what says that it is whole, and that it goes on.
        self._fixed, self._last, self._sign = _STREAM, DONE_FRAME, KEEPALIVE_FRAME
        # What went wrong while events were pushed, until somebody waits.
        self._error: LumenError | None = None
        self._headers = headers
        self._told = told
        self._keepalive = keepalive
        self._stall = stall
        self._loop = asyncio.get_running_loop()
        self.opened = False
        # Writes so far, those the last beat saw, and how long there has been no other since.
        self._writes = self._seen = 0
        self._quiet = 0.0
        self._waiting = False
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._timer = self._loop.call_later(self._keepalive, self._beat)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def send(self, events: list[Event]) -> None:
        """See `Outlet`. The stream's headers go out with the first of them."""
        if not self.opened:
            self._headers = {**self._headers, **self._told()}
        if not self._write(self._frames(events)):
            await self.ready()

    def push(self, events: list[Event]) -> bool:
        """See `Outlet`."""
        if self._out.gone:
            return False
        try:
            frames = self._frames(events)
        except LumenError as error:
            self._error = error
            return False
        return self._write(frames)

    async def ready(self) -> None:
        """See `Outlet`."""
        if self._error is not None:
            raise self._error
        self._waiting = True
        try:
            await self._out.drain()
        finally:
            self._waiting = False

    async def end(self) -> StreamResponse:
        """`[DONE]`, and close the body the HTTP way; an answer without this is cut short for the client, on purpose."""
        self._write(self._last if self._dress is None else self._dress.end(), last=True)
        await self.ready()
        return self._out.sent

    def fail(self, error: LumenError) -> StreamResponse:
        """The error as an event, then close without the body's end: nobody may take what came for a whole answer."""
        self._write(frame(encode_error(error)) if self._dress is None else self._dress.failed(error))
        self._out.close()
        return self._out.sent

    def _write(self, data: bytes, *, last: bool = False) -> bool:
        """Write whole frames, the headers before the first of them. False: the client is behind."""
        out, head = self._out, b""
        if not self.opened:
            self.opened = True
            head = out.head(self._fixed, self._headers, None)
        if data:
            self._writes += 1
            if out.chunked:
                data = b"%x\r\n%b\r\n" % (len(data), data)
        if last and out.chunked:
            data += b"0\r\n\r\n"
        return out.write(head + data if head else data)

    def _beat(self) -> None:
        """Runs on a timer, not per chunk: has the stream been silent since the last beat, or the client stuck?"""
        self._timer = self._loop.call_later(self._keepalive, self._beat)
        if self._writes != self._seen:
            self._seen, self._quiet = self._writes, 0.0
            return
        if not self.opened and self._quiet_until is not None and self._loop.time() < self._quiet_until():
            return
        self._quiet += self._keepalive
        if self._waiting:
            if self._quiet > self._stall:
                self._out.abort()
        elif not self._out.gone:
            self._write(self._sign)
            self._seen = self._writes


async def stream_reply(stream: EventStream, answer: Awaitable[None]) -> StreamResponse:
    """Let the answer run into the stream; an error after its headers went out travels in the stream.

    Raises:
        LumenError: nothing was sent yet; the caller answers with its status.
    """
    stream.start()
    try:
        try:
            await answer
            return await stream.end()
        except LumenError as error:
            if not stream.opened:
                raise
            let_go(error)
            return stream.fail(error)
    except ConnectionError:
        # The client has gone; what it pays is settled as for a request that it took back.
        return LAST
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
    """The outlet of a whole answer: its body is the last event's. `kind`: its content type, where that is not JSON."""

    def __init__(self, dress: Dress | None = None, kind: str | None = None) -> None:
        self.opened = False
        self._body = b""
        self._dress = dress
        self._kind = kind

    async def send(self, events: list[Event]) -> None:
        """See `Outlet`."""
        self.push(events)

    def push(self, events: list[Event]) -> bool:
        """See `Outlet`."""
        self._body = events[-1].data
        return True

    async def ready(self) -> None:
        """See `Outlet`. There is always room: the decoder bounds the answer."""

    @property
    def body(self) -> bytes:
        """The answer in the dialect it was decoded to."""
        return self._body

    async def reply(self, request: BaseRequest, headers: Mapping[str, str]) -> StreamResponse:
        """Send the answer.

        Raises:
            MalformedError: it cannot be said in the client's dialect.
        """
        body = self._body if self._dress is None else self._dress.whole(self._body)
        out = Out(request)
        fixed = _WHOLE if self._kind is None else f"Server: lumen\r\nContent-Type: {self._kind}\r\n".encode("ascii")
        head = out.head(fixed, headers, len(body))
        try:
            if not out.write(head, body):
                await out.drain()
        except ConnectionError:
            return LAST
        return out.sent


def error_reply(error: LumenError, headers: Mapping[str, str], body: bytes | None = None) -> Response:
    """Any error as the API's own JSON, with what a client needs to decide on a retry.

    Args:
        body: the error in the client's own dialect, where that is another.
    """
    sent = SERVER | dict(headers) | error.headers
    if error.retry_after is not None:
        sent["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    told = encode_error(error) if body is None else body
    return Response(status=error.status, body=told, headers=sent, content_type="application/json")


def estimate_reply(body: bytes, request_id: str, route: str) -> Response:
    """An answer that no target gave: what it says is an estimate, and marked as one."""
    sent = SERVER | {
        "x-request-id": request_id,
        "x-lumen-route": quote(route, safe=" /:;=,@"),
        "x-lumen-estimated": "true",
    }
    return Response(body=body, headers=sent, content_type="application/json")


def encode_error(error: LumenError) -> bytes:
    return msgspec.json.encode(error.body())
