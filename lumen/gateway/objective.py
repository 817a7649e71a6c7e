"""The wanted time to the first token of a route: which targets of a plan may be asked for it."""

from __future__ import annotations

import math
from collections.abc import Callable

from lumen.core.budget import unsatisfiable
from lumen.gateway.health import Health
from lumen.gateway.table import Entry, Target

Plan = list[tuple[Target, str]]


def punctual(health: Health, entry: Entry, plan: Plan, now: float, *, stream: bool) -> tuple[Plan, int]:
    """The plan with those first that can meet the route's objective, and how many they are.

    The others are asked for nothing that has yet to begin; with an answer that broke off they may go on. Of a whole
    answer nobody sees a first token: it goes to those that are quick, and to any where none is.

    Args:
        now: the loop's time.

    Raises:
        LumenError: 400 `budget_unsatisfiable`, with what would have been needed.
    """
    if entry.ttft is None:
        return plan, len(plan)
    names = [target.name for target, _ in plan]
    places = health.within(names, entry.ttft, now)
    if len(places) == len(plan) or not (places or stream):
        return plan, len(plan)
    if not places:
        raise _too_slow(entry, [usual for name in names if (usual := health.usual(name)) is not None])
    left_out = [step for place, step in enumerate(plan) if place not in places]
    return [plan[place] for place in places] + left_out, len(places)


def covered(entry: Entry, plan: Plan, wakes: Callable[[str], float]) -> bool:
    """Whether the others answer while a local model of the plan wakes: where the route says so, and where its first
    token is wanted before the model would be there. `wakes`: seconds until it would, 0 where it is or nobody knows.
    """
    if entry.ttft is None or entry.cover:
        return entry.cover
    return any(target.can.local and wakes(target.name) > entry.ttft for target, _ in plan)


def _too_slow(entry: Entry, usual: list[float]) -> Exception:
    quickest = math.ceil(min(usual) * 1000)
    return unsatisfiable(
        f"No target of '{entry.name}' gives its first token within {_shown(entry.ttft or 0.0)}; the quickest usually "
        f"takes {quickest} ms and needs a limit of {quickest}ms or more."
    )


def _shown(seconds: float) -> str:
    return f"{seconds * 1000:g} ms"
