"""What is being served: the configuration in force and everything it came to. Part of the composition root.

`runtime.py` gives it sockets and a life; requests see its `State`, operators call its methods.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import psutil

import lumen
from lumen.audit import AuditLog
from lumen.catalogue import Catalogue
from lumen.config.checks import check
from lumen.config.load import load, locate
from lumen.config.schema import Config, Model
from lumen.core.errors import ConfigError, LumenError, RequestError
from lumen.engines.base import ModelFiles
from lumen.engines.registry import engine
from lumen.gateway import overview
from lumen.gateway.access import AccessLog
from lumen.gateway.billing import Billing
from lumen.gateway.health import Health
from lumen.gateway.live import Live
from lumen.gateway.metrics import Gauges, Metrics, Snapshot
from lumen.gateway.overview import Served
from lumen.gateway.state import State
from lumen.gateway.table import Table
from lumen.gateway.upkeep import Keeper, prober
from lumen.hardware import detect, load_profiles, match, pick
from lumen.hardware.readings import Monitor
from lumen.hub import resolve
from lumen.keys import KeyRing
from lumen.keys import load as load_keys
from lumen.origins import Upstreams, hidden, offered, unlock
from lumen.paths import Paths
from lumen.tiny import NAME as TINY
from lumen.workers.machine import Machine as Memory
from lumen.workers.supervisor import ReplicaState, Supervisor

# Requests and failovers in one frame of the live view.
_MOST_SHOWN = 100
TINY_SOURCE = "builtin:tiny"
TINY_NOTICE = (
    "Only the built-in demonstration model is served: it is tiny, knows little, and is there to try things out."
)


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line may override."""

    config: Path | None = None
    host: str | None = None
    port: int | None = None
    profile: str | None = None


class Service:
    """Holds the parts together. `stop`: how an operator's wish to stop reaches the runtime.

    Raises:
        ConfigError: the configuration cannot be used.
    """

    def __init__(self, options: Options, where: Paths, stop: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self._options = options
        self._paths = where
        self._stop = stop
        self._started = time.time()
        self._serving = False
        self.url = ""
        config = self.read_config()
        self._served = Served(config)
        named, profiles = options.profile or config.profile, load_profiles()
        self._machine = machine = detect()
        self.profile, self.why = pick(named, machine, profiles) if named else match(machine, profiles)
        self._memory = Memory(Monitor(), where.memory_file)
        self._supervisor = Supervisor(
            engine,
            where.run_dir,
            where.log_dir,
            self._replica_changed,
            memory=self._memory,
            kept=where.pool_file,
            hidden=hidden(config),
        )
        self._upstreams = Upstreams(self._supervisor)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._applying = asyncio.Lock()
        draw = random.Random()
        health = Health(draw.random, loop.time(), self._started)
        self._access = AccessLog(
            to_stderr,
            pretty=config.logging.format == "pretty",
            enabled=config.logging.level in ("debug", "info"),
        )
        self.metrics, self.live = Metrics(), Live()
        self._process = psutil.Process()
        self._audit = AuditLog(where.audit_file)
        self._keeper = Keeper(health, where.state_dir / "targets.json", say)
        self.state = State(
            config=config,
            table=Table(Config(), self._upstreams.none(), int(self._started)),
            ring=KeyRing(),
            readiness=self,
            observers=(self._access, self.metrics, self.live),
            draw=draw,
            health=health,
            billing=Billing(where.ledger_file, told=_ledger_told),
            expose=self._expose,
        )

    @property
    def config(self) -> Config:
        return self._served.config

    # -- life ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Sweep what an earlier run left, open the ledger, and put the configuration in force."""
        self._keeper.load(asyncio.get_running_loop().time())
        await self.state.billing.start()
        await self._supervisor.start()
        await self.apply(self._served.config)
        self._serving = True
        self._own(self._keeper.run())
        self._own(self._memory.watch())
        self._own(prober(self.state.health, self._upstreams.alive))

    async def close(self, grace: float) -> None:
        """Engines have `grace` seconds; what was learned and spent is written."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._upstreams.close()
        await self._supervisor.stop(grace)
        await self._memory.close()
        await self.state.billing.stop()
        self._keeper.save()
        self._access.flush()

    def _own(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- configuration ---------------------------------------------------------------------------------------

    def read_config(self) -> Config:
        """The file, what the command line lays over it, and the built-in model where nothing else is asked for."""
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

    async def apply(self, config: Config) -> None:
        """Put a configuration in force: models to the supervisor, a new table for the requests to come."""
        async with self._applying:
            wanted, missing = await self._files(config)
            if TINY not in wanted and await self._stopgap(wanted):
                # First, so that `lumen/auto` is answered while the real model is on its way.
                wanted = {TINY: await self._tiny(), **wanted}
            # Both may take long: a keyring can ask its user, and the price list is a third of a second to read.
            opened = await asyncio.to_thread(unlock, config)
            catalogue = Catalogue({name: provider.vendor for name, provider in opened.items()})
            await asyncio.to_thread(catalogue.load)
            names = list(dict.fromkeys((*wanted, *config.models)))
            settled = replace(config, models={**config.models, **{name: model for name, (model, _) in wanted.items()}})
            table = Table(config, self._upstreams.of(settled, names, opened), int(time.time()))
            table.offer(await asyncio.to_thread(offered, catalogue, opened))
            ring = load_keys(self._paths.keys_file) if config.auth.required else None
            # What a model costs is not what a process runs.
            processes = {name: (replace(model, price=None), files) for name, (model, files) in wanted.items()}
            reserved = {target.model for route in config.routes.values() if route.reserve for target in route.targets}
            await self._memory.adopt(processes, reserved)
            await self._supervisor.apply(processes)
            sources = {name: model.source for name, (model, _) in wanted.items()}
            notice = TINY_NOTICE if set(sources) == {TINY} else None
            self._served = Served(config, sources, missing, notice, TINY_SOURCE)
            self.state.config, self.state.table, self.state.ring = config, table, ring
            self.state.billing.configure(config, ring)

    async def _files(self, config: Config) -> tuple[dict[str, tuple[Model, ModelFiles]], dict[str, str]]:
        """The models whose files are here, and what to do about the others."""
        wanted: dict[str, tuple[Model, ModelFiles]] = {}
        missing: dict[str, str] = {}
        base = (self._options.config or self._paths.config_file).parent
        for name, model in config.models.items():
            files = await asyncio.to_thread(resolve, model.source, self._paths, draft=model.draft, base=base)
            if files is None:
                missing[name] = f"not on this disk yet; run: lumen pull {model.source}"
            else:
                wanted[name] = await asyncio.to_thread(self._settled, model, replace(files, name=name))
        return wanted, missing

    def _settled(self, model: Model, files: ModelFiles) -> tuple[Model, ModelFiles]:
        """What the profile, then the model's files and this machine, decide of what its user left open. Blocking."""
        try:
            return engine(model.engine).settle(files, self.profile.apply(model), self._machine), files
        except ConfigError as error:
            raise ConfigError(f"model '{files.name}': {error.message}") from None

    async def _stopgap(self, wanted: dict[str, tuple[Model, ModelFiles]]) -> bool:
        """Whether the built-in model must answer for now: real ones are configured, but none of them does yet."""
        if not self._served.config.models:
            return False
        if not wanted:
            return bool(self._served.missing) or TINY in self._served.sources or not self._served.sources
        ready = self._served.ready(self._supervisor.states())
        return TINY in self._served.sources and not any(ready.get(name) for name in wanted)

    async def _tiny(self) -> tuple[Model, ModelFiles]:
        files = await asyncio.to_thread(resolve, TINY_SOURCE, self._paths)
        assert files is not None
        return self.profile.apply(Model(source=TINY_SOURCE)), replace(files, name=TINY)

    def _replica_changed(self, state: ReplicaState) -> None:
        # It waits for its turn, which it usually has at once.
        if state.state != "waiting":
            say(f"model {state.model} replica {state.index}: {state.state}" + (f" ({state.why})" if state.why else ""))
        stopgap = TINY in self._served.sources and TINY not in self._served.config.models
        if stopgap and state.state == "ready" and state.model != TINY:
            self._own(self.apply(self._served.config))

    # -- what requests and operators ask -------------------------------------------------------------------

    def ready(self) -> dict[str, bool]:
        return self._served.ready(self._supervisor.states(), self._supervisor.standings())

    def memory(self) -> dict[str, Any]:
        return self._memory.describe()

    def status(self) -> dict[str, Any]:
        served, states, standings = self._served, self._supervisor.states(), self._supervisor.standings()
        return {
            "version": lumen.__version__,
            "pid": os.getpid(),
            "url": self.url,
            "started": self._started,
            "uptime_s": round(time.time() - self._started, 1),
            "ready": self._serving and all(served.ready(states, standings).values()),
            "draining": self.state.draining,
            "config": str(self._options.config or self._paths.config_file),
            "profile": {"name": self.profile.name, "why": self.why},
            "models": overview.models_status(served, states, standings),
            "routes": [entry.name for entry in self.state.table.entries()],
            "requests": overview.requests_status(self.state.counters),
            "targets": self.targets(),
            "failovers": self.state.health.recent_failovers()[:20],
            "providers_missing_keys": dict(self._upstreams.missing),
            "money": self.state.billing.status(),
            "rss_bytes": self._process.memory_info().rss,
            "notice": served.notice,
        }

    def _expose(self) -> Snapshot:
        gauges = overview.gauges(self.state, self._served, self._supervisor.states(), self.targets())
        return Snapshot(self.metrics, Gauges(gauges))

    def targets(self) -> list[dict[str, Any]]:
        return self.state.health.snapshot(asyncio.get_running_loop().time())

    def failovers(self) -> list[dict[str, Any]]:
        return self.state.health.recent_failovers()

    def routes(self) -> list[dict[str, Any]]:
        return overview.routes(self.state.table, self._served.config.routes, self.state.health.late)

    def models(self) -> list[dict[str, Any]]:
        return overview.names(self._served, self._supervisor.states(), self.state.table)

    def frame(self, number: int) -> dict[str, Any]:
        """What goes on right now, with the requests that ended after the `number`-th; see `gateway/live.py`."""
        now, live, state = asyncio.get_running_loop().time(), self.live, self.state
        left_out, ended = live.since(number, _MOST_SHOWN)
        return {
            "at": time.time(),
            "number": live.number,
            "left_out": left_out,
            "ended": ended,
            "active": [one.shown(now) for one in islice(state.active.values(), _MOST_SHOWN)],
            "routes": live.routes(now),
            "requests": overview.requests_status(state.counters),
            "targets": self.targets(),
            "models": overview.models_status(self._served, self._supervisor.states(), self._supervisor.standings()),
            "failovers": state.health.recent_failovers()[:_MOST_SHOWN],
            "money": state.billing.status(),
            "rss_bytes": self._process.memory_info().rss,
            "draining": state.draining,
        }

    def request(self, request_id: str) -> dict[str, Any]:
        """One of the last requests with all its tries.

        Raises:
            RequestError: it is not kept, or not any more.
        """
        found = self.live.find(request_id)
        if found is None:
            raise RequestError("There is no such request among the last ones.", status=404, param="request")
        return found

    def cancel(self, request_id: str) -> dict[str, Any]:
        """End a request under way; its client sees the connection end.

        Raises:
            RequestError: it is not under way.
        """
        active = self.state.active.get(request_id)
        if active is None or active.task is None:
            raise RequestError("There is no such request under way.", status=404, param="request")
        active.task.cancel()
        return {"cancelled": request_id}

    def steer(self, name: str, action: str) -> dict[str, Any]:
        """Eject, drain or restore a target by hand.

        Raises:
            RequestError: no such action.
        """
        known = {target.name for entry in self.state.table.entries() for target in entry.targets}
        now, health = asyncio.get_running_loop().time(), self.state.health
        if name not in known and name.partition("/")[0] not in self._served.config.providers:
            raise RequestError(f"There is no target '{name[:128]}'; see: lumen target ls", status=404, param="target")
        match action:
            case "eject":
                health.eject(name, now, None, "by the operator")
            case "drain":
                health.drain(name, now, "by the operator")
            case "restore":
                health.restore(name, now)
            case _:
                raise RequestError("Send 'action' as eject, drain or restore.", param="action")
        return {"target": name, "action": action}

    async def reload(self) -> dict[str, Any]:
        config = self.read_config()
        before = asdict(self._served.config)
        await self.apply(config)
        after = asdict(self._served.config)
        changed = [name for name in after if after[name] != before[name]]
        say("configuration reloaded" + (f": {', '.join(changed)}" if changed else ""))
        return {"changed": changed}

    def sleep(self, model: str) -> dict[str, Any]:
        """Have a local model sleep as soon as its answers are done.

        Raises:
            RequestError: no such model.
        """
        self._supervisor.sleep(self._local(model))
        return {"model": model, "sleeps": True}

    def wake(self, model: str) -> dict[str, Any]:
        """Have a local model loaded.

        Raises:
            RequestError: no such model.
        """
        self._supervisor.wake(self._local(model))
        return {"model": model, "wakes": True}

    async def restart(self, model: str) -> dict[str, Any]:
        await self._supervisor.restart(self._local(model))
        return {"restarting": model}

    def _local(self, model: str) -> str:
        if model not in self._served.sources:
            raise RequestError(f"There is no local model '{model[:128]}'.", status=404, param="model")
        return model

    def stop(self) -> dict[str, Any]:
        self._stop()
        return {"stopping": True, "in_flight": self.state.counters.in_flight}

    async def note(self, action: str, *given: str) -> None:
        """Write to the audit log what an operator had done. Where that fails it is told, and what was done stands."""
        try:
            # The admin socket opens only to the user the gateway runs as.
            await asyncio.to_thread(self._audit.add, action, " ".join(given), getpass.getuser())
        except (OSError, TimeoutError) as error:
            say(f"the audit log cannot be written: {error}")


class AlreadyRunning(LumenError):
    status = 409
    code = "already_running"


def _ledger_told(why: str | None) -> None:
    say("the ledger is well again" if why is None else f"the ledger is in trouble, paid requests are refused: {why}")


def say(text: str) -> None:
    """One line to the log."""
    to_stderr(f"{time.strftime('%H:%M:%S')} {text}\n")


def to_stderr(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
