"""What is being served: the configuration in force and everything it came to. Part of the composition root.

`runtime.py` gives it sockets and a life; requests see its `State`, `operator.py` has the operators' calls done.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lumen.audit import AuditLog
from lumen.catalogue import Catalogue
from lumen.config.adapters import model_of
from lumen.config.checks import check
from lumen.config.edit import edit, set_route
from lumen.config.load import load, locate
from lumen.config.schema import Config, Model
from lumen.core.errors import ConfigError, LumenError
from lumen.engines.base import ModelFiles
from lumen.engines.registry import engine
from lumen.gateway import overview, policyfile
from lumen.gateway.access import AccessLog
from lumen.gateway.acme import Acme
from lumen.gateway.billing import Billing
from lumen.gateway.cors import Cors
from lumen.gateway.estate import Ask
from lumen.gateway.health import Health
from lumen.gateway.hosts import Hosts
from lumen.gateway.live import Live
from lumen.gateway.metrics import Gauges, Metrics, Snapshot
from lumen.gateway.overview import Served
from lumen.gateway.payloads import Payloads
from lumen.gateway.retention import Retention, no_dumps
from lumen.gateway.settled import Later
from lumen.gateway.state import State
from lumen.gateway.table import Table, learning
from lumen.gateway.traces import Traces, usable
from lumen.gateway.upkeep import Keeper, prober
from lumen.hardware import detect, load_profiles, match, pick
from lumen.hardware.readings import Monitor
from lumen.hub import adapter, resolve
from lumen.keys import KeyRing
from lumen.keys import load as load_keys
from lumen.learning.learning import Learning, Outside
from lumen.learning.shelf import Shelf
from lumen.ledger.responses import Responses
from lumen.origins import Upstreams, hidden, offered, unlock
from lumen.paths import Paths
from lumen.reserves import claimed
from lumen.routing.plan import scorers
from lumen.tiny import NAME as TINY
from lumen.workers.machine import Machine as Memory
from lumen.workers.supervisor import ReplicaState, Supervisor

TINY_SOURCE = "builtin:tiny"
TINY_NOTICE = (
    "Only the built-in demonstration model is served: it is tiny, knows little, and is there to try things out."
)


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line may override. `succeed`: take over from the gateway that runs, see `handover/`."""

    config: Path | None = None
    host: str | None = None
    port: int | None = None
    profile: str | None = None
    succeed: bool = False


class Service:
    """Holds the parts together. `stop`: how an operator's wish to stop reaches the runtime.

    Raises:
        ConfigError: the configuration cannot be used.
    """

    def __init__(self, options: Options, where: Paths, stop: Callable[[], None]) -> None:
        self.options = options
        self.paths = self._paths = where
        self.stop = stop
        self.started = time.time()
        self.serving = False
        self.url = ""
        # What gets the endpoint's certificate, where the configuration says so.
        self.acme: Acme | None = None
        config = self.read_config()
        self.served = Served(config)
        named, profiles = options.profile or config.profile, load_profiles()
        self._machine = machine = detect()
        self.profile, self.why = pick(named, machine, profiles) if named else match(machine, profiles)
        self.memory = Memory(Monitor(), where.memory_file)
        self.supervisor = Supervisor(
            engine,
            where.run_dir,
            where.log_dir,
            self._replica_changed,
            memory=self.memory,
            kept=where.pool_file,
            hidden=hidden(config),
        )
        self.upstreams = Upstreams(self.supervisor)
        self.audit = AuditLog(where.audit_file)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._applying = asyncio.Lock()
        # Set whenever a replica has come to another state.
        self._moved = asyncio.Event()
        self._access = AccessLog(
            to_stderr,
            pretty=config.logging.format == "pretty",
            enabled=config.logging.level in ("debug", "info"),
        )
        self.metrics, self.live = Metrics(), Live()
        # What is only looked at is told of many requests together.
        self.later = Later((self._access, self.metrics, self.live))
        self.state = self._state(config)
        self._payloads = Payloads(where.payloads_dir, self.state.draw.random, say)
        self._keeper = Keeper(self.state.health, where.state_dir / "targets.json", say)
        self.shelf = Shelf(where.scorers_dir)
        self.learning = self._learning()

    def _state(self, config: Config) -> State:
        draw = random.Random()
        state = State(
            config=config,
            table=Table(Config(), self.upstreams.none(), int(self.started)),
            ring=KeyRing(),
            readiness=self,
            observers=(self.later,),
            draw=draw,
            health=Health(draw.random, asyncio.get_running_loop().time(), self.started),
            billing=Billing(self._paths.ledger_file, told=_ledger_told),
            expose=self._expose,
            responses=Responses(self._paths.ledger_file),
        )
        state.planner.wakes = self._wakes
        return state

    def _learning(self) -> Learning:
        return Learning(
            self.state,
            Outside(
                ledger=self._paths.ledger_file,
                kept=self._paths.trials_file,
                shelf=self.shelf,
                retains=lambda route, key: self.state.retention.retains(route, key),
                learnt=self.learnt,
                targets=self._set_targets,
                note=self._note,
                say=say,
            ),
        )

    @property
    def config(self) -> Config:
        return self.served.config

    @property
    def config_file(self) -> Path:
        """Where the configuration is read from."""
        return self.options.config or self._paths.config_file

    # -- life ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Sweep what an earlier run left, open the ledger, and put the configuration in force."""
        self._keeper.load(asyncio.get_running_loop().time())
        await self.state.billing.start()
        await self.supervisor.start()
        await self.apply(self.served.config)
        self._serve()
        await self.learning.start()

    async def start_beside(self) -> None:
        """The same while another gateway still serves: without the ledger, and its engines are left alone.

        Returns when every model has answered, or waits for memory that the other gateway holds.

        Raises:
            ConfigError: a model does not start, or not within its time.
        """
        self.state.released = asyncio.Event()
        await self.supervisor.start(beside=True)
        await self.apply(self.served.config)
        limit = max((model.start_timeout for model in self.served.config.models.values()), default=600.0)
        try:
            async with asyncio.timeout(limit):
                while not self._settled_beside():
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            raise ConfigError("the engines were not ready in time; the gateway that runs goes on") from None

    def _settled_beside(self) -> bool:
        states = self.supervisor.states()
        ready = self.served.ready(states, self.supervisor.standings())
        waiting = {state.model for state in states if state.state == "waiting"}
        for state in states:
            if state.state == "crashed" and not ready.get(state.model):
                raise ConfigError(f"model {state.model} does not start ({state.why}); the gateway that runs goes on")
        return all(ok or name in waiting or name in self.served.missing for name, ok in ready.items())

    def take_over(self) -> None:
        """The other gateway listens no more and has written down what it learned of the targets."""
        self._keeper.load(asyncio.get_running_loop().time())
        self._serve()

    async def inherit(self, *, lent: bool) -> None:
        """The other gateway has closed its ledger: it is this one's now. `lent`: the other still finishes requests."""
        await self.state.billing.start(shared=lent)
        if self.state.released is not None:
            self.state.released.set()
            self.state.released = None
        await self.learning.start()

    async def lend(self, ask: Ask) -> bool:
        """Let a successor, which `ask` reaches, keep the accounts; False: this gateway keeps them to its end."""
        await self.learning.close()
        return await self.state.billing.lend(ask)

    def save(self) -> None:
        """Write down what was learned of the targets."""
        self._keeper.save()

    def _serve(self) -> None:
        self.serving = True
        self._own(self._keeper.run())
        self._own(prober(self.state.health, self.upstreams.alive))

    async def close(self, grace: float, released: Callable[[], None] | None = None) -> None:
        """Engines have `grace` seconds; what was learned and spent is written.

        Args:
            released: called once the ledger is closed, which a gateway that takes over waits for.
        """
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.learning.close()
        self.upstreams.close()
        await self.state.billing.stop()
        if self.state.responses is not None:
            await asyncio.to_thread(self.state.responses.close)
        if released is not None:
            released()
        await self.supervisor.stop(grace)
        await self.memory.close()
        self._keeper.save()
        await asyncio.to_thread(self._payloads.close)
        if self.state.traces is not None:
            await asyncio.to_thread(self.state.traces.close)
        self.later.flush()
        self._access.flush()

    def _own(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- configuration ---------------------------------------------------------------------------------------

    def read_config(self) -> Config:
        """The file, what the command line lays over it, and the built-in model where nothing else is asked for."""
        config = load(locate(self.options.config, self._paths.config_file))
        server = config.server
        if self.options.host is not None:
            server = replace(server, host=self.options.host)
        if self.options.port is not None:
            server = replace(server, port=self.options.port)
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
            usable(config.traces)
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
            own = await asyncio.to_thread(
                policyfile.read_all, [route.policy for route in config.routes.values()], self.config_file.parent, say
            )
            table = Table(config, self.upstreams.of(settled, names, opened), int(time.time()), own)
            learnt = await asyncio.to_thread(scorers.read, self.shelf, learning(table))
            table.offer(await asyncio.to_thread(offered, catalogue, opened))
            ring = load_keys(self._paths.keys_file) if config.auth.required else None
            # What a model costs is not what a process runs.
            processes = {name: (replace(model, price=None), files) for name, (model, files) in wanted.items()}
            # Nothing is changed before all of it is known to be good.
            self.supervisor.check(processes)
            retention = Retention(config, ring)
            self.supervisor.private = retention.any
            if retention.any and not no_dumps():
                # Before an engine starts, which inherits it.
                say("this system cannot be told to keep memory out of crash dumps; see to it that it writes none")
            if config.retention == "none":
                # Kept by what was in force before; workers that run hold the folder, and write nothing once it is gone.
                await asyncio.to_thread(_delete, self._paths.prefixes_dir)
            await self.memory.adopt(processes, claimed(config, ring.keys if ring is not None else (), time.time()))
            await self.supervisor.apply(processes)
            sources = {name: model.source for name, (model, _) in wanted.items()}
            notice = TINY_NOTICE if set(sources) == {TINY} else None
            self.served = Served(config, sources, missing, notice, TINY_SOURCE)
            self.state.config, self.state.table, self.state.ring = config, table, ring
            self.state.hosts = Hosts((*config.server.names, config.server.host, socket.gethostname()))
            self.state.cors = Cors(config.server.cors) if config.server.cors else None
            self.state.retention = retention
            before, self.state.traces = self.state.traces, self._traced(config)
            self._payloads.configure(config, retention)
            self.state.payloads = self._payloads if self._payloads.wanted else None
            self.state.billing.configure(config, ring)
            self.state.planner.learn(learnt)
            self.learning.configured()
            if before is not None and before is not self.state.traces:
                await asyncio.to_thread(before.close)

    async def _set_targets(self, route: str, targets: list[Any]) -> None:
        """Write a route's targets into the configuration, its comments kept, and put it in force."""
        await asyncio.to_thread(edit, self.config_file, lambda text: set_route(text, route, {"targets": targets}))
        await self.apply(self.read_config())

    async def _note(self, action: str, subject: str, who: str, details: Mapping[str, Any]) -> None:
        """Write down what was changed by itself."""
        try:
            await asyncio.to_thread(self.audit.add, action, subject, who, **details)
        except (OSError, TimeoutError) as error:
            say(f"the audit log cannot be written: {error}")

    async def learnt(self) -> None:
        """Put the live versions of all scorers in force: call it when one of them was learnt, chosen or taken back."""
        async with self._applying:
            found = await asyncio.to_thread(scorers.read, self.shelf, learning(self.state.table))
            self.state.planner.learn(found)

    def _wakes(self, name: str) -> float:
        """Seconds until a local model would serve; 0: it does, or nobody knows."""
        standing = self.supervisor.standings().get(model_of(name, self.served.config.models))
        if standing is None or standing.residency == "resident":
            return 0.0
        return standing.wakes.get("asleep" if standing.residency == "asleep" else "off", 0.0)

    def _traced(self, config: Config) -> Traces | None:
        """Who sends spans, the one that does already where nothing of it changed."""
        now = self.state.traces
        if config.traces.endpoint is None:
            return None
        return now if now is not None and now.wanted == config.traces else Traces(config.traces, self.state.draw, say)

    async def _files(self, config: Config) -> tuple[dict[str, tuple[Model, ModelFiles]], dict[str, str]]:
        """The models whose files are here, and what to do about the others."""
        wanted: dict[str, tuple[Model, ModelFiles]] = {}
        missing: dict[str, str] = {}
        base = self.config_file.parent
        for name, model in config.models.items():
            named = config.models.get(model.draft or "")
            draft = named.source if named is not None else model.draft
            files = await asyncio.to_thread(
                resolve, model.source, self._paths, draft=draft, adapters=model.adapters, base=base
            )
            if files is None:
                missing[name] = await asyncio.to_thread(self._missing, model, draft, base)
            else:
                wanted[name] = await asyncio.to_thread(self._settled, model, replace(files, name=name))
        return wanted, missing

    def _missing(self, model: Model, draft: str | None, base: Path) -> str:
        """What to do about a model whose files are not all here. Blocking."""
        if resolve(model.source, self._paths, base=base) is None:
            return f"not on this disk yet; run: lumen pull {model.source}"
        for name, source in model.adapters.items():
            if adapter(source, self._paths, base) is None:
                return f"its adapter {name} is not on this disk: {source}"
        return f"not on this disk yet; run: lumen pull {draft}"

    def _settled(self, model: Model, files: ModelFiles) -> tuple[Model, ModelFiles]:
        """What the profile, then the model's files and this machine, decide of what its user left open. Blocking."""
        try:
            return engine(model.engine).settle(files, self.profile.apply(model), self._machine), files
        except ConfigError as error:
            raise ConfigError(f"model '{files.name}': {error.message}") from None

    async def _stopgap(self, wanted: dict[str, tuple[Model, ModelFiles]]) -> bool:
        """Whether the built-in model must answer for now: real ones are configured, but none of them does yet."""
        if not self.served.config.models:
            return False
        if not wanted:
            return bool(self.served.missing) or TINY in self.served.sources or not self.served.sources
        ready = self.served.ready(self.supervisor.states())
        return TINY in self.served.sources and not any(ready.get(name) for name in wanted)

    async def _tiny(self) -> tuple[Model, ModelFiles]:
        files = await asyncio.to_thread(resolve, TINY_SOURCE, self._paths)
        assert files is not None
        return self.profile.apply(Model(source=TINY_SOURCE)), replace(files, name=TINY)

    def _replica_changed(self, state: ReplicaState) -> None:
        self._moved.set()
        # It waits for its turn, which it usually has at once.
        if state.state != "waiting":
            say(f"model {state.model} replica {state.index}: {state.state}" + (f" ({state.why})" if state.why else ""))
        stopgap = TINY in self.served.sources and TINY not in self.served.config.models
        if stopgap and state.state == "ready" and state.model != TINY:
            self._own(self.apply(self.served.config))

    # -- what requests ask -----------------------------------------------------------------------------------

    def ready(self) -> dict[str, bool]:
        return self.served.ready(self.supervisor.states(), self.supervisor.standings())

    def _expose(self) -> Snapshot:
        self.later.flush()
        targets = self.state.health.snapshot(asyncio.get_running_loop().time())
        states, standings = self.supervisor.states(), self.supervisor.standings()
        return Snapshot(self.metrics, Gauges(overview.gauges(self.state, self.served, states, standings, targets)))


class AlreadyRunning(LumenError):
    status = 409
    code = "already_running"


def _ledger_told(why: str | None) -> None:
    say("the ledger is well again" if why is None else f"the ledger is in trouble, paid requests are refused: {why}")


def _delete(folder: Path) -> None:
    """With all that is in it, although somebody may be writing just now."""
    for _ in range(3):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
    say(f"{folder} cannot be deleted, and nothing may be kept: delete it")


def say(text: str) -> None:
    """One line to the log."""
    to_stderr(f"{time.strftime('%H:%M:%S')} {text}\n")


def to_stderr(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
