"""The canaries of all routes: started, told about, and what they decide carried out.

A decision is on the disk before it is carried out. A promotion writes the route's targets into the configuration, with
all comments kept; a crash in the middle has it written again, which changes nothing the second time.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from lumen.config.schema import Route
from lumen.core.errors import LumenError, RequestError
from lumen.gateway.state import State
from lumen.gateway.table import Target
from lumen.learning import options as given
from lumen.learning.canaries import CanaryPlan, Rollout, plan_of
from lumen.learning.checking import Checking
from lumen.learning.judge import Judge
from lumen.learning.options import Options
from lumen.learning.pairs import Ground
from lumen.learning.shadowing import allowed, compared, declared, priced, tried
from lumen.learning.trust import Trust
from lumen.routing.rollout.canary import Canary, Change, Status

# Canaries that have ended and can still be looked at.
_PAST = 20
# Policies that share the traffic out by the targets' weights, and those that ask the first of them first.
_SHARED = ("weighted", "sticky")
_FIRST = (*_SHARED, "ordered")
# Who a change is noted for that nobody asked for.
ITSELF = "lumen"


@dataclass(frozen=True, slots=True)
class Hands:
    """How decisions are carried out. `targets`: write these targets of a route into the configuration and put it in
    force. `note`: to the audit log: action, subject, who, details."""

    targets: Callable[[str, list[Any]], Awaitable[None]]
    note: Callable[[str, str, str, Mapping[str, Any]], Awaitable[None]]


class Rolling:
    """Every canary. `changed`: called when which routes have one changed."""

    def __init__(self, state: State, ground: Ground, trust: Trust, hands: Hands, changed: Callable[[], None]) -> None:
        self._state = state
        self._ground = ground
        self._trust = trust
        self._hands = hands
        self._changed = changed
        # The newest canary of each route, in motion or not.
        self.of: dict[str, Rollout] = {}
        self._past: list[dict[str, Any]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def load(self, kept: dict[str, Any]) -> None:
        """Take over what was dumped, and carry out what was decided before the crash."""
        self._past = list(kept.get("past", []))
        for one in kept.get("of", []):
            try:
                plan = plan_of(one)
                found = self._rollout(plan, Canary.load(one["canary"]), one)
            except (KeyError, TypeError, ValueError, msgspec.ValidationError) as error:
                self._ground.say(f"a canary could not be taken up again: {error}")
                continue
            self.of[plan.route] = found
            if found.phase == "promoting":
                self._own(self._promote(found, ITSELF))
            elif found.phase == "running" and found.canary.status is not Status.RUNNING:
                self._decided(found, Change(found.canary.status, found.canary.step, found.canary.reason))

    def dump(self) -> dict[str, Any]:
        """Everything that must outlive the process."""
        return {"of": [one.dump() for one in self.of.values()], "past": self._past}

    # -- what operators ask ----------------------------------------------------------------------------------

    async def start(self, route: str, options: Options) -> dict[str, Any]:
        """The new canary; `decides`: the route's `policy` goes on deciding who is asked once it is promoted.

        Raises:
            RequestError: one is in motion already, or it cannot be run as asked for.
        """
        running = self.of.get(route)
        if running is not None and running.live:
            raise RequestError(f"'{route}' has a canary already; end it with: lumen canary stop {route}", status=409)
        entry = declared(self._state, route)
        steps = given.plan(options)
        config = self._state.config.routes[route]
        if leads(config, options.candidate):
            raise RequestError(f"'{options.candidate}' has all of the traffic of '{route}' already.", param="candidate")
        plan = CanaryPlan(
            route, options.candidate, f"canary-{secrets.token_hex(6)}", self._ground.now() / 1e6,
            given.budget(options.budget), written(config), given.share(options.share, 0.1), options.judge,
            given.checker(options.checker), options.texts, options.wait,
        )  # fmt: skip
        found = self._rollout(plan, Canary(steps))
        if found.judge.source:
            priced(self._ground, entry, plan.candidate, found.judge)
        candidate = self._ground.dark.target(entry, plan.candidate)
        allowed(self._state, self._ground, entry, plan.candidate, plan.judge)
        others = [target for target in entry.targets if target.name != candidate.name]
        if "cost" in steps.guards and not (_priced(candidate) and any(map(_priced, others))):
            raise RequestError(
                f"What '{candidate.name}' or the targets of '{route}' cost is not known, so its cost cannot be "
                "guarded; give them a price in the configuration, or leave cost out of --guard.",
                param="guard",
            )
        if plan.checker is not None:
            await tried(found.judge)
        if running is not None:
            self._past = [running.status(), *self._past][:_PAST]
        found.note(found.canary.reason)
        self.of[route] = found
        self._changed()
        await self._ground.kept.now()
        return {**found.status(), "policy": config.policy, "decides": config.policy not in _FIRST}

    def status(self) -> list[dict[str, Any]]:
        """The newest of each route, then earlier ones."""
        live = [
            {**one.status(), "judge_standing": self._trust.standing(one.plan.route, one.plan.judge)}
            for one in self.of.values()
        ]
        return [*live, *self._past]

    async def report(self, route: str) -> dict[str, Any]:
        """The route's newest canary, and the pairs that were judged for it.

        Raises:
            RequestError: it has had none.
        """
        found = self._found(route)
        return {**found.status(), **await compared(self._ground, found.plan.run)}

    async def approve(self, route: str, who: str) -> dict[str, Any]:
        """Promote it now, on an operator's word.

        Raises:
            RequestError: there is none in motion.
        """
        found = self._moving(route)
        found.canary.end(Status.PROMOTED, f"approved by {who}")
        await self._promoting(found, f"approved by {who}", who)
        return found.status()

    async def rollback(self, route: str, who: str) -> dict[str, Any]:
        """End it on an operator's word; where it was promoted already, the targets of before are written back.

        Raises:
            RequestError: there is none, or it was rolled back already.
            ConfigError: the configuration cannot be written.
        """
        found = self._found(route)
        if found.phase == "promoted":
            # The file first: where it cannot be written, the promotion stands and can be taken back later.
            await self._hands.targets(route, found.plan.before)
            found.finish("rolled_back", f"taken back by {who}")
            await self._ground.kept.now()
            await self._hands.note("canary.rolled_back", route, who, {"candidate": found.plan.candidate})
            return found.status()
        self._moving(route)
        found.canary.end(Status.ROLLED_BACK, f"rolled back by {who}")
        await self._ended(found, "rolled_back", f"rolled back by {who}", who)
        return found.status()

    async def stop(self, route: str, who: str) -> dict[str, Any]:
        """End it without a verdict: the route goes on as before.

        Raises:
            RequestError: there is none in motion.
        """
        found = self._moving(route)
        found.canary.end(Status.ROLLED_BACK, f"stopped by {who}")
        await self._ended(found, "stopped", f"stopped by {who}", who)
        return found.status()

    async def close(self) -> None:
        """Wait for what is being carried out, and end the checkers' processes."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for found in self.of.values():
            await found.judge.close()

    # -- carrying out ----------------------------------------------------------------------------------------

    def _decided(self, found: Rollout, change: Change) -> None:
        """On the loop, in the middle of a request's end: what takes time is a task."""
        if change.status is Status.RUNNING:
            self._own(self._stepped(found, change))
        elif change.status is Status.ROLLED_BACK:
            found.phase = "rolled_back"
            self._own(self._ended(found, "rolled_back", change.reason, ITSELF))
        elif found.plan.waits:
            found.finish("waiting", f"{change.reason}; waits for approval")
            found.canary.hold()
            self._own(self._waits(found))
        else:
            found.phase = "promoting"
            self._own(self._promoting(found, change.reason, ITSELF))

    async def _stepped(self, found: Rollout, change: Change) -> None:
        await self._ground.kept.now()
        told = {"candidate": found.plan.candidate, "percent": found.canary.plan.steps[change.step]}
        await self._hands.note("canary.step", found.plan.route, ITSELF, {**told, "reason": change.reason})

    async def _waits(self, found: Rollout) -> None:
        await self._ground.kept.now()
        self._ground.say(f"the canary of {found.plan.route} waits for: lumen canary approve {found.plan.route}")
        await self._hands.note("canary.waits", found.plan.route, ITSELF, {"candidate": found.plan.candidate})

    async def _ended(self, found: Rollout, phase: str, why: str, who: str) -> None:
        found.finish(phase, why)
        self._changed()
        await self._ground.kept.now()
        self._ground.say(f"the canary of {found.plan.route} with {found.plan.candidate} has ended: {why}")
        details = {"candidate": found.plan.candidate, "reason": why, "answers": found.canary.answers}
        await self._hands.note(f"canary.{phase}", found.plan.route, who, details)
        await found.judge.close()

    async def _promoting(self, found: Rollout, why: str, who: str) -> None:
        found.finish("promoting", why)
        await self._ground.kept.now()
        await self._promote(found, who)

    async def _promote(self, found: Rollout, who: str) -> None:
        route, candidate = found.plan.route, found.plan.candidate
        config = self._state.config.routes.get(route)
        try:
            if config is None:
                raise RequestError(f"the route '{route}' is gone")
            await self._hands.targets(route, promoted(config, candidate))
        except (LumenError, OSError, TimeoutError) as error:
            # The candidate keeps all of the traffic; with the next start it is tried again.
            found.why = f"the configuration cannot be written: {error}"
            self._ground.say(f"the canary of {route} is promoted, but {found.why}")
            return
        found.finish("promoted", f"{candidate} is the first target of {route} in the configuration")
        self._changed()
        await self._ground.kept.now()
        self._ground.say(f"the canary of {route} is promoted: {candidate}")
        details = {"candidate": candidate, "answers": found.canary.answers, "before": str(found.plan.before)}
        await self._hands.note("canary.promoted", route, who, details)
        await found.judge.close()

    # -- inside ----------------------------------------------------------------------------------------------

    def _rollout(self, plan: CanaryPlan, canary: Canary, kept: dict[str, Any] | None = None) -> Rollout:
        judge = Judge(self._ground.dark, plan.judge, Checking(plan.checker) if plan.checker else None)
        return Rollout(plan, canary, judge, self._ground, self._decided, kept)

    def _found(self, route: str) -> Rollout:
        found = self.of.get(route)
        if found is None:
            raise RequestError(f"'{route}' has had no canary.", status=404, param="route")
        return found

    def _moving(self, route: str) -> Rollout:
        found = self._found(route)
        if not found.live:
            raise RequestError(f"The canary of '{route}' has ended: {found.phase}.", status=409, param="route")
        return found

    def _own(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended_task)

    def _ended_task(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._ground.say(f"what a canary decided could not be carried out: {type(error).__name__}: {error}")


def _priced(target: Target) -> bool:
    return target.offer.price is not None


def written(route: Route) -> list[Any]:
    """The targets of a route as a file has them."""
    return [
        target.model if target.weight == 1.0 else {"model": target.model, "weight": target.weight}
        for target in route.targets
    ]


def leads(route: Route, candidate: str) -> bool:
    """Whether the candidate is asked first by every request already: a canary would only take from it."""
    models = [target.model for target in route.targets]
    if route.policy in _SHARED:
        models = [target.model for target in route.targets if target.weight > 0]
    return models == [candidate] or (route.policy == "ordered" and models[0] == candidate)


def promoted(route: Route, candidate: str) -> list[Any]:
    """The targets with the candidate in front; the others stay as fallbacks."""
    others: Sequence[str] = [target.model for target in route.targets if target.model != candidate]
    if route.policy in _SHARED:
        return [candidate, *({"model": name, "weight": 0} for name in others)]
    return [candidate, *(entry for entry, t in zip(written(route), route.targets, strict=True) if t.model != candidate)]
