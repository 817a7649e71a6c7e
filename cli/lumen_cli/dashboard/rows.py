"""Frames as rows of tables: a key and the cells of each. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lumen_cli import trials as tried
from lumen_cli.output import ago
from lumen_cli.standing import budgets as budget_rows
from lumen_cli.standing import targets as target_rows

Row = tuple[str, tuple[str, ...]]

ROUTES = ("route", "req/s", "tok/s", "p50", "p95", "p99", "errors", "cost $")
TARGETS = ("target", "state", "for", "why", "in flight", "share", "errors", "first token p50/p95")
FAILOVERS = ("when", "from", "to", "rung", "at", "seam", "client saw", "why", "request")
REQUESTS = ("route", "target", "outcome", "tokens", "first", "total", "tries", "key", "reason", "request")
REPLICAS = ("model", "#", "state", "doing", "pid", "restarts", "in flight")
TRIALS = ("trial", "route", "candidate", "state", "share", "seen", "evidence", "for")
BUDGETS = ("budget", "of", "limit", "spent", "held")
DEVICES = ("device", "memory", "used", "busy", "temperature", "held by")


def routes(found: Mapping[str, Any]) -> list[Row]:
    return [
        (
            name,
            (
                name,
                f"{route['rps']:.1f}",
                f"{route['tps']:.0f}",
                *(ms(route["ttft_ms"].get(share)) for share in ("p50", "p95", "p99")),
                f"{route['errors']:.1%}",
                f"{route['cost'] / 1e12:.6f}",
            ),
        )
        for name, route in sorted(found.items(), key=lambda pair: -pair[1]["rps"])
    ]


def targets(found: Sequence[dict[str, Any]]) -> list[Row]:
    return [(str(cells[0]), _cells(cells)) for cells in target_rows(found)]


def failovers(found: Iterable[Mapping[str, Any]]) -> list[Row]:
    return [
        (
            f"{one['request_id']} {one['time']}",
            (
                clock(one["time"]),
                one["source"],
                one["to"],
                one["rung"],
                str(one["position"]),
                "-" if one["seam_ms"] is None else f"{one['seam_ms']:.0f} ms",
                one["client"],
                one["why"],
                one["request_id"],
            ),
        )
        for one in found
    ]


def requests(found: Iterable[Mapping[str, Any]]) -> list[Row]:
    return [
        (
            one["id"],
            (
                one["route"],
                one.get("target") or "-",
                one["outcome"] + "".join(f" ⤳{rung}" for rung in one.get("splices") or ()),
                _tokens(one),
                ms(one.get("ttft_ms")),
                ms(one["ms"]),
                str(one["attempts"]),
                one.get("key") or "-",
                one.get("reason") or "-",
                one["id"],
            ),
        )
        for one in found
    ]


def replicas(models: Iterable[Mapping[str, Any]]) -> list[Row]:
    rows: list[Row] = []
    for model in models:
        if not model.get("replicas"):
            state = model.get("residency") or "off"
            rows.append((model["name"], _cells((model["name"], None, state, model.get("missing"), None, None, None))))
        for one in model.get("replicas") or ():
            doing = one.get("why") or one.get("phase")
            if one.get("phase") and one.get("pct") is not None:
                doing = f"{one['phase']} {one['pct']:.0f} %"
            cells = (one["model"], one["index"], one["state"], doing, one["pid"], one["restarts"], one["in_flight"])
            rows.append((f"{one['model']} {one['index']}", _cells(cells)))
    return rows


def trials(found: Mapping[str, Any]) -> list[Row]:
    """Canaries, then shadows; the key is kind and route."""
    rows: list[Row] = []
    for one in found.get("canaries", ()):
        route, candidate, state, share, answers, evidence, since = tried.canary_row(one)
        why = one["why"] or one["reason"]
        told = f"{state} ({why})" if why else state
        rows.append(
            (f"canary {route}", ("canary", route, candidate, told, share, f"{answers} answers", evidence or "-", since))
        )
    for one in found.get("shadows", ()):
        route, candidate, share, pairs, spent, since, state, judge = tried.shadow_row(one)
        cells = ("shadow", route, candidate, state, share, f"{pairs} pairs, {spent}", judge, since)
        rows.append((f"shadow {route}", cells))
    return rows


def sides(told: Mapping[str, Any]) -> list[str]:
    """A trial's report, line by line: incumbent and candidate side by side, and the verdict."""
    lines = [("", "incumbent", "candidate"), *tried.sides(told["report"])]
    widths = [max(len(line[at]) for line in lines) for at in range(3)]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return [f"{told['candidate']} on {told['route']}", "", *shown, "", *tried.verdict(told["report"])]


def budgets(money: Mapping[str, Any]) -> list[Row]:
    return [(f"{cells[0]} {cells[1]}", _cells(cells)) for cells in budget_rows(money.get("budgets") or [])]


def tries(request: Mapping[str, Any]) -> list[str]:
    """A request told line by line: what was tried, why, and what came of it."""
    lines = [
        f"{request['id']}  {request['op']}  route {request['route']}  key {request.get('key') or '-'}",
        f"{request['outcome']} after {ms(request['ms'])}, first token {ms(request.get('ttft_ms'))}, {_tokens(request)}",
        "",
    ]
    for number, one in enumerate(request["tries"], start=1):
        seam = f", goes on by {one['rung']} at {one['position']}" if one["rung"] else ""
        lines.append(f"{number}. {one['target']} ({one['reason']}){seam}")
        lines.append(
            f"   began {ms(one['began_ms'])}, first token {ms(one['first_token_ms'])}, "
            f"ended {ms(one['ended_ms'])}: {one['outcome']}"
        )
    return lines


def ms(value: float | None) -> str:
    """Milliseconds as a person reads them."""
    if value is None:
        return "-"
    if value < 10:
        return f"{value:.1f} ms"
    return f"{value:.0f} ms" if value < 10_000 else ago(value / 1000)


def clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


def _tokens(one: Mapping[str, Any]) -> str:
    if "tokens" in one:
        return f"{one['tokens']} so far"
    if one.get("prompt_tokens") is None:
        return "-"
    return f"{one['prompt_tokens']}+{one['completion_tokens']}"


def _cells(cells: Iterable[Any]) -> tuple[str, ...]:
    return tuple("-" if cell is None else str(cell) for cell in cells)
