"""Server-sent events, both ways: an incremental parser fed bytes, and the frames Lumen writes.

Source: the HTML standard, "Server-sent events", §9.2.6 (interpreting an event stream).
"""

from __future__ import annotations

DONE = b"[DONE]"
DONE_FRAME = b"data: [DONE]\n\n"
# A pure comment: clients ignore it, while `event: ping` or `id:` lines break the OpenAI SDK's parser.
KEEPALIVE_FRAME = b": keep-alive\n\n"
MAX_EVENT = 8 * 1024 * 1024


class SseError(ValueError):
    """The stream is not an event stream Lumen will read (an event beyond the size bound)."""


def frame(data: bytes) -> bytes:
    """One whole event around a payload that holds no newline (all JSON Lumen writes is one line)."""
    return b"data: " + data + b"\n\n"


class SseParser:
    """Bytes in, payloads of whole events out, however the bytes were cut.

    Comments, `event:`, `id:` and `retry:` are dropped; several `data:` lines of one event are joined by a
    newline; LF, CRLF and CR all end a line.
    """

    __slots__ = ("_held_cr", "_max_event", "_rest")

    def __init__(self, max_event: int = MAX_EVENT) -> None:
        self._rest = b""
        self._held_cr = False
        self._max_event = max_event

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads completed by `data`, in order.

        Raises:
            SseError: an event grew beyond `max_event` bytes.
        """
        cr = self._held_cr or b"\r" in data
        if not (cr or self._rest) and data.find(b"\n") == len(data) - 2 and data[:6] == b"data: " and data[-1] == 10:
            # By far the most usual: one whole event of one line.
            return [data[6:-2]]
        if cr:
            data = self._normalise(data)
        text = self._rest + data if self._rest else data
        blocks = text.split(b"\n\n")
        self._rest = blocks.pop()
        if len(self._rest) > self._max_event:
            raise SseError("an event is larger than the bound")
        payloads = []
        for block in blocks:
            if block.startswith(b"data: ") and b"\n" not in block:
                payloads.append(block[6:])
            elif (payload := _payload(block)) is not None:
                payloads.append(payload)
        return payloads

    def finish(self) -> list[bytes]:
        """What stands unfinished at the end of the stream: some servers leave out the last blank line."""
        rest, self._rest = self._rest, b""
        payload = _payload(rest)
        return [] if payload is None else [payload]

    def _normalise(self, data: bytes) -> bytes:
        """CRLF and CR become LF; a CR at the very end waits for the next byte, which may be its LF."""
        if self._held_cr:
            data = b"\r" + data
        self._held_cr = data.endswith(b"\r")
        if self._held_cr:
            data = data[:-1]
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _payload(block: bytes) -> bytes | None:
    lines = []
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        if name == b"data":
            lines.append(value.removeprefix(b" "))
    return b"\n".join(lines) if lines else None
