"""What is going on right now: the last requests and the last minute's figures, for whoever looks.

Nothing is computed while nobody looks: a request that is over is put into bounded queues, and a frame is made of them
when one is asked for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import itemgetter
from typing import Any

from msgspec import Struct

from lumen.gateway import timing
from lumen.gateway.attempt import Journey, Record
from lumen.gateway.settled import Settled

# Seconds that figures look back, and requests kept: in all, and of each route for its figures.
WINDOW = 60.0
KEPT = 1_000
_OF_ROUTE = 2_048
_MOST_ROUTES = 200
# Of more requests than this the figures are made once a second, not for every frame: quantiles need them sorted.
_FEW = 256
_ONCE = 0.9
_OTHER = "other"


@dataclass(slots=True)
class _Route:
    """The requests of one route within the window, newest last: (ended, first token, output tokens, failed)."""

    seen: deque[tuple[float, float | None, int, bool]] = field(default_factory=lambda: deque(maxlen=_OF_ROUTE))
    requests: int = 0
    errors: int = 0
    cost: int = 0
    # The figures made last, and when.
    figures: dict[str, Any] = field(default_factory=dict)
    figured: float = -WINDOW


class Active(Struct, gc=False):
    """A request under way. `task`: the one that serves it."""

    id: str
    operation: str
    route: str
    key: str | None
    stream: bool
    started: float
    journey: Journey
    task: asyncio.Task[Any] | None

    def shown(self, now: float) -> dict[str, Any]:
        """As a line of a table; `age_ms` up to `now`, the loop's clock."""
        trace = self.journey.trace
        return {
            "id": self.id,
            "op": self.operation,
            "route": self.route,
            "target": self.journey.target,
            "key": self.key,
            "stream": self.stream,
            "attempts": len(self.journey.attempts),
            "tokens": trace.tokens if trace.delivered else 0,
            "age_ms": round((now - self.started) * 1000),
            **_chosen(self.journey.attempts),
        }

    def told(self, now: float) -> dict[str, Any]:
        """The same with all its tries so far."""
        attempts = self.journey.attempts
        parts = _parts(attempts, self.started, self.stream)
        return {**self.shown(now), "parts_ms": parts, "tries": tries(attempts, self.started)}


class Live:
    """Keeps the last requests; one event loop writes and reads."""

    def __init__(self) -> None:
        self._recent: deque[tuple[int, Settled]] = deque(maxlen=KEPT)
        self._routes: dict[str, _Route] = {}
        self._number = 0

    @property
    def number(self) -> int:
        """How many requests have been seen: ask for what came after it."""
        return self._number

    def take(self, settled: Sequence[Settled]) -> None:
        """Take in requests that are over."""
        self._recent.extend(enumerate(settled, self._number + 1))
        self._number += len(settled)
        for one in settled:
            route = self._routes.get(one.route)
            if route is None:
                name = one.route if len(self._routes) < _MOST_ROUTES else _OTHER
                route = self._routes.setdefault(name, _Route())
            usage = one.usage
            failed = one.outcome not in ("ok", "cancelled")
            output = (usage.completion_tokens or 0) if usage is not None else 0
            route.seen.append((one.ended, one.first_token, output, failed))
            route.requests += 1
            route.errors += failed
            route.cost += one.cost

    def since(self, number: int, most: int) -> tuple[int, list[dict[str, Any]]]:
        """The newest requests after `number`, oldest first, at most `most`; and how many were left out of them."""
        fresh = [row for row in islice(reversed(self._recent), most) if row[0] > number]
        left_out = max(self._number - number - len(fresh), 0)
        return left_out, [{"n": n, **request(settled)} for n, settled in reversed(fresh)]

    def find(self, request_id: str) -> dict[str, Any] | None:
        """One request with all its tries, where it is still kept."""
        for _, settled in reversed(self._recent):
            if settled.id == request_id:
                return {**request(settled), "tries": tries(settled.attempts, settled.started)}
        return None

    def routes(self, now: float) -> dict[str, dict[str, Any]]:
        """Figures of each route over the window that ends `now` (the loop's clock)."""
        return {name: _figures(route, now) for name, route in self._routes.items()}


def request(settled: Settled) -> dict[str, Any]:
    """One request as a line of a table; times in milliseconds, cost in pico-dollars."""
    usage, first = settled.usage, settled.first_token
    return {
        "id": settled.id,
        "at": settled.at,
        "op": settled.operation,
        "route": settled.route,
        "target": settled.target,
        "key": settled.key,
        "outcome": settled.outcome,
        "stream": settled.stream,
        "attempts": len(settled.attempts),
        "splices": settled.splices,
        "prompt_tokens": usage.prompt_tokens if usage else None,
        "completion_tokens": usage.completion_tokens if usage else None,
        "ttft_ms": None if first is None else round(first * 1000, 2),
        "ms": round(settled.seconds * 1000, 2),
        "parts_ms": _parts(settled.attempts, settled.started, settled.stream),
        "cost": settled.cost,
        **_chosen(settled.attempts),
    }


def tries(attempts: Sequence[Record], started: float) -> list[dict[str, Any]]:
    """Every try of a request; times in milliseconds since it `started`. One under way has not ended."""
    return [
        {
            "target": attempt.target,
            "reason": attempt.reason,
            "score": attempt.score,
            "bar": attempt.bar,
            "began_ms": _since(attempt.started, started),
            "first_token_ms": _since(attempt.first_token, started),
            "ended_ms": _since(attempt.ended or None, started),
            "outcome": attempt.outcome if attempt.ended else None,
            "rung": attempt.rung,
            "position": attempt.position,
        }
        for attempt in attempts
    ]


def quantiles(values: Iterable[float], shares: Iterable[float]) -> list[float | None]:
    """The values at these shares, by nearest rank; `None` where there are no values."""
    found = sorted(values)
    last = len(found) - 1
    return [found[min(int(share * len(found)), last)] if found else None for share in shares]


def _chosen(attempts: Sequence[Record]) -> dict[str, Any]:
    """Why the target that was asked first was, how likely its answer was good enough, and how likely that had to be."""
    if not attempts:
        return {"reason": None, "score": None, "bar": None}
    return {"reason": attempts[0].reason, "score": attempts[0].score, "bar": attempts[0].bar}


def _since(at: float | None, started: float) -> float | None:
    return None if at is None else round((at - started) * 1000, 2)


def _parts(attempts: Sequence[Record], started: float, stream: bool) -> dict[str, float]:
    """The time to the first token in its parts, see `timing.py`, in milliseconds."""
    found = timing.parts(attempts, started, stream=stream)
    return {name: round(seconds * 1000, 2) for name, seconds in found.items() if name != "first"}


def _figures(route: _Route, now: float) -> dict[str, Any]:
    seen = route.seen
    if len(seen) > _FEW and now - route.figured < _ONCE:
        return route.figures
    while seen and seen[0][0] < now - WINDOW:
        seen.popleft()
    # A full queue reaches back less far than the window: rates are over what it holds.
    span = min(WINDOW, now - seen[0][0]) if len(seen) == seen.maxlen else WINDOW
    firsts = [first for first in map(itemgetter(1), seen) if first is not None]
    p50, p95, p99 = (None if at is None else at * 1000 for at in quantiles(firsts, (0.5, 0.95, 0.99)))
    route.figured = now
    route.figures = {
        "rps": len(seen) / max(span, 1e-3),
        "tps": sum(map(itemgetter(2), seen)) / max(span, 1e-3),
        "errors": sum(map(itemgetter(3), seen)) / len(seen) if seen else 0.0,
        "ttft_ms": {"p50": p50, "p95": p95, "p99": p99},
        "requests": route.requests,
        "failed": route.errors,
        "cost": route.cost,
    }
    return route.figures
