"""The shadows of all routes: started, stopped and told about."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

import msgspec

from lumen.core.budget import BudgetError
from lumen.core.errors import RequestError
from lumen.gateway.state import State
from lumen.gateway.table import Entry
from lumen.learning import options as given
from lumen.learning.answers import Compared, side_by_side
from lumen.learning.checking import Checking
from lumen.learning.checks import CheckerError
from lumen.learning.judge import Judge
from lumen.learning.options import Options
from lumen.learning.pairs import Ground
from lumen.learning.shadows import Shadow, ShadowPlan, plan_of
from lumen.learning.trust import Trust

# Pairs that a report is made of, the newest, and samples in it.
_MOST = 20_000
SAMPLES = 20
# Shadows that have ended and can still be reported on.
_PAST = 20


class Shadowing:
    """Every shadow. `changed`: called when which routes have one changed."""

    def __init__(self, state: State, ground: Ground, trust: Trust, changed: Callable[[], None]) -> None:
        self._state = state
        self._ground = ground
        self._trust = trust
        self._changed = changed
        self.live: dict[str, Shadow] = {}
        self._past: list[dict[str, Any]] = []

    def load(self, kept: dict[str, Any]) -> None:
        """Take over what was dumped; what is no shadow any more is left out, and told."""
        self._past = list(kept.get("past", []))
        for one in kept.get("live", []):
            try:
                plan = plan_of(one)
                self.live[plan.route] = self._shadow(plan, self._judge(plan), one)
            except (KeyError, TypeError, ValueError, msgspec.ValidationError) as error:
                self._ground.say(f"a shadow could not be taken up again: {error}")

    def dump(self) -> dict[str, Any]:
        """Everything that must outlive the process."""
        return {"live": [shadow.dump() for shadow in self.live.values()], "past": self._past}

    async def start(self, route: str, options: Options) -> dict[str, Any]:
        """Raises RequestError: there is one already, or it cannot be run as asked for."""
        if route in self.live:
            raise RequestError(f"'{route}' has a shadow already; end it with: lumen shadow stop {route}", status=409)
        share, budget = given.share(options.share, 0.05), given.budget(options.budget)
        entry = declared(self._state, route)
        plan = ShadowPlan(
            route, options.candidate, share, budget, f"shadow-{secrets.token_hex(6)}", self._ground.now() / 1e6,
            options.judge, given.checker(options.checker), options.texts,
        )  # fmt: skip
        judge = self._judge(plan)
        priced(self._ground, entry, plan.candidate, judge)
        allowed(self._state, self._ground, entry, plan.candidate, plan.judge)
        if plan.checker is not None:
            await tried(judge)
        self.live[route] = shadow = self._shadow(plan, judge)
        self._changed()
        await self._ground.kept.now()
        return shadow.status()

    async def stop(self, route: str) -> dict[str, Any]:
        """Raises RequestError: it has none."""
        shadow = self.live.pop(route, None)
        if shadow is None:
            raise RequestError(f"'{route}' has no shadow.", status=404, param="route")
        shadow.stopped = True
        await shadow.judge.close()
        told = {**shadow.status(), "running": False}
        self._past = [told, *self._past][:_PAST]
        self._changed()
        await self._ground.kept.now()
        return told

    def status(self) -> list[dict[str, Any]]:
        """Those in motion, then those that ended, the newest first."""
        live = [
            {**one.status(), "judge_standing": self._trust.standing(one.plan.route, one.plan.judge)}
            for one in self.live.values()
        ]
        return [*live, *self._past]

    async def report(self, route: str) -> dict[str, Any]:
        """Both sides of the route's newest shadow.

        Raises:
            RequestError: it has had none.
        """
        found = next((one for one in self.status() if one["route"] == route), None)
        if found is None:
            raise RequestError(f"'{route}' has had no shadow.", status=404, param="route")
        return {**found, **await compared(self._ground, found["run"])}

    async def close(self) -> None:
        """End the checkers' processes."""
        for shadow in self.live.values():
            await shadow.judge.close()

    def _shadow(self, plan: ShadowPlan, judge: Judge, kept: dict[str, Any] | None = None) -> Shadow:
        def strong() -> str:
            route = self._state.config.routes.get(plan.route)
            # A route that is gone has no strong target but the candidate, which means: nobody is asked.
            return plan.candidate if route is None else route.strong or route.targets[0].model

        return Shadow(plan, judge, self._ground, strong, kept)

    def _judge(self, plan: ShadowPlan) -> Judge:
        return Judge(self._ground.dark, plan.judge, Checking(plan.checker) if plan.checker else None)


async def compared(ground: Ground, run: str) -> dict[str, Any]:
    """The report of one run, with samples where texts were kept."""
    rows = await asyncio.to_thread(ground.labels.pairs, run, _MOST)

    def read() -> dict[str, Any]:
        pairs = [msgspec.json.decode(row.facts, type=Compared) for row in rows]
        samples = [msgspec.json.decode(row.sample) for row in rows if row.sample is not None]
        return {"report": side_by_side(pairs), "samples": samples[-SAMPLES:]}

    return await asyncio.to_thread(read)


def declared(state: State, route: str) -> Entry:
    """The entry of a route of the configuration.

    Raises:
        RequestError: there is no such route.
    """
    if route not in state.config.routes:
        raise RequestError(f"There is no route '{route[:128]}'; see: lumen route ls", status=404, param="route")
    return state.table.find(route)


def priced(ground: Ground, entry: Entry, candidate: str, judge: Judge) -> None:
    """See to it that what is asked exists, and that it is known what it costs.

    Raises:
        RequestError: it is not so.
    """
    if not candidate:
        raise RequestError("Name the target to try: --candidate MODEL.", param="candidate")
    for name in (candidate, judge.judge):
        if name is not None and ground.dark.target(entry, name).offer.price is None:
            raise RequestError(
                f"What '{name}' costs is not known, so no budget can be kept; give it a price in the configuration.",
                param="candidate",
            )


def allowed(state: State, ground: Ground, entry: Entry, *names: str | None) -> None:
    """See to it that the route's price ceiling and limits let these targets be asked at all.

    Raises:
        RequestError: they do not; the text says why.
    """
    for name in names:
        try:
            if name is not None:
                state.billing.usable(entry.account, [ground.dark.target(entry, name).offer])
        except BudgetError as error:
            raise RequestError(f"'{name}' cannot be asked here. {error.message}", param="candidate") from None


async def tried(judge: Judge) -> None:
    """See to it that a checker can be loaded.

    Raises:
        RequestError: it cannot; the text says why.
    """
    assert judge.checker is not None
    try:
        await judge.checker.ready()
    except CheckerError as error:
        await judge.close()
        raise RequestError(f"The checker cannot be used: {error}.", param="checker") from None
