"""How targets stand, what went on elsewhere lately, what is left of every limit: the lower half of `lumen status`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from lumen_cli.output import ago, moment, say, table

_SHOWN_FAILOVERS = 5


def draw(found: dict[str, Any]) -> None:
    """Print the sections that have something to say."""
    sections = (
        ("targets", ("target", "state", "for", "why", "in flight", "share", "errors", "first token p50/p95"), targets),
        ("failovers", ("failover", "from", "to", "rung", "at", "seam", "why"), failovers),
    )
    for name, columns, rows in sections:
        if found.get(name):
            say()
            table(columns, rows(found[name]))
    limits = (found.get("money") or {}).get("budgets") or []
    if limits:
        say()
        table(("budget", "of", "limit", "spent", "held"), budgets(limits))
    acme = (found.get("tls") or {}).get("acme") or {}
    if acme.get("why") or acme.get("certified") is False:
        say(certificate(acme))
    trouble = ((found.get("money") or {}).get("ledger") or {}).get("why")
    if trouble:
        say(f"the ledger is in trouble, paid requests are refused: {trouble}")
    for provider, why in (found.get("providers_missing_keys") or {}).items():
        say(f"provider {provider} serves nothing: {why}")


def certificate(acme: dict[str, Any]) -> str:
    """What is to be said of a certificate that is not there, or is not renewed."""
    names = ", ".join(acme["domains"])
    held = (
        f"the certificate for {names} is not renewed"
        if acme["certified"]
        else f"there is no certificate for {names} yet"
    )
    if acme.get("why"):
        return f"{held}, try {acme['failed']} failed: {acme['why']}; again at {moment(acme['next'])}"
    return f"{held}; it is ordered from {acme['directory']}"


def targets(found: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """One row a target: its breaker, since when and why, and how fast it has been."""
    rows = []
    for target in found:
        first = target.get("first_token_ms") or {}
        speed = f"{first['p50']:.0f} / {first['p95']:.0f} ms" if first else None
        since = ago(time.time() - target["since"]) if target.get("since") else None
        numbers = (target.get("in_flight"), f"{target.get('share', 0):.0%}", f"{target.get('error_rate', 0):.0%}")
        rows.append((target["name"], target["state"], since, target.get("why") or None, *numbers, speed))
    return rows


def failovers(found: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """The last few answers that another target, or another replica, went on with."""
    return [
        (
            moment(one["time"]),
            one["source"],
            one["to"],
            one["rung"],
            one["position"],
            None if one["seam_ms"] is None else f"{one['seam_ms']:.0f} ms",
            one["why"],
        )
        for one in found[:_SHOWN_FAILOVERS]
    ]


def budgets(found: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Every limit with what is spent and spoken for, in dollars."""
    return [
        (
            one["limit"],
            f"{one['scope']} {one['name']}".strip(),
            *(f"${one[name] / 1_000_000:.6f}" for name in ("cap", "spent", "held")),
        )
        for one in found
    ]
