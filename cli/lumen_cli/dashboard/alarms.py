"""What is wrong, in the order in which an operator wants to hear of it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from lumen_cli.dashboard.words import dollars

# Shares of the requests that fail, and of a budget that is spoken for.
_FAIL_BAD, _FAIL_WARN = 0.05, 0.01
_SPENT_WARN = 0.9
# Starts that failed after which a model that does not answer is more than slow to start.
_RESTARTS = 3
# Times its own history that a target's first token takes.
SLOW = 3.0
# Milliseconds below which nobody minds how many times slower it is.
NOTICED = 200.0


class Alarm(NamedTuple):
    """`bad`: requests suffer or will; `warn`: somebody should know."""

    level: Literal["bad", "warn"]
    text: str


def alarms(frame: Mapping[str, Any], errors: float, lost: str | None) -> list[Alarm]:
    """Everything wrong, what is bad before what is to be watched.

    Args:
        errors: share of all requests of the last minute that failed.
        lost: why there is no connection.
    """
    # Before the first frame nothing is lost yet.
    found = [Alarm("bad" if frame else "warn", lost)] if lost else []
    found += _money(frame.get("money") or {})
    found += _models(frame)
    found += _targets(frame)
    if errors > _FAIL_WARN:
        found.append(Alarm("bad" if errors > _FAIL_BAD else "warn", f"{errors:.0%} of the requests fail"))
    for one in (frame.get("trials") or {}).get("canaries", ()):
        if one["phase"] == "rolled_back":
            found.append(Alarm("warn", f"the canary on {one['route']} was rolled back"))
        if one["phase"] == "waiting":
            found.append(Alarm("warn", f"the canary on {one['route']} waits for your approval"))
    if frame.get("draining"):
        found.append(Alarm("warn", "the gateway is shutting down"))
    return sorted(found, key=lambda alarm: alarm.level)


def slowness(target: Mapping[str, Any]) -> float | None:
    """How many times its usual first token a target takes now; `None` while too little is known."""
    now, history = target.get("usual_first_token_ms"), (target.get("first_token_ms") or {}).get("p50")
    return now / history if now is not None and history else None


def _money(money: Mapping[str, Any]) -> Iterator[Alarm]:
    if why := (money.get("ledger") or {}).get("why"):
        yield Alarm("bad", f"the ledger is in trouble, paid requests are refused: {why}")
    for one in money.get("budgets", ()):
        name = f"{one['scope']} {one['name']}".strip()
        share = (one["spent"] + one["held"]) / one["cap"] if one["cap"] else 1.0
        if share >= 1.0:
            yield Alarm("bad", f"the {one['limit']} budget of {name} is used up ({dollars(one['cap'])})")
        elif share >= _SPENT_WARN:
            yield Alarm("warn", f"{share:.0%} of the {one['limit']} budget of {name} is spent")


def _models(frame: Mapping[str, Any]) -> Iterator[Alarm]:
    for model in frame.get("models", ()):
        if model.get("missing"):
            yield Alarm("bad", f"{model['name']}: {model['missing']}")
        for one in model.get("replicas") or ():
            if one["state"] == "crashed":
                why = f": {one['why']}" if one.get("why") else ""
                yield Alarm("warn" if model.get("ready") else "bad", f"{model['name']} #{one['index']} crashed{why}")
            elif one["restarts"] >= _RESTARTS and not model.get("ready"):
                yield Alarm(
                    "bad", f"{model['name']} #{one['index']} restarted {one['restarts']} times and is not ready"
                )


def _targets(frame: Mapping[str, Any]) -> Iterator[Alarm]:
    targets = frame.get("targets", ())
    out = [one for one in targets if one["state"] == "open"]
    if out:
        why = f" ({out[0]['why']})" if len(out) == 1 and out[0]["why"] else ""
        yield Alarm("bad", f"out: {', '.join(one['name'] for one in out)}{why}")
    for state, told in (("half_open", "on trial again"), ("ejected", "ejected"), ("drained", "drained")):
        names = [one["name"] for one in targets if one["state"] == state]
        if names:
            yield Alarm("warn", f"{told}: {', '.join(names)}")
    for one in targets:
        times = slowness(one)
        if times is not None and times >= SLOW and one["usual_first_token_ms"] >= NOTICED:
            yield Alarm("warn", f"{one['name']} is {times:.1f}× slower than it was")
