"""What plans are made from: where conversations were last, how long answers are, which scorers are in force.

Bounded; the event loop's own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from lumen.gateway.settled import Settled
from lumen.routing.plan.view import Past

if TYPE_CHECKING:
    from lumen.gateway.health import Health
    from lumen.routing.auto.scorer import Scorer

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
        self._past: OrderedDict[int, tuple[Past, float]] = OrderedDict()
        # The conversations of requests under way.
        self._open: dict[str, int] = {}
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

    def past(self, thread: int) -> Past | None:
        """See `Known`."""
        found = self._past.get(thread)
        return found[0] if found is not None and self._now() - found[1] <= CACHED else None

    def scorer(self, route: str) -> tuple[Scorer | None, str]:
        """See `Known`."""
        return self._scorers.get(route, (None, _NO_SCORER))

    # -- what others tell ------------------------------------------------------------------------------------

    def learn(self, scorers: Mapping[str, tuple[Scorer | None, str]]) -> None:
        """Put scorers in force: route → one, or why there is none."""
        self._scorers = scorers

    def opened(self, request_id: str, thread: int) -> None:
        """A request whose conversation is to be remembered was planned."""
        self._open[request_id] = thread

    def add(self, settled: Settled) -> None:
        """A request is over: where its conversation was answered, and at what length."""
        thread = self._open.pop(settled.id, None)
        if thread is None or settled.outcome != "ok":
            return
        usage, target = settled.usage, settled.target
        told = usage is not None and usage.completion_tokens
        if told and (target in self._answers or len(self._answers) < _MOST_TARGETS):
            before = self._answers.get(target, float(told))
            self._answers[target] = before + (told - before) * _NEWEST
        before_it = self._past.get(thread)
        since = before_it[0].since + 1 if before_it is not None and before_it[0].target == target else 1
        tokens = ((usage.prompt_tokens or 0) + (usage.completion_tokens or 0)) if usage is not None else 0
        self._past[thread] = (Past(target, tokens, since), self._now())
        self._past.move_to_end(thread)
        if len(self._past) > REMEMBERED:
            self._past.popitem(last=False)
