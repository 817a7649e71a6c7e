"""Which targets a request is to be tried at, in what order, and why: pins, rules, the route's policy, its objectives.

`Planner` is what the process knows for that: where conversations were last, how long answers are, which scorers are in
force. Bounded; the event loop's own. A route whose policy asks for none of it pays for none of it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lumen.core.errors import RequestError
from lumen.gateway.attempt import UNMARKED, Marks
from lumen.gateway.objective import Plan, punctual
from lumen.gateway.settled import Settled
from lumen.routing.base import Candidate, Step, View
from lumen.routing.plan.explain import explained
from lumen.routing.plan.rules import ruled
from lumen.routing.plan.view import Past
from lumen.wire.requests import ChatRequest, Message, Plain

if TYPE_CHECKING:
    from lumen.gateway.health import Health
    from lumen.gateway.state import State
    from lumen.gateway.table import Entry
    from lumen.keys import Key
    from lumen.routing.auto.scorer import Scorer
    from lumen.wire.call import Call

PIN_HEADER = "x-lumen-pin"
REMEMBERED = 8192
# Seconds after which vendors have forgotten a cached beginning.
CACHED = 300.0
_NO_SCORER = "nothing is learnt yet"
# How much one more answer counts in the mean length of a target's answers.
_NEWEST = 0.05
_MOST_TARGETS = 2048


class Planner:
    """What plans are made from, and an observer of what came of them. `now`: the loop's time.

    `wakes`: seconds until a local model that sleeps or is off would serve.
    """

    def __init__(
        self, health: Health, now: Callable[[], float], wakes: Callable[[str], float] = lambda name: 0.0
    ) -> None:
        self._health = health
        self._now = now
        self.wakes = wakes
        self._scorers: Mapping[str, tuple[Scorer | None, str]] = {}
        self._past: OrderedDict[bytes, tuple[Past, float]] = OrderedDict()
        # The conversations of requests under way.
        self._open: dict[str, bytes] = {}
        self._answers: dict[str, float] = {}

    # -- what a view asks ------------------------------------------------------------------------------------

    def out(self, names: Sequence[str]) -> Mapping[str, str]:
        """See `Known`."""
        return {name: one.why or one.state.value for name, one in self._health.out(names, self._now()).items()}

    def first_token(self, name: str) -> float | None:
        """See `Known`."""
        return self._health.usual(name)

    def per_token(self, name: str) -> float | None:
        """See `Known`."""
        return self._health.usual_token(name)

    def answer(self, name: str) -> float | None:
        """See `Known`."""
        return self._answers.get(name)

    def past(self, conversation: bytes) -> Past | None:
        """See `Known`."""
        found = self._past.get(conversation)
        return found[0] if found is not None and self._now() - found[1] <= CACHED else None

    def scorer(self, route: str) -> tuple[Scorer | None, str]:
        """See `Known`."""
        return self._scorers.get(route, (None, _NO_SCORER))

    # -- what others tell ------------------------------------------------------------------------------------

    def learn(self, scorers: Mapping[str, tuple[Scorer | None, str]]) -> None:
        """Put scorers in force: route → one, or why there is none."""
        self._scorers = scorers

    def opened(self, request_id: str, conversation: bytes) -> None:
        """A request whose conversation is to be remembered was planned."""
        self._open[request_id] = conversation

    def add(self, settled: Settled) -> None:
        """A request is over: where its conversation was answered, and at what length."""
        conversation = self._open.pop(settled.id, None)
        if conversation is None or settled.outcome != "ok":
            return
        usage, target = settled.usage, settled.target
        told = usage is not None and usage.completion_tokens
        if told and (target in self._answers or len(self._answers) < _MOST_TARGETS):
            before = self._answers.get(target, float(told))
            self._answers[target] = before + (told - before) * _NEWEST
        before_it = self._past.get(conversation)
        since = before_it[0].since + 1 if before_it is not None and before_it[0].target == target else 1
        tokens = ((usage.prompt_tokens or 0) + (usage.completion_tokens or 0)) if usage is not None else 0
        self._past[conversation] = (Past(target, tokens, since), self._now())
        self._past.move_to_end(conversation)
        if len(self._past) > REMEMBERED:
            self._past.popitem(last=False)


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
    if entry.remembers and len(steps) > 1:
        state.planner.opened(request_id, view.conversation)
    targets = entry.targets
    marks = {targets[one.key].name: (one.score, one.bar) for one in steps if one.score is not None} or UNMARKED
    told = [(targets[step.key], step.reason) for step in steps]
    return *punctual(state.health, entry, told, now, stream=call.stream), marks


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


def explain(state: State, entry: Entry, call: Call, size: int) -> dict[str, Any]:
    """How a request would be planned now, and why; see `routing/plan/explain.py`."""
    view = View(entry.goal, state.planner, state.draw.random, (call, size, "", {}))
    steps = decided(entry, view, call, size)
    left_out = {c.name: "a token of it costs more than is allowed" for c in entry.candidates if c not in entry.within}
    if entry.ttft is not None:
        late = [c.name for c in entry.candidates if state.health.late(c.name, entry.ttft)]
        left_out |= dict.fromkeys(late, "its first token usually comes later than is wanted")
    return explained(entry.candidates, view, steps, entry.policy, left_out)


def reason(plan: Plan, tried: Sequence[Any]) -> str:
    """Why the target that answered was asked, fit for a header."""
    text = tried[-1].reason if tried else plan[0][1] if plan else ""
    return str(text) if text.isascii() and text.isprintable() else text.encode("ascii", "replace").decode()
