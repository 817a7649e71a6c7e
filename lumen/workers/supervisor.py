"""The supervisor: local models as sets of replicas, kept as configured, and leases on those that are ready."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import secrets
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from lumen.config.schema import Model
from lumen.core.errors import ConfigError, UnavailableError
from lumen.engines.base import Engine, ModelFiles, Place
from lumen.workers.group import Group, Prompt
from lumen.workers.lifecycle import Timing
from lumen.workers.load import Lease
from lumen.workers.logs import log_path
from lumen.workers.pool import Pool
from lumen.workers.remembered import Remembered
from lumen.workers.replica import Replica
from lumen.workers.seats import Boundless, Memory
from lumen.workers.spec import SOCKETS, Home, ReplicaState, Spec, Standing
from lumen.workers.sweep import Marks, home_of, of_others, of_run, sweep

__all__ = ["Lease", "Prompt", "ReplicaState", "Standing", "Supervisor", "Timing"]

_logger = logging.getLogger(__name__)
# Starts that a gateway beside this one may still make before it hands over.
_FURTHER = 1000
# What does not change the process that runs: how many there are, how long they stay, who may wait for them.
_ANY = Model("", min_residency=0.0)
_OUTSIDE = (
    "replicas",
    "min_replicas",
    "max_replicas",
    "keep_alive",
    "idle_after",
    "min_residency",
    "pinned",
    "reserve",
    "prewarm",
)


class Supervisor:
    """Runs and watches every local engine. All methods belong to one event loop.

    `memory`: the devices of this machine; without it nobody counts them. `kept`: the file in which it is remembered
    how models are used and what it takes to wake them. `hidden`: names of environment variables (keys of remote
    providers) that no engine may see.
    """

    def __init__(
        self,
        engines: Callable[[str], Engine],
        run_dir: Path,
        log_dir: Path,
        on_change: Callable[[ReplicaState], None],
        *,
        memory: Memory | None = None,
        kept: Path | None = None,
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
            freed=lambda: self._pool.freed(),
            private=lambda: self.private,
        )
        # Whether nothing of what engines are asked may be kept; in force for those that start from then on.
        self.private = False
        self._remembered = Remembered(kept)
        self._pool = Pool(self._home, memory or Boundless(), self._remembered.models, self._changed)
        self._stopped = False
        # Sockets of a gateway beside this one.
        self._theirs: list[Path] = []

    async def start(self, *, beside: bool = False) -> None:
        """Kill what an earlier gateway in this run folder left behind. The caller holds the folder's lock.

        Args:
            beside: that gateway still runs and is handing over; its engines are left alone until `alone` is called.
        """
        home = self._home
        home.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if beside:
            self._theirs = list(home.run_dir.glob(SOCKETS))
            # No socket of ours may have the name of one of theirs, which ends in the number of its start.
            last = max((int(path.stem.rpartition("-")[2]) for path in self._theirs), default=0)
            deque(itertools.islice(home.numbers, last + _FURTHER), maxlen=0)
        else:
            await self._sweep(home.run_dir.glob(SOCKETS))
        await self._remembered.start()

    async def alone(self) -> None:
        """The gateway that this one was started beside has ended: what it left is killed."""
        await self._sweep(self._theirs)
        self._theirs = []

    async def _sweep(self, stale: Iterable[Path]) -> None:
        home = self._home
        killed, gone = await asyncio.to_thread(sweep, of_others(home.marks), home.timing.sweep)
        if killed:
            _logger.warning("killed %d engine processes that an earlier run left behind", len(killed))
        if not gone:
            _logger.error("some engine processes of an earlier run cannot be killed")
        for path in stale:
            path.unlink(missing_ok=True)

    def check(self, models: Mapping[str, tuple[Model, ModelFiles]]) -> None:
        """Whether `apply` takes them; changes nothing.

        Raises:
            ConfigError: as `apply`.
        """
        for name, (model, files) in models.items():
            self._spec(name, model, files)

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
        self._pool.adopt({name: (spec, models[name][0], beside) for name, (spec, beside) in wanted.items()})

    def log(self, model: str, index: int) -> Path:
        """Where a replica's engine writes what it says; there or not."""
        return log_path(self._home.log_dir, model, index)

    async def acquire(
        self, model: str, timeout: float, prompt: Prompt | None = None, patience: float = math.inf
    ) -> Lease:
        """A ready replica, the least busy first; waits up to `timeout` seconds while the model starts or wakes.

        Args:
            timeout: infinite: as long as its start may take, be that one which began while the request waited.
            prompt: the blocks of the prompt, asked for only where several replicas could answer it: it goes where
                its beginning was computed before.
            patience: seconds that it may wait for its turn; where that would likely be longer, it is refused at once.
                Engines that see to that themselves are asked all the same.

        Raises:
            WakingError: none got ready in time; the model goes on starting.
            UnavailableError: 503 where the model cannot be started, 429 where too many requests are on it already;
                `retry_after` says when to come back.
        """
        return await self._group(model).acquire(timeout, prompt, patience)

    def spare(self, model: str) -> bool:
        """Whether a request that one replica fails could go to another, about which nothing is wrong."""
        member = self._pool.members.get(model)
        return member is not None and member.group.spare

    def states(self) -> list[ReplicaState]:
        """Every replica there is, also those that are ending."""
        return sorted((one.state() for one in self._pool.replicas()), key=lambda state: (state.model, state.index))

    def standings(self) -> dict[str, Standing]:
        """Every model, by name."""
        return {name: self._pool.standing(name) for name in self._pool.members}

    def sleep(self, model: str) -> None:
        """Have a model sleep as soon as its answers are done, or end where its engine cannot; until it is asked for.

        Raises:
            UnavailableError: there is no such model.
        """
        self._pool.sleep(self._group(model).name)

    def wake(self, model: str) -> None:
        """Load or wake a model as if it were asked for; never waits for readiness.

        Raises:
            UnavailableError: there is no such model.
        """
        self._pool.wake(self._group(model).name)

    async def restart(self, model: str) -> None:
        """Replace the replicas of `model` by new ones, without a gap in service; never waits for readiness.

        Raises:
            UnavailableError: there is no such model.
        """
        self._group(model).renew()

    async def stop(self, grace: float) -> None:
        """End everything: answers have `grace` seconds, then the engines are killed. Nothing is left behind."""
        self._stopped = True
        await asyncio.gather(*(group.gone() for group in self._pool.dismiss(grace)))
        await self._pool.close()
        await self._remembered.stop()
        home = self._home
        killed, gone = await asyncio.to_thread(sweep, of_run(home.marks), home.timing.sweep)
        if killed or not gone:
            _logger.warning("%d engine processes had to be killed at the end", len(killed))

    def _group(self, model: str) -> Group:
        member = None if self._stopped else self._pool.members.get(model)
        if member is None:
            raise UnavailableError(f"The model '{model}' is not being served.", code="model_not_ready")
        return member.group

    def _spec(self, name: str, model: Model, files: ModelFiles) -> tuple[Spec, bool]:
        files = replace(files, name=name)
        try:
            engine = self._engines(model.engine)
            # A dry run, so that a bad option is an error of the configuration, not of a process.
            launch = engine.launch(files, model, Place(socket=self._home.run_dir / "dry", port=1))
        except ConfigError as error:
            raise ConfigError(f"model '{name}': {error.message}") from None
        same = replace(model, queue=0, **{name: getattr(_ANY, name) for name in _OUTSIDE})
        return Spec(name, same, files, engine), launch.fixed_port is None

    def _changed(self, replica: Replica) -> None:
        # Not called from here: an error of the listener must not reach the replica's owner.
        asyncio.get_running_loop().call_soon(self._on_change, replica.state())
