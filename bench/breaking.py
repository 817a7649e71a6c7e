"""What `bench.failover` breaks answers with: relays that abort a connection behind an event, and a client that notes
when each event came. Times are seconds of `time.perf_counter`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# What was delivered before a break has reached the client by then, so that the seam is all that is measured.
_SETTLED = 0.03
_LIMIT = 60.0

Opener = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


class Relay:
    """Forwards connections to one server. `breaker` says where an answer ends."""

    def __init__(self, opened: Opener, breaker: Breaker) -> None:
        self._opened = opened
        self._breaker = breaker
        self._ends: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def on_port(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def on_path(self, path: Path) -> None:
        self._server = await asyncio.start_unix_server(self._serve, path)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        while self._ends:
            for end in list(self._ends):
                end.transport.abort()
            await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either end closes it or it is broken."""
        theirs, forward = await self._opened()
        self._ends |= {writer, forward}
        both = [asyncio.create_task(_copy(reader, forward)), asyncio.create_task(self._answers(theirs, writer))]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            for end in (forward, writer):
                end.transport.abort()
            self._ends -= {writer, forward}

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        breaker = self._breaker
        while data := await reader.read(65536):
            kept = breaker.kept(data)
            writer.write(kept)
            if len(kept) < len(data):
                await writer.drain()
                await asyncio.sleep(_SETTLED)
                breaker.broke = time.perf_counter()
                return


@dataclass
class Breaker:
    """Where the next answer is broken off: `after` so many events more; 0: nowhere. `broke`: when it was."""

    after: int = 0
    broke: float = 0.0

    def kept(self, data: bytes) -> bytes:
        """What may pass of `data`: all of it, or that much that ends with the last event."""
        if not self.after:
            return data
        events = data.split(b"\n\n")
        if len(events) <= self.after:
            self.after -= len(events) - 1
            return data
        after, self.after = self.after, 0
        return b"\n\n".join(events[:after]) + b"\n\n"


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


@dataclass
class Answer:
    """A streamed answer as its client saw it. `times`: when each piece of text came. `seams`: what each comment told,
    and how many pieces came before it. `failed`: when an error event came.
    """

    asked: float
    times: list[float] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    seams: list[tuple[dict[str, Any], int]] = field(default_factory=list)
    failed: float = 0.0
    done: bool = False

    @property
    def said(self) -> str:
        return "".join(self.texts)

    @property
    def first(self) -> float:
        """Seconds to the first piece of text."""
        return self.times[0] - self.asked

    def went_on(self) -> float:
        """When the first new text behind the seam came."""
        return self.times[self.seams[-1][1]]

    def take(self, frame: bytes, now: float) -> None:
        if frame.startswith(b": lumen-splice "):
            self.seams.append((json.loads(frame[15:]), len(self.times)))
        elif frame == b"data: [DONE]":
            self.done = True
        elif frame.startswith(b"data: {"):
            chunk = json.loads(frame[6:])
            if "error" in chunk:
                self.failed = now
            for choice in chunk.get("choices", ()):
                delta = choice["delta"]
                calls = delta.get("tool_calls") or ()
                text = (delta.get("content") or "") + "".join(c["function"].get("arguments") or "" for c in calls)
                if text:
                    self.times.append(now)
                    self.texts.append(text)


async def ask(port: int, body: dict[str, Any], on_text: Callable[[int], None] | None = None) -> Answer:
    """One streamed chat on a connection of its own; `on_text` hears how many pieces of text there are by now.

    Raises:
        SystemExit: the gateway refused it.
    """
    data = json.dumps({**body, "stream": True}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    async with asyncio.timeout(_LIMIT):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answer = Answer(time.perf_counter())
        writer.write(f"{head}Connection: close\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        status = await reader.readuntil(b"\r\n\r\n")
        if not status.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"the gateway refused {body['model']}: {(status + await reader.read(2000))!r}")
        rest = b""
        while chunk := await reader.read(65536):
            now = time.perf_counter()
            *frames, rest = (rest + chunk).split(b"\n\n")
            before = len(answer.times)
            for frame in frames:
                # What stands before the event is the framing of the body's chunks.
                start = max(frame.rfind(b"\ndata: "), frame.rfind(b"\n: "))
                answer.take(frame[start + 1 :], now)
            if on_text is not None and len(answer.times) > before:
                on_text(len(answer.times))
        writer.close()
    return answer
