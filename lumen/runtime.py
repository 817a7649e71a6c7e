"""Composition root: the only file that names concrete classes. Builds the gateway, runs it, takes it down."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import json
import os
import random
import signal
import socket
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

import psutil
from aiohttp.web import ServerRunner, SockSite, UnixSite

import lumen
from lumen.config.checks import check
from lumen.config.load import load, locate
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
from lumen.gateway.table import Table
from lumen.hardware import detect, load_profiles, match, pick
from lumen.hub import resolve
from lumen.keys import KeyRing
from lumen.keys import load as load_keys
from lumen.origins import Upstreams, hidden
from lumen.paths import Paths, paths
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
        named, machine, profiles = options.profile or config.profile, detect(), load_profiles()
        self._profile, self._why = pick(named, machine, profiles) if named else match(machine, profiles)
        self._supervisor = Supervisor(
            engine, where.run_dir, where.log_dir, self._replica_changed, hidden=hidden(config)
        )
        self._upstreams = Upstreams(self._supervisor)
        self._state = State(
            config=config,
            table=Table(Config(), self._upstreams.none(), int(self._started)),
            ring=KeyRing(),
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
            # Bound first, so that a port in use is told before an engine is started; served last, so that the
            # first request finds everything in place.
            listening = self._bind()
            await self._listen_admin(private)
            await self._supervisor.start()
            await self._apply(self._served.config)
            await SockSite(public, listening, backlog=1024).start()
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
            self._upstreams.close()
            await self._supervisor.stop(0.0 if self._hurry.is_set() else self._served.config.server.drain)
            self._state.access.flush()

    def _bind(self) -> socket.socket:
        server = self._served.config.server
        family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
        try:
            made = socket.create_server((server.host, server.port), family=family, backlog=1024)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {server.host}:{server.port} ({error.strerror or error}); choose another with --port"
            ) from None
        host, port = made.getsockname()[:2]
        self._url = f"http://{'[' + host + ']' if ':' in host else host}:{port}/v1"
        return made

    async def _listen_admin(self, private: ServerRunner) -> None:
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
        config = load(locate(self._options.config, self._paths.config_file))
        server = config.server
        if self._options.host is not None:
            server = replace(server, host=self._options.host)
        if self._options.port is not None:
            server = replace(server, port=self._options.port)
        config = replace(config, server=server)
        asked = any(target.model == TINY for route in config.routes.values() for target in route.targets)
        if TINY not in config.models and (asked or not (config.models or config.routes)):
            config = replace(config, models={**config.models, TINY: Model(source=TINY_SOURCE)})
        # Once more: what the command line laid over the file must be as sound as the file.
        check(config)
        return config

    async def _apply(self, config: Config) -> None:
        """Put a configuration in force: models to the supervisor, a new table for the requests to come."""
        wanted: dict[str, tuple[Model, ModelFiles]] = {}
        missing: dict[str, str] = {}
        base = (self._options.config or self._paths.config_file).parent
        for name, model in config.models.items():
            files = await asyncio.to_thread(resolve, model.source, self._paths, draft=model.draft, base=base)
            if files is None:
                missing[name] = f"not on this disk yet; run: lumen pull {model.source}"
            else:
                wanted[name] = (self._profile.apply(model), replace(files, name=name))
        if not wanted and missing:
            # Something must answer while the real model is on its way.
            tiny = await asyncio.to_thread(resolve, TINY_SOURCE, self._paths)
            assert tiny is not None
            wanted[TINY] = (self._profile.apply(Model(source=TINY_SOURCE)), replace(tiny, name=TINY))
        table = Table(config, self._upstreams.of(config, {*wanted, *config.models}), int(time.time()))
        ring = load_keys(self._paths.keys_file) if config.auth.required else None
        await self._supervisor.apply(wanted)
        sources = {name: model.source for name, (model, _) in wanted.items()}
        notice = TINY_NOTICE if set(sources) == {TINY} else None
        self._served = Served(config, sources, missing, notice, TINY_SOURCE)
        self._state.config, self._state.table, self._state.ring = config, table, ring

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
