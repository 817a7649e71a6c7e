"""What an operator sees: the configuration in force and the replicas' states, as JSON-ready values. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lumen.config.adapters import adapted
from lumen.config.schema import Config, Route
from lumen.gateway.metrics import Gauged
from lumen.gateway.state import Counters, State
from lumen.gateway.table import Table
from lumen.workers.supervisor import ReplicaState, Standing

# What a name is that the configuration says nothing of.
_USUAL = Route(targets=())


@dataclass(frozen=True, slots=True)
class Served:
    """Which local models a configuration came to. `missing`: model → what to do so that it can be served."""

    config: Config
    sources: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    notice: str | None = None
    tiny_source: str = ""

    def ready(self, states: Sequence[ReplicaState], standings: Mapping[str, Standing] | None = None) -> dict[str, bool]:
        """Per model: has a replica answered a one-token inference, or (`standings`) would one come if it were asked?"""
        answered = {state.model for state in states if state.state == "ready"}
        answered |= {name for name, standing in (standings or {}).items() if standing.resting}
        return {name: name in answered for name in (*self.sources, *self.missing)}


def models_status(
    served: Served, states: Sequence[ReplicaState], standings: Mapping[str, Standing]
) -> list[dict[str, Any]]:
    """Every configured local model with its replicas."""
    return [
        {
            "name": name,
            "ready": ready,
            "tiny": served.sources.get(name) == served.tiny_source,
            "source": served.sources.get(name) or served.config.models[name].source,
            "missing": served.missing.get(name),
            "standing": asdict(standings[name]) if name in standings else None,
            "replicas": [asdict(state) for state in states if state.model == name],
        }
        for name, ready in served.ready(states, standings).items()
    ]


def requests_status(counters: Counters) -> dict[str, int]:
    return asdict(counters)


def routes(table: Table, declared: Mapping[str, Route], late: Callable[[str, float], bool]) -> list[dict[str, Any]]:
    """The effective routes, limits resolved; `declared`: those of the configuration.

    `late`: whether a target misses a wanted time to the first token at the moment.
    """
    return [
        {
            "name": entry.name,
            "declared": entry.declared,
            "targets": [{"model": c.name, "weight": c.weight} for c in entry.candidates],
            "policy": entry.policy,
            "strong": entry.goal.names[entry.goal.strong],
            "quality": entry.goal.quality,
            "max_loss": entry.goal.max_loss,
            "confidence": entry.goal.confidence,
            "rules": [{"when": rule.written, "target": entry.goal.names[rule.key]} for rule in entry.goal.rules],
            "defaults": dict(entry.defaults),
            "timeouts": asdict(entry.limits),
            "budget": asdict(declared[entry.name].budget) if entry.name in declared else None,
            **_said(declared.get(entry.name, _USUAL)),
            "ttft": entry.ttft,
            "late": [t.name for t in entry.targets if entry.ttft is not None and late(t.name, entry.ttft)],
        }
        for entry in table.entries()
    ]


def _said(route: Route) -> dict[str, Any]:
    return {
        "exact": route.exact,
        "hedge": route.hedge,
        "content_filter": route.content_filter,
        "max_splices": route.max_splices,
        "cover": route.cover,
        "reserve": route.reserve,
        "priority": route.priority,
        "share_prefixes": route.share_prefixes,
        "retention": route.retention,
        "learn": route.learn,
    }


def names(served: Served, states: Sequence[ReplicaState], table: Table) -> list[dict[str, Any]]:
    """Every addressable name with what stands behind it."""
    models = served.config.models
    local = [
        {
            "name": name,
            "kind": "local",
            "engine": models[name].engine if name in models else "llamacpp",
            "ready": ready,
            "source": served.sources.get(name),
        }
        for name, ready in served.ready(states).items()
    ]
    of = {one["name"]: one for one in local}
    local += [{**of[model], "name": name} for name, (model, _) in adapted(models).items() if model in of]
    return local + [{"name": entry.name, "kind": "route"} for entry in table.entries() if entry.declared]


def gauges(
    state: State,
    served: Served,
    states: Sequence[ReplicaState],
    standings: Mapping[str, Standing],
    targets: Sequence[Mapping[str, Any]],
) -> Gauged:
    """What is so right now, for Prometheus. A model that is down by design is as ready as the next request needs it."""
    of_targets: dict[tuple[str, ...], float] = {(one["name"], one["state"]): 1.0 for one in targets}
    at_targets: dict[tuple[str, ...], float] = {(one["name"],): float(one["in_flight"]) for one in targets}
    ready: dict[tuple[str, ...], float] = {(name,): float(yes) for name, yes in served.ready(states, standings).items()}
    replicas: dict[tuple[str, ...], float] = {}
    for replica in states:
        labels = (replica.model, replica.state)
        replicas[labels] = replicas.get(labels, 0.0) + 1.0
    return {
        "lumen_requests_in_flight": ("Requests under way.", (), {(): float(state.counters.in_flight)}),
        "lumen_draining": ("Whether new requests are refused.", (), {(): float(state.draining)}),
        "lumen_ledger_healthy": ("Whether costs can be written down.", (), {(): float(state.billing.healthy)}),
        "lumen_model_ready": ("Whether it answers, or would if it were asked.", ("model",), ready),
        "lumen_model_replicas": ("Replicas by state.", ("model", "state"), replicas),
        "lumen_target_state": ("1 for the state a target is in.", ("target", "state"), of_targets),
        "lumen_target_in_flight": ("Requests at a target.", ("target",), at_targets),
    }
