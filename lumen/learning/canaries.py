"""A canary in motion: conversations get the candidate by a stable hash, its answers are evidence, evidence moves it.

What it decides is carried out by its owner: a promotion is written into the configuration, and everything is noted in
the audit log. Its state is on the disk before a decision is carried out, so that a crash carries it out again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct, to_builtins

from lumen.core.errors import RequestError
from lumen.gateway.planning import PIN_HEADER
from lumen.gateway.settled import Settled
from lumen.gateway.shadow import Job
from lumen.gateway.table import Target, candidate_of
from lumen.gateway.trial import Asked, Plan
from lumen.learning.answers import Answer
from lumen.learning.ceiling import Ceiling
from lumen.learning.judge import Judge
from lumen.learning.pairs import Ground, Pairing, compare, facts_of
from lumen.routing.plan.view import lacking
from lumen.routing.rollout.assign import place
from lumen.routing.rollout.canary import Canary, Change, Status
from lumen.routing.rollout.guards import Observation

# Outcomes that say nothing about a target.
_SILENT = frozenset({"cancelled", "hedged"})


class CanaryPlan(Struct, frozen=True):
    """What an operator asked for beside the steps and guards. `share`: of the answers whose quality is judged.

    `waits`: when the evidence is there it waits for an operator's approval. `before`: the route's targets as the
    configuration had them.
    """

    route: str
    candidate: str
    run: str
    started: float
    budget: int
    before: list[Any]
    share: float = 0.1
    judge: str | None = None
    checker: str | None = None
    texts: bool = False
    waits: bool = False


class Part(Struct, frozen=True):
    """One request's part: `candidate`: it is served by the candidate. `other`: who would have served it else."""

    candidate: bool
    other: str


class Rollout:
    """One canary. `decided`: told of what it came to, on the loop.

    `phase`: running; waiting (for approval); promoting and promoted; rolled_back; stopped.
    """

    def __init__(
        self, plan: CanaryPlan, canary: Canary, judge: Judge, ground: Ground,
        decided: Callable[[Rollout, Change], None], kept: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        kept = kept or {}
        self.plan = plan
        self.canary = canary
        self.judge = judge
        self._ground = ground
        self._decided = decided
        self.ceiling = Ceiling(plan.budget, kept.get("spent", 0))
        self.phase: str = kept.get("phase", "running")
        self.history: list[list[Any]] = kept.get("history", [])
        self.why: str = kept.get("why", "")
        self._target: Target | None = None

    @property
    def percent(self) -> float:
        """Of the conversations that the candidate has now."""
        if self.phase == "waiting":
            # The evidence is there, the word is not: as before the last step.
            return self.canary.plan.steps[-2] if len(self.canary.plan.steps) > 1 else 0.0
        if self.live:
            return self.canary.share
        return 100.0 if self.phase == "promoted" else 0.0

    @property
    def live(self) -> bool:
        """Whether it still has a say in who is asked."""
        return self.phase in ("running", "waiting", "promoting")

    @property
    def judged(self) -> bool:
        """Whether answers are still evidence; while it waits they can only end it."""
        return self.phase in ("running", "waiting")

    def dump(self) -> dict[str, Any]:
        """Everything that must outlive the process."""
        return {
            "plan": to_builtins(self.plan),
            "canary": self.canary.dump(),
            "spent": self.ceiling.dump()["spent"],
            "phase": self.phase,
            "history": self.history,
            "why": self.why,
        }

    def status(self) -> dict[str, Any]:
        """For operators; money in pico-dollars, evidence as natural logarithms."""
        canary = self.canary
        return {
            **to_builtins(self.plan),
            "phase": self.phase,
            "steps": list(canary.plan.steps),
            "step": canary.step,
            "percent": self.percent,
            "answers": canary.answers,
            "in_step": canary.in_step,
            "ratings": canary.ratings,
            "needed": canary.needed(canary.step),
            "guards": {
                name: {"for": canary.wealth(name)[0], "against": canary.wealth(name)[1]} for name in canary.watches
            },
            "reason": canary.reason,
            "why": "the budget is used up" if self.ceiling.exhausted else self.why,
            "spent": self.ceiling.spent,
            "history": self.history,
        }

    def note(self, what: str) -> None:
        """One line of its history, the newest hundred of which are kept."""
        self.history = [*self.history[-99:], [self._ground.now() // 1_000_000, what]]

    # -- a request -------------------------------------------------------------------------------------------

    def steer(self, asked: Asked, plan: Plan, fresh: int) -> tuple[Plan, int, Part | None]:
        """The plan of a request: candidate first for its conversations, last for all others."""
        name = self.plan.candidate
        if PIN_HEADER in asked.headers:
            return plan, fresh, None
        others = [step for step in plan[:fresh] if step[0].name != name]
        if not self.live or not others:
            return plan, fresh, None
        target = self._find(asked)
        facts = facts_of(asked)
        if target is None or lacking(facts, candidate_of(target)) is not None:
            return plan, fresh, None
        late = [step for step in plan[fresh:] if step[0].name != name]
        percent = self.percent
        part = Part(place(self.plan.run, facts.conversation) < percent, others[0][0].name)
        if part.candidate:
            return [(target, f"canary, {percent:g} %"), *others, *late], len(others) + 1, part
        was = [step for step in plan if step[0].name == name]
        return [*others, *was, *late], len(others) + len(was), part

    def over(self, asked: Asked, part: Part, settled: Settled, given: Answer, *, look: bool) -> bool:
        """It is over; whether it is being compared. `look`: its text may be looked at."""
        if not self.judged or not settled.attempts:
            return False
        tried = settled.attempts[0]
        if tried.outcome in _SILENT:
            return False
        wanted = self.plan.candidate if part.candidate else part.other
        failed = tried.target != wanted or tried.outcome != "ok"
        seen = Observation(
            failed=failed,
            ttft=None if failed else settled.first_token if settled.stream else settled.seconds,
            cost=None if failed else given.cost,
            whole=not settled.stream,
        )
        self._changed(self.canary.observe(seen, candidate=part.candidate))
        judge = look and not failed and bool(self.judge.source) and "quality" in self.canary.watches
        compared = judge and self._judged(asked, part, given)
        self._ground.kept.soon()
        return compared

    def rate(self, target: str, quality: float) -> None:
        """Somebody says how good an answer of this target was."""
        if self.judged:
            self._changed(self.canary.rate(quality, candidate=target == self.plan.candidate))
            self._ground.kept.soon()

    def finish(self, phase: str, why: str) -> None:
        """It is over, by the evidence or an operator's word."""
        self.phase = phase
        self.note(why)

    # -- inside ----------------------------------------------------------------------------------------------

    def _find(self, asked: Asked) -> Target | None:
        try:
            return self._ground.dark.target(asked.entry, self.plan.candidate)
        except RequestError as error:
            self.why = str(error)
            return None

    def _judged(self, asked: Asked, part: Part, given: Answer) -> bool:
        plan = self.plan
        if self.ceiling.exhausted or place(f"{plan.run}:q", asked.id.encode()) / 100 >= plan.share:
            return False
        other = part.other if part.candidate else plan.candidate
        pairing = Pairing(
            asked, given, other, "given" if part.candidate else "other", plan.run, "canary", plan.share, plan.texts
        )
        local = self._ground.dark.local(asked.entry, other, plan.judge)
        offered = self._ground.dark.offer(Job(lambda: self._compare(pairing), local))
        if not offered:
            self.why = "answers are not judged while the gateway has better things to do"
        return offered

    async def _compare(self, pairing: Pairing) -> None:
        if not self.judged:
            return
        done = await compare(self._ground, pairing, self.judge, self.ceiling)
        self.why = done.why
        if done.compared is not None and done.compared.quality is not None and self.judged:
            incumbent, candidate = done.compared.quality
            self._changed(self.canary.rate(incumbent, candidate=False))
            if self.judged:
                self._changed(self.canary.rate(candidate, candidate=True))
        self._ground.kept.soon()

    def _changed(self, change: Change | None) -> None:
        if change is None:
            return
        if change.status is Status.RUNNING:
            self.note(f"{change.reason}: {self.canary.share:g} %")
        self._decided(self, change)


def plan_of(kept: dict[str, Any]) -> CanaryPlan:
    """The plan of a canary that was dumped.

    Raises:
        msgspec.ValidationError: this is none.
    """
    return msgspec.convert(kept["plan"], CanaryPlan)
