"""What windows over the screen say: one request, target, trial or the keys, line by line. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lumen_cli import trials as tried
from lumen_cli.dashboard.alarms import slowness
from lumen_cli.dashboard.rows import score, tokens
from lumen_cli.dashboard.words import clock, ms
from lumen_cli.output import ago

KEYS = """\
1 to 7   the panes; arrows or mouse move, Enter or a second click opens:
         of a request or failover the trace, of a target all figures,
         of a trial both sides, of a replica its log
/        filter the requests by words, Esc leaves the filter
f        follow the newest request, or stay where you are
c        end the chosen request
e r d    eject, restore, drain the chosen target
s w R    have the chosen model sleep, wake, restart
l        the log of the chosen replica
a b      approve the chosen canary, or roll it back
y        copy the id or name of the chosen row
t        light or dark
Ctrl+P   every command by name
q        leave; nothing here stops the gateway"""

_WIDE = 40


def request(told: Mapping[str, Any], failovers: Sequence[Mapping[str, Any]] = ()) -> list[str]:
    """A request with its time parts, its tries on one scale, and each seam. `failovers`: those of this request."""
    cost = f", ${told['cost'] / 1e12:.9f}" if "cost" in told else ""
    outcome = told.get("outcome") or "under way"
    took = told.get("ms", told.get("age_ms", 0))
    first = told.get("ttft_ms")
    lines = [
        str(told["id"]),
        f"{told['op']} on {told['route']}, key {told.get('key') or '-'}"
        + (f", {clock(told['at'])}" if "at" in told else ""),
        f"{outcome} after {ms(took)}{'' if first is None else f', first token {ms(first)}'}, {tokens(told)}{cost}",
    ]
    for one in failovers:
        seam = "" if one["seam_ms"] is None else f", seam {one['seam_ms']:.0f} ms"
        lines.append(f"{one['source']} → {one['to']} ({one['why']}): {one['rung']} at {one['position']}{seam}")
        lines.append(f"the client saw: {one['client']}")
    parts = told.get("parts_ms") or {}
    if parts:
        whole = max(sum(parts.values()), 0.001)
        lines += ["", "time to the first token"]
        lines += [f"  {name:<9}{ms(value):>9}  {_span(0, value, whole)}".rstrip() for name, value in parts.items()]
    lines.append("")
    for number, one in enumerate(told["tries"], start=1):
        end = one["ended_ms"] if one["ended_ms"] is not None else took
        at = f" at {one['position']}" if one["rung"] else ""
        marked = f", score {score(one)}" if one.get("score") is not None else ""
        lines.append(f"{number}. {one['target']}: {one['outcome'] or 'under way'} ({one['reason']}{at}{marked})")
        lines.append(f"   {_span(one['began_ms'], end, max(took, 0.001))}")
        first = f", first token {ms(one['first_token_ms'])}" if one["first_token_ms"] is not None else ""
        lines.append(f"   began {ms(one['began_ms'])}{first}, ended {ms(one['ended_ms'])}")
    return lines


def _span(begin: float, end: float, whole: float) -> str:
    """From `begin` to `end` on a line that is as long as the `whole`."""
    left = round(begin / whole * _WIDE)
    return "·" * left + "█" * max(round(end / whole * _WIDE) - left, 1 if end > begin else 0)


def target(one: Mapping[str, Any], at: float) -> list[str]:
    """Everything known of a target. `at`: when the frame was made."""
    since = f" for {ago(at - one['since'])}" if one.get("since") else ""
    until = f", tried again in {ago(one['until'] - at)}" if (one.get("until") or 0) > at else ""
    lines = [one["name"], f"{one['state']}{since}{until}", *([one["why"]] if one["why"] else []), ""]
    lines.append(f"{one['in_flight']} in flight, {one['share']:.0%} of the traffic, {one['error_rate']:.0%} errors")
    times = slowness(one)
    if one.get("usual_first_token_ms") is not None:
        against = "" if times is None else f", {times:.1f} times its history"
        lines.append(f"first token now {ms(one['usual_first_token_ms'])}{against}")
    lines += ["", f"{'history':<20}{'p50':>10}{'p95':>10}{'p99':>10}"]
    for name, key in (("first token", "first_token_ms"), ("longest gap", "gap_ms"), ("a token", "per_token_ms")):
        found = one.get(key) or {}
        lines.append(f"{name:<20}" + "".join(f"{ms(found.get(share)):>10}" for share in ("p50", "p95", "p99")))
    return lines


def sides(told: Mapping[str, Any]) -> list[str]:
    """A trial's report: incumbent and candidate side by side, and the verdict."""
    lines = [("", "incumbent", "candidate"), *tried.sides(told["report"])]
    widths = [max(len(line[at]) for line in lines) for at in range(3)]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return [f"{told['candidate']} on {told['route']}", "", *shown, "", *tried.verdict(told["report"])]
