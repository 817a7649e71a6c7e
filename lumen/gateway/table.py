"""What a model name leads to: routes and targets, all resolved when the configuration loads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from lumen.config.schema import Config, Priority, Route, Timeouts
from lumen.config.schema import Target as TargetConfig
from lumen.core.errors import RequestError
from lumen.core.meter import meets
from lumen.gateway.tab import Offer
from lumen.gateway.upstream import Limits, Upstream
from lumen.providers.base import Capabilities, Dialect
from lumen.routing.base import Candidate, Policy, policy, stateless
from lumen.routing.plan.rules import rulings
from lumen.routing.plan.view import Goal

_MAX_DYNAMIC = 1024
_AUTO = "lumen/auto"
# What goes on with an answer can equal it byte for byte only if the answer itself was made so.
_EXACT = (("resume_exact", True),)
# Seconds for which a local model is waited for while another target could answer, unless somebody says otherwise.
_READY = 120.0


@dataclass(frozen=True, slots=True)
class Target:
    """One way to serve: a model at an upstream, in a dialect, with what it can do and what it costs."""

    name: str
    model: str
    dialect: Dialect
    upstream: Upstream
    can: Capabilities
    offer: Offer


@dataclass(frozen=True, slots=True)
class Entry:
    """A route, ready to serve.

    `account`: the route whose budget it spends; an alias has its own name but no budget of its own.
    `limits`: what holds where a target's history says nothing else. `own`: which of them the route itself sets.
    `defaults`: request fields set where the client gave none. `declared`: the configuration names it as a route,
    rather than a model addressed directly. `seeded`: a target can resume token-exactly, so that every request has a
    seed. `hedge`, `around_filter`, `max_splices`, `ttft`, `priority`, `shared` (prefixes): as the route says. `within`:
    the candidates that meet the price ceilings, all where none does. `policy`: the name of `order`. `goal`: what it is
    to reach. `remembers`: it looks at what became of earlier requests. `least_context`: the smallest window of its
    targets where that is known. `unable`: some target takes no tools, no images, or cannot be held to JSON.
    """

    name: str
    account: str
    targets: tuple[Target, ...]
    candidates: tuple[Candidate, ...]
    within: tuple[Candidate, ...]
    order: Policy
    policy: str
    goal: Goal
    remembers: bool
    least_context: int | None
    unable: bool
    limits: Limits
    own: Timeouts
    defaults: tuple[tuple[str, Any], ...]
    declared: bool
    seeded: bool
    hedge: bool
    around_filter: bool
    max_splices: int
    ttft: float | None = None
    cover: bool = False
    priority: Priority = "normal"
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Origin:
    """Where targets of one kind are reached. `of(model)`: the dialect, the capabilities and the offer of one model."""

    upstream: Upstream
    of: Callable[[str], tuple[Dialect, Capabilities, Offer]]


@dataclass(frozen=True, slots=True)
class Origins:
    """The upstreams a configuration names, kept by the composition root across reloads."""

    local: Mapping[str, Origin]
    remote: Mapping[str, Origin]


class Table:
    """Names to entries. Immutable but for a bounded memo of `provider/model` names asked for."""

    def __init__(
        self, config: Config, origins: Origins, loaded: int, policies: Mapping[str, Policy] | None = None
    ) -> None:
        """`policies`: those in the operator's own files, by the name the configuration gives them."""
        self._config = config
        self._policies = policies or {}
        self._origins = origins
        self._dynamic: dict[str, Entry] = {}
        self._able: dict[tuple[str, str], Entry | None] = {}
        self.loaded = loaded
        # Models of providers that are listed although no request has named them yet.
        self.offered: tuple[str, ...] = ()
        self._entries = {name: self._entry(name, route, declared=True) for name, route in config.routes.items()}
        for name in origins.local:
            if name not in self._entries:
                self._entries[name] = self._entry(name, Route(targets=(TargetConfig(name),)), declared=False)
        if _AUTO not in self._entries and self._entries:
            self._entries[_AUTO] = self._auto()

    def find(self, name: str) -> Entry:
        """The entry of a public model name.

        Raises:
            RequestError: 404 `model_not_found`.
        """
        entry = self._entries.get(name) or self._dynamic.get(name)
        if entry is not None:
            return entry
        provider, slash, model = name.partition("/")
        if slash and model and provider in self._origins.remote:
            entry = self._entry(name, Route(targets=(TargetConfig(name),)), declared=False)
            if len(self._dynamic) < _MAX_DYNAMIC:
                self._dynamic[name] = entry
            return entry
        raise not_found(name)

    def able(self, entry: Entry, ability: str, narrowed: Callable[[Entry, str], Entry | None]) -> Entry | None:
        """What `narrowed` makes of an entry; found once."""
        known = (entry.name, ability)
        if known not in self._able:
            if len(self._able) >= _MAX_DYNAMIC:
                self._able.clear()
            self._able[known] = narrowed(entry, ability)
        return self._able[known]

    def offer(self, names: Iterable[str]) -> None:
        """List these too: `provider/model`, each of which `find` would find."""
        self.offered = tuple(name for name in names if name not in self._entries)

    def entries(self) -> list[Entry]:
        return list(self._entries.values())

    def _auto(self) -> Entry:
        """`lumen/auto` where no route of that name is configured: the targets of the first route, else model.

        What is tried on that route and learnt from it holds here too: its goal stays that route's.
        """
        name = next(iter(self._config.routes), None) or next(iter(self._origins.local))
        first = self._entries[name]
        return replace(first, name=_AUTO, declared=True, policy="auto", order=policy("auto"), remembers=True)

    def _entry(self, name: str, route: Route, *, declared: bool) -> Entry:
        targets = tuple(self._target(target.model) for target in route.targets)
        candidates = tuple(
            candidate_of(one, i, target.weight)
            for i, (one, target) in enumerate(zip(targets, route.targets, strict=True))
        )
        order = self._policies.get(route.policy) or policy(route.policy)
        contexts = [target.offer.context for target in targets if target.offer.context is not None]
        return Entry(
            name=name,
            account=name,
            targets=targets,
            candidates=candidates,
            within=self._within(route, candidates),
            order=order,
            policy=route.policy,
            goal=_goal(name, route),
            remembers=not stateless(order),
            least_context=min(contexts, default=None),
            unable=not all(c.tools and c.images and c.structured for c in candidates),
            limits=resolved(self._config.timeouts, route.timeouts),
            own=route.timeouts,
            defaults=(*route.defaults.items(), *_EXACT) if route.exact else tuple(route.defaults.items()),
            declared=declared,
            seeded=any(target.can.token_ids and target.can.sampler_state for target in targets),
            hedge=route.hedge == "p95",
            around_filter=route.content_filter == "next",
            max_splices=route.max_splices,
            ttft=route.ttft,
            cover=route.cover,
            priority=route.priority,
            shared=route.share_prefixes,
        )

    def _within(self, route: Route, candidates: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
        ceilings = [c for c in (route.budget.max_cost, self._config.server.budget.max_cost) if c is not None]
        met = candidates if not ceilings else tuple(c for c in candidates if meets(c.price, min(ceilings)))
        return met or candidates

    def _target(self, name: str) -> Target:
        origin, model = self._origins.local.get(name), name
        if origin is None:
            provider, _, model = name.partition("/")
            origin = self._origins.remote[provider]
        dialect, can, offer = origin.of(model)
        return Target(name, model, dialect, origin.upstream, can, offer)


def learning(table: Table) -> list[str]:
    """The routes whose scorer some policy asks, so that it is read."""
    asking = (entry.goal.route for entry in table.entries() if entry.remembers and len(entry.targets) > 1)
    return list(dict.fromkeys(asking))


def candidate_of(target: Target, key: int = -1, weight: float = 1.0) -> Candidate:
    """A target as policies see it; `key`: its place in its route's list, where it has one."""
    can, offer = target.can, target.offer
    return Candidate(
        key,
        target.name,
        weight,
        price=offer.price,
        context=offer.context,
        tools=can.tools,
        images=can.images,
        structured=can.json_schema,
        local=can.local,
    )


def _goal(name: str, route: Route) -> Goal:
    names = tuple(target.model for target in route.targets)
    return Goal(
        name,
        names,
        strong=0 if route.strong is None else names.index(route.strong),
        quality=route.quality,
        max_loss=route.max_loss,
        confidence=route.confidence,
        rules=rulings(route.rules, names),
    )


def not_found(name: str) -> RequestError:
    return RequestError(
        f"The model '{name[:128]}' does not exist or you do not have access to it.",
        status=404,
        param="model",
        code="model_not_found",
    )


def resolved(base: Timeouts, own: Timeouts) -> Limits:
    """The route's own limits over the server's; a configuration always carries the latter."""
    picked: dict[str, float] = {}
    for field in fields(Timeouts):
        value = getattr(own, field.name)
        picked[field.name] = getattr(base, field.name) if value is None else value
    if own.ready is None and own.first_token is not None:
        picked["ready"] = own.first_token
    picked["alone"] = picked["ready"]
    if picked["ready"] is None:
        picked["ready"], picked["alone"] = _READY, math.inf
    if picked["queue"] is None:
        picked["queue"] = picked["ready"]
    if own.queue is None and own.first_token is not None:
        # What is left of it is for the answer itself to begin.
        picked["queue"] = min(picked["queue"], own.first_token / 2)
    return Limits(**picked)
