"""How answers are read in every dialect: events out of an SSE stream, or one event out of a whole body. Pure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from lumen.core.errors import MalformedError, UpstreamError
from lumen.wire.call import Event
from lumen.wire.sse import SseError, SseParser


class StreamDecoder(ABC):
    """Events of one streamed answer. What came before a failure is delivered; the failure comes with the next call."""

    __slots__ = ("_failed", "_parser", "done")

    def __init__(self) -> None:
        self._parser = SseParser()
        self._failed: UpstreamError | None = None
        # The target has said that the answer is complete; only the connection's end is missing.
        self.done = False

    @abstractmethod
    def _take(self, payload: bytes, events: list[Event]) -> None:
        """Read one event of the target and append what it comes to.

        Raises:
            UpstreamError: it reports a failure, or is not what the dialect says.
        """

    @abstractmethod
    def _end(self) -> None:
        """The connection ended.

        Raises:
            UpstreamError: before the answer did.
        """

    def feed(self, data: bytes) -> list[Event]:
        if self._failed is not None:
            raise self._failed
        events: list[Event] = []
        try:
            for payload in self._parser.feed(data):
                self._take(payload, events)
        except SseError as error:
            self._failed = MalformedError(f"The target's stream cannot be read: {error}.", phase="stream")
        except UpstreamError as error:
            self._failed = error
        if self._failed is not None and not events:
            raise self._failed
        return events

    def finish(self) -> list[Event]:
        if self._failed is not None:
            raise self._failed
        events: list[Event] = []
        for payload in self._parser.finish():
            self._take(payload, events)
        self._end()
        return events


class WholeDecoder:
    """One whole answer, read when it is complete.

    Args:
        read: the body to its event; raises `UpstreamError`.
        bound: bytes an answer may have.
    """

    __slots__ = ("_bound", "_parts", "_read", "_size", "done")

    def __init__(self, read: Callable[[bytes], Event], bound: int) -> None:
        self._read = read
        self._bound = bound
        self._parts: list[bytes] = []
        self._size = 0
        self.done = False

    def feed(self, data: bytes) -> list[Event]:
        self._size += len(data)
        if self._size > self._bound:
            raise MalformedError("The target's answer is larger than the bound.", phase="body")
        self._parts.append(data)
        return []

    def finish(self) -> list[Event]:
        return [self._read(b"".join(self._parts))]


def check_kind(content_type: str, *, stream: bool) -> None:
    """A 200 answer must be of the kind that was asked for: HTML pages of proxies are none.

    Raises:
        MalformedError: it is not.
    """
    if stream:
        if not content_type.startswith("text/event-stream"):
            raise MalformedError("The target did not answer with an event stream.", phase="headers")
    elif not content_type.startswith("application/json"):
        raise MalformedError("The target did not answer with JSON.", phase="headers")
