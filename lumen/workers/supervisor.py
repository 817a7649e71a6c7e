"""The supervisor: local models as sets of replicas, kept as configured, and leases on those that are ready."""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path

from lumen.config.schema import Model
from lumen.core.errors import ConfigError, UnavailableError
from lumen.engines.base import Engine, ModelFiles, Place
from lumen.workers.group import Group
from lumen.workers.lifecycle import Timing
from lumen.workers.load import Lease
from lumen.workers.replica import Replica
from lumen.workers.spec import SOCKETS, Home, ReplicaState, Spec
from lumen.workers.sweep import Marks, home_of, of_others, of_run, sweep

__all__ = ["Lease", "ReplicaState", "Supervisor", "Timing"]

_logger = logging.getLogger(__name__)


class Supervisor:
    """Runs and watches every local engine. All methods belong to one event loop.

    `hidden`: names of environment variables (keys of remote providers) that no engine may see.
    """

    def __init__(
        self,
        engines: Callable[[str], Engine],
        run_dir: Path,
        log_dir: Path,
        on_change: Callable[[ReplicaState], None],
        *,
        timing: Timing | None = None,
        hidden: Collection[str] = (),
    ) -> None:
        self._engines = engines
        self._on_change = on_change
        self._home = Home(
            run_dir=run_dir,
            log_dir=log_dir,
            marks=Marks(home_of(run_dir), secrets.token_hex(6)),
            timing=timing or Timing(),
            numbers=itertools.count(1),
            hidden=frozenset(hidden),
        )
        self._groups: dict[str, Group] = {}
        self._leaving: set[Group] = set()
        self._stopped = False

    async def start(self) -> None:
        """Kill what an earlier gateway in this run folder left behind. The caller holds the folder's lock."""
        home = self._home
        home.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        killed, gone = await asyncio.to_thread(sweep, of_others(home.marks), home.timing.sweep)
        if killed:
            _logger.warning("killed %d engine processes that an earlier run left behind", len(killed))
        if not gone:
            _logger.error("some engine processes of an earlier run cannot be killed")
        for stale in home.run_dir.glob(SOCKETS):
            stale.unlink(missing_ok=True)

    async def apply(self, models: Mapping[str, tuple[Model, ModelFiles]]) -> None:
        """Make it so: start, stop or replace what differs by value; never waits for readiness.

        A changed model keeps its old replicas serving until new ones are ready. All or nothing: where one
        model cannot be, nothing changes.

        Raises:
            ConfigError: unknown engine, or options that it does not take.
        """
        if self._stopped:
            return
        wanted = {name: self._spec(name, model, files) for name, (model, files) in models.items()}
        for name in [name for name in self._groups if name not in wanted]:
            group = self._groups.pop(name)
            self._leaving.add(group)
            group.dismiss(self._home.timing.replaced)
        for name, (spec, beside) in wanted.items():
            found = self._groups.get(name)
            if found is None:
                found = self._groups[name] = Group(name, self._home, self._changed)
            found.want(spec, models[name][0], beside)

    async def acquire(self, model: str, timeout: float) -> Lease:
        """A ready replica, the least busy first; waits up to `timeout` seconds while the model starts.

        Raises:
            UnavailableError: 503 where none gets ready in time or the model cannot be started, 429 where
                too many requests are on it already; `retry_after` says when to come back.
        """
        group = self._groups.get(model)
        if self._stopped or group is None:
            raise UnavailableError(f"The model '{model}' is not being served.", code="model_not_ready")
        return await group.acquire(timeout)

    def states(self) -> list[ReplicaState]:
        """Every replica there is, also those that are ending."""
        groups = (*self._groups.values(), *self._leaving)
        found = [replica.state() for group in groups for replica in group.replicas]
        return sorted(found, key=lambda state: (state.model, state.index))

    async def restart(self, model: str) -> None:
        """Replace the replicas of `model` by new ones, without a gap in service; never waits for readiness.

        Raises:
            UnavailableError: there is no such model.
        """
        group = self._groups.get(model)
        if group is None:
            raise UnavailableError(f"The model '{model}' is not being served.", code="model_not_ready")
        group.renew()

    async def stop(self, grace: float) -> None:
        """End everything: answers have `grace` seconds, then the engines are killed. Nothing is left behind."""
        self._stopped = True
        groups = {*self._groups.values(), *self._leaving}
        self._groups.clear()
        self._leaving |= groups
        for group in groups:
            group.dismiss(grace)
        await asyncio.gather(*(group.gone() for group in groups))
        home = self._home
        killed, gone = await asyncio.to_thread(sweep, of_run(home.marks), home.timing.sweep)
        if killed or not gone:
            _logger.warning("%d engine processes had to be killed at the end", len(killed))

    def _spec(self, name: str, model: Model, files: ModelFiles) -> tuple[Spec, bool]:
        files = replace(files, name=name)
        try:
            engine = self._engines(model.engine)
            # A dry run, so that a bad option is an error of the configuration, not of a process.
            launch = engine.launch(files, model, Place(socket=self._home.run_dir / "dry", port=1))
        except ConfigError as error:
            raise ConfigError(f"model '{name}': {error.message}") from None
        # How many there are and how many requests may wait is not what a process runs.
        same = replace(model, replicas=1, queue=0)
        return Spec(name, same, files, engine), launch.fixed_port is None

    def _changed(self, group: Group, replica: Replica) -> None:
        # Not called from here: an error of the listener must not reach the replica's owner.
        asyncio.get_running_loop().call_soon(self._on_change, replica.state())
        if not group.replicas:
            self._leaving.discard(group)
