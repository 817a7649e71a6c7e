"""Answers sent on as they come, byte for byte and at the client's pace: audio, and events of targets' own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aiohttp.web import BaseRequest, StreamResponse

from lumen.core.errors import LumenError
from lumen.gateway.reply import EventStream
from lumen.wire.call import Event


class ByteStream(EventStream):
    """One open answer of bytes. Nothing is put between them: a pause is silent, and a failure cuts it short.

    Of events, which are told apart, a pause is a comment and a failure an event, as in every stream.

    Args:
        kind: its content type. Others: see `EventStream`.
    """

    def __init__(
        self,
        request: BaseRequest,
        headers: Mapping[str, str],
        told: Callable[[], Mapping[str, str]],
        *,
        kind: str,
        keepalive: float,
        stall: float,
        quiet_until: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(request, headers, told, keepalive=keepalive, stall=stall, quiet_until=quiet_until)
        self._events = kind.startswith("text/event-stream")
        self._fixed = f"Server: lumen\r\nContent-Type: {kind}\r\n".encode("ascii")
        self._frames = _joined
        self._last = b""
        if self._events:
            # Whole frames, which the target itself has made; between them there is room for others.
            self._fixed += b"Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\n"
        else:
            self._sign = b""

    def fail(self, error: LumenError) -> StreamResponse:
        """Close without the body's end: nobody may take what came for a whole answer."""
        if self._events:
            return super().fail(error)
        self._out.close()
        return self._out.sent


def _joined(events: list[Event]) -> bytes:
    return events[0].data if len(events) == 1 else b"".join([event.data for event in events])
