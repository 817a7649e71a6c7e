"""All that is tried on one route: a shadow, a canary, and what is remembered so that feedback can be learnt from."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from lumen.gateway.attempt import Journey
from lumen.gateway.settled import Settled
from lumen.gateway.trial import Asked, Plan, Try
from lumen.keys import Key
from lumen.learning.canaries import Part, Rollout
from lumen.learning.pairs import answered, facts_of
from lumen.learning.shadows import Shadow
from lumen.routing.auto.ask import Ask
from lumen.wire.requests import Plain

if TYPE_CHECKING:
    from lumen.routing.auto.scorer import Scorer

# Requests of a route that feedback can still be given to with what they asked.
REMEMBERED = 1_000


class Remembered(Struct, frozen=True):
    """A request that is over. `key`: the id of its key, empty without one."""

    key: str
    route: str
    target: str
    ask: Ask


class RouteTrial:
    """One route's. The event loop's own.

    Args:
        retains: whether anything may be kept of what a request of this route says, by its key.
        scorer: the scorer in force for the route.
    """

    def __init__(
        self, route: str, retains: Callable[[str, Key | None], bool], scorer: Callable[[str], Scorer | None]
    ) -> None:
        self.route = route
        self.shadow: Shadow | None = None
        self.canary: Rollout | None = None
        # Whether it learns, and so remembers what was asked also where nothing else is tried.
        self.learns = False
        self._retains = retains
        self._scorer = scorer
        self._past: OrderedDict[str, Remembered] = OrderedDict()

    @property
    def idle(self) -> bool:
        """Whether nothing is tried at all."""
        live = self.canary is not None and self.canary.live
        return not (live or self.learns or self.shadow is not None)

    def begin(self, asked: Asked) -> Try | None:
        """See `Trial`."""
        if isinstance(asked.call.request, Plain):
            return None
        return _Try(self, asked)

    def past(self, request_id: str) -> Remembered | None:
        """What is remembered of a request."""
        return self._past.get(request_id)

    def steer(self, asked: Asked, plan: Plan, fresh: int) -> tuple[Plan, int, Part | None]:
        """See `Rollout.steer`."""
        return self.canary.steer(asked, plan, fresh) if self.canary is not None else (plan, fresh, None)

    def over(self, asked: Asked, part: Part | None, settled: Settled, journey: Journey, whole: bytes) -> None:
        """After its client has its answer, in a turn of the loop of its own."""
        if not settled.attempts:
            return
        given, trace = answered(asked, settled, journey, whole), journey.trace
        look = self._retains(self.route, asked.key)
        # What a stream said beside its text is only kept where it may have to be checked against a repetition.
        known = bool(whole) or not trace.actionable or bool(trace.parts)
        compared = False
        if self.canary is not None and part is not None:
            compared = self.canary.over(asked, part, settled, given, look=look and known)
        if not look or settled.outcome != "ok":
            return
        key = asked.key.id if asked.key else ""
        self._past[asked.id] = Remembered(key, self.route, settled.target, _short(facts_of(asked).ask))
        if len(self._past) > REMEMBERED:
            self._past.popitem(last=False)
        # Of a request one pair and one label are kept; which are compared for the canary is chance.
        if self.shadow is not None and known and not compared and (part is None or not part.candidate):
            self.shadow.over(asked, given, self._scorer(self.route))


class _Try:
    """See `gateway.trial.Try`."""

    __slots__ = ("_asked", "_part", "_trial")

    def __init__(self, trial: RouteTrial, asked: Asked) -> None:
        self._trial = trial
        self._asked = asked
        self._part: Part | None = None

    def steer(self, plan: Plan, fresh: int) -> tuple[Plan, int]:
        plan, fresh, self._part = self._trial.steer(self._asked, plan, fresh)
        return plan, fresh

    def over(self, settled: Settled, journey: Journey, whole: bytes) -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(self._trial.over, self._asked, self._part, settled, journey, whole)


def _short(ask: Ask) -> Ask:
    """As much of it as a scorer reads."""
    return Ask(
        ask.shown(), ask.system[:16_384], ask.context[-2_048:], ask.turns, ask.tools, ask.images, ask.structured,
        ask.limit, ask.tags,
    )  # fmt: skip
