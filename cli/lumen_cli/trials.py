"""What the commands of shadows, canaries and learning share: how they ask the gateway, and how they show it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import typer

from lumen.paths import paths as find_paths
from lumen_cli.client import Admin
from lumen_cli.output import ago, say, table

# Learning may take minutes, the rest does not.
_PATIENCE = 60.0
LEARNING = 960.0

ROUTE = typer.Argument(help="The route, as in the configuration.")
CANDIDATE = typer.Option(..., metavar="MODEL", help="The target to try: a local model or provider/model.")
JUDGE = typer.Option(None, metavar="MODEL", help="A target that says which of two answers is better.")
CHECKER = typer.Option(
    None, metavar="HOW", help="exact, exact:TEXT, regex:PATTERN, schema:FILE or python:FILE[:FUNCTION] rate answers."
)
BUDGET = typer.Option("1usd", metavar="AMOUNT", help="What all of it may cost, judges included.")
TEXTS = typer.Option(False, "--texts", help="Keep the texts of both answers, to read and to learn from.")


def do(what: str, action: str, route: str, timeout: float = _PATIENCE, **options: Any) -> dict[str, Any]:
    """Have the gateway do something with a route; options that were not given are left out."""
    given = {name: value for name, value in options.items() if value is not None}
    body = {"route": route, "action": action, "options": json.dumps(given)}
    found: dict[str, Any] = Admin(find_paths().admin_socket, timeout).post(f"/admin/{what}", body)
    return found


def ask(what: str, route: str = "") -> dict[str, Any]:
    """What the gateway tells about it."""
    path = f"/admin/{what}" + (f"/{quote(route, safe='/')}" if route else "")
    found: dict[str, Any] = Admin(find_paths().admin_socket, _PATIENCE).get(path)
    return found


def checker(written: str | None) -> str | None:
    """A checker with the file it names as the gateway finds it, whose folder is another."""
    if written is None:
        return None
    kind, _, rest = written.partition(":")
    if kind == "schema":
        return f"schema:{Path(rest).expanduser().absolute()}"
    if kind == "python":
        name, again, function = rest.rpartition(":")
        path = Path(name if again else rest).expanduser().absolute()
        return f"python:{path}" + (f":{function}" if again else "")
    return written


def usd(pico: float | None) -> str:
    """An amount in dollars, to the micro-dollar."""
    return "-" if pico is None else f"${pico / 1e12:.6f}"


def percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def seconds(value: float | None) -> str:
    return "-" if value is None else f"{1000 * value:.0f} ms"


def judged(standing: Mapping[str, Any] | None) -> str:
    """How far the judge is trusted, in words."""
    if standing is None:
        return ""
    if standing["trusted"] is None:
        return str(standing["why"])
    agreement = f"agrees with {percent(standing['agreement'])} of {standing['asked']} anchors"
    interval = f"{percent(standing['low'])} to {percent(standing['high'])}"
    return f"{agreement} ({interval})" + (f"; {standing['why']}" if standing["why"] else "")


def canary_row(one: Mapping[str, Any]) -> tuple[str, ...]:
    """A canary in a line: route, candidate, state, share, answers, evidence, for how long."""
    step = f", step {one['step'] + 1} of {len(one['steps'])}" if one["phase"] == "running" else ""
    need = max(one["needed"], math.log(2))
    # How far each guard is on its way to what the next step asks for.
    evidence = [f"{n} {min(max(100 * w['for'] / need, 0), 100):.0f} %" for n, w in one["guards"].items()]
    return (
        one["route"], one["candidate"], one["phase"] + step, f"{one['percent']:g} %", str(one["answers"]),
        ", ".join(evidence), ago(time.time() - one["started"]),
    )  # fmt: skip


def shadow_row(one: Mapping[str, Any]) -> tuple[str, ...]:
    """A shadow in a line: route, candidate, share, pairs, spent, for how long, state, judge."""
    return (
        one["route"],
        one["candidate"],
        percent(one["share"]),
        f"{one['pairs']} of {one['drawn']}",
        f"{usd(one['spent'])} of {usd(one['budget'])}",
        ago(time.time() - one["started"]),
        shadow_state(one),
        judged(one.get("judge_standing")) or one["judge"] or one["checker"] or "-",
    )


def shadow_state(one: Mapping[str, Any]) -> str:
    return ("running" if one["running"] else "ended") + (f" ({one['why']})" if one["why"] else "")


def sides(report: Mapping[str, Any]) -> Sequence[tuple[str, str, str]]:
    """Both sides of a report, a row a figure: its name, the incumbent's, the candidate's."""
    old, new = report["incumbent"], report["candidate"]
    return (
        ("target", ", ".join(old["targets"]) or "-", ", ".join(new["targets"]) or "-"),
        ("answers", str(old["answers"]), str(new["answers"])),
        ("failed", str(old["failed"]), str(new["failed"])),
        ("cost of one", usd(old["cost"]), usd(new["cost"])),
        ("first token", seconds(old["ttft"]), seconds(new["ttft"])),
        ("whole answer", seconds(old["seconds"]), seconds(new["seconds"])),
        ("tokens", _number(old["tokens"]), _number(new["tokens"])),
        ("characters", _number(old["characters"]), _number(new["characters"])),
        ("refusals", percent(old["refusals"]), percent(new["refusals"])),
        ("valid tool calls", _valid(old), _valid(new)),
    )


def verdict(report: Mapping[str, Any]) -> list[str]:
    """What judges and checkers said, in sentences."""
    found = [
        f"Of {report['judged']} judged pairs the candidate was better in {report['better']}, worse in "
        f"{report['worse']}, as good in {report['equal']}."
    ]
    if report["quality_change"] is not None:
        change = 100 * report["quality_change"]
        found.append(f"Over all of the traffic that is a change of quality of {change:+.1f} points.")
    return found


def show_report(told: Mapping[str, Any]) -> None:
    """Both sides of a report, side by side, and the samples there are."""
    table(("", "incumbent", "candidate"), sides(told["report"]))
    say()
    for line in verdict(told["report"]):
        say(line)
    for sample in told.get("samples", ()):
        say()
        say(f"--- asked: {sample['prompt']}")
        say(f"--- incumbent: {sample['incumbent']}")
        say(f"--- candidate: {sample['candidate']}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _valid(side: Mapping[str, Any]) -> str:
    return "-" if not side["tool_calls"] else f"{percent(side['tool_calls_valid'])} of {side['tool_calls']}"
