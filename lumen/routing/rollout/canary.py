"""A rollout: steps of traffic, guarded at every step, promoted or rolled back by itself. Pure; it holds no clock.

The chance that a candidate which is worse by the margin of any guard is ever promoted is at most `Plan.error`, and the
chance that one which is no worse by half the margin is ever rolled back is at most `Plan.false_alarm`, over all looks
and all guards together (`evidence.py` says why). Steps before the last ask for less evidence, in equal parts of its
logarithm, because they put less traffic at risk.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from lumen.routing.rollout.evidence import Evidence
from lumen.routing.rollout.guards import GUARDS, Margins, Observation, Reading

# Answers of one side that wait for one of the other.
_WAITING = 256
# Observations of the incumbent's cost before it is known well enough to measure by.
_COST_SEEN = 8


class Status(StrEnum):
    RUNNING = "running"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"


@dataclass(frozen=True, slots=True)
class Plan:
    """How a rollout goes. `steps`: percent of the traffic, rising, the last one 100.

    `dwell`: answers of the candidate that a step needs before the next. `most`: answers of the candidate after which
    a rollout that still has not convinced is rolled back.
    """

    steps: tuple[float, ...] = (1, 5, 25, 50, 100)
    guards: tuple[str, ...] = ("quality", "ttft", "cost", "errors")
    margins: Margins = field(default_factory=Margins)
    error: float = 0.05
    false_alarm: float = 0.05
    dwell: int = 20
    most: int = 20_000

    def problems(self) -> str | None:
        """What is wrong with it, in words for the operator; `None` where nothing is."""
        if (
            not self.steps
            or self.steps[-1] != 100
            or not all(a < b for a, b in zip(self.steps, self.steps[1:], strict=False))
        ):
            return "the steps must rise and end at 100, such as 1,5,25,50,100"
        if self.steps[0] <= 0:
            return "the first step must be more than 0 percent"
        unknown = [name for name in self.guards if name not in GUARDS]
        if unknown or not self.guards:
            return f"the guards are {', '.join(GUARDS)}"
        return None


@dataclass(slots=True)
class Watch:
    """One guard's evidence: for promotion, and for rollback."""

    better: Evidence
    worse: Evidence


@dataclass(frozen=True, slots=True)
class Change:
    """What an observation brought about: the new status, the step that now holds, and why."""

    status: Status
    step: int
    reason: str


class Canary:
    """One rollout. Feed it every finished answer of both sides; it says when something changes."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.status = Status.RUNNING
        self.step = 0
        # It has convinced, and waits for an operator's word.
        self.held = False
        self.reason = f"started at {plan.steps[0]:g} %"
        # Answers of the candidate: in all, and in this step.
        self.answers = 0
        self.in_step = 0
        self.watches = {name: self._watch(name) for name in plan.guards}
        self._costs = (0, 0.0)
        self._candidates: deque[Observation] = deque(maxlen=_WAITING)
        self._incumbents: deque[Observation] = deque(maxlen=_WAITING)
        # Pairs of answers whose quality was found out later; and such qualities without a partner yet.
        self.ratings = 0
        self._rated: deque[float] = deque(maxlen=_WAITING)
        self._rated_before: deque[float] = deque(maxlen=_WAITING)

    @property
    def share(self) -> float:
        """Percent of the traffic that the candidate gets now."""
        if self.status is Status.RUNNING:
            # The last step is the promotion itself; until then something is left to compare with.
            return self.plan.steps[self.step]
        return 100.0 if self.status is Status.PROMOTED else 0.0

    def observe(self, observation: Observation, *, candidate: bool) -> Change | None:
        """Take in one answer; what changed by it, if anything did. Nothing changes after the end."""
        if self.status is not Status.RUNNING:
            return None
        if candidate:
            self.answers += 1
            self.in_step += 1
            self._candidates.append(observation)
        else:
            self._learn_cost(observation)
            self._incumbents.append(observation)
        if self._candidates and self._incumbents:
            self._pair(self._candidates.popleft(), self._incumbents.popleft())
            return self._decide()
        if self.answers >= self.plan.most and not self.held:
            return self.end(Status.ROLLED_BACK, f"nothing to compare with after {self.answers} answers")
        return None

    def rate(self, quality: float, *, candidate: bool) -> Change | None:
        """Take in what was found out later about the quality (0 to 1) of an answer that `observe` has had without it.

        It moves the quality guard alone: the answer itself was counted when it came.
        """
        if self.status is not Status.RUNNING or "quality" not in self.watches:
            return None
        (self._rated if candidate else self._rated_before).append(quality)
        if not (self._rated and self._rated_before):
            return None
        pair = Observation(quality=self._rated.popleft()), Observation(quality=self._rated_before.popleft())
        reading = GUARDS["quality"].read(*pair, self.plan.margins, None)
        assert reading is not None
        self.ratings += 1
        self._take("quality", reading)
        return self._decide()

    def wealth(self, guard: str) -> tuple[float, float]:
        """Logarithms of the evidence for promotion and for rollback by one guard."""
        watch = self.watches[guard]
        return watch.better.log_wealth, watch.worse.log_wealth

    def needed(self, step: int) -> float:
        """Logarithm of the evidence that every guard must have to leave `step`."""
        return -math.log(self.plan.error) * (step + 1) / max(len(self.plan.steps) - 1, 1)

    def end(self, status: Status, reason: str) -> Change:
        """Promote or roll back, on an operator's word or on the evidence."""
        self.status, self.reason = status, reason
        if status is Status.PROMOTED:
            self.step = len(self.plan.steps) - 1
        return Change(status, self.step, reason)

    def hold(self) -> None:
        """Go on after the evidence was enough to promote it, until an operator says so: it can only be rolled back now.

        The evidence for that begins anew, so that what was good for long can be bad soon; the chance of a false alarm
        while it waits is at most `Plan.false_alarm` once more.
        """
        self.status, self.held = Status.RUNNING, True
        for name, watch in self.watches.items():
            watch.worse = self._watch(name).worse

    # -- deciding ----------------------------------------------------------------------------------------

    def _decide(self) -> Change | None:
        alarm = -math.log(self.plan.false_alarm / len(self.watches))
        for name, watch in self.watches.items():
            if watch.worse.log_wealth >= alarm:
                return self.end(Status.ROLLED_BACK, f"{name}: worse than the incumbent")
        if self.held:
            return None
        if self.answers >= self.plan.most:
            return self.end(Status.ROLLED_BACK, f"not convincing after {self.answers} answers")
        if self.in_step < self.plan.dwell:
            return None
        least, name = min((watch.better.log_wealth, name) for name, watch in self.watches.items())
        if least < self.needed(self.step):
            return None
        self.step += 1
        self.in_step = 0
        if self.step >= len(self.plan.steps) - 1:
            return self.end(Status.PROMOTED, f"no worse than the incumbent; weakest evidence: {name}")
        self.reason = f"step {self.step + 1} of {len(self.plan.steps)}; weakest evidence: {name}"
        return Change(self.status, self.step, self.reason)

    def _pair(self, candidate: Observation, incumbent: Observation) -> None:
        seen, total = self._costs
        scale = total / seen if seen >= _COST_SEEN else None
        for name in self.watches:
            reading = GUARDS[name].read(candidate, incumbent, self.plan.margins, scale)
            if reading is not None:
                self._take(name, reading)

    def _take(self, guard: str, reading: Reading) -> None:
        watch = self.watches[guard]
        watch.better.add(reading.better)
        watch.worse.add(reading.worse)

    def _learn_cost(self, observation: Observation) -> None:
        if observation.cost is not None:
            seen, total = self._costs
            self._costs = seen + 1, total + observation.cost

    def _watch(self, name: str) -> Watch:
        edge = GUARDS[name].edge(self.plan.margins)
        return Watch(Evidence(edge), Evidence(edge))

    # -- keeping -----------------------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """Everything that must outlive a restart, as plain values. Answers that wait for a partner are not kept."""
        return {
            "plan": asdict(self.plan),
            "status": self.status.value,
            "step": self.step,
            "held": self.held,
            "reason": self.reason,
            "answers": self.answers,
            "in_step": self.in_step,
            "ratings": self.ratings,
            "costs": list(self._costs),
            "watches": {name: asdict(watch) for name, watch in self.watches.items()},
        }

    @classmethod
    def load(cls, kept: dict[str, Any]) -> Canary:
        """The rollout that was dumped.

        Raises:
            ValueError, KeyError, TypeError: this is none.
        """
        given = dict(kept["plan"])
        given["margins"] = Margins(**given["margins"])
        given["steps"], given["guards"] = tuple(given["steps"]), tuple(given["guards"])
        made = cls(Plan(**given))
        made.status, made.step, made.reason = Status(kept["status"]), kept["step"], kept["reason"]
        made.answers, made.in_step = kept["answers"], kept["in_step"]
        made.ratings, made.held = kept["ratings"], kept.get("held", False)
        made._costs = (kept["costs"][0], kept["costs"][1])
        made.watches = {
            name: Watch(Evidence(**watch["better"]), Evidence(**watch["worse"]))
            for name, watch in kept["watches"].items()
        }
        return made
