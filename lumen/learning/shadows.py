"""A shadow: a share of a route's requests is asked of a candidate as well, after their clients have their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct, to_builtins

from lumen.gateway.shadow import Job
from lumen.gateway.trial import Asked
from lumen.learning.answers import Answer
from lumen.learning.ceiling import Ceiling
from lumen.learning.drawing import Strata, first
from lumen.learning.judge import Judge
from lumen.learning.pairs import Ground, Pairing, compare, facts_of
from lumen.routing.rollout.assign import place

if TYPE_CHECKING:
    from lumen.routing.auto.scorer import Scorer


class ShadowPlan(Struct, frozen=True):
    """What an operator asked for. `share`: of the requests, 0 to 1. `budget`: pico-dollars in all. `run`: its name.

    `judge`, `checker`: who says which answer is better. `texts`: both answers may be kept, to read and to learn from.
    `started`: seconds of the wall clock.
    """

    route: str
    candidate: str
    share: float
    budget: int
    run: str
    started: float
    judge: str | None = None
    checker: str | None = None
    texts: bool = False


class Shadow:
    """One shadow in motion. The event loop's own.

    Args:
        strong: the route's strong target now. It is what is asked in the dark where a client was answered by the
            candidate itself: else the requests that the route sends there would never be labelled again.
    """

    def __init__(
        self, plan: ShadowPlan, judge: Judge, ground: Ground, strong: Callable[[], str],
        kept: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        kept = kept or {}
        self._strong = strong
        self.plan = plan
        self.judge = judge
        self._ground = ground
        self.ceiling = Ceiling(plan.budget, kept.get("spent", 0))
        self.strata = Strata(kept["strata"]) if "strata" in kept else Strata()
        # Requests that could have been drawn, those that were, and those that made a pair; why the last one did not.
        self.seen: int = kept.get("seen", 0)
        self.drawn: int = kept.get("drawn", 0)
        self.pairs: int = kept.get("pairs", 0)
        self.why: str = kept.get("why", "")
        # Stopped by the operator: what still waits asks nobody.
        self.stopped = False
        # Why those drawn made no pair, or one that nobody judged: how often.
        self.skipped: dict[str, int] = kept.get("skipped", {})

    def dump(self) -> dict[str, Any]:
        """Everything that must outlive the process."""
        counts = {"seen": self.seen, "drawn": self.drawn, "pairs": self.pairs, "why": self.why, "skipped": self.skipped}
        spent = self.ceiling.dump()["spent"]
        return {"plan": to_builtins(self.plan), "spent": spent, "strata": self.strata.seen, **counts}

    def status(self) -> dict[str, Any]:
        """For operators; money in pico-dollars."""
        ended = "the budget is used up" if self.ceiling.exhausted else ""
        return {
            **to_builtins(self.plan),
            "spent": self.ceiling.spent,
            "held": self.ceiling.held,
            "seen": self.seen,
            "drawn": self.drawn,
            "pairs": self.pairs,
            "skipped": self.skipped,
            "running": not ended,
            "why": ended or self.why,
        }

    def over(self, asked: Asked, given: Answer, scorer: Scorer | None) -> None:
        """A request is over whose text may be looked at: is it drawn?"""
        plan = self.plan
        if self.ceiling.exhausted or not given.ok or given.target == self._other(given):
            return
        self.seen += 1
        chance = first(plan.share) if scorer is not None else plan.share
        if place(f"{plan.run}:1", asked.id.encode()) / 100 >= chance:
            return
        local = self._ground.dark.local(asked.entry, self._other(given), plan.judge)
        job = Job(lambda: self._run(asked, given, scorer), local)
        if not self._ground.dark.offer(job):
            self.why = "the gateway has better things to do"

    async def _run(self, asked: Asked, given: Answer, scorer: Scorer | None) -> None:
        if self.stopped:
            return
        plan, propensity = self.plan, self.plan.share
        if scorer is not None:
            propensity = await self._stratified(asked, scorer)
            if place(f"{plan.run}:2", asked.id.encode()) / 100 >= propensity / first(plan.share):
                return
        self.drawn += 1
        whose = "given" if given.target == plan.candidate else "other"
        pairing = Pairing(asked, given, self._other(given), whose, plan.run, "shadow", propensity, plan.texts)
        done = await compare(self._ground, pairing, self.judge, self.ceiling)
        self.pairs += done.compared is not None
        self.why = done.why
        if done.why:
            self.skipped[done.why] = self.skipped.get(done.why, 0) + 1
        self._ground.kept.soon()

    def _other(self, given: Answer) -> str:
        """Who is asked in the dark."""
        return self.plan.candidate if given.target != self.plan.candidate else self._strong()

    async def _stratified(self, asked: Asked, scorer: Scorer) -> float:
        """The chance of this request: its band of the loss that the scorer expects decides."""
        score = await asyncio.to_thread(lambda: scorer.score(facts_of(asked).ask))
        known = {one.target: one.loss for one in score.targets}
        return self.strata.chance(known.get(self.plan.candidate, 0.0), self.plan.share)


def plan_of(kept: dict[str, Any]) -> ShadowPlan:
    """The plan of a shadow that was dumped.

    Raises:
        msgspec.ValidationError: this is none.
    """
    return msgspec.convert(kept["plan"], ShadowPlan)
