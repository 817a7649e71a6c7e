"""One line a request, written in batches: a system call per request would cost more than the routing does.

A line tells who was served by what and how long it took; never a prompt, a key, a path or an address. What may stand in
it is listed in `Line`: whatever else becomes known of a request stays out until it is added there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import msgspec

from lumen.gateway.settled import Settled

_FLUSH_EVERY = 0.2
_MAX_HELD = 10_000
_encode = msgspec.json.Encoder().encode_lines
_PRETTY = (
    "{clock} {id} {op} {route} → {target} {outcome} {ms} ms, first token {ttft_ms} ms, "
    "{prompt_tokens}+{completion_tokens} tokens, attempts {attempts}, splices {spliced}, key {key}\n"
)


class Line(msgspec.Struct, gc=False):
    """What is written of one request. Times in milliseconds, `time` in Unix seconds, `cost` in pico-dollars."""

    time: float
    event: str
    id: str
    op: str
    route: str
    target: str
    key: str | None
    outcome: str
    stream: bool
    attempts: int
    splices: list[str]
    prompt_tokens: int | None
    completion_tokens: int | None
    ttft_ms: float | None
    ms: float
    cost: int
    reason: str | None
    score: float | None
    bar: float | None


def line(settled: Settled) -> Line:
    """A request that is over as it is written down."""
    usage, first, attempts = settled.usage, settled.first_token, settled.attempts
    return Line(
        round(settled.at, 3), "request", settled.id, settled.operation, settled.route, settled.target, settled.key,
        settled.outcome, settled.stream, len(attempts), settled.splices,
        usage.prompt_tokens if usage else None, usage.completion_tokens if usage else None,
        None if first is None else round(first * 1000, 2), round(settled.seconds * 1000, 2), settled.cost,
        attempts[0].reason if attempts else None, attempts[0].score if attempts else None,
        attempts[0].bar if attempts else None,
    )  # fmt: skip


class AccessLog:
    """Buffers lines for at most 0.2 s. `write` takes the finished text; `pretty` picks people over programs."""

    def __init__(self, write: Callable[[str], None], *, pretty: bool, enabled: bool = True) -> None:
        self._write = write
        self._pretty = pretty
        self._enabled = enabled
        self._held: list[Settled] = []
        self._timer: asyncio.TimerHandle | None = None

    def take(self, settled: Sequence[Settled]) -> None:
        """Take requests; they are formatted later, off the path of requests."""
        if not self._enabled or len(self._held) >= _MAX_HELD:
            return
        self._held += settled
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FLUSH_EVERY, self.flush)

    def flush(self) -> None:
        """Write what is held."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        held, self._held = self._held, []
        if held:
            lines = map(line, held)
            self._write("".join(map(_pretty, lines)) if self._pretty else _encode(lines).decode())


def _pretty(told: Line) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(told.time))
    fields = msgspec.structs.asdict(told)
    return _PRETTY.format(clock=clock, spliced=len(told.splices), **fields)
