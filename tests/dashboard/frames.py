"""Frames as a gateway sends them, for a board to show."""

from __future__ import annotations

from typing import Any

AT = 1_790_000_000.0
SAVING = "cheapest good enough: expected loss 1.8 points, about $0.000004"


def ended(number: int, **more: Any) -> dict[str, Any]:
    return {
        "n": number,
        "id": f"req_{number:024x}",
        "at": AT,
        "op": "chat/completions",
        "route": "chat",
        "target": "groq/fast",
        "key": "k1",
        "outcome": "ok",
        "stream": True,
        "attempts": 1,
        "splices": [],
        "prompt_tokens": 12,
        "completion_tokens": 34,
        "ttft_ms": 41.5,
        "ms": 620.0,
        "parts_ms": {"gateway": 0.4, "wake": 0.0, "queue": 12.1, "prefill": 29.0},
        "cost": 5_000_000,
        "reason": "weight 1 of 1",
        "score": None,
        "bar": None,
        **more,
    }


def target(name: str, state: str = "closed", why: str = "", **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "state": state,
        "since": AT - 4000,
        "until": None,
        "why": why,
        "in_flight": 2,
        "share": 0.5,
        "error_rate": 0.0,
        "first_token_ms": {"p50": 40.0, "p95": 80.0},
        "usual_first_token_ms": 40.0,
        "gap_ms": {"p50": 20.0, "p95": 60.0, "p99": 90.0},
        "per_token_ms": {"p50": 16.0, "p95": 18.0, "p99": 30.0},
        **more,
    }


def route(rps: float = 10.0, errors: float = 0.0, p95: float | None = 80.0) -> dict[str, Any]:
    times = {"p50": 40.0, "p95": p95, "p99": p95 * 1.5} if p95 is not None else {"p50": None, "p95": None, "p99": None}
    return {
        "rps": rps,
        "tps": 300.0,
        "errors": errors,
        "ttft_ms": times,
        "requests": 100,
        "failed": 1,
        "cost": 3 * 10**12,
    }


def replica(state: str = "ready", **more: Any) -> dict[str, Any]:
    return {
        "model": "lumen-tiny",
        "index": 0,
        "state": state,
        "since": AT - 3700,
        "why": None,
        "phase": None,
        "pct": None,
        "pid": 4711,
        "restarts": 0,
        "in_flight": 1,
        **more,
    }


def model(ready: bool = True, residency: str = "resident", *replicas: dict[str, Any], **more: Any) -> dict[str, Any]:
    standing = {
        "residency": residency, "waiting": 0, "holds": {"ram": 500 * 2**20},
        "wakes": {"off": 2.5, "asleep": 0.4},
    }  # fmt: skip
    return {
        "name": "lumen-tiny",
        "ready": ready,
        "missing": None,
        "standing": standing,
        "replicas": list(replicas),
        **more,
    }


def device(**more: Any) -> dict[str, Any]:
    return {
        "id": "cuda:0", "kind": "cuda", "name": "A card", "total": 24 * 2**30, "used": 15 * 2**30,
        "charged": 14 * 2**30, "busy": 62, "celsius": 58, **more,
    }  # fmt: skip


MEMORY = device(id="ram", kind="ram", name="memory", total=64 * 2**30, used=20 * 2**30, busy=None, celsius=None)


def budget(scope: str, name: str, cap: int, spent: int, limit: str = "day") -> dict[str, Any]:
    return {"scope": scope, "name": name, "limit": limit, "cap": cap, "spent": spent, "held": 0}


def canary(**more: Any) -> dict[str, Any]:
    return {
        "route": "chat",
        "candidate": "openai/new",
        "started": AT,
        "phase": "running",
        "steps": [1, 5, 25, 50, 100],
        "step": 1,
        "percent": 5.0,
        "answers": 120,
        "needed": 3.0,
        "guards": {"quality": {"for": 1.5, "against": 0.0}, "errors": {"for": 4.0, "against": 0.0}},
        "reason": "",
        "why": "",
        **more,
    }


def shadow(**more: Any) -> dict[str, Any]:
    return {
        "route": "code",
        "candidate": "groq/cheap",
        "started": AT,
        "share": 0.05,
        "pairs": 40,
        "drawn": 55,
        "spent": 2_000_000_000,
        "budget": 10**12,
        "running": True,
        "why": "",
        "judge": "openai/judge",
        "checker": None,
        **more,
    }


def side(**more: Any) -> dict[str, Any]:
    return {
        "targets": ["openai/best"], "answers": 40, "failed": 0, "cost": 3e8, "ttft": 0.25, "seconds": 2.0,
        "tokens": 120.0, "characters": 500.0, "refusals": 0.0, "tool_calls": 0, "tool_calls_valid": None, **more,
    }  # fmt: skip


REPORT = {
    "route": "chat",
    "candidate": "openai/new",
    "report": {
        "incumbent": side(),
        "candidate": side(targets=["openai/new"], cost=1e8),
        "judged": 40,
        "better": 10,
        "worse": 8,
        "equal": 22,
        "quality_change": 0.01,
    },
}


def frame(**more: Any) -> dict[str, Any]:
    return {
        "at": AT,
        "number": 2,
        "left_out": 0,
        "ended": [
            ended(1, reason=SAVING, score=0.9823, bar=0.97),
            ended(2, route="code", splices=["prefill"], attempts=2),
        ],
        "active": [
            {
                "id": "req_active",
                "op": "chat/completions",
                "route": "chat",
                "target": "groq/fast",
                "key": None,
                "stream": True,
                "attempts": 1,
                "tokens": 7,
                "age_ms": 90,
                "reason": "weight 1 of 1",
            }
        ],
        "routes": {"chat": route(), "code": route(2.0, p95=200.0)},
        "requests": {"in_flight": 1, "total": 2, "errors": 0, "splices": 1, "cancelled": 0},
        "targets": [target("groq/fast"), target("openai/best")],
        "models": [model(True, "resident", replica())],
        "devices": [device(), MEMORY],
        "failovers": [
            {
                "request_id": "req_000000000000000000000002",
                "time": AT,
                "source": "groq/fast",
                "to": "openai/best",
                "why": "upstream_disconnected",
                "rung": "prefill",
                "position": 120,
                "seam_ms": 48.0,
                "client": "one answer, continued",
            }
        ],
        "money": {
            "today": 1_250_000,
            "ledger": {"healthy": True, "why": None},
            "budgets": [budget("box", "", 50_000_000, 1_250_000), budget("route", "chat", 20_000_000, 1_000_000)],
        },
        "trials": {"canaries": [canary()], "shadows": [shadow()], "dark": {}, "learnt": {}},
        "rss_bytes": 50_000_000,
        "draining": False,
        **more,
    }


OK = frame()
DEGRADED = frame(
    routes={"chat": route(10.0, errors=0.2, p95=900.0), "code": route(2.0, p95=200.0)},
    targets=[
        target(
            "groq/fast", "open", "5 failures in a row: upstream_timeout", since=AT - 12, until=AT + 18, error_rate=0.6
        ),
        target("openai/best", usual_first_token_ms=420.0),
        target("openai/new", "half_open", "5 failures in a row: status 503", since=AT - 2),
        target("groq/cheap", "drained", "by the operator", in_flight=0, share=0.0),
    ],
    models=[
        model(False, "crashed", replica("starting", phase="loading", pct=40.0, pid=4712, restarts=3, in_flight=0)),
        model(False, "crashed", replica("crashed", model="big", why="it ran out of memory", pid=None), name="big"),
        model(False, "off", name="away", missing="not on this disk: lumen pull away"),
    ],
    devices=[device(used=23 * 2**30, busy=100, celsius=91), MEMORY | {"used": 63 * 2**30}],
    money={
        "today": 48_000_000,
        "ledger": {"healthy": True, "why": None},
        "budgets": [budget("box", "", 50_000_000, 48_000_000), budget("route", "chat", 20_000_000, 20_000_000)],
    },
    trials={"canaries": [canary(phase="rolled_back", reason="errors", percent=0.0)], "shadows": [], "learnt": {}},
)
EMPTY = frame(
    number=0,
    ended=[],
    active=[],
    routes={},
    targets=[],
    models=[],
    devices=[],
    failovers=[],
    money={"today": 0, "budgets": []},
    trials={},
)


def history(seconds: int = 90) -> list[dict[str, Any]]:
    """The frames of the seconds before, with times that rise and fall."""
    found = []
    for second in range(seconds):
        rise = 1 + (second % 30) / 30
        times = {"p50": 40.0 * rise, "p95": 90.0 * rise, "p99": 110.0 + 400.0 * (second // 30 == 1)}
        shown = {"chat": route() | {"ttft_ms": times}, "code": route(2.0, p95=200.0 / rise)}
        found.append(frame(at=AT - seconds + second, ended=[], number=0, routes=shown))
    return found


TRACE = {
    **ended(2, route="code", splices=["prefill"], attempts=2),
    "tries": [
        {"target": "groq/fast", "reason": "weight 1 of 1", "began_ms": 0.1, "first_token_ms": 41.5, "ended_ms": 300.0,
         "outcome": "upstream_disconnected", "rung": None, "position": 0},
        {"target": "openai/best", "reason": "continues groq/fast, prefill", "began_ms": 301.0, "first_token_ms": 349.0,
         "ended_ms": 620.0, "outcome": "ok", "rung": "prefill", "position": 120},
    ],
}  # fmt: skip
