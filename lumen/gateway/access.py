"""One line a request, written in batches: a system call per request would cost more than the routing does.

A line tells who was served by what and how long it took; never a prompt, a key, a path or an address.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec

_FLUSH_EVERY = 0.2
_MAX_HELD = 10_000
_encode = msgspec.json.Encoder().encode
_PRETTY = (
    "{clock} {id} {op} {route} → {target} {outcome} {ms} ms, first token {ttft_ms} ms, "
    "{prompt_tokens}+{completion_tokens} tokens, attempts {attempts}, splices {splices}, key {key}\n"
)


class AccessLog:
    """Buffers lines for at most 0.2 s. `write` takes the finished text; `pretty` picks people over programs."""

    def __init__(self, write: Callable[[str], None], *, pretty: bool, enabled: bool = True) -> None:
        self._write = write
        self._pretty = pretty
        self._enabled = enabled
        self._held: list[tuple[float, dict[str, Any]]] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, record: dict[str, Any]) -> None:
        """Take a record; it is formatted later, off the path of the request."""
        if not self._enabled or len(self._held) >= _MAX_HELD:
            return
        self._held.append((time.time(), record))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FLUSH_EVERY, self.flush)

    def flush(self) -> None:
        """Write what is held."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        held, self._held = self._held, []
        if held:
            self._write("".join(self._line(at, record) for at, record in held))

    def _line(self, at: float, record: dict[str, Any]) -> str:
        if not self._pretty:
            return _encode({"time": round(at, 3), "event": "request", **record}).decode() + "\n"
        return _PRETTY.format(clock=time.strftime("%H:%M:%S", time.localtime(at)), **record)
