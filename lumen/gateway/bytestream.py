"""Answers that are no text, sent on as they come and at the client's pace: audio."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aiohttp.web import BaseRequest, StreamResponse

from lumen.core.errors import LumenError
from lumen.gateway.reply import EventStream
from lumen.wire.call import Event


class ByteStream(EventStream):
    """One open answer of bytes. Nothing is put between them: a pause is silent, and a failure cuts it short.

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
    ) -> None:
        super().__init__(request, headers, told, keepalive=keepalive, stall=stall)
        self._fixed = f"Server: lumen\r\nContent-Type: {kind}\r\n".encode("ascii")
        self._frames = _joined
        self._last = b""
        self._sign = b""

    def fail(self, error: LumenError) -> StreamResponse:
        """Close without the body's end: nobody may take what came for a whole answer."""
        self._out.close()
        return self._out.sent


def _joined(events: list[Event]) -> bytes:
    return events[0].data if len(events) == 1 else b"".join([event.data for event in events])
