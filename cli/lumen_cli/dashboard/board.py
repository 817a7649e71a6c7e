"""What the dashboard knows: the last frame of the gateway, and what must be remembered of earlier ones. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

from lumen_cli.dashboard.alarms import Alarm, alarms

# Points of a plot, one a second; requests that are kept to look at.
POINTS = 300
KEPT = 500
_TIMES = ("p50", "p95", "p99")


@dataclass(frozen=True, slots=True)
class Totals:
    """Figures over all routes for the last minute. Times in milliseconds; `spent` today in micro-dollars, and the most
    that the box may, where that is limited."""

    rps: float = 0.0
    tps: float = 0.0
    errors: float = 0.0
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    spent: float = 0.0
    budget: float | None = None
    in_flight: int = 0


@dataclass(slots=True)
class Board:
    """Grows by frames, bounded everywhere. `lost`: why there is no connection; `None` while there is one."""

    frame: Mapping[str, Any] = field(default_factory=dict)
    lost: str | None = "connecting"
    requests: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=KEPT))
    plots: dict[str, deque[tuple[float | None, ...]]] = field(default_factory=dict)
    _second: int = 0

    def take(self, frame: Mapping[str, Any]) -> None:
        """Take in the next frame."""
        self.lost = None
        if frame.get("number", 0) < self.frame.get("number", 0):
            # Another process answers now: what the one before counted is over.
            self.requests.clear()
        self.frame = frame
        self.requests.extend(frame.get("ended", ()))
        routes = frame.get("routes", {})
        for name in [name for name in self.plots if name not in routes]:
            del self.plots[name]
        if int(frame["at"]) != self._second:
            self._second = int(frame["at"])
            for name, figures in routes.items():
                times = figures.get("ttft_ms") or {}
                points = self.plots.setdefault(name, deque(maxlen=POINTS))
                points.append(tuple(times.get(share) for share in _TIMES))

    def lose(self, why: str) -> None:
        """There is no connection any more; what was known stays to be seen."""
        self.lost = why

    @property
    def at(self) -> float:
        """When the frame was made, by the gateway's clock; all lengths of time are seen from there."""
        return float(self.frame.get("at", 0.0))

    @property
    def totals(self) -> Totals:
        routes = self.frame.get("routes", {}).values()
        money = self.frame.get("money") or {}
        rps = sum(route["rps"] for route in routes)
        first = _slowest(routes)
        daily = (one["cap"] for one in money.get("budgets", ()) if (one["scope"], one["limit"]) == ("box", "day"))
        return Totals(
            rps=rps,
            tps=sum(route["tps"] for route in routes),
            errors=sum(route["errors"] * route["rps"] for route in routes) / rps if rps else 0.0,
            p50=first.get("p50"),
            p95=first.get("p95"),
            p99=first.get("p99"),
            spent=money.get("today") or 0.0,
            budget=next(daily, None),
            in_flight=(self.frame.get("requests") or {}).get("in_flight", 0),
        )

    def alarms(self) -> list[Alarm]:
        """What is wrong, the worst first; empty where nothing is."""
        return alarms(self.frame, self.totals.errors, self.lost)

    def busiest(self, most: int) -> list[str]:
        """The routes with most requests."""
        routes = self.frame.get("routes", {})
        return sorted(routes, key=lambda name: (-routes[name]["rps"], name))[:most]

    def matching(self, words: str, most: int = KEPT) -> list[dict[str, Any]]:
        """The requests under way and those that ended, newest first, that hold every word somewhere."""
        wanted = words.lower().split()
        active = ({**one, "outcome": "…", "ms": one["age_ms"]} for one in reversed(self.frame.get("active", ())))
        rows: Iterator[dict[str, Any]] = chain(active, reversed(self.requests))
        return list(islice((row for row in rows if all(word in _text(row) for word in wanted)), most))


def _slowest(routes: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The times of the route with the slowest tail: what hides in an average is what an operator looks for."""
    told: list[Mapping[str, Any]] = [route["ttft_ms"] for route in routes if route["ttft_ms"].get("p95") is not None]
    return max(told, key=lambda times: times["p95"], default={})


def _text(row: Mapping[str, Any]) -> str:
    names = ("id", "route", "target", "key", "outcome", "op", "reason")
    return " ".join(str(row.get(name) or "") for name in names).lower()
