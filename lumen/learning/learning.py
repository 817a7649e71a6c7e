"""Learning in the serving process: what is tried on routes, the labels it makes, and the scorers learnt from them.

One of the composition root's parts: it is given the state of the gateway and the hands that change the configuration,
and puts into `State.trials` what requests of a route are to be tried on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lumen.core.errors import RequestError, UnavailableError
from lumen.gateway.shadow import Dark
from lumen.gateway.state import State
from lumen.keys import Key
from lumen.learning import options as given
from lumen.learning.kept import Kept
from lumen.learning.learner import Learner
from lumen.learning.pairs import Ground
from lumen.learning.rolling import ITSELF, Hands, Rolling
from lumen.learning.shadowing import Shadowing, declared
from lumen.learning.shelf import Shelf
from lumen.learning.trials import Remembered, RouteTrial
from lumen.learning.trust import Trust
from lumen.ledger.labels import Label, Labels, LabelsError, Served

# Seconds between two looks at judges and nightly learning; the hour of the night, of local time.
_LOOK = 30.0
_NIGHT = 3


@dataclass(frozen=True, slots=True)
class Outside:
    """What the composition root gives. `retains`: whether anything may be kept of what a route's request says, by its
    key. `learnt`: puts the live scorers in force. `targets`, `note`: see `rolling.Hands`. `clock`: the wall's.
    """

    ledger: Path
    kept: Path
    shelf: Shelf
    retains: Callable[[str, Key | None], bool]
    learnt: Callable[[], Awaitable[None]]
    targets: Callable[[str, list[Any]], Awaitable[None]]
    note: Callable[[str, str, str, Mapping[str, Any]], Awaitable[None]]
    say: Callable[[str], None]
    clock: Callable[[], float] = time.time


class Learning:
    """All of it. The event loop's own; `start` it once the ledger is this process's, `close` it before the ledger."""

    def __init__(self, state: State, outside: Outside) -> None:
        self._state = state
        self._outside = outside
        self._labels = Labels(outside.ledger)
        self._dark = Dark(state, outside.say)
        self._kept = Kept(outside.kept, self._dump, outside.say)
        self._trust = Trust(self._dark, self._labels, outside.clock, self._kept)
        ground = Ground(
            self._dark, self._labels, self._kept, lambda: int(outside.clock() * 1e6), outside.say, self._trust.trusted
        )
        self._ground = ground
        self._shadows = Shadowing(state, ground, self._trust, self._changed)
        self._canaries = Rolling(state, ground, self._trust, Hands(outside.targets, outside.note), self._changed)
        self._learner = Learner(outside.shelf, outside.ledger)
        self._routes: dict[str, RouteTrial] = {}
        self._nights: dict[str, str] = {}
        self._looking: asyncio.Task[None] | None = None
        self._look_now = asyncio.Event()

    # -- life ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take up what an earlier process left."""
        kept = await asyncio.to_thread(self._kept.load)
        self._trust.load(kept.get("trust"))
        nights = kept.get("nights")
        self._nights = dict(nights) if isinstance(nights, dict) else {}
        self._shadows.load(kept.get("shadows", {}))
        self._canaries.load(kept.get("canaries", {}))
        self._state.feedback = self
        self._changed()
        self._looking = asyncio.create_task(self._look())

    async def close(self) -> None:
        """End what is under way and write what is known."""
        if self._looking is None:
            return
        self._looking.cancel()
        await asyncio.gather(self._looking, return_exceptions=True)
        self._looking = None
        self._state.feedback = None
        self._state.trials = {}
        await self._dark.close()
        await self._shadows.close()
        await self._canaries.close()
        await self._kept.close()
        await asyncio.to_thread(self._labels.close)

    def configured(self) -> None:
        """The configuration changed."""
        if self._looking is not None:
            self._changed()

    def _dump(self) -> dict[str, Any]:
        return {
            "trust": self._trust.dump(),
            "nights": self._nights,
            "shadows": self._shadows.dump(),
            "canaries": self._canaries.dump(),
        }

    def _changed(self) -> None:
        """Which routes something is tried on, anew."""
        routes = self._state.config.routes
        learning = {name for name, route in routes.items() if route.learn == "nightly"}
        for name in {*self._shadows.live, *self._canaries.of, *learning, *self._routes}:
            trial = self._routes.setdefault(name, RouteTrial(name, self._outside.retains, self._scorer))
            trial.shadow, trial.canary = self._shadows.live.get(name), self._canaries.of.get(name)
            trial.learns = name in learning
        self._routes = {name: trial for name, trial in self._routes.items() if not trial.idle and name in routes}
        self._state.trials = dict(self._routes)
        self._look_now.set()

    def _scorer(self, route: str) -> Any:
        return self._state.planner.scorer(route)[0]

    # -- by and by -------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        while True:
            self._look_now.clear()
            for trial in list(self._routes.values()):
                try:
                    await self._look_at(trial)
                except Exception as error:  # noqa: BLE001 - what fails for one route must not end it for all
                    self._outside.say(f"{trial.route}: {str(error) or type(error).__name__}")
            await self._night()
            try:
                async with asyncio.timeout(_LOOK):
                    await self._look_now.wait()
            except TimeoutError:
                continue

    async def _look_at(self, trial: RouteTrial) -> None:
        """Whether the judges of what is tried on a route are still to be trusted."""
        entry = declared(self._state, trial.route)
        for tried in (trial.shadow, trial.canary):
            if tried is not None and not tried.ceiling.exhausted:
                await self._trust.look(entry, tried.judge, tried.ceiling)

    async def _night(self) -> None:
        """Once a night, for routes that are to learn then."""
        now = time.localtime(self._outside.clock())
        today = time.strftime("%Y-%m-%d", now)
        due = [t.route for t in self._routes.values() if t.learns and self._nights.get(t.route) != today]
        for route in due if now.tm_hour >= _NIGHT else ():
            self._nights[route] = today
            self._kept.soon()
            try:
                told = await self.learn(route, "learn", "{}", "lumen")
            except Exception as error:  # noqa: BLE001 - the other routes, and the nights to come, go on
                self._outside.say(f"{route} could not learn tonight: {str(error) or type(error).__name__}")
                continue
            self._outside.say(f"{route} has learnt: {summary(told)}")

    # -- what clients say ------------------------------------------------------------------------------------

    async def take(self, request_id: str, key: Key | None, score: float, comment: str) -> bool:
        """See `gateway.trial.Feedback`."""
        return await self._take(request_id, None if key is None else key.id, score, comment, own=key is not None)

    async def _take(self, request_id: str, key: str | None, score: float, comment: str, *, own: bool) -> bool:
        past = next((found for trial in self._routes.values() if (found := trial.past(request_id))), None)
        try:
            served: Remembered | Served | None = past
            if served is None:
                served = await asyncio.to_thread(self._labels.served, request_id)
            if served is None or (own and served.key != key):
                return False
            first = await asyncio.to_thread(self._said, request_id, served, past, score, comment)
        except LabelsError:
            raise UnavailableError("Feedback cannot be kept now; try again shortly.", retry_after=5) from None
        canary = self._canaries.of.get(served.route)
        # What is said again of an answer changes its label, and is no more evidence.
        if canary is not None and first:
            canary.rate(served.target, score)
        return True

    def _said(
        self, request_id: str, served: Remembered | Served, past: Remembered | None, score: float, comment: str
    ) -> bool:
        """Keep it as a label; whether it is the first of this answer. Blocks."""
        form, data = "", b""
        if past is not None:
            from lumen.learning.asks import numbers_of

            form, data = numbers_of(past.ask)
        return self._labels.add(
            Label(
                request_id,
                "feedback",
                served.route,
                self._ground.now(),
                {served.target: score},
                key=served.key,
                form=form,
                ask=data,
                comment=comment if past is not None else "",
            )
        )

    # -- what operators ask ----------------------------------------------------------------------------------

    async def feedback(self, request_id: str, score: str) -> dict[str, Any]:
        """What an operator says of any request's answer.

        Raises:
            RequestError: there is no such request, or no such score.
        """
        try:
            value = float(score)
        except ValueError:
            value = -1.0
        if not 0.0 <= value <= 1.0:
            raise RequestError("Send 'score' as a number from 0 to 1.", param="score")
        if not await self._take(request_id, None, value, "", own=False):
            raise RequestError("There is no such request.", status=404, param="request")
        return {"request": request_id, "score": value}

    async def shadow(self, route: str, action: str, options: str) -> dict[str, Any]:
        """Raises RequestError: it cannot be done. UnavailableError: it is not up yet, or no more."""
        self._up()
        match action:
            case "start":
                return await self._shadows.start(route, given.read(options))
            case "stop":
                return await self._shadows.stop(route)
        raise RequestError("Send 'action' as start or stop.", param="action")

    async def canary(self, route: str, action: str, options: str, who: str) -> dict[str, Any]:
        """Raises RequestError: it cannot be done. UnavailableError: it is not up yet, or no more."""
        self._up()
        match action:
            case "start":
                return await self._canaries.start(route, given.read(options))
            case "approve":
                return await self._canaries.approve(route, who)
            case "rollback":
                return await self._canaries.rollback(route, who)
            case "stop":
                return await self._canaries.stop(route, who)
        raise RequestError("Send 'action' as start, approve, rollback or stop.", param="action")

    async def learn(self, route: str, action: str, options: str, who: str) -> dict[str, Any]:
        """Learn, or go back to an earlier version.

        Raises:
            RequestError: it cannot be done. UnavailableError: learning failed, or it is not up yet, or no more.
        """
        self._up()
        entry, asked = declared(self._state, route), given.read_learn(options)
        if action == "rollback":
            version = await self._learner.rollback(route, asked.version or None)
            await self._outside.learnt()
            await self._outside.note("route.unlearn", route, who, {"version": version or 0})
            return {"route": route, "version": version}
        if action != "learn":
            raise RequestError("Send 'action' as learn or rollback.", param="action")
        config = self._state.config.routes[route]
        targets = [target.name for target in entry.targets]
        told = await self._learner.learn(
            route, targets, config.strong or targets[0], config.max_loss, config.confidence,
            self._trust.distrusted(route), dry=asked.dry,
        )  # fmt: skip
        if told["version"] is not None:
            await self._outside.learnt()
            await self._outside.note("route.learn", route, who, {"version": told["version"], "labels": told["labels"]})
        if told["withdrawn"] is not None:
            await self._outside.learnt()
            why = {"version": 0, "withdrawn": told["withdrawn"], "reason": told["why"]}
            await self._outside.note("route.unlearn", route, ITSELF, why)
        return told

    def _up(self) -> None:
        """Change nothing before what an earlier process left is taken up: what is written down then is all there is."""
        if self._looking is None:
            raise UnavailableError("Lumen is starting or ending; try again shortly.", retry_after=1)

    def status(self) -> dict[str, Any]:
        """Everything in motion, without any text; also for the dashboard."""
        return {
            "dark": self._dark.standing(),
            "shadows": self._shadows.status(),
            "canaries": self._canaries.status(),
            "learnt": self._learner.last,
        }

    async def shadow_report(self, route: str) -> dict[str, Any]:
        """Raises RequestError: it has had none."""
        return await self._shadows.report(route)

    async def canary_report(self, route: str) -> dict[str, Any]:
        """Raises RequestError: it has had none."""
        return await self._canaries.report(route)

    async def versions(self, route: str) -> dict[str, Any]:
        """What a route has learnt, and from how many labels it could learn now.

        Raises:
            RequestError: there is no such route.
        """
        declared(self._state, route)

        def read() -> dict[str, Any]:
            kept = self._learner.shelf.versions(route)
            shown = [
                {"version": one.number, "at": one.at, "note": one.note, "live": one.live, "size": one.size}
                for one in kept
            ]
            return {"route": route, "versions": shown, "labels": self._labels.counts(route)}

        return await asyncio.to_thread(read)


def summary(told: Mapping[str, Any]) -> str:
    """What learning came to, in a line."""
    if told["missing"]:
        return f"{told['labels']} labels, {told['missing']} are missing; nothing is changed"
    if told["refused"]:
        gone = f"; version {told['withdrawn']} is withdrawn: {told['why']}" if told["withdrawn"] is not None else ""
        return f"not put in force: {told['refused']}{gone}"
    return f"version {told['version']} from {told['labels']} labels"
