"""What the tests of supervision share: an engine of fake workers, and a supervisor that must leave nothing."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from lumen.config.schema import Model
from lumen.engines.base import Launch, ModelFiles, Place, Request, Sleeping
from lumen.workers.lifecycle import Timing
from lumen.workers.supervisor import Lease, ReplicaState, Supervisor
from lumen.workers.sweep import REPLICA, RUN_DIR, home_of

PROGRAM = Path(__file__).with_name("fake_worker.py")
# As in life, only quicker: a process of Python takes a tenth of a second to start.
QUICK = Timing(
    backoff=0.02, backoff_most=0.1, first_probe=10.0, probe_pause=0.02, poll=0.02, watch=300.0, watch_limit=0.5,
    replaced=60.0, last_words=0.3, sweep=30.0,
)  # fmt: skip


_SLEEPING = Sleeping(Request("POST", "/sleep"), Request("POST", "/wake"), Request("GET", "/"))


class Fake:
    """The fake worker as an engine. Options: `modes`, `listen` (socket or port), `phases`, `sleeps`, `grace` …"""

    name = "fake"
    absent: str | None = None

    def missing(self) -> str | None:
        return self.absent

    def launch(self, files: ModelFiles, model: Model, place: Place) -> Launch:
        options = model.options
        fixed = options.get("fixed_port")
        port = fixed or place.port
        on_port = options.get("listen") == "port" or fixed is not None
        modes = [*options.get("modes", ()), *(["phases"] if options.get("phases", True) else [])]
        where = ["--port", str(port)] if on_port else ["--socket", str(place.socket)]
        return Launch(
            argv=(options.get("program", sys.executable), str(PROGRAM), *where, *modes),
            socket=None if on_port else place.socket,
            base_url=f"http://127.0.0.1:{port}" if on_port else "http://localhost",
            phases=options.get("phases", True),
            health=options.get("health"),
            fixed_port=fixed,
            at_once=options.get("at_once"),
            sleeping=_SLEEPING if options.get("sleeps") else None,
            grace=options.get("grace", 5.0),
        )

    def probe(self, files: ModelFiles, model: Model) -> tuple[str, Mapping[str, Any]]:
        return "/v1/completions", {"model": files.name, "prompt": "?", "max_tokens": 1}


def fake_model(*modes: str, queue: int = 16, start_timeout: float = 90.0, **keys: Any) -> Model:
    """`keys`: fields of a model; any other is an option of the engine."""
    known = {field.name for field in fields(Model)}
    options = {"modes": list(modes)} | {key: value for key, value in keys.items() if key not in known}
    model = Model(source="fake", engine="fake", queue=queue, start_timeout=start_timeout, options=options)
    return replace(model, **{key: value for key, value in keys.items() if key in known})


def wanted(**models: Model) -> dict[str, tuple[Model, ModelFiles]]:
    return {name: (model, ModelFiles(name, Path("/none"))) for name, model in models.items()}


def run(work: Coroutine[Any, Any, None], limit: float = 280.0) -> None:
    asyncio.run(asyncio.wait_for(work, limit))


async def until(done: Callable[[], object], limit: float = 100.0) -> None:
    """Look again and again, within a limit: what is waited for happens in another process."""
    async with asyncio.timeout(limit):
        while not done():
            await asyncio.sleep(0.01)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def sockets(run_dir: Path) -> list[Path]:
    return list(run_dir.glob("*.sock"))


def marked(run_dir: Path) -> dict[int, str]:
    """Process id → replica mark of everything alive that was started for this run folder."""
    found = {}
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            if environment.get(RUN_DIR) == home_of(run_dir) and process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = environment[REPLICA]
        except (psutil.Error, OSError):
            continue
    return found


class Watched(Supervisor):
    """A supervisor with what the tests look at."""

    seen: list[ReplicaState]
    engine: Fake

    def count(self, state: str, model: str = "m") -> int:
        return sum(one.state == state and one.model == model for one in self.states())

    def count_all(self, state: str) -> int:
        return sum(one.state == state for one in self.states())

    def pids(self) -> list[int]:
        return [one.pid for one in self.states() if one.pid is not None and one.state == "ready"]


@asynccontextmanager
async def supervising(run_dir: Path, timing: Timing = QUICK, **rest: Any) -> AsyncIterator[Watched]:
    """A supervisor; afterwards no process, task, socket or descriptor of it may be left."""
    open_before, tasks = descriptors(), asyncio.all_tasks()
    seen: list[ReplicaState] = []
    fake = Fake()
    supervisor = Watched(lambda name: fake, run_dir, run_dir / "logs", seen.append, timing=timing, **rest)
    supervisor.seen, supervisor.engine = seen, fake
    await supervisor.start()
    try:
        yield supervisor
    finally:
        await supervisor.stop(0.0)
    assert marked(run_dir) == {}
    assert sockets(run_dir) == []
    assert supervisor.states() == []
    await until(lambda: asyncio.all_tasks() == tasks)
    await until(lambda: descriptors() <= open_before)


async def ask(lease: Lease, path: str, method: str = "GET") -> dict[str, Any]:
    connector = aiohttp.UnixConnector(str(lease.socket)) if lease.socket else None
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.request(method, lease.base_url + path, data=b"") as answer,
    ):
        said: dict[str, Any] = json.loads(await answer.read())
        return said


def slower(**changes: float) -> Timing:
    return replace(QUICK, **changes)
