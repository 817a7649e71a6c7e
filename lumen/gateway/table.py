"""What a model name leads to: routes and targets, all resolved when the configuration loads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from lumen.config.schema import Config, Route, Timeouts
from lumen.config.schema import Target as TargetConfig
from lumen.core.errors import RequestError
from lumen.gateway.upstream import Limits, Upstream
from lumen.providers.base import Dialect
from lumen.routing.base import Candidate, Policy, policy

_MAX_DYNAMIC = 1024


@dataclass(frozen=True, slots=True)
class Target:
    """One way to serve: a model at an upstream, in a dialect. `resumable`: it replays token ids."""

    name: str
    model: str
    dialect: Dialect
    upstream: Upstream
    limits: Limits
    local: bool
    resumable: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """A route, ready to serve.

    `defaults`: request fields set where the client gave none. `declared`: the configuration names it as a route,
    rather than a model addressed directly.
    """

    name: str
    targets: tuple[Target, ...]
    candidates: tuple[Candidate, ...]
    order: Policy
    defaults: tuple[tuple[str, Any], ...]
    declared: bool


class Origins:
    """The upstreams a configuration names, kept by the composition root across reloads."""

    def __init__(
        self,
        local: Mapping[str, Upstream],
        remote: Mapping[str, tuple[Upstream, Dialect, bool]],
        local_dialect: Dialect,
    ) -> None:
        self.local = local
        self.remote = remote
        self.local_dialect = local_dialect


class Table:
    """Names to entries. Immutable but for a bounded memo of `provider/model` names asked for."""

    def __init__(self, config: Config, origins: Origins, loaded: int) -> None:
        self._config = config
        self._origins = origins
        self._dynamic: dict[str, Entry] = {}
        self.loaded = loaded
        self._entries = {name: self._entry(name, route, declared=True) for name, route in config.routes.items()}
        for name in origins.local:
            if name not in self._entries:
                self._entries[name] = self._entry(name, Route(targets=(TargetConfig(name),)), declared=False)
        if "lumen/auto" not in self._entries and self._entries:
            self._entries["lumen/auto"] = self._auto()

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

    def entries(self) -> list[Entry]:
        return list(self._entries.values())

    def _auto(self) -> Entry:
        """`lumen/auto` where no route of that name is configured: the first configured route, else model."""
        name = next(iter(self._config.routes), None) or next(iter(self._origins.local))
        found = self._entries[name]
        return Entry("lumen/auto", found.targets, found.candidates, found.order, found.defaults, declared=True)

    def _entry(self, name: str, route: Route, *, declared: bool) -> Entry:
        limits = _limits(self._config.timeouts, route.timeouts)
        targets = tuple(self._target(target.model, limits) for target in route.targets)
        candidates = tuple(Candidate(i, target.model, target.weight) for i, target in enumerate(route.targets))
        return Entry(name, targets, candidates, policy(route.policy), tuple(route.defaults.items()), declared=declared)

    def _target(self, name: str, limits: Limits) -> Target:
        local = self._origins.local.get(name)
        if local is not None:
            return Target(name, name, self._origins.local_dialect, local, limits, local=True, resumable=True)
        provider, _, model = name.partition("/")
        upstream, dialect, token_ids = self._origins.remote[provider]
        return Target(name, model, dialect, upstream, limits, local=False, resumable=token_ids)


def not_found(name: str) -> RequestError:
    return RequestError(
        f"The model '{name[:128]}' does not exist or you do not have access to it.",
        status=404,
        param="model",
        code="model_not_found",
    )


def _limits(base: Timeouts, own: Timeouts) -> Limits:
    """The route's own limits over the server's; a configuration always carries the latter."""
    picked: dict[str, float] = {}
    for field in fields(Timeouts):
        value = getattr(own, field.name)
        picked[field.name] = getattr(base, field.name) if value is None else value
    return Limits(**picked)
