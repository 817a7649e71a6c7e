"""One line a request, written in batches: a system call per request would cost more than the routing does.

A line tells who was served by what and how long it took; never a prompt, a key, a path or an address. What may stand in
it is listed in `FIELDS`: whatever else becomes known of a request stays out until it is added there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec

from lumen.gateway.live import request
from lumen.gateway.settled import Settled

_FLUSH_EVERY = 0.2
_MAX_HELD = 10_000
FIELDS = (
    "id", "op", "route", "target", "key", "outcome", "stream", "attempts", "splices", "prompt_tokens",
    "completion_tokens", "ttft_ms", "ms", "cost", "reason",
)  # fmt: skip
_encode = msgspec.json.Encoder().encode
_PRETTY = (
    "{clock} {id} {op} {route} → {target} {outcome} {ms} ms, first token {ttft_ms} ms, "
    "{prompt_tokens}+{completion_tokens} tokens, attempts {attempts}, splices {spliced}, key {key}\n"
)


class AccessLog:
    """Buffers lines for at most 0.2 s. `write` takes the finished text; `pretty` picks people over programs."""

    def __init__(self, write: Callable[[str], None], *, pretty: bool, enabled: bool = True) -> None:
        self._write = write
        self._pretty = pretty
        self._enabled = enabled
        self._held: list[Settled] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, settled: Settled) -> None:
        """Take a request; it is formatted later, off the path of requests."""
        if not self._enabled or len(self._held) >= _MAX_HELD:
            return
        self._held.append(settled)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FLUSH_EVERY, self.flush)

    def flush(self) -> None:
        """Write what is held."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        held, self._held = self._held, []
        if held:
            self._write("".join(self._line(settled) for settled in held))

    def _line(self, settled: Settled) -> str:
        record = request(settled)
        if not self._pretty:
            line: dict[str, Any] = {"time": round(settled.at, 3), "event": "request"}
            line |= {name: record[name] for name in FIELDS}
            return _encode(line).decode() + "\n"
        clock = time.strftime("%H:%M:%S", time.localtime(settled.at))
        return _PRETTY.format(clock=clock, spliced=len(record["splices"]), **record)
