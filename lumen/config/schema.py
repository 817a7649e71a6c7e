"""What a configuration file may say, as frozen dataclasses; `load.py` fills them, nothing else makes them up.

Every field has a default that serves, so an empty file is a valid configuration. Durations are seconds,
sizes are bytes; the file may write `300ms`, `2m`, `32MiB`, and `1%` for a share in [0, 1] (see `units.py`). Money is
pico-dollars (see `core/money.py`): the price of a token is written `0.60/1M` or as plain dollars a million, an amount
`0.05usd`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

from lumen.core.roles import Role

DURATION = "duration"
SIZE = "size"
RATE = "rate"
AMOUNT = "amount"
SHARE = "share"
Duration = Annotated[float, DURATION]
Size = Annotated[int, SIZE]
Rate = Annotated[int, RATE]
Amount = Annotated[int, AMOUNT]
Share = Annotated[float, SHARE]
Prefill = Literal["none", "prefix", "continue", "native"]
MaxTokensField = Literal["max_tokens", "max_completion_tokens", "as_given"]
Retention = Literal["usual", "none"]
Priority = Literal["low", "normal", "high"]
PRIORITIES: tuple[Priority, ...] = get_args(Priority)


@dataclass(frozen=True, slots=True)
class Budget:
    """Hard limits of money, on the whole server or one route. `None`: no such limit.

    `max_cost`: the most that a token of any target may cost; dearer targets are left out. The others are amounts: of
    one request, retries and continuations included, of a minute, day and month of UTC, and of all time.
    """

    max_cost: Rate | None = None
    max_request: Amount | None = None
    per_minute: Amount | None = None
    daily: Amount | None = None
    monthly: Amount | None = None
    credit: Amount | None = None


@dataclass(frozen=True, slots=True)
class Acme:
    """Certificates from an ACME authority (RFC 8555), with the extra `lumen-serve[acme]`; see `gateway/acme.py`.

    `domains`: the names on the certificate. `email`: told to the authority. `directory`: where the authority is;
    `directory_ca`: PEM of those that vouch for that address, where the usual ones do not. `http_port`: where its
    challenges (http-01) are answered while a certificate is ordered; they come to port 80 of each domain.
    """

    domains: tuple[str, ...]
    email: str | None = None
    directory: str = "https://acme-v02.api.letsencrypt.org/directory"
    directory_ca: str | None = None
    http_port: int = 80


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS of the endpoint: PEM files, read anew when they change; relative to the configuration's folder.

    `cert`: the certificate with those between it and the authority, `key`: its key; or `acme`, which gets both.
    `client_ca`: authorities, one of which must have signed the certificate that every client then has to show.
    """

    cert: str | None = None
    key: str | None = None
    client_ca: str | None = None
    acme: Acme | None = None

    @property
    def on(self) -> bool:
        """Whether the endpoint speaks TLS."""
        return self.cert is not None or self.acme is not None


@dataclass(frozen=True, slots=True)
class Server:
    """The endpoint itself. `metrics`: who may read `/metrics`: whoever has a key, everyone, or nobody.

    `hosts`: names it is addressed by, besides this machine's own; `*.example.com` for all below, `*` for any.
    `cors`: origins of web pages that may read answers, exactly as browsers send them.
    `trusted_proxies`: addresses and networks whose `X-Forwarded-For` and `-Proto` are believed. `public_url`: where
    browsers reach it, for sign-on. `remote_admin`: the admin API on the endpoint too, over TLS only.
    """

    host: str = "127.0.0.1"
    port: int = 5866
    max_body: Size = 32 * 1024 * 1024
    header_timeout: Duration = 15.0
    body_timeout: Duration = 25.0
    idle_timeout: Duration = 75.0
    client_stall: Duration = 300.0
    keepalive: Duration = 10.0
    drain: Duration = 30.0
    max_in_flight: int = 4096
    metrics: Literal["key", "open", "off"] = "key"
    tls: Tls = field(default_factory=Tls)
    hosts: tuple[str, ...] = ()
    cors: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    public_url: str | None = None
    remote_admin: bool = False
    budget: Budget = field(default_factory=Budget)

    @property
    def names(self) -> tuple[str, ...]:
        """By which it is addressed: those given, and those that its certificate is for."""
        return self.hosts if self.tls.acme is None else (*self.hosts, *self.tls.acme.domains)


@dataclass(frozen=True, slots=True)
class Oidc:
    """Sign-on of people at an OpenID Connect issuer, for the admin API from afar.

    `client_id`: this server's name there. `audience`: of the tokens that are accepted; default: the client's id.
    `client_secret`: `env:NAME`, where the issuer gave one. `scopes`: what is asked for. `groups_claim`: where a token
    says which groups its owner is in; dots lead into it. `roles`: what members of a group may do; who is in none of
    them is let nowhere. `session`: how long a sign-on in the browser lasts.
    """

    issuer: str
    client_id: str
    audience: str | None = None
    client_secret: str | None = None
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    groups_claim: str = "groups"
    roles: Mapping[str, Role] = field(default_factory=dict)
    session: Duration = 8 * 3600.0


@dataclass(frozen=True, slots=True)
class Auth:
    """Who may call. `required: false` is accepted only while the host is a loopback address."""

    required: bool = True
    oidc: Oidc | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """One local model. `source`: `builtin:tiny`, a path to a GGUF file, or `hf://org/repo[:quant]`.

    `adapters`: LoRA adapters by name, each a file or folder as `source` names one; served as `MODEL:NAME`.
    `gpus`: the cards it may use, divided among its replicas; empty: where there is room. `replicas`: how many it
    starts with; load and idleness move their number between `min_replicas` and `max_replicas` (default: not at all).
    `keep_alive`: seconds without a request until it sleeps, `idle_after`: until it is off; `None`: never.
    `min_residency`: seconds that a loaded model is not sent away, however much another one needs its memory.
    `pinned`: it never makes room for another. `reserve`: the memory of its replicas is kept free for them also while
    they are away. `prewarm`: load it before the hours in which it is usually asked for.
    """

    source: str
    engine: str = "llamacpp"
    draft: str | None = None
    adapters: Mapping[str, str] = field(default_factory=dict)
    context: int | None = None
    slots: int | None = None
    gpus: tuple[int, ...] = ()
    replicas: int = 1
    min_replicas: int | None = None
    max_replicas: int | None = None
    keep_alive: Duration | None = None
    idle_after: Duration | None = None
    min_residency: Duration = 5.0
    pinned: bool = False
    reserve: bool = False
    prewarm: bool = False
    threads: int | None = None
    gpu_layers: int | None = None
    kv_type: Literal["f16", "q8_0", "q4_0"] = "f16"
    embedding: bool = False
    pooling: Literal["none", "mean", "cls", "last", "rank"] | None = None
    start_timeout: Duration = 600.0
    queue: int = 512
    price: Pricing | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a target can do where that differs from what is known of it; `None`: as known.

    The fields are those of `lumen.providers.base.Capabilities`, where they are explained.
    """

    local: bool | None = None
    token_ids: bool | None = None
    prefill: Prefill | None = None
    prefill_echo: bool | None = None
    seed: bool | None = None
    samplers: bool | None = None
    logprobs: bool | None = None
    json_schema: bool | None = None
    tools: bool | None = None
    images: bool | None = None
    n: bool | None = None
    stream_usage: bool | None = None
    reasoning_content: bool | None = None
    extra_content: bool | None = None
    sampler_state: bool | None = None
    max_tokens_field: MaxTokensField | None = None
    tokenize: bool | None = None
    rerank: bool | None = None
    moderations: bool | None = None
    image_generation: bool | None = None
    image_edits: bool | None = None
    transcription: bool | None = None
    speech: bool | None = None


@dataclass(frozen=True, slots=True)
class PriceTier:
    """Prices of a whole request with more than `over` input tokens."""

    over: int
    input: Rate
    output: Rate = 0
    cached_input: Rate | None = None
    cache_write: Rate | None = None


@dataclass(frozen=True, slots=True)
class Pricing:
    """What a model costs. `cached_input`, `cache_write`: tokens read from or written to a cache; default: `input`.

    `per_second`: of the target's device. `per_image`: made. `per_audio_second`: of audio that was written down.
    """

    input: Rate = 0
    output: Rate = 0
    cached_input: Rate | None = None
    cache_write: Rate | None = None
    per_request: Amount = 0
    per_second: Amount = 0
    per_image: Amount = 0
    per_audio_second: Amount = 0
    tiers: tuple[PriceTier, ...] = ()


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """What differs for one model of a provider, or for all whose names match a pattern with `*`."""

    price: Pricing | None = None
    context: int | None = None
    capabilities: Abilities = field(default_factory=Abilities)


@dataclass(frozen=True, slots=True)
class Provider:
    """One remote vendor or any OpenAI-compatible server by URL.

    What is left out comes from the preset: the one named, else the one called like the provider.
    `key`: `env:NAME`, or `keyring` or `file` for one that `lumen provider add` keeps; never the key itself.
    `required`: without its key the gateway refuses to start, rather than leaving this provider's targets out.
    """

    base_url: str | None = None
    preset: str | None = None
    dialect: str | None = None
    key: str | None = None
    required: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    capabilities: Abilities = field(default_factory=Abilities)
    models: Mapping[str, RemoteModel] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Limits of one request, each on its own. `None`: the server's default for that limit.

    `ready`: how long a request may wait for a local model that starts or wakes; where nobody sets it, two minutes, or
    as long as the model's start may take where no other target could answer. A route that sets `first_token` alone
    means this wait as well, and with half of it `queue`. `queue`: how long it may wait for its turn at a local model
    that is busy (half of it where another target could answer); where it would likely be longer, it is refused at once.
    `min_rate`: tokens per second a stream must keep over its last ten or more seconds.
    """

    ready: Duration | None = None
    queue: Duration | None = None
    connect: Duration | None = None
    headers: Duration | None = None
    first_token: Duration | None = None
    gap: Duration | None = None
    total: Duration | None = None
    min_rate: float | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """One way to serve a route: a local model's name or `provider/model`."""

    model: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Rule:
    """A request for which `when` holds goes to `target` first; see `lumen/core/expression.py`."""

    when: str
    target: str


@dataclass(frozen=True, slots=True)
class Responses:
    """Whether answers of the Responses API are kept, so that requests can go on from them, and for how many days; of
    a route, `None` is as for all of them, and for all of them it is not, and 30.
    """

    store: bool | None = None
    days: int | None = None


@dataclass(frozen=True, slots=True)
class Payloads:
    """Requests and answers kept in daily files for `days`; see `gateway/payloads.py`.

    `share`: of the requests, from 0 to 1. `redact`: what is left out before anything is written, each a JSON path
    (`$.messages[*].content`) or a regular expression between slashes (`/[0-9]{16}/`).
    """

    days: int = 7
    redact: tuple[str, ...] = ()
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Route:
    """The public model name a client asks for.

    `policy`: a file in `lumen/routing`, or a Python file beside the configuration (`policy: mine.py`). `rules` come
    before it, the first that holds. `strong`: the target whose quality the others are measured against, and that
    answers where nothing else is known to do; default: the first. `quality`: what share of its quality a target must
    be expected to keep for a single request. `max_loss`: the quality that all requests together may lose against it,
    held with `confidence`.

    `priority`: who waits for a local model's slot goes by class first. `share_prefixes`: local models compute the
    beginning of a prompt once for all keys, rather than for each.

    `max_splices`: how often one streamed answer may go on at another target, or at the same one anew; a local model of
    which a process ended before the answer began is asked anew as often, and twice at least.
    `cover`: while a local target starts or wakes, the next target answers. `reserve`: the memory of its local models is
    kept free for them. `ttft`: targets whose first token usually
    takes longer are left out, see `core/pace.py`. `max_output`: the most tokens of an answer whose request names no
    limit, where money is limited; without it the route's own answers decide. `retention`: `none` keeps nothing of what
    its requests say, see `gateway/retention.py`. `payloads`: keep it in files. `learn`: `nightly` learns anew each
    night from the labels there are, see docs/learning.md.
    """

    targets: tuple[Target, ...]
    policy: str = "weighted"
    rules: tuple[Rule, ...] = ()
    strong: str | None = None
    quality: Share | None = None
    max_loss: Share = 0.01
    confidence: Share = 0.95
    defaults: Mapping[str, Any] = field(default_factory=dict)
    timeouts: Timeouts = field(default_factory=Timeouts)
    exact: bool = False
    hedge: Literal["off", "p95"] = "off"
    content_filter: Literal["stop", "next"] = "stop"
    max_splices: int = 2
    cover: bool = False
    priority: Priority = "normal"
    share_prefixes: bool = False
    reserve: bool = False
    budget: Budget = field(default_factory=Budget)
    ttft: Duration | None = None
    max_output: int | None = None
    learn: Literal["off", "nightly"] = "off"
    retention: Retention = "usual"
    payloads: Payloads | None = None
    responses: Responses = field(default_factory=Responses)


@dataclass(frozen=True, slots=True)
class Logging:
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["pretty", "json"] = "pretty"


@dataclass(frozen=True, slots=True)
class Ledger:
    """What every request cost. `keep_days`: days after which single attempts become sums of a day; `None`: never.
    `most_responses`: bytes that kept answers of the Responses API may have there.
    """

    keep_days: int | None = None
    most_responses: Size = 1024 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Hub:
    """Where model files come from. `endpoint` overrides the public hub, for mirrors and tests."""

    endpoint: str | None = None
    token: str | None = None
    connections: int = 4


@dataclass(frozen=True, slots=True)
class Traces:
    """OpenTelemetry traces over OTLP/HTTP, with the extra `lumen-serve[otlp]`; see `gateway/traces.py`.

    `endpoint`: where they go, such as `http://127.0.0.1:4318/v1/traces`; `None`: nowhere. `share`: of the requests that
    come without a sampled trace of their own, from 0 to 1. `headers`: sent along, values as `env:NAME`. `payloads`:
    whether spans hold what was asked and answered; never where `retention` is none.
    """

    endpoint: str | None = None
    share: float = 1.0
    headers: Mapping[str, str] = field(default_factory=dict)
    payloads: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """A whole configuration. Local models and `provider/model` are routes of their own without being listed.

    `retention`: `none` keeps nothing of what any request says, whatever its route and key say.
    """

    server: Server = field(default_factory=Server)
    auth: Auth = field(default_factory=Auth)
    profile: str | None = None
    models: Mapping[str, Model] = field(default_factory=dict)
    providers: Mapping[str, Provider] = field(default_factory=dict)
    routes: Mapping[str, Route] = field(default_factory=dict)
    timeouts: Timeouts = field(
        default_factory=lambda: Timeouts(
            queue=30.0, connect=5.0, headers=60.0, first_token=60.0, gap=30.0, total=900.0, min_rate=0.05
        )
    )
    logging: Logging = field(default_factory=Logging)
    hub: Hub = field(default_factory=Hub)
    ledger: Ledger = field(default_factory=Ledger)
    retention: Retention = "usual"
    responses: Responses = field(default_factory=Responses)
    traces: Traces = field(default_factory=Traces)
