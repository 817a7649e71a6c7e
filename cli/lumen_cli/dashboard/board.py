"""What the dashboard knows: the last frame of the gateway, and what must be remembered of earlier ones. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# Points of a plot, four a second; requests that are kept to look at.
POINTS = 240
KEPT = 500


@dataclass(frozen=True, slots=True)
class Totals:
    """Figures over all routes for the last minute. Times in milliseconds, `spent` today in dollars."""

    rps: float = 0.0
    tps: float = 0.0
    errors: float = 0.0
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    spent: float = 0.0
    in_flight: int = 0


@dataclass(slots=True)
class Board:
    """Grows by frames, bounded everywhere. `lost`: why there is no connection; `None` while there is one."""

    frame: Mapping[str, Any] = field(default_factory=dict)
    lost: str | None = "connecting"
    requests: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=KEPT))
    plots: dict[str, deque[float]] = field(default_factory=dict)

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
        for name, figures in routes.items():
            points = self.plots.setdefault(name, deque(maxlen=POINTS))
            points.append((figures.get("ttft_ms") or {}).get("p95") or 0.0)

    def lose(self, why: str) -> None:
        """There is no connection any more; what was known stays to be seen."""
        self.lost = why

    @property
    def totals(self) -> Totals:
        routes = self.frame.get("routes", {}).values()
        rps = sum(route["rps"] for route in routes)
        first = _slowest(routes)
        return Totals(
            rps=rps,
            tps=sum(route["tps"] for route in routes),
            errors=sum(route["errors"] * route["rps"] for route in routes) / rps if rps else 0.0,
            p50=first.get("p50"),
            p95=first.get("p95"),
            p99=first.get("p99"),
            spent=spent_today(self.frame.get("money") or {}),
            in_flight=(self.frame.get("requests") or {}).get("in_flight", 0),
        )

    def alarms(self) -> list[str]:
        """What is wrong, the worst first; empty where nothing is."""
        found = [self.lost] if self.lost else []
        money = self.frame.get("money") or {}
        if why := (money.get("ledger") or {}).get("why"):
            found.append(f"the ledger is in trouble, paid requests are refused: {why}")
        out = [target["name"] for target in self.frame.get("targets", ()) if target["state"] == "open"]
        if out:
            found.append(f"out: {', '.join(out)}")
        found += [f"{m['name']}: {m['missing']}" for m in self.frame.get("models", ()) if m.get("missing")]
        if self.totals.errors > 0.05:
            found.append(f"{self.totals.errors:.0%} of the requests fail")
        if self.frame.get("draining"):
            found.append("the gateway is shutting down")
        return found

    def matching(self, words: str) -> list[dict[str, Any]]:
        """The requests under way and those that ended, newest first, that hold every word somewhere."""
        wanted = words.lower().split()
        rows = [{**one, "outcome": "…", "ms": one["age_ms"]} for one in self.frame.get("active", ())]
        rows += reversed(self.requests)
        return [row for row in rows if all(word in _text(row) for word in wanted)]


def spent_today(money: Mapping[str, Any]) -> float:
    """Dollars, where the gateway tells."""
    value = money.get("today")
    return value / 1_000_000 if isinstance(value, int | float) else 0.0


def _slowest(routes: Any) -> Mapping[str, Any]:
    """The times of the route with the slowest tail: what hides in an average is what an operator looks for."""
    told: Sequence[Mapping[str, Any]] = [
        route["ttft_ms"] for route in routes if route["ttft_ms"].get("p95") is not None
    ]
    return max(told, key=lambda times: times["p95"], default={})


def _text(row: Mapping[str, Any]) -> str:
    names = ("id", "route", "target", "key", "outcome", "op", "reason")
    return " ".join(str(row.get(name) or "") for name in names).lower()
