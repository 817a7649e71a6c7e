"""Frames as a gateway sends them, for a board to show."""

from __future__ import annotations

from typing import Any

AT = 1_790_000_000.0


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
        "cost": 5_000_000,
        "reason": "weight 1 of 1",
        **more,
    }


def target(name: str, state: str = "closed", why: str = "") -> dict[str, Any]:
    return {
        "name": name,
        "state": state,
        "since": None,
        "until": None,
        "why": why,
        "in_flight": 2,
        "share": 0.5,
        "error_rate": 0.0,
        "first_token_ms": {"p50": 40.0, "p95": 80.0},
        "usual_first_token_ms": 40.0,
        "gap_ms": {},
        "per_token_ms": {},
    }


def route(rps: float = 10.0, errors: float = 0.0, p95: float | None = 80.0) -> dict[str, Any]:
    times = {"p50": 40.0, "p95": p95, "p99": 120.0} if p95 is not None else {"p50": None, "p95": None, "p99": None}
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
        "why": None,
        "phase": None,
        "pct": None,
        "pid": 4711,
        "restarts": 0,
        "in_flight": 1,
        **more,
    }


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
        "ended": [ended(1), ended(2, route="code", splices=["prefill"], attempts=2)],
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
            }
        ],
        "routes": {"chat": route(), "code": route(2.0, p95=200.0)},
        "requests": {"in_flight": 1, "total": 2, "errors": 0, "splices": 1, "cancelled": 0},
        "targets": [target("groq/fast"), target("openai/best")],
        "models": [{"name": "lumen-tiny", "ready": True, "missing": None, "replicas": [replica()]}],
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
            "budgets": [
                {"scope": "route", "name": "chat", "limit": "day", "cap": 20_000_000, "spent": 1_250_000, "held": 0}
            ],
        },
        "trials": {"canaries": [canary()], "shadows": [shadow()], "dark": {}, "learnt": {}},
        "rss_bytes": 50_000_000,
        "draining": False,
        **more,
    }


OK = frame()
DEGRADED = frame(
    routes={"chat": route(10.0, errors=0.2)},
    targets=[target("groq/fast", "open", "5 failures in a row: upstream_timeout"), target("openai/best")],
    models=[
        {
            "name": "lumen-tiny",
            "ready": False,
            "missing": None,
            "replicas": [replica("starting", phase="loading", pct=40.0, pid=4712, restarts=3, in_flight=0)],
        }
    ],
)
EMPTY = frame(
    number=0,
    ended=[],
    active=[],
    routes={},
    targets=[],
    models=[],
    failovers=[],
    money={"today": 0, "budgets": []},
    trials={},
)
