"""What a configuration must satisfy beyond its types: names that exist, real limits, no secrets. Pure.

The names of engines, dialects, policies and presets are those of the files in their folders; no engine, dialect or
policy is imported, and a preset that is named is read once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from lumen.config import presets
from lumen.config.adapters import adapted
from lumen.config.perimeter import check_perimeter
from lumen.config.reading import At
from lumen.config.redaction import redaction
from lumen.config.remotes import HEADER, check_headers, check_price, check_remote_models, check_url, is_loopback
from lumen.config.schema import (
    Auth,
    Config,
    Hub,
    Ledger,
    Model,
    Oidc,
    Payloads,
    Provider,
    Responses,
    Route,
    Server,
    Timeouts,
    Traces,
)
from lumen.core.expression import ExpressionError, condition

# The model that the runtime adds by itself; a route may name it although no file declares it.
BUILTIN_MODEL = "lumen-tiny"
# What a provider's `key` may say besides `env:NAME`: where `lumen provider add` keeps it.
STORED = ("keyring", "file")

_ROOT = Path(__file__).resolve().parent.parent
# Files of those folders that are no plugin: what a plugin is, and how one is found.
_SEAMS = {"base", "registry"}
_LOCAL_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._:@+-]{0,62}[A-Za-z0-9])?", re.ASCII)
_PUBLIC_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+/-]{0,126}[A-Za-z0-9]|[A-Za-z0-9]", re.ASCII)
_ADAPTER = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?", re.ASCII)
_ENV = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)

# (section, field) → least and greatest value.
_LIMITS: dict[tuple[type, str], tuple[float, float]] = {
    (Server, "port"): (0, 65535),
    (Server, "max_body"): (1024, 2**40),
    (Server, "max_in_flight"): (1, 1_000_000),
    (Model, "context"): (1, 2**31 - 1),
    (Model, "slots"): (1, 1024),
    (Model, "replicas"): (1, 256),
    (Model, "min_replicas"): (0, 256),
    (Model, "max_replicas"): (1, 256),
    (Model, "threads"): (1, 4096),
    (Model, "gpu_layers"): (-1, 100_000),
    (Model, "queue"): (0, 1_000_000),
    (Route, "max_output"): (1, 10_000_000),
    (Route, "max_splices"): (0, 16),
    (Hub, "connections"): (1, 64),
    (Ledger, "keep_days"): (1, 36_500),
    (Payloads, "days"): (1, 3650),
    (Responses, "days"): (1, 3650),
    (Ledger, "most_responses"): (1024 * 1024, 2**40),
    (Payloads, "share"): (0, 1),
    (Traces, "share"): (0, 1),
}
# Durations for which zero is a meaning of its own; every other one must be longer.
_MAY_BE_ZERO = {(Server, "drain"), (Server, "keepalive")}
_TIMES: dict[type, tuple[str, ...]] = {
    Server: ("header_timeout", "body_timeout", "idle_timeout", "client_stall", "keepalive", "drain"),
    Oidc: ("session",),
    Model: ("start_timeout",),
    Route: ("ttft",),
    Timeouts: tuple(f.name for f in fields(Timeouts)),
}
# Request fields that a route may set: type, least and greatest value. Source: the OpenAI API reference.
_DEFAULTS: dict[str, tuple[type | tuple[type, ...], float, float]] = {
    "temperature": ((int, float), 0, 2),
    "top_p": ((int, float), 0, 1),
    "min_p": ((int, float), 0, 1),
    "typical_p": ((int, float), 0, 1),
    "top_k": (int, -1, 1_000_000),
    "max_tokens": (int, 1, 10_000_000),
    "max_completion_tokens": (int, 1, 10_000_000),
    "seed": (int, -(2**63), 2**63 - 1),
    "presence_penalty": ((int, float), -2, 2),
    "frequency_penalty": ((int, float), -2, 2),
    "repeat_penalty": ((int, float), 0.01, 10),
    "stop": ((str, list), 0, 0),
    "parallel_tool_calls": (bool, 0, 1),
    "reasoning_effort": (str, 0, 0),
    "verbosity": (str, 0, 0),
    "service_tier": (str, 0, 0),
    "dimensions": (int, 1, 65536),
}


def check(config: Config, at: At | None = None) -> None:
    """Refuse a configuration that cannot be served as it is written.

    Call it again after options of the command line were laid over a file (`--host` may undo what it allows).

    Raises:
        ConfigError: the first thing that is wrong.
    """
    at = at or At()
    _section(config.server, ("server",), at)
    _section(config.timeouts, ("timeouts",), at)
    _section(config.hub, ("hub",), at)
    _section(config.ledger, ("ledger",), at)
    _secret(config.hub.token, ("hub", "token"), at)
    if config.hub.endpoint is not None:
        check_url(config.hub.endpoint, ("hub", "endpoint"), at)
    _exposure(config.server, config.auth, at)
    check_perimeter(config.server, config.auth, at.error)
    if config.server.public_url is not None:
        check_url(config.server.public_url, ("server", "public_url"), at)
    if config.auth.oidc is not None:
        check_url(config.auth.oidc.issuer, ("auth", "oidc", "issuer"), at)
        _secret(config.auth.oidc.client_secret, ("auth", "oidc", "client_secret"), at)
        _section(config.auth.oidc, ("auth", "oidc"), at)
    _section(config.responses, ("responses",), at)
    _traces(config.traces, at)
    for name, model in config.models.items():
        _model(name, model, at)
    for name, (model_name, adapter) in adapted(config.models).items():
        if name in config.models:
            where = ("models", model_name, "adapters", adapter)
            raise at.error(where, f"{name!r} names a model, and would name an adapter too; rename one of them")
    for name, provider in config.providers.items():
        _provider(name, provider, config, at)
    for name, route in config.routes.items():
        _route(name, route, config, at)


@cache
def known(kind: str) -> frozenset[str]:
    """Names of the files in `lumen/<kind>`: engines, providers (dialects) or routing (policies)."""
    found = {path.stem for path in (_ROOT / kind).glob("*.py")}
    # A plugin that needs several files is a folder with one of the kind's name in it.
    found |= {path.parent.name for path in (_ROOT / kind).glob("*/policy.py")}
    return frozenset(name for name in found if name not in _SEAMS and not name.startswith("_"))


def _exposure(server: Server, auth: Auth, at: At) -> None:
    if not server.host or any(c.isspace() or c in "/@?#" for c in server.host):
        raise at.error(("server", "host"), "server.host: expected an address such as 127.0.0.1")
    if not auth.required and not is_loopback(server.host):
        raise at.error(
            ("auth", "required"),
            f"auth.required may be false only on a loopback address, not on {server.host}; "
            "set server.host to 127.0.0.1 or leave keys on",
        )


def _section(section: Any, path: tuple[str | int, ...], at: At) -> None:
    """Limits and durations of one section."""
    kind, dotted = type(section), ".".join(map(str, path))
    for item in fields(section):
        value = getattr(section, item.name)
        where = (*path, item.name)
        if value is None:
            continue
        if (kind, item.name) in _LIMITS:
            low, high = _LIMITS[kind, item.name]
            if not low <= value <= high:
                raise at.error(where, f"{dotted}.{item.name}: expected a number from {low:g} to {high:g}")
        if item.name in _TIMES.get(kind, ()) and value <= 0 and (kind, item.name) not in _MAY_BE_ZERO:
            raise at.error(where, f"{dotted}.{item.name}: zero would fail every request; give a time")


def _model(name: str, model: Model, at: At) -> None:
    path = ("models", name)
    if not _LOCAL_NAME.fullmatch(name) or ".." in name:
        raise at.error(path, f"{name[:80]!r} cannot name a model: use letters, digits and . _ - : @ +")
    _section(model, path, at)
    _named(model.engine, "engines", "engine", (*path, "engine"), at)
    for item in ("source", "draft"):
        text = getattr(model, item)
        if text is not None and (not text.strip() or len(text) > 2048 or not text.isprintable()):
            raise at.error((*path, item), f"models.{name}.{item}: expected builtin:tiny, a path, or hf://org/repo")
    if model.price is not None:
        check_price(model.price, (*path, "price"), at)
    _adapters(name, model, at)
    _residency(name, model, at)


def _adapters(name: str, model: Model, at: At) -> None:
    for adapter, source in model.adapters.items():
        path = ("models", name, "adapters", adapter)
        if not _ADAPTER.fullmatch(adapter):
            raise at.error(path, f"{adapter[:80]!r} cannot name an adapter: use letters, digits and . _ -")
        if not source.strip() or len(source) > 2048 or not source.isprintable():
            raise at.error(path, f"models.{name}.adapters.{adapter}: expected a path, or hf://org/repo/file.gguf")
    if model.adapters and model.embedding:
        raise at.error(("models", name, "adapters"), f"models.{name} serves embeddings, which take no adapters")


def _residency(name: str, model: Model, at: At) -> None:
    """When it may sleep or end, and how many of it there may be, must not contradict each other."""
    path = ("models", name)
    least, most = model.min_replicas, model.max_replicas
    if least is not None and least > (most if most is not None else model.replicas):
        bound = "max_replicas" if most is not None else "replicas"
        raise at.error((*path, "min_replicas"), f"models.{name}.min_replicas is more than {bound}")
    if most is not None and most < model.replicas:
        raise at.error((*path, "max_replicas"), f"models.{name}.max_replicas is less than replicas")
    if model.idle_after is not None and model.keep_alive is not None and model.idle_after < model.keep_alive:
        raise at.error((*path, "idle_after"), f"models.{name}.idle_after is shorter than keep_alive")
    if model.pinned and (model.idle_after is not None or model.min_replicas == 0):
        raise at.error((*path, "pinned"), f"models.{name} is pinned: it cannot go when idle as well")
    if len(set(model.gpus)) < len(model.gpus) or any(not 0 <= gpu < 256 for gpu in model.gpus):
        raise at.error((*path, "gpus"), f"models.{name}.gpus: expected numbers of cards, each once")


def _provider(name: str, provider: Provider, config: Config, at: At) -> None:
    path = ("providers", name)
    if not _LOCAL_NAME.fullmatch(name) or ".." in name:
        raise at.error(path, f"{name[:80]!r} cannot name a provider: use letters, digits and . _ -")
    if name in config.models:
        raise at.error(path, f"{name!r} names a local model too; rename one of them")
    if provider.dialect is not None:
        _named(provider.dialect, "providers", "dialect", (*path, "dialect"), at)
    _address(name, provider, path, at)
    if provider.key not in STORED:
        _secret(provider.key, (*path, "key"), at, ", or `keyring` or `file` for one kept by `lumen provider add`")
    check_headers(provider.headers, (*path, "headers"), at)
    check_remote_models(provider.models, (*path, "models"), at)


def _address(name: str, provider: Provider, path: tuple[str | int, ...], at: At) -> None:
    """A provider's own address, or one that its preset knows whole."""
    if provider.preset is not None and provider.preset not in presets.names():
        near = _near(provider.preset, list(presets.names())) or "; see `lumen provider presets`"
        raise at.error((*path, "preset"), f"there is no preset {provider.preset[:80]!r}{near}")
    if provider.base_url is not None:
        check_url(provider.base_url, (*path, "base_url"), at)
        return
    known = provider.preset or (name if name in presets.names() else None)
    if known is None:
        near = _near(name, list(presets.names())).replace("did you mean", "did you mean the preset")
        raise at.error(path, f"providers.{name} needs 'base_url' or a 'preset'{near}")
    preset = presets.find(known)
    if preset.holes:
        raise at.error(path, f"providers.{name} needs 'base_url': {preset.base_url} with your own {preset.holes[0]}")


def _route(name: str, route: Route, config: Config, at: At) -> None:
    path = ("routes", name)
    if not _PUBLIC_NAME.fullmatch(name) or ".." in name or "//" in name:
        raise at.error(path, f"{name[:80]!r} cannot name a route: use letters, digits and . _ - : @ + /")
    _policy(route, path, at)
    _section(route, path, at)
    _section(route.timeouts, (*path, "timeouts"), at)
    _section(route.responses, (*path, "responses"), at)
    if not route.targets:
        raise at.error((*path, "targets"), f"route {name!r} needs at least one target")
    for i, target in enumerate(route.targets):
        _target(target.model, (*path, "targets", i), config, at)
        if not math.isfinite(target.weight) or target.weight < 0:
            where = (*path, "targets", i, "weight")
            raise at.error(where, f"the weight of {target.model!r} must not be negative")
    if not any(target.weight for target in route.targets):
        raise at.error((*path, "targets"), f"every weight of route {name!r} is 0; one must be more")
    if len({target.model for target in route.targets}) < len(route.targets):
        raise at.error((*path, "targets"), f"route {name!r} names a target twice; add up the weights")
    _quality(name, route, path, at)
    if route.cover and len(route.targets) < 2:
        raise at.error((*path, "cover"), f"route {name!r} has no second target that could cover for the first")
    if route.payloads is not None:
        _payloads(route, path, at)
    for key, value in route.defaults.items():
        _default(key, value, (*path, "defaults", key), at)


def _policy(route: Route, path: tuple[str | int, ...], at: At) -> None:
    """A policy of Lumen's own, or a Python file beside the configuration, which is read by whoever runs it."""
    if not route.policy.endswith(".py"):
        _named(route.policy, "routing", "policy", (*path, "policy"), at)
        return
    if not route.policy.isprintable() or Path(route.policy).is_absolute() or ".." in Path(route.policy).parts:
        raise at.error((*path, "policy"), "policy: expected a Python file beside this one, such as mine.py")
    here = Path(at.name) if at.name else None
    if here is not None and here.is_file() and not (here.parent / route.policy).is_file():
        raise at.error((*path, "policy"), f"there is no file {route.policy!r} beside {here.name}")


def _quality(name: str, route: Route, path: tuple[str | int, ...], at: At) -> None:
    """The rules, and what a learning route promises."""
    names = [target.model for target in route.targets]
    for i, rule in enumerate(route.rules):
        where = (*path, "rules", i)
        try:
            condition(rule.when)
        except ExpressionError as error:
            raise at.error((*where, "when"), f"routes.{name}.rules[{i}].when, column {error.at}: {error}") from None
        _of_route(name, rule.target, names, (*where, "target"), at)
    if route.strong is not None:
        _of_route(name, route.strong, names, (*path, "strong"), at)
    if not 0.5 <= route.confidence < 1.0:
        raise at.error((*path, "confidence"), "confidence: expected a share from 50% to below 100%")
    if route.max_loss > 0.5:
        raise at.error((*path, "max_loss"), "max_loss: expected a share of at most 50%")


def _of_route(name: str, target: str, names: list[str], path: tuple[str | int, ...], at: At) -> None:
    if target not in names:
        raise at.error(path, f"{target[:80]!r} is no target of route {name!r}{_near(target, names)}")


def _payloads(route: Route, path: tuple[str | int, ...], at: At) -> None:
    """What is to be kept, and what of it is left out; both at once with `retention: none` is a mistake."""
    assert route.payloads is not None
    if route.retention == "none":
        raise at.error((*path, "payloads"), "payloads: with retention none nothing can be kept; leave one of them out")
    _section(route.payloads, (*path, "payloads"), at)
    for i, pattern in enumerate(route.payloads.redact):
        try:
            redaction(pattern)
        except ValueError as error:
            raise at.error((*path, "payloads", "redact", i), f"redact: {error}") from None


def _traces(traces: Traces, at: At) -> None:
    _section(traces, ("traces",), at)
    if traces.endpoint is not None:
        check_url(traces.endpoint, ("traces", "endpoint"), at)
    for header, value in traces.headers.items():
        where = ("traces", "headers", header)
        if not HEADER.fullmatch(header):
            raise at.error(where, "not a header that can be sent")
        _secret(value, where, at)


def _target(model: str, path: tuple[str | int, ...], config: Config, at: At) -> None:
    if model in config.models or model == BUILTIN_MODEL or model in adapted(config.models):
        return
    provider, slash, rest = model.partition("/")
    if slash and provider in config.providers:
        if not rest or not rest.isprintable() or " " in rest:
            raise at.error(path, f"the target {model[:80]!r} names no model; write {provider}/MODEL")
        return
    if model in config.routes:
        raise at.error(path, f"the target {model!r} is a route; name its models or provider/model instead")
    if slash:
        near = _near(provider, config.providers)
        raise at.error(path, f"the target {model[:80]!r} needs a provider that is not declared{near}")
    near = _near(model, [*config.models, *adapted(config.models), BUILTIN_MODEL])
    raise at.error(path, f"the target {model[:80]!r} is no local model and not provider/model{near}")


def _default(key: str, value: Any, path: tuple[str | int, ...], at: At) -> None:
    if key not in _DEFAULTS:
        raise at.error(path, f"{key[:80]!r} is not a parameter that a route may set{_near(key, _DEFAULTS)}")
    kind, low, high = _DEFAULTS[key]
    right = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if right and isinstance(value, (int, float)) and not low <= value <= high:
        raise at.error(path, f"{key} must be between {low:g} and {high:g}")
    if isinstance(value, list):
        right = 0 < len(value) <= 16 and all(isinstance(item, str) and item for item in value)
    if not right:
        words = {int: "a whole number", bool: "true or false", str: "text", (int, float): "a number"}
        raise at.error(path, f"{key}: expected {words.get(kind, 'text or a list of texts')}")


def _secret(value: str | None, path: tuple[str | int, ...], at: At, besides: str = "") -> None:
    """A secret may only be a reference; the message never repeats what was written."""
    if value is not None and not _ENV.fullmatch(value):
        raise at.error(
            path,
            f"{'.'.join(map(str, path))} must be `env:NAME`, the name of an environment variable{besides}; "
            "a secret in this file would end in backups and version control",
        )


def _named(name: str, kind: str, word: str, path: tuple[str | int, ...], at: At) -> None:
    if name not in known(kind):
        hint = _near(name, known(kind)) or f"; known: {', '.join(sorted(known(kind)))}"
        raise at.error(path, f"there is no {word} {name[:80]!r}{hint}")


def _near(name: str, names: Mapping[str, Any] | list[str] | frozenset[str]) -> str:
    near = get_close_matches(name, list(names), 1, 0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
