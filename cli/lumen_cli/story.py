"""One request put together again from what is written of it: the log, the ledger, and a gateway that still knows it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lumen.paths import Paths
from lumen_cli.client import Admin
from lumen_cli.errors import CliError

_ID = re.compile(r"req_[0-9a-f]{8,64}")
_RESUMED = "fidelity"
# What a try waited for before its first token, as booked.
_PARTS = ("wake", "queue", "prefill")
_PARTS_UNKNOWN = (None,) * len(_PARTS)
_TOLD = ("target", "began_ms", "first_token_ms", "ended_ms", "outcome")


@dataclass
class Story:
    """`line`: what the log said when it was over. `attempts`: as booked. `tries`: with the gateway's finer times.

    `lines`: every other line of the log that names it. `failovers`: from where to where, and why.
    """

    id: str
    line: dict[str, Any] | None = None
    lines: list[str] = field(default_factory=list)
    attempts: list[dict[str, Any]] = field(default_factory=list)
    tries: list[dict[str, Any]] = field(default_factory=list)
    failovers: list[dict[str, Any]] = field(default_factory=list)

    @property
    def known(self) -> bool:
        return bool(self.line or self.lines or self.attempts or self.tries)


def story(request: str, paths: Paths) -> Story:
    """All there is about a request.

    Raises:
        CliError: this is no id, or nothing is known of it.
    """
    from lumen.ledger.report import reading

    if not _ID.fullmatch(request):
        raise CliError(f"{request[:80]!r} is no id of a request", "it is the header x-request-id of every answer")
    found = Story(request)
    for line in _mentions(request, paths.gateway_log):
        told = _record(line)
        if told is not None and told.get("id") == request:
            found.line = told
        else:
            found.lines.append(line)
    if paths.ledger_file.exists():
        with reading(paths.ledger_file) as ledger:
            found.attempts = [row._asdict() for row in ledger.attempts(request)]
    _ask(found, Admin(paths.admin_socket))
    if not found.known:
        raise CliError(f"nothing is known of {request}", "its log may be gone, and single attempts summed up")
    return found


def _ask(found: Story, admin: Admin) -> None:
    """What a running gateway still has in memory."""
    try:
        told = admin.get(f"/admin/requests/{found.id}")
        found.tries = told.pop("tries", [])
        found.line = found.line or told
        found.failovers = [one for one in admin.get("/admin/failovers") if one.get("request_id") == found.id]
    except CliError:
        # None runs, or it is not among its last requests: the files tell it all the same.
        return


def _mentions(request: str, log: Path) -> Iterator[str]:
    for path in (log.with_name(f"{log.name}.1"), log):
        if path.exists():
            with path.open(encoding="utf-8", errors="replace") as lines:
                yield from (line.rstrip("\n") for line in lines if request in line)


def _record(line: str) -> dict[str, Any] | None:
    try:
        told = json.loads(line)
    except ValueError:
        return None
    return told if isinstance(told, dict) and told.get("event") == "request" else None


def summary(found: Story) -> list[str]:
    """What it came to, in words."""
    lines = []
    first = found.attempts[0] if found.attempts else None
    line = found.line or {}
    route, operation = line.get("route") or (first or {}).get("route"), line.get("op") or (first or {}).get("operation")
    if route:
        lines.append(f"{found.id}: {operation} on {route}, {line.get('outcome') or _end(found)}")
    if line.get("reason"):
        score = marked(line) or (marked(first) if first is not None else None)
        lines.append(f"chosen because: {line['reason']}" + (f"; score {score}" if score else ""))
    if line.get("ms") is not None:
        first_token = "no token" if line.get("ttft_ms") is None else f"first token after {line['ttft_ms']} ms"
        lines.append(f"{first_token}, {line['ms']} ms in all")
    cost = sum(row["cost"] for row in found.attempts)
    if first is not None:
        lines.append(f"cost {cost / 1e12:.9f} dollars, key {first['key'] or '(none)'}")
    for one in found.failovers:
        lines.append(
            f"went on from {one['source']} at {one['to']} ({one['why']}): {one['rung']}, seam {one['seam_ms']} ms"
        )
    return [*lines, *found.lines]


def _end(found: Story) -> str:
    return str(found.attempts[-1]["outcome"]) if found.attempts else "under way or unknown"


def marked(one: Mapping[str, Any]) -> str | None:
    """How likely an answer was good enough, and what that had to reach: `98.2% / 97.0%`; `None`: it was not scored."""
    if one.get("score") is None:
        return None
    return f"{one['score']:.1%}" + ("" if one.get("bar") is None else f" / {one['bar']:.1%}")


COLUMNS = ("try", "target", "began ms", *(f"{part} ms" for part in _PARTS), "first ms", "ended ms", "outcome", "in",
           "out", "cost", "score", "resumed")  # fmt: skip


def rows(found: Story) -> list[tuple[Any, ...]]:
    """One row for each try; times in milliseconds since the request was admitted."""
    if not found.attempts:
        return [
            (
                i,
                t["target"],
                t["began_ms"],
                *_PARTS_UNKNOWN,
                t["first_token_ms"],
                t["ended_ms"],
                t["outcome"],
                None,
                None,
                None,
                marked(t),
                t["rung"],
            )
            for i, t in enumerate(found.tries, 1)
        ]
    return [
        (
            row["seq"],
            row["target"],
            row["began_us"] / 1000,
            *(_ms(row[f"{part}_us"]) for part in _PARTS),
            _ms(row["first_us"]),
            row["ended_us"] / 1000,
            row["outcome"],
            row["input"],
            row["output"],
            f"{row['cost'] / 1e12:.9f}",
            marked(row),
            None if row[_RESUMED] is None else f"{row[_RESUMED]} at token {row['resumed_at']}",
        )
        for row in found.attempts
    ]


def _ms(micros: int | None) -> float | None:
    return None if micros is None else micros / 1000
