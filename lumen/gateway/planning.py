"""Which targets a request is to be tried at, in what order, and why: pins, rules, the route's policy, its objectives.

What the process knows for that is in `planner.py`. A route whose policy asks for none of it pays for none of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from lumen.core.errors import RequestError
from lumen.gateway.objective import Plan, punctual
from lumen.gateway.tab import UNMARKED, Marks
from lumen.routing.base import Candidate, Step, View
from lumen.routing.plan.explain import DEAR, UNPRICED, explained
from lumen.routing.plan.rules import ruled
from lumen.wire.requests import ChatRequest, Message, Plain

if TYPE_CHECKING:
    from lumen.gateway.state import State
    from lumen.gateway.table import Entry
    from lumen.keys import Key
    from lumen.wire.call import Call

PIN_HEADER = "x-lumen-pin"


def plan(
    state: State, entry: Entry, call: Call, request_id: str, key: Key | None, size: int, headers: Mapping[str, str],
    now: float,
) -> tuple[Plan, int, Marks]:  # fmt: skip
    """The targets in the order to try them, each with its reason, how many may be asked for a new answer, and marks.

    Args:
        size: bytes of the body. headers: the client's. now: the loop's time.

    Raises:
        RequestError: 400: it is pinned to what is no target of the route.
        LumenError: 400 `budget_unsatisfiable`: no target meets the route's objective.
    """
    pin = headers.get(PIN_HEADER)
    if pin is not None:
        return *punctual(state.health, entry, pinned(entry, pin), now, stream=call.stream), UNMARKED
    view = View(entry.goal, state.planner, state.draw.random, (call, size, key.name if key else "", headers))
    steps = decided(entry, view, call, size)
    targets = entry.targets
    marks = {targets[one.key].name: (one.score, one.bar) for one in steps if one.score is not None} or UNMARKED
    told = [(targets[step.key], step.reason) for step in steps]
    made, fresh = punctual(state.health, entry, told, now, stream=call.stream)
    if entry.remembers and len(steps) > 1:
        state.planner.opened(request_id, view.thread)
    return made, fresh, marks


def decided(entry: Entry, view: View, call: Call, size: int) -> list[Step]:
    """What rules and policy make of a request, of the targets that can serve it."""
    candidates: Sequence[Candidate] = entry.within
    if len(candidates) > 1 and tight(entry, call, size):
        able = [c for c in candidates if view.lacks(c) is None]
        candidates = able or candidates
    steps = entry.order(candidates, view)
    return ruled(steps, view) if view.goal.rules else steps


def tight(entry: Entry, call: Call, size: int) -> bool:
    """Whether some target may be unable to serve this request. Cheap: most requests of most routes suit every target.

    `size`: bytes of the body, of which no target makes more tokens.
    """
    request = call.request
    if isinstance(request, Plain):
        return entry.least_context is not None and size > entry.least_context
    most = request.max_tokens or 0
    if isinstance(request, ChatRequest):
        most = request.max_completion_tokens or most
        if entry.unable and (request.tools or request.response_format or any(map(_in_parts, request.messages))):
            return True
    return entry.least_context is not None and size + most > entry.least_context


def _in_parts(message: Message) -> bool:
    return isinstance(message.content, list)


def pinned(entry: Entry, pin: str) -> Plan:
    """The one target that the client insists on.

    Raises:
        RequestError: 400: the route has no such target.
    """
    for target in entry.targets:
        if target.name == pin:
            return [(target, "pinned by the client")]
    raise RequestError(f"'{pin[:128]}' is no target of '{entry.name}'.", param=PIN_HEADER, code="invalid_pin")


def explain(
    state: State, entry: Entry, call: Call, size: int, headers: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Any]:
    """How a request would be planned now, and why; see `routing/plan/explain.py`.

    Raises:
        RequestError: 400: it is pinned to what is no target of the route.
        LumenError: 400 `budget_unsatisfiable`: no target may be asked.
    """
    view = View(entry.goal, state.planner, state.draw.random, (call, size, "", headers))
    left_out = {c.name: DEAR for c in entry.candidates if c not in entry.within}
    pin = headers.get(PIN_HEADER)
    if pin is not None:
        ((_, why),) = pinned(entry, pin)
        left_out = {c.name: "another target is pinned" for c in entry.candidates if c.name != pin}
        steps = [Step(c.key, why) for c in entry.candidates if c.name == pin]
    else:
        steps = decided(entry, view, call, size)
    offers = {step.key: entry.targets[step.key].offer for step in steps}
    usable = state.billing.usable(entry.account, list(offers.values()))
    left_out |= {entry.targets[key].name: UNPRICED for key, offer in offers.items() if offer not in usable}
    steps = [step for step in steps if offers[step.key] in usable]
    if entry.ttft is not None:
        late = {c.key: c.name for c in entry.candidates if state.health.late(c.name, entry.ttft)}
        left_out |= dict.fromkeys(late.values(), "its first token usually comes later than is wanted")
        # As `punctual` has it; among those that are all late the order says who comes next to it.
        steps = sorted(steps, key=lambda step: step.key in late)
    return explained(entry.candidates, view, steps, entry.policy, left_out) | {"route": entry.name}


def reason(plan: Plan, tried: Sequence[Any]) -> str:
    """Why the target that answered was asked, fit for a header."""
    text = tried[-1].reason if tried else plan[0][1] if plan else ""
    return str(text) if text.isascii() and text.isprintable() else text.encode("ascii", "replace").decode()
