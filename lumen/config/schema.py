"""What a configuration file may say, as frozen dataclasses; `load.py` fills them, nothing else makes them up.

Every field has a default that serves, so an empty file is a valid configuration. Durations are seconds,
sizes are bytes; the file may write `300ms`, `2m`, `32MiB` (see `units.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

DURATION = "duration"
SIZE = "size"
Duration = Annotated[float, DURATION]
Size = Annotated[int, SIZE]


@dataclass(frozen=True, slots=True)
class Server:
    """The endpoint itself."""

    host: str = "127.0.0.1"
    port: int = 5866
    max_body: Size = 32 * 1024 * 1024
    header_timeout: Duration = 15.0
    body_timeout: Duration = 30.0
    idle_timeout: Duration = 75.0
    client_stall: Duration = 300.0
    keepalive: Duration = 10.0
    drain: Duration = 30.0
    max_in_flight: int = 4096


@dataclass(frozen=True, slots=True)
class Auth:
    """Who may call. `required: false` is accepted only while the host is a loopback address."""

    required: bool = True


@dataclass(frozen=True, slots=True)
class Model:
    """One local model. `source`: `builtin:tiny`, a path to a GGUF file, or `hf://org/repo[:quant]`."""

    source: str
    engine: str = "llamacpp"
    draft: str | None = None
    context: int | None = None
    slots: int | None = None
    replicas: int = 1
    threads: int | None = None
    gpu_layers: int | None = None
    kv_type: Literal["f16", "q8_0", "q4_0"] = "f16"
    embedding: bool = False
    pooling: Literal["none", "mean", "cls", "last", "rank"] | None = None
    start_timeout: Duration = 600.0
    queue: int = 512
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Provider:
    """One remote vendor or any OpenAI-compatible server by URL. `key`: `env:NAME`, never the key itself."""

    base_url: str
    dialect: str = "openai"
    key: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    token_ids: bool = False


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Limits of one request, each on its own. `None`: the server's default for that limit."""

    connect: Duration | None = None
    headers: Duration | None = None
    first_token: Duration | None = None
    gap: Duration | None = None
    total: Duration | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """One way to serve a route: a local model's name or `provider/model`."""

    model: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Route:
    """The public model name a client asks for."""

    targets: tuple[Target, ...]
    policy: str = "weighted"
    defaults: Mapping[str, Any] = field(default_factory=dict)
    timeouts: Timeouts = field(default_factory=Timeouts)


@dataclass(frozen=True, slots=True)
class Logging:
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["pretty", "json"] = "pretty"


@dataclass(frozen=True, slots=True)
class Hub:
    """Where model files come from. `endpoint` overrides the public hub, for mirrors and tests."""

    endpoint: str | None = None
    token: str | None = None
    connections: int = 4


@dataclass(frozen=True, slots=True)
class Config:
    """A whole configuration. Local models and `provider/model` are routes of their own without being listed."""

    server: Server = field(default_factory=Server)
    auth: Auth = field(default_factory=Auth)
    profile: str | None = None
    models: Mapping[str, Model] = field(default_factory=dict)
    providers: Mapping[str, Provider] = field(default_factory=dict)
    routes: Mapping[str, Route] = field(default_factory=dict)
    timeouts: Timeouts = field(
        default_factory=lambda: Timeouts(connect=5.0, headers=60.0, first_token=60.0, gap=30.0, total=900.0)
    )
    logging: Logging = field(default_factory=Logging)
    hub: Hub = field(default_factory=Hub)
