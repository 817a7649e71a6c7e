"""Composition root: the only file that names concrete classes. Builds the gateway, runs it, takes it down."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import json
import os
import random
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

import psutil
from aiohttp.web import ServerRunner, TCPSite, UnixSite

import lumen
from lumen.config.load import load
from lumen.config.schema import Config, Model
from lumen.core.errors import ConfigError, LumenError, RequestError
from lumen.engines.base import ModelFiles
from lumen.engines.registry import engine
from lumen.files import write_atomic
from lumen.gateway import admin, app, overview
from lumen.gateway.access import AccessLog
from lumen.gateway.http import Ingress
from lumen.gateway.overview import Served
from lumen.gateway.state import State
from lumen.gateway.table import Origins, Table
from lumen.gateway.upstream import Local, Remote, Upstream
from lumen.hardware import Profile, detect, load_profiles, match
from lumen.hub import resolve
from lumen.keys import load as load_keys
from lumen.paths import Paths, paths
from lumen.providers.base import Dialect, dialect
from lumen.tiny import NAME as TINY
from lumen.workers.supervisor import ReplicaState, Supervisor

TINY_SOURCE = "builtin:tiny"
TINY_NOTICE = (
    "Only the built-in demonstration model is served: it is tiny, knows little and is meant for trying things out."
)


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line may override."""

    config: Path | None = None
    host: str | None = None
    port: int | None = None
    profile: str | None = None


class AlreadyRunning(LumenError):
    status = 409
    code = "already_running"


class Runtime:
    """One running gateway: the configuration in force, the supervisor, the upstreams, the two servers."""

    def __init__(self, options: Options, where: Paths) -> None:
        self._options = options
        self._paths = where
        self._started = time.time()
        self._url = ""
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._lock: IO[str] | None = None
        config = self._read_config()
        self._served = Served(config)
        self._profile, self._why = _pick_profile(options.profile or config.profile)
        self._upstreams: dict[tuple[str, ...], Upstream] = {}
        self._supervisor = Supervisor(engine, where.run_dir, where.log_dir, self._replica_changed)
        self._state = State(
            config=config,
            table=Table(Config(), Origins({}, {}, _local_dialect()), int(self._started)),
            ring=None,
            readiness=self,
            access=AccessLog(
                _to_stderr,
                pretty=config.logging.format == "pretty",
                enabled=config.logging.level in ("debug", "info"),
            ),
            draw=random.Random(),
        )

    # -- life ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until a signal or `stop`, then drain.

        Raises:
            AlreadyRunning: another gateway holds this run folder.
            ConfigError: the port cannot be bound, or the configuration cannot be used.
        """
        self._paths.make()
        self._lock = _take_lock(self._paths.run_dir / "gateway.lock")
        self._handle_signals()
        server = self._served.config.server
        ingress = Ingress(
            app.handler(self._state), header_timeout=server.header_timeout, idle_timeout=server.idle_timeout
        )
        public = ServerRunner(ingress, shutdown_timeout=0.5)
        private = ServerRunner(Ingress(admin.handler(self), header_timeout=5, idle_timeout=60), shutdown_timeout=0.5)
        try:
            await public.setup()
            await private.setup()
            await self._listen(public, private)
            await self._supervisor.start()
            await self._apply(self._served.config)
            self._announce()
            gc.collect()
            # What lives from here on is the program itself: keep it out of every later collection.
            gc.freeze()
            await self._stopping.wait()
            await self._drain(public)
        finally:
            self._paths.gateway_file.unlink(missing_ok=True)
            self._paths.admin_socket.unlink(missing_ok=True)
            await public.cleanup()
            await private.cleanup()
            for upstream in self._upstreams.values():
                upstream.close()
            await self._supervisor.stop(0.0 if self._hurry.is_set() else self._served.config.server.drain)
            self._state.access.flush()

    async def _listen(self, public: ServerRunner, private: ServerRunner) -> None:
        server = self._served.config.server
        try:
            await TCPSite(public, server.host, server.port, backlog=1024, reuse_address=True).start()
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {server.host}:{server.port} ({error.strerror or 'address in use'}); "
                "choose another with --port"
            ) from None
        host, port = public.addresses[0][:2]
        self._url = f"http://{'[' + host + ']' if ':' in host else host}:{port}/v1"
        self._paths.admin_socket.unlink(missing_ok=True)
        umask = os.umask(0o177)
        try:
            await UnixSite(private, str(self._paths.admin_socket)).start()
        finally:
            os.umask(umask)

    def _announce(self) -> None:
        told = {"pid": os.getpid(), "started": self._started, "url": self._url, "argv": sys.argv}
        write_atomic(self._paths.gateway_file, json.dumps(told).encode(), mode=0o600)
        _log(f"listening on {self._url}, profile {self._profile.name} ({self._why})")

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._signalled)

    def _signalled(self) -> None:
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    async def _drain(self, public: ServerRunner) -> None:
        """Stop accepting, let running answers finish within the configured time; a second signal ends it now."""
        state = self._state
        state.draining = True
        for site in list(public.sites):
            await site.stop()
        _log(f"draining {state.counters.in_flight} requests")
        state.idle.clear()
        if state.counters.in_flight:
            waits = [asyncio.ensure_future(e.wait()) for e in (state.idle, self._hurry)]
            await asyncio.wait(waits, timeout=self._served.config.server.drain, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()

    # -- configuration ---------------------------------------------------------------------------------------

    def _read_config(self) -> Config:
        config = load(self._options.config)
        server = config.server
        if self._options.host is not None:
            server = replace(server, host=self._options.host)
        if self._options.port is not None:
            server = replace(server, port=self._options.port)
        config = replace(config, server=server)
        if not config.models and not config.routes:
            config = replace(config, models={TINY: Model(source=TINY_SOURCE)})
        return config

    async def _apply(self, config: Config) -> None:
        """Put a configuration in force: models to the supervisor, a new table for the requests to come."""
        wanted: dict[str, tuple[Model, ModelFiles]] = {}
        missing: dict[str, str] = {}
        for name, model in config.models.items():
            files = await asyncio.to_thread(resolve, model.source, self._paths)
            if files is None:
                missing[name] = f"not on this disk yet; run: lumen pull {model.source}"
            else:
                wanted[name] = (self._profile.apply(model), replace(files, name=name))
        if not wanted and missing:
            # Something must answer while the real model is on its way.
            tiny = await asyncio.to_thread(resolve, TINY_SOURCE, self._paths)
            assert tiny is not None
            wanted[TINY] = (self._profile.apply(Model(source=TINY_SOURCE)), replace(tiny, name=TINY))
        origins = self._origins(config, wanted)
        table = Table(config, origins, int(time.time()))
        ring = load_keys(self._paths.keys_file) if config.auth.required else None
        await self._supervisor.apply(wanted)
        sources = {name: model.source for name, (model, _) in wanted.items()}
        notice = TINY_NOTICE if set(sources) == {TINY} else None
        self._served = Served(config, sources, missing, notice, TINY_SOURCE)
        self._state.config, self._state.table, self._state.ring = config, table, ring

    def _origins(self, config: Config, models: Mapping[str, Any]) -> Origins:
        local = {name: self._upstream(("local", name)) for name in (*models, *config.models)}
        remote: dict[str, tuple[Upstream, Dialect, bool]] = {}
        for name, provider in config.providers.items():
            headers = dict(provider.headers)
            if provider.key is not None:
                variable = provider.key.removeprefix("env:")
                secret = os.environ.get(variable)
                if not secret:
                    raise ConfigError(f"provider '{name}' takes its key from ${variable}, which is not set")
                headers["Authorization"] = f"Bearer {secret}"
            pairs = tuple(f"{key}\n{value}" for key, value in sorted(headers.items()))
            upstream = self._upstream(("remote", provider.base_url, *pairs))
            speaks = dialect(provider.dialect, token_ids=provider.token_ids, local=provider.token_ids)
            remote[name] = (upstream, speaks, provider.token_ids)
        return Origins(local, remote, _local_dialect())

    def _upstream(self, identity: tuple[str, ...]) -> Upstream:
        """The upstream of this identity; kept across reloads, so running streams and warm connections stay."""
        found = self._upstreams.get(identity)
        if found is None:
            if identity[0] == "local":
                found = Local(self._supervisor, identity[1])
            else:
                headers = dict(pair.split("\n", 1) for pair in identity[2:])
                found = Remote(identity[1], headers)
            self._upstreams[identity] = found
        return found

    # -- what requests and operators ask -------------------------------------------------------------------

    def ready(self) -> dict[str, bool]:
        return self._served.ready(self._supervisor.states())

    def status(self) -> dict[str, Any]:
        served, states = self._served, self._supervisor.states()
        return {
            "version": lumen.__version__,
            "pid": os.getpid(),
            "url": self._url,
            "started": self._started,
            "uptime_s": round(time.time() - self._started, 1),
            "ready": all(served.ready(states).values()),
            "draining": self._state.draining,
            "config": str(self._options.config or self._paths.config_file),
            "profile": {"name": self._profile.name, "why": self._why},
            "models": overview.models_status(served, states),
            "routes": [entry.name for entry in self._state.table.entries()],
            "requests": overview.requests_status(self._state.counters),
            "rss_bytes": psutil.Process().memory_info().rss,
            "notice": served.notice,
        }

    def routes(self) -> list[dict[str, Any]]:
        return overview.routes(self._state.table)

    def models(self) -> list[dict[str, Any]]:
        return overview.names(self._served, self._supervisor.states(), self._state.table)

    async def reload(self) -> dict[str, Any]:
        config = self._read_config()
        before = asdict(self._served.config)
        await self._apply(config)
        after = asdict(self._served.config)
        changed = [name for name in after if after[name] != before[name]]
        _log("configuration reloaded" + (f": {', '.join(changed)}" if changed else ""))
        return {"changed": changed}

    async def restart(self, model: str) -> dict[str, Any]:
        if model not in self._served.sources:
            raise RequestError(f"There is no local model '{model[:128]}'.", status=404, param="model")
        await self._supervisor.restart(model)
        return {"restarting": model}

    def _replica_changed(self, state: ReplicaState) -> None:
        _log(f"model {state.model} replica {state.index}: {state.state}" + (f" ({state.why})" if state.why else ""))

    def stop(self) -> dict[str, Any]:
        self._signalled()
        return {"stopping": True, "in_flight": self._state.counters.in_flight}


def _pick_profile(name: str | None) -> tuple[Profile, str]:
    profiles = load_profiles()
    if name is None:
        return match(detect(), profiles)
    for profile in profiles:
        if profile.name == name:
            return profile, "named in the configuration"
    known = ", ".join(profile.name for profile in profiles)
    raise ConfigError(f"there is no hardware profile '{name}'; choose one of: {known}")


def _local_dialect() -> Dialect:
    return dialect("openai", token_ids=True, local=True)


def _take_lock(path: Path) -> IO[str]:
    """Held until the process ends, however it ends."""
    handle = path.open("a")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        raise AlreadyRunning("another Lumen gateway is already running here; see: lumen status") from None
    return handle


def _log(text: str) -> None:
    _to_stderr(f"{time.strftime('%H:%M:%S')} {text}\n")


def _to_stderr(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def serve(options: Options) -> int:
    """Run the gateway in this process until it is stopped; 0 after a clean end."""
    # Imported here: nothing else in the program may depend on the loop's implementation.
    import uvloop

    async def main() -> None:
        await Runtime(options, paths()).run()

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
    except (ConfigError, AlreadyRunning, PermissionError) as error:
        _log(f"error: {error}")
        return 1
    return 0
